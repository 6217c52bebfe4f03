"""What CuPy 14.2 lacks of NumPy 2.4: functions, and arguments of functions that it has."""

from __future__ import annotations

_ABSENT = (
    "False_ ScalarType True_ asmatrix block bmat busday_count busday_offset busdaycalendar bytes_ char character "
    "clongdouble complex256 core ctypeslib datetime64 datetime_as_string datetime_data dtypes einsum_path emath "
    "errstate f2py flexible float128 frompyfunc fromregex geomspace get_include getbufsize geterr geterrcall "
    "histogram_bin_edges info insert is_busday isnat little_endian longdouble ma matrix matvec memmap nanpercentile "
    "nanquantile ndenumerate nditer nested_iters object_ polyder polydiv polyint rec recarray record sctypeDict "
    "setbufsize seterr seterrcall show_runtime spacing str_ strings test timedelta64 typecodes unstack vecdot vecmat "
    "void "
)

_LACKING = (
    "all: where; amax: initial where; amin: initial where; any: where; arange: start_or_stop device like; "
    "argpartition: kind order; argsort: order stable; array: object ndmax like; array_str: a; asanyarray: device "
    "like; asarray: device like; ascontiguousarray: like; asfortranarray: like; astype: device; broadcast_arrays: "
    "subok; broadcast_to: subok; clip: min max; concat: arrays; concatenate: arrays; copy: subok; corrcoef: x; "
    "count_nonzero: keepdims; cov: m; delete: obj; ediff1d: ary; empty: device like; empty_like: device; extract: "
    "arr; eye: device like; flip: m; fliplr: m; flipud: m; full: device like; full_like: device; histogram: a; "
    "identity: like; indices: sparse; intersect1d: ar1 ar2; isin: kind; lexsort: axis; linspace: device; load: "
    "fix_imports encoding max_header_size; max: initial where; mean: where; min: initial where; nanmax: initial "
    "where; nanmean: where; nanmin: initial where; nanprod: initial where; nanstd: where mean correction; nansum: "
    "initial where; nanvar: where mean correction; ones: device like; ones_like: device; partition: kind order; "
    "percentile: weights; prod: initial where; quantile: weights; require: like; reshape: shape; rot90: m; "
    "show_config: mode; sort: order stable; stack: arrays; std: where mean correction; sum: initial where; take: "
    "mode; take_along_axis: arr; tri: like; trim_zeros: axis; union1d: ar1 ar2; unique: sorted; unpackbits: count; "
    "unravel_index: shape; var: where mean correction; zeros: device like; zeros_like: device "
)

_LACKING_METHODS = (
    "all: where; any: where; argpartition: kind order; argsort: order stable; max: initial where; mean: where; min: "
    "initial where; prod: initial where; sort: order stable; std: where mean correction; sum: initial where; take: "
    "mode; var: where mean correction "
)


def _table(text: str) -> dict[str, str]:
    return {name.strip(): arguments.strip() for name, arguments in (row.split(":") for row in text.split(";"))}


ABSENT = frozenset(_ABSENT.split())
"""Names of the module."""

LACKING = _table(_LACKING)
"""By the function's name, the arguments that it does not take, or calls otherwise."""

LACKING_METHODS = _table(_LACKING_METHODS)
"""The same of the methods of arrays."""
