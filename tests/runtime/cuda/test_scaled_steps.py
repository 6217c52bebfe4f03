"""Steps with a loss scale, as programs: what they leave is PyTorch's, and the host never waits for them."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn, optim
from onnxgrad.nn import functional as F
from onnxgrad.runtime.amp import grad_scaler
from onnxgrad.runtime.cuda import updates
from onnxgrad.runtime.cuda.capture import WARM_UPS
from onnxgrad.runtime.tracing import optimizer_steps

from ...ops.kernels.cuda import host
from .host_runner import aligned

pytestmark = pytest.mark.skipif(host.why_not() is not None, reason=str(host.why_not()))
torch = pytest.importorskip("torch")

LAYERS, WIDTH, STEPS = 6, 8, WARM_UPS + 7
BAD = {0: np.inf, 4: np.nan, WARM_UPS + 4: -np.inf}
OPTIMIZERS = {
    "adamw": ("AdamW", {"lr": 0.02, "weight_decay": 0.1}),
    "amsgrad": ("Adam", {"lr": 0.02, "amsgrad": True, "weight_decay": 0.1}),
    "sgd": ("SGD", {"lr": 0.1}),
    "momentum": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "dampened": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    "rmsprop": ("RMSprop", {"lr": 0.01, "momentum": 0.5, "centered": True}),
    "adagrad": ("Adagrad", {"lr": 0.05, "lr_decay": 0.1}),
    "adadelta": ("Adadelta", {"lr": 1.0}),
    "adamax": ("Adamax", {"lr": 0.01}),
    "nadam": ("NAdam", {"lr": 0.01}),
    "radam": ("RAdam", {"lr": 0.02, "betas": (0.9, 0.8)}),
    "asgd": ("ASGD", {"lr": 0.05, "t0": 3}),
    "rprop": ("Rprop", {"lr": 0.01}),
}


class There(np.ndarray):
    """An array of the host that is taken for one of `cuda:0`; notes when the host reads what it holds."""

    device = SimpleNamespace(id=0)
    read: list[str] = []  # noqa: RUF012 - of all arrays

    def _noted(self, what):
        There.read.append(what)
        return np.asarray(self).view(np.ndarray)

    def item(self, *at):
        return self._noted("item").item(*at)

    def tolist(self):
        return self._noted("tolist").tolist()

    def __bool__(self):
        return bool(self._noted("bool"))

    def __float__(self):
        return float(self._noted("float"))

    def __int__(self):
        return int(self._noted("int"))


def moved(array, where):
    """Return an array on a device, or back on the host."""
    if str(where) == "cpu":
        return array._noted("to the host").copy() if isinstance(array, There) else array
    return array if isinstance(array, There) else aligned(array).view(There)


@pytest.fixture(autouse=True)
def _infinity():
    """What stands for a library's call computes with NumPy, which warns of what these steps are made to meet."""
    with np.errstate(all="ignore"):
        yield


@pytest.fixture
def runner(on_cuda, monkeypatch):
    """What runs programs, for parameters that lie where programs write over them."""
    There.read.clear()
    for module in (grad_scaler, optimizer_steps, optim.Optimizer.__init__.__globals__):
        if isinstance(module, dict):
            monkeypatch.setitem(module, "to_device", moved)
        else:
            monkeypatch.setattr(module, "to_device", moved)
    return on_cuda


@contextlib.contextmanager
def unread():
    """Check that the host reads nothing of what lies on the device."""
    There.read.clear()
    yield
    assert not There.read


def inputs(seed=0, steps=STEPS, bad=BAD):
    rng = np.random.default_rng(seed)
    made = [rng.standard_normal((4, WIDTH)).astype(np.float32) for _ in range(steps)]
    for i, value in bad.items():
        made[i][2, 1] = value
    return made


LABELS = np.array([0, 1, 5, 7])


def network(lib):
    layers = [m for _ in range(LAYERS) for m in (lib.Linear(WIDTH, WIDTH), lib.Tanh())]
    return lib.Sequential(*layers[:-1])


def pair(there=True):
    """Return two networks of the same weights, ours and PyTorch's."""
    torch.manual_seed(0)
    theirs, ours = network(torch.nn), network(nn)
    ours.load_state_dict({k: og.tensor(v.numpy().copy()) for k, v in theirs.state_dict().items()})
    for p in ours.parameters() if there else ():
        p._array = aligned(p._array).view(There)
    return ours, theirs


def step_of(model, optimizer, scaler, functional, clip, clip_grad_norm_, labels):
    def step(x):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), labels)
        scaler.scale(loss).backward()
        norm = None
        if clip is not None:
            scaler.unscale_(optimizer)
            norm = clip_grad_norm_(model.parameters(), *clip)
        scaler.step(optimizer)
        scaler.update()
        return loss, norm

    return step


SCALE = {"init_scale": 2.0**10, "growth_interval": 2}


