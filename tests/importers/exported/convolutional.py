"""Networks of convolutions, pools and normalisations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network import network, rand

IMAGE = {0: "n", 2: "h", 3: "w"}


def image(n: int = 2, c: int = 3, h: int = 8, w: int = 10) -> tuple[Tensor, ...]:
    return (rand(n, c, h, w),)


def signal(n: int = 2, c: int = 4, t: int = 12) -> tuple[Tensor, ...]:
    return (rand(n, c, t),)


@network(signal, {0: "n", 2: "t"}, legacy=(9, 13, 20), dynamo=(18,), folded=False)
def conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(4, 6, 3, padding=1), nn.Tanh(), nn.Conv1d(6, 6, 3, padding=2, dilation=2, groups=3), nn.ELU(),
        nn.Conv1d(6, 2, 3, stride=2, bias=False), nn.Conv1d(2, 4, 3, padding="same"), nn.BatchNorm1d(4),
    )  # fmt: skip


@network(image, IMAGE, legacy=(9, 11, 17), dynamo=(18,))
def conv2d() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, (3, 2), padding=(1, 0)), nn.SiLU(), nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.GELU(),
        nn.Conv2d(6, 4, 3, padding=2, dilation=2, groups=2), nn.LeakyReLU(0.1), nn.Conv2d(4, 4, 3, stride=2),
        nn.Conv2d(4, 2, 1, bias=False),
    )  # fmt: skip


@network(image, {0: "n"}, legacy=(11, 18))
def conv2d_padding_modes() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.Tanh(), nn.ReflectionPad2d((1, 2, 0, 1)),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="replicate"), nn.ZeroPad2d((1, -1, 2, 0)),
        nn.Conv2d(4, 2, 3, padding=1), nn.ConstantPad2d(1, 0.5),
    )  # fmt: skip


@network(lambda n=2: (rand(n, 2, 5, 6, 4),), {0: "n"}, legacy=(9, 17), dynamo=(18,), folded=False)
def conv3d() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(2, 4, 3, padding=1), nn.BatchNorm3d(4), nn.Tanh(), nn.MaxPool3d(2, stride=1),
        nn.ConvTranspose3d(4, 2, 2, stride=2, groups=2), nn.AvgPool3d(2), nn.AdaptiveAvgPool3d(1), nn.Flatten(),
        nn.Linear(2, 3),
    )  # fmt: skip


@network(signal, {0: "n", 2: "t"}, legacy=(9, 16))
def conv_transpose1d() -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1, groups=2), nn.Softplus(),
        nn.ConvTranspose1d(6, 3, 2, dilation=2, padding=1, bias=False),
    )  # fmt: skip


@network(image, IMAGE, legacy=(9, 16), dynamo=(20,), folded=False)
def conv_transpose2d() -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(3, 6, 3, stride=2, padding=1, output_padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.ConvTranspose2d(6, 4, (2, 3), groups=2, dilation=(1, 2)), nn.Sigmoid(),
    )  # fmt: skip


@network(lambda n=2: (rand(n, 1, 16, 16),), {0: "n"}, legacy=(9, 10, 14, 19), dynamo=(18, 23))
def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Dropout(), nn.Linear(24, 10), nn.ReLU(), nn.Linear(10, 5), nn.LogSoftmax(1),
    )  # fmt: skip


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


@network(image, IMAGE, legacy=(9, 17), folded=False, dynamo=(18,))
def resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        Residual(4, 6, 2), Residual(6, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip


class InvertedResidual(nn.Module):
    """An inverted bottleneck with squeeze and excitation."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.Hardswish())
        self.depthwise = nn.Sequential(
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()
        )
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(hidden, 2, 1), nn.ReLU(), nn.Conv2d(2, hidden, 1), nn.Hardsigmoid()
        )
        self.project = nn.Sequential(nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))
        return x + self.project(y * self.squeeze(y))


