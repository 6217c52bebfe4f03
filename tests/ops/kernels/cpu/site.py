"""A `Site` for tests: lowers one op, compiles its kernels and runs them on arrays, in memory with guards around it."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from onnxgrad.ops.dims import Dim, evaluate, product
from onnxgrad.ops.errors import OpError
from onnxgrad.ops.kernels.cpu.jit import compile_kernels
from onnxgrad.ops.kernels.cpu.kernel import Kernel
from onnxgrad.ops.kernels.cpu.lowering import LOWERINGS, Epilogue
from onnxgrad.ops.kernels.cpu.operand import Operand, channels_last, packed
from onnxgrad.ops.kernels.cpu.spmd import check_chunks, pool
from onnxgrad.ops.kernels.cpu.target import Target, host_target
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import BFLOAT16, TensorType

_PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def guarded(nbytes: int, *, at_end: bool) -> np.ndarray[Any, Any]:
    """Return bytes between two unmapped pages: touching what is before or behind them ends the process.

    Args:
        nbytes: how many.
        at_end: they end where the page behind begins (to 64 bytes); else they begin where the page before ends.
    """
    inside = -(-max(nbytes, 1) // _PAGE) * _PAGE
    whole = mmap.mmap(-1, inside + 2 * _PAGE)
    bytes_ = np.frombuffer(whole, np.uint8)
    address = bytes_.ctypes.data
    for page in (address, address + _PAGE + inside):
        if _libc.mprotect(page, _PAGE, 0):
            raise OSError("mprotect failed")
    start = _PAGE + (inside - -(-nbytes // 64) * 64 if at_end else 0)
    return bytes_[start : start + nbytes]


@dataclass
class TestRef:
    """A tensor in a buffer."""

    __test__ = False
    operand: Operand
    buffer: np.ndarray[Any, Any]
    start: Any = 0

    def view(self, env: dict[str, int]) -> np.ndarray[Any, Any]:
        """Return it as a NumPy array of its logical shape."""
        dtype = np.dtype(self.operand.dtype)
        flat = self.buffer[: self.buffer.size // dtype.itemsize * dtype.itemsize].view(dtype)
        shape = [evaluate(d, env) for d in self.operand.shape]
        strides = [evaluate(s, env) * dtype.itemsize for s in self.operand.strides]
        return np.lib.stride_tricks.as_strided(flat[evaluate(self.start, env) :], shape, strides)

    def address(self, env: dict[str, int]) -> int:
        """Return the address of its first element."""
        return int(self.buffer.ctypes.data) + evaluate(self.start, env) * np.dtype(self.operand.dtype).itemsize


@dataclass
class TestSite:
    """See `run_op`."""

    __test__ = False
    op: str
    arrays: list[Any]
    attrs: dict[str, Any]
    types: list[Any]
    results: list[TensorType]
    env: dict[str, int]
    weights: frozenset[int] = frozenset()
    exact: bool = False
    epilogue: Epilogue | None = None
    extra: tuple[np.ndarray[Any, Any], ...] = ()
    order: str = "plain"
    multiple: int = 1
    out_halo: tuple[tuple[int, int], ...] = ()
    at_end: bool = True
    precision: str = "float32"
    rounded: bool = False
    target: Target = field(default_factory=host_target)
    calls: list[tuple[Kernel, list[Any]]] = field(default_factory=list)
    outputs: dict[int, TestRef] = field(default_factory=dict)
    keep: list[Any] = field(default_factory=list)
    flags: list[tuple[TestRef, str]] = field(default_factory=list)

    @property
    def result(self) -> TensorType:
        """The first output's type."""
        return self.results[0]

    @property
    def epilogue_refs(self) -> list[TestRef]:
        """Operands of the epilogue."""
        refs = []
        for operand, array in zip(self.epilogue.operands if self.epilogue else (), self.extra, strict=True):
            ref = self._place(packed(array.dtype, array.shape), array)
            refs.append(replace(ref, operand=operand))
        return refs

    def _bytes(self, elements: Any, dtype: Any) -> np.ndarray[Any, Any]:
        nbytes = evaluate(elements, self.env) * np.dtype(dtype).itemsize
        buffer = guarded(nbytes, at_end=self.at_end)
        buffer[:] = 0xFF  # NaN, where it is read before it is written
        return buffer

    def _place(self, operand: Operand, array: Any, size: Any = None, start: Any = 0) -> TestRef:
        ref = TestRef(operand, self._bytes(operand.size if size is None else size, operand.dtype), start)
        if operand.halo:
            whole = self._with_halo(ref)
            whole[...] = 0
        ref.view(self.env)[...] = array
        return ref

    def _with_halo(self, ref: TestRef) -> np.ndarray[Any, Any]:
        """Return the view that includes the halo."""
        o = ref.operand
        shape = tuple(d + sum(o.padding(i)) for i, d in enumerate(o.shape))
        back = sum((o.padding(i)[0] * s for i, s in enumerate(o.strides)), start=0)
        return TestRef(replace(o, shape=shape, halo=()), ref.buffer, ref.start - back).view(self.env)

    def read(
        self, i: int, *, order: str = "any", halo: Any = (), item: int | None = None, elements: str = "own"
    ) -> TestRef:
        """Place an input."""
        t, a = self.types[i], self.arrays[i]
        if elements == "bfloat16" or (elements == "stored" and self.rounded):
            t = replace(t, dtype=BFLOAT16)
        if item is not None:
            t, a = t[item], a[item]
        last = order == "channels_last" or (order == "any" and self.order == "channels_last" and len(t.shape) > 2)
        if last:
            operand, size, start = channels_last(t.dtype, t.shape, tuple(halo), self.multiple)
            return self._place(operand, a, size, start)
        if halo:
            raise AssertionError("halos are for channels_last")
        return self._place(packed(t.dtype, t.shape), a)

    def known(self, i: int) -> Any:
        """The array of an input that a test declares a weight and is no float, as constants are."""
        return self.arrays[i] if i in self.weights else None

    def hoistable(self, i: int) -> bool:
        """Whether a test declares it a weight."""
        return i in self.weights

    def packed(self, i: int, how: str, pack: Callable[[Any], Any]) -> TestRef:
        """Pack a weight."""
        return self.constant(pack(self.arrays[i]))

    def origin(self, i: int, *, plain: bool = False) -> TestRef:
        """Place a weight."""
        return self._place(packed(self.types[i].dtype, self.types[i].shape), self.arrays[i])

    def prepared(self, origin: TestRef, kernels: Sequence[Kernel], dtype: Any, shape: Sequence[int]) -> TestRef:
        """Let kernels prepare a weight."""
        made = self.temporary(dtype, shape)
        for k in kernels:
            self.call(k, [origin, made])
        return made

    def constant(self, array: Any) -> TestRef:
        """Place an array."""
        array = np.asarray(array)
        return self._place(packed(array.dtype, array.shape), array)

    def write(self, i: int = 0, *, order: str = "any") -> TestRef:
        """Make room for an output."""
        t = self.results[i]
        dtype = self.epilogue.dtype if self.epilogue and i == 0 else t.dtype
        dtype = BFLOAT16 if self.rounded else dtype
        last = order == "channels_last" or (order == "any" and self.order == "channels_last" and len(t.shape) > 2)
        if last:
            operand, size, start = channels_last(dtype, t.shape, self.out_halo, self.multiple)
        else:
            operand, size, start = packed(dtype, t.shape), product(t.shape), 0
        self.outputs[i] = TestRef(operand, self._bytes(size, dtype), start)
        if operand.halo:
            self._with_halo(self.outputs[i])[...] = 0
        return self.outputs[i]

    def temporary(self, dtype: Any, shape: Sequence[Any]) -> TestRef:
        """Make room for a temporary."""
        return TestRef(packed(np.dtype(dtype), tuple(shape)), self._bytes(product(tuple(shape)), dtype))

    def flag(self, message: str) -> TestRef:
        """Make room for a word that kernels set where an input is bad; `run` raises then."""
        ref = TestRef(packed(np.dtype(np.int64), ()), self._bytes(1, np.int64))
        ref.buffer[:] = 0
        self.flags.append((ref, message))
        return ref

    def call(self, kernel: Kernel, refs: Sequence[Any]) -> None:
        """Note a call."""
        if len(refs) != kernel.operands:
            raise AssertionError(f"{kernel.name} wants {kernel.operands} operands, found {len(refs)}")
        self.calls.append((kernel, list(refs)))

    def run(self, threads: int = 1) -> None:
        """Compile and run the calls."""
        code = compile_kernels([k for k, _ in self.calls], self.target)
        entries, stages, scratch = [], [], 0
        for n, (k, refs) in enumerate(self.calls):
            words = [r.address(self.env) for r in refs] + [evaluate(d, self.env) for d in k.dims]
            args = np.array(words, np.int64)
            self.keep.append(args)
            chunks = evaluate(k.chunks, self.env)
            entries.append([code[k.key], args.ctypes.data, chunks])
            stages.append([n, 1, *check_chunks(chunks)])
            scratch = max(scratch, evaluate(k.scratch, self.env))
        table, rows = np.array(stages, np.int64), np.array(entries, np.int64)
        program = np.array([table.ctypes.data, rows.ctypes.data], np.int64)
        pool().run(program.ctypes.data, 0, len(stages), scratch + 64, threads)
        for ref, message in self.flags:
            if ref.buffer.any():
                raise OpError(message)


