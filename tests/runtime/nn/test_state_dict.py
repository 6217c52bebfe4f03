"""State dicts with hooks and extra state, and what modules say of wrong names: the same steps here and in PyTorch."""

import copy

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn
from onnxgrad.ops.errors import StateDictError


def caught(f):
    """Return what a call raises, as text."""
    try:
        f()
    except Exception as error:
        kind = next(k.__name__ for k in type(error).__mro__ if k.__module__ == "builtins")
        return kind, str(error).replace("onnxgrad.runtime.nn.module", "torch.nn.modules.module").replace(
            "onnxgrad.runtime", "torch"
        )
    return None


def flat(state):
    return {k: v.tolist() if hasattr(v, "tolist") else v for k, v in state.items()}


def linear(lib, *size):
    m = lib.nn.Linear(*(size or (2, 1)))
    for p in m.parameters():
        p.data = lib.zeros(*p.shape)
    return m


def messages(lib):
    net = lib.nn.Sequential(linear(lib), lib.nn.BatchNorm1d(1))
    state = dict(net.state_dict())
    yield list(state), state["1.num_batches_tracked"].tolist(), repr(net[0].state_dict())
    for change in (
        lambda s: s.pop("0.bias"), lambda s: s.update(extra=lib.zeros(1)),
        lambda s: s.update({"0.weight": lib.zeros(3, 2)}),
        lambda s: s.update({"0.extra": lib.zeros(1), "2.weight": lib.zeros(1)}), lambda s: s.update({"0.bias": "text"}),
        lambda s: (s.pop("1.weight"), s.update({"0.bias": lib.zeros(2), "a.b": 3})),
        lambda s: s.update({"1.num_batches_tracked": lib.tensor([7])}),
    ):  # fmt: skip
        broken = dict(state)
        change(broken)
        yield caught(lambda s=broken: net.load_state_dict(s)), caught(lambda s=broken: net[0].load_state_dict(s))
        if all(k not in broken or getattr(broken[k], "shape", None) == state[k].shape for k in ("0.weight", "0.bias")):
            keys = net.load_state_dict(broken, strict=False)
            yield keys.missing_keys, keys.unexpected_keys, repr(keys)
    yield caught(lambda: net.load_state_dict(3))


def hooked(lib):
    log = []
    net = lib.nn.Sequential(linear(lib), lib.nn.Sequential(linear(lib, 1, 1)))
    net.register_state_dict_pre_hook(lambda m, prefix, keep_vars: log.append(("pre", prefix, keep_vars)))
    net[1].register_state_dict_post_hook(lambda m, state, prefix, facts: state.update({prefix + "more": 5}))
    net[0]._register_state_dict_hook(
        lambda m, state, prefix, facts: log.append((prefix, facts["version"], list(state)))
    )
    state = net.state_dict(keep_vars=True)
    yield list(state), state["0.weight"] is net[0].weight, list(net.state_dict(prefix="net.")), log[:]
    yield {k: dict(v) for k, v in state._metadata.items()}
    state = net.state_dict()
    del state["1.more"]
    log.clear()

    def renamed(m, state_dict, prefix, facts, strict, missing, unexpected, errors):
        log.append((type(m).__name__, prefix, strict))
        if "old" in state_dict:
            state_dict[prefix + "0.weight"] = state_dict.pop("old")

    net.register_load_state_dict_pre_hook(renamed)
    net[0].register_load_state_dict_post_hook(
        lambda m, keys: log.append(("post", m is net[0], list(keys.missing_keys)))
    )
    handle = net.register_load_state_dict_post_hook(lambda m, keys: keys.missing_keys.clear())
    old = dict(state)
    old["old"] = old.pop("0.weight") + 1
    del old["0.bias"]
    yield repr(net.load_state_dict(old)), net[0].weight.tolist(), log[:]
    handle.remove()
    yield caught(lambda: net.load_state_dict(old))
    net.register_load_state_dict_post_hook(lambda m, keys: 3)
    yield caught(lambda: net.load_state_dict(state))
    net.register_state_dict_post_hook(lambda m, state, prefix, facts: 3)
    yield caught(net.state_dict)


