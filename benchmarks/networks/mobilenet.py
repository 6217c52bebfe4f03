"""MobileNetV2 and EfficientNet-B0: inverted residuals with depthwise convolutions.

Sources: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018); Tan and Le, "EfficientNet:
Rethinking Model Scaling for Convolutional Neural Networks" (2019). Neither drops anything at random.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, width, depth and first stride of each stage."""

EFFICIENTNET_B0 = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
"""Expansion, width, depth, first stride and kernel of each stage."""


def conv_norm(
    inputs: int,
    outputs: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: Callable[[], nn.Module] | None = None,
    eps: float = 1e-5,
) -> nn.Sequential:
    """Return a convolution, its normalisation and an activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=eps),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class SqueezeExcitation(nn.Module):
    """Channels scaled by a gate that sees their means."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.silu = nn.SiLU()
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (N, channels, H, W) -> the same."""
        gate: Tensor = self.sigmoid(self.fc2(self.silu(self.fc1(self.pool(x)))))
        return x * gate


class InvertedResidual(nn.Module):
    """Widen, convolve each channel, perhaps gate, narrow; a shortcut where the shape stays."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        expansion: int,
        stride: int,
        kernel: int,
        activation: Callable[[], nn.Module],
        gated: bool,
    ) -> None:
        super().__init__()
        width = inputs * expansion
        layers: list[nn.Module] = [conv_norm(inputs, width, activation=activation)] if expansion > 1 else []
        layers.append(conv_norm(width, width, kernel, stride, groups=width, activation=activation))
        if gated:
            layers.append(SqueezeExcitation(width, max(1, inputs // 4)))
        layers.append(conv_norm(width, outputs))
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class MobileNet(nn.Module):
    """A stem, stages of inverted residuals, a wide 1x1 convolution and a linear layer."""

    def __init__(
        self,
        stages: tuple[tuple[int, int, int, int, int], ...],
        activation: Callable[[], nn.Module],
        gated: bool,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        inputs = 32
        layers: list[nn.Module] = [conv_norm(3, inputs, 3, 2, activation=activation)]
        for expansion, width, depth, stride, kernel in stages:
            for i in range(depth):
                layers.append(InvertedResidual(inputs, width, expansion, 1 if i else stride, kernel, activation, gated))
                inputs = width
        layers.append(conv_norm(inputs, 1280, activation=activation))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(1280, classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out")
                if m.bias is not None:
                    nn.init.zeros_(m.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (N, 3, H, W) -> (N, classes)."""
        logits: Tensor = self.classifier(self.pool(self.features(x)).flatten(1))
        return logits


def mobilenetv2() -> nn.Module:
    """Return MobileNetV2."""
    return MobileNet(tuple((*stage, 3) for stage in MOBILENET_V2), nn.ReLU6, gated=False)


def efficientnet_b0() -> nn.Module:
    """Return EfficientNet-B0."""
    return MobileNet(EFFICIENTNET_B0, nn.SiLU, gated=True)
