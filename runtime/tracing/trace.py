"""A trace: while a Python function runs, Tensors hold graph values, so that the ops that it calls become a graph.

A Tensor that was there before the trace is *owned* once it is met: its array is put aside, a value stands in its place,
and what it holds in the end is an update. Everything is put back when the trace ends, however it ends. Forward, the
tape, backward and optimizers run their usual code; where that would touch an array, it asks the trace instead.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops import create, index as index_ops, layout, pointwise as pw, reduce
from ...ops.dims import Shape
from ...ops.errors import AutogradError, ShapeError, TraceError
from ...ops.places import HOST, place_of, to_numpy
from ...ops.random import KEY_TYPE
from ...ops.types import Array, TensorType
from ..autograd.grad_mode import MODE, no_grad
from ..autograd.saved import count_traces
from ..compiled.views import VIEWS
from ..graph.graph import Graph, Value
from ..tensor.tensor import Tensor, wrap
from .optimizer_steps import OptimizerSteps

if TYPE_CHECKING:
    from ..tensor.random import Generator


@dataclass(eq=False)
class Owned:
    """A Tensor that was there before the trace, as it was.

    Attributes:
        place: which argument of the function it is, None for what the function reaches otherwise.
        parent: whose gradient it is.
    """

    tensor: Tensor
    value: Value
    array: Array
    grad: Tensor | None
    version: int | None
    edge: Any
    accumulator: Any
    place: int | None = None
    parent: Owned | None = None

    def restore(self) -> None:
        """Make the Tensor what it was."""
        t = self.tensor
        t._array, t.grad, t._edge = self.array, self.grad, self.edge
        t._accumulator = self.accumulator
        if t._counter is not None:
            t._counter[0] = self.version or 0


def on_host(array: Any) -> Array:
    """Return an array as NumPy's."""
    return np.asarray(to_numpy(array))


