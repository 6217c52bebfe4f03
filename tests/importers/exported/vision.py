"""Networks that resize, sample, detect and rearrange images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network import network, rand


def image(n: int = 2, h: int = 8, w: int = 8) -> tuple[Tensor, ...]:
    return (rand(n, 3, h, w),)


IMAGE = {0: "n", 2: "h", 3: "w"}


def block(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.InstanceNorm2d(outputs, affine=True), nn.GELU())


@network(image, IMAGE, legacy=(11, 17), dynamo=(18,), resized={"n": 1, "h": 12, "w": 4})
class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = block(3, 4), block(4, 6), block(6, 6)
        self.up2, self.up1 = nn.ConvTranspose2d(6, 6, 2, 2), nn.Upsample(scale_factor=2, mode="bilinear")
        self.out2, self.out1 = block(12, 4), block(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.up2(self.middle(F.max_pool2d(b, 2)))
        d = self.up1(self.out2(torch.cat([b, c], 1)))
        return self.out1(torch.cat([a, d], 1))


@network(lambda n=2: (rand(n, 2, 5, 6),), {0: "n"}, legacy=(11, 13, 18))
class Interpolations(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [
            F.interpolate(x, scale_factor=2.0), F.interpolate(x, (7, 3)),
            F.interpolate(x, scale_factor=(1.5, 2.0), mode="bilinear"),
            F.interpolate(x, (9, 11), mode="bilinear", align_corners=True),
            F.interpolate(x, (8, 9), mode="bicubic"), F.interpolate(x, (9, 4), mode="bicubic", align_corners=True),
            F.interpolate(x.flatten(2), scale_factor=2.0, mode="linear"),
            F.interpolate(x.unsqueeze(1), (3, 4, 8), mode="trilinear"),
        ]  # fmt: skip


@network(image, IMAGE, dynamo=(18,), legacy=(16,))
class Aspp(nn.Module):
    """Dilated branches and a global one, brought back to the size of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.branches = nn.ModuleList(nn.Conv2d(4, 3, 3, padding=d, dilation=d) for d in (1, 2, 3))
        self.overall, self.out = nn.Conv2d(4, 3, 1), nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        pooled = F.interpolate(self.overall(y.mean((2, 3), keepdim=True)), y.shape[2:])
        y = self.out(torch.cat([*(b(y) for b in self.branches), pooled], 1))
        return F.interpolate(y, x.shape[2:], mode="bilinear", align_corners=False)


@network(
    image, {0: "n"}, legacy=(16, 20), dynamo=(20,),
    extra={"dynamo": (75, "the points of a grid, which the file does not tell from a weight")},
)  # fmt: skip
class SpatialTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.locate = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 6), nn.Tanh())

    def forward(self, x: Tensor) -> list[Tensor]:
        theta = self.locate(x).view(-1, 2, 3)
        y, z = torch.meshgrid(torch.linspace(-1, 1, 5), torch.linspace(-1, 1, 5), indexing="ij")
        points = torch.stack([z, y, torch.ones_like(y)], -1).reshape(1, 25, 3)
        grid = (points @ theta.transpose(1, 2)).reshape(-1, 5, 5, 2)
        return [
            F.grid_sample(x, grid, align_corners=False),
            F.grid_sample(x, grid, padding_mode="border", align_corners=True),
            F.grid_sample(x, 0.7 * grid, mode="bicubic", padding_mode="reflection", align_corners=False),
        ]


@network(
    image, {0: "n"}, legacy=(20,), dynamo=(20,),
    extra={"dynamo": (126, "the points of a grid, which the file does not tell from a weight")},
)  # fmt: skip
class AffineGrid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.empty(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        grid = F.affine_grid(self.theta.expand(x.shape[0], 2, 3), [x.shape[0], 3, 6, 7], align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)


@network(image, IMAGE, legacy=(9, 17), resized={"n": 3, "h": 10, "w": 6})
class SuperResolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.second = nn.Conv2d(12, 6, 3, padding=1), nn.PReLU(6), nn.Conv2d(6, 12, 3, padding=1)
        self.single = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.act(self.first(F.pixel_unshuffle(x, 2))))
        return self.single(F.pixel_shuffle(y, 2)) + x


