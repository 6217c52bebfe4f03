"""Every op's array kernel on arrays that never meet NumPy's: what runs here runs on CuPy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.kernels.array.host import HOST_KERNELS, WAITING
from onnxgrad.ops.types import is_float

from . import cupy_gaps, device_arrays
from .case import OpCase
from .device_arrays import SYNCS, ndarray, upload
from .test_cases import CASES, each, flat


@pytest.fixture(autouse=True)
def _device() -> Iterator[None]:
    with device_arrays.installed():
        yield


def there(a: Any) -> Any:
    """Return an argument on the device: arrays, also in lists."""
    if isinstance(a, list):
        return [there(v) for v in a]
    return upload(a) if isinstance(a, np.ndarray) and a.dtype in device_arrays.SUPPORTED else a


def here(a: Any) -> Any:
    if isinstance(a, list | tuple):
        return type(a)(here(v) for v in a)
    return a._host if isinstance(a, ndarray) else a


def same(found: Any, wanted: Any, tol: float) -> None:
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    if is_float(wanted.dtype):
        np.testing.assert_allclose(found.astype(float), wanted.astype(float), rtol=tol, atol=tol)
    else:
        np.testing.assert_array_equal(found, wanted)


HOST_RESULTS = {"optional_has_element", "sequence_length", "shape_of", "size_of", "transfer"}
"""Ops whose results lie on the host by design: sizes, which the host needs to go on."""


@each
def test_value(case: OpCase) -> None:
    wanted = flat(case.op(*case.args, **case.attrs))
    given = [there(a) for a in case.args]
    found = flat(case.op(*given, **case.attrs))
    on_device = any(isinstance(a, ndarray) for a in device_arrays.arrays_in(given))
    for f, w in zip(found, wanted, strict=True):
        same(here(f), w, 1e-12)
        if on_device and case.op.name not in HOST_RESULTS and getattr(w, "dtype", None) in device_arrays.SUPPORTED:
            assert isinstance(f, ndarray)


def test_the_device_is_waited_for_only_where_a_shape_or_the_host_hangs_on_values() -> None:
    waiting: set[str] = set()
    for case in CASES:
        given = [there(a) for a in case.args]
        if any(True for _ in device_arrays.arrays_in(given)):
            SYNCS.clear()
            case.op(*given, **case.attrs)
            if SYNCS:
                waiting.add(case.op.name)
    assert waiting - HOST_KERNELS == WAITING and waiting >= HOST_KERNELS


@pytest.mark.skipif(find_spec("cupy") is None, reason="CuPy is not installed")
def test_the_gaps_are_those_of_cupy() -> None:
    """`cupy_gaps.py` says what the CuPy that is installed lacks."""
    code = """
import cupy, numpy as np, inspect
from types import ModuleType
gaps = {n for n in dir(np) if not n.startswith("_") and not hasattr(cupy, n)}
lacking = {}
for n in set(dir(np)) - gaps:
    a, b = getattr(np, n), getattr(cupy, n, None)
    if n.startswith("_") or isinstance(a, (type, ModuleType, np.ufunc)) or not callable(a):
        continue
    try:
        mine, theirs = inspect.signature(a).parameters, inspect.signature(b).parameters
    except (TypeError, ValueError):
        continue
    if not any(p.kind is p.VAR_KEYWORD for p in theirs.values()):
        gone = {k for k, p in mine.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)} - set(theirs)
        lacking.update({n: sorted(gone)} if gone else {})
print(repr((np.__version__, sorted(gaps), lacking)))
"""
    version, gaps, lacking = ast.literal_eval(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    )
    if not version.startswith("2.4."):
        pytest.skip("the table is of NumPy 2.4")
    assert set(gaps) <= cupy_gaps.ABSENT
    assert {n: set(v) for n, v in lacking.items()} == {n: set(v.split()) for n, v in cupy_gaps.LACKING.items()}
