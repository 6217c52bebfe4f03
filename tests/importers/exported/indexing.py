"""Networks that index, scatter, mask, rearrange, and choose what to run."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network import ids, network, rand


def block(n: int = 3, t: int = 5) -> tuple[Tensor, ...]:
    return (rand(n, t, 4),)


@network(lambda n=3: (rand(n, 5, 4),), {0: "n"}, legacy=(11, 13, 17), dynamo=(18,), folded=False)
class Indexing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(6, 4))
        self.register_buffer("order", torch.tensor([3, 0, 2]))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [
            x[:, 1:4], x[..., -1], x[:, ::2], x[:, -3:-1, 1:], x[:, None, 2], x[:, self.order],
            x[:, self.order, torch.tensor([0, 1, 3])], x.index_select(2, self.order), x.select(1, -2),
            x.narrow(1, 1, 3), self.weight[self.order] * x[:, :3], self.weight[1:5, 2] + x[0, 0], x[0], x[-1:],
            x.flip(1), x[:, [4, 4, 1]], self.weight[2] - x,
        ]  # fmt: skip


@network(block, {0: "n", 1: "t"}, legacy=(14, 17), dynamo=(18,))
class Masks(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        hidden = x > 0.3
        square = x @ x.transpose(1, 2)
        return [
            x.masked_fill(hidden, -1.0), torch.where(hidden, x, x * 2), torch.where(hidden, x, 0.5), x * hidden,
            square.tril(), square.triu(1), hidden.any(1), hidden.all(2), torch.logical_not(hidden),
            torch.isinf(x.masked_fill(hidden, float("inf"))),
        ]  # fmt: skip


@network(lambda n=2: (rand(n, 4, 6),), {0: "n"}, legacy=(13, 17), dynamo=(18,))
class Rearranging(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        n = x.shape[0]
        return [
            x.view(n, 2, 2, 6), x.reshape(n, -1), x.permute(2, 0, 1), x.transpose(1, 2),
            x.unsqueeze(1).expand(-1, 3, -1, -1), x.repeat(1, 2, 1), x.flatten(1), *x.chunk(2, 1),
            *x.split([1, 3], 1), *x.unbind(1), torch.stack([x, x * 2], 2), torch.cat([x, x], -1),
            x.unflatten(2, (2, 3)), torch.tile(x, (1, 1, 2)), x.unsqueeze(0).squeeze(0),
            torch.roll(x, 2, 2), F.pad(x, (1, 2)), F.pad(x, (1, 1), mode="reflect"), x.movedim(1, 2),
            torch.zeros_like(x) + x, torch.full((n, 2), 0.5), x.unfold(2, 3, 2), x.swapaxes(0, 1), x.contiguous(),
        ]  # fmt: skip


@network(lambda n=3: (rand(n, 6),), {0: "n"}, legacy=(11, 17), dynamo=(18,))
class Ranking(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        best, at = x.topk(3, dim=1)
        ordered, order = x.sort(dim=1, descending=True)
        return [
            best,
            at,
            ordered,
            order,
            x.topk(2, largest=False)[0],
            x.argmax(1),
            x.argsort(1),
            x.gather(1, at[:, :2]),
        ]


@network(lambda n=2: (rand(n, 5, 3), ids(5, (n, 2, 3))), {0: "n"}, {0: "n"}, legacy=(11, 16, 18), dynamo=(18,))
class Scattering(nn.Module):
    """Writes into a copy, at indices that the input gives and at ones that are fixed."""

    def forward(self, x: Tensor, at: Tensor) -> list[Tensor]:
        update = x[:, :2] * 2
        y = x.clone()
        y[:, 1:3] = update
        z = x.clone()
        z[:, 0, 1] = 0.5
        rows = torch.tensor([0, 3])
        return [
            y, z, x.scatter(1, at[:, :1], update[:, :1]), x.gather(1, at), x.index_copy(1, rows, update),
            x.index_fill(1, rows, 0.25),
        ]  # fmt: skip


@network(lambda n=4, e=7: (rand(n, 3), ids(4, (2, e)), rand(e, 2)), {0: "n"}, {1: "e"}, {0: "e"}, legacy=(16, 18))
class MessagePassing(nn.Module):
    """A graph network: messages along edges, added up at their ends."""

    def __init__(self) -> None:
        super().__init__()
        self.message, self.update = nn.Linear(8, 4), nn.GRUCell(4, 3)

    def collect(self, x: Tensor, target: Tensor, m: Tensor) -> Tensor:
        return torch.zeros(x.shape[0], 4).scatter_add(0, target.unsqueeze(1).expand(-1, 4), m)

    def forward(self, x: Tensor, edges: Tensor, features: Tensor) -> Tensor:
        source, target = edges[0], edges[1]
        for _ in range(2):
            m = F.relu(self.message(torch.cat([x[source], x[target], features], 1)))
            x = self.update(self.collect(x, target, m), x)
        return x


@network(
    lambda n=4, e=7: (rand(n, 3), ids(4, (2, e)), rand(e, 2)), {0: "n"}, {1: "e"}, {0: "e"}, legacy=(), dynamo=(18,)
)
class IndexAdd(MessagePassing):
    """The older exporter writes an `index_add` that keeps one message at each end: it is left out."""

    def collect(self, x: Tensor, target: Tensor, m: Tensor) -> Tensor:
        return torch.zeros(x.shape[0], 4).index_add(0, target, m)


@network(lambda n=4, e=9: (rand(n, 3), ids(4, (2, e))), {0: "n"}, {1: "e"}, legacy=(18,), dynamo=(18,))
class GraphAttention(nn.Module):
    """Softmax over the edges that end at a node, through scatter."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.score = nn.Linear(3, 4, bias=False), nn.Parameter(torch.empty(8))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges[0], edges[1]
        h = self.linear(x)
        s = F.leaky_relu(torch.cat([h[source], h[target]], 1) @ self.score, 0.2)
        top = torch.full((x.shape[0],), -10.0).scatter_reduce(0, target, s.detach(), "amax")
        e = torch.exp(s - top[target])
        total = torch.zeros(x.shape[0]).scatter_add(0, target, e)
        weights = e / (total[target] + 1e-9)
        return torch.zeros(x.shape[0], 4).scatter_add(
            0, target.unsqueeze(1).expand(-1, 4), weights.unsqueeze(1) * h[source]
        )


