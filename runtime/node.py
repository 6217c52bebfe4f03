"""The nodes of the tape: what was computed on Tensors, and what of it is kept for backward.

A node keeps only what its op's VJP reads. That is found by tracing the VJP once on symbols (`reads`); the rest of the
arguments leave behind their shape and element type. What is kept is version-checked when it is read.
`runtime/tape.py` flows gradients back through the nodes.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..ops.errors import AutogradError, OnnxGradError, OpError, ShapeError
from ..ops.op import Op
from ..ops.pointwise import Pointwise
from ..ops.types import TensorType, is_float, type_of
from .grad_mode import MODE

if TYPE_CHECKING:
    from .tensor import Tensor

Edge: TypeAlias = "tuple[Node | AccumulateGrad, int]"
"""Where a gradient goes: an output of a node."""

_sequence = itertools.count()


class _Late:
    """The Tensor class and its quick constructor, which `runtime/tensor.py` puts here: it imports this module.

    Attributes:
        traces: how many traces are under way, in all threads.
    """

    tensor_class: type[Tensor]
    wrap: Callable[[Any], Tensor]
    traces = 0


def next_sequence() -> int:
    """Return a number that grows from node to node."""
    return next(_sequence)


def count_traces(by: int) -> None:
    """Note that traces begin or end."""
    _Late.traces += by


def introduce(tensor_class: type[Tensor], wrap: Callable[[Any], Tensor]) -> None:
    """Make the Tensor class known."""
    _Late.tensor_class, _Late.wrap = tensor_class, staticmethod(wrap)


class Shaped:
    """What is left of an argument whose values the VJP does not read."""

    __slots__ = ("dtype", "shape")
    interpret_priority = 3

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Keep a shape and an element type."""
        self.shape, self.dtype = shape, dtype

    @property
    def ndim(self) -> int:
        """The rank."""
        return len(self.shape)

    @staticmethod
    def __interpret__(op: Op, args: Sequence[Any], attrs: dict[str, Any]) -> Any:
        """Refuse: the values were not kept."""
        raise AutogradError(f"{op.name}: the gradient reads a value that tracing did not find; please report this")


_shaped = functools.lru_cache(maxsize=4096)(Shaped)


class Saved:
    """An argument kept for backward, with its version at that time."""

    __slots__ = ("tensor", "version")

    def __init__(self, tensor: Tensor) -> None:
        """Keep a Tensor."""
        self.tensor, self.version = tensor, tensor._version

    def unpack(self, node: Node | None, recorded: bool) -> Any:
        """Return the Tensor where what follows is recorded, else its array.

        Raises:
            AutogradError: if it was changed in place since.
        """
        t = self.tensor
        if t._version != self.version:
            raise _changed(t._array, t._edge, t._version, self.version)
        return t if recorded else t._array


class SavedOutput:
    """An output kept for backward: its array and version counter, so that the node does not keep itself alive."""

    __slots__ = ("array", "counter", "index", "version")

    def __init__(self, tensor: Tensor, index: int) -> None:
        """Keep an output's array."""
        self.array, self.counter, self.index = tensor._array, tensor._shared_counter(), index
        self.version = self.counter[0]

    def unpack(self, node: Node | None, recorded: bool) -> Any:
        """Return the output, tied to its node again where what follows is recorded, else its array.

        Raises:
            AutogradError: if it was changed in place since.
        """
        if self.counter[0] != self.version:
            edge = None if node is None else (node, self.index)
            raise _changed(self.array, edge, self.counter[0], self.version)
        if not recorded:
            return self.array
        t = _Late.wrap(self.array)
        t._counter = self.counter
        return self.tied(t, node)

    def tied(self, tensor: Tensor, node: Node | None) -> Tensor:
        """Return a Tensor of the output's array as the output of its node."""
        if node is not None and is_float(tensor.dtype):
            tensor.requires_grad, tensor._edge = True, (node, self.index)
        return tensor


def _changed(array: Any, edge: Edge | None, found: int, wanted: int) -> AutogradError:
    where = f", which is output {edge[1]} of {edge[0].name}," if edge is not None else ""
    return AutogradError(
        "one of the variables needed for gradient computation has been modified by an inplace operation: "
        f"[{array.dtype} {list(array.shape)}]{where} is at version {found}; expected version {wanted} instead. "
        "Hint: the change came after the value was saved for backward; change a clone() of it instead."
    )