def extra(lib):
    class Counter(lib.nn.Module):
        def __init__(self):
            super().__init__()
            self.count = 0

        def get_extra_state(self):
            return {"count": self.count}

        def set_extra_state(self, state):
            self.count = state["count"]

    net, other = lib.nn.Sequential(Counter(), linear(lib)), lib.nn.Sequential(Counter(), linear(lib))
    net[0].count = 7
    state = net.state_dict()
    yield list(state), state["0._extra_state"], repr(other.load_state_dict(state)), other[0].count
    del state["0._extra_state"]
    yield caught(lambda: other.load_state_dict(state))
    yield caught(lambda: linear(lib).load_state_dict({**linear(lib).state_dict(), "_extra_state": 3}))


def assigned(lib):
    net = lib.nn.Sequential(linear(lib), lib.nn.BatchNorm1d(1))
    net[0].weight.requires_grad_(False)
    state = {k: v + 1 for k, v in net.state_dict().items()}
    state["0.bias"] = lib.nn.Parameter(state["0.bias"], requires_grad=False)
    net.load_state_dict(state, assign=True)
    yield net[0].bias is state["0.bias"], net[0].bias.requires_grad, net[0].weight.requires_grad
    yield (
        isinstance(net[0].weight, lib.nn.Parameter),
        net[1].running_mean is state["1.running_mean"],
        flat(net.state_dict()),
    )


def names(lib):
    net = lib.nn.Sequential(lib.nn.Linear(1, 1), lib.nn.Sequential(lib.nn.ReLU()))
    net.extra, net.plain = lib.nn.Buffer(lib.ones(1), persistent=False), lib.ones(1)
    same = net[1][0]
    net.again = same
    yield [n for n, _ in net.named_modules()], [n for n, _ in net.named_modules(remove_duplicate=False)]
    yield [n for n, _ in net.named_modules(prefix="net")], len(list(net.modules())), len([*net.modules(False)])
    yield [n for n, _ in net.named_parameters("p", recurse=False)], [n for n, _ in net.named_buffers(prefix="b")]
    yield [n for n, _ in net.named_parameters("p")], list(net.state_dict())
    net.set_submodule("1.0", lib.nn.Tanh())
    net.set_submodule("2", lib.nn.ELU())
    yield repr(net), type(net.get_submodule("1.0")).__name__
    yield [
        caught(f)
        for f in (
            lambda: net.get_submodule("1.5"), lambda: net.get_submodule("0.weight"),
            lambda: net.get_parameter("0.nope"),
            lambda: net.get_parameter("extra"), lambda: net.get_buffer("0.weight"), lambda: net.get_buffer("7.a"),
            lambda: net.set_submodule("", lib.nn.ReLU()), lambda: net.set_submodule("1.9", lib.nn.ReLU(), strict=True),
            lambda: net.set_submodule("0.weight", lib.nn.ReLU()), lambda: net.set_submodule("8.a", lib.nn.ReLU()),
            lambda: net.set_submodule("1", 3), lambda: net.nope, lambda: net(lib.ones(1), 2) and None,
        )
    ][:-1]  # fmt: skip


def wrong(lib):
    nn = lib.nn
    m = nn.Module()
    m.w, m.child, m.plain = nn.Parameter(lib.ones(1)), nn.ReLU(), 3
    m.register_buffer("b", lib.ones(1))
    m.register_parameter("none", None)

    class Late(nn.Module):
        def __init__(self, what):
            self.attribute = what

    yield [
        caught(f)
        for f in (
            lambda: setattr(m, "w", 3), lambda: setattr(m, "w", lib.ones(1)), lambda: setattr(m, "child", 3),
            lambda: setattr(m, "b", 3), lambda: m.register_parameter("a.b", None),
            lambda: m.register_parameter("", None),
            lambda: m.register_parameter("plain", None), lambda: m.register_parameter(3, None),
            lambda: m.register_parameter("p", lib.ones(1)),
            lambda: m.register_parameter("p", nn.Parameter(lib.ones(1)) * 2),
            lambda: m.register_buffer("a.b", None), lambda: m.register_buffer("", None),
            lambda: m.register_buffer("w", None), lambda: m.register_buffer(3, None),
            lambda: m.register_buffer("c", 3), lambda: m.add_module("a.b", nn.ReLU()),
            lambda: m.add_module("", nn.ReLU()), lambda: m.add_module("plain", nn.ReLU()), lambda: m.add_module("x", 3),
            lambda: m.register_module(3, nn.ReLU()), lambda: Late(nn.Parameter(lib.ones(1))), lambda: Late(nn.ReLU()),
            lambda: nn.Module(3), lambda: nn.Module(a=3), lambda: m.train("yes"), lambda: m(1),
            lambda: delattr(m, "zz"),
        )
    ]  # fmt: skip
    m.none = nn.Parameter(lib.ones(1))
    m.b = None
    m.child = nn.Tanh()
    m.plain = nn.Parameter(lib.ones(2))
    m.w = None
    yield [n for n, _ in m.named_parameters()], list(m.state_dict()), repr(m), m.b
    del m.plain, m.child
    yield [n for n, _ in m.named_parameters()], repr(m)


