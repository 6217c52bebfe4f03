"""Modules: registration, names, state, modes, and layers against PyTorch with the same weights."""

import re

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn
from onnxgrad.ops.errors import OpError, ShapeError, StateDictError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU())
        self.head = nn.Linear(3, 2, bias=False)
        self.scale = nn.Parameter(og.ones(1))
        self.register_buffer("seen", og.zeros(1))
        self.register_buffer("cache", og.zeros(1), persistent=False)

    def forward(self, x):
        return self.head(self.body(x)) * self.scale


def test_names_come_in_pytorchs_order():
    net = Net()
    assert [n for n, _ in net.named_parameters()] == [
        "scale", "body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias", "head.weight",
    ]  # fmt: skip
    assert list(net.state_dict()) == [
        "scale", "seen", "body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias", "body.1.running_mean",
        "body.1.running_var", "body.1.num_batches_tracked", "head.weight",
    ]  # fmt: skip
    assert [n for n, _ in net.named_modules()] == ["", "body", "body.0", "body.1", "body.2", "head"]
    assert [n for n, _ in net.named_children()] == ["body", "head"]
    assert [n for n, _ in net.named_buffers()][:2] == ["seen", "cache"]
    assert net.get_submodule("body.0") is net.body[0] and net.get_submodule("") is net
    assert net.get_parameter("body.0.bias") is net.body[0].bias and net.get_buffer("seen") is net.seen
    for get in (net.get_submodule, net.get_parameter, net.get_buffer):
        with pytest.raises(AttributeError, match=r"has no .* `nope`"):
            get("nope")
    with pytest.raises(AttributeError, match="'Net' object has no attribute 'nope'"):
        _ = net.nope


def test_repr_is_pytorchs():
    assert repr(Net()) == (
        "Net(\n"
        "  (body): Sequential(\n"
        "    (0): Linear(in_features=4, out_features=3, bias=True)\n"
        "    (1): BatchNorm1d(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)\n"
        "    (2): ReLU()\n"
        "  )\n"
        "  (head): Linear(in_features=3, out_features=2, bias=False)\n"
        ")"
    )
    assert repr(nn.Conv2d(1, 2, 3, padding=1, bias=False)) == (
        "Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)"
    )
    assert repr(nn.Parameter(og.ones(1))) == "Parameter containing:\ntensor([1.], requires_grad=True)"


