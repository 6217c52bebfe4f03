"""What is passed to cuBLASLt: descriptors as the library itself keeps them, addresses, and the choice of algorithms."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.errors import KernelError
from onnxgrad.ops.kernels.cuda import cublaslt, tuning
from onnxgrad.ops.kernels.cuda.cublaslt import Call, MatMul, Outer, Side, describe
from onnxgrad.ops.types import BFLOAT16

from . import driver
from .references import REFERENCES

F32, F64, F16 = (np.dtype(t) for t in ("float32", "float64", "float16"))


def made(
    batch: tuple[int, ...], m: int, n: int, k: int, *sides: tuple[int, ...], dtype: Any = F32, **more: Any
) -> MatMul | None:
    """Describe a product by the strides of its sides."""
    left, right, result = (Side(np.dtype(dtype), s[:-2], s[-2], s[-1]) for s in sides)
    return describe(batch, m, n, k, left, right, result, **more)


def fields(d: MatMul | None) -> Any:
    """Return what a description says of sizes."""
    assert d is not None
    layouts = [(x.rows, x.columns, x.leading, x.step) for x in (d.a, d.b, d.d)]
    return (*layouts, d.turned_a, d.turned_b, d.swapped, d.batch, d.outer)


def test_row_major() -> None:
    """The transpose of the result is the product of the transposes, in the other order."""
    assert fields(made((), 2, 3, 4, (4, 1), (3, 1), (3, 1))) == (
        (3, 4, 3, 0), (4, 2, 4, 0), (3, 2, 3, 0), False, False, True, 1, (),
    )  # fmt: skip


def test_transposes() -> None:
    """Factors that lie column by column are transposed back."""
    assert fields(made((), 2, 3, 4, (1, 2), (1, 4), (3, 1))) == (
        (4, 3, 4, 0), (2, 4, 2, 0), (3, 2, 3, 0), True, True, True, 1, (),
    )  # fmt: skip


def test_column_major() -> None:
    """A result that lies column by column is asked for as it is."""
    assert fields(made((), 2, 3, 4, (4, 1), (3, 1), (1, 2))) == (
        (4, 2, 4, 0), (3, 4, 3, 0), (2, 3, 2, 0), True, True, False, 1, (),
    )  # fmt: skip


def test_batches() -> None:
    """At one step, shared, folded into rows, and one by one."""
    assert fields(made((5, 6), 2, 3, 4, (48, 8, 4, 1), (72, 12, 3, 1), (36, 6, 3, 1)))[6:] == (30, ())
    d = made((5, 6), 2, 3, 4, (48, 8, 4, 1), (0, 0, 3, 1), (36, 6, 3, 1))
    assert fields(d) == ((3, 4, 3, 0), (4, 60, 4, 0), (3, 60, 3, 0), False, False, True, 1, ())
    d = made((5, 6), 2, 3, 4, (0, 8, 4, 1), (12, 0, 3, 1), (36, 6, 3, 1))
    assert fields(d)[6:] == (6, (Outer(5, 12, 0, 36, 36),))
    assert d is not None and (d.a.step, d.b.step, d.d.step) == (0, 8, 6)
    assert d.places == tuple((12 * i, 0, 36 * i, 36 * i) for i in range(5))
    assert made((5,), 2, 3, 4, (-8, 4, 1), (0, 3, 1), (6, 3, 1)) is None


def test_unreadable() -> None:
    """Steps in both directions, rows that overlap, broadcast ones, results that cannot be written."""
    for left in ((8, 2), (3, 1), (0, 1), (-4, 1)):
        assert made((), 2, 3, 4, left, (3, 1), (3, 1)) is None
    assert made((), 2, 3, 4, (4, 1), (3, 1), (6, 2)) is None


def test_alignment() -> None:
    """Of an element that is not the first, and of matrices of a batch."""
    side = Side(F16, (), 4, 1, 6)
    d = describe((), 2, 3, 4, side, Side(F16, (), 3, 1), Side(F16, (), 3, 1))
    assert d is not None and d.alignment == (256, 4, 256, 256)
    d = made((5,), 2, 3, 4, (8, 4, 1), (12, 3, 1), (6, 3, 1), dtype=F16)
    assert d is not None and d.alignment == (8, 16, 4, 4)


def samples() -> list[MatMul]:
    """Return products of every kind."""
    found = []
    for dtype in (F32, F64, F16, BFLOAT16):
        d = made((2, 3), 4, 5, 6, (0, 24, 6, 1), (30, 0, 1, 6), (60, 20, 5, 1), dtype=dtype)
        assert d is not None
        found += [d, replace(d, c=d.d), replace(d, bias=True, activation="relu"), replace(d, activation="gelu_tanh")]
        d = made((), 4, 5, 6, (1, 4), (5, 1), (1, 4), dtype=dtype, tf32=True)
        assert d is not None
        found += [d, replace(d, alpha=0.5, bias=True)]
        if dtype.itemsize == 2:
            wide = Side(F32, (), 5, 1)
            d = describe((), 4, 5, 6, Side(dtype, (), 6, 1), Side(dtype, (), 5, 1), wide, added=wide)
            assert d is not None and d.c == d.d and d.d.dtype == F32 and d.compute == "f32"
            found += [replace(d, c=None), replace(d, bias=True, activation="relu")]
    return found


# the library's descriptors --------------------------------------------------------------------------------------------

_KEPT = """
import numpy as np
from nvmath.bindings import cublasLt as lt
from onnxgrad.ops.kernels.cuda import cublaslt
from onnxgrad.ops.kernels.cuda.cublaslt import Call
cublaslt._handle = lambda lt: 0  # without a device there is none
def number(get, dtype_of, owner, which):
    held = np.zeros(1, dtype_of(which))
    written = np.zeros(1, np.uint64)
    get(owner, which, held.ctypes.data, held.nbytes, written.ctypes.data)
    assert int(written[0]) == held.nbytes, which
    return int(held[0])
