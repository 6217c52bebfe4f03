"""Products of matrices by cuBLASLt, through the raw bindings of nvmath-python: the one file that knows them.

cuBLASLt reads matrices column by column. A product whose result lies row by row is therefore asked for turned round:
the result's transpose is the product of the transposes, in the other order, on the same memory.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, cast

import numpy as np

from ...errors import KernelError
from ...types import DType
from . import tuning
from .indexing import merged
from .kernel import Prepared
from .operand import Sizes

Compute: TypeAlias = Literal["f32", "tf32", "f64"]
Activation: TypeAlias = Literal["", "relu", "gelu_tanh"]

WORKSPACE_BYTES = 32 << 20
"""What an algorithm may need meanwhile: what NVIDIA recommends for Hopper."""

TYPES = ("float32", "float64", "float16", "bfloat16")
"""Element types that there are products of."""

_ALIGNMENT = 256
_PROPOSALS = 8


@dataclass(frozen=True)
class Layout:
    """A matrix as cuBLASLt reads it, or a batch of them.

    Attributes:
        dtype: of its elements.
        rows: neighbours in memory.
        columns: behind each other.
        leading: from one column to the next, in elements.
        step: from one matrix of the batch to the next, in elements; 0 where all are the same one.
    """

    dtype: DType
    rows: int
    columns: int
    leading: int
    step: int = 0

    def extent(self, batch: int) -> int:
        """Return how many elements lie between its first and its last one, both counted."""
        return (batch - 1) * self.step + (self.columns - 1) * self.leading + self.rows


@dataclass(frozen=True)
class Outer:
    """A batch axis that does not lie at one step with the others: the product is made once for each of its places.

    The steps are those of the library's a, b, c and d, in elements.
    """

    count: int
    a: int
    b: int
    c: int
    d: int


@dataclass(frozen=True)
class MatMul:
    """d = activation(alpha a b + c + bias), as it is passed to `cublasLtMatmul`.

    Arguments: left, right, the bias where there is one, what is added where there is such, and the result.

    Factors of half precision make a result of their type or of float32; what is added and the bias are of the result's
    type. Source: cuBLAS 13, `cublasLtMatmul()`, table of types: the rows of CUBLAS_COMPUTE_32F where A and B are
    CUDA_R_16BF or CUDA_R_16F, and C, D and the bias all of that type or all CUDA_R_32F; `cublasLt.h` at
    CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: "the same type as the elements of output matrix (Dtype)".

    Attributes:
        a: the library's first matrix, before it is transposed.
        b: its second.
        c: what is added; None for nothing.
        d: the result.
        turned_a: whether a is transposed.
        turned_b: whether b is transposed.
        swapped: whether the left argument is the library's b; it is where the result lies row by row.
        batch: how many products there are at one step.
        outer: further batch axes.
        compute: what is summed in; `tf32` rounds the factors.
        alpha: factor of the product.
        bias: whether there is a vector that is added to each column of d.
        activation: applied last.
        alignment: bytes that the addresses of a, b, c and d are multiples of.
    """

    a: Layout
    b: Layout
    c: Layout | None
    d: Layout
    turned_a: bool
    turned_b: bool
    swapped: bool
    batch: int
    outer: tuple[Outer, ...]
    compute: Compute
    alpha: float = 1.0
    bias: bool = False
    activation: Activation = ""
    alignment: tuple[int, int, int, int] = (_ALIGNMENT,) * 4

    @property
    def library(self) -> str:
        """`cublaslt`."""
        return "cublaslt"

    @property
    def depth(self) -> int:
        """How many products are summed up for each element."""
        return self.a.rows if self.turned_a else self.a.columns

    @property
    def sides(self) -> tuple[int, int]:
        """The indices of the arguments that are the library's a and b."""
        return (1, 0) if self.swapped else (0, 1)

    @property
    def added(self) -> int:
        """The index of the argument that is added; the result's where there is none."""
        return 2 + self.bias

    @property
    def places(self) -> tuple[tuple[int, int, int, int], ...]:
        """The offsets of a, b, c and d, in elements, of each product along the outer axes."""
        found = [(0, 0, 0, 0)]
        for o in self.outer:
            steps = (o.a, o.b, o.c, o.d)
            found = [tuple(p + i * s for p, s in zip(at, steps, strict=True)) for at in found for i in range(o.count)]  # type: ignore[misc]
        return tuple(found)

    def prepare(self) -> Prepared:
        """Build its descriptors and choose an algorithm.

        Raises:
            KernelError: if cuBLASLt has none for it.
        """
        from nvmath.bindings import cublasLt

        call = Call(cublasLt, self)
        call.choose()
        return Prepared(call.run, call.workspace)


