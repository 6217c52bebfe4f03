"""Bindings of matrix products against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .free_node import agree, normal
from .one_node import run_node

MICROSOFT = {"opset": 1, "domain": "com.microsoft"}


@pytest.mark.parametrize("opset", [1, 9, 13])
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((2, 3), (3, 4)), ((2, 2, 3), (3, 4)), ((2, 1, 2, 3), (3, 3, 2)), ((3,), (3,)), ((3,), (2, 3, 2)),
        ((2, 2, 3), (3,)), ((2, 3), (2, 3, 4)),
    ],
)  # fmt: skip
def test_matmul(opset: int, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    agree("MatMul", [normal(*a), normal(*b, seed=1)], opset=opset)


def test_matmul_of_integers() -> None:
    a = np.arange(-3, 3).reshape(2, 3)
    agree("MatMul", [a, a.T.copy()], opset=13)


@pytest.mark.parametrize("opset", [7, 9, 11, 13])
@pytest.mark.parametrize(("ta", "tb"), [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("c", [(2, 4), (4,), (2, 1), (), None])
def test_gemm(opset: int, ta: int, tb: int, c: tuple[int, ...] | None) -> None:
    if c is None and opset < 11:
        pytest.skip("C is required before 11")
    a, b = normal(*((3, 2) if ta else (2, 3))), normal(*((4, 3) if tb else (3, 4)), seed=1)
    bias = None if c is None else normal(*c, seed=2)
    agree("Gemm", [a, b, bias], opset=opset, transA=ta, transB=tb, alpha=0.5, beta=2.0)


@pytest.mark.parametrize("opset", [1, 6])
def test_gemm_with_the_broadcast_attribute(opset: int) -> None:
    from .one_node import run_node

    a, b, c = normal(2, 3), normal(3, 4, seed=1), normal(4, seed=2)
    (y,) = run_node("Gemm", [a, b, c], opset=opset, broadcast=1, alpha=0.5)
    np.testing.assert_allclose(y, 0.5 * a @ b + c, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
        ("...ij,...jk->...ik", [(2, 3, 4), (2, 4, 5)]),
        ("...ij,jk", [(2, 3, 4), (4, 5)]),
        ("ji", [(2, 3)]),
        ("...ii->...i", [(2, 3, 3)]),
        ("i,i->", [(3,), (3,)]),
        ("bhwc,hkc->bhwk", [(2, 3, 4, 5), (3, 6, 5)]),
        ("ij, jk, kl -> il", [(2, 3), (3, 4), (4, 5)]),
        ("ij,jk->ik", [(0, 2), (2, 3)]),
        ("ij,jk->ik", [(2, 0), (0, 3)]),
    ],
)
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    agree("Einsum", [normal(*s, seed=i) for i, s in enumerate(shapes)], opset=12, equation=equation)


@pytest.mark.parametrize("op_type", ["FusedMatMul", "TransposeMatMul"])
@pytest.mark.parametrize(("ta", "tb"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_fused_matmul(op_type: str, ta: int, tb: int) -> None:
    a, b = normal(*((2, 4, 3) if ta else (2, 3, 4))), normal(*((2, 5, 4) if tb else (2, 4, 5)), seed=1)
    agree(op_type, [a, b], transA=ta, transB=tb, alpha=0.5, **MICROSOFT)


@pytest.mark.parametrize(("shape", "ta"), [((3, 2, 4), 0), ((4, 2, 3), 1)])
def test_fused_matmul_of_a_transposed_batch(shape: tuple[int, ...], ta: int) -> None:
    agree("FusedMatMul", [normal(*shape), normal(2, 4, 5, seed=1)], transBatchA=1, transA=ta, **MICROSOFT)


@pytest.mark.parametrize(
    ("activation", "params"),
    [
        ("Relu", {}), ("Sigmoid", {}), ("Tanh", {}), ("LeakyRelu", {"activation_alpha": 0.1}),
        ("HardSigmoid", {"activation_alpha": 0.3, "activation_beta": 0.4}),
    ],
)  # fmt: skip
def test_fused_gemm(activation: str, params: dict[str, Any]) -> None:
    args = [normal(2, 3), normal(3, 4, seed=1), normal(4, seed=2)]
    agree("FusedGemm", args, activation=activation, **params, **MICROSOFT)


def test_fused_matmul_activation() -> None:
    """onnxruntime has no kernel of it for the CPU."""
    a, b = normal(2, 3, 4), normal(5, 4, seed=1)
    how = {"transB": 1, "alpha": 0.5, "activation": "LeakyRelu", "activation_alpha": 0.1, **MICROSOFT}
    (found,) = run_node("FusedMatMulActivation", [a, b], **how)
    y = 0.5 * a @ b.T
    np.testing.assert_allclose(found, np.where(y < 0, 0.1 * y, y), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("opset", [11, 22])
def test_det(opset: int) -> None:
    agree("Det", [normal(2, 3, 3)], opset=opset)


def test_inverse() -> None:
    agree("Inverse", [normal(2, 3, 3) + 3 * np.eye(3, dtype=np.float32)], **MICROSOFT)
