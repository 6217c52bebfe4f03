"""What all prunings do: a mask beside a parameter, and a hook that multiplies both before each forward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from ...ops.errors import OpError, ShapeError
from ...ops.op import namespace
from ..autograd.grad_mode import no_grad
from ..tensor.tensor import Tensor
from .computed import set_computed
from .module import Module


class BasePruningMethod(ABC):
    """A way of pruning; a subclass says what its mask is.

    Attributes:
        PRUNING_TYPE: `unstructured`, `structured` or `global`: which part of a Tensor that is pruned already a
            further pruning looks at.
    """

    PRUNING_TYPE: str
    _tensor_name: str | None = None

    def __call__(self, module: Module, inputs: Any) -> None:
        """Compute the pruned Tensor again, before a forward."""
        assert self._tensor_name is not None
        set_computed(module, self._tensor_name, self.apply_mask(module))

    @abstractmethod
    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Return the mask.

        Args:
            t: how important each element is.
            default_mask: the mask until now.
        """

    def apply_mask(self, module: Module) -> Tensor:
        """Return the pruned Tensor of a module."""
        assert self._tensor_name is not None, f"Module {module} has to be pruned"
        mask = getattr(module, f"{self._tensor_name}_mask")
        orig = getattr(module, f"{self._tensor_name}_orig")
        return mask.to(dtype=orig.dtype) * orig  # type: ignore[no-any-return]

    @classmethod
    def apply(
        cls, module: Module, name: str, *args: Any, importance_scores: Tensor | None = None, **kwargs: Any
    ) -> Any:
        """Prune a parameter of a module; where it is pruned already, what is left of it.

        Args:
            module: whose parameter it is.
            name: of the parameter.
            args: of the constructor.
            importance_scores: how important each element is; by default the elements themselves.
            kwargs: of the constructor.

        Returns:
            The method, or the container of all methods.
        """
        method = _combined(cls(*args, **kwargs), module, name)
        orig = getattr(module, name)
        if importance_scores is not None and importance_scores.shape != orig.shape:
            raise ShapeError(
                f"importance_scores should have the same shape as parameter {name} of {module}, got "
                f"{importance_scores.shape} vs {orig.shape}"
            )
        fresh = not isinstance(method, PruningContainer)
        if fresh:
            module.register_parameter(f"{name}_orig", orig)
            del module._parameters[name]
            default_mask = ones_like(orig)
        else:
            default_mask = getattr(module, f"{name}_mask").detach().clone()
        try:
            with no_grad():
                scores = orig if importance_scores is None else importance_scores
                mask = method.compute_mask(scores.detach(), default_mask=default_mask)
            module.register_buffer(f"{name}_mask", mask)
            setattr(module, name, method.apply_mask(module))
            module.register_forward_pre_hook(method)
        except Exception:
            if fresh:
                module.__dict__.pop(name, None)
                del module._parameters[f"{name}_orig"]
                module.register_parameter(name, orig)
            raise
        return method

    def prune(self, t: Tensor, default_mask: Tensor | None = None, importance_scores: Tensor | None = None) -> Tensor:
        """Return a pruned Tensor, outside of any module.

        Args:
            t: what is pruned.
            default_mask: a mask to start from.
            importance_scores: how important each element is; by default the elements themselves.
        """
        if importance_scores is not None and importance_scores.shape != t.shape:
            raise ShapeError(
                f"importance_scores should have the same shape as tensor t, got {importance_scores.shape} vs {t.shape}"
            )
        scores = t if importance_scores is None else importance_scores
        with no_grad():
            mask = self.compute_mask(
                scores.detach(), default_mask=ones_like(t) if default_mask is None else default_mask
            )
        return t * mask

    def remove(self, module: Module) -> None:
        """Make the pruned Tensor a parameter again, for good."""
        assert self._tensor_name is not None, f"Module {module} has to be pruned before pruning can be removed"
        name = self._tensor_name
        with no_grad():
            weight = self.apply_mask(module)
        module.__dict__.pop(name, None)
        orig: Any = module._parameters.pop(f"{name}_orig")
        orig.data = weight
        del module._buffers[f"{name}_mask"]
        setattr(module, name, orig)


