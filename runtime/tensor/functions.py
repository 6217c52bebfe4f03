"""Functions of Tensors: methods that PyTorch has as functions too, `relu(x)` for `x.relu()`, and what is no method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...ops import matmul as matmul_ops
from ...ops.errors import AutogradError, OpError, ShapeError
from ..autograd.grad_mode import MODE
from .methods.axes import place
from .methods.describing import is_floating_point as is_floating_point
from .methods.pointwise import polygamma as polygamma, where as _where, xlogy as xlogy
from .methods.promotion import (
    can_cast as can_cast,
    floating,
    promote_types as promote_types,
    result_type as result_type,
)
from .methods.returned import Bins
from .tensor import Tensor

METHODS = (
    "abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr adjoint all allclose amax amin aminmax any "
    "arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin argsort argwhere asin asinh atan atan2 atanh "
    "baddbmm bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor bmm broadcast_to "
    "ceil cholesky chunk clamp clamp_max clamp_min clip clone conj copysign cos cosh count_nonzero cross cummax "
    "cummin cumprod cumsum deg2rad det detach diag diag_embed diagflat diagonal diagonal_scatter diff digamma dist "
    "div divide dot dsplit eq equal erf erfc erfinv exp exp2 expand expm1 fix flatten flip fliplr flipud float_power "
    "floor floor_divide fmax fmin fmod frac gather ge ger greater greater_equal gt heaviside hsplit hypot index_add "
    "index_copy index_fill index_put index_reduce index_select inner inverse is_complex is_nonzero is_same_size "
    "is_signed isclose isfinite isinf isnan isneginf isposinf isreal kron kthvalue ldexp le lerp less less_equal "
    "lgamma log log10 log1p log2 log_softmax logaddexp logaddexp2 logcumsumexp logdet logical_and logical_not "
    "logical_or logical_xor logit logsumexp lt masked_fill masked_scatter masked_select matmul matrix_exp "
    "matrix_power max maximum mean median min minimum mm mode moveaxis movedim msort mul multiply mv nan_to_num "
    "nanmean nanmedian nanquantile nansum narrow ne neg negative nonzero norm not_equal numel outer permute pinverse "
    "positive prod put qr quantile rad2deg ravel real reciprocal relu remainder renorm repeat repeat_interleave "
    "reshape roll rot90 round rsqrt rsub scatter scatter_add scatter_reduce select select_scatter sgn sigmoid sign "
    "signbit sin sinc sinh slice_scatter slogdet softmax sort split split_with_sizes sqrt square squeeze std std_mean "
    "sub subtract sum svd swapaxes swapdims t take take_along_dim tan tanh tensor_split tile topk trace transpose "
    "tril triu true_divide trunc unbind unflatten unique unique_consecutive unsqueeze var var_mean vdot vsplit"
)
"""Methods that are functions too."""
_METHODS = frozenset(METHODS.split())


def __getattr__(name: str) -> Any:
    if name not in _METHODS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = globals()[name] = _function(name)
    return made


def _function(name: str) -> Callable[..., Any]:
    method = getattr(Tensor, name)
    if isinstance(method, property):
        method = method.fget

    def function(input: Any, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        found = method(input if isinstance(input, Tensor) else Tensor(input), *args, **kwargs)
        return found if out is None else _put_into(name, out, found)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = method.__doc__
    return function


def _put_into(name: str, out: Any, found: Any) -> Any:
    """Overwrite Tensors that the caller has made with what was computed, and return them; an empty one is resized."""
    if isinstance(found, tuple) and isinstance(out, tuple | list) and len(found) == len(out):
        return type(found)(*(_put_into(name, o, f) for o, f in zip(out, found, strict=True)))
    if not isinstance(out, Tensor) or not isinstance(found, Tensor):
        raise TypeError(f"{name}(): argument 'out' must be Tensor, not {type(out).__name__}")
    if MODE.enabled and (out.requires_grad or found.requires_grad):
        raise AutogradError(
            f"{name}(): functions with out=... arguments don't support automatic differentiation, but one of the "
            "arguments requires grad."
        )
    if out.numel() == 0 and found.numel():
        out.data = found.to(dtype=out.dtype)
        return out
    if out.shape != found.shape:
        raise ShapeError(f"{name}(): out has shape {list(out.shape)}, the result {list(found.shape)}")
    return out._changed(lambda t: found)


def pow(input: Any, exponent: Any) -> Tensor:
    """Return input to the exponent; one of them may be a number."""
    if isinstance(input, Tensor):
        return input.pow(exponent)
    return exponent.__rpow__(input)  # type: ignore[no-any-return]


def where(condition: Any, input: Any = None, other: Any = None) -> Any:
    """Return input where the condition holds, else other; of a condition alone, where it holds, one Tensor an axis."""
    c = condition if isinstance(condition, Tensor) else Tensor(condition)
    return c.nonzero(as_tuple=True) if input is None else _where(c, input, other)


def is_tensor(obj: Any) -> bool:
    """Whether it is a Tensor."""
    return isinstance(obj, Tensor)


def typename(obj: Any) -> str:
    """Return the name of a type, of a Tensor that of PyTorch: `torch.FloatTensor`."""
    if isinstance(obj, Tensor):
        return obj.type()  # type: ignore[no-any-return]
    kind = obj if isinstance(obj, type) else type(obj)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def get_default_dtype() -> np.dtype[Any]:
    """Return the element type of Tensors made of Python floats."""
    return Tensor.default_dtype  # type: ignore[no-any-return]


def set_default_dtype(d: Any) -> None:
    """Set the element type of Tensors made of Python floats.

    Raises:
        TypeError: unless it is a float type.
    """
    given = np.dtype(d)
    if given.kind != "f" and given.name != "bfloat16":
        raise TypeError(f"only floating-point types are supported as the default type, found {given}")
    Tensor.default_dtype = given


def einsum(equation: str, *operands: Any) -> Any:
    """Return the sum of products that the equation asks for; see NumPy's."""
    given = operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    full = matmul_ops.explicit(equation, [x.ndim for x in given])
    return matmul_ops.einsum(*given, equation=full)