def test_shared_parameters_are_named_once_and_saved_twice():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    assert [n for n, _ in net.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert list(net.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    same = nn.Linear(2, 2)
    assert len(list(nn.Sequential(same, same).modules())) == 2


def test_attributes_register_replace_and_go():
    m = nn.Module()
    m.w = nn.Parameter(og.ones(1))
    m.w = nn.Parameter(og.zeros(1))
    assert m.w.item() == 0 and "w" in dir(m)
    with pytest.raises(TypeError, match="cannot assign 'int' as parameter 'w'"):
        m.w = 3
    m.w = None
    assert list(m.parameters()) == []
    del m.w
    assert not hasattr(m, "w")
    with pytest.raises(KeyError, match="already exists"):
        m.register_buffer("forward", og.ones(1))

    class Late(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match="before Module"):
        Late()
    with pytest.raises(NotImplementedError, match="missing the required"):
        m(1)


def test_names_with_dots_and_slashes():
    class Imported(nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = {
                "layer1.0.conv.weight": og.ones(2, requires_grad=True),
                "/layer/w": og.ones(1, requires_grad=True),
            }

        def named_parameters(self, prefix="", recurse=True, remove_duplicate=True):
            yield from ((f"{prefix}.{n}" if prefix else n, t) for n, t in self.weights.items())

    net = nn.Sequential(Imported(), nn.Linear(1, 1))
    assert [n for n, _ in net.named_parameters()] == ["0.layer1.0.conv.weight", "0./layer/w", "1.weight", "1.bias"]
    assert list(net.state_dict()) == ["0.layer1.0.conv.weight", "0./layer/w", "1.weight", "1.bias"]
    state = {k: t * 2 for k, t in net.state_dict().items()}
    net.load_state_dict(state)
    assert net[0].get_parameter("/layer/w").tolist() == [2.0]
    assert not any(p.requires_grad for p in net.requires_grad_(False).parameters())


def test_modes_and_apply():
    net = Net()
    assert net.training and not net.eval().body[1].training and net.train().body[1].training
    seen = []
    net.apply(lambda m: seen.append(type(m).__name__))
    assert seen == ["Linear", "BatchNorm1d", "ReLU", "Sequential", "Linear", "Net"]
    net(og.randn(5, 4)).sum().backward()
    net.zero_grad(set_to_none=False)
    assert all((p.grad == 0).all() for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_element_types_change_in_place():
    net = Net()
    weight = net.head.weight
    assert net.double() is net and net.head.weight is weight and weight.dtype == og.float64
    assert net.body[1].num_batches_tracked.dtype == og.int64
    assert net.half().seen.dtype == og.float16 and net.to(og.float32).to("cpu").scale.dtype == og.float32
    with pytest.raises(TypeError, match="floating point"):
        net.to(og.int32)


class TestStateDict:
    def test_round_trip(self):
        one, two = Net(), Net()
        one(og.randn(8, 4))
        assert repr(two.load_state_dict(one.state_dict())) == "<All keys matched successfully>"
        x = og.randn(3, 4)
        assert og.equal(one.eval()(x), two.eval()(x))
        assert np.shares_memory(one.state_dict()["scale"].array, one.scale.array)
        assert not np.shares_memory(one.scale.array, two.scale.array) and two.scale._version == 1

    def test_wrong_keys_change_nothing(self):
        net = nn.Linear(2, 3)
        before = net.weight.detach().clone()
        state = {"weight": og.zeros(3, 2), "extra": og.zeros(1)}
        message = (
            'Error(s) in loading state_dict for Linear:\n\tMissing key(s) in state_dict: "bias". '
            '\n\tUnexpected key(s) in state_dict: "extra". '
        )
        with pytest.raises(StateDictError, match="^" + re.escape(message)):
            net.load_state_dict(state)
        assert og.equal(net.weight, before)
        assert net.load_state_dict(state, strict=False) == (["bias"], ["extra"])
        assert net.weight.abs().sum().item() == 0

    def test_wrong_shapes(self):
        with pytest.raises(
            RuntimeError, match=r"size mismatch for weight: copying a param with shape torch.Size\(\[2, 2\]\)"
        ):
            nn.Linear(2, 3).load_state_dict({"weight": og.zeros(2, 2), "bias": og.zeros(3)})

    def test_arrays_and_assign(self):
        net = nn.Linear(2, 1)
        weight = np.ones((1, 2), np.float32)
        net.load_state_dict({"weight": weight, "bias": np.zeros(1, np.float32)}, assign=True)
        assert net.weight.array is weight


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["CrossEntropyLoss", "MSELoss", "Embedding", "Identity", "BCEWithLogitsLoss"])
def test_other_layers_print_as_pytorch(name):
    torch = pytest.importorskip("torch")
    args = (4, 3) if name == "Embedding" else ()
    assert repr(getattr(nn, name)(*args)) == repr(getattr(torch.nn, name)(*args))


def test_default_ranges():
    og.manual_seed(0)
    m = nn.Linear(25, 4000)
    assert abs(m.weight).max().item() == pytest.approx(0.2, rel=1e-3) and abs(m.bias).max().item() <= 0.2
    conv = nn.Conv2d(4, 2000, 5)
    assert abs(conv.weight).max().item() == pytest.approx(0.1, rel=1e-3)
    table = nn.Embedding(1000, 20, padding_idx=1)
    assert table.weight.std().item() == pytest.approx(1, rel=0.05) and not table.weight[1].any()
    og.manual_seed(0)
    assert og.equal(m.weight, nn.Linear(25, 4000).weight)


@pytest.mark.oracle
@pytest.mark.parametrize(
    "name", ["kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_", "normal_", "trunc_normal_"]
)
def test_initialisers_have_pytorchs_spread(name):
    torch = pytest.importorskip("torch")
    a, b = og.empty(300, 200, 3), torch.empty(300, 200, 3)
    getattr(nn.init, name)(a)
    getattr(torch.nn.init, name)(b)
    assert a.std().item() == pytest.approx(b.std().item(), rel=0.02)
    assert abs(a.mean().item()) < 3 * b.std().item() / 400


def test_more_initialisers():
    w = nn.init.orthogonal_(og.empty(3, 5))
    np.testing.assert_allclose((w @ w.T).numpy(), np.eye(3), atol=1e-6)
    assert nn.init.eye_(og.empty(2, 2)).tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert nn.init.ones_(nn.Parameter(og.empty(2))).tolist() == [1.0, 1.0]
    assert nn.init.calculate_gain("tanh") == 5 / 3
    with pytest.raises(OpError, match="fewer than 2"):
        nn.init.kaiming_normal_(og.empty(2))


def test_embedding():
    table = nn.Embedding(5, 2, padding_idx=0)
    table(og.tensor([[0, 2], [2, 4]])).sum().backward()
    assert table.weight.grad.tolist() == [[0, 0], [0, 0], [2, 2], [0, 0], [1, 1]]


def test_containers():
    layers = nn.ModuleList([nn.Linear(1, 1)])
    layers.append(nn.ReLU()).insert(0, nn.Tanh())
    assert [type(m).__name__ for m in layers] == ["Tanh", "Linear", "ReLU"] and len(layers[1:]) == 2
    named = nn.ModuleDict({"a": nn.Linear(1, 1)})
    named["b"] = nn.ReLU()
    assert "b" in named and [n for n, _ in named.named_parameters()] == ["a.weight", "a.bias"]
    ps = nn.ParameterList([og.ones(1), nn.Parameter(og.zeros(1))])
    assert [n for n, _ in ps.named_parameters()] == ["0", "1"] and ps[0].requires_grad
    assert list(nn.ParameterDict({"w": og.ones(2)}).state_dict()) == ["w"]
    net = nn.Sequential({"first": nn.Linear(2, 2), "then": nn.ReLU()})
    assert list(dict(net.named_children())) == ["first", "then"] and len(net[:1]) == 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Linear(3, 4)(og.ones(1, 2)), ShapeError, "matmul"),
    ],
)
def test_wrong_use_says_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()
