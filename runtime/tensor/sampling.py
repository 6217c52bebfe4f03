"""Functions that draw random Tensors, from the process's generator or a given one."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ops.errors import DTypeError, OpError, ShapeError
from ...ops.types import is_float
from . import random
from .creation import made, shape_of, type_or_default
from .tensor import Tensor


def _size(size: tuple[Any, ...], named: dict[str, Any], function: str) -> tuple[int, ...]:
    if "size" in named:
        size = (named.pop("size"),)
    named.pop("pin_memory", None)
    if named:
        raise TypeError(f"{function}() got an unexpected keyword argument '{next(iter(named))}'")
    return shape_of(size)


def randn(
    *size: Any,
    generator: random.Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **named: Any,
) -> Tensor:
    """Return draws from the standard normal distribution."""
    like = np.empty(_size(size, named, "randn"), type_or_default(dtype))
    return made(random.normal(like, 0.0, 1.0, generator), device, requires_grad)


def rand(
    *size: Any,
    generator: random.Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **named: Any,
) -> Tensor:
    """Return draws from [0, 1)."""
    like = np.empty(_size(size, named, "rand"), type_or_default(dtype))
    return made(random.uniform(like, 0.0, 1.0, generator), device, requires_grad)


def _like(input: Any, dtype: Any) -> Any:
    return np.empty(tuple(input.shape), input.dtype if dtype is None else np.dtype(dtype))


def randn_like(
    input: Tensor,
    generator: random.Generator | None = None,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """Return draws from the standard normal distribution, of the shape, element type and device of another."""
    drawn = random.normal(_like(input, dtype), 0.0, 1.0, generator)
    return made(drawn, input.device if device is None else device, requires_grad)


def rand_like(
    input: Tensor,
    generator: random.Generator | None = None,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """Return draws from [0, 1), of the shape, element type and device of another."""
    drawn = random.uniform(_like(input, dtype), 0.0, 1.0, generator)
    return made(drawn, input.device if device is None else device, requires_grad)


def randint(
    low: int,
    high: Any = None,
    size: Any = None,
    *,
    generator: random.Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return integer draws from [low, high), or from [0, low) where only a size follows.

    Raises:
        OpError: if there is no number to draw.
    """
    if size is None:
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    low, high = int(low), int(high)
    if low >= high:
        raise OpError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    drawn = random.integers(low, high, shape_of((size,)), generator)
    return made(drawn if dtype is None else drawn.astype(np.dtype(dtype)), device, requires_grad)