def conversions(lib):
    net = lib.nn.Sequential(lib.nn.Linear(1, 1), lib.nn.BatchNorm1d(1))
    net(lib.ones(2, 1)).sum().backward()
    weight = net[0].weight
    for change in (
        lambda: net.double(), lambda: net.float(), lambda: net.half(), lambda: net.to(lib.float64),
        lambda: net.bfloat16(),
        lambda: net.to("cpu", lib.float32), lambda: net.to(lib.ones(1, dtype=lib.float64)),
        lambda: net.to(device="cpu"),
        lambda: net.to(dtype=lib.float32, non_blocking=True), lambda: net.to_empty(device="cpu"), lambda: net.cpu(),
    ):  # fmt: skip
        assert change() is net
        kinds = {str(t.dtype).removeprefix("torch.") for t in (*net.parameters(), *net.buffers())}
        yield kinds, str(weight.grad.dtype).removeprefix("torch."), net[0].weight is weight
    net.requires_grad_(False)
    net.type(lib.float64)
    yield {str(b.dtype).removeprefix("torch.") for b in net.buffers()}


SCENES = [messages, hooked, extra, assigned, names, wrong, conversions]


@pytest.mark.oracle
@pytest.mark.parametrize("scene", SCENES, ids=lambda s: s.__name__)
def test_modules_are_pytorchs(scene):
    torch = pytest.importorskip("torch")
    for ours, theirs in zip(scene(og), scene(torch), strict=True):
        assert ours == theirs


def test_nothing_changes_where_something_does_not_fit():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = {k: v + 1 for k, v in before.items()}
    for wrong_state in ({**state, "1.bias": og.zeros(5)}, {**state, "more": og.zeros(1)}):
        with pytest.raises(StateDictError):
            net.load_state_dict(wrong_state)
        assert all(og.equal(v, before[k]) for k, v in net.state_dict().items())


def test_a_loader_of_ones_own():
    class Renamed(nn.Linear):
        def _load_from_state_dict(self, state_dict, prefix, *rest):
            if f"{prefix}kernel" in state_dict:
                state_dict[f"{prefix}weight"] = state_dict.pop(f"{prefix}kernel").T
            super()._load_from_state_dict(state_dict, prefix, *rest)

    net = nn.Sequential(Renamed(2, 3))
    net.load_state_dict({"0.kernel": og.ones(2, 3), "0.bias": og.zeros(3)})
    assert net[0].weight.tolist() == [[1, 1]] * 3
    m, missing = nn.Linear(1, 1), []
    m._load_from_state_dict({"weight": og.ones(1, 1) * 4}, "", {}, True, missing, [], [])
    assert m.weight.item() == 4 and missing == ["bias"]


def test_deep_copies_share_nothing():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    other = copy.deepcopy(net)
    assert other[0].weight is other[1].weight and other[0].weight is not net[0].weight
    assert not np.shares_memory(other[0].weight.detach().numpy(), net[0].weight.detach().numpy())
    other.register_buffer("b", og.ones(1))
    assert not hasattr(net, "b")


def test_a_second_base_class():
    class Named:
        def __init__(self, name):
            self.name = name

    class Both(nn.Module, Named):
        call_super_init = True

        def __init__(self, name):
            super().__init__(name)

    assert Both("x").name == "x"