def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """Return products summed over pairs of axes: over the last of a and first of b, or over two lists of axes.

    Raises:
        ShapeError: if the axes of a pair differ in size.
    """
    if hasattr(dims, "tolist"):
        dims = dims.tolist()
    if isinstance(dims, int):
        if dims < 0:
            raise ShapeError(f"tensordot expects dims >= 0, but got dims={dims}")
        of_a, of_b = list(range(a.ndim - dims, a.ndim)), list(range(dims))
    else:
        of_a, of_b = ([place(d, t.ndim) for d in given] for given, t in zip(dims, (a, b), strict=True))
    for i, j in zip(of_a, of_b, strict=True):
        if a.shape[i] != b.shape[j]:
            raise ShapeError(
                f"contracted dimensions need to match, but first has size {a.shape[i]} in dim {i} and second has size "
                f"{b.shape[j]} in dim {j}"
            )
    rest_a = [i for i in range(a.ndim) if i not in of_a]
    rest_b = [j for j in range(b.ndim) if j not in of_b]
    inner = int(np.prod([a.shape[i] for i in of_a], dtype=np.int64))
    rows = a.permute(*rest_a, *of_a).reshape(-1, inner) if inner else a.permute(*rest_a, *of_a).flatten(0)
    columns = b.permute(*of_b, *rest_b).reshape(inner, -1)
    return (rows @ columns).reshape([a.shape[i] for i in rest_a] + [b.shape[j] for j in rest_b])


def chain_matmul(*matrices: Tensor) -> Tensor:
    """Return the product of several matrices, multiplied in the cheapest order."""
    from .linalg import multi_dot

    return multi_dot(matrices)


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = None) -> Tensor:
    """Return the p-norm distances of every row of one to every row of the other.

    Shapes: (*B, P, M), (*B, R, M) -> (*B, P, R).
    """
    if x1.ndim < 2 or x2.ndim < 2 or x1.shape[-1] != x2.shape[-1]:
        raise ShapeError(f"X1 and X2 must have the same number of columns. X1: {x1.shape} X2: {x2.shape}")
    return (x1.unsqueeze(-2) - x2.unsqueeze(-3)).norm(p, -1)