for d in given:
    call = Call(lt, d)
    layouts = [
        {a: number(lt.matrix_layout_get_attribute, lt.get_matrix_layout_attribute_dtype, x, lt.MatrixLayoutAttribute[a])
         for a in ("TYPE", "ROWS", "COLS", "LD", "BATCH_COUNT", "STRIDED_BATCH_OFFSET", "ORDER")}
        for x in call.layouts
    ]
    names = ("COMPUTE_TYPE", "SCALE_TYPE", "TRANSA", "TRANSB", "EPILOGUE", "POINTER_MODE")
    of = {a: number(lt.matmul_desc_get_attribute, lt.get_matmul_desc_attribute_dtype, call.descriptor,
                    lt.MatmulDescAttribute[a]) for a in names}
    try:
        call.proposals(1)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    found.append((layouts, of, reason))
"""

_DATA_TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}
_COMPUTE_TYPES = {"f32": 68, "tf32": 77, "f64": 70}
_EPILOGUES = {("", False): 1, ("relu", False): 2, ("", True): 4, ("relu", True): 6, ("gelu_tanh", False): 32}


@pytest.mark.skipif(driver.why_not("nvmath") is not None, reason=str(driver.why_not("nvmath")))
def test_descriptors() -> None:
    """The library itself keeps the numbers of each description."""
    every = samples()
    script = _KEPT.replace(
        "call.proposals(1)",
        "import onnxgrad.ops.kernels.cuda.cublaslt as c; c._handle = lambda lt: 0; call.proposals(1)",
    )
    for d, (layouts, of, reason) in zip(every, driver.ask(script, every), strict=True):
        for x, kept in zip((d.a, d.b, d.c or d.d, d.d), layouts, strict=True):
            assert kept["TYPE"] == _DATA_TYPES[x.dtype.name] and kept["ORDER"] == 0
            assert (kept["ROWS"], kept["COLS"], kept["LD"]) == (x.rows, x.columns, x.leading)
            assert (kept["BATCH_COUNT"], kept["STRIDED_BATCH_OFFSET"]) == (d.batch, x.step)
        assert (of["TRANSA"], of["TRANSB"]) == (d.turned_a, d.turned_b)
        assert of["COMPUTE_TYPE"] == _COMPUTE_TYPES[d.compute] and of["SCALE_TYPE"] == (d.compute == "f64")
        assert of["EPILOGUE"] == _EPILOGUES[d.activation, d.bias] and of["POINTER_MODE"] == 0
        assert reason.startswith("KernelError: cuBLASLt has no algorithm"), reason  # as there is no device


# a library of the test's own ------------------------------------------------------------------------------------------


class _Enum:
    """Names for themselves."""

    def __getattr__(self, name: str) -> Any:
        return self[name]

    def __getitem__(self, name: str) -> Any:
        return _Name(name)


class _Name(str):
    def __int__(self) -> int:
        return _NUMBERS[self]


KIB = 1 << 10

_NUMBERS = {"DEFAULT": 1, "RELU": 2, "BIAS": 4, "RELU_BIAS": 6, "GELU": 32, "COMPUTE_TYPE": 2}


class Library:
    """cuBLASLt on the CPU: descriptors as dictionaries, products of raw memory."""

    MatmulDescAttribute = MatrixLayoutAttribute = MatmulPreferenceAttribute = Epilogue = ReductionScheme = _Enum()
    cuBLASLtError = KernelError  # noqa: N815 (the bindings' name)
    matmul_heuristic_result_dtype = np.dtype(
        [("algo", [("data_", "<u8", (8,))]), ("workspace_size", "<u8"), ("state", "<i4")]
    )

    def __init__(self) -> None:
        """Start with nothing."""
        self.made: dict[int, dict[str, Any]] = {}
        self.proposed = [7, 8]
        self.asked = 0
        self.ran: list[tuple[int, int, int]] = []

    def _new(self, **what: Any) -> int:
        self.made[len(self.made) + 1] = what
        return len(self.made)

    def matmul_desc_create(self, compute: Any, scale: Any) -> int:
        """Make a descriptor."""
        return self._new(compute=compute)

    def matrix_layout_create(self, dtype: Any, rows: int, columns: int, leading: int) -> int:
        """Make a layout."""
        return self._new(dtype=dtype, rows=rows, columns=columns, leading=leading)

    def matmul_preference_create(self) -> int:
        """Make preferences."""
        return self._new()

    def get_attribute_dtype(self, which: str) -> Any:
        """All attributes are numbers of 64 bits."""
        return np.int64

    get_matmul_desc_attribute_dtype = get_matrix_layout_attribute_dtype = get_attribute_dtype
    get_matmul_preference_attribute_dtype = get_attribute_dtype

    def set_attribute(self, owner: int, which: str, address: int, size: int) -> None:
        """Keep a number."""
        assert size == 8
        self.made[owner][which] = ctypes.c_int64.from_address(address).value

    matmul_desc_set_attribute = matrix_layout_set_attribute = matmul_preference_set_attribute = set_attribute

    def destroy(self, owner: int) -> None:
        """Forget."""
        self.made[owner] = {}

    matmul_desc_destroy = matrix_layout_destroy = matmul_preference_destroy = destroy

    def get_version(self) -> int:
        """Some version."""
        return 5

    def matmul_algo_get_heuristic(self, *a: Any) -> None:
        """Propose algorithms."""
        *_, count, results, number = a
        self.asked += 1
        found = np.zeros(min(count, len(self.proposed)), self.matmul_heuristic_result_dtype)
        for f, word in zip(found, self.proposed, strict=False):
            f["algo"]["data_"][:], f["workspace_size"] = word, word * KIB
        ctypes.memmove(results, found.ctypes.data, found.nbytes)
        ctypes.c_int32.from_address(number).value = len(found)

    def matmul_algo_check(self, *a: Any) -> None:
        """Accept what was proposed."""
        word = ctypes.c_uint64.from_address(a[-2]).value
        if word not in self.proposed:
            raise KernelError("unknown")
        checked = np.zeros(1, self.matmul_heuristic_result_dtype)
        checked["workspace_size"] = word * KIB
        ctypes.memmove(a[-1], checked.ctypes.data, checked.nbytes)

    def matmul(self, *p: Any) -> None:
        """Multiply."""
        (_, descriptor, alpha, a, la, b, lb, beta, c, lc, d, ld, algorithm, workspace, size, stream) = p
        assert size >= ctypes.c_uint64.from_address(algorithm).value * KIB
        self.ran.append((ctypes.c_uint64.from_address(algorithm).value, workspace, stream))
        of = self.made[descriptor]
        scale = ctypes.c_double if of["compute"] == "f64" else ctypes.c_float
        for i in range(self.made[ld].get("BATCH_COUNT", 1)):
            x, y, z, out = (self._matrix(at, self.made[lay], i) for at, lay in ((a, la), (b, lb), (c, lc), (d, ld)))
            x, y = x.T if of["TRANSA"] else x, y.T if of["TRANSB"] else y
            result = scale.from_address(alpha).value * (x.astype(F64) @ y.astype(F64))
            if scale.from_address(beta).value:
                result += z.astype(F64)
            if "BIAS_POINTER" in of:
                bias = {"dtype": self.made[ld]["dtype"], "rows": out.shape[0], "columns": 1, "leading": out.shape[0]}
                result += self._matrix(of["BIAS_POINTER"], bias, 0).astype(F64)
            out[...] = np.maximum(result, 0) if of["EPILOGUE"] in (2, 6) else result

    @staticmethod
    def _matrix(address: int, layout: dict[str, Any], i: int) -> Any:
        dtype = np.dtype(layout["dtype"])
        size, rows, columns, leading = dtype.itemsize, layout["rows"], layout["columns"], layout["leading"]
        count = (columns - 1) * leading + rows
        memory = (ctypes.c_uint8 * (count * size)).from_address(
            address + i * layout.get("STRIDED_BATCH_OFFSET", 0) * size
        )
        flat = np.frombuffer(memory, dtype)
        return np.lib.stride_tricks.as_strided(flat, (rows, columns), (size, leading * size), writeable=True)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Library:
    """Put a library in the place of cuBLASLt."""
    monkeypatch.setattr(cublaslt, "_handle", lambda lt: 1)
    monkeypatch.setattr(cublaslt, "_data_type", lambda dtype: dtype)
    monkeypatch.setattr(cublaslt, "_compute_type", lambda compute: compute)
    monkeypatch.setattr(tuning, "device_name", lambda: "a device")
    monkeypatch.setenv("ONNXGRAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(tuning.VARIABLE, raising=False)
    return Library()


@pytest.mark.parametrize("i", range(4))
def test_run(library: Library, i: int) -> None:
    """What is passed when it runs computes what the reference computes from the description."""
    rng = np.random.default_rng(i)
    d = [s for s in samples() if s.a.dtype in (F32, F64) and s.activation != "gelu_tanh"][i * 2 + i % 2]
    call = Call(library, d)
    arrays = [rng.standard_normal(200).astype(d.a.dtype) for _ in range(3 + d.bias + (d.c is not None))]
    wanted = [a.copy() for a in arrays]
    REFERENCES[MatMul](d, wanted)
    call.run(tuple(a.ctypes.data for a in arrays), 3, 4)
    np.testing.assert_allclose(arrays[-1], wanted[-1], rtol=1e-6)
    for a, b in zip(arrays[:-1], wanted[:-1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert {r[1:] for r in library.ran} == {(3, 4)} and len(library.ran) == len(d.places)


def test_choice(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest is kept, and taken again by another process unless the library no longer accepts it."""
    d = samples()[0]
    timed: list[Any] = []

    def fastest(candidates: Any, sizes: Any, workspace: int) -> int:
        timed.append((len(candidates), list(sizes), workspace))
        return 1

    monkeypatch.setattr(tuning, "fastest", fastest)
    for asked in (1, 1):
        call = Call(library, d)
        call.choose()
        assert list(call.algorithm) == [8] * 8 and library.asked == asked and call.workspace == 8 * KIB
    size = [3 * 24 * 4, 2 * 30 * 4, 6 * 20 * 4]
    assert timed == [(2, size, cublaslt.WORKSPACE_BYTES)]
    library.proposed = [5, 6]
    Call(library, d).choose()
    assert library.asked == 2
    monkeypatch.setenv(tuning.VARIABLE, "off")
    call = Call(library, d)
    call.choose()
    assert list(call.algorithm) == [5] * 8 and call.workspace == 5 * KIB and len(timed) == 2


