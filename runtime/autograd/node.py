"""The nodes of the tape: where gradients pass on their way back from what was computed to what it was computed from.

`runtime/autograd/record.py` makes them for ops, `runtime/autograd/function.py` for functions with a backward of their
own; `runtime/autograd/tape.py` flows gradients through them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from .hooks import RemovableHandle
from .node_hooks import NodeHooks
from .saved import Edge

if TYPE_CHECKING:
    from ..tensor.tensor import Tensor

Needed: TypeAlias = "Callable[[Edge], bool]"
Flow: TypeAlias = "tuple[int, Any, Any]"
"""The number of a node's input, its gradient, and something of the shape and element type that this must have."""

_sequence = itertools.count()


def next_sequence() -> int:
    """Return a number that grows from node to node."""
    return next(_sequence)


class Hooked:
    """What gradients pass, with the hooks that are called then."""

    __slots__ = ("__weakref__", "hooks")
    hooks: NodeHooks | None

    def name(self) -> str:
        """Return the name, as PyTorch gives it."""
        raise NotImplementedError

    def hooked(self) -> NodeHooks:
        """Return the hooks, made when first asked for."""
        if self.hooks is None:
            self.hooks = NodeHooks()
        return self.hooks

    def register_prehook(self, fn: Callable[[tuple[Any, ...]], Any]) -> RemovableHandle:
        """Call a function with the gradients of the outputs before the node computes; it may return others.

        Args:
            fn: gets a tuple of Tensors, None where nothing arrived; returns such a tuple, or None to change nothing.
        """
        return self.hooked().add(self.hooked().before, fn)

    def register_hook(self, fn: Callable[[tuple[Any, ...], tuple[Any, ...]], Any]) -> RemovableHandle:
        """Call a function with the gradients of the inputs and of the outputs; it may return other ones of the inputs.

        Args:
            fn: gets two tuples of Tensors, None where there is none; returns a tuple in place of the first, or None.
        """
        return self.hooked().add(self.hooked().after, fn)

    def __repr__(self) -> str:
        """Return `<MulBackward0 object at ...>`."""
        return f"<{self.name()} object at {id(self):#x}>"


class AccumulateGrad(Hooked):
    """Where the gradient of a leaf ends: it is added to the leaf's `.grad`."""

    __slots__ = ("variable",)
    next_functions = ()
    inputs: tuple[Edge | None, ...] = ()
    shapes: tuple[Any, ...] = (None,)

    def __init__(self, variable: Tensor) -> None:
        """Stand for a leaf."""
        self.variable, self.hooks = variable, None

    def name(self) -> str:
        """Return the name."""
        return "AccumulateGrad"


class Node(Hooked):
    """Something that was computed, as gradients see it.

    Attributes:
        inputs: for each argument the edge that its gradient flows along, None where none is needed.
        shapes: shape and element type of each output.
        saves: whether a second backward would miss something after the first has freed it.
        freed: whether it has been freed.
        sequence: grows from node to node, so that decreasing order is a valid order of backward.
        where: the lines that computed it, under anomaly detection.
        label: what it is called in place of its own name.
    """

    __slots__ = ("freed", "inputs", "label", "saves", "sequence", "shapes", "where")
    inputs: tuple[Edge | None, ...]
    shapes: tuple[tuple[tuple[int, ...], Any], ...]
    where: str | None
    label: str | None

    def begin(self) -> None:
        """Take the next number, which must be higher than those of the inputs; nothing is kept yet."""
        self.sequence = next(_sequence)
        self.freed = self.saves = False
        self.hooks = self.where = self.label = None

    def gradients(self, gs: Sequence[Any], recorded: bool, needed: Needed | None) -> list[Flow]:
        """Return the gradients of the inputs, given those of the outputs.

        Args:
            gs: one an output, None where nothing arrived; Tensors where what follows is recorded, else arrays.
            recorded: whether it is.
            needed: which edges; all by default.

        Raises:
            AutogradError: if what it needs was changed in place meanwhile.
        """
        raise NotImplementedError

    def release(self) -> None:
        """Forget what was kept."""

    @property
    def next_functions(self) -> tuple[tuple[Node | AccumulateGrad | None, int], ...]:
        """The nodes that gradients flow to, one an argument that is a Tensor."""
        return tuple(e if e is not None else (None, 0) for e in self.inputs)