@network(image, {0: "n"}, legacy=(11, 17), dynamo=(18,))
class DetectionHead(nn.Module):
    """Boxes from a grid and anchors, at two scales; the best by score."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 2, 1)
        self.heads = nn.ModuleList(nn.Conv2d(6, 2 * 7, 1) for _ in range(2))
        anchors = torch.tensor([[[10.0, 13.0], [16.0, 30.0]], [[33.0, 23.0], [30.0, 61.0]]])
        self.register_buffer("anchors", anchors)

    def decode(self, y: Tensor, level: int) -> Tensor:
        n, _, h, w = y.shape
        y = y.view(n, 2, 7, h, w).permute(0, 1, 3, 4, 2).sigmoid()
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        grid = torch.stack([columns, rows], 2).float()
        centre = (y[..., :2] * 2 - 0.5 + grid) * (2.0 ** (level + 1))
        size = (y[..., 2:4] * 2) ** 2 * self.anchors[level].view(1, 2, 1, 1, 2)
        return torch.cat([centre, size, y[..., 4:]], -1).view(n, -1, 7)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = F.silu(self.stem(x))
        b = F.silu(self.down(a))
        boxes = torch.cat(
            [self.decode(head(y), i) for i, (head, y) in enumerate(zip(self.heads, (a, b), strict=True))], 1
        )
        scores = boxes[..., 4:5] * boxes[..., 5:]
        best, at = scores.amax(-1).topk(5, dim=1)
        return best, boxes.gather(1, at.unsqueeze(-1).expand(-1, -1, 7))[..., :4]


@network(image, {0: "n"}, legacy=(14, 17), dynamo=(22,))
class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.empty(1, 1, 8))
        self.positions = nn.Parameter(torch.empty(1, 5, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 12, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.token.expand(x.shape[0], -1, -1), y], 1) + self.positions
        return self.head(self.norm(self.encoder(y))[:, 0])


@network(lambda n=2: (rand(n, 8, 8, 4),), {0: "n"}, legacy=(13, 17), dynamo=(18,))
class WindowAttention(nn.Module):
    """Shifted windows with a learned bias by relative position."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(4, 12), nn.Linear(4, 4)
        self.bias = nn.Parameter(torch.empty(49, 2))
        places = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")).flatten(1)
        apart = places[:, :, None] - places[:, None, :] + 3
        self.register_buffer("index", apart[0] * 7 + apart[1])

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        x = torch.roll(x, (-2, -2), (1, 2))
        windows = x.view(n, 2, 4, 2, 4, 4).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 4)
        q, k, v = self.qkv(windows).reshape(-1, 16, 3, 2, 2).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.bias[self.index.view(-1)].view(16, 16, 2).permute(2, 0, 1)
        a = (q @ k.transpose(-2, -1) * 2**-0.5 + bias).softmax(-1)
        y = self.out((a @ v).transpose(1, 2).reshape(-1, 16, 4))
        y = y.view(n, 2, 2, 4, 4, 4).permute(0, 1, 3, 2, 4, 5).reshape(n, 8, 8, 4)
        return torch.roll(y, (2, 2), (1, 2))


@network(image, {0: "n"}, legacy=(12, 17))
class MlpMixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm1, self.norm2 = nn.Conv2d(3, 6, 4, 4), nn.LayerNorm(6), nn.LayerNorm(6)
        self.tokens = nn.Sequential(nn.Linear(4, 8), nn.GELU(approximate="tanh"), nn.Linear(8, 4))
        self.channels = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = y + self.tokens(self.norm1(y).transpose(1, 2)).transpose(1, 2)
        return (y + self.channels(self.norm2(y))).mean(1)


@network(lambda n=2: (rand(n, 3, 6, 6),), {0: "n"}, legacy=(18,))
class Patches(nn.Module):
    """Sliding windows out of an image and back into one."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv1d(12, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(F.unfold(x, 2, stride=2))
        return F.fold(y, (6, 6), 2, stride=2)


@network(lambda n=3: (rand(n, 3, low=-2, high=2), rand(n, 3)), {0: "n"}, {0: "n"}, legacy=(9, 17), dynamo=(18,))
class Radiance(nn.Module):
    """Positions and directions, encoded by sines, to colour and density."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(3 + 18, 12), nn.Softplus(), nn.Linear(12, 12), nn.Softplus())
        self.density, self.colour = nn.Linear(12, 1), nn.Linear(15, 3)

    def forward(self, x: Tensor, towards: Tensor) -> tuple[Tensor, Tensor]:
        waves = [f(x * 2.0**i) for i in range(3) for f in (torch.sin, torch.cos)]
        y = self.trunk(torch.cat([x, *waves], -1))
        towards = towards / towards.norm(dim=-1, keepdim=True)
        return F.softplus(self.density(y)).squeeze(-1), torch.sigmoid(self.colour(torch.cat([y, towards], -1)))
