"""Hooks of a node of the tape: functions that see, and may replace, the gradients that pass it."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...ops.errors import AutogradError
from .grad_mode import MODE
from .hooks import Hooks, RemovableHandle
from .saved import Late

if TYPE_CHECKING:
    from ..tensor.tensor import Tensor
    from .node import Flow, Hooked, Node


class NodeHooks:
    """What is called when gradients pass, in this order.

    Attributes:
        outputs: by the number of an output: the hooks of the Tensor that it is.
        before: get the gradients of all outputs.
        retained: Tensors that keep their gradient, by the number of the output.
        after: get the gradients of the inputs and of the outputs.
    """

    __slots__ = ("after", "before", "outputs", "retained")

    def __init__(self) -> None:
        """Start with none."""
        self.outputs: dict[int, Hooks] = {}
        self.before, self.after = Hooks(), Hooks()
        self.retained: list[tuple[int, weakref.ref[Tensor]]] = []

    def add(self, hooks: Hooks, fn: Any) -> RemovableHandle:
        """Put a hook at the end of some hooks of these."""
        handle = RemovableHandle(hooks)
        hooks[handle.id] = fn
        return handle

    def of_output(self, index: int) -> Hooks:
        """Return the hooks of one output."""
        return self.outputs.setdefault(index, Hooks())

    def arrive(self, node: Hooked, gs: list[Any], recorded: bool) -> list[Any]:
        """Return the gradients of the outputs after the hooks, and keep those that are retained."""
        for index, hooks in self.outputs.items():
            if gs[index] is not None:
                gs[index] = through(hooks, gs[index], recorded, node.name())
        for fn in list(self.before.values()):
            gs = _replaced(fn, fn(_tensors(gs)), gs, recorded, node.name(), "outputs")
        for index, ref in self.retained:
            if (kept := ref()) is not None and (g := gs[index]) is not None:
                g = g if recorded else tensor(g.copy() if MODE.trace is None else g)
                kept.grad = g if kept.grad is None else kept.grad + g
        return gs

    def leave(self, node: Node, found: list[Flow], gs: Sequence[Any], recorded: bool) -> list[Flow]:
        """Return what goes on to the inputs after the hooks."""
        grads: list[Any] = [None] * len(node.inputs)
        for i, g, _ in found:
            grads[i] = g
        for fn in list(self.after.values()):
            made = fn(_tensors(grads), _tensors(gs))
            grads = _replaced(fn, made, grads, recorded, node.name(), "inputs")
        return [(i, grads[i], like) for i, _, like in found if grads[i] is not None]


def _tensors(gs: Sequence[Any]) -> tuple[Tensor | None, ...]:
    return tuple(None if g is None else tensor(g) for g in gs)


def tensor(g: Any) -> Tensor:
    """Return a gradient as a Tensor."""
    return g if isinstance(g, Late.tensor_class) else Late.wrap(g)


def through(hooks: Hooks, g: Any, recorded: bool, where: str) -> Any:
    """Return a gradient after the hooks of a Tensor.

    Raises:
        AutogradError: if one returns something of another type, shape or element type.
    """
    for fn in list(hooks.values()):
        made = fn(tensor(g))
        if made is not None:
            g = _checked(fn, made, g, recorded, where)
    return g


def _replaced(fn: Any, made: Any, gs: list[Any], recorded: bool, where: str, what: str) -> list[Any]:
    if made is None:
        return gs
    made = tuple(made) if isinstance(made, tuple | list) else (made,)
    if len(made) != len(gs):
        raise AutogradError(f"hook {_named(fn)} of {where} has returned an incorrect number of gradients of the {what} "
                            f"(got {len(made)}, but expected {len(gs)})")  # fmt: skip
    return [
        g if m is None else (m._array if not recorded else m) if g is None else _checked(fn, m, g, recorded, where)
        for m, g in zip(made, gs, strict=True)
    ]


def _checked(fn: Any, made: Any, g: Any, recorded: bool, where: str) -> Any:
    hook = f"hook {_named(fn)} of {where}"
    if not isinstance(made, Late.tensor_class):
        raise AutogradError(
            f"{hook} has changed the type of value: wanted a Tensor or None, found {type(made).__name__}"
        )
    if tuple(made.shape) != tuple(g.shape):
        raise AutogradError(f"{hook} has changed the size of value: was {list(g.shape)}, got {list(made.shape)}")
    if made.dtype != g.dtype:
        raise AutogradError(f"{hook} has changed the type of value: was {g.dtype}, got {made.dtype}")
    return made if recorded else made._array


def _named(fn: Any) -> str:
    return repr(getattr(fn, "__qualname__", None) or type(fn).__name__)
