"""Functions with a backward of their own: `autograd.Function`, by PyTorch's names."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from ...ops import layout
from ...ops.broadcast import sum_to
from ...ops.create import full_like
from ...ops.errors import AutogradError
from ...ops.op import namespace
from ...ops.types import is_float
from ..tensor.tensor import Tensor, wrap
from .anomaly import here
from .grad_mode import MODE, no_grad, set_grad_enabled
from .node import Flow, Needed, Node
from .rebase import take_over
from .saved import Saved, SavedOutput


class FunctionCtx:
    """What forward leaves for backward. Anything else may be kept as an attribute.

    Attributes:
        needs_input_grad: for each argument of `apply`, whether its gradient is wanted.
    """

    needs_input_grad: tuple[bool, ...] = ()

    def __init__(self) -> None:
        """Start with nothing kept."""
        self._to_save: tuple[Any, ...] = ()
        self._dirty: tuple[Tensor, ...] = ()
        self._not_differentiable: tuple[Tensor, ...] = ()
        self._materialize = True
        self._node: FunctionNode | None = None

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep Tensors for backward, where `saved_tensors` returns them; None is kept too.

        What is kept so is checked: that it was changed in place meanwhile is an error.
        """
        for t in tensors:
            if t is not None and not isinstance(t, Tensor):
                raise TypeError(
                    f"save_for_backward can only save variables, but argument is of type {type(t).__name__}"
                )
        self._to_save = tensors

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """The Tensors that forward kept.

        Raises:
            AutogradError: after they were freed, or if one was changed in place.
        """
        return self._to_save if self._node is None else self._node.saved_tensors()

    def mark_dirty(self, *args: Tensor) -> None:
        """Say which arguments forward changed in place; they must be returned."""
        self._dirty = args

    def mark_non_differentiable(self, *args: Tensor) -> None:
        """Say which outputs have no gradient."""
        self._not_differentiable = args

    def set_materialize_grads(self, value: bool) -> None:
        """Say whether backward gets zeros for outputs that take no part; else it gets None."""
        self._materialize = value