class AccumulateGrad:
    """Where the gradient of a leaf ends: it is added to the leaf's `.grad`."""

    __slots__ = ("__weakref__", "variable")
    name = "AccumulateGrad"
    next_functions = ()
    inputs: tuple[Edge | None, ...] = ()

    def __init__(self, variable: Tensor) -> None:
        """Stand for a leaf."""
        self.variable = variable

    def __repr__(self) -> str:
        """Return `<AccumulateGrad object at ...>`."""
        return f"<AccumulateGrad object at {id(self):#x}>"


class Node:
    """One recorded computation.

    Attributes:
        inputs: for each argument the edge that its gradient flows along, None where none is needed.
        args: what is left of the arguments: `Saved`, `Shaped`, or what is no Tensor.
        outputs: the same of the outputs.
        shapes: shape and element type of each output.
        saves: whether a second backward would miss something after the first has freed it.
        sequence: grows from node to node, so that decreasing order is a valid order of backward.
    """

    __slots__ = (
        "__weakref__", "args", "attrs", "freed", "inputs", "op", "outputs", "retained", "saves", "sequence", "several",
        "shapes",
    )  # fmt: skip

    def __init__(
        self, op: Op, args: tuple[Any, ...], attrs: dict[str, Any], outs: tuple[Tensor, ...], several: bool
    ) -> None:
        """Record an op that was computed on `args` and gave `outs`."""
        self.op, self.attrs, self.several = op, attrs, several
        self.sequence = next(_sequence)
        self.freed = saves = False
        self.retained: list[tuple[int, weakref.ref[Tensor]]] | None = None
        self.inputs = tuple([a._grad_edge() if getattr(a, "requires_grad", False) else None for a in args])
        self.shapes = shapes = tuple([(t._array.shape, t._array.dtype) for t in outs])
        reads_args, reads_outs = _reads(op, args, attrs, self)
        keeper = MODE.keeper
        kept: list[Any] = []
        for a, read in zip(args, reads_args):  # noqa: B905 - on every op: as long as the arguments by construction
            array = getattr(a, "_array", a)
            if not read:
                kept.append(_shaped(array.shape, array.dtype) if hasattr(array, "shape") else a)
            elif array is a:
                kept.append(a)
            else:
                kept.append(Saved(a) if keeper is None else keeper.save(a))
                saves = True
        self.args = tuple(kept)
        made: list[Any] = []
        for index, t in enumerate(outs):
            shape, dtype = shapes[index]
            if dtype.kind == "f" or is_float(dtype):
                t.requires_grad, t._edge = True, (self, index)
            if reads_outs[index]:
                made.append(SavedOutput(t, index) if keeper is None else keeper.save_output(t, index))
                saves = True
            else:
                made.append(_shaped(shape, dtype))
        self.outputs = tuple(made)
        self.saves = saves

    @property
    def name(self) -> str:
        """The name, as PyTorch gives it: `MulBackward0`."""
        return f"{''.join(p.capitalize() for p in self.op.name.split('_'))}Backward0"

    @property
    def next_functions(self) -> tuple[tuple[Node | AccumulateGrad | None, int], ...]:
        """The nodes that gradients flow to, one an argument that is a Tensor."""
        return tuple(
            e if e is not None else (None, 0)
            for e, a in zip(self.inputs, self.args, strict=False)
            if isinstance(a, Saved | Shaped)
        )

    def release(self) -> None:
        """Forget what was kept."""
        if self.saves:
            self.args, self.outputs, self.freed = (), (), True

    def __repr__(self) -> str:
        """Return `<MulBackward0 object at ...>`."""
        return f"<{self.name} object at {id(self):#x}>"


def record(op: Op, args: Sequence[Any], attrs: dict[str, Any]) -> Any:
    """Compute an op on Tensors and, where a gradient may be asked for, put it on the tape."""
    kernel = op.eager_kernel or op.array_kernel
    if kernel is None and op.composition is not None:
        return op.composition(*args, **attrs)
    trace = MODE.trace if _Late.traces else None
    if trace is not None:
        trace.meet(args)
        kernel = op
    tensor_class = _Late.tensor_class
    wanted, cut = False, None
    arrays: list[Any] = []
    for a in args:
        if isinstance(a, tensor_class):
            arrays.append(a._array)
            if a.requires_grad:
                wanted = True
        elif type(a) is list:
            arrays.append([v._array if isinstance(v, tensor_class) else v for v in a])
        else:
            arrays.append(a)
    if wanted:
        wanted = MODE.enabled
        if wanted and op.vjp is None:
            if op.composition is not None:
                return op.composition(*args, **attrs)
            wanted, cut = False, op.name
    try:
        result = op.run(*arrays, **attrs) if kernel is None else kernel(*arrays, **attrs)
    except (ValueError, TypeError, IndexError) as error:
        raise _explained(error, op, arrays, attrs) from error
    if type(result) is tuple:
        outs = tuple([_out(r, args, arrays) for r in result])
        if trace is not None:
            trace.made(*outs)
        if cut is not None:
            for t in outs:
                t._cut = cut
        if wanted and any(is_float(t._array.dtype) for t in outs):
            Node(op, tuple(args), attrs, outs, True)
        return outs
    out = _out(result, args, arrays)
    if trace is not None:
        trace.made(out)
    if cut is not None:
        out._cut = cut
    if wanted and (out._array.dtype.kind == "f" or is_float(out._array.dtype)):
        Node(op, tuple(args), attrs, (out,), False)
    return out


