"""A `Site` for tests: lowers one op and runs its kernels on the CPU, in memory with guards around it.

    from .site import refuses, run_op

    (y,) = run_op("softmax", [x], {"axis": -1})                    # a list of outputs, logical arrays
    (y,) = run_op("conv", [x, w, None], attrs, order="channels_last")
    (y,) = run_op("add", [x.T, np.broadcast_to(b, x.T.shape)], order="own")   # inputs lie as the arrays do
    (y,) = run_op("matmul", [a, b], epilogue=Epilogue(expression, (packed(c.dtype, c.shape),), y_dtype), extra=[c])
    assert refuses("softmax", [x.astype(object)], {"axis": -1})    # the rule returns False and has launched nothing

Arguments are NumPy arrays, None, Python scalars and lists of arrays; types of results are inferred. Each launch is
checked (`Launch.check`), each kernel compiled with NVRTC for three generations where it is installed (no spills, no
more registers than declared; kept in the cache), and all launches run twice: with buffers that end, then begin at an
unmapped page, in other orders of blocks and warps. Outputs and temporaries hold 0xFF before, in the second run 0xAA;
both runs must return the same bits, and truth values be 0 or 1; inputs must stay, and of its arguments a kernel may
change only those that it `writes`. A flag is 0 before; `flagged` says whether the kernels set one, and `TestSite.flags`
holds them with their messages. A `LibraryCall` is computed by `references.REFERENCES[type(description)]`: see
`Reference`. `make_site`, `lower` and `TestSite.run` are the steps, for tests that look at the launches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

import numpy as np

from onnxgrad.ops.errors import KernelError
from onnxgrad.ops.kernels.cuda.kernel import Argument, Description, Grid, Kernel, Launch, LibraryCall, Ref, Work
from onnxgrad.ops.kernels.cuda.lowering import LOWERINGS, Epilogue, T
from onnxgrad.ops.kernels.cuda.operand import Operand, channels_last_strides, packed, row_major
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import TensorType, type_of

from . import host, nvrtc
from .memory import POISON, Buffer, TestRef, reach, view_of

ORDERS = ("plain", "channels_last", "transposed", "own")

Reference: TypeAlias = Callable[[Any, list[np.ndarray[Any, Any]]], Sequence[np.ndarray[Any, Any]]]
"""`reference(description, arrays) -> results`: arrays are the call's arguments (those that it only writes are poison),
results those that it `writes`, in that order, of any element type: they are rounded to the tensor's."""


class RefusedError(AssertionError):
    """The rule returned False."""