def test_no_algorithm(library: Library) -> None:
    """Which product has none is said."""
    library.proposed = []
    with pytest.raises(KernelError, match="cuBLASLt has no algorithm for MatMul"):
        Call(library, samples()[0]).choose()


def test_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that takes least time; what fails is passed over."""
    clock = [0.0]

    class Event:
        def record(self, stream: Any) -> None:
            self.at = clock[0]

        def synchronize(self) -> None:
            """Nothing to wait for."""

    class Memory:
        ptr = 9

        def memset_async(self, value: int, size: int, stream: Any) -> None:
            """Nothing to fill."""

    class Stream(contextlib.nullcontext[None]):
        ptr = 3

        def __init__(self, non_blocking: bool) -> None:
            super().__init__()

        def synchronize(self) -> None:
            """Nothing to wait for."""

    given_back: list[Any] = []
    cuda = SimpleNamespace(
        alloc=lambda n: Memory(), Event=Event, Stream=Stream, get_elapsed_time=lambda a, b: b.at - a.at,
        memory=SimpleNamespace(OutOfMemoryError=MemoryError),
    )  # fmt: skip
    pool = SimpleNamespace(free_all_blocks=given_back.append)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda, get_default_memory_pool=lambda: pool))

    def taking(time: float) -> Any:
        def run(pointers: Any, workspace: int, stream: int) -> None:
            assert (pointers, workspace, stream) == ((9, 9), 9, 3)
            if time < 0:
                raise RuntimeError
            clock[0] += time

        return run

    assert tuning.fastest([taking(3), taking(-1), taking(2), taking(4)], [10, 10], 5) == 2
    assert len(given_back) == 1 and type(given_back[0]) is Stream
    assert tuning.fastest([taking(-1), taking(-1)], [10, 10], 5) is None
    assert tuning.fastest([taking(3), taking(1)], [tuning.LIMIT_BYTES, 10], 5) is None