def _explained(error: Exception, op: Op, arrays: Sequence[Any], attrs: dict[str, Any]) -> Exception:
    """Return what type inference says against the arguments; else the error, with the op and the arguments."""
    if isinstance(error, OnnxGradError):
        return error
    types = [type_of(a) if hasattr(a, "shape") else a for a in arrays]
    objection = _objection(op, types, attrs)
    if objection is not None:
        return objection
    shown = ", ".join(str(t) for t in types)
    return (ShapeError if isinstance(error, ValueError) else OpError)(f"{op.name}({shown}): {error}")


def _objection(op: Op, types: Sequence[Any], attrs: dict[str, Any]) -> OnnxGradError | None:
    """Return the error of type inference; it may stumble itself, for it is written for arguments that fit."""
    try:
        op.infer_types(*types, **attrs)
    except OnnxGradError as error:
        return error
    except (ValueError, TypeError, IndexError, AttributeError):
        return None
    return None


def _out(result: Any, args: Sequence[Any], arrays: Sequence[Any]) -> Tensor:
    """Wrap a result; one that shares memory with an argument shares its version counter too."""
    out = _Late.wrap(result)
    base = getattr(result, "base", None)
    if base is None:
        for i, array in enumerate(arrays):
            if array is result and hasattr(args[i], "_array"):
                out._counter = args[i]._shared_counter()
    else:
        for i, array in enumerate(arrays):
            if (array is base or array is result or getattr(array, "base", None) is base) and hasattr(
                args[i], "_array"
            ):
                out._counter = args[i]._shared_counter()
    return out


def _reads(
    op: Op, args: tuple[Any, ...], attrs: dict[str, Any], node: Node
) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    """Return which arguments and outputs the VJP reads the values of."""
    needs = tuple([e is not None for e in node.inputs])
    known = _pointwise_reads.get((op, needs))
    if known is not None:
        return known
    signature = tuple([_signature(a) for a in args])
    found = _traced_reads(op, signature, tuple(sorted(attrs.items())), needs, node.shapes, node.several)
    # What a scalar expression reads does not depend on shapes.
    if isinstance(op, Pointwise) and all(type(s) is _Type for s in signature):
        _pointwise_reads[op, needs] = found
    return found


def _signature(a: Any) -> Any:
    if type(a) is list:
        return ("list", *map(_signature, a))
    return _Type((a.shape, a.dtype)) if hasattr(a, "shape") else a


class _Type(tuple[Any, ...]):
    """Shape and element type of an argument."""

    __slots__ = ()


_pointwise_reads: dict[tuple[Op, tuple[bool, ...]], tuple[tuple[bool, ...], tuple[bool, ...]]] = {}


@functools.lru_cache(maxsize=4096)
def _traced_reads(
    op: Op, args: tuple[Any, ...], attrs: tuple[Any, ...], needs: tuple[bool, ...], outs: tuple[Any, ...], several: bool
) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    """Trace the VJP on symbols, and return what the nodes that it made read."""
    from .graph import Graph

    graph = Graph("vjp")

    def symbol(signature: Any) -> Any:
        if type(signature) is _Type:
            return graph.input("", TensorType(signature[1], signature[0]))
        return (
            [symbol(v) for v in signature[1:]]
            if isinstance(signature, tuple) and signature[:1] == ("list",)
            else signature
        )

    with graph.building():
        xs = [symbol(s) for s in args]
        ys = [symbol(_Type(s)) for s in outs]
        gs = [symbol(_Type(s)) for s in outs]
        assert op.vjp is not None
        entries = op.vjp(*((tuple(gs), tuple(ys)) if several else (gs[0], ys[0])), *xs, **dict(attrs))
        results = [e() for e, need in zip(entries, needs, strict=False) if need and e is not None]
    read = {id(a) for node in graph.nodes for a in node.inputs()} | {id(r) for r in results}
    return (
        tuple(id(x) in read or not hasattr(x, "graph") for x in xs),
        tuple(id(y) in read for y in ys),
    )