@network(block, {0: "n", 1: "t"}, legacy=(12, 17), dynamo=(18,))
class Equations(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Parameter(torch.empty(s)) for s in ((4, 3), (3, 4, 2), (4,)))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [
            torch.einsum("ntc,cd->ntd", x, self.a), torch.einsum("ntc,dce,c->nted", x, self.b, self.c),
            torch.einsum("ntc,nsc->nts", x, x), torch.einsum("...c,c", x, self.c), torch.einsum("ntc->ct", x),
            torch.einsum("ntc,ntc->n", x, x), torch.tensordot(x, self.a, 1), torch.outer(self.c, x[0, 0]),
        ]  # fmt: skip


@network(
    lambda n=3, t=4: (3 + ids(3, (n, t)), rand(n, t)), {0: "n", 1: "t"}, {0: "n", 1: "t"}, legacy=(11, 17), dynamo=(18,)
)
class Tables(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.padded = nn.Embedding(6, 4), nn.Embedding(6, 4, padding_idx=2)

    def forward(self, x: Tensor, w: Tensor) -> list[Tensor]:
        one = F.one_hot(x, 6).float()
        pooled = (self.table(x) * w.unsqueeze(-1)).sum(1) / w.sum(1, keepdim=True).abs().clamp(min=0.1)
        return [self.padded(x), one @ self.table.weight, pooled]


@network(
    lambda n=3: (rand(n, 5, 4), torch.arange(1, n + 1)),
    {0: "n"},
    {0: "n"},
    legacy=(13,),
    dynamo=(18,),
    resized={"n": 5},
)
class DeepSets(nn.Module):
    """Sets of different sizes, through a masked mean and a masked maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 6), nn.Linear(12, 2)

    def forward(self, x: Tensor, sizes: Tensor) -> Tensor:
        there = (torch.arange(5)[None, :] < sizes[:, None]).unsqueeze(-1)
        h = F.gelu(self.inner(x))
        mean = (h * there).sum(1) / there.sum(1).clamp(min=1)
        return self.outer(torch.cat([mean, h.masked_fill(~there, -1e9).amax(1)], 1))


@network(lambda n=4: (rand(n, 5),), {0: "n"}, legacy=(11, 17))
class DataDependent(nn.Module):
    """Results whose size the values decide."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> list[Tensor]:
        y = self.inner(x)
        return [y[y > 0], torch.nonzero(y > 0), x[x[:, 0] > 0.1] * 2, torch.masked_select(x, x < 0)]
