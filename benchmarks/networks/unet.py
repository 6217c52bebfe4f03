"""U-Net of 32 to 512 channels for images of 256.

Source: Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation" (2015), in the size of
Buda et al., "Association of genomic subtypes of lower-grade gliomas with shape features" (2019).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DoubleConv(nn.Sequential):
    """Two normalised 3x3 convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for i in (inputs, outputs):
            layers += [nn.Conv2d(i, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        super().__init__(*layers)


class UNet(nn.Module):
    """Four halvings, four doublings, and what was before each halving beside what comes after each doubling."""

    def __init__(self, width: int = 32, outputs: int = 1) -> None:
        super().__init__()
        widths = [width << i for i in range(5)]
        self.down = nn.ModuleList(DoubleConv(i, o) for i, o in zip([3, *widths[:3]], widths[:4], strict=True))
        self.pool = nn.MaxPool2d(2)
        self.bottom = DoubleConv(widths[3], widths[4])
        self.grow = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in reversed(widths[:4]))
        self.up = nn.ModuleList(DoubleConv(2 * w, w) for w in reversed(widths[:4]))
        self.head = nn.Conv2d(width, outputs, 1)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (N, 3, H, W) -> (N, outputs, H, W), H and W multiples of 16."""
        beside = []
        for block in self.down:
            x = block(x)
            beside.append(x)
            x = self.pool(x)
        x = self.bottom(x)
        for grow, block, other in zip(self.grow, self.up, reversed(beside), strict=True):
            x = block(torch.cat([grow(x), other], 1))
        return torch.sigmoid(self.head(x))


def unet() -> nn.Module:
    """Return the U-Net."""
    return UNet()