def run_op(
    op: str,
    arrays: Sequence[Any],
    *,
    symbols: dict[int, tuple[Any, ...]] | None = None,
    weights: Sequence[int] = (),
    order: str = "plain",
    multiple: int = 1,
    threads: int = 1,
    at_end: bool = True,
    out_halo: tuple[tuple[int, int], ...] = (),
    epilogue: Epilogue | None = None,
    extra: Sequence[Any] = (),
    exact: bool = False,
    precision: str = "float32",
    rounded: bool = False,
    **attrs: Any,
) -> Any:
    """Run an op's compiled kernels on arrays and return its output (a list, of several); None where the rule refuses.

    Args:
        op: its name.
        arrays: its arguments: arrays, scalars, None, lists of arrays.
        symbols: shapes with `Dim`s instead of an input's sizes; each bare symbol is bound to the array's size there.
        weights: inputs that are constants of the plan, which may be packed.
        order: how inputs and outputs lie where the rule takes any order.
        multiple: of the pixel stride, for channels last.
        threads: how many.
        at_end: buffers end at an unmapped page, else they begin at one.
        out_halo: zeros around the output, which the kernel must leave as they are.
        epilogue: with operands over `extra`.
        extra: arrays of the epilogue.
        exact: without Winograd.
        precision: of contractions.
        rounded: whether float32 lies as bfloat16 where the rule allows it; the result is bfloat16 then.
        attrs: the op's attributes.
    """
    types: list[Any] = []
    env: dict[str, int] = {}
    for i, a in enumerate(arrays):
        if isinstance(a, np.ndarray):
            shape = (symbols or {}).get(i, a.shape)
            for d, n in zip(shape, a.shape, strict=True):
                if isinstance(d, Dim) and d.name:
                    env[d.name] = n
            types.append(TensorType(a.dtype, shape))
        elif isinstance(a, list):
            types.append([TensorType(x.dtype, x.shape) for x in a])
        else:
            types.append(a)
    made = OPS[op].infer_types(*types, **attrs)
    results = list(made) if isinstance(made, tuple) else [made]
    site = TestSite(
        op, list(arrays), attrs, types, results, env, frozenset(weights), exact, epilogue, tuple(extra), order,
        multiple, out_halo, at_end, precision, rounded,
    )  # fmt: skip
    if not LOWERINGS[op].rule(site):  # type: ignore[arg-type]
        return None
    site.run(threads)
    out = [site.outputs[i].view(env).copy() for i in range(len(results)) if i in site.outputs]
    return out if len(results) > 1 else out[0]