class Function:
    """An operation with a backward of its own.

    Subclasses define static methods `forward(ctx, *args)` and `backward(ctx, *grad_outputs)`, and are called by
    `apply(*args)`. `forward(*args)` with `setup_context(ctx, inputs, output)` works too.
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Compute; nothing in it is recorded."""
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        """Keep for backward what it needs, where `forward` takes no ctx."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Return a gradient for each argument of forward, None for what has none."""
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom autograd.Function to use it with "
            "backward mode AD."
        )

    vjp = backward

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Compute forward; the result's gradients come from backward.

        Raises:
            AutogradError: if an argument that was marked dirty is a leaf that requires a gradient.
        """
        ctx = FunctionCtx()
        needed = tuple(isinstance(a, Tensor) and a.requires_grad for a in args)
        recorded = MODE.enabled and any(needed)
        ctx.needs_input_grad = needed if recorded else (False,) * len(args)
        with no_grad():
            if cls.setup_context is Function.setup_context:
                result = cls.forward(ctx, *args)
            else:
                result = cls.forward(*args)
                cls.setup_context(ctx, args, result)
        several = isinstance(result, tuple | list)
        given = list(result) if isinstance(result, tuple | list) else [result]
        outs = [_output(out, args, ctx) for out in given]
        if recorded:
            FunctionNode(cls, ctx, args, outs)
        return tuple(outs) if several else outs[0]


def _output(out: Any, args: Sequence[Any], ctx: FunctionCtx) -> Any:
    """Return an output: an argument that was returned unchanged becomes another Tensor of the same memory."""
    if isinstance(out, Tensor) and any(out is a for a in args) and not any(out is d for d in ctx._dirty):
        with no_grad():
            return layout.identity(out)
    return out


class FunctionNode(Node):
    """One call of a `Function`."""

    __slots__ = ("_cls", "_ctx", "_likes", "_recorded", "_saved")

    def __init__(self, cls: type[Function], ctx: FunctionCtx, args: Sequence[Any], outs: Sequence[Any]) -> None:
        """Record it, and make it the past of its outputs."""
        self.inputs = tuple(a._grad_edge() if isinstance(a, Tensor) and a.requires_grad else None for a in args)
        self.begin()
        if MODE.anomaly:
            self.where = here()
        self._cls, self._ctx, self._recorded = cls, ctx, False
        self._likes = [a.detach() if isinstance(a, Tensor) and a.requires_grad else None for a in args]
        self.shapes = tuple((tuple(t.shape), t.dtype) if isinstance(t, Tensor) else ((), None) for t in outs)
        for index, t in enumerate(outs):
            if not isinstance(t, Tensor) or not is_float(t.dtype) or any(t is n for n in ctx._not_differentiable):
                continue
            if any(t is d for d in ctx._dirty):
                take_over(t, (self, index))
            else:
                t.requires_grad, t._edge = True, (self, index)
        self._saved = [self._kept(t, outs) for t in ctx._to_save]
        self.saves = bool(self._saved)
        ctx._to_save, ctx._node = (), self

    @staticmethod
    def _kept(t: Tensor | None, outs: Sequence[Any]) -> Saved | SavedOutput | None:
        if t is None:
            return None
        for index, out in enumerate(outs):
            if out is t:
                return SavedOutput(t, index)
        return Saved(t) if MODE.keeper is None else MODE.keeper.save(t)

    def name(self) -> str:
        """Return the name, as PyTorch gives it: `MyFunctionBackward`."""
        return f"{self._cls.__name__}Backward"

    def saved_tensors(self) -> tuple[Any, ...]:
        """Return what forward kept, tied to its past where backward is recorded."""
        if self.freed:
            raise AutogradError(
                "Trying to backward through the graph a second time (or directly access saved tensors after they have "
                "already been freed). Saved intermediate values of the graph are freed when you call .backward() or "
                "autograd.grad(). Specify retain_graph=True if you need to backward through the graph a second time or "
                "if you need to access saved tensors after calling backward."
            )
        found = (None if s is None else s.unpack(self, True) for s in self._saved)
        return tuple(t if t is None or self._recorded else t.detach() for t in found)

    def gradients(self, gs: Sequence[Any], recorded: bool, needed: Needed | None) -> list[Flow]:
        """Call the class's backward; see `Node`.

        Raises:
            AutogradError: if it returns too many or too few gradients, or one that does not fit.
        """
        self._recorded = recorded
        given = [self._given(g, shape) for g, shape in zip(gs, self.shapes, strict=True)]
        cls = self._cls
        backward = cls.backward if cls.backward is not Function.backward else cls.vjp
        with set_grad_enabled(recorded):
            result = backward(self._ctx, *given)
        made = tuple(result) if isinstance(result, tuple | list) else (result,)
        count = len(self.inputs)
        if len(made) > count and all(m is None for m in made[count:]):
            made = made[:count]
        if len(made) != count:
            raise AutogradError(
                f"function {self.name()} returned an incorrect number of gradients (expected {count}, got {len(made)})"
            )
        found: list[Flow] = []
        for i, (edge, g, like) in enumerate(zip(self.inputs, made, self._likes, strict=True)):
            if g is not None and edge is not None and (needed is None or needed(edge)):
                found.append((i, self._fitting(i, g, like, recorded), like))
        return found

    def _given(self, g: Any, shape: tuple[tuple[int, ...], Any]) -> Tensor | None:
        if g is not None:
            return g if isinstance(g, Tensor) else wrap(g)
        if not self._ctx._materialize or shape[1] is None:
            return None
        like = next((a for a in self._likes if a is not None), None)
        if like is not None and MODE.trace is not None:
            return full_like(like, shape=shape[0], value=0).to(dtype=shape[1])  # type: ignore[no-any-return]
        xp = namespace(like._array if like is not None else 0)
        return wrap(xp.zeros(shape[0], shape[1]))

    def _fitting(self, i: int, g: Any, like: Any, recorded: bool) -> Any:
        if not isinstance(g, Tensor):
            raise AutogradError(
                f"function {self.name()} returned {type(g).__name__} as its gradient {i}; wanted a Tensor or None"
            )
        if tuple(g.shape) != tuple(like.shape):
            if not _expands(tuple(like.shape), tuple(g.shape)):
                raise AutogradError(
                    f"Function {self.name()} returned an invalid gradient at index {i} - got {list(g.shape)} but "
                    f"expected shape compatible with {list(like.shape)}"
                )
            g = sum_to(g, shape=tuple(like.shape))
        return g if recorded else g._array

    def release(self) -> None:
        """Forget what was kept."""
        if self.saves:
            self._saved, self.freed = [], True


def _expands(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    return len(small) <= len(large) and all(s in (1, n) for s, n in zip(reversed(small), reversed(large), strict=False))


class _Once(Function):
    """Stands behind gradients that have no gradient themselves."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        return tuple(a.clone() if isinstance(a, Tensor) else a for a in args)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        raise AutogradError("trying to differentiate twice a function that was marked with @once_differentiable")


def once_differentiable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Say of a `backward` that it is not differentiable itself: asking for second derivatives is an error then."""

    @functools.wraps(fn)
    def backward(ctx: Any, *args: Any) -> Any:
        with no_grad():
            result = fn(ctx, *args)
        if not MODE.enabled or not any(isinstance(a, Tensor) and a.requires_grad for a in args):
            return result
        made = tuple(result) if isinstance(result, tuple | list) else (result,)
        tied = iter(_Once.apply(*(t.detach().requires_grad_() for t in made if isinstance(t, Tensor))))
        return tuple(next(tied) if isinstance(t, Tensor) else t for t in made)

    return backward
