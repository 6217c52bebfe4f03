"""Transformers and other networks of attention."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network import ids, network, rand


def sequence(n: int = 2, t: int = 5, c: int = 8) -> tuple[Tensor, ...]:
    return (rand(n, t, c),)


FREE = {0: "n", 1: "t"}


@network(lambda n=2, t=5, s=4: (rand(t, n, 8), rand(s, n, 8)), {1: "n"}, {1: "n"}, legacy=(13, 17))
class MultiheadAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.own, self.across = nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 4, bias=False)

    def forward(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        y, _ = self.own(x, x, x)
        z, weights = self.across(y, memory, memory)
        return z, weights


@network(sequence, {0: "n"}, legacy=(14, 17), dynamo=(21,))
def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(8), enable_nested_tensor=False)


@network(lambda n=2: (rand(n, 5, 8), rand(n, 4, 8)), {0: "n"}, {0: "n"}, legacy=(14,))
class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerDecoderLayer(8, 2, 12, activation="gelu", batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, 1)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(5), persistent=False)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        return self.decoder(x, memory, tgt_mask=self.mask)


@network(lambda n=2: (rand(n, 5, 8), rand(n, 4, 8)), legacy=(16,))
class WholeTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Transformer(8, 2, 1, 1, 12, batch_first=True)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.inner(source, target)


class CausalBlock(nn.Module):
    def __init__(self, width: int, heads: int, longest: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.register_buffer("seen", torch.ones(longest, longest).tril().bool()[None, None])

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = (
            y.view(n, t, self.heads, c // self.heads).transpose(1, 2) for y in self.qkv(self.norm1(x)).split(c, dim=2)
        )
        a = (q @ k.transpose(-2, -1)) / math.sqrt(c // self.heads)
        a = a.masked_fill(~self.seen[:, :, :t, :t], float("-inf")).softmax(-1)
        x = x + self.out((a @ v).transpose(1, 2).reshape(n, t, c))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


def tokens(n: int = 2, t: int = 5) -> tuple[Tensor, ...]:
    return (ids(11, (n, t)),)


@network(tokens, FREE, legacy=(13, 17), dynamo=(18,))
class Gpt(nn.Module):
    """A causal language model that reads and writes with one table."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(11, 8), nn.Embedding(9, 8)
        self.blocks, self.norm = nn.ModuleList(CausalBlock(8, 2, 9) for _ in range(2)), nn.LayerNorm(8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        y = self.tokens(x) + self.positions(torch.arange(x.shape[1], device=x.device))
        for block in self.blocks:
            y = block(y)
        return self.head(self.norm(y))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


class GroupedAttention(nn.Module):
    """Rotary positions, four query heads that share two key heads."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, c, bias=False) for c in (16, 8, 8))
        self.out = nn.Linear(16, 8, bias=False)
        self.register_buffer("speed", 10000 ** (-torch.arange(0, 4, 2).float() / 4), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (f(x).view(n, t, -1, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        angles = torch.arange(t, device=x.device).float()[:, None] * self.speed
        angles = torch.cat([angles, angles], -1)
        q, k = rotate(q, angles.cos(), angles.sin()), rotate(k, angles.cos(), angles.sin())
        k, v = (y[:, :, None].expand(n, 2, 2, t, 4).reshape(n, 4, t, 4) for y in (k, v))
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(n, t, 16))


@network(tokens, FREE, legacy=(), dynamo=(23,))
class Llama(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.attention = nn.Embedding(11, 8), GroupedAttention()
        self.norms = nn.ModuleList(nn.RMSNorm(8, eps=1e-6) for _ in range(3))
        self.gate, self.up, self.down = (nn.Linear(a, b, bias=False) for a, b in ((8, 12), (8, 12), (12, 8)))
        self.head = nn.Linear(8, 11, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.tokens(x)
        y = y + self.attention(self.norms[0](y))
        z = self.norms[1](y)
        return self.head(self.norms[2](y + self.down(F.silu(self.gate(z)) * self.up(z))))


@network(
    lambda n=2, t=5: (1 + ids(10, (n, t)), (torch.arange(t)[None] < torch.arange(2, 2 + n)[:, None]).long()),
    FREE, FREE, legacy=(12, 17), dynamo=(18,), resized={"n": 3, "t": 7},
)  # fmt: skip
class Bert(nn.Module):
    """A bidirectional encoder with a padding mask, a padding token and a pooler."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8, padding_idx=0)
        self.places, self.kinds, self.norm = nn.Embedding(8, 8), nn.Embedding(2, 8), nn.LayerNorm(8)
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.pooler, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        n, t = x.shape
        y = self.words(x) + self.places(torch.arange(t))[None] + self.kinds(torch.zeros_like(x))
        y = self.norm(y)
        q, k, v = (f(y).view(n, t, 2, 4).permute(0, 2, 1, 3) for f in (self.q, self.k, self.v))
        hidden = (1.0 - mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
        a = torch.softmax(q @ k.transpose(-1, -2) / 2.0 + hidden, -1)
        y = y + self.out((a @ v).permute(0, 2, 1, 3).reshape(n, t, 8))
        return y, self.head(torch.tanh(self.pooler(y[:, 0])))


@network(tokens, FREE, legacy=(17,), dynamo=(18,))
class RelativePositions(nn.Module):
    """Biases that are looked up by how far apart two places are, in buckets."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.distances = nn.Embedding(11, 8), nn.Embedding(6, 2)
        self.q, self.k, self.v = (nn.Linear(8, 8, bias=False) for _ in range(3))
        self.scale = nn.Parameter(torch.empty(8))

    def forward(self, x: Tensor) -> Tensor:
        n, t = x.shape
        y = self.tokens(x)
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6) * self.scale
        places = torch.arange(t)
        apart = places[None, :] - places[:, None]
        far = 2 + (torch.log(apart.abs().clamp(min=1).float()) / math.log(2)).long().clamp(max=2)
        bucket = torch.where(apart < 0, far + 1, torch.minimum(apart, torch.full_like(apart, 2)))
        bias = self.distances(bucket).permute(2, 0, 1)[None]
        q, k, v = (f(y).view(n, t, 2, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        return ((q @ k.transpose(2, 3) + bias).softmax(-1) @ v).transpose(1, 2).flatten(2)


@network(sequence, FREE, legacy=(14,), dynamo=(18,), folded=False)
class Latents(nn.Module):
    """Learned queries that read a sequence of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.empty(3, 8))
        self.q, self.kv, self.norm = nn.Linear(8, 8), nn.Linear(8, 16), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        k, v = self.kv(self.norm(x)).unsqueeze(1).chunk(2, -1)
        q = self.q(self.latents).expand(x.shape[0], 1, -1, -1)
        return F.scaled_dot_product_attention(q, k, v, scale=0.3).squeeze(1)


@network(sequence, FREE, legacy=(12, 17), dynamo=(18,))
class LinearAttention(nn.Module):
    """Attention whose cost is linear in the length, by einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.mix = nn.Parameter(torch.empty(2, 4, 5))

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (f(x).view(n, t, 2, 4) for f in (self.q, self.k, self.v))
        q, k = F.elu(q) + 1, F.elu(k) + 1
        both = torch.einsum("nshd,nshm->nhmd", k, v)
        over = 1 / (torch.einsum("nlhd,nhd->nlh", q, k.sum(1)) + 1e-6)
        y = torch.einsum("nlhd,nhmd,nlh->nlhm", q, both, over)
        return torch.einsum("nlhm,hmo->nlo", y, self.mix)


@network(
    lambda n=2, t=4: (rand(n, 2, t, 4), rand(n, 2, 6, 4), rand(n, 2, 6, 3), rand(n, 1, t, 6) > -0.5),
    {0: "n", 2: "t"}, {0: "n"}, {0: "n"}, {0: "n", 2: "t"}, legacy=(14, 18), dynamo=(18, 23),
)  # fmt: skip
class DotProductAttention(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return (
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask),
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask.float(), scale=0.25),
        )


@network(sequence, FREE, legacy=(16,), dynamo=(18,))
class Experts(nn.Module):
    """A mixture of experts, weighted by the two best gates."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(8, 4, bias=False)
        self.up, self.down = nn.Parameter(torch.empty(4, 8, 6)), nn.Parameter(torch.empty(4, 6, 8))

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.gate(x).softmax(-1).topk(2, dim=-1)
        weights = torch.zeros_like(self.gate(x)).scatter(-1, chosen, weights / weights.sum(-1, keepdim=True))
        y = F.silu(torch.einsum("ntc,ech->nteh", x, self.up))
        return torch.einsum("nteh,ehc,nte->ntc", y, self.down, weights)


@network(
    lambda n=2, p=3: (rand(n, 1, 8), rand(n, 2, p, 4), rand(n, 2, p, 4)),
    {0: "n"}, {0: "n", 2: "p"}, {0: "n", 2: "p"}, legacy=(17,), dynamo=(18,),
)  # fmt: skip
class CachedAttention(nn.Module):
    """One step of decoding, with the keys and values of the past."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor, past_k: Tensor, past_v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n = x.shape[0]
        q, k, v = self.qkv(x).view(n, 1, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        k, v = torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
        y = (q @ k.transpose(-1, -2) * 0.5).softmax(-1) @ v
        return self.out(y.transpose(1, 2).reshape(n, 1, 8)), k, v
