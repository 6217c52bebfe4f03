"""What optimizers share: groups, state, hooks, closures, what they refuse."""

import copy
import gc
from pathlib import Path

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn, optim
from onnxgrad.errors import AutogradError, InputError, TraceError, TrainingError


def one(value=1.0):
    return og.full((2,), value, requires_grad=True)


def test_a_parameter_without_gradient_stays():
    p, q = one(), one()
    optimizer = optim.Adam([p, q])
    p.sum().backward()
    optimizer.step()
    assert q.tolist() == [1.0, 1.0] and p.tolist() != [1.0, 1.0] and q not in optimizer.state


def test_closure_and_zero_grad():
    p = one()
    optimizer = optim.SGD([p], lr=0.1)

    def closure():
        optimizer.zero_grad(set_to_none=False)
        loss = (p * p).sum()
        loss.backward()
        return loss

    with og.no_grad():
        assert optimizer.step(closure).item() == 2.0
    assert p.tolist() == pytest.approx([0.8, 0.8])
    held = p.grad
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is held and held.tolist() == [0.0, 0.0]
    optimizer.zero_grad()
    assert p.grad is None


def test_a_step_makes_the_saved_graph_stale():
    p = one()
    optimizer = optim.SGD([p], lr=0.1)
    y = (p * p).sum()
    y.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(AutogradError, match="inplace"):
        y.backward()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: optim.SGD([], lr=0.1), InputError, "optimizer got an empty parameter list"),
        (lambda p: optim.SGD(p, lr=0.1), TypeError, "should be an iterable of Tensors or dicts, but got"),
        (lambda p: optim.SGD([{"params": [p]}, {"params": [p]}]), InputError, "more than one parameter group"),
        (lambda p: optim.SGD([p * 2], lr=0.1), InputError, "can't optimize a non-leaf Tensor"),
        (lambda p: optim.SGD([1.0]), TypeError, "can only optimize Tensors, but one of the params is float"),
        (lambda p: optim.SGD([{"params": {p}}]), TypeError, "ordered collections"),
        (lambda p: optim.SGD([("a", p), one()]), InputError, "Some param names are missing"),
        (lambda p: optim.SGD([p]).add_param_group({"params": [("a", one())]}), InputError, "with/without names"),
        (lambda p: optim.SGD([p]).add_param_group([one()]), TypeError, "param_group must be a dict"),
        (lambda p: optim.SGD([p], lr=-1), InputError, "Invalid learning rate: -1"),
        (lambda p: optim.SGD([p], nesterov=True), InputError, "Nesterov momentum requires a momentum"),
        (lambda p: optim.Adam([p], betas=(1.0, 0.9)), InputError, "Invalid beta parameter at index 0: 1.0"),
        (lambda p: optim.RMSprop([p], alpha=-1), InputError, "Invalid alpha value: -1"),
        (lambda p: optim.Adadelta([p], rho=2), InputError, "Invalid rho value: 2"),
        (lambda p: optim.Rprop([p], etas=(1.5, 2)), InputError, "Invalid eta values: 1.5, 2"),
        (lambda p: optim.Adam([p], lr=og.ones(2)), InputError, "Tensor lr must be 1-element"),
        (lambda p: optim.Adam([p], capturable=True), InputError, "capturable=True"),
        (lambda p: optim.SGD([p], differentiable=True), InputError, "differentiable=True"),
        (lambda p: optim.AdamW([p], fused=True, foreach=True), TrainingError, "cannot be `True` together"),
        (lambda p: optim.LBFGS([{"params": [p]}, {"params": [one()]}]), InputError, "per-parameter options"),
    ],
)
def test_what_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make(one())


def test_a_parameter_twice_in_a_group_is_warned_of():
    p = one()
    with pytest.warns(UserWarning, match="duplicate parameters"):
        optim.SGD([p, p])


def test_load_refuses_other_groups():
    optimizer = optim.SGD([one()])
    with pytest.raises(InputError, match="doesn't match the size"):
        optimizer.load_state_dict(optim.SGD([one(), one()]).state_dict())
    with pytest.raises(InputError, match="different number of parameter groups"):
        optimizer.load_state_dict(optim.SGD([{"params": one()}, {"params": one()}]).state_dict())


def test_a_state_dict_is_built_as_pytorchs():
    p, q = one(), one()
    optimizer = optim.SGD([{"params": [p]}, {"params": [q], "lr": 0.5}], lr=0.1, momentum=0.9)
    (p.sum() + q.sum()).backward()
    optimizer.step()
    saved = optimizer.state_dict()
    assert list(saved) == ["state", "param_groups"] and list(saved["state"]) == [0, 1]
    assert saved["state"][1]["momentum_buffer"].tolist() == [1.0, 1.0]
    assert [(g["lr"], g["params"]) for g in saved["param_groups"]] == [(0.1, [0]), (0.5, [1])]
    other = optim.SGD([{"params": [one()]}, {"params": [one()]}], lr=3.0)
    other.load_state_dict(saved)
    buffer = other.state[other.param_groups[0]["params"][0]]["momentum_buffer"]
    buffer.fill_(7.0)
    assert saved["state"][0]["momentum_buffer"].tolist() == [1.0, 1.0]


def test_names_are_kept():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    optimizer = optim.AdamW(net.named_parameters())
    assert optimizer.param_groups[0]["param_names"] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == [n for n, _ in net.named_parameters()]