def _combined(method: BasePruningMethod, module: Module, name: str) -> BasePruningMethod:
    """Return the method, or a container where the Tensor is pruned already, whose hook is taken away."""
    found = [k for k, hook in module._forward_pre_hooks.items() if prunes(hook, name)]
    assert len(found) < 2, (
        f"Avoid adding multiple pruning hooks to the same tensor {name} of module {module}. Use a PruningContainer."
    )
    method._tensor_name = name
    if not found:
        return method
    old = module._forward_pre_hooks.pop(found[0])
    container = old if isinstance(old, PruningContainer) else PruningContainer(old)
    container.add_pruning_method(method)
    return container


def prunes(hook: Any, name: str) -> bool:
    """Return whether a hook prunes the Tensor of this name."""
    return isinstance(hook, BasePruningMethod) and hook._tensor_name == name


class PruningContainer(BasePruningMethod):
    """Prunings of one Tensor, one after the other."""

    def __init__(self, *args: BasePruningMethod) -> None:
        self._pruning_methods: tuple[BasePruningMethod, ...] = ()
        if args:
            self._tensor_name = args[0]._tensor_name
        for method in args:
            self.add_pruning_method(method)

    def add_pruning_method(self, method: BasePruningMethod) -> None:
        """Add a method, which prunes the same Tensor.

        Raises:
            TypeError: if it is none.
            OpError: if it prunes another.
        """
        if not isinstance(method, BasePruningMethod):
            raise TypeError(f"{type(method)} is not a BasePruningMethod subclass")
        if self._tensor_name != method._tensor_name:
            raise OpError(
                f"Can only add pruning methods acting on the parameter named '{self._tensor_name}' to PruningContainer "
                f"{self}. Found '{method._tensor_name}'"
            )
        self._pruning_methods += (method,)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._pruning_methods)

    def __iter__(self) -> Iterator[BasePruningMethod]:
        """Yield the methods."""
        return iter(self._pruning_methods)

    def __getitem__(self, idx: int) -> BasePruningMethod:
        """Return a method by place."""
        return self._pruning_methods[idx]

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Return the mask after the newest method, which sees what the others have left."""
        method: Any = self._pruning_methods[-1]
        where = _left(method, t._array, default_mask._array)
        xp = namespace(t._array)
        mask = default_mask._array.astype(t.dtype)
        part = Tensor(xp.ascontiguousarray(t._array[where]))
        mask[where] = method.compute_mask(part, default_mask=Tensor(default_mask._array[where]))._array
        return Tensor(mask)


def _left(method: Any, t: Any, mask: Any) -> Any:
    """Return the index of the part that a further pruning looks at."""
    if method.PRUNING_TYPE == "unstructured":
        return mask == 1
    if method.PRUNING_TYPE == "global":
        return (slice(None),) * t.ndim
    if method.PRUNING_TYPE != "structured":
        raise OpError(f"Unrecognized PRUNING_TYPE {method.PRUNING_TYPE}")
    if not hasattr(method, "dim"):
        raise AttributeError('Pruning methods of PRUNING_TYPE "structured" need to have the attribute `dim` defined.')
    dim = method.dim + t.ndim if method.dim < 0 else method.dim
    if dim < 0:
        raise IndexError(f"Index is out of bounds for tensor with dimensions {t.ndim}")
    kept = mask.sum(tuple(d for d in range(t.ndim) if d != dim)) != 0
    return tuple(kept if d == dim else slice(None) for d in range(t.ndim))


def ones_like(t: Tensor) -> Tensor:
    """Return the mask that keeps everything."""
    return Tensor(namespace(t._array).ones_like(t._array))
