"""Networks of activations, arithmetic, reductions, and linear layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network import ids, network, rand


def rows(n: int = 3, c: int = 6) -> tuple[Tensor, ...]:
    return (rand(n, c, low=-2.0, high=2.0),)


@network(rows, {0: "n"}, legacy=(14, 20), dynamo=(18, 21))
class Activations(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.acts = nn.ModuleList([
            nn.ReLU(), nn.LeakyReLU(0.2), nn.ELU(0.7), nn.SELU(), nn.CELU(1.3), nn.GELU(), nn.GELU("tanh"), nn.SiLU(),
            nn.Mish(), nn.ReLU6(), nn.Hardtanh(-0.6, 0.8), nn.Softplus(), nn.Softsign(), nn.Softshrink(0.3),
            nn.Hardshrink(0.4), nn.GLU(), nn.LogSigmoid(), nn.Tanhshrink(), nn.Softmax(0),
            nn.Softmax(-1), nn.LogSoftmax(1), nn.Softmin(1), nn.Sigmoid(), nn.Tanh(), nn.Identity(), nn.PReLU(6),
        ])  # fmt: skip

    def forward(self, x: Tensor) -> list[Tensor]:
        return [act(x) for act in self.acts]


@network(rows, {0: "n"}, legacy=(9, 11, 16), dynamo=(18,))
class HardActivations(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [F.hardswish(x), F.hardsigmoid(x), F.softplus(x), F.relu6(x + 3), F.elu(x), F.selu(x), F.leaky_relu(x)]


@network(rows, {0: "n"}, legacy=(13, 18), dynamo=(18,))
class Functions(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        a, u = x.abs() + 0.5, x / 3
        return [
            x.exp(), a.log(), a.sqrt(), a.rsqrt(), x.sin(), x.cos(), u.tan(), u.asin(), u.acos(), x.atan(),
            x.erf(), a.reciprocal(), x**2, x**3, a**0.7, 2.0**x,
            a.log2(), a.log10(), a.log1p(), x.neg(), x.sign(), x.floor(), x.ceil(), x.round(),
            x.square(), x.clamp(-1, 1), x.clamp(min=0.2), x.clamp(max=0.4), x.sigmoid(), torch.logit(x.sigmoid()),
            torch.atan2(x, a), torch.fmod(x, 0.7), torch.remainder(x, 0.7), x.isnan(), x > 0,
        ]  # fmt: skip


@network(
    lambda n=3: (rand(n, 6, low=0.3, high=2.0), rand(6), rand(n, 1)), {0: "n"}, {}, {0: "n"}, legacy=(9, 17),
    dynamo=(18,), frozen={"legacy": {"scale": "it multiplies an input, as what normalises it does"}},
)  # fmt: skip
class Arithmetic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.empty(6)), nn.Parameter(torch.empty(1))

    def forward(self, x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
        return [
            x + y, x - z, x * y, y / x, x**z, torch.maximum(x, y), torch.minimum(y, z), 1 - x, 2 / x, x * self.scale,
            x + self.shift, torch.where(x > y, x, y * 2), torch.addcmul(x, y, z), torch.lerp(x, x * y, 0.3),
            (x > y) & (x < 1.5), (x >= y) | ~(z < x), x == y, x.detach() // 0.5, torch.rsub(x, y),
        ]  # fmt: skip


@network(lambda n=3: (rand(n, 4, 5),), {0: "n"}, legacy=(9, 13, 18), dynamo=(18,))
class Reductions(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        most, at = x.max(1)
        return [
            x.sum(), x.mean(0), x.sum((0, 2)), x.mean(-1, keepdim=True), x.var(1), x.std(2, unbiased=False), x.norm(),
            x.norm(dim=1), x.norm(p=1, dim=-1), x.logsumexp(1), x.prod(2), x.amax((1, 2)), x.amin(0), most, at,
            x.min(2)[0], x.argmin(1), x.max(), torch.var_mean(x, dim=2)[0], (x > 0).sum(1), x.std(),
        ]  # fmt: skip


@network(rows, {0: "n"}, legacy=(9, 13, 17), dynamo=(18, 23), folded=False)
def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 8, bias=False), nn.Tanh(),
        nn.Linear(8, 3), nn.Softmax(1),
    )  # fmt: skip


@network(lambda n=2, t=4: (rand(n, t, 6),), {0: "n", 1: "t"}, legacy=(9, 13, 17), dynamo=(18,))
class Linears(nn.Module):
    """Products that exporters write in other ways: on three axes, with a transposed weight, batched."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.second = nn.Linear(6, 5), nn.Linear(5, 3)
        self.matrix, self.vector = nn.Parameter(torch.empty(3, 4)), nn.Parameter(torch.empty(4))
        self.batched = nn.Parameter(torch.empty(2, 3, 3))

    def forward(self, x: Tensor) -> list[Tensor]:
        y = self.second(torch.tanh(self.linear(x)))
        z = torch.matmul(y, self.matrix)
        return [
            z, z @ self.vector, torch.addmm(self.vector, y[0], self.matrix, beta=0.5, alpha=2.0),
            torch.bmm(y[:2], self.batched), torch.baddbmm(self.batched, y[:2, :3], self.batched),
            F.linear(z, self.matrix),
        ]  # fmt: skip


