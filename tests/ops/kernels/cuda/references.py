"""What calls of cuDNN and cuBLASLt compute, in float64, read from nothing but their descriptions.

A matrix product is computed on raw memory, column by column, from the very numbers that are passed to the library: what
a rule wrongly says of strides, sizes or transposes gives wrong results here as it would there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from math import erf, prod
from typing import Any

import numpy as np

from onnxgrad.ops.kernels.cuda.cublaslt import Layout, MatMul
from onnxgrad.ops.kernels.cuda.cudnn_graphs import (
    Attention,
    AttentionBackward,
    AttentionForward,
    ConvForward,
    ConvInputGrad,
    Convolution,
    ConvWeightGrad,
)
from onnxgrad.ops.kernels.cuda.operand import Operand

Array = np.ndarray[Any, Any]

_ACTIVATIONS: dict[str, Callable[[Array, float], Array]] = {
    "relu": lambda x, a: np.maximum(x, 0),
    "relu6": lambda x, a: np.clip(x, 0, 6),
    "leaky_relu": lambda x, a: np.where(x > 0, x, a * x),
    "swish": lambda x, a: x / (1 + np.exp(-a * x)),
    "sigmoid": lambda x, a: 1 / (1 + np.exp(-x)),
    "tanh": lambda x, a: np.tanh(x),
    "softplus": lambda x, a: np.logaddexp(0, x),
    "gelu": lambda x, a: x * (1 + np.vectorize(erf, otypes=[np.float64])(x * 0.5**0.5)) / 2,
    "gelu_tanh": lambda x, a: x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2,
}


def lying(array: Array, o: Operand) -> Array:
    """Return memory from an array's first element on as an operand lies in it."""
    strides = [s * o.dtype.itemsize for s in o.strides]
    assert array.dtype == o.dtype, f"{array.dtype} is passed for {o}"
    return np.lib.stride_tricks.as_strided(array, o.shape, strides, writeable=True)


def read(arrays: Sequence[Array], operands: Sequence[Operand]) -> list[Array]:
    """Return what operands hold, in float64."""
    return [lying(a, o).astype(np.float64) for a, o in zip(arrays, operands, strict=True)]


# products of matrices -------------------------------------------------------------------------------------------------


def matmul(d: MatMul, arrays: Sequence[Array]) -> list[Array]:
    """d = activation(alpha a b + c + bias)."""
    first, second = d.sides
    sources = [arrays[first], arrays[second], arrays[d.added], arrays[-1]]
    layouts = [d.a, d.b, d.c or d.d, d.d]
    assert len(arrays) == 3 + d.bias + (d.c is not None)
    for at in d.places:
        for i in range(d.batch):
            a, b, c, out = (_matrix(s, x, p, i) for s, x, p in zip(sources, layouts, at, strict=True))
            x, y = (m.astype(np.float64) for m in (a.T if d.turned_a else a, b.T if d.turned_b else b))
            assert x.shape[1] == y.shape[0] == d.depth and (x.shape[0], y.shape[1]) == out.shape
            made = d.alpha * (x @ y)
            if d.c is not None:
                made += c.astype(np.float64)
            if d.bias:
                bias = np.lib.stride_tricks.as_strided(arrays[2], (d.d.rows,), (d.d.dtype.itemsize,))
                assert arrays[2].dtype == d.d.dtype
                made += bias.astype(np.float64)[:, None]
            out[...] = _ACTIVATIONS[d.activation](made, 1.0) if d.activation else made
    return [arrays[-1]]


def _matrix(source: Array, x: Layout, place: int, i: int) -> Array:
    """Return the matrix of a layout that begins at a place, the i-th of its batch."""
    assert source.dtype == x.dtype and x.leading >= x.rows
    size, begin = x.dtype.itemsize, place + i * x.step
    flat = np.lib.stride_tricks.as_strided(source, (begin + x.extent(1),), (size,), writeable=True)[begin:]
    return np.lib.stride_tricks.as_strided(flat, (x.rows, x.columns), (size, x.leading * size), writeable=True)


# convolutions ---------------------------------------------------------------------------------------------------------


def conv_forward(d: ConvForward, arrays: Sequence[Array]) -> list[Array]:
    """The convolution of the image with the filters."""
    image, filters = read(arrays[:2], d.factors)
    padded, made = _padded(d, image), np.zeros(d.output.shape)
    for part, f, taps in _taps(d, padded):
        made[:, f] += np.einsum("nc...,fc->nf...", part, filters[(f, slice(None), *taps)])
    return _ended(d, made, arrays)


def conv_input_grad(d: ConvInputGrad, arrays: Sequence[Array]) -> list[Array]:
    """The adjoint of the convolution in the image."""
    output, filters = read(arrays[:2], d.factors)
    padded = _padded(d, np.zeros(d.image.shape))
    for part, f, taps in _taps(d, padded):
        part += np.einsum("nf...,fc->nc...", output[:, f], filters[(f, slice(None), *taps)])
    inside = tuple(slice(low, low + n) for (low, _), n in zip(d.pads, d.image.shape[2:], strict=True))
    return _ended(d, padded[(slice(None), slice(None), *inside)], arrays)


def conv_weight_grad(d: ConvWeightGrad, arrays: Sequence[Array]) -> list[Array]:
    """The adjoint of the convolution in the filters."""
    output, image = read(arrays[:2], d.factors)
    made = np.zeros(d.filters.shape)
    axes = "xyz"[: len(d.pads)]
    for part, f, taps in _taps(d, _padded(d, image)):
        made[(f, slice(None), *taps)] += np.einsum(f"nf{axes},nc{axes}->fc", output[:, f], part)
    return _ended(d, made, arrays)


