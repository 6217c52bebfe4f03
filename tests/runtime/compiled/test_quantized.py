"""Quantised networks as programs: quantisation joins other pointwise nodes, and requantisation its integer product."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxgrad.ops import conv, pointwise as pw, quantize as q
from onnxgrad.ops.window import Window
from onnxgrad.runtime.compiled.program import Program
from onnxgrad.runtime.graph.graph import Graph
from onnxgrad.runtime.passes.pipelines import DEVICE
from onnxgrad.runtime.passes.rewriting import run_passes
from onnxgrad.runtime.tensor.tensor import Tensor

from .graphs import build, feeds_for, reference

WINDOW = Window((1, 1), ((1, 1), (1, 1)), (1, 1), 1)


def network() -> tuple[Graph, dict[str, Any]]:
    """Return conv, relu, conv with a residual, as QuantizeLinear and DequantizeLinear describe them."""
    rng = np.random.default_rng(0)
    weights: dict[str, Any] = {
        "s": np.array(0.05, np.float32),
        "scale": rng.uniform(0.001, 0.01, (8, 1, 1, 1)).astype(np.float32),
        "bias": rng.standard_normal((8, 1, 1)).astype(np.float32),
    }

    def body(x: Any, s: Any, scale: Any, bias: Any) -> Any:
        g = x.graph
        zero = g.constant(np.array(120, np.uint8))

        def fake(v: Any) -> Any:
            return q.fake_quantize(v, s, s, zero, zero, dtype="uint8", to="float32")

        def layer(v: Any) -> Any:
            w = g.constant(rng.integers(-128, 128, (8, 8, 3, 3)).astype(np.int8))
            return pw.add(conv.conv(v, q.dequantize_linear(w, scale, dtype="float32"), win=WINDOW), bias)

        first = fake(x)
        return fake(pw.add(fake(layer(fake(pw.relu(layer(first))))), first))

    return build({"x": ("n", 8, 6, 7)}, weights, body), weights


def test_a_quantised_network_is_one_kernel_a_layer() -> None:
    graph, weights = network()
    device = run_passes(graph, DEVICE).graph
    feeds = feeds_for(graph, {"n": 2})
    wanted = reference(graph, feeds, weights)[0][0]
    assert np.abs(reference(device, feeds, weights)[0][0] - wanted).max() <= 0.1001
    program = Program(device, threads=1)
    got = program.run(feeds, {k: Tensor(v) for k, v in weights.items()})[0][0]
    assert np.abs(np.asarray(got) - wanted).max() <= 0.1001
    text = str(program)
    assert text.count("conv_integer [conv_integer") == 2
    assert "0 steps of array kernels" in text
