"""Networks with control flow: compiled for the legacy exporter, as higher-order operators for the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .network import network, rand


def rows(n: int = 3) -> tuple[Tensor, ...]:
    return (rand(n, 4),)


@network(rows, {0: "n"}, legacy=(11, 17), script=True)
class ScriptedIf(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if x.sum() > 0:
            y = torch.tanh(self.second(x)) * y
        return y


@network(lambda n=3, k=4: (rand(n, 4), torch.tensor(k)), {0: "n"}, legacy=(11, 17), script=True)
class ScriptedLoop(nn.Module):
    """As many steps as the input says."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(4, 4)

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        for _ in range(int(steps)):
            x = torch.tanh(self.step(x)) + 0.5 * x
        return x


@network(rows, {0: "n"}, legacy=(13, 17), script=True)
class ScriptedWhile(nn.Module):
    """Steps until the state is small, a condition inside the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        i = 0
        while i < 6 and bool(x.abs().max() > 0.3):
            x = 0.5 * torch.sin(self.step(x)) if i % 2 == 0 else 0.8 * x
            i += 1
        return x


@network(lambda n=2, t=4: (rand(n, t, 3),), {0: "n", 1: "t"}, legacy=(13, 17), script=True)
class ScriptedScan(nn.Module):
    """A loop over the sequence that keeps every state."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.size(0), 4)
        out = torch.jit.annotate(list[Tensor], [])
        for i in range(x.size(1)):
            h = torch.tanh(self.cell(torch.cat([x[:, i], h], 1)))
            out.append(h)
        return torch.stack(out, 1)


@network(rows, {0: "n"}, legacy=(), dynamo=(18,))
class Cond(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda y: self.first(y), lambda y: torch.tanh(self.second(y)), (x,))


@network(lambda t=4, n=2: (rand(t, n, 3),), legacy=(), dynamo=(18,))
class HigherOrderScan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        from torch._higher_order_ops.scan import scan

        def step(h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            h = torch.tanh(x + h @ self.weight)
            return h, h * 2

        return scan(step, torch.zeros(2, 3), x)  # type: ignore[no-any-return]


@network(lambda n=2: (rand(n, 4),), legacy=(), dynamo=(18,))
class HigherOrderWhile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        from torch._higher_order_ops.while_loop import while_loop

        def step(i: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return i + 1, torch.tanh(self.step(y))

        return while_loop(lambda i, y: i < 3, step, (torch.tensor(0), x))[1]