def randint_like(
    input: Tensor,
    low: int,
    high: Any = None,
    *,
    generator: random.Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return integer draws of the shape, element type and device of another; see `randint`."""
    low, high = (0, low) if high is None else (low, high)
    return randint(
        low,
        high,
        tuple(input.shape),
        generator=generator,
        dtype=input.dtype if dtype is None else dtype,
        device=input.device if device is None else device,
        requires_grad=requires_grad,
    )


def randperm(
    n: int,
    *,
    generator: random.Generator | None = None,
    dtype: Any = "int64",
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return the numbers below n in random order."""
    if n < 0:
        raise OpError(f"n must be non-negative, got {n}")
    return made(random.permutation(n, generator).astype(np.dtype(dtype)), device, requires_grad)


def normal(
    mean: Any,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: random.Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return draws from normal distributions.

    Args:
        mean: a number, or one for each draw.
        std: a number, or one for each draw.
        size: the shape, where both are numbers.
        generator: what draws; the process's by default.
        dtype: the element type, where both are numbers.
        device: the device, where both are numbers.
        requires_grad: record what is computed from it.

    Raises:
        OpError: if a standard deviation is negative.
    """
    given = [t for t in (mean, std) if isinstance(t, Tensor)]
    low = std.detach().amin().item() if isinstance(std, Tensor) and std.numel() else std
    if not isinstance(low, Tensor) and low < 0:
        raise OpError(f"normal expects std >= 0.0, but found std {low}")
    if not given:
        like = np.empty(shape_of((() if size is None else size,)), type_or_default(dtype))
        return made(random.normal(like, float(mean), float(std), generator), device, requires_grad)
    shape = np.broadcast_shapes(*(tuple(t.shape) for t in given))
    drawn = Tensor(random.normal(np.empty(shape, given[0].dtype), 0.0, 1.0, generator)).to(device=given[0].device)
    parts = [t.detach() if isinstance(t, Tensor) else t for t in (mean, std)]
    return (drawn * parts[1] + parts[0]).requires_grad_(requires_grad)


def bernoulli(input: Tensor, p: float | None = None, *, generator: random.Generator | None = None) -> Tensor:
    """Return 1 with the probability that each element is, or p, else 0; of the element type of the input.

    Raises:
        OpError: if a probability is outside [0, 1].
    """
    chances = np.full(tuple(input.shape), p) if p is not None else np.asarray(input.detach().cpu()._array)
    if p is None and not is_float(input.dtype):
        raise DTypeError(f"bernoulli: wants probabilities as floats, found {input.dtype}")
    if chances.size and not (chances.min() >= 0 and chances.max() <= 1):
        raise OpError(f"Expected p_in >= 0 && p_in <= 1 to be true, found {chances.min()} to {chances.max()}")
    drawn = random.uniform(np.empty(chances.shape, np.float64), 0.0, 1.0, generator)
    return made((drawn < chances).astype(input.dtype), input.device, False)


def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *, generator: random.Generator | None = None
) -> Tensor:
    """Return places drawn with the probabilities that the elements of each row are in proportion to.

    Args:
        input: weights, one row or several; not negative, with a positive sum.
        num_samples: how many places of each row.
        replacement: a place may come twice.
        generator: what draws; the process's by default.

    Raises:
        ShapeError: unless there are one or two axes.
        OpError: if the weights are none, or there are too few.
    """
    if input.ndim not in (1, 2):
        raise ShapeError(f"prob_dist must be 1 or 2 dim, found shape {list(input.shape)}")
    if not is_float(input.dtype):
        raise DTypeError(f"multinomial only supports floating-point dtypes for input, got: {input.dtype}")
    weights = np.asarray(input.detach().cpu()._array, np.float64)
    rows = weights.reshape(-1, weights.shape[-1])
    if num_samples <= 0:
        raise OpError("cannot sample n_sample <= 0 samples")
    if not np.isfinite(rows).all() or (rows < 0).any():
        raise OpError("probability tensor contains either `inf`, `nan` or element < 0")
    if (rows.sum(1) <= 0).any():
        raise OpError("invalid multinomial distribution (sum of probabilities <= 0)")
    if not replacement and ((rows > 0).sum(1) < num_samples).any():
        raise OpError(
            f"cannot sample n_sample > prob_dist.size(-1) samples without replacement: {num_samples} of "
            f"{int((rows > 0).sum(1).min())} that are not 0"
        )
    if replacement:
        drawn = random.uniform(np.empty((len(rows), num_samples)), 0.0, 1.0, generator)
        ends = np.cumsum(rows, 1)
        found = np.stack([np.searchsorted(e, d * e[-1], side="right") for e, d in zip(ends, drawn, strict=True)])
        last = (rows > 0).shape[1] - 1 - (rows > 0)[:, ::-1].argmax(1)
        found = np.minimum(found, last[:, None])
    else:
        # Of exponential waiting times, the shortest come first. Source: Efraimidis & Spirakis 2006.
        drawn = random.uniform(np.empty(rows.shape), 0.0, 1.0, generator)
        with np.errstate(divide="ignore"):
            found = np.argsort(-np.log1p(-drawn) / rows, axis=1, kind="stable")[:, :num_samples]
    return made(found.reshape(*weights.shape[:-1], num_samples).astype(np.int64), input.device, False)


def poisson(input: Tensor, generator: random.Generator | None = None) -> Tensor:
    """Return draws from Poisson distributions with the elements as rates.

    Raises:
        OpError: if a rate is negative.
    """
    rates = np.asarray(input.detach().cpu()._array, np.float64)
    if (rates < 0).any():
        raise OpError("invalid Poisson rate, expected rate to be non-negative")
    return made(random.poisson(rates, generator).astype(input.dtype), input.device, False)
