"""Parametrizations and the norms made of them: names, gradients, assignment and removal, against PyTorch."""

import copy

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn
from onnxgrad.nn.utils import parametrizations, parametrize
from onnxgrad.ops.errors import ModuleError, OpError, StateDictError, TraceError

from .parity import RTOL, apart

DTYPES = ["float32", "float64"]


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).mT


class Skew(nn.Module):
    def forward(self, x):
        return x.triu(1) - x.triu(1).mT

    def right_inverse(self, a):
        return a.triu(1)


class Rank(nn.Module):
    """A matrix as a product of two."""

    def forward(self, a, b):
        return a @ b

    def right_inverse(self, w):
        return w[:, :1].clone(), og.ones(1, w.shape[1])


def spread(compared, name, dtype, make, x, train=True):
    """Compare a layer with PyTorch's: names, values, gradients, and the state afterwards."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    ours, theirs = make(og).to(getattr(og, dtype)), make(torch).to(getattr(torch, dtype))
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for p in theirs.parameters():
            p += torch.tensor(rng.standard_normal(tuple(p.shape)) * 0.3)
    ours.load_state_dict({k: v.numpy().copy() for k, v in theirs.state_dict().items()})
    ours.train(train)
    theirs.train(train)
    worst = 0.0
    for _ in range(2):
        given = [lib.tensor(x.astype(dtype), requires_grad=True) for lib in (og, torch)]
        y, want = ours(given[0]), theirs(given[1])
        c = rng.standard_normal(tuple(want.shape)).astype(dtype)
        (y * og.tensor(c)).sum().backward()
        (want * torch.tensor(c)).sum().backward()
        pairs = [(y, want), (given[0].grad, given[1].grad)]
        pairs += [(p.grad, t.grad) for p, t in zip(ours.parameters(), theirs.parameters(), strict=True)]
        pairs += list(zip(ours.buffers(), theirs.buffers(), strict=True))
        worst = max(worst, *(apart(a, b) for a, b in pairs))
    assert worst <= RTOL[dtype]
    compared.note(name, dtype, worst)


def wide(lib):
    return lib.nn.Linear(5, 3)


def tall(lib):
    return lib.nn.Linear(3, 5)


def square(lib):
    return lib.nn.Linear(4, 4)


def conv(lib):
    return lib.nn.Conv2d(2, 3, 2)


def turned(lib):
    return lib.nn.ConvTranspose2d(2, 3, 2)


INPUTS = {
    wide: np.random.default_rng(0).standard_normal((4, 5)),
    tall: np.random.default_rng(0).standard_normal((4, 3)),
    square: np.random.default_rng(0).standard_normal((4, 4)),
    conv: np.random.default_rng(0).standard_normal((2, 2, 4, 5)),
    turned: np.random.default_rng(0).standard_normal((2, 2, 4, 5)),
}


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("layer", INPUTS, ids=lambda f: f.__name__)
def test_spectral_norm_is_pytorchs(compared, layer, dtype, train):
    def make(lib):
        return lib.nn.utils.parametrizations.spectral_norm(layer(lib), n_power_iterations=2)

    spread(compared, "parametrizations.spectral_norm", dtype, make, INPUTS[layer], train)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("layer", [wide, conv], ids=lambda f: f.__name__)
def test_weight_norm_is_pytorchs(compared, layer, dim, dtype):
    def make(lib):
        return lib.nn.utils.parametrizations.weight_norm(layer(lib), dim=dim)

    spread(compared, "parametrizations.weight_norm", dtype, make, INPUTS[layer])


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("trivial", [True, False])
@pytest.mark.parametrize("how", ["matrix_exp", "cayley", "householder"])
@pytest.mark.parametrize("layer", [wide, tall, square], ids=lambda f: f.__name__)
def test_orthogonal_is_pytorchs(compared, layer, how, trivial, dtype):
    def make(lib):
        m = layer(lib).double()
        rng = np.random.default_rng(3)
        w = rng.standard_normal(tuple(m.weight.shape))
        with lib.no_grad():
            m.weight.copy_(lib.tensor(w))
        return lib.nn.utils.parametrizations.orthogonal(m, orthogonal_map=how, use_trivialization=trivial)

    if how == "householder":  # PyTorch's noise would change the signs on the diagonal, which are cut to integers
        torch = pytest.importorskip("torch")
        ours, theirs = make(og).to(getattr(og, dtype)), make(torch).to(getattr(torch, dtype))
        ours.load_state_dict({k: v.numpy().copy() for k, v in theirs.state_dict().items()})
        x = INPUTS[layer].astype(dtype)
        y, want = ours(og.tensor(x)), theirs(torch.tensor(x))
        y.sum().backward()
        want.sum().backward()
        worst = max(
            apart(a, b)
            for a, b in [(y, want), (ours.weight, theirs.weight)]
            + [(p.grad, t.grad) for p, t in zip(ours.parameters(), theirs.parameters(), strict=True)]
        )
        assert worst <= RTOL[dtype]
        compared.note(f"parametrizations.orthogonal {how}", dtype, worst)
        return
    spread(compared, f"parametrizations.orthogonal {how}", dtype, make, INPUTS[layer])


@pytest.mark.parametrize("how", ["matrix_exp", "cayley", "householder"])
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5), (2, 4, 3)])
class TestOrthogonal:
    def made(self, how, shape, **kwargs):
        m = nn.Module()
        m.weight = nn.Parameter(og.tensor(np.random.default_rng(0).standard_normal(shape)))
        return parametrizations.orthogonal(m, orthogonal_map=how, **kwargs)

    def check(self, q):
        q = q.detach().numpy()
        q = q if q.shape[-2] >= q.shape[-1] else q.swapaxes(-1, -2)
        np.testing.assert_allclose(
            q.swapaxes(-1, -2) @ q, np.broadcast_to(np.eye(q.shape[-1]), (*q.shape[:-2], q.shape[-1], q.shape[-1])),
            atol=1e-12,
        )  # fmt: skip

    def test_it_is_and_stays_orthogonal(self, how, shape):
        m = self.made(how, shape)
        self.check(m.weight)
        for _ in range(3):
            (m.weight * og.tensor(np.random.default_rng(2).standard_normal(shape))).sum().backward()
            original = m.parametrizations.weight.original
            with og.no_grad():
                original.sub_(original.grad * 0.1)
            original.grad = None
            self.check(m.weight)

    def test_an_orthogonal_matrix_is_kept(self, how, shape):
        m = self.made(how, shape)
        rows = np.random.default_rng(1).standard_normal(shape)
        q = np.linalg.qr(rows if shape[-2] >= shape[-1] else rows.swapaxes(-1, -2))[0]
        q = q if shape[-2] >= shape[-1] else q.swapaxes(-1, -2)
        m.weight = og.tensor(q)
        np.testing.assert_allclose(np.abs(m.weight.detach().numpy()), np.abs(q), atol=1e-12)

    def test_gradients(self, how, shape):
        m = self.made(how, shape, use_trivialization=False) if how != "householder" else self.made(how, shape)
        p = m.parametrizations.weight
        x = p.original.detach().clone() + (0.01 if how != "householder" else 0.0)
        if how == "householder":  # the diagonal is cut to its sign: not a function that differences can see
            low = og.tensor(
                np.tril(np.ones(shape[-2:]), -1) if shape[-2] >= shape[-1] else np.triu(np.ones(shape[-2:]), 1)
            )
            assert og.autograd.gradcheck(
                lambda t: p[0](x + t * low), (og.zeros(shape, dtype=og.float64).requires_grad_(),)
            )
            return
        assert og.autograd.gradcheck(p[0], (x.requires_grad_(),))


@pytest.mark.parametrize("dim", [0, 1, None])
def test_gradients_of_weight_norm(dim):
    m = parametrizations.weight_norm(nn.Linear(3, 2).double(), dim=dim).parametrizations.weight
    assert og.autograd.gradcheck(m[0], tuple(x.detach().requires_grad_() for x in (m.original0, m.original1)))


def test_gradients_of_spectral_norm():
    m = parametrizations.spectral_norm(nn.Linear(3, 2).double()).eval().parametrizations.weight
    assert og.autograd.gradcheck(m[0], (m.original.detach().requires_grad_(),))
    assert np.linalg.svd(m().detach().numpy())[1][0] == pytest.approx(1, abs=1e-3)


def test_registering_and_removing():
    m = parametrize.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
    assert parametrize.is_parametrized(m) and parametrize.is_parametrized(m, "weight")
    assert not parametrize.is_parametrized(m, "bias") and parametrize.type_before_parametrizations(m) is nn.Linear
    assert repr(m) == (
        "ParametrizedLinear(\n  in_features=3, out_features=3, bias=True\n  (parametrizations): ModuleDict(\n"
        "    (weight): ParametrizationList(\n      (0): Symmetric()\n    )\n  )\n)"
    )
    assert [n for n, _ in m.named_parameters()] == ["bias", "parametrizations.weight.original"]
    assert og.equal(m.weight, m.weight.T)
    m(og.ones(1, 3)).sum().backward()
    assert m.parametrizations.weight.original.grad is not None
    with pytest.raises(ModuleError, match="parametrization Symmetric does not implement right_inverse"):
        m.weight = og.ones(3, 3)
    value = m.weight.detach().clone()
    original = m.parametrizations.weight.original
    parametrize.remove_parametrizations(m, "weight")
    assert type(m) is nn.Linear and m.weight is original and og.equal(m.weight, value)
    assert not hasattr(m, "parametrizations") and list(m.state_dict()) == ["bias", "weight"]


def test_leaving_the_original():
    m = nn.Linear(3, 3)
    before = m.weight.detach().clone()
    parametrize.register_parametrization(m, "weight", Symmetric())
    parametrize.register_parametrization(m, "bias", nn.Tanh())
    parametrize.remove_parametrizations(m, "weight", leave_parametrized=False)
    assert og.equal(m.weight, before) and parametrize.is_parametrized(m, "bias")
    parametrize.register_parametrization(m, "weight", Rank(), unsafe=True)
    with pytest.raises(OpError, match="Cannot leave unparametrized"):
        parametrize.remove_parametrizations(m, "weight", leave_parametrized=False)
    value = m.weight.detach().clone()
    parametrize.remove_parametrizations(m, "weight")
    assert og.equal(m.weight, value) and isinstance(m.weight, nn.Parameter)
    parametrize.remove_parametrizations(m, "bias")
    assert type(m) is nn.Linear


def test_several_and_assignment():
    m = nn.Linear(3, 3)
    parametrize.register_parametrization(m, "weight", Skew())
    assert og.equal(m.weight, -m.weight.T)

    class Cayley(nn.Module):
        def forward(self, a):
            return og.linalg.solve(og.eye(3) + a, og.eye(3) - a) if hasattr(og, "linalg") else a * 2

        def right_inverse(self, q):
            return og.linalg.solve(og.eye(3) + q, og.eye(3) - q) if hasattr(og, "linalg") else q / 2

    parametrize.register_parametrization(m, "weight", Cayley())
    target = m.weight.detach().clone()
    with og.no_grad():
        m.parametrizations.weight.original.zero_()
    m.weight = target
    np.testing.assert_allclose(m.weight.detach().numpy(), target.numpy(), atol=1e-5)


def test_made_of_several_tensors():
    m = nn.Linear(3, 2)
    parametrize.register_parametrization(m, "weight", Rank())
    assert [n for n, _ in m.named_parameters()] == [
        "bias", "parametrizations.weight.original0", "parametrizations.weight.original1",
    ]  # fmt: skip
    m.weight = og.ones(2, 3) * 2
    assert m.weight.tolist() == [[2, 2, 2], [2, 2, 2]]
    with pytest.raises(OpError, match="must return a sequence of tensors of length 2"):
        m.parametrizations.weight[0].right_inverse = lambda w: (w,)
        m.weight = og.ones(2, 3)


def test_buffers_and_eval():
    m = nn.BatchNorm1d(3)
    parametrize.register_parametrization(m, "running_mean", nn.Identity())
    m(og.ones(2, 3))
    assert "parametrizations.running_mean.original" in dict(m.named_buffers())
    drop = nn.Dropout()
    parametrize.register_parametrization(m.eval(), "weight", drop)
    assert not drop.training


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: parametrize.register_parametrization(m, "nope", nn.Identity()), OpError, "not have a parameter"),
        (lambda m: parametrize.register_parametrization(m, "weight", nn.Flatten(0)), OpError, "not change the shape"),
        (lambda m: parametrize.remove_parametrizations(m, "weight"), OpError, "have a parametrization on weight"),
        (lambda m: parametrizations.orthogonal(m, "bias"), OpError, "Got a tensor of 1 dimensions"),
        (lambda m: parametrizations.orthogonal(m, "nope"), OpError, "has no parameter or buffer with name 'nope'"),
        (lambda m: parametrizations.orthogonal(m, orthogonal_map="qr"), OpError, "orthogonal_map has to be one of"),
        (lambda m: parametrizations.spectral_norm(m, n_power_iterations=0), OpError, "to be positive"),
        (lambda m: parametrizations.spectral_norm(m, dim=3), IndexError, "Dimension out of range"),
    ],
)  # fmt: skip
def test_wrong_use(call, error, message):
    m = nn.Linear(3, 2)
    with pytest.raises(error, match=message):
        call(m)
    assert type(m) is nn.Linear and [n for n, _ in m.named_parameters()] == ["weight", "bias"]


def test_cached():
    calls = []

    class Counted(nn.Module):
        def forward(self, x):
            calls.append(1)
            return x * 2

    m = parametrize.register_parametrization(nn.Linear(2, 2), "weight", Counted())
    calls.clear()
    with parametrize.cached():
        assert m.weight is m.weight
        with parametrize.cached():
            m(og.ones(1, 2))
        m.weight.sum().backward()
        with pytest.raises(TraceError, match="Cannot trace a model while caching"):
            og.compile(m)(og.ones(1, 2))
    assert calls == [1] and m.weight is not m.weight
    assert (m.parametrizations.weight.original.grad == 2).all()


def test_copies_and_transfer():
    m = parametrizations.spectral_norm(nn.Linear(3, 2))
    other = copy.deepcopy(m)
    assert og.equal(other.eval().weight, m.eval().weight) and type(other) is type(m)
    with og.no_grad():
        other.parametrizations.weight.original.zero_()
    assert m.weight.abs().sum().item() > 0
    with pytest.raises(ModuleError, match="only supported through state_dict"):
        copy.copy(m)
    target = nn.Linear(3, 2)
    source = parametrize.register_parametrization(nn.Linear(3, 2), "weight", nn.Tanh())
    parametrize.transfer_parametrizations_and_params(source, target)
    assert target.parametrizations.weight.original is source.parametrizations.weight.original
    assert og.equal(target.weight, source.weight)


def test_they_train_compiled():
    results = []
    for compiled in (False, True):
        og.manual_seed(0)
        m = nn.Sequential(
            parametrizations.spectral_norm(nn.Linear(3, 4)), parametrizations.orthogonal(nn.Linear(4, 4)),
            parametrizations.weight_norm(nn.Linear(4, 2)),
        )  # fmt: skip
        optimizer = og.optim.SGD(m.parameters(), 0.1)

        def step(x, m=m, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (m(x) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        run = og.compile(step) if compiled else step
        x = og.tensor(np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32))
        results.append([run(x).item() for _ in range(3)] + [t.detach().numpy() for t in m.state_dict().values()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layer", INPUTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm"])
@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
def test_the_norms_by_hooks_are_pytorchs(compared, name, layer, dtype):
    def make(lib):
        return getattr(lib.nn.utils, name)(layer(lib))

    spread(compared, f"utils.{name}", dtype, make, INPUTS[layer])


def test_the_norms_by_hooks_come_and_go():
    m = nn.Linear(3, 2)
    before = m.weight.detach().clone()
    with pytest.warns(FutureWarning, match="is deprecated in favor of"):
        nn.utils.weight_norm(m)
    assert [n for n, _ in m.named_parameters()] == ["bias", "weight_g", "weight_v"] and m.weight_g.shape == (2, 1)
    with pytest.raises(ModuleError, match="Cannot register two weight_norm hooks"), pytest.warns(FutureWarning):
        nn.utils.weight_norm(m)
    nn.utils.remove_weight_norm(m)
    np.testing.assert_allclose(m.weight.detach().numpy(), before.numpy(), rtol=1e-6)
    assert isinstance(m.weight, nn.Parameter) and not m._forward_pre_hooks
    with pytest.raises(OpError, match="weight_norm of 'weight' not found"):
        nn.utils.remove_weight_norm(m)
    nn.utils.spectral_norm(m, n_power_iterations=30)
    m(og.ones(1, 3))
    assert np.linalg.svd(m.weight.detach().numpy())[1][0] == pytest.approx(1, abs=1e-4)
    assert m.state_dict()._metadata[""]["spectral_norm"] == {"weight.version": 1}
    nn.utils.remove_spectral_norm(m)
    assert not m._forward_pre_hooks and not m._state_dict_hooks and not m._load_state_dict_pre_hooks
    with pytest.raises(OpError, match="spectral_norm of 'weight' not found"):
        nn.utils.remove_spectral_norm(m)


def test_older_names_are_loaded():
    old, new = nn.Linear(3, 2), parametrizations.weight_norm(nn.Linear(3, 2))
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(old)
    new.load_state_dict(old.state_dict())
    np.testing.assert_allclose(new.weight.detach().numpy(), old.weight.detach().numpy(), rtol=1e-6)
    with pytest.raises(StateDictError, match="Missing key"):
        new.load_state_dict({"bias": og.ones(2)})


def test_a_state_dict_of_spectral_norm_before_versions():
    m = nn.utils.spectral_norm(nn.Linear(3, 2))
    m(og.ones(1, 3))
    state = dict(m.state_dict())
    sigma = 2.5
    old = {**state, "weight": state["weight_orig"] / sigma}
    del old["weight_v"]
    m.load_state_dict(old)
    m.eval()(og.ones(1, 3))
    np.testing.assert_allclose(m.weight.detach().numpy(), old["weight"].numpy(), rtol=1e-4)
