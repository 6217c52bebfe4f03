"""Where full backward hooks stand on the tape: two nodes that change nothing, around what a module computes.

The one behind the outputs sees their gradients first and calls the pre-hooks; the one behind the inputs sees theirs
when all of them are known, and calls the hooks with both.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from ...ops.create import full_like
from ...ops.errors import ModuleError
from ...ops.op import namespace
from ...ops.pointwise import cast
from ...ops.types import is_float
from ..autograd.grad_mode import MODE
from ..autograd.node import Flow, Needed, Node
from ..autograd.saved import shaped
from ..tensor.tensor import Tensor, wrap

Hook: TypeAlias = "Callable[..., Any]"
Passed: TypeAlias = "Callable[[BackwardHookNode, list[Any]], Sequence[Any]]"


class BackwardHookNode(Node):
    """Hands gradients on as the function `passed` leaves them."""

    __slots__ = ("passed",)

    def __init__(self, tensors: Sequence[Tensor], passed: Passed) -> None:
        """Stand behind some Tensors."""
        self.begin()
        self.passed = passed
        self.inputs = tuple(t._grad_edge() if t.requires_grad else None for t in tensors)
        self.shapes = tuple((t._array.shape, t._array.dtype) for t in tensors)

    def name(self) -> str:
        """The name, as PyTorch gives it."""
        return "BackwardHookFunctionBackward"

    def gradients(self, gs: Sequence[Any], recorded: bool, needed: Needed | None) -> list[Flow]:
        """Return the gradients after the hooks; see `Node`."""
        given = [None if g is None else _tensor(g) for g in gs]
        found: list[Flow] = []
        for i, (edge, g) in enumerate(zip(self.inputs, self.passed(self, given), strict=True)):
            if edge is not None and g is not None and (needed is None or needed(edge)):
                found.append((i, g if recorded else _view(g._array), shaped(*self.shapes[i])))
        return found

    def filled(self, gs: Sequence[Any]) -> list[Any]:
        """Return gradients with zeros for those that nothing arrived of."""
        like = next(g for g in gs if g is not None)
        return [_zeros(like, *self.shapes[i]) if g is None else g for i, g in enumerate(gs)]


def _zeros(like: Tensor, shape: Any, dtype: Any) -> Tensor:
    if MODE.trace is None:
        return Tensor(namespace(like._array).zeros(shape, dtype))
    return cast(full_like(like, shape=tuple(shape), value=0), dtype=str(dtype))  # type: ignore[no-any-return]


def _view(array: Any) -> Any:
    """Return an array that is not taken for nobody else's, for a hook may have kept it."""
    return array.view() if MODE.trace is None else array


def _tensor(g: Any) -> Tensor:
    if isinstance(g, Tensor):
        return g
    return wrap(g) if MODE.trace is None else Tensor(g)


