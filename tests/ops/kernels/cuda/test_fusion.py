"""Which epilogues libraries apply: what an expression is read as."""

from __future__ import annotations

from typing import Any

import pytest

from onnxgrad.ops.expr import Expr, Var, call, maximum, minimum, sigmoid, substitute, tanh
from onnxgrad.ops.kernels.cuda.fusion import Activation, Tail, fuses, tail_of
from onnxgrad.ops.pointwise import elu, gelu, gelu_tanh, leaky_relu, relu6, softplus, swish

X, A, B = Var("x"), Var("a0"), Var("a1")


def of(op: Any, x: Expr, **numbers: float) -> Expr:
    """Return an op's expression of another."""
    from onnxgrad.ops.expr import wrap

    return substitute(op.expression, {"x": x, **{n: wrap(v) for n, v in numbers.items()}})


@pytest.mark.parametrize(
    ("expression", "tail"),
    [
        (X, Tail()),
        (X + A, Tail(("a0",))),
        (A + (B + X), Tail(("a0", "a1"))),
        (maximum(X, 0), Tail((), Activation("relu"))),
        (maximum(0, X + A), Tail(("a0",), Activation("relu"))),
        (of(relu6, X + A), Tail(("a0",), Activation("relu6"))),
        (of(gelu, X + A), Tail(("a0",), Activation("gelu"))),
        (of(gelu_tanh, X + A + B), Tail(("a0", "a1"), Activation("gelu_tanh"))),
        (of(leaky_relu, X, alpha=0.25), Tail((), Activation("leaky_relu", 0.25))),
        (of(elu, X, alpha=2.0), Tail((), Activation("elu", 2.0))),
        (of(swish, X, alpha=1.5), Tail((), Activation("swish", 1.5))),
        (of(swish, X, alpha=1), Tail((), Activation("swish"))),
        (sigmoid(X + A) * (X + A), Tail(("a0",), Activation("swish"))),
        (tanh(X), Tail((), Activation("tanh"))),
        (of(softplus, X), Tail((), Activation("softplus"))),
        (call("cast:float16:float32", X), Tail()),
        (call("cast:bfloat16:float32", X + A) + B, Tail(("a0", "a1"))),
        (maximum(call("cast:bfloat16:float32", X + A), 0), Tail(("a0",), Activation("relu"))),
    ],
)
def test_read(expression: Expr, tail: Tail) -> None:
    """Sums, and activations of sums."""
    assert tail_of(expression) == tail


@pytest.mark.parametrize(
    "expression",
    [A, A + B, X + X, X + A + A, X - A, X * A, X + 1, maximum(X, 0) + A, maximum(X, 1), maximum(X, A),
     minimum(X, 0), sigmoid(X + A) * X, of(swish, X, alpha=1.5) + A, call("cast:float32:float64", X),
     call("cast:bfloat16:float32", call("cast:float32:bfloat16", X + A)) + B],
)  # fmt: skip
def test_not_read(expression: Expr) -> None:
    """What libraries have no epilogue for has a kernel."""
    assert tail_of(expression) is None and fuses(expression)