# describing -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """A batch of matrices in memory, in elements: how far its batch axes, rows and columns are apart.

    `offset` is that of the first element from an address that is aligned.
    """

    dtype: DType
    batch: Sizes
    row: int
    column: int
    offset: int = 0


def describe(
    batch: Sizes, m: int, n: int, k: int, left: Side, right: Side, result: Side, *, added: Side | None = None,
    tf32: bool = False,
) -> MatMul | None:  # fmt: skip
    """Return the product of matrices (batch, m, k) and (batch, k, n), or None where they lie as cuBLASLt cannot read.

    Args:
        batch: sizes of the batch axes.
        m: rows of the result.
        n: its columns.
        k: how many products are summed up.
        left: the first factor; its batch axes are those of the result, 0 apart where it is broadcast.
        right: the second factor.
        result: what is written.
        added: what is added to the product.
        tf32: whether products of float32 may round their factors.
    """
    third = added if added is not None else result
    sides = [left, right, third, result]
    axes = [i for i, size in enumerate(batch) if size != 1]
    sizes = tuple(batch[i] for i in axes)
    steps = [tuple(s.batch[i] for i in axes) for s in sides]
    if not any(steps[1]):  # one matrix for all: the rows of all are those of one product
        along = [(*steps[i], sides[i].row) for i in (0, 2, 3)]
        folded, rows = merged((*sizes, m), along) if m != 1 else merged(sizes, [t[:-1] for t in along])
        if sizes and len(folded) == 1:
            first, third, result = (replace(s, row=r[0]) for s, r in zip((left, third, result), rows, strict=True))
            m, sizes, steps, sides = folded[0], (), [()] * 4, [first, right, third, result]
    sizes, steps = merged(sizes, steps)
    left, right, third, result = sides
    swapped = result.column == 1 or n == 1
    if any(s < 0 for t in steps for s in t) or not (swapped or result.row == 1 or m == 1):
        return None
    last = [t[-1] if t else 0 for t in steps]
    if swapped:
        a = _factor(right, right.column, right.row, n, k, last[1])
        b = _factor(left, left.column, left.row, k, m, last[0])
        ends = [_plain(s, s.column, s.row, n, m, t) for s, t in ((third, last[2]), (result, last[3]))]
    else:
        a = _factor(left, left.row, left.column, m, k, last[0])
        b = _factor(right, right.row, right.column, k, n, last[1])
        ends = [_plain(s, s.row, s.column, m, n, t) for s, t in ((third, last[2]), (result, last[3]))]
    c, d = ends
    if a is None or b is None or c is None or d is None:
        return None
    order = (1, 0, 2, 3) if swapped else (0, 1, 2, 3)
    name = left.dtype.name
    return MatMul(
        a[0],
        b[0],
        c if added is not None else None,
        d,
        turned_a=a[1],
        turned_b=b[1],
        swapped=swapped,
        batch=sizes[-1] if sizes else 1,
        outer=tuple(Outer(size, *(steps[i][axis] for i in order)) for axis, size in enumerate(sizes[:-1])),
        compute="f64" if name == "float64" else "tf32" if tf32 and name == "float32" else "f32",
        alignment=cast(tuple[int, int, int, int], tuple(_aligned(sides[i], steps[i]) for i in order)),
    )


def _factor(side: Side, row: int, column: int, rows: int, columns: int, step: int) -> tuple[Layout, bool] | None:
    """Return how a factor of these sizes is read, and whether it is transposed."""
    straight = _plain(side, row, column, rows, columns, step)
    if straight is not None:
        return straight, False
    turned = _plain(side, column, row, columns, rows, step)
    return None if turned is None else (turned, True)


def _plain(side: Side, row: int, column: int, rows: int, columns: int, step: int) -> Layout | None:
    """Return a matrix whose rows are neighbours, or None where they are not."""
    if rows != 1 and row != 1:
        return None
    leading = column if columns != 1 else rows
    return None if leading < rows else Layout(side.dtype, rows, columns, leading, step)


def _aligned(side: Side, batch: Sequence[int]) -> int:
    """Return the bytes that the addresses of all its matrices are multiples of."""
    size = side.dtype.itemsize
    return math.gcd(_ALIGNMENT, side.offset * size, *(s * size for s in batch))


# running --------------------------------------------------------------------------------------------------------------


class Call:
    """A product's descriptors and its algorithm.

    Attributes:
        algorithm: 8 words of 64 bits, as the library writes them.
        workspace: the bytes that it needs meanwhile.
    """

    def __init__(self, lt: Any, matmul: MatMul) -> None:
        """Make the descriptors."""
        self.lt, self.matmul = lt, matmul
        self._lock = threading.Lock()
        self.algorithm, self.workspace = np.zeros(8, np.uint64), WORKSPACE_BYTES
        scale = np.float64 if matmul.compute == "f64" else np.float32
        self.alpha = np.array([matmul.alpha], scale)
        self.beta = np.array([0 if matmul.c is None else 1], scale)
        self.descriptor: int = lt.matmul_desc_create(_compute_type(matmul.compute), _data_type(np.dtype(scale)))
        self.layouts = [self._layout(x) for x in (matmul.a, matmul.b, matmul.c or matmul.d, matmul.d)]
        operation = lt.MatmulDescAttribute
        self._set(operation.TRANSA, int(matmul.turned_a))
        self._set(operation.TRANSB, int(matmul.turned_b))
        self._set(operation.EPILOGUE, int(_epilogue(lt, matmul)))
        self.bias = _ALIGNMENT
        if matmul.bias:  # heuristics look at how the address is aligned
            self._set(operation.BIAS_POINTER, self.bias)
        items = [x.dtype.itemsize for x in (matmul.a, matmul.b, matmul.c or matmul.d, matmul.d)]
        self.places = [tuple(p * n for p, n in zip(at, items, strict=True)) for at in matmul.places]

    def _layout(self, x: Layout) -> int:
        made: int = self.lt.matrix_layout_create(_data_type(x.dtype), x.rows, x.columns, x.leading)
        if self.matmul.batch > 1:
            for name, value in (("BATCH_COUNT", self.matmul.batch), ("STRIDED_BATCH_OFFSET", x.step)):
                which = self.lt.MatrixLayoutAttribute[name]
                held = np.array([value], self.lt.get_matrix_layout_attribute_dtype(which))
                self.lt.matrix_layout_set_attribute(made, which, held.ctypes.data, held.nbytes)
        return made

    def _set(self, which: Any, value: int) -> None:
        held = np.array([value], self.lt.get_matmul_desc_attribute_dtype(which))
        self.lt.matmul_desc_set_attribute(self.descriptor, which, held.ctypes.data, held.nbytes)

    def __del__(self) -> None:
        """Give the descriptors back."""
        for layout in self.__dict__.pop("layouts", ()):
            self.lt.matrix_layout_destroy(layout)
        descriptor = self.__dict__.pop("descriptor", None)
        if descriptor is not None:
            self.lt.matmul_desc_destroy(descriptor)

    def choose(self) -> None:
        """Choose the algorithm: the one that was kept, or the fastest of those that the library proposes.

        Raises:
            KernelError: if it proposes none.
        """
        tuned = tuning.wanted("cublaslt")
        identity = ["cublaslt", str(self.lt.get_version()), repr(self.matmul)]
        if tuned:
            identity.append(tuning.device_name())
            kept = tuning.recall(*identity)
            if kept is not None and self._usable(kept):
                return
        proposals = self.proposals(_PROPOSALS if tuned else 1)
        best = None
        if tuned:
            best = tuning.fastest([self._with(words) for words, _ in proposals], self._sizes(), WORKSPACE_BYTES)
        words, self.workspace = proposals[best or 0]
        self.algorithm[:] = words
        if best is not None:
            tuning.keep([int(x) for x in words], *identity)

    def proposals(self, count: int) -> list[tuple[Any, int]]:
        """Return the algorithms that the library proposes, the best first, and the bytes that each needs meanwhile.

        Raises:
            KernelError: if there is none.
        """
        lt, wish = self.lt, self.lt.matmul_preference_create()
        attribute = lt.MatmulPreferenceAttribute
        wanted = {
            "MAX_WORKSPACE_BYTES": WORKSPACE_BYTES,
            # Parts of a sum are added up in the type of the sum, in a fixed order.
            "REDUCTION_SCHEME_MASK": int(lt.ReductionScheme.COMPUTE_TYPE),
            **{f"MIN_ALIGNMENT_{x}_BYTES": n for x, n in zip("ABCD", self.matmul.alignment, strict=True)},
        }
        found, number = np.zeros(count, lt.matmul_heuristic_result_dtype), np.zeros(1, np.int32)
        try:
            for name, value in wanted.items():
                held = np.array([value], lt.get_matmul_preference_attribute_dtype(attribute[name]))
                lt.matmul_preference_set_attribute(wish, attribute[name], held.ctypes.data, held.nbytes)
            lt.matmul_algo_get_heuristic(
                _handle(lt), self.descriptor, *self.layouts, wish, count, found.ctypes.data, number.ctypes.data
            )
        except lt.cuBLASLtError as error:
            raise KernelError(f"cuBLASLt has no algorithm for {self.matmul}: {error}") from error
        finally:
            lt.matmul_preference_destroy(wish)
        usable = [
            (f["algo"]["data_"].copy(), int(f["workspace_size"])) for f in found[: int(number[0])] if f["state"] == 0
        ]
        if not usable:
            raise KernelError(f"cuBLASLt has no algorithm for {self.matmul}")
        return usable

    def _usable(self, kept: Any) -> bool:
        """Take an algorithm that was kept; return whether the library still accepts it."""
        try:
            algorithm = np.array(kept, np.uint64).reshape(8)
            checked = np.zeros(1, self.lt.matmul_heuristic_result_dtype)
            self.lt.matmul_algo_check(
                _handle(self.lt), self.descriptor, *self.layouts, algorithm.ctypes.data, checked.ctypes.data
            )
        except (self.lt.cuBLASLtError, ValueError, TypeError, OverflowError):
            return False
        needed = int(checked[0]["workspace_size"])
        if needed > WORKSPACE_BYTES:
            return False
        self.algorithm[:], self.workspace = algorithm, needed
        return True

    def _with(self, algorithm: Any) -> tuning.Candidate:
        def run(pointers: tuple[int, ...], workspace: int, stream: int) -> None:
            self.algorithm[:] = algorithm
            self.run(pointers, workspace, stream)

        return run

    def _sizes(self) -> list[int]:
        """Return the bytes of each argument."""
        m = self.matmul
        extents = []
        for i, x in enumerate((m.a, m.b, m.c or m.d, m.d)):
            extents.append((max(at[i] for at in m.places) + x.extent(m.batch)) * x.dtype.itemsize)
        a, b, c, d = extents
        pair = [b, a] if m.swapped else [a, b]
        return [*pair, *([m.d.rows * m.d.dtype.itemsize] if m.bias else []), *([] if m.c is None else [c]), d]

    def run(self, pointers: tuple[int, ...], workspace: int, stream: int) -> None:
        """Run on these addresses."""
        m = self.matmul
        first, second = m.sides
        a, b, c, d = pointers[first], pointers[second], pointers[m.added], pointers[-1]
        layout_a, layout_b, layout_c, layout_d = self.layouts
        handle, alpha, beta = _handle(self.lt), self.alpha.ctypes.data, self.beta.ctypes.data
        with self._lock:  # the address of the bias belongs to the descriptor
            if m.bias and pointers[2] != self.bias:
                self.bias = pointers[2]
                self._set(self.lt.MatmulDescAttribute.BIAS_POINTER, self.bias)
            for i, j, k, n in self.places:
                self.lt.matmul(
                    handle, self.descriptor, alpha, a + i, layout_a, b + j, layout_b, beta, c + k, layout_c, d + n,
                    layout_d, self.algorithm.ctypes.data, workspace, self.workspace, stream,
                )  # fmt: skip


_handles: dict[int, int] = {}


def _handle(lt: Any) -> int:
    """Return the library's handle of the current device; one serves all threads."""
    import cupy

    device = int(cupy.cuda.runtime.getDevice())
    if device not in _handles:
        _handles[device] = lt.create()
    return _handles[device]


def _data_type(dtype: DType) -> int:
    from nvmath import CudaDataType

    names = {"float32": "32F", "float64": "64F", "float16": "16F", "bfloat16": "16BF"}
    if dtype.name not in names:
        raise KernelError(f"cuBLASLt multiplies no {dtype.name}")
    return int(CudaDataType[f"CUDA_R_{names[dtype.name]}"])


def _compute_type(compute: Compute) -> int:
    from nvmath.bindings.cublas import ComputeType

    names = {"f32": "COMPUTE_32F", "tf32": "COMPUTE_32F_FAST_TF32", "f64": "COMPUTE_64F"}
    return int(ComputeType[names[compute]])


def _epilogue(lt: Any, m: MatMul) -> Any:
    name = {"": "", "relu": "RELU", "gelu_tanh": "GELU"}[m.activation]
    return lt.Epilogue["_".join(x for x in (name, "BIAS" if m.bias else "") if x) or "DEFAULT"]