@network(image, IMAGE, legacy=(11, 17), folded=False, dynamo=(18,))
def mobilenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.Hardswish(), InvertedResidual(4, 8),
        InvertedResidual(4, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


class ConvNextBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.up, self.down = nn.Linear(channels, 2 * channels), nn.Linear(2 * channels, channels)
        self.scale = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(F.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


@network(image, IMAGE, legacy=(12, 15, 20), dynamo=(19,))
def convnext() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 2, 2), ConvNextBlock(4), nn.Conv2d(4, 6, 2, 2), ConvNextBlock(6))


@network(image, {0: "n"}, legacy=(9, 17))
class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in (3, 5, 7))
        self.convs = nn.ModuleList(nn.Conv2d(c, 2, 3, padding=1) for c in (3, 5, 7))

    def forward(self, x: Tensor) -> Tensor:
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, conv(F.relu(norm(x)))], 1)
        return x.mean((2, 3))


@network(image, IMAGE, legacy=(11, 17))
class ShuffleNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 4, 3, padding=1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.first(x).chunk(2, 1)
        y = torch.cat([a, self.second(b)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


@network(lambda n=2: (rand(n, 3, 12, 12),), {0: "n"}, legacy=(10, 17, 19))
class Pools(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pools = nn.ModuleList([
            nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(3, 2, 1, count_include_pad=False, ceil_mode=True),
            nn.AvgPool2d((2, 3), (2, 1), (1, 0)), nn.AdaptiveAvgPool2d((3, 4)), nn.AdaptiveMaxPool2d((2, 6)),
            nn.MaxPool2d(2, 1, dilation=2), nn.AvgPool2d(5, 2, 2, ceil_mode=True),
        ])  # fmt: skip

    def forward(self, x: Tensor) -> list[Tensor]:
        values, at = F.max_pool2d(x, 2, return_indices=True)
        flat = x.flatten(2)
        return [
            *(pool(x) for pool in self.pools), values, at, F.max_pool1d(flat, 3, 2), F.avg_pool1d(flat, 4, 2, 1),
        ]  # fmt: skip


@network(lambda n=2: (rand(n, 4, 6, 6),), {0: "n"}, legacy=(9, 17, 20), dynamo=(18, 22))
class Norms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([
            nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False), nn.InstanceNorm2d(4, affine=True),
            nn.InstanceNorm2d(4), nn.GroupNorm(2, 4), nn.GroupNorm(4, 4, affine=False), nn.LayerNorm((6, 6)),
            nn.LayerNorm(6, elementwise_affine=False), nn.LocalResponseNorm(3), nn.LayerNorm((4, 6, 6)),
        ])  # fmt: skip
        self.one = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [
            *(norm(x) for norm in self.norms), self.one(x.mean((2, 3))), F.normalize(x, dim=1),
            F.normalize(x, p=1.0, dim=-1),
        ]  # fmt: skip


@network(lambda n=2: (rand(n, 5, 6),), {0: "n"}, legacy=(), dynamo=(18, 23))
def rms_norm() -> nn.Module:
    return nn.Sequential(nn.RMSNorm(6, eps=1e-6), nn.Linear(6, 6, bias=False), nn.RMSNorm(6, eps=1e-5))


@network(lambda n=2, t=10: (rand(n, 1, t),), {0: "n", 2: "t"}, legacy=(13,), dynamo=(18,))
class WaveNet(nn.Module):
    """Causal dilated convolutions with gates."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Conv1d(1, 4, 1)
        self.layers = nn.ModuleList(nn.Conv1d(4, 8, 2, dilation=2**i) for i in range(3))
        self.skips = nn.ModuleList(nn.Conv1d(4, 4, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.start(x), 0.0
        for i, (layer, skip) in enumerate(zip(self.layers, self.skips, strict=True)):
            y = F.glu(layer(F.pad(x, (2**i, 0))), 1)
            total = total + skip(y)
            x = x + y
        return F.relu(total)