def gradient(
    input: Tensor, *, spacing: Any = 1, dim: int | Sequence[int] | None = None, edge_order: int = 1
) -> tuple[Tensor, ...]:
    """Return the differences of neighbours along axes, central inside, one-sided at the ends.

    Args:
        input: values at points.
        spacing: how far the points are apart; or one distance, or one vector of places, an axis.
        dim: the axes, all by default.
        edge_order: 1; of higher order there are none.

    Raises:
        OpError: for another order at the ends.
        ShapeError: unless there is one spacing an axis.
    """
    if edge_order != 1:
        raise OpError(f"gradient: edge_order {edge_order} is not there, only 1")
    axes = [
        place(d, input.ndim) for d in (range(input.ndim) if dim is None else [dim] if isinstance(dim, int) else dim)
    ]
    several = isinstance(spacing, list | tuple)
    gaps = list(spacing) if several else [spacing] * len(axes)
    if len(gaps) != len(axes):
        raise ShapeError(f"gradient: {len(gaps)} spacings for {len(axes)} axes")
    return tuple(_slope(input, at, gap) for at, gap in zip(axes, gaps, strict=True))


def _slope(x: Tensor, at: int, gap: Any) -> Tensor:
    """Return the differences along one axis, of places that are `gap` apart or that it lists."""
    from .joining import cat

    n = x.shape[at]
    step = x.narrow(at, 1, n - 1) - x.narrow(at, 0, n - 1)
    if not isinstance(gap, Tensor) or gap.ndim == 0:
        inner = (step.narrow(at, 1, n - 2) + step.narrow(at, 0, n - 2)) / 2
        return cat([step.narrow(at, 0, 1), inner, step.narrow(at, n - 2, 1)], at) / gap  # type: ignore[no-any-return]
    if tuple(gap.shape) != (n,):
        raise ShapeError(f"gradient: {list(gap.shape)} places for an axis of {n}")
    width = gap[1:] - gap[:-1]
    slope = step / width.reshape(-1, *(1,) * (x.ndim - 1 - at))
    before, after = (w.reshape(-1, *(1,) * (x.ndim - 1 - at)) for w in (width[:-1], width[1:]))
    inner = (slope.narrow(at, 0, n - 2) * after + slope.narrow(at, 1, n - 2) * before) / (before + after)
    return cat([slope.narrow(at, 0, 1), inner, slope.narrow(at, n - 2, 1)], at)


def _host(t: Any, what: str) -> Any:
    """Return a Tensor's elements as a NumPy array, for functions that say where or how many."""
    if not isinstance(t, Tensor):
        return np.asarray(t)
    t._readable(what)
    return np.asarray(t.detach().cpu()._array)