@network(rows, {0: "n"}, legacy=(9, 17), dynamo=(18,))
class TiedAutoencoder(nn.Module):
    """A decoder that is the encoder's weights, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.hidden, self.out = (nn.Parameter(torch.empty(s)) for s in ((4, 6), (4,), (6,)))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.sigmoid(F.linear(x, self.weight, self.hidden))
        return F.linear(h, self.weight.t(), self.out)


@network(lambda n=3: (rand(n, 6), rand(n, 2)), {0: "n"}, {0: "n"}, legacy=(13,))
class Variational(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 4), nn.Sequential(nn.Linear(2, 6), nn.Sigmoid())

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        mean, log = self.encoder(x).chunk(2, 1)
        z = mean + noise * torch.exp(0.5 * log)
        return self.decoder(z), -0.5 * (1 + log - mean.pow(2) - log.exp()).sum(1)


@network(
    lambda n=3: (ids(7, (n,)), ids(5, (n,)), rand(n, 4)),
    {0: "n"},
    {0: "n"},
    {0: "n"},
    legacy=(11,),
    dynamo=(18,),
    folded=False,
)
class Recommender(nn.Module):
    """Embeddings of users and items, biases of each, and pairwise products of features."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(7, 4), nn.Embedding(5, 4)
        self.bias, self.overall = nn.Embedding(7, 1), nn.Parameter(torch.empty(1))
        self.factors = nn.Parameter(torch.empty(4, 3))

    def forward(self, user: Tensor, item: Tensor, x: Tensor) -> Tensor:
        y = (self.users(user) * self.items(item)).sum(-1) + self.bias(user).squeeze(-1) + self.overall
        pairs = (x @ self.factors).pow(2) - x.pow(2) @ self.factors.pow(2)
        return torch.sigmoid(y + 0.5 * pairs.sum(1))


@network(lambda n=3: (rand(n, 1, 8), rand(n, 1, 8)), {0: "n"}, {0: "n"}, legacy=(11,))
class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Conv1d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 4))

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.tower(a), self.tower(b)
        return F.cosine_similarity(a, b), F.pairwise_distance(a, b)


@network(rows, {0: "n"}, legacy=(13,))
class Flow(nn.Module):
    """Coupling layers and their log-determinants."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 6)) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[0])
        for net in self.nets:
            a, b = x[:, :3], x[:, 3:]
            scale, shift = net(a).chunk(2, 1)
            x = torch.cat([b * torch.tanh(scale).exp() + shift, a], 1)
            total = total + torch.tanh(scale).sum(1)
        return x, total


@network(rows, {0: "n"}, legacy=(17,), folded=False, dynamo=(18,))
def weight_norm() -> nn.Module:
    norm = nn.utils.parametrizations.weight_norm
    return nn.Sequential(norm(nn.Linear(6, 4)), nn.Tanh(), nn.Unflatten(1, (1, 4)), norm(nn.Conv1d(1, 2, 2)))


@network(lambda n=3: (rand(n, 6), rand(n, 5)), {0: "n"}, {0: "n"}, legacy=(12, 17), dynamo=(18,), folded=False)
class Contrastive(nn.Module):
    """Two towers and a learned temperature, which is a scalar that goes through exp."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 4), nn.Linear(5, 4, bias=False)
        self.temperature = nn.Parameter(torch.empty(()))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = F.normalize(self.left(a), dim=-1), F.normalize(self.right(b), dim=-1)
        return self.temperature.exp() * a @ b.t()


@network(
    lambda n=3: (rand(n, 4, 5, 5, low=0.1), torch.arange(n) % 4),
    {0: "n"},
    {0: "n"},
    legacy=(13,),
    dynamo=(18,),
    folded=False,
)
class GeneralizedMean(nn.Module):
    """Pooling with a learned exponent, a residual gate, and losses inside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.power, self.gate = nn.Parameter(torch.empty(1)), nn.Parameter(torch.empty(1))
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        y = x.clamp(min=1e-3).pow(self.power + 3).mean((2, 3)).pow(1 / (self.power + 3))
        y = self.head(y + self.gate * torch.tanh(self.inner(y)))
        p = y.sigmoid()
        return (
            y, F.cross_entropy(y, labels), F.nll_loss(y.log_softmax(1), labels, reduction="none"), F.mse_loss(y, p),
            F.binary_cross_entropy_with_logits(y, p), (y - p).abs().mean(),
            F.kl_div(y.log_softmax(1), p, reduction="sum"),
        )  # fmt: skip


@network(lambda n=2: (rand(n, 16),), {0: "n"}, legacy=(), dynamo=(18, 20), folded=False)
class LongConvolution(nn.Module):
    """A convolution as long as its input, through the Fourier transform."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(16))

    def forward(self, x: Tensor) -> Tensor:
        f = torch.fft.rfft(x, n=32) * torch.fft.rfft(self.kernel, n=32)
        return torch.fft.irfft(f, n=32)[:, :16]


@network(lambda n=2: (rand(n, 64),), {0: "n"}, legacy=(17,))
class Spectrogram(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(16))
        self.bands = nn.Linear(9, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        s = torch.stft(x, 16, 8, window=self.window, center=False, return_complex=False)
        power = s.pow(2).sum(-1)
        return torch.log(self.bands(power.transpose(1, 2)).abs() + 0.1)
