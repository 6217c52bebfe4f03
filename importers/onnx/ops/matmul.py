"""Bindings: products of matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ops import layout, matmul as matmul_ops, pointwise as pw
from ....ops.types import is_float
from ..node import NodeView
from ..registry import binds
from .conv import activated


@binds("MatMul", 1, 9, 13)
def matmul(node: NodeView, a: Any, b: Any) -> Any:
    return matmul_ops.matmul(a, b)


def transposed(x: Any, last: int, batch: int = 0) -> Any:
    """Return x with its last two axes exchanged, after its first batch axis has gone before the last one."""
    perm = list(range(x.ndim))
    if batch:
        perm = [*perm[1:-1], perm[0], perm[-1]]
    if last and x.ndim > 1:
        perm[-2:] = perm[:-3:-1]
    return x if perm == list(range(x.ndim)) else layout.transpose(x, perm=tuple(perm))


def scaled(x: Any, factor: float) -> Any:
    """Return x times an attribute, in x's own element type."""
    if factor == 1:
        return x
    return pw.mul(x, factor if is_float(x.dtype) else np.asarray(factor).astype(x.dtype))


def _gemm(node: NodeView, a: Any, b: Any, c: Any) -> Any:
    product = matmul_ops.matmul(transposed(a, node.attr("transA", 0)), transposed(b, node.attr("transB", 0)))
    y = scaled(product, node.attr("alpha", 1.0))
    beta = node.attr("beta", 1.0)
    return y if c is None else pw.add(y, scaled(c, beta))


@binds("Gemm", 1, 6, 7, 9, 11, 13)
def gemm(node: NodeView, a: Any, b: Any, c: Any = None) -> Any:
    """Gemm: alpha A' B' + beta C."""
    node.ignore("broadcast")
    return _gemm(node, a, b, c)


@binds("FusedGemm", 1, domain="com.microsoft")
def fused_gemm(node: NodeView, a: Any, b: Any, c: Any = None) -> Any:
    """FusedGemm: a Gemm with an activation."""
    return activated(node, _gemm(node, a, b, c), _parameters(node))


def _parameters(node: NodeView) -> list[float]:
    names = ("activation_alpha", "activation_beta", "activation_gamma")
    return [node.attr(n) for n in names if node.has(n)]


@binds("FusedMatMul", 1, domain="com.microsoft")
@binds("TransposeMatMul", 1, domain="com.microsoft")
def fused_matmul(node: NodeView, a: Any, b: Any) -> Any:
    """FusedMatMul: alpha A' B', with the first axis of a transposed batch moved behind the others."""
    left = transposed(a, node.attr("transA", 0), node.attr("transBatchA", 0))
    right = transposed(b, node.attr("transB", 0), node.attr("transBatchB", 0))
    return scaled(matmul_ops.matmul(left, right), node.attr("alpha", 1.0))


@binds("FusedMatMulActivation", 1, domain="com.microsoft")
def fused_matmul_activation(node: NodeView, a: Any, b: Any) -> Any:
    """FusedMatMulActivation: a FusedMatMul with an activation."""
    node.ignore("activation_axis")
    return activated(node, fused_matmul(node, a, b), _parameters(node))


@binds("Einsum", 12, 28)
def einsum(node: NodeView, *xs: Any) -> Any:
    equation = node.attr("equation")
    return matmul_ops.einsum(*xs, equation=matmul_ops.explicit(equation, [x.ndim for x in xs]))


@binds("Det", 11, 22)
def det(node: NodeView, x: Any) -> Any:
    return matmul_ops.det(x)


@binds("Inverse", 1, domain="com.microsoft")
def inverse(node: NodeView, x: Any) -> Any:
    return matmul_ops.inverse(x)