def both(kind, clip=None, there=True):
    """Return our step, compiled, and PyTorch's, with what they change."""
    name, settings = OPTIMIZERS[kind]
    models = pair(there)
    libs = zip((optim, torch.optim), models, strict=True)
    optimizers = [getattr(lib, name)(m.parameters(), **settings) for lib, m in libs]
    scalers = og.amp.GradScaler(**SCALE), torch.amp.GradScaler("cpu", **SCALE)
    ours, theirs = zip(models, optimizers, scalers, strict=True)
    mine = og.compile(step_of(*ours, F, clip, nn.utils.clip_grad_norm_, og.tensor(LABELS)))
    other = step_of(*theirs, torch.nn.functional, clip, torch.nn.utils.clip_grad_norm_, torch.tensor(LABELS))
    return (mine, *ours), (other, *theirs)


def equal(ours, theirs, rtol=2e-4, atol=2e-6):
    """Check parameters, state and scale."""
    (_, model, optimizer, scaler), (_, model_, optimizer_, scaler_) = ours, theirs
    for p, q in zip(model.parameters(), model_.parameters(), strict=True):
        np.testing.assert_allclose(np.asarray(p._array), q.detach().numpy(), rtol=rtol, atol=atol)
    state = optimizer.state_dict()["state"]
    for i, pieces in optimizer_.state_dict()["state"].items():
        for name in {*pieces} & {"step", "exp_avg", "mu_product", "eta", "mu"}:
            found = np.asarray(state[i][name]._array)
            np.testing.assert_allclose(found, np.asarray(pieces[name]), rtol=rtol, atol=atol, err_msg=name)
    assert (scaler.get_scale(), scaler._get_growth_tracker()) == (scaler_.get_scale(), scaler_._get_growth_tracker())


CLIPPED = [(kind, clip) for kind in ("adamw", "momentum", "rmsprop") for clip in ((0.5,), (0.5, float("inf")))]


@pytest.mark.parametrize(("kind", "clip"), [*((kind, None) for kind in OPTIMIZERS), *CLIPPED], ids=str)
def test_steps_leave_what_pytorchs_do_and_nothing_is_waited_for(kind, clip, runner):
    ours, theirs = both(kind, clip)
    for i, x in enumerate(inputs()):
        mark = len(runner.log)
        with unread():
            loss, norm = ours[0](og.tensor(x))
        wanted, length = theirs[0](torch.tensor(x))
        waits = {"download", "synchronize", *(["wait"] if i else [])}  # its flags' memory comes with the first run
        assert not waits & {*runner.log[mark:]}
        np.testing.assert_allclose(np.asarray(loss._array), wanted.detach().numpy(), rtol=1e-4)
        if norm is not None:
            np.testing.assert_allclose(np.asarray(norm._array), length.numpy(), rtol=1e-4)
        if i in (0, 5):
            equal(ours, theirs)
    equal(ours, theirs)
    assert ours[0].compilations == 1 and "replay" in runner.log
    (program,) = ours[0].programs[0].engine._buckets.programs
    assert not program.compiler.refused
    runner.check()


@pytest.mark.parametrize(("kind", "clip"), [*((kind, None) for kind in OPTIMIZERS), *CLIPPED], ids=str)
def test_the_engine_of_the_cpu_does_the_same(kind, clip):
    ours, theirs = both(kind, clip, there=False)
    for x in inputs():
        ours[0](og.tensor(x))
        theirs[0](torch.tensor(x))
    equal(ours, theirs)
    assert ours[0].compilations == 1


@pytest.mark.parametrize(("kind", "update"), [("adamw", "adam_update"), ("momentum", "sgd_update")])
@pytest.mark.parametrize("clip", [None, (0.5,)], ids=["plain", "clipped"])
def test_launches_do_not_grow_with_the_parameters(kind, update, clip, runner, monkeypatch):
    monkeypatch.setattr(updates, "SMALL", 16)  # some go together although they are large
    ours, _ = both(kind, clip)
    (x,) = inputs(steps=1, bad={})
    ours[0](og.tensor(x))
    (program,) = ours[0].programs[0].engine._buckets.programs
    names = Counter(s.work.kernel.name for s in program.steps if hasattr(s.work, "kernel"))
    assert names[f"{update}_several"] == names["gradient_chunks"] == names["gradient_norm"] == 1
    assert names["step_numbers"] == (kind == "adamw")
    assert f"{update} of {2 * LAYERS}: " in str(program)
    after = [s.work.kernel.name for s in program.steps if hasattr(s.work, "kernel")]
    after = after[after.index("gradient_chunks") :]
    assert len(after) <= 11, after
    assert "copy" not in [op for s in program.steps for op in s.ops]
    assert not any(len(s.ops) == 1 and s.ops[0] in ("sum", "abs", "mul") and s.node is not None
                   and s.node.outputs[0].shape in ((WIDTH,), (WIDTH, WIDTH)) for s in program.steps)  # fmt: skip