class Boundary:
    """The backward hooks of one call of a module.

    Args:
        module: whose call it is.
        hooks: called with (module, grad_input, grad_output).
        pre_hooks: called with (module, grad_output) before.
    """

    def __init__(self, module: Any, hooks: Sequence[Hook], pre_hooks: Sequence[Hook]) -> None:
        self.module, self.hooks, self.pre_hooks = module, hooks, pre_hooks
        self._inputs: list[int] | None = None
        self._outputs: list[int] = []
        self._count = self._results = 0
        self._grad_output: tuple[Any, ...] | None = None

    def enter(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the inputs behind their node."""
        self._count = len(args)
        behind, places = _behind(args, self._at_inputs)
        self._inputs = places or None
        return tuple(behind)

    def leave(self, result: Any) -> Any:
        """Return the output behind its node."""
        if not isinstance(result, Tensor | tuple):
            warnings.warn(
                "For backward hooks to be called, module output should be a Tensor or a tuple of Tensors but received "
                f"{type(result)}",
                stacklevel=5,
            )
            return result
        several = isinstance(result, tuple)
        values: Any = result if several else (result,)
        self._results = len(values)
        behind, self._outputs = _behind(values, self._at_outputs)
        return behind if several else behind[0]

    def _at_outputs(self, node: BackwardHookNode, gs: list[Any]) -> Sequence[Any]:
        grads = _placed(self._outputs, gs, self._results)
        for hook in self.pre_hooks:
            grads = self._replaced(hook, hook(self.module, grads), grads, "Backward pre hook", "grad_output")
        self._grad_output = grads
        if self._inputs is None:
            self._call_at_once(grads)
        return [grads[i] for i in self._outputs]

    def _call_at_once(self, grads: tuple[Any, ...]) -> None:
        """Call the hooks where no gradient of an input will come."""
        self._grad_output = None
        if not self.hooks:
            return
        warnings.warn(
            "Full backward hook is firing when gradients are computed with respect to module outputs since no inputs "
            "require gradients. See Module.register_full_backward_hook for more details.",
            stacklevel=2,
        )
        for hook in self.hooks:
            made = hook(self.module, (None,) * self._count, grads)
            if made is not None and not (isinstance(made, tuple) and all(g is None for g in made)):
                raise ModuleError(
                    "Backward hook for Modules where no input requires gradient should always return None or None for "
                    f"all gradients. It is {self._named(hook)}"
                )

    def _at_inputs(self, node: BackwardHookNode, gs: list[Any]) -> Sequence[Any]:
        if self._grad_output is None or self._inputs is None:  # gradients that did not come through the outputs
            return gs
        grads = _placed(self._inputs, node.filled(gs), self._count)
        for hook in self.hooks:
            made = hook(self.module, grads, self._grad_output)
            grads = self._replaced(hook, made, grads, "Backward hook", "grad_input")
        self._grad_output = None
        return [grads[i] for i in self._inputs]

    def _replaced(self, hook: Hook, made: Any, grads: tuple[Any, ...], what: str, kind: str) -> tuple[Any, ...]:
        if made is None:
            return grads
        made = made if isinstance(made, tuple | list) else (made,)
        if len(made) != len(grads):
            raise ModuleError(
                f"{what} returned an invalid number of {kind}, got {len(made)}, but expected {len(grads)}. "
                f"It is {self._named(hook)}"
            )
        for i, (g, old) in enumerate(zip(made, grads, strict=True)):
            if g is None or old is None:
                continue
            if not isinstance(g, Tensor):
                raise ModuleError(
                    f"{self._named(hook)} returned a {type(g).__name__} as {kind} {i}; wanted a Tensor or None"
                )
            if tuple(g.shape) != tuple(old.shape) or g.dtype != old.dtype:
                raise ModuleError(
                    f"{self._named(hook)} returned {g.dtype}{list(g.shape)} as {kind} {i}; wanted {old.dtype}"
                    f"{list(old.shape)}"
                )
        return tuple(made)

    def _named(self, hook: Hook) -> str:
        name = getattr(hook, "__qualname__", type(hook).__name__)
        return f"the hook {name} of {self.module._get_name()}"


def _behind(values: tuple[Any, ...], passed: Passed) -> tuple[Any, list[int]]:
    """Return values with their Tensors behind a node, and their places; as they are where nothing is recorded."""
    places = [i for i, v in enumerate(values) if isinstance(v, Tensor)]
    if not MODE.enabled or not any(values[i].requires_grad for i in places):
        return values, []
    made = list(values)
    node = BackwardHookNode([values[i] for i in places], passed)
    for index, i in enumerate(places):
        made[i] = values[i].detach()
        if values[i].requires_grad and is_float(values[i].dtype):
            made[i].requires_grad, made[i]._edge = True, (node, index)
    if hasattr(values, "_fields"):
        return type(values)(*made), places
    return tuple(made), places


def _placed(places: Sequence[int], gs: Sequence[Any], count: int) -> tuple[Any, ...]:
    placed = [None] * count
    for i, g in zip(places, gs, strict=True):
        placed[i] = g
    return tuple(placed)
