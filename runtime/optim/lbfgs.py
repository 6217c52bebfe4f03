"""L-BFGS: steps along a quadratic model of the loss, made of the last changes of the gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ...ops.errors import InputError, TraceError, TrainingError
from ...ops.op import namespace
from ...ops.types import Array
from ..autograd.grad_mode import MODE, enable_grad, no_grad
from ..tensor.tensor import Tensor, wrap
from .optimizer import Optimizer
from .settings import checked, number
from .wolfe import strong_wolfe


class LBFGS(Optimizer):
    """Quasi-Newton steps with a limited memory. Source: Liu & Nocedal 1989; Nocedal & Wright, algorithms 7.4 and 7.5.

    `step` wants a closure, which it calls several times. All parameters are one group.

    Args:
        params: what is trained.
        lr: step size; of the line search, where it starts.
        max_iter: iterations of a step.
        max_eval: calls of the closure in a step; 5/4 of max_iter by default.
        tolerance_grad: a step ends where no element of the gradient is larger.
        tolerance_change: a step ends where parameters or loss change less.
        history_size: how many changes make the model.
        line_search_fn: None, or `strong_wolfe`.
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 1, max_iter: int = 20, max_eval: int | None = None,
        tolerance_grad: float = 1e-7, tolerance_change: float = 1e-9, history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:  # fmt: skip
        """Check and keep the settings; see the class."""
        checked(lr)
        settings = {
            "lr": lr, "max_iter": max_iter, "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change, "history_size": history_size,
            "line_search_fn": line_search_fn,
        }  # fmt: skip
        super().__init__(params, settings)
        if len(self.param_groups) != 1:
            raise InputError("LBFGS doesn't support per-parameter options (parameter groups)")
        self._params: list[Tensor] = self.param_groups[0]["params"]

    def _gradient(self) -> Array:
        xp = namespace(self._params[0]._array)
        parts = [xp.zeros(p.numel(), p.dtype) if p.grad is None else p.grad._array.reshape(-1) for p in self._params]
        return xp.concatenate(parts)

    def _move(self, direction: Array, by: Any) -> None:
        """Add by * direction to the parameters."""
        start = 0
        for p in self._params:
            part = direction[start : start + p.numel()].reshape(p.shape)
            p._array += part * by
            p._bump()
            start += p.numel()

    def _loss(self, closure: Callable[[], Any]) -> Any:
        with enable_grad():
            return closure()

    def _probe(self, closure: Callable[[], Any], start: list[Array], by: Any, direction: Array) -> tuple[float, Array]:
        """Return loss and gradient some way along a direction, and go back."""
        self._move(direction, by)
        loss, gradient = float(self._loss(closure)), self._gradient()
        for p, array in zip(self._params, start, strict=True):
            p._array[...] = array
            p._bump()
        return loss, gradient

    def step(self, closure: Callable[[], Any]) -> Any:
        """Take up to `max_iter` steps of the model, and return the loss before them.

        Args:
            closure: computes the loss and its gradients again, and returns the loss.

        Raises:
            TraceError: in a compiled function: how many iterations there are hangs on values.
            TrainingError: if the line search is unknown.
        """
        if MODE.trace is not None:
            raise TraceError(
                "LBFGS has no compiled step: what it does hangs on the loss; call optimizer.step(closure) outside the "
                "compiled function (the closure may be compiled)"
            )
        with no_grad(), np.errstate(all="ignore"):
            return self._steps(closure)

    def _steps(self, closure: Callable[[], Any]) -> Any:
        group = self.param_groups[0]
        if group["line_search_fn"] not in (None, "strong_wolfe"):
            raise TrainingError("only 'strong_wolfe' is supported")
        lr, smallest, change = number(group["lr"]), group["tolerance_grad"], group["tolerance_change"]
        state = self.state[self._params[0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        first = self._loss(closure)
        loss, gradient, calls = float(first), self._gradient(), 1
        state["func_evals"] += 1
        if abs(gradient).max() <= smallest:
            return first
        memory = Memory.of(state, group["history_size"])
        direction, by = _array(state.get("d")), _array(state.get("t"))
        before, loss_before = _array(state.get("prev_flat_grad")), state.get("prev_loss")
        rounds = 0
        while rounds < group["max_iter"]:
            rounds += 1
            state["n_iter"] += 1
            if state["n_iter"] == 1:
                memory.clear()
                direction = -gradient
            else:
                memory.add(gradient - before, direction * by)
                direction = memory.direction(gradient)
            before, loss_before = gradient.copy(), loss
            by = min(1.0, 1.0 / abs(gradient).sum()) * lr if state["n_iter"] == 1 else lr
            slope = gradient.dot(direction)
            if slope > -change:
                break
            made, done = 0, False
            if group["line_search_fn"] is not None:
                start = [p._array.copy() for p in self._params]
                probe = _prober(self._probe, closure, start, direction)
                loss, gradient, by, made = strong_wolfe(
                    probe, by, direction, loss, gradient, slope, max_ls=group["max_eval"] - calls
                )
                self._move(direction, by)
                done = bool(abs(gradient).max() <= smallest)
            else:
                self._move(direction, by)
                if rounds != group["max_iter"]:
                    loss, gradient, made = float(self._loss(closure)), self._gradient(), 1
                    done = bool(abs(gradient).max() <= smallest)
            calls += made
            state["func_evals"] += made
            if (
                rounds == group["max_iter"]
                or calls >= group["max_eval"]
                or done
                or abs(direction * by).max() <= change
                or abs(loss - loss_before) < change
            ):
                break
        memory.put(state)
        state.update(d=wrap(direction), t=by, prev_flat_grad=wrap(before), prev_loss=loss_before)
        return first


class Memory:
    """The last changes of gradient and parameters, which stand for the inverse of the second derivative.

    Attributes:
        gradients: changes of the gradient.
        steps: changes of the parameters.
        inverses: one over the product of each pair.
        scale: of the identity that they correct.
    """

    def __init__(self, size: int) -> None:
        """Start empty."""
        self.size = size
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.gradients: list[Array] = []
        self.steps: list[Array] = []
        self.inverses: list[Any] = []
        self.scale: Any = 1

    @classmethod
    def of(cls, state: dict[str, Any], size: int) -> Memory:
        """Return what an optimizer's state holds."""
        made = cls(size)
        made.gradients = [_array(t) for t in state.get("old_dirs") or ()]
        made.steps = [_array(t) for t in state.get("old_stps") or ()]
        made.inverses = [_array(t)[()] for t in state.get("ro") or ()]
        found = _array(state.get("H_diag"))
        made.scale = 1 if found is None else found[()] if hasattr(found, "dtype") else found
        return made

    def put(self, state: dict[str, Any]) -> None:
        """Put it into an optimizer's state, by PyTorch's names."""
        state["old_dirs"] = [wrap(a) for a in self.gradients]
        state["old_stps"] = [wrap(a) for a in self.steps]
        state["ro"] = [wrap(a) for a in self.inverses]
        state["H_diag"] = wrap(self.scale) if hasattr(self.scale, "dtype") else self.scale

    def add(self, y: Array, s: Array) -> None:
        """Note that the gradient changed by y along s, where that tells of a positive curvature."""
        product = y.dot(s)
        if product <= 1e-10:
            return
        if len(self.gradients) == self.size:
            for held in (self.gradients, self.steps, self.inverses):
                held.pop(0)
        self.gradients.append(y)
        self.steps.append(s)
        self.inverses.append(1.0 / product)
        self.scale = product / y.dot(y)

    def direction(self, gradient: Array) -> Array:
        """Return minus the inverse second derivative times the gradient: the two loops of the source."""
        q, shares = -gradient, []
        for y, s, inverse in zip(self.gradients[::-1], self.steps[::-1], self.inverses[::-1], strict=True):
            share = s.dot(q) * inverse
            q = q - y * share
            shares.append(share)
        r = q * self.scale
        for y, s, inverse, share in zip(self.gradients, self.steps, self.inverses, shares[::-1], strict=True):
            r = r + s * (share - y.dot(r) * inverse)
        return r


def _array(value: Any) -> Any:
    return value._array if isinstance(value, Tensor) else value


def _prober(probe: Callable[..., Any], closure: Any, start: list[Array], direction: Array) -> Callable[[Any], Any]:
    return lambda by: probe(closure, start, by, direction)