def test_groups_by_name_patterns():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    groups = optim.group_parameters(net, {"*.bias": {"weight_decay": 0.0}, "2.*": {"lr": 1e-4}})
    optimizer = optim.AdamW(groups, lr=1e-2)
    found = [(g["param_names"], g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
    assert found == [(["0.bias", "2.bias"], 1e-2, 0.0), (["2.weight"], 1e-4, 1e-2), (["0.weight"], 1e-2, 1e-2)]
    assert len(optim.group_parameters(net.named_parameters(), {"*": {"lr": 1.0}})) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer9.*": {}}, "'layer9.*' matches no parameter name; there are .* among 2"),
        ({"*": {}, "bias": {}}, r"'bias': all parameters that it matches \(bias\) belong to patterns before it"),
    ],
)
def test_a_pattern_without_parameters_is_an_error(settings, message):
    with pytest.raises(InputError, match=message):
        optim.group_parameters(nn.Linear(2, 3), settings)


def test_hooks_run_around_each_step():
    p = one()
    optimizer = optim.SGD([p], lr=0.1)
    seen = []
    before = optimizer.register_step_pre_hook(
        lambda o, args, kwargs: seen.append(("before", o is optimizer, p.tolist()))
    )
    optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append(("after", args, p.tolist())))
    p.sum().backward()
    optimizer.step()
    before.remove()
    optimizer.step()
    assert [s[0] for s in seen] == ["before", "after", "after"]
    assert seen[0][1:] == (True, [1.0, 1.0]) and seen[1][2] == pytest.approx([0.9, 0.9])


def test_a_hook_may_replace_the_arguments():
    p = one()
    optimizer = optim.SGD([p], lr=0.1)

    def closure():
        (p * 2).sum().backward()
        return "from the hook"

    handle = optimizer.register_step_pre_hook(lambda o, args, kwargs: ((closure,), {}))
    assert optimizer.step() == "from the hook"
    handle.remove()
    optimizer.register_step_pre_hook(lambda o, args, kwargs: 1)
    with pytest.raises(TrainingError, match=r"must return None or a tuple of \(new_args, new_kwargs\)"):
        optimizer.step()


def test_hooks_of_state_dicts():
    optimizer, seen = optim.SGD([one()], lr=0.1), []
    optimizer.register_state_dict_pre_hook(lambda o: seen.append("saving"))
    optimizer.register_state_dict_post_hook(lambda o, made: {**made, "more": 1})
    optimizer.register_load_state_dict_pre_hook(lambda o, given: seen.append(given["more"]))
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append("loaded"))
    optimizer.register_load_state_dict_pre_hook(lambda o, given: seen.append("first"), prepend=True)
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["saving", "first", 1, "loaded"]


class Momentum(optim.Optimizer):
    """As a lesson writes it."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @og.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if len(state) == 0:
                    state["step"], state["buffer"] = 0, og.zeros_like(p)
                state["step"] += 1
                state["buffer"].mul_(0.9).add_(p.grad)
                p.add_(state["buffer"], alpha=-group["lr"])


def test_an_optimizer_of_ones_own():
    p, q = one(), one()
    mine, other = Momentum([p], lr=0.1), optim.SGD([q], lr=0.1, momentum=0.9)
    schedule = optim.lr_scheduler.StepLR(mine, 1, 0.5)
    called = []
    mine.register_step_post_hook(lambda *_: called.append(1))
    for _ in range(3):
        for t, optimizer in ((p, mine), (q, other)):
            optimizer.zero_grad()
            (t * t).sum().backward()
            optimizer.step()
    schedule.step()
    np.testing.assert_allclose(p.tolist(), q.tolist(), rtol=1e-6)
    assert len(called) == 3 and mine.param_groups[0]["lr"] == 0.05
    copied = copy.deepcopy(mine.state_dict())
    assert copied["state"][0]["step"] == 3


def test_neither_step_nor_update_is_said():
    p = one()
    p.sum().backward()
    with pytest.raises(NotImplementedError, match="defines neither step nor _update"):
        optim.Optimizer([p], {}).step()


def test_lbfgs_does_not_compile():
    p = one()
    optimizer = optim.LBFGS([p])

    @og.compile
    def step(x):
        return optimizer.step(lambda: (p * x).sum())

    with pytest.raises(TraceError, match="LBFGS has no compiled step"):
        step(og.ones(2))


def network():
    og.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))


@pytest.mark.parametrize("kind", [optim.AdamW, optim.NAdam])
def test_training_leaves_nothing_behind(kind):
    net = network()
    optimizer = kind(net.parameters())
    x, y = og.randn(4, 8), og.tensor([0, 1, 0, 1])

    def objects_after(steps):
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
        return len(gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = objects_after(10)
        assert objects_after(100) - before < 20  # reference counts alone free everything
    finally:
        gc.enable()


def test_memory_stays_flat_over_a_thousand_steps():
    pages = Path("/proc/self/statm")
    if not pages.exists():
        pytest.skip("the system does not say what memory is resident")
    net = network()
    optimizer = optim.AdamW(net.parameters(), lr=1e-3)
    x, y = og.randn(64, 8), og.randint(0, 2, (64,))

    def train(steps):
        for _ in range(steps):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        gc.collect()
        return sum(issubclass(type(t), og.Tensor) for t in gc.get_objects()), loss.item()

    tensors, first = train(100)
    before = int(pages.read_text().split()[1])
    assert (found := train(900))[0] == tensors and found[1] < first
    assert int(pages.read_text().split()[1]) - before < 1024  # pages