def test_clipping_alone_is_folded_too(runner):
    models = pair()
    optimizers = [lib.optim.AdamW(m.parameters(), lr=0.02) for lib, m in zip((og, torch), models, strict=True)]

    def step_with(lib, model, optimizer, functional, clip):
        def step(x):
            optimizer.zero_grad()
            functional.cross_entropy(model(x), lib.tensor(LABELS)).backward()
            norm = clip(model.parameters(), 0.1)
            optimizer.step()
            return norm

        return step

    mine = og.compile(step_with(og, models[0], optimizers[0], F, nn.utils.clip_grad_norm_))
    other = step_with(torch, models[1], optimizers[1], torch.nn.functional, torch.nn.utils.clip_grad_norm_)
    for x in inputs(bad={}):
        np.testing.assert_allclose(np.asarray(mine(og.tensor(x))._array), other(torch.tensor(x)).numpy(), rtol=1e-4)
    for p, q in zip(*(m.parameters() for m in models), strict=True):
        np.testing.assert_allclose(np.asarray(p._array), q.detach().numpy(), rtol=2e-4, atol=2e-6)
    (program,) = mine.programs[0].engine._buckets.programs
    names = [s.work.kernel.name for s in program.steps if hasattr(s.work, "kernel")]
    after = names[names.index("gradient_chunks") :]
    assert after[:2] == ["gradient_chunks", "gradient_norm"] and after[-1] == "adam_update_several" and len(after) <= 4


def test_gradients_that_are_kept_are_scaled_back_and_clipped(runner):
    models = pair()
    kept = []
    for lib, model, compiled in ((og, models[0], True), (torch, models[1], False)):
        optimizer = lib.optim.SGD(model.parameters(), lr=0.1)
        scaler = og.amp.GradScaler(**SCALE) if compiled else torch.amp.GradScaler("cpu", **SCALE)
        clip = nn.utils.clip_grad_norm_ if compiled else torch.nn.utils.clip_grad_norm_
        step = step_of(model, optimizer, scaler, F if compiled else torch.nn.functional, (0.5,), clip,
                       lib.tensor(LABELS))  # fmt: skip
        step = og.compile(step, keep_grads=True) if compiled else step
        for x in inputs(steps=3, bad={}):
            step(lib.tensor(x))
        kept.append([np.asarray(p.grad._array if compiled else p.grad) for p in model.parameters()])
    for a, b in zip(*kept, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


def test_factors_that_are_set_later_count(runner):
    ours, theirs = both("adamw")
    for i, x in enumerate(inputs()):
        ours[0](og.tensor(x))
        theirs[0](torch.tensor(x))
        if i == 2:
            for scaler in (ours[3], theirs[3]):
                scaler.set_growth_factor(8.0)
                scaler.set_backoff_factor(0.125)
                scaler.set_growth_interval(1)
            for optimizer in (ours[2], theirs[2]):
                optimizer.param_groups[0].update(lr=np.float32(0.01), betas=(0.8, 0.99), weight_decay=0.3)
        assert ours[3].get_scale() == theirs[3].get_scale()
    assert ours[0].compilations == 1
    equal(ours, theirs)


@pytest.mark.parametrize("kind", ["adamw", "dampened", "nadam", "asgd"])
def test_steps_of_all_sorts_take_turns(kind, runner):
    """Compiled with a scale, eager, compiled without one; copied and loaded on the way."""
    ours, theirs = both(kind)
    scaled, model, optimizer, _ = ours

    def plain(lib, functional, model, optimizer):
        def step(x):
            optimizer.zero_grad()
            functional.cross_entropy(model(x), lib.tensor(LABELS)).backward()
            optimizer.step()

        return step

    unscaled = plain(og, F, model, optimizer)
    compiled, other = og.compile(unscaled), plain(torch, torch.nn.functional, *theirs[1:3])
    for i, x in enumerate(inputs(steps=14, bad={0: np.inf, 8: np.inf})):
        sort = (scaled, scaled, scaled, unscaled, compiled, compiled)[i % 6]
        sort(og.tensor(x))
        (theirs[0] if sort is scaled else other)(torch.tensor(x))
        if i == 7:
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        equal(ours, theirs)
    assert scaled.compilations <= 2 and compiled.compilations <= 2  # with and without gradients that are there


def test_two_optimizers_share_a_scale(runner):
    models, steps = [pair(), pair()], []
    scalers = og.amp.GradScaler(**SCALE), torch.amp.GradScaler("cpu", **SCALE)
    for i, lib in enumerate((og, torch)):
        first, second = models[0][i], models[1][i]
        one = lib.optim.AdamW(first.parameters(), lr=0.02)
        other = lib.optim.SGD(second.parameters(), lr=0.1, momentum=0.9)

        def step(x, y, lib=lib, first=first, second=second, one=one, other=other, scaler=scalers[i]):
            one.zero_grad()
            other.zero_grad()
            scaler.scale((first(x) * first(x)).sum() + (second(y) * second(y)).sum()).backward()
            scaler.step(one)
            scaler.step(other)
            scaler.update()

        steps.append(og.compile(step) if lib is og else step)
    for x, y in zip(inputs(1), inputs(2, bad={2: np.inf}), strict=True):
        with unread():
            steps[0](og.tensor(x), og.tensor(y))
        steps[1](torch.tensor(x), torch.tensor(y))
        assert scalers[0].get_scale() == scalers[1].get_scale()
    for ours, theirs in models:
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            np.testing.assert_allclose(np.asarray(p._array), q.detach().numpy(), rtol=1e-3, atol=1e-5)
