"""Recording: an op that is computed on Tensors leaves a node on the tape.

A node keeps only what its op's VJP reads. That is found by tracing the VJP once on symbols; the rest of the arguments
leave behind their shape and element type.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...ops.broadcast import sum_to
from ...ops.dims import symbols_in
from ...ops.errors import AutogradError, OnnxGradError, OpError, ShapeError
from ...ops.op import Op
from ...ops.pointwise import Pointwise
from ...ops.types import TensorType, is_float, type_of
from .anomaly import here
from .grad_mode import MODE
from .node import AccumulateGrad, Flow, Needed, Node, next_sequence
from .node_names import node_name
from .saved import STALE, Edge, Late, Saved, SavedOutput, Shaped, shaped

if TYPE_CHECKING:
    from ..tensor.tensor import Tensor


class OpNode(Node):
    """One recorded op.

    Attributes:
        args: what is left of the arguments: `Saved`, `Shaped`, or what is no Tensor.
        outputs: the same of the outputs.
    """

    __slots__ = ("args", "attrs", "op", "outputs", "several")

    def __init__(
        self, op: Op, args: tuple[Any, ...], attrs: dict[str, Any], outs: tuple[Tensor, ...], several: bool
    ) -> None:
        """Record an op that was computed on `args` and gave `outs`."""
        self.inputs = tuple([a._grad_edge() if getattr(a, "requires_grad", False) else None for a in args])
        self.begin()
        if MODE.anomaly:
            self.where = here()
        self.op, self.attrs, self.several = op, attrs, several
        saves = False
        self.shapes = shapes = tuple([(t._array.shape, t._array.dtype) for t in outs])
        reads_args, reads_outs = _reads(op, args, attrs, self)
        keeper = MODE.keeper
        kept: list[Any] = []
        for a, read in zip(args, reads_args):  # noqa: B905 - on every op: as long as the arguments by construction
            array = getattr(a, "_array", a)
            if not read:
                kept.append(shaped(array.shape, array.dtype) if hasattr(array, "shape") else a)
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
                made.append(shaped(shape, dtype))
        self.outputs = tuple(made)
        self.saves = saves

    def name(self) -> str:
        """Return the name, as PyTorch gives it: `MulBackward0`."""
        return self.label or node_name(self.op.name, len(self.shapes[0][0]), self.args, self.attrs)

    @property
    def next_functions(self) -> tuple[tuple[Node | AccumulateGrad | None, int], ...]:
        """The nodes that gradients flow to, one an argument that is a Tensor; after release those that there are."""
        if self.freed:
            return tuple(e for e in self.inputs if e is not None)
        return tuple(
            e if e is not None else (None, 0)
            for e, a in zip(self.inputs, self.args, strict=False)
            if isinstance(a, Saved | Shaped)
        )

    def gradients(self, gs: Sequence[Any], recorded: bool, needed: Needed | None) -> list[Flow]:
        """Return the gradients of the inputs by the op's VJP; see `Node`."""
        args: Sequence[Any] = self.args
        ys: Sequence[Any] = self.outputs
        if self.saves:
            args = [a.unpack(self, recorded) if isinstance(a, Saved) else a for a in args]
            ys = [o.unpack(self, recorded) if isinstance(o, SavedOutput) else o for o in ys]
        vjp = self.op.vjp
        assert vjp is not None
        g, y = (tuple(gs), tuple(ys)) if self.several else (gs[0], ys[0])
        entries = vjp(g, y, *args, **self.attrs)
        found = []
        for i, (edge, entry, a) in enumerate(zip(self.inputs, entries, args, strict=False)):
            if edge is not None and entry is not None and (needed is None or needed(edge)):
                found.append((i, entry(), a))
        return found

    def __getattr__(self, name: str) -> Any:
        """Return what was kept, by PyTorch's names: `_saved_self` and `_saved_other`, `_saved_result`.

        Raises:
            AttributeError: if nothing was kept by that name.
            AutogradError: after it was freed.
        """
        if not name.startswith("_saved_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if self.freed:
            raise AutogradError(
                "Trying to backward through the graph a second time (or directly access saved tensors after they have "
                "already been freed). Saved intermediate values of the graph are freed when you call .backward() or "
                "autograd.grad(). Specify retain_graph=True if you need to backward through the graph a second time or "
                "if you need to access saved tensors after calling backward."
            )
        held = self.outputs if name in _RESULTS else self.args
        at = 0 if name in _RESULTS or name in _FIRST else 1
        kept = held[at] if at < len(held) else None
        if (name not in _RESULTS and name not in _FIRST and name not in _SECOND) or kept is None:
            raise AttributeError(f"{self.name()} keeps nothing by the name {name!r}")
        if isinstance(kept, Shaped):
            raise AttributeError(f"{self.name()} keeps nothing by the name {name!r}: its gradient does not read that")
        return kept.unpack(self, True) if isinstance(kept, Saved | SavedOutput) else kept

    def release(self) -> None:
        """Forget what was kept."""
        if self.saves:
            self.args, self.outputs, self.freed = (), (), True


_RESULTS = frozenset({"_saved_result", "_saved_output"})
_FIRST = frozenset({"_saved_self", "_saved_input", "_saved_mat1"})
_SECOND = frozenset({"_saved_other", "_saved_exponent", "_saved_mat2", "_saved_weight", "_saved_target"})


class PointwiseNode(OpNode):
    """One recorded pointwise op: the same as `OpNode`, on a shorter way."""

    __slots__ = ()

    def __init__(self, op: Pointwise, args: tuple[Any, ...], out: Tensor) -> None:
        """Record an op that was computed on `args` and gave `out`."""
        tensor_class = Late.tensor_class
        inputs: list[Edge | None] = []
        for a in args:
            edge = None
            if isinstance(a, tensor_class) and a.requires_grad:
                edge = a._edge
                if edge is None or edge is STALE:
                    edge = a._grad_edge()
            inputs.append(edge)
        self.inputs = tuple(inputs)
        self.sequence = next_sequence()
        self.freed = self.several = False
        self.hooks = self.where = self.label = None
        self.attrs = _NOTHING
        self.op = op
        array = out._array
        self.shapes = ((array.shape, array.dtype),)
        needs = tuple([e is not None for e in inputs])
        reads = _pointwise_reads.get((op, needs))
        reads_args, reads_outs = _reads(op, args, _NOTHING, self) if reads is None else reads
        keeper = None
        if Late.special:
            keeper = MODE.keeper
            if MODE.anomaly:
                self.where = here()
        saves = False
        kept: list[Any] = []
        for a, read in zip(args, reads_args):  # noqa: B905 - on every op: as long as the arguments by construction
            if not isinstance(a, tensor_class):
                kept.append(a if read or not hasattr(a, "shape") else shaped(a.shape, a.dtype))
            elif read:
                kept.append(Saved(a) if keeper is None else keeper.save(a))
                saves = True
            else:
                kept.append(shaped(a._array.shape, a._array.dtype))
        self.args = tuple(kept)
        out.requires_grad, out._edge = True, (self, 0)
        if reads_outs[0]:
            self.outputs = (SavedOutput(out, 0) if keeper is None else keeper.save_output(out, 0),)
            saves = True
        else:
            self.outputs = (shaped(array.shape, array.dtype),)
        self.saves = saves

    def gradients(self, gs: Sequence[Any], recorded: bool, needed: Needed | None) -> list[Flow]:
        """Return the gradients of the inputs; see `Node`."""
        if recorded or (Late.special and MODE.trace is not None):
            return super().gradients(gs, recorded, needed)
        g, args, found = gs[0], self.args, []
        flows = self.op._flows or self.op.flows()  # type: ignore[attr-defined]
        for at, edge in enumerate(self.inputs):
            flow = flows[at]
            if edge is None or flow is None or (needed is not None and not needed(edge)):
                continue
            kernel, reads = flow
            made = g
            if kernel is not None:
                values = [args[r] if r >= 0 else self.outputs[0] for r in reads]
                made = kernel(g, *[v.unpack(self, False) if isinstance(v, _KEPT) else v for v in values])
            like = args[at]
            if type(like) is Saved:
                like = like.tensor._array
            if made.shape != like.shape:
                made = sum_to(made, shape=like.shape)
            found.append((at, made, like))
        return found


_KEPT = (Saved, SavedOutput)
_NOTHING: dict[str, Any] = {}


def _record_pointwise(op: Pointwise, args: tuple[Any, ...]) -> Tensor:
    if Late.guard is not None:
        args = Late.guard.numbers_beside(args)
    tensor_class = Late.tensor_class
    wanted = False
    arrays: list[Any] = []
    for a in args:
        if isinstance(a, tensor_class):
            arrays.append(a._array)
            if a.requires_grad:
                wanted = True
        else:
            arrays.append(a)
    try:
        if Late.guard is None:
            result = op.array_kernel(*arrays)  # type: ignore[misc]
        else:
            result = Late.guard.run(op, op.array_kernel, arrays, _NOTHING)
    except (ValueError, TypeError, IndexError) as error:
        raise _explained(error, op, arrays, _NOTHING) from error
    out = Late.wrap(result)
    if wanted and MODE.enabled:
        if op.vjp is None:
            out._cut = op.name
        elif result.dtype.kind == "f" or is_float(result.dtype):
            PointwiseNode(op, args, out)
    return out


def record(op: Op, args: Sequence[Any], attrs: dict[str, Any]) -> Any:
    """Compute an op on Tensors and, where a gradient may be asked for, put it on the tape."""
    if Late.autocasts and MODE.autocast is not None:
        return MODE.autocast.record(op, args, attrs)
    if not Late.traces and type(op) is Pointwise:
        return _record_pointwise(op, tuple(args))
    kernel = op.eager_kernel or op.array_kernel
    if kernel is None and op.composition is not None and not (Late.traces and _stays_whole(args)):
        return op.composition(*args, **attrs)
    trace = MODE.trace if Late.traces else None
    if trace is not None:
        trace.meet(args)
        kernel = op
        if any(True for a in attrs.values() for _ in symbols_in(a)):
            args = trace.lifted(args)
    tensor_class = Late.tensor_class
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
        elif wanted and op.saving is not None:
            saving, own = op.saving
            return record(saving, args, attrs)[:own]
    try:
        if kernel is None:
            kernel = op.run
        result = kernel(*arrays, **attrs) if Late.guard is None else Late.guard.run(op, kernel, arrays, attrs)
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
            OpNode(op, tuple(args), attrs, outs, True)
        return outs
    out = _out(result, args, arrays)
    if trace is not None:
        trace.made(out)
    if cut is not None:
        out._cut = cut
    if wanted and (out._array.dtype.kind == "f" or is_float(out._array.dtype)):
        OpNode(op, tuple(args), attrs, (out,), False)
    return out


def _stays_whole(args: Sequence[Any]) -> bool:
    """Whether an op that is only a composition becomes one node: where a trace wants that, and no gradient is."""
    if MODE.trace is None or not MODE.trace.whole:
        return False
    flat = [v for a in args for v in (a if type(a) is list else (a,))]
    return not (MODE.enabled and any(getattr(v, "requires_grad", False) for v in flat))


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


def note_view(view: Tensor, of: Tensor) -> None:
    """Note that a Tensor shows memory of another, so that in-place changes of one reach the past of the other."""
    base = of if of._base is None else of._base
    view._base = base
    if base._views is None:
        base._views = set()
    base._views.add(weakref.ref(view, base._views.discard))


def _out(result: Any, args: Sequence[Any], arrays: Sequence[Any]) -> Tensor:
    """Wrap a result; one that shares memory with an argument is a view of it, and shares its version counter."""
    out = Late.wrap(result)
    base = getattr(result, "base", None)
    for i, array in enumerate(arrays):
        if array is result or (base is not None and (array is base or getattr(array, "base", None) is base)):
            of = args[i]
            if hasattr(of, "_array"):
                out._counter = of._shared_counter()
                if MODE.trace is None:
                    note_view(out, of)
                break
    return out


def _reads(
    op: Op, args: tuple[Any, ...], attrs: dict[str, Any], node: OpNode
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
    from ..graph.graph import Graph

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
