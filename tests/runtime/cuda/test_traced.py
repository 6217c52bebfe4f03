"""Compiled functions on CUDA: state that they only read is weights, state that they replace is fed."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn, optim
from onnxgrad.nn import functional as F
from onnxgrad.runtime.cuda.capture import WARM_UPS


def floats(*shape, seed=0):
    return og.tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


class Network(nn.Module):
    """A convolution with batch norm, and a head."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.head = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x):
        return self.head(F.relu(self.norm(self.first(x))).mean(dim=(2, 3)))


@pytest.fixture
def network():
    og.manual_seed(0)
    made = Network()
    made.norm.running_mean.copy_(floats(8))
    made.norm.running_var.copy_(floats(8, seed=1) ** 2 + 0.1)
    return made.eval()


def programs(compiled):
    return compiled.programs[-1].engine._buckets.programs


def test_what_is_only_read_is_computed_once(network, on_cuda):
    """Casts and layouts of weights, and batch norm, are no part of a run."""

    @og.compile
    def forward(x):
        with og.no_grad(), og.amp.autocast("bfloat16"):
            return network(x)

    x = floats(2, 3, 6, 6)
    with og.no_grad():
        wanted = network(x).numpy()
    for _ in range(WARM_UPS + 2):
        np.testing.assert_allclose(forward(x).float().numpy(), wanted, rtol=5e-2, atol=5e-2)
    (program,) = programs(forward)
    casts = [s for s in program.steps if "cast" in s.ops and not any(p.storage.kind == "feed" for p in s.reads())]
    assert not [s for s in casts if len(s.ops) == 1], str(program)
    assert not any(op.startswith("batch_norm") for s in program.steps for op in s.ops), str(program)
    assert {p.storage.kind for s in program.steps for p in s.reads()} >= {"weight"}
    assert len(program.compiler.fed) == 1
    on_cuda.check()


@pytest.mark.parametrize("change", ["in place", "data", "load_state_dict", "frozen and back"])
def test_changes_of_weights_are_noticed(network, change, on_cuda):
    compiled = og.compile(network)
    x = floats(2, 3, 6, 6)
    with og.no_grad():
        for _ in range(WARM_UPS + 2):
            compiled(x)
        before = compiled(x).numpy()
        if change == "in place":
            network.first.weight.mul_(2.0)
        elif change == "data":
            network.head.bias.data = network.head.bias.data + 1
        elif change == "load_state_dict":
            network.load_state_dict({k: v * 2 for k, v in network.state_dict().items()})
        else:
            network.head.weight.requires_grad_(False).add_(1.0)
        wanted = network(x).numpy()
        assert np.abs(wanted - before).max() > 1e-2
        for _ in range(WARM_UPS + 2):
            np.testing.assert_allclose(compiled(x).numpy(), wanted, rtol=1e-3, atol=1e-4)


def test_frozen_layers_of_a_training_step_are_weights(network, on_cuda):
    """The head is trained as eager steps do; what is below is laid out once, and stays as it is."""
    network.first.requires_grad_(False)
    network.norm.requires_grad_(False)
    eager = copy.deepcopy(network)

    def step_of(module):
        optimizer = optim.SGD(module.head.parameters(), lr=0.1, momentum=0.9)

        def step(x, y):
            optimizer.zero_grad()
            loss = F.cross_entropy(module(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return step

    compiled, plain = og.compile(step_of(network)), step_of(eager)
    before = {k: v.numpy().copy() for k, v in network.state_dict().items()}
    for run in range(WARM_UPS + 3):
        x, y = floats(4, 3, 6, 6, seed=run), og.tensor(np.random.default_rng(run).integers(0, 5, 4))
        np.testing.assert_allclose(compiled(x, y).item(), plain(x, y).item(), rtol=1e-4)
    (program,) = programs(compiled)
    others = [v for v in program.compiler.fed[2:] if not v.name.startswith("numbers")]
    assert len(others) == 4, others  # the head's weight and bias, and their momenta
    for (k, v), w in zip(network.state_dict().items(), eager.state_dict().values(), strict=True):
        assert np.array_equal(v.numpy(), before[k]) == (not k.startswith("head")), k
        np.testing.assert_allclose(v.numpy(), w.numpy(), rtol=1e-4, atol=1e-5)


def test_a_gradient_of_a_compiled_function_reads_its_own_values(network, on_cuda):
    """Backward is a graph of its own, whose feeds are what forward saved."""
    compiled = og.compile(network)
    x = floats(2, 3, 6, 6)
    for _ in range(2):
        network.zero_grad()
        compiled(x).square().sum().backward()
        found = [p.grad.numpy().copy() for p in network.parameters()]
        network.zero_grad()
        network(x).square().sum().backward()
        for a, p in zip(found, network.parameters(), strict=True):
            np.testing.assert_allclose(a, p.grad.numpy(), rtol=1e-3, atol=1e-4)
        with og.no_grad():
            network.first.weight.mul_(1.5)


@pytest.mark.parametrize("name", ["AdamW", "SGD"])
def test_the_step_of_an_optimizer_alone_is_one_launch(name, on_cuda):
    """For eager code, which computes the gradients."""
    og.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    eager = copy.deepcopy(module)
    mine, plain = (getattr(optim, name)(m.parameters(), lr=0.01) for m in (module, eager))
    step = og.compile(mine.step)
    for run in range(WARM_UPS + 3):
        x, y = floats(8, 6, seed=run), og.tensor(np.arange(8) % 4)
        for m, o, taken in ((module, mine, step), (eager, plain, plain.step)):
            o.zero_grad()
            F.cross_entropy(m(x), y).backward()
            taken()
    for p, q in zip(module.parameters(), eager.parameters(), strict=True):
        np.testing.assert_allclose(p._array, q._array, rtol=1e-4, atol=1e-5)
    (program,) = programs(step)
    assert [s.ops for s in program.steps] == [(f"{'adam' if name == 'AdamW' else 'sgd'}_update of 4",)]
