"""Pruning: masks that set elements of a parameter to 0, by PyTorch's names.

A pruned module trains `<name>_orig` and keeps the mask in the buffer `<name>_mask`. Its attribute `<name>` is the
product of both, computed again before each forward.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ...ops.errors import OpError, ShapeError
from ...ops.op import namespace
from ..tensor import random
from ..tensor.tensor import Tensor
from .module import Module
from .pruning import BasePruningMethod, PruningContainer, ones_like, prunes


class Identity(BasePruningMethod):
    """A mask of ones: nothing is pruned."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Return the mask until now."""
        return default_mask

    @classmethod
    def apply(cls, module: Module, name: str) -> Any:  # type: ignore[override]
        """Add mask and hook to a module."""
        return super().apply(module, name)


class RandomUnstructured(BasePruningMethod):
    """Elements drawn at random are pruned.

    Args:
        amount: how many, or which fraction.
    """

    PRUNING_TYPE = "unstructured"

    def __init__(self, amount: float) -> None:
        _check_amount(amount)
        self.amount = amount

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Return the mask."""
        count = _count(self.amount, t.numel())
        drawn: Any = random.uniform(np.empty(t.numel()), 0.0, 1.0)
        return _without(default_mask, np.argsort(drawn)[t.numel() - count :])

    @classmethod
    def apply(cls, module: Module, name: str, amount: float) -> Any:  # type: ignore[override]
        """Prune a parameter of a module."""
        return super().apply(module, name, amount=amount)


class L1Unstructured(BasePruningMethod):
    """The elements of the smallest magnitude are pruned.

    Args:
        amount: how many, or which fraction.
    """

    PRUNING_TYPE = "unstructured"

    def __init__(self, amount: float) -> None:
        _check_amount(amount)
        self.amount = amount

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Return the mask."""
        count = _count(self.amount, t.numel())
        xp = namespace(t._array)
        return _without(default_mask, xp.argsort(abs(t._array).reshape(-1), kind="stable")[:count])

    @classmethod
    def apply(  # type: ignore[override]
        cls, module: Module, name: str, amount: float, importance_scores: Tensor | None = None
    ) -> Any:
        """Prune a parameter of a module."""
        return super().apply(module, name, amount=amount, importance_scores=importance_scores)


class RandomStructured(BasePruningMethod):
    """Slices along an axis, drawn at random, are pruned.

    Args:
        amount: how many, or which fraction.
        dim: the axis.
    """

    PRUNING_TYPE = "structured"

    def __init__(self, amount: float, dim: int = -1) -> None:
        _check_amount(amount)
        self.amount, self.dim = amount, dim

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Return the mask."""
        size = _slices(t, self.dim)
        count = _count(self.amount, size)
        drawn: Any = random.uniform(np.empty(size), 0.0, 1.0)
        return _only(t, default_mask, self.dim, np.argsort(drawn)[count:], count)

    @classmethod
    def apply(cls, module: Module, name: str, amount: float, dim: int = -1) -> Any:  # type: ignore[override]
        """Prune a parameter of a module."""
        return super().apply(module, name, amount=amount, dim=dim)


class LnStructured(BasePruningMethod):
    """The slices along an axis that have the smallest n-norm are pruned.

    Args:
        amount: how many, or which fraction.
        n: of the norm: a number, `inf`, `-inf`, or `fro`.
        dim: the axis.
    """

    PRUNING_TYPE = "structured"

    def __init__(self, amount: float, n: Any, dim: int = -1) -> None:
        _check_amount(amount)
        self.amount, self.n, self.dim = amount, n, dim

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Return the mask."""
        size = _slices(t, self.dim)
        count = _count(self.amount, size)
        norms = _norms(t._array, self.n, self.dim)
        return _only(t, default_mask, self.dim, namespace(norms).argsort(-norms, kind="stable")[: size - count], count)

    @classmethod
    def apply(  # type: ignore[override]
        cls, module: Module, name: str, amount: float, n: Any, dim: int, importance_scores: Tensor | None = None
    ) -> Any:
        """Prune a parameter of a module."""
        return super().apply(module, name, amount=amount, n=n, dim=dim, importance_scores=importance_scores)


class CustomFromMask(BasePruningMethod):
    """What a given mask says is pruned.

    Args:
        mask: 0 where elements are pruned, else 1.
    """

    PRUNING_TYPE = "global"

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Return the mask.

        Raises:
            ShapeError: if it does not fit.
        """
        if default_mask.shape != self.mask.shape:
            raise ShapeError(f"default_mask shape {default_mask.shape} must match self.mask shape {self.mask.shape}")
        return default_mask * self.mask.to(dtype=default_mask.dtype)

    @classmethod
    def apply(cls, module: Module, name: str, mask: Tensor) -> Any:  # type: ignore[override]
        """Prune a parameter of a module."""
        return super().apply(module, name, mask=mask)


def identity(module: Module, name: str) -> Module:
    """Add a mask of ones to a parameter, and return the module."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: Module, name: str, amount: float) -> Module:
    """Prune elements of a parameter at random, and return the module; see `RandomUnstructured`."""
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(module: Module, name: str, amount: float, importance_scores: Tensor | None = None) -> Module:
    """Prune the smallest elements of a parameter, and return the module; see `L1Unstructured`."""
    L1Unstructured.apply(module, name, amount=amount, importance_scores=importance_scores)
    return module


