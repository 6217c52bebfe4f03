"""ConvNeXt-T without stochastic depth.

Source: Liu et al., "A ConvNet for the 2020s" (2022).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of an image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (N, channels, H, W) -> the same."""
        y: Tensor = self.norm(x.permute(0, 2, 3, 1))
        return y.permute(0, 3, 1, 2)


class Block(nn.Module):
    """A 7x7 depthwise convolution and a perceptron per pixel, scaled, beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.widen = nn.Linear(channels, 4 * channels)
        self.gelu = nn.GELU()
        self.narrow = nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 1e-1))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (N, channels, H, W) -> the same."""
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.narrow(self.gelu(self.widen(self.norm(y))))
        out: Tensor = x + self.scale * y.permute(0, 3, 1, 2)
        return out


class ConvNeXt(nn.Module):
    """Four stages of blocks with strided convolutions between them."""

    def __init__(self, depths: tuple[int, ...], widths: tuple[int, ...], classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 4), ChannelNorm(widths[0])]
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            if i:
                layers += [ChannelNorm(widths[i - 1]), nn.Conv2d(widths[i - 1], width, 2, 2)]
            layers += [Block(width) for _ in range(depth)]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.norm = ChannelNorm(widths[-1])
        self.classifier = nn.Linear(widths[-1], classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(m.weight, std=0.02)
                if m.bias is not None:
                    nn.init.zeros_(m.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (N, 3, H, W) -> (N, classes)."""
        logits: Tensor = self.classifier(self.norm(self.pool(self.features(x))).flatten(1))
        return logits


def convnext_tiny() -> nn.Module:
    """Return ConvNeXt-T."""
    return ConvNeXt((3, 3, 9, 3), (96, 192, 384, 768))
