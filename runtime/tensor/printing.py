"""How a Tensor prints: PyTorch's format."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops.places import to_numpy
from ...ops.types import is_float

if TYPE_CHECKING:
    from .tensor import Tensor


@dataclass
class Options:
    """How numbers print.

    Attributes:
        precision: digits behind the point.
        threshold: with more elements than that only the ends of each axis are shown.
        edgeitems: so many entries at each end.
        linewidth: characters a line.
        sci_mode: powers of ten always (True), never (False), or where numbers are far apart (None).
    """

    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


OPTIONS = Options()
PROFILES: dict[str, dict[str, Any]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": math.inf, "edgeitems": 3, "linewidth": 80},
}


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Set how Tensors print; see `Options`. `profile` is `default`, `short` or `full`."""
    chosen: dict[str, Any] = dict(PROFILES.get(profile or "", {}))
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    chosen.update({k: v for k, v in given.items() if v is not None})
    for name, value in chosen.items():
        setattr(OPTIONS, name, value)
    OPTIONS.sci_mode = sci_mode


def get_printoptions() -> dict[str, Any]:
    """Return the settings, as `set_printoptions` takes them."""
    return asdict(OPTIONS)


@contextlib.contextmanager
def printoptions(**kwargs: Any) -> Iterator[None]:
    """Set how Tensors print for the time of a `with` block."""
    before = get_printoptions()
    set_printoptions(**kwargs)
    try:
        yield
    finally:
        set_printoptions(**before)


def show(t: Tensor) -> str:
    """Return a Tensor as PyTorch prints it."""
    from ..nn.parameter import Parameter
    from .tensor import Tensor

    array = to_numpy(t._array)
    prefix = "tensor(" if type(t) in (Tensor, Parameter) else f"{type(t).__name__}("
    suffixes = [] if t.device == "cpu" else [f"device='{t.device}'"]
    if not array.size and array.dtype != object:
        if array.ndim != 1:
            suffixes.append(f"size={tuple(array.shape)}")
        usual = array.dtype == Tensor.default_dtype
    else:
        usual = array.dtype in (Tensor.default_dtype, np.dtype(np.int64), np.dtype(bool))
    if not usual:
        suffixes.append(f"dtype={array.dtype}")
    if t.grad_fn is not None:
        suffixes.append(f"grad_fn=<{t.grad_fn.name()}>")
    elif t.requires_grad:
        suffixes.append("requires_grad=True")
    return _with_suffixes(prefix + _body(array, len(prefix)), suffixes, len(prefix))


def _with_suffixes(text: str, suffixes: list[str], indent: int) -> str:
    parts = [text]
    width = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if width + len(suffix) + 2 > OPTIONS.linewidth:
            parts.append(",\n" + " " * indent + suffix)
            width = indent + len(suffix)
        else:
            parts.append(", " + suffix)
            width += len(suffix) + 2
    return "".join(parts) + ")"


def _body(array: Any, indent: int) -> str:
    if array.dtype == object:
        return str(array.tolist())
    if not array.size:
        return "[]"
    numbers = array.astype(np.float64) if is_float(array.dtype) else array
    short = array.size > OPTIONS.threshold
    one, width = _format(_ends(numbers) if short else numbers)
    return one(numbers.item()) if array.ndim == 0 else _rows(numbers, one, width, indent, short)


def _ends(array: Any) -> Any:
    """Return what is shown of a large array."""
    edge = OPTIONS.edgeitems
    for axis, n in enumerate(array.shape):
        if n > 2 * edge:
            array = array.take([*range(edge), *range(n - edge, n)], axis=axis)
    return array


def _format(seen: Any) -> tuple[Callable[[Any], str], int]:
    """Return how one number prints among these, and how wide."""
    values = seen.reshape(-1)
    if values.dtype.kind != "f":
        width = max((len(str(v)) for v in values.tolist()), default=1)
        return lambda v: str(v).rjust(width), width
    finite = values[np.isfinite(values) & (values != 0)]
    if not finite.size:
        return lambda v: f"{v:.0f}." if math.isfinite(v) else f"{v:.0f}", 1
    small, large = np.abs(finite).min(), np.abs(finite).max()
    whole = bool((finite == np.ceil(finite)).all())
    digits, powers = OPTIONS.precision, OPTIONS.sci_mode
    if powers is None:
        with np.errstate(over="ignore"):
            powers = bool(large / small > 1000.0 or large > 1.0e8 or small < 1.0e-4)
    texts = (f"{v:.{digits}e}" if powers else f"{v:.0f}." if whole else f"{v:.{digits}f}" for v in finite.tolist())
    width = max(1, *(len(t) for t in texts))
    if powers:
        return lambda v: f"{v:{width}.{digits}e}", width
    if whole:
        return lambda v: (f"{v:.0f}." if math.isfinite(v) else f"{v:.0f}").rjust(width), width
    return lambda v: f"{v:.{digits}f}".rjust(width), width


def _rows(array: Any, one: Callable[[Any], str], width: int, indent: int, short: bool) -> str:
    n, edge = array.shape[0], OPTIONS.edgeitems
    cut = short and n > 2 * edge
    chosen = [*range(edge), None, *range(n - edge, n)] if cut else [*range(n)]
    if array.ndim == 1:
        parts = [" ..." if i is None else one(array[i].item()) for i in chosen]
        per_line = max(1, math.floor((OPTIONS.linewidth - indent) / (width + 2)))
        lines = [", ".join(parts[k : k + per_line]) for k in range(0, len(parts), per_line)]
        return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"
    parts = ["..." if i is None else _rows(array[i], one, width, indent + 1, short) for i in chosen]
    return "[" + (",\n" + "\n" * (array.ndim - 2) + " " * (indent + 1)).join(parts) + "]"  # type: ignore[no-any-return]