def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Return which elements are among the others."""
    like = elements if isinstance(elements, Tensor) else test_elements
    found = np.isin(_host(elements, "isin()"), _host(test_elements, "isin()"), assume_unique, invert)
    return Tensor(np.asarray(found)).to(device=like.device)


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """Return how often each number from 0 on occurs, or the sum of its weights.

    Raises:
        OpError: unless the numbers are a vector of integers, none negative.
    """
    x = _host(input, "bincount()")
    if x.ndim != 1 or x.dtype.kind not in "iu" or (x.size and x.min() < 0):
        raise OpError(f"bincount only supports 1-d non-negative integral inputs, found shape {x.shape} of {x.dtype}")
    if minlength < 0:
        raise OpError("minlength should be >= 0")
    if weights is None:
        return Tensor(np.bincount(x, minlength=minlength).astype(np.int64)).to(device=input.device)
    w = _host(weights, "bincount()")
    if w.shape != x.shape:
        raise ShapeError(f"weights should be 1-d and have the same length as input: {w.shape} and {x.shape}")
    total = np.bincount(x, w, minlength).astype(w.dtype if w.dtype == np.float32 else np.float64)
    return Tensor(total).to(device=input.device)


def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """Return how many elements fall into each of so many equal bins; from the smallest to the largest by default.

    Raises:
        OpError: if there is no bin, or max is below min.
    """
    x = _host(input, "histc()")
    if bins <= 0:
        raise OpError(f"torch.histc(): bins must be > 0, but got {bins}")
    low, high = (float(x.min()), float(x.max())) if min == max and x.size else (min, max)
    if low == high:
        low, high = low - 1, high + 1
    if not np.isfinite([low, high]).all():
        raise OpError(f"torch.histc: range of [{low}, {high}] is not finite")
    if low > high:
        raise OpError("torch.histc: max must be larger than min")
    counts, _ = np.histogram(x.astype(np.float64), bins, (low, high))
    return Tensor(counts.astype(x.dtype)).to(device=input.device)


def histogram(
    input: Tensor, bins: Any, *, range: Any = None, weight: Tensor | None = None, density: bool = False
) -> Bins:
    """Return how many elements fall into each bin, or the sum of their weights, and the edges of the bins.

    Args:
        input: the elements.
        bins: how many equal bins, or a vector of their edges.
        range: from where to where; from the smallest to the largest by default.
        weight: one an element.
        density: divide, so that the integral over the bins is 1.
    """
    x = _host(input, "histogram()")
    edges = _host(bins, "histogram()") if isinstance(bins, Tensor) else int(bins)
    span = None if range is None else (float(range[0]), float(range[1]))
    weights = None if weight is None else _host(weight, "histogram()").reshape(-1)
    counts, found = np.histogram(x.reshape(-1), edges, span, density, weights)
    return Bins(Tensor(counts.astype(x.dtype)), Tensor(found.astype(x.dtype)))


def searchsorted(
    sorted_sequence: Tensor,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Return where elements would be put into sorted rows.

    Args:
        sorted_sequence: one sorted vector, or one for each row of the input.
        input: the elements, or a number.
        out_int32: return int32 instead of int64.
        right: behind equal elements, not before.
        side: `left` or `right`, the same.
        sorter: an order that sorts the sequence.

    Raises:
        ShapeError: if the rows do not belong together.
    """
    if side not in (None, "left", "right"):
        raise OpError(f"torch.searchsorted(): side can only be 'left' or 'right' but got {side}")
    after = "right" if right or side == "right" else "left"
    rows, values = _host(sorted_sequence, "searchsorted()"), _host(input, "searchsorted()")
    if sorter is not None:
        rows = np.take_along_axis(rows, _host(sorter, "searchsorted()"), -1)
    if rows.ndim == 1:
        found = np.searchsorted(rows, values, after)  # type: ignore[call-overload]
    else:
        if values.shape[:-1] != rows.shape[:-1]:
            raise ShapeError(
                "torch.searchsorted(): boundaries tensor should be 1 dimension or the first N-1 dimensions of "
                f"boundaries tensor and input value tensor must match, but we got boundaries tensor {list(rows.shape)} "
                f"and input value tensor {list(values.shape)}"
            )
        pairs = zip(rows.reshape(-1, rows.shape[-1]), values.reshape(-1, values.shape[-1]), strict=True)
        found = np.stack([np.searchsorted(r, v, after) for r, v in pairs]).reshape(values.shape)  # type: ignore[call-overload]
    return Tensor(np.asarray(found, np.int32 if out_int32 else np.int64)).to(device=sorted_sequence.device)


def bucketize(input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """Return the number of the bucket that each element falls into, between sorted boundaries."""
    if boundaries.ndim != 1:
        raise ShapeError(f"bucketize: boundaries tensor must be 1 dimension, but got dim({boundaries.ndim})")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """Return the places in a shape of places in its flattened form, one Tensor an axis."""
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    found = np.unravel_index(_host(indices, "unravel_index()"), sizes)
    return tuple(Tensor(np.asarray(f, np.int64)) for f in found)


def cov(
    input: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None
) -> Tensor:
    """Return the covariances of variables, one a row, whose observations are the columns.

    Args:
        input: the observations; a vector is one variable.
        correction: what the number of observations is lessened by.
        fweights: how often each observation was made.
        aweights: how much each counts.
    """
    x = floating(input.reshape(1, -1) if input.ndim < 2 else input)
    weights = [w.to(dtype=x.dtype) for w in (fweights, aweights) if w is not None]
    w = None if not weights else weights[0] if len(weights) == 1 else weights[0] * weights[1]
    if w is None:
        centred = x - x.mean(1, True)
        total: Any = x.shape[1]
        product = centred @ centred.T
    else:
        total = w.sum()
        centred = x - (x * w).sum(1, keepdim=True) / total
        product = (centred * w) @ centred.T
    less = total - correction
    if aweights is not None and w is not None:
        less = total - correction * (w * aweights.to(dtype=x.dtype)).sum() / total
    found: Tensor = product / (less if less > 0 else 0)
    return found.squeeze() if input.ndim < 2 else found


def corrcoef(input: Tensor) -> Tensor:
    """Return the correlations of variables, one a row, whose observations are the columns."""
    c = cov(input)
    if c.ndim == 0:
        return c / c
    d = c.diagonal().sqrt()
    return (c / d.unsqueeze(1) / d.unsqueeze(0)).clamp(-1, 1)