def random_structured(module: Module, name: str, amount: float, dim: int) -> Module:
    """Prune slices of a parameter at random, and return the module; see `RandomStructured`."""
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(
    module: Module, name: str, amount: float, n: Any, dim: int, importance_scores: Tensor | None = None
) -> Module:
    """Prune the slices of a parameter of the smallest norm, and return the module; see `LnStructured`."""
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def custom_from_mask(module: Module, name: str, mask: Tensor) -> Module:
    """Prune a parameter by a mask, and return the module."""
    CustomFromMask.apply(module, name, mask)
    return module


def global_unstructured(
    parameters: Iterable[tuple[Module, str]],
    pruning_method: type[BasePruningMethod],
    importance_scores: dict[tuple[Module, str], Tensor] | None = None,
    **kwargs: Any,
) -> None:
    """Prune several parameters as if they were one.

    Args:
        parameters: (module, name) pairs.
        pruning_method: an unstructured method.
        importance_scores: how important each element is, by such pair; by default the elements themselves.
        kwargs: of the method's constructor: `amount`.

    Raises:
        TypeError: if the parameters are no iterable, or the method is not unstructured.
    """
    if not isinstance(parameters, Iterable):
        raise TypeError("global_unstructured(): parameters is not an Iterable")
    pairs = [*parameters]
    scores = {} if importance_scores is None else importance_scores
    if not isinstance(scores, dict):
        raise TypeError("global_unstructured(): importance_scores must be of type dict")
    method: Any = pruning_method(**kwargs)
    if method.PRUNING_TYPE != "unstructured":
        raise TypeError(
            'Only "unstructured" PRUNING_TYPE supported for the `pruning_method`. Found method '
            f"{pruning_method} of type {method.PRUNING_TYPE}"
        )
    tensors = [getattr(module, name) for module, name in pairs]
    values = [scores.get(pair, t) for pair, t in zip(pairs, tensors, strict=True)]
    masks = [getattr(m, f"{n}_mask", None) for m, n in pairs]
    container = PruningContainer()
    container._tensor_name = method._tensor_name = "temp"
    container.add_pruning_method(method)
    final = container.compute_mask(
        _flat(values), _flat([ones_like(t) if m is None else m for m, t in zip(masks, tensors, strict=True)])
    )
    start = 0
    for (module, name), t in zip(pairs, tensors, strict=True):
        custom_from_mask(module, name, Tensor(final._array[start : start + t.numel()].reshape(t.shape)))
        start += t.numel()


def remove(module: Module, name: str) -> Module:
    """Make a pruned Tensor a parameter again, for good, and return the module.

    Raises:
        OpError: if it is not pruned.
    """
    for number, hook in module._forward_pre_hooks.items():
        if prunes(hook, name):
            hook.remove(module)
            del module._forward_pre_hooks[number]
            return module
    raise OpError(f"Parameter '{name}' of module {module} has to be pruned before pruning can be removed")


def is_pruned(module: Module) -> bool:
    """Return whether a module, or one below it, is pruned."""
    return any(isinstance(h, BasePruningMethod) for m in module.modules() for h in m._forward_pre_hooks.values())


def _check_amount(amount: Any) -> None:
    if not isinstance(amount, numbers.Real):
        raise TypeError(f"Invalid type for amount: {amount}. Must be int or float.")
    whole = isinstance(amount, numbers.Integral)
    if float(amount) < 0 or (not whole and float(amount) > 1):
        raise OpError(f"amount={amount} should either be a float in the range [0, 1] or a non-negative integer")


def _count(amount: Any, size: int) -> int:
    """Return how many of so many are pruned."""
    count = int(amount) if isinstance(amount, numbers.Integral) else round(amount * size)
    if count > size:
        raise OpError(f"amount={amount} should be smaller than the number of parameters to prune={size}")
    return count


def _slices(t: Tensor, dim: int) -> int:
    """Return how many slices there are along an axis."""
    if t.ndim <= 1:
        raise OpError(
            "Structured pruning can only be applied to multidimensional tensors. Found tensor of shape "
            f"{t.shape} with {t.ndim} dims"
        )
    if dim >= t.ndim:
        raise IndexError(f"Invalid index {dim} for tensor of size {t.shape}")
    return t.shape[dim]


def _norms(t: Any, n: Any, dim: int) -> Any:
    """Return the n-norm of each slice along an axis."""
    xp = namespace(t)
    size = xp.abs(t)
    axes = tuple(d for d in range(t.ndim) if d != dim % t.ndim)
    if n in ("fro", 2):
        return xp.sqrt((size * size).sum(axes))
    if n in (float("inf"), float("-inf")):
        return size.max(axes) if n > 0 else size.min(axes)
    if isinstance(n, str):
        raise OpError(f"a norm {n!r} over the axes of a slice is not supported: a number, 'fro', inf or -inf")
    return (size != 0).sum(axes) if n == 0 else (size**n).sum(axes) ** (1.0 / n)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return Tensor(namespace(tensors[0]._array).concatenate([t._array.reshape(-1) for t in tensors]))


def _without(mask: Tensor, places: Any) -> Tensor:
    """Return a mask with more zeros."""
    made = mask._array.copy()
    made.reshape(-1)[places] = 0
    return Tensor(made)


def _only(t: Tensor, mask: Tensor, dim: int, kept: Any, pruned: int) -> Tensor:
    """Return a mask with zeros in all slices but some."""
    if not pruned:
        return mask
    made = namespace(t._array).zeros_like(t._array)
    made[tuple(kept if d == dim % t.ndim else slice(None) for d in range(t.ndim))] = 1
    return Tensor(made * mask._array.astype(made.dtype))
