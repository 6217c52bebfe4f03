"""Training in mixed precision as one program: which products and passes over memory there are, and what it computes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.runtime.cuda.printing import kernel_name

from ...ops.kernels.cuda import host

F = og.nn.functional
pytestmark = pytest.mark.skipif(host.why_not() is not None, reason=str(host.why_not()))
WIDTH, HEADS, LENGTH, BATCH = 32, 2, 16, 2


class Layer(og.nn.Module):
    """A layer of a transformer with projections of its own for queries, keys and values."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.out = (og.nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.before, self.behind = og.nn.LayerNorm(WIDTH), og.nn.LayerNorm(WIDTH)
        self.up, self.down = og.nn.Linear(WIDTH, 2 * WIDTH), og.nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        """Attend, then compute for each place."""
        y = self.before(x)
        q, k, v = (
            p(y).reshape(BATCH, LENGTH, HEADS, WIDTH // HEADS).permute(0, 2, 1, 3)
            for p in (self.query, self.key, self.value)
        )
        y = F.scaled_dot_product_attention(q, k, v).permute(0, 2, 1, 3).reshape(BATCH, LENGTH, WIDTH)
        x = x + self.out(y)
        return x + self.down(F.gelu(self.up(self.behind(x))))


def trained(wrap, x, goal):
    """Train for a few steps; return the step, losses and parameters."""
    og.manual_seed(0)
    module = Layer()
    method = og.optim.SGD(module.parameters(), lr=0.1)

    def step(module, method, x, goal):
        method.zero_grad()
        with og.amp.autocast("bfloat16"):
            loss = F.mse_loss(module(x).float(), goal)
        loss.backward()
        method.step()
        return loss

    run = wrap(step)
    losses = [run(module, method, og.tensor(x), og.tensor(goal)).item() for _ in range(4)]
    return run, losses, [p.detach().numpy() for p in module.parameters()]


def test_a_layer_of_a_transformer(on_cuda):
    rng = np.random.default_rng(0)
    x, goal = (rng.standard_normal((BATCH, LENGTH, WIDTH)).astype(np.float32) for _ in range(2))
    compiled, losses, parameters = trained(og.compile, x, goal)
    _, wanted, expected = trained(lambda step: step, x, goal)
    np.testing.assert_allclose(losses, wanted, rtol=1e-2)
    for a, b in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=5e-2, atol=5e-3)
    (program,) = compiled.programs[0].engine._buckets.programs
    names = Counter(kernel_name(s) for s in program.steps)
    assert names["cublaslt MatMul"] == 12  # three of each product but for queries, keys and values, which are one
    assert names["epilogue"] == 2 and names["casts_float_bf16"] == 1  # the gradient of gelu, the error
    assert not any(name.startswith(("concat", "copy", "pointwise_cast")) for name in names)