def _padded(d: Convolution, image: Array) -> Array:
    sizes = zip(d.image.shape[2:], d.filters.shape[2:], d.pads, d.strides, d.dilations, d.output.shape[2:], strict=True)
    for n, k, (low, high), s, step, out in sizes:  # what cuDNN checks
        assert low >= 0 <= high and (n + low + high - step * (k - 1) - 1) // s + 1 == out, f"sizes do not fit: {d}"
    return np.pad(image, [(0, 0), (0, 0), *d.pads])


def _taps(d: Convolution, padded: Array) -> Iterator[tuple[Array, slice, tuple[int, ...]]]:
    """Yield for each tap and group the image that it meets, the filters, and the tap."""
    groups = d.image.shape[1] // d.filters.shape[1]
    each, deep = d.filters.shape[0] // groups, d.filters.shape[1]
    assert groups * deep == d.image.shape[1] and groups * each == d.filters.shape[0]
    for taps in itertools.product(*map(range, d.filters.shape[2:])):
        space = tuple(
            slice(t * step, t * step + (o - 1) * s + 1, s)
            for t, step, o, s in zip(taps, d.dilations, d.output.shape[2:], d.strides, strict=True)
        )
        for g in range(groups):
            part = padded[(slice(None), slice(g * deep, (g + 1) * deep), *space)]
            yield part, slice(g * each, (g + 1) * each), taps


def _ended(d: Convolution, made: Array, arrays: Sequence[Array]) -> list[Array]:
    for a, o in zip(arrays[2:-1], d.added, strict=True):
        assert all(n in (1, m) for n, m in zip(o.shape, made.shape, strict=True))
        made = made + lying(a, o).astype(np.float64)
    if d.activation:
        made = _ACTIVATIONS[d.activation.name](made, d.activation.alpha)
    assert arrays[-1].size == prod(d.result.shape)
    lying(arrays[-1], d.result)[...] = made
    return [arrays[-1]]


# attention ------------------------------------------------------------------------------------------------------------


def _scores(d: Attention, q: Array, k: Array, bias: Array | None) -> Array:
    n, keys = q.shape[2], k.shape[2]
    s = d.scale * np.einsum("bhle,bhse->bhls", q, np.repeat(k, q.shape[1] // k.shape[1], axis=1))
    if bias is not None:
        s = s + bias
    place = np.arange(n)[:, None] + (keys - n if d.bottom else 0)
    key = np.arange(keys)
    hidden = np.zeros((n, keys), bool)
    if d.left >= 0:
        hidden |= key < place - d.left
    if d.right >= 0:
        hidden |= key > place + d.right
    assert not hidden.all(axis=1).any(), "a query that sees no key: what cuDNN gives is not said anywhere"
    assert np.isfinite(np.where(hidden, 0, s)).all(), "cuDNN is passed -inf"
    return np.where(hidden, -np.inf, s)


def attention_forward(d: AttentionForward, arrays: Sequence[Array]) -> list[Array]:
    """Attention, and the logarithm of the sum of exponentials."""
    _checked(d)
    count = 3 + (d.bias is not None)
    q, k, v, *more = read(arrays[:count], d.operands[:count])
    s = _scores(d, q, k, more[0] if more else None)
    stats = np.logaddexp.reduce(s, axis=3, keepdims=True)
    y = np.exp(s - stats) @ np.repeat(v, q.shape[1] // v.shape[1], axis=1)
    results = [y, *([stats] if d.with_stats else [])]
    for made, a, o in zip(results, arrays[count:], d.operands[count:], strict=True):
        lying(a, o)[...] = made
    return list(arrays[count:])


def attention_backward(d: AttentionBackward, arrays: Sequence[Array]) -> list[Array]:
    """The gradients of attention from its result and its stats."""
    _checked(d)
    count = 6 + (d.bias is not None)
    q, k, v, y, g, stats, *more = read(arrays[:count], d.operands[:count])
    group = q.shape[1] // k.shape[1]
    p = np.exp(_scores(d, q, k, more[0] if more else None) - stats)
    wide_k, wide_v = (np.repeat(x, group, axis=1) for x in (k, v))
    ds = p * (g @ wide_v.swapaxes(2, 3) - (g * y).sum(axis=3, keepdims=True)) * d.scale

    def shared(x: Array) -> Array:
        return x.reshape(x.shape[0], k.shape[1], group, *x.shape[2:]).sum(axis=2)

    results = (ds @ wide_k, shared(ds.swapaxes(2, 3) @ q), shared(p.swapaxes(2, 3) @ g))
    for made, a, o in zip(results, arrays[count:], d.operands[count:], strict=True):
        lying(a, o)[...] = made
    return list(arrays[count:])


def _checked(d: Attention) -> None:
    """Check what cuDNN asks of the tensors of attention."""
    for o in (d.q, d.k, d.v, d.y):
        assert o.strides[3] == 1 and o.shape[3] % 8 == 0 and o.dtype.itemsize == 2
    assert not (d.bottom and d.bias is not None)


REFERENCES: dict[type, Callable[[Any, list[Array]], list[Array]]] = {
    MatMul: matmul,
    ConvForward: conv_forward,
    ConvInputGrad: conv_input_grad,
    ConvWeightGrad: conv_weight_grad,
    AttentionForward: attention_forward,
    AttentionBackward: attention_backward,
}
"""By the type of a description; a reference writes what the call writes and returns those arrays."""
