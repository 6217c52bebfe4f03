"""Networks that carry a state along a sequence."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .network import ids, network, rand

FREE = {0: "t", 1: "n"}


def sequence(n: int = 2, t: int = 5) -> tuple[Tensor, ...]:
    return (rand(t, n, 3),)


class Recurrent(nn.Module):
    """A recurrent layer that answers with all that it computes."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y, last = self.inner(x)
        return (y, *last) if isinstance(last, tuple) else (y, last)


@network(sequence, FREE, legacy=(9, 17))
def rnn() -> nn.Module:
    return Recurrent(nn.RNN(3, 4, 2, bidirectional=True))


@network(sequence, FREE, legacy=(9,))
def rnn_relu() -> nn.Module:
    return Recurrent(nn.RNN(3, 4, nonlinearity="relu", bias=False))


@network(sequence, FREE, legacy=(9, 15))
def lstm() -> nn.Module:
    return Recurrent(nn.LSTM(3, 4, 2, bidirectional=True))


@network(sequence, FREE, legacy=(9, 14))
def gru() -> nn.Module:
    return Recurrent(nn.GRU(3, 4, 2, bidirectional=True))


@network(sequence, dynamo=(18,), legacy=())
def lstm_fixed() -> nn.Module:
    return Recurrent(nn.LSTM(3, 4))


@network(sequence, dynamo=(18,), legacy=())
def gru_fixed() -> nn.Module:
    return Recurrent(nn.GRU(3, 4, bidirectional=True))


@network(lambda n=2, t=5: (rand(n, t, 3), rand(2, n, 4), rand(2, n, 4)), {0: "n", 1: "t"}, {1: "n"}, {1: "n"})
class StatefulLstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.LSTM(3, 4, 2, batch_first=True, bias=False), nn.Linear(4, 2)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        y, (h, c) = self.inner(x, (h, c))
        return self.head(y[:, -1]), h, c


@network(lambda n=3, t=5: (rand(n, t, 3), torch.arange(t, t - n, -1)), legacy=(17,))
class Packed(nn.Module):
    """Sequences of different lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.GRU(3, 4, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.inner(pack_padded_sequence(x, lengths, batch_first=True))
        return pad_packed_sequence(y, batch_first=True)[0], h


@network(lambda n=2: (rand(4, n, 3),), {1: "n"}, legacy=(13,), dynamo=(18,))
class Cells(nn.Module):
    """Cells, one step after another."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList([nn.LSTMCell(3, 4), nn.GRUCell(4, 4), nn.RNNCell(4, 3)])

    def forward(self, x: Tensor) -> Tensor:
        h, c = x.new_zeros(x.shape[1], 4), x.new_zeros(x.shape[1], 4)
        g, r, out = torch.zeros_like(h), x.new_zeros(x.shape[1], 3), []
        for step in x:
            h, c = self.cells[0](step, (h, c))
            g = self.cells[1](h, g)
            r = self.cells[2](g, r)
            out.append(r)
        return torch.stack(out)


@network(lambda n=2, t=5: (ids(9, (n, t)), ids(7, (n, 3))), {0: "n", 1: "t"}, {0: "n"}, legacy=(12, 17))
class Translator(nn.Module):
    """A recurrent encoder, and a decoder that attends to it."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(9, 4), nn.Embedding(7, 4)
        self.encoder, self.step = nn.GRU(4, 3, bidirectional=True, batch_first=True), nn.GRUCell(10, 6)
        self.score, self.out = nn.Linear(12, 1), nn.Linear(6, 7)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        memory, last = self.encoder(self.source(x))
        h, out = torch.cat([last[0], last[1]], -1), []
        for i in range(y.shape[1]):
            asked = h.unsqueeze(1).expand(-1, memory.shape[1], -1)
            weights = self.score(torch.tanh(torch.cat([memory, asked], -1))).softmax(1)
            h = self.step(torch.cat([self.target(y[:, i]), (weights * memory).sum(1)], -1), h)
            out.append(self.out(h))
        return torch.stack(out, 1).log_softmax(-1)


@network(lambda n=2: (rand(n, 3, 1, 6, 6),), {0: "n"}, legacy=(17,))
class ConvLstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = c = torch.zeros(x.shape[0], 2, 6, 6)
        for i in range(x.shape[1]):
            a, b, d, e = self.gates(torch.cat([x[:, i], h], 1)).chunk(4, 1)
            c = torch.sigmoid(a) * c + torch.sigmoid(b) * torch.tanh(d)
            h = torch.sigmoid(e) * torch.tanh(c)
        return h


@network(lambda n=2: (rand(n, 6, 4),), {0: "n"}, legacy=(14, 17), dynamo=(18,), folded=False)
class StateSpace(nn.Module):
    """A selective state-space layer, as a scan that is written out."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv1d(4, 4, 3, groups=4, padding=2)
        self.project, self.dt = nn.Linear(4, 2 * 3 + 1, bias=False), nn.Linear(1, 4)
        self.a, self.d = nn.Parameter(torch.empty(4, 3)), nn.Parameter(torch.empty(4))

    def forward(self, x: Tensor) -> Tensor:
        u = F.silu(self.mix(x.transpose(1, 2))[:, :, : x.shape[1]].transpose(1, 2))
        dt, b, c = self.project(u).split([1, 3, 3], -1)
        dt = F.softplus(self.dt(dt))
        decay = torch.exp(dt.unsqueeze(-1) * -torch.exp(self.a))
        drive = (dt * u).unsqueeze(-1) * b.unsqueeze(2)
        h, out = torch.zeros_like(drive[:, 0]), []
        for i in range(6):
            h = decay[:, i] * h + drive[:, i]
            out.append((h * c[:, i].unsqueeze(1)).sum(-1))
        return torch.stack(out, 1) + u * self.d


@network(lambda n=2, t=6: (rand(n, t, 4),), {0: "n", 1: "t"}, legacy=(11, 17), dynamo=(18,))
class CumulativeState(nn.Module):
    """A linear recurrence through cumulative sums, in any length."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.value, self.scale = nn.Linear(4, 4), nn.Linear(4, 4), nn.Parameter(torch.empty(4))

    def forward(self, x: Tensor) -> Tensor:
        total = torch.cumsum(F.logsigmoid(self.gate(x)), 1)
        h = torch.exp(total) * torch.cumsum(self.value(x) * torch.exp(-total), 1)
        counts = torch.arange(1, x.shape[1] + 1).unsqueeze(-1)
        return h * self.scale + torch.cumsum(x, dim=1) / counts