class Trace:
    """One trace.

    Attributes:
        graph: what the ops add to.
        owned: by the id of the Tensor.
        keys: a value and its generator for each random op.
        steps: those that optimizers take.
        zeroed: ids of Tensors whose gradients `zero_grad` dropped.
        differentiated: whether gradients were accumulated.
        device: where the Tensors lie that were met: the host, or one CUDA device (numbers may lie on the host).
        whole: whether ops that are only compositions become one node each, as a file wants them.
        undo: called in the end, what was added last first.
    """

    def __init__(self, *, whole: bool = False) -> None:
        """Start with an empty graph; see the class."""
        self.whole = whole
        self.graph = Graph("step")
        self.owned: dict[int, Owned] = {}
        self.keys: list[tuple[Value, Generator]] = []
        self.steps = OptimizerSteps(self)
        self.zeroed: set[int] = set()
        self.undo: list[Callable[[], None]] = []
        self.differentiated = False
        self.device = HOST
        self._inside: dict[int, weakref.ref[Tensor]] = {}
        self._holders: dict[int, list[weakref.ref[Tensor]]] = {}
        self._by_array: dict[int, Owned] = {}

    @contextmanager
    def running(self) -> Iterator[Trace]:
        """Trace what this thread computes; put every owned Tensor back in the end."""
        if MODE.trace is not None:
            raise TraceError("a trace is under way in this thread already")
        count_traces(1)
        MODE.trace = self
        try:
            with self.graph.building():
                yield self
        finally:
            MODE.trace = None
            count_traces(-1)
            for owned in self.owned.values():
                owned.restore()
            for put_back in reversed(self.undo):
                put_back()

    # what is met -------------------------------------------------------------------------------------------------

    def argument(self, tensor: Tensor, shape: Shape, place: int) -> None:
        """Own an argument of the function: an input of the graph."""
        self._own(tensor, self.graph.input(f"x{place}", TensorType(tensor.dtype, shape)), place)

    def own(self, tensor: Tensor) -> None:
        """Own a Tensor that the function reaches; nothing happens to what is owned or was made inside."""
        if id(tensor) in self.owned or isinstance(tensor._array, Value) or self._is_inside(tensor):
            return
        known = self._by_array.get(id(tensor._array))
        if known is not None:
            self._own(tensor, known.value, None)
            return
        name = f"{tensor.name or 's'}.{len(self.graph.state)}"
        self._own(tensor, self.graph.add_state(name, TensorType(tensor.dtype, tensor.shape)), None)

    def _own(self, tensor: Tensor, value: Value, place: int | None) -> None:
        there = place_of(tensor._array)
        if there != HOST and self.device not in (HOST, there):
            raise TraceError(
                f"a compiled function runs on one device, found Tensors on {self.device} and {there}; move them to one"
            )
        self.device = there if there != HOST else self.device
        version = None if tensor._counter is None else tensor._counter[0]
        owned = Owned(tensor, value, tensor._array, tensor.grad, version, tensor._edge, tensor._accumulator, place)
        self.owned[id(tensor)] = owned
        self._by_array.setdefault(id(tensor._array), owned)
        tensor._array, tensor._edge, tensor._accumulator = value, None, None
        self._holds(tensor, value)
        if tensor.grad is not None:
            self.own(tensor.grad)
            grad = self.owned.get(id(tensor.grad))
            if grad is not None:
                grad.parent = owned

    def meet(self, args: Sequence[Any]) -> None:
        """Own the Tensors among the arguments of an op."""
        for a in args:
            if isinstance(a, Tensor):
                if not isinstance(a._array, Value):
                    self.own(a)
            elif type(a) is list:
                self.meet(a)

    def lifted(self, args: Sequence[Any]) -> list[Any]:
        """Return arguments with constants of the graph in the place of arrays, where none is a value already.

        An op whose attributes only running brings cannot be computed on arrays while tracing.
        """
        if any(isinstance(a, Tensor) and isinstance(a._array, Value) for a in args):
            return list(args)
        return [Tensor(self.graph.constant(a._array)) if isinstance(a, Tensor) else a for a in args]

    def made(self, *tensors: Tensor) -> None:
        """Note Tensors that were made inside."""
        for t in tensors:
            self._inside[id(t)] = weakref.ref(t)
            if isinstance(t._array, Value):
                self._holds(t, t._array)

    def survivors(self) -> list[Tensor]:
        """Return the Tensors made inside that are still there."""
        return [t for r in self._inside.values() if (t := r()) is not None]

    def _is_inside(self, tensor: Tensor) -> bool:
        found = self._inside.get(id(tensor))
        return found is not None and found() is tensor

    def _holds(self, tensor: Tensor, value: Value) -> None:
        self._holders.setdefault(id(value), []).append(weakref.ref(tensor))

    def alias(self, tensor: Tensor) -> Tensor:
        """Return another Tensor over the same memory."""
        self.own(tensor)
        out = wrap(tensor._array)
        self.made(out)
        return out

    def read(self, tensor: Tensor, what: str) -> None:
        """Refuse that Python reads elements, but for constants made inside.

        Raises:
            TraceError: saying what to do instead.
        """
        self.own(tensor)
        if isinstance(tensor._array, Value):
            raise TraceError(
                f"{what} of a Tensor of shape {list(tensor.shape)} inside a compiled function: its elements are known "
                "only when the function runs, and Python that hangs on them would be frozen. Return the Tensor and "
                "read it outside, choose with og.where, or leave this function uncompiled"
            )

    # what changes ------------------------------------------------------------------------------------------------

    def assign(self, tensor: Tensor, new: Value) -> None:
        """Change the elements of a Tensor, and of all that share its memory.

        Raises:
            TraceError: for views, whose whole would have to change with them.
        """
        self.own(tensor)
        old = tensor._array
        node = getattr(old, "node", None)
        if node is not None and node.op in VIEWS and node.op is not layout.identity:
            raise TraceError(
                f"an in-place change of a view ({node.op.name}) in a compiled function; compute a new Tensor instead"
            )
        for ref in self._holders.pop(id(old), [weakref.ref(tensor)]):
            holder = ref()
            if holder is not None and holder._array is old:
                holder._array = new
                self._holds(holder, new)
        tensor._array = new

    def replace(self, tensor: Tensor, value: Any) -> None:
        """Give a Tensor alone other memory: `tensor.data = value`."""
        self.own(tensor)
        if isinstance(value, Tensor):
            self.own(value)
            value = value._array
        tensor._array = value if isinstance(value, Value) else self.graph.constant(on_host(value))
        self._holds(tensor, tensor._array)
        tensor._bump()

    def change(self, tensor: Tensor, compute: Callable[[Any], Any], recorded: bool) -> None:
        """Put what a function of a Tensor computes in its place, and where it is recorded in the place of its past."""
        self.own(tensor)
        before = wrap(tensor._array)
        if not recorded:
            with no_grad():
                self._put(tensor, compute(before))
            return
        if tensor.requires_grad:
            if tensor.is_leaf:
                raise AutogradError("a leaf Variable that requires grad is being used in an in-place operation.")
            before._edge, before.requires_grad = tensor._edge, True
        made = compute(before)
        self._put(tensor, made)
        tensor._edge, tensor.requires_grad = made._edge, made.requires_grad

    def overwrite(self, tensor: Tensor, value: Any, where: Any, recorded: bool) -> None:
        """Overwrite the elements of a Tensor at an index.

        Raises:
            TraceError: where only running brings which they are.
        """
        self.own(tensor)
        if isinstance(value, Tensor):
            self.own(value)

        def part(t: Tensor, shape: Shape) -> Any:
            if isinstance(value, bool | int | float):
                return create.full_like(t.detach(), shape=shape, value=value)
            given = value if isinstance(value, Tensor) else Tensor(np.asarray(value))
            return reduce.broadcast_to(given.to(dtype=t.dtype), shape=shape)

        if where is ... or (type(where) is tuple and not where) or (type(where) is slice and where == slice(None)):
            self.change(tensor, lambda t: part(t, tuple(t.shape)), recorded)
        else:
            places = self._positions(tensor, where)
            self.change(
                tensor, lambda t: index_ops.copy_slices(t, part(t, places.shape), Tensor(places)), recorded
            )  # fmt: skip

    def _positions(self, tensor: Tensor, where: Any) -> Array:
        shape = tuple(tensor.shape)
        entries = [e._array if isinstance(e, Tensor) else e for e in (where if type(where) is tuple else (where,))]
        if not all(isinstance(n, int) for n in shape) or any(isinstance(e, Value) for e in entries):
            raise TraceError(
                "overwriting some elements of a Tensor inside a compiled function, which ones is known only when it "
                "runs; use og.where, or og.cat of the parts"
            )
        return np.arange(math.prod(shape)).reshape(shape)[tuple(entries)]

    def _put(self, tensor: Tensor, made: Any) -> None:
        made = getattr(made, "_array", made)
        if not isinstance(made, Value):
            made = self.graph.constant(on_host(made))
        if made.dtype != tensor.dtype:
            if made.dtype.kind == "f" and tensor.dtype.kind in "iub":
                raise TraceError(f"an in-place change: {made.dtype} does not fit into {tensor.dtype}")
            made = pw.cast(made, dtype=str(tensor.dtype))
        if tuple(made.shape) != tuple(tensor.shape):
            raise ShapeError(f"in-place change: a result of shape {made.shape} for a Tensor of shape {tensor.shape}")
        self.assign(tensor, made)
        tensor._bump()

    def take(self, x: Tensor, index: Any) -> Tensor:
        """Return the elements of a Tensor at an index.

        Raises:
            TraceError: for truth values, whose number only running brings.
        """
        from ..tensor.methods.indexing import taken

        self.own(x)

        def entry(i: Any) -> Any:
            if isinstance(i, list):
                return np.asarray(i)
            if isinstance(i, Tensor):
                self.own(i)
                if i.dtype.kind == "b" and isinstance(i._array, Value):
                    raise TraceError(
                        "indexing by truth values inside a compiled function: how many hold is known only when it "
                        "runs; use og.where"
                    )
                return i if isinstance(i._array, Value) and i.ndim else i._array
            return i

        return taken(x, tuple(entry(i) for i in index) if isinstance(index, tuple) else entry(index))

    # gradients ---------------------------------------------------------------------------------------------------

    def accumulate(self, leaf: Tensor, g: Any) -> None:
        """Add to the gradient of a leaf.

        Raises:
            AutogradError: for a Tensor that was computed outside, whose past is not part of the graph.
        """
        self.differentiated = True
        owned = self.owned.get(id(leaf))
        if owned is not None and owned.edge is not None:
            raise AutogradError(
                "backward inside a compiled function reaches a Tensor that was computed outside; detach() it, or "
                "compute it inside"
            )
        if leaf.grad is None:
            leaf.grad = Tensor(layout.identity(g))
        else:
            self.own(leaf.grad)
            self.assign(leaf.grad, pw.add(leaf.grad._array, g))
            leaf.grad._bump()

    # what each run brings ----------------------------------------------------------------------------------------

    def key(self, generator: Generator) -> Tensor:
        """Return a key that each run draws anew."""
        value = self.graph.input(f"key{len(self.keys)}", KEY_TYPE)
        self.keys.append((value, generator))
        return Tensor(value)
