"""Graphs in half precision: which values are, what stays float32, and how far results move."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops import conv, layout, normalize, pointwise as pw, reduce
from onnxgrad.ops.matmul import matmul
from onnxgrad.ops.quantize import fake_quantize
from onnxgrad.ops.types import BFLOAT16, TensorType
from onnxgrad.ops.window import Window
from onnxgrad.runtime.amp.narrow import narrow
from onnxgrad.runtime.graph.execute import execute, plan_of
from onnxgrad.runtime.graph.graph import Graph
from onnxgrad.runtime.passes.matching import weight_values
from onnxgrad.runtime.passes.rewriting import run_passes

FLOAT16, FLOAT32 = np.dtype(np.float16), np.dtype(np.float32)
RNG = np.random.default_rng(0)


def floats(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


class Building:
    """A graph with an input `x` and weights."""

    def __init__(self, *shape: int) -> None:
        self.graph = Graph("test")
        self.x = self.graph.input("x", TensorType(FLOAT32, shape))
        self.arrays: list[Any] = []

    def weight(self, *shape: int) -> Any:
        self.arrays.append(floats(*shape))
        return self.graph.add_state(f"w{len(self.arrays)}", TensorType(FLOAT32, shape))

    def product(self) -> Any:
        return matmul(self.x, self.weight(self.x.shape[-1], self.x.shape[-1]))


def biased(b: Building) -> Any:
    return pw.add(b.product(), b.weight(8))


def scaled(b: Building) -> Any:
    return pw.mul(b.product(), b.weight(8))


def residual(b: Building) -> Any:
    return pw.add(b.x, b.product())


def normalised(b: Building) -> Any:
    return normalize.layer_norm(b.x, b.weight(8), b.weight(8), axis=-1, epsilon=1e-5)


def weighed(b: Building) -> Any:
    return normalize.softmax(b.product(), axis=-1)


def activated(b: Building) -> Any:
    return pw.relu(b.product())


def gated(b: Building) -> Any:
    return pw.mul(b.product(), pw.sin(b.x))


def exponential(b: Building) -> Any:
    return pw.exp(b.product())


def untouched(b: Building) -> Any:
    return pw.add(pw.mul(b.x, 2.0), b.weight(8))


def summed(b: Building) -> Any:
    return reduce.sum_(b.product(), axes=(-1,))


def as_quantized(b: Building) -> Any:
    scale, zero = b.graph.constant(np.float32(0.1)), b.graph.constant(np.int8(0))
    return fake_quantize(b.product(), scale, scale, zero, zero, to="float32", dtype="int8")


def joined(b: Building) -> Any:
    return layout.concat(b.x, b.product(), axis=0)


IN_HALF = (biased, scaled, residual, normalised, weighed, activated)
IN_FLOAT32 = (gated, exponential, untouched, summed, as_quantized, joined)


@pytest.mark.parametrize("half", [BFLOAT16, FLOAT16], ids=str)
@pytest.mark.parametrize("make", [*IN_HALF, *IN_FLOAT32], ids=lambda f: f.__name__)
def test_types(make: Any, half: Any) -> None:
    """What comes out before the last cast is of the type that the rule says; outputs stay float32."""
    b = Building(4, 8)
    with b.graph.building():
        b.graph.outputs = [make(b)]
    x = floats(4, 8)
    (wanted,), _ = execute(plan_of(b.graph), [x, *b.arrays])
    new = run_passes(b.graph, (narrow(half),)).graph
    (out,) = new.outputs
    assert out.type == b.graph.outputs[0].type
    last = out.node.args[0] if make in IN_HALF else out
    assert last.dtype == (half if make in IN_HALF else FLOAT32)
    (found,), _ = execute(plan_of(new), [x, *b.arrays])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=2e-2, atol=2e-2 * np.abs(wanted).max())


def test_casts_of_weights_are_weights() -> None:
    """An engine that hoists what depends on weights alone casts each weight once a version."""
    b = Building(4, 8)
    with b.graph.building():
        b.graph.outputs = [biased(b)]
    new = run_passes(b.graph, (narrow(BFLOAT16),)).graph
    casts = [n for n in new.nodes if n.op is pw.cast]
    aside = weight_values(new)
    assert len([n for n in casts if n.outputs[0] in aside]) == 2
    assert len(casts) == 4  # the two weights, the input, the output


def test_nothing_to_narrow() -> None:
    b = Building(4, 8)
    with b.graph.building():
        b.graph.outputs = [pw.add(b.x, 1.0)]
    assert narrow(BFLOAT16)(b.graph).graph is b.graph


@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_a_network_is_as_near_as_pytorchs(half: str) -> None:
    """The error against float64 is of the size of that of PyTorch's module in half precision."""
    torch = pytest.importorskip("torch")
    kernel, scale, bias, head = floats(16, 3, 3, 3) / 5, floats(16), floats(16), floats(16, 5) / 4
    x = floats(2, 3, 9, 9)
    b = Building(2, 3, 9, 9)
    with b.graph.building():
        w = [
            b.graph.add_state(f"w{i}", TensorType(FLOAT32, a.shape)) for i, a in enumerate((kernel, scale, bias, head))
        ]
        y = conv.conv(b.x, w[0], win=Window((1, 1), ((1, 1), (1, 1)), (1, 1), 1))
        y = pw.relu(normalize.group_norm(y, w[1], w[2], groups=4, epsilon=1e-5))
        b.graph.outputs = [matmul(reduce.mean(y, axes=(2, 3)), w[3])]
    new = run_passes(b.graph, (narrow(BFLOAT16 if half == "bfloat16" else FLOAT16),)).graph
    (found,), _ = execute(plan_of(new), [x, kernel, scale, bias, head])

    def forward(dtype: Any) -> Any:
        t = [torch.from_numpy(a).to(dtype) for a in (x, kernel, scale, bias, head)]
        y = torch.nn.functional.conv2d(t[0], t[1], padding=1)
        y = torch.relu(torch.nn.functional.group_norm(y, 4, t[2], t[3], 1e-5))
        return (y.mean((2, 3)) @ t[4]).double().numpy()

    exact, rounded = forward(torch.float64), forward(getattr(torch, half))
    assert np.abs(found - exact).max() < 2 * np.abs(rounded - exact).max()
    assert np.abs(found - exact).max() > 0
