"""Networks in other element types, and with quantisation that is simulated."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network import network, rand


def half(n: int = 2) -> tuple[Tensor, ...]:
    return (rand(n, 3, 6, 6).half(),)


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


@network(half, {0: "n"}, legacy=(13, 17), dynamo=(18,), folded=False)
def float16() -> nn.Module:
    return small().half()


@network(lambda n=2: (rand(n, 3, 6, 6).double(),), {0: "n"}, legacy=(11, 17), dynamo=(18,), folded=False)
def float64() -> nn.Module:
    return small().double()


@network(lambda n=2: (rand(n, 5, 4).bfloat16(),), {0: "n"}, legacy=(17,), dynamo=(18, 21))
def bfloat16() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.LayerNorm(6), nn.Linear(6, 3), nn.Softmax(-1)).bfloat16()


@network(lambda n=2: (rand(n, 4),), {0: "n"}, legacy=(17,), dynamo=(18,))
class Mixed(nn.Module):
    """Half-precision weights between single-precision ones, as automatic casting leaves them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3).half()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)).to(self.second.weight.dtype)).float().softmax(-1)


@network(lambda n=2: (rand(n, 3, 6, 6),), {0: "n"}, legacy=(13, 17), dynamo=())
class FakeQuantized(nn.Module):
    """Weights by channel and activations by tensor go through eight bits, gradients straight through."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(64, 3)
        self.register_buffer("scales", torch.tensor([0.005, 0.006, 0.007, 0.008]))
        self.register_buffer("zeros", torch.zeros(4, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.fake_quantize_per_tensor_affine(x, 0.01, 3, -128, 127)
        w = torch.fake_quantize_per_channel_affine(self.conv.weight, self.scales, self.zeros, 0, -128, 127)
        y = torch.fake_quantize_per_tensor_affine(F.relu(F.conv2d(x, w, self.conv.bias)), 0.02, 0, 0, 255)
        v = torch.fake_quantize_per_tensor_affine(self.linear.weight, 0.004, 0, -128, 127)
        return F.linear(y.flatten(1), v, self.linear.bias)