@dataclass(eq=False)
class TestSite:
    """See `run_op`."""

    __test__ = False
    op: str
    arrays: list[Any]
    attrs: dict[str, Any]
    types: list[Any]
    results: list[TensorType]
    order: str = "plain"
    out_order: str = "plain"
    shift: int = 0
    tf32: bool = False
    epilogue: Epilogue | None = None
    extra: tuple[np.ndarray[Any, Any], ...] = ()
    constants: frozenset[int] = frozenset()
    unread: frozenset[int] = frozenset()
    read_by: tuple[str, ...] = ()
    refused: tuple[type, ...] = ()
    work: list[Work] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    outputs: dict[int, TestRef] = field(default_factory=dict)
    tables: list[tuple[TestRef, list[TestRef]]] = field(default_factory=list)
    flags: list[tuple[str, TestRef]] = field(default_factory=list)
    _refs: dict[Any, TestRef] = field(default_factory=dict)
    _shared: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def epilogue_refs(self) -> list[TestRef]:
        """Operands of the epilogue, which lie as its `operands` say."""
        operands = self.epilogue.operands if self.epilogue else ()
        for i, (operand, array) in enumerate(zip(operands, self.extra, strict=True)):
            if ("extra", i) not in self._refs:
                self._refs["extra", i] = self._hold(operand, np.broadcast_to(array, operand.shape))
        return [self._refs["extra", i] for i in range(len(operands))]

    def _hold(self, operand: Operand, array: Any) -> TestRef:
        memory = np.full(reach(operand) * operand.dtype.itemsize, POISON, np.uint8)
        view_of(operand, memory)[...] = array
        buffer = Buffer(memory.size, memory, fixed=True)
        return self._made(operand, buffer)

    def _made(self, operand: Operand, buffer: Buffer) -> TestRef:
        buffer.place(at_end=True)
        self.buffers.append(buffer)
        return TestRef(operand, buffer)

    def _lay(self, array: np.ndarray[Any, Any], order: str) -> Operand:
        asked = order if order != "any" else self.order
        shift = self.shift if order == "any" else 0
        shape = tuple(array.shape)
        if asked == "own" and array.size:
            steps = [s // array.itemsize for s in array.strides]
            strides = tuple(0 if n == 1 else s for n, s in zip(shape, steps, strict=True))
            back = sum((n - 1) * -s for n, s in zip(shape, strides, strict=True) if s < 0)
            return Operand(array.dtype, shape, strides, shift + back)
        return Operand(array.dtype, shape, _strides(shape, asked), shift)

    def read(self, i: int, *, order: str = "any", item: int | None = None) -> TestRef:
        """Place an input, or what a rule has read already in the same order."""
        a = self.arrays[i] if item is None else self.arrays[i][item]
        if a is None or isinstance(a, list):
            raise AssertionError(f"{self.op} reads argument {i}, which is {type(a).__name__}")
        if not isinstance(a, np.ndarray):
            a = np.asarray(a, self._scalar_dtype(a))
        operand = self._lay(a, order)
        key = ("input", i, item, operand)
        if key not in self._refs:
            self._refs[key] = self._hold(operand, a)
        return self._refs[key]

    def prologue(self, i: int) -> None:
        """Return nothing: inputs are in memory."""

    def rounded(self) -> None:
        """Return nothing: nobody wants output 0 rounded beside it."""

    def _scalar_dtype(self, scalar: Any) -> Any:
        for a in self.arrays:
            for each in a if isinstance(a, list) else [a]:
                if isinstance(each, np.ndarray):
                    return each.dtype
        return np.asarray(scalar).dtype

    def known(self, i: int) -> Any:
        """Return the array of a scalar, or of what a test declares a constant."""
        a = self.arrays[i]
        if a is not None and not isinstance(a, (np.ndarray, list)):
            return np.asarray(a, self._scalar_dtype(a))
        return a if i in self.constants else None

    def constant(self, array: Any) -> TestRef:
        """Place an array."""
        array = np.asarray(array)
        return self._hold(packed(array.dtype, array.shape), array)

    def wanted(self, i: int) -> bool:
        """Whether a test wants an output."""
        return i not in self.unread

    def readers(self, i: int) -> tuple[str, ...]:
        """Return what a test says reads each output that it wants."""
        return self.read_by if self.wanted(i) else ()

    def write(self, i: int = 0, *, order: str = "any") -> TestRef:
        """Make room for an output, once."""
        if i in self.outputs:
            raise AssertionError(f"{self.op} asks twice for output {i}")
        if order == "permuted":
            order = "heads" if self.out_order == "heads" else "plain"
        t = self.results[i]
        dtype = self.epilogue.dtype if self.epilogue and i == 0 else t.dtype
        shape = tuple(int(d) for d in t.shape)
        operand = Operand(np.dtype(dtype), shape, _strides(shape, self.out_order if order == "any" else order))
        self.outputs[i] = self._made(operand, Buffer(operand.nbytes))
        return self.outputs[i]

    def temporary(self, dtype: Any, shape: Sequence[int]) -> TestRef:
        """Make room."""
        operand = packed(np.dtype(dtype), tuple(int(n) for n in shape))
        return self._made(operand, Buffer(operand.nbytes))

    def shared(self, key: Hashable, inputs: Sequence[int | None], make: Callable[[], T]) -> T:
        """Return what is made, once for a key and inputs."""
        whole = key, tuple(inputs)
        if whole not in self._shared:
            self._shared[whole] = make()
        return cast(T, self._shared[whole])

    def attempt(self, work: Callable[[], None]) -> bool:
        """Return whether work could be added; what a refused call leaves behind is taken back."""
        before = list(self.work), list(self.flags), dict(self.outputs), dict(self._shared)
        try:
            work()
        except KernelError:
            self.work, self.flags, self.outputs, self._shared = before
            return False
        return True

    def flag(self, message: str) -> TestRef:
        """Make room for a word that is 0 before each run."""
        operand = packed(np.dtype(np.int32), (1,))
        self.flags.append((message, self._made(operand, Buffer(operand.nbytes, np.zeros(operand.nbytes, np.uint8)))))
        return self.flags[-1][1]

    @property
    def flagged(self) -> bool:
        """Whether the last run has set a flag."""
        return any(ref.view().any() for _, ref in self.flags)

    def table(self, refs: Sequence[Ref], *, writes: Sequence[int] = ()) -> TestRef:
        """Make room for addresses, which are filled in before each run."""
        assert all(0 <= i < len(refs) for i in writes)
        self.tables.append((self.temporary(np.int64, (len(refs),)), list(refs)))  # type: ignore[arg-type]
        return self.tables[-1][0]

    def place(self, *, at_end: bool, poison: int = POISON) -> None:
        """Give every buffer fresh memory, and tables the addresses."""
        for b in self.buffers:
            b.place(at_end=at_end, poison=poison)
        for made, refs in self.tables:
            made.view()[...] = [r.address for r in refs]

    def launch(
        self,
        kernel: Kernel,
        grid: Grid,
        block: Grid,
        arguments: Sequence[Argument],
        *,
        writes: Sequence[int],
        shared_bytes: int = 0,
    ) -> None:
        """Note a launch."""
        launch = Launch(kernel, tuple(grid), tuple(block), tuple(arguments), tuple(writes), shared_bytes)  # type: ignore[arg-type]
        launch.check()
        if not re.search(rf"__launch_bounds__\({kernel.threads}\s*[,)]", kernel.code):
            raise AssertionError(f"{kernel.name}: its text has no __launch_bounds__({kernel.threads})")
        self.work.append(launch)

    def call(self, description: Description, refs: Sequence[Ref], *, writes: Sequence[int]) -> None:
        """Note a call of a library."""
        hash(description)
        if isinstance(description, self.refused):
            raise KernelError(f"{type(description).__name__} is refused")
        self.work.append(LibraryCall(description, tuple(refs), tuple(writes)))

    def run(self, *, at_end: bool, seed: int, poison: int = POISON) -> list[np.ndarray[Any, Any]]:
        """Do the work in fresh memory and return copies of the outputs."""
        self.place(at_end=at_end, poison=poison)
        for n, w in enumerate(self.work):
            before = {id(r.buffer): r.buffer.memory.copy() for r in _refs(w)}
            if isinstance(w, Launch):
                self._launch(w, seed)
            else:
                _call(w)
            self._check(w, n, before)
        for b in self.buffers:
            if b.fixed and b.first is not None and not np.array_equal(b.memory, b.first):
                raise AssertionError(f"{self.op} changed one of its inputs")
        for i, y in self.outputs.items():
            if y.operand.dtype == bool and (y.buffer.memory > 1).any():
                raise AssertionError(f"{self.op}: output {i} holds truth values that are neither 0 nor 1")
        return [self.outputs[i].view().copy() for i in range(len(self.results)) if i in self.outputs]

    def _launch(self, w: Launch, seed: int) -> None:
        arguments = [a.address if isinstance(a, TestRef) else a for a in w.arguments]
        try:
            host.run(w.kernel, w.grid, w.block, arguments, w.shared_bytes, seed=seed)
        except host.HostError as error:
            raise host.HostError(f"{error}{self._near(w, error.address)}", error.address) from None

    def _near(self, w: Launch, address: int) -> str:
        """Say how far an address is from the arguments of a launch."""
        found = []
        for i, a in enumerate(w.arguments):
            if isinstance(a, TestRef) and address:
                begin = int(a.buffer.room.ctypes.data)
                off = address - begin if address < begin else max(0, address - begin - a.buffer.nbytes + 1)
                found.append((abs(off), i, off, a.operand))
        if not found:
            return ""
        _, i, off, operand = min(found, key=lambda f: f[:2])
        return f"\n    {abs(off)} bytes {'before' if off < 0 else 'behind'} argument {i}: {operand}"

    def _check(self, w: Work, n: int, before: dict[int, np.ndarray[Any, Any]]) -> None:
        name = w.kernel.name if isinstance(w, Launch) else type(w.description).__name__
        arguments = w.arguments
        written = {id(arguments[i].buffer) for i in w.writes}  # type: ignore[union-attr]
        for i, a in enumerate(arguments):
            if not isinstance(a, TestRef):
                continue
            b = a.buffer
            if not (b.room[b.nbytes :] == POISON).all():
                raise AssertionError(f"work {n} ({name}) writes behind argument {i}: {a.operand}")
            if id(b) not in written and not np.array_equal(b.memory, before[id(b)]):
                raise AssertionError(f"work {n} ({name}) changes argument {i}, which is not among writes={w.writes}")


def _strides(shape: tuple[int, ...], order: str) -> tuple[int, ...]:
    if order == "channels_last" and len(shape) > 2:
        return channels_last_strides(shape)
    if order == "transposed":
        return row_major(shape[::-1])[::-1]
    if order == "heads" and len(shape) == 4:
        steps = row_major((shape[0], shape[2], shape[1], shape[3]))
        return steps[0], steps[2], steps[1], steps[3]
    return row_major(shape)


def _refs(w: Work) -> list[TestRef]:
    return [a for a in w.arguments if isinstance(a, TestRef)]


def _call(w: LibraryCall) -> None:
    from .references import REFERENCES

    refs = _refs(w)
    results = REFERENCES[type(w.description)](w.description, [r.view() for r in refs])
    for i, result in zip(w.writes, results, strict=True):
        view = refs[i].view()
        if tuple(np.shape(result)) != view.shape:
            raise AssertionError(f"the reference of {w.description} returns {np.shape(result)}, wanted {view.shape}")
        view[...] = result


def make_site(
    name: str,
    arrays: Sequence[Any],
    attrs: dict[str, Any] | None = None,
    *,
    results: Sequence[TensorType] | None = None,
    order: str = "plain",
    out_order: str | None = None,
    shift: int = 0,
    epilogue: Epilogue | None = None,
    extra: Sequence[Any] = (),
    tf32: bool = False,
    constants: Sequence[int] = (),
    unread: Sequence[int] = (),
    read_by: Sequence[str] = (),
    refused: Sequence[type] = (),
) -> TestSite:
    """Return the site on which `run_op` runs a rule; arguments as there."""
    if order not in ORDERS:
        raise ValueError(f"order={order!r}, wanted one of {ORDERS}")
    attrs = dict(attrs or {})
    types: list[Any] = []
    for a in arrays:
        if isinstance(a, np.ndarray):
            types.append(type_of(a))
        elif isinstance(a, list):
            types.append([type_of(x) for x in a])
        else:
            types.append(a)
    if results is None:
        made = OPS[name].infer_types(*types, **attrs)
        results = [t for t in (made if isinstance(made, tuple) else (made,)) if isinstance(t, TensorType)]
    types = [replace(t, contents=None) if isinstance(t, TensorType) else t for t in types]
    if out_order is None:
        out_order = "channels_last" if order == "channels_last" else "plain"
    return TestSite(
        name, list(arrays), attrs, types, list(results), order, out_order, shift, tf32, epilogue,
        tuple(np.asarray(e) for e in extra), frozenset(constants), frozenset(unread), tuple(read_by), tuple(refused),
    )  # fmt: skip


def run_op(
    name: str,
    arrays: Sequence[Any],
    attrs: dict[str, Any] | None = None,
    *,
    results: Sequence[TensorType] | None = None,
    order: str = "plain",
    out_order: str | None = None,
    shift: int = 0,
    epilogue: Epilogue | None = None,
    extra: Sequence[Any] = (),
    tf32: bool = False,
    constants: Sequence[int] = (),
    unread: Sequence[int] = (),
    read_by: Sequence[str] = (),
    refused: Sequence[type] = (),
    compiles: bool = True,
    same: bool = True,
    flagged: bool = False,
) -> list[np.ndarray[Any, Any]]:
    """Run the kernels that an op's rule launches and return its outputs, those that the rule wrote.

    Args:
        name: the op's; `pointwise` for a chain of pointwise ops.
        arrays: its arguments: arrays, scalars, None, lists of arrays.
        attrs: its attributes.
        results: types of its outputs, where the op cannot infer them.
        order: how inputs lie that the rule reads in any order: `plain`, `channels_last` (three axes and more),
            `transposed` (the last axis outermost), or `own` (as the arrays themselves lie: transposed, broadcast with
            strides of 0, with gaps, backwards).
        out_order: how outputs lie that the rule writes in any order; that of the inputs, if it is `channels_last`.
            `heads`: axis 2 outside of axis 1, also where it writes them `permuted`.
        shift: at which element of their buffers such inputs begin: 1 for starts that are not aligned. The operand's
            `offset` says so.
        epilogue: with operands over `extra`.
        extra: the arrays of the epilogue's operands; each is broadcast to its operand's shape.
        tf32: whether products may round to TF32.
        constants: inputs that are constants of the graph (`site.known`).
        unread: outputs that nothing reads (`site.wanted`).
        read_by: ops that read the others (`site.readers`).
        refused: descriptions of which a library has none (`site.attempt`).
        compiles: whether NVRTC is asked too.
        same: whether two runs must return the same bits; False where float atomics are declared.
        flagged: whether kernels must set a flag, because the input is bad; else they must set none.

    Raises:
        RefusedError: if the rule returns False.
        HostError: if a kernel does what a GPU does not forgive.
    """
    site = make_site(
        name, arrays, attrs, results=results, order=order, out_order=out_order, shift=shift, epilogue=epilogue,
        extra=extra, tf32=tf32, constants=constants, unread=unread, read_by=read_by, refused=refused,
    )  # fmt: skip
    if not lower(site):
        raise RefusedError(f"the rule of {name} refuses {', '.join(map(str, site.types))} {site.attrs}")
    kernels = [w.kernel for w in site.work if isinstance(w, Launch)]
    checks = nvrtc.begin_checks(kernels) if compiles else []
    host.compile_kernels(kernels)
    first = site.run(at_end=True, seed=0)
    flags = [site.flagged]
    second = site.run(at_end=False, seed=1, poison=0xAA)
    flags.append(site.flagged)
    for check in checks:
        check.result()
    if flags != [flagged, flagged]:
        raise AssertionError(f"{name}: flags are set {flags}, wanted {flagged}: {[m for m, _ in site.flags]}")
    if same:
        for a, b in zip(first, second, strict=True):
            if a.tobytes() != b.tobytes():
                raise AssertionError(f"{name}: two runs differ, in {np.count_nonzero(a != b)} of {a.size} elements")
    return first


def lower(site: TestSite) -> bool:
    """Run the rule, which launches nothing where it refuses."""
    if site.op not in LOWERINGS:
        raise AssertionError(f"no rule for {site.op}: does the test import the module that registers it?")
    lowering = LOWERINGS[site.op]
    if site.epilogue and (lowering.fuses is None or not lowering.fuses(site.epilogue.expression)):
        return False
    took = lowering.rule(site)
    if not took and site.work:
        raise AssertionError(f"the rule of {site.op} refuses after it has launched")
    if took and not site.outputs:
        raise AssertionError(f"the rule of {site.op} writes no output")
    return took


def refuses(name: str, arrays: Sequence[Any], attrs: dict[str, Any] | None = None, **how: Any) -> bool:
    """Return whether the rule returns False; arguments as `run_op`'s."""
    return not lower(make_site(name, arrays, attrs, **how))
