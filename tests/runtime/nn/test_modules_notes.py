"""The classes of PyTorch's notes on modules: a layer, nets of layers, state, initialisation, hooks."""

import pytest

import onnxgrad as torch
import onnxgrad.nn.functional as F
from onnxgrad import nn


class MyLinear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(in_features, out_features))
        self.bias = nn.Parameter(torch.randn(out_features))

    def forward(self, input):
        return (input @ self.weight) + self.bias


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.l0 = MyLinear(4, 3)
        self.l1 = MyLinear(3, 1)

    def forward(self, x):
        x = self.l0(x)
        x = F.relu(x)
        x = self.l1(x)
        return x


class BigNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.l1 = MyLinear(5, 4)
        self.net = Net()

    def forward(self, x):
        return self.net(self.l1(x))


class DynamicNet(nn.Module):
    def __init__(self, num_layers):
        super().__init__()
        self.linears = nn.ModuleList([MyLinear(4, 4) for _ in range(num_layers)])
        self.activations = nn.ModuleDict({"relu": nn.ReLU(), "lrelu": nn.LeakyReLU()})
        self.final = MyLinear(4, 1)

    def forward(self, x, act):
        for linear in self.linears:
            x = linear(x)
        x = self.activations[act](x)
        x = self.final(x)
        return x


class RunningMean(nn.Module):
    def __init__(self, num_features, momentum=0.9):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(num_features))

    def forward(self, x):
        self.mean = self.momentum * self.mean + (1.0 - self.momentum) * x
        return self.mean


class StatefulModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.param1 = nn.Parameter(torch.randn(2))
        self.register_parameter("param2", nn.Parameter(torch.randn(3)))
        self.param3 = nn.ParameterDict({f"param{i}": nn.Parameter(torch.ones(i) * i) for i in range(5)})
        self.param_list = nn.ParameterList([nn.Parameter(torch.randn(2)) for i in range(10)])
        self.register_buffer("buffer1", torch.randn(4), persistent=True)
        self.register_buffer("buffer2", torch.randn(5), persistent=False)
        self.register_buffer("buffer3", None)
        self.linear = nn.Linear(2, 3)


class ModalModule(nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self, x):
        return x + 1.0 if self.training else x


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(3)


def test_a_simple_module():
    m = MyLinear(4, 3)
    sample_input = torch.randn(4)
    assert m(sample_input).shape == (3,) and m(sample_input).grad_fn is not None
    printed = [f"{name}: {parameter}" for name, parameter in m.named_parameters()]
    assert [p.partition(":")[0] for p in printed] == ["weight", "bias"]
    assert all("Parameter containing:\ntensor(" in p and "requires_grad=True)" in p for p in printed)
    assert repr(m) == "MyLinear()"


def test_modules_are_building_blocks():
    net = nn.Sequential(MyLinear(4, 3), nn.ReLU(), MyLinear(3, 1))
    assert net(torch.randn(4)).shape == (1,)
    net = Net()
    assert [str(child) for child in net.named_children()] == ["('l0', MyLinear())", "('l1', MyLinear())"]
    big_net = BigNet()
    assert [str(m) for m in big_net.named_modules()] == [
        "('', BigNet(\n  (l1): MyLinear()\n  (net): Net(\n    (l0): MyLinear()\n    (l1): MyLinear()\n  )\n))",
        "('l1', MyLinear())",
        "('net', Net(\n  (l0): MyLinear()\n  (l1): MyLinear()\n))",
        "('net.l0', MyLinear())",
        "('net.l1', MyLinear())",
    ]
    assert [n for n, _ in big_net.named_parameters()] == [
        "l1.weight", "l1.bias", "net.l0.weight", "net.l0.bias", "net.l1.weight", "net.l1.bias",
    ]  # fmt: skip


def test_modules_in_lists_and_dictionaries():
    dynamic_net = DynamicNet(3)
    sample_input = torch.randn(4)
    assert dynamic_net(sample_input, "relu").shape == (1,)
    names = [name for name, _ in dynamic_net.named_parameters()]
    assert names == [
        "linears.0.weight", "linears.0.bias", "linears.1.weight", "linears.1.bias", "linears.2.weight",
        "linears.2.bias", "final.weight", "final.bias",
    ]  # fmt: skip
    assert repr(dynamic_net) == (
        "DynamicNet(\n  (linears): ModuleList(\n    (0-2): 3 x MyLinear()\n  )\n  (activations): ModuleDict(\n"
        "    (relu): ReLU()\n    (lrelu): LeakyReLU(negative_slope=0.01)\n  )\n  (final): MyLinear()\n)"
    )
    dynamic_net.to(dtype=torch.float64)
    assert dynamic_net(torch.randn(4, dtype=torch.float64), "lrelu").dtype == torch.float64


def test_functions_below():
    @torch.no_grad()
    def init_weights(m):
        if isinstance(m, nn.Linear):
            nn.init.xavier_normal_(m.weight)
            m.bias.fill_(0.0)

    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)))
    assert net.apply(init_weights) is net
    assert all((p == 0).all() for n, p in net.named_parameters() if n.endswith("bias"))


def test_training_towards_zero():
    net = Net()
    inputs = torch.randn(50, 4)
    before = abs(net(inputs)).mean().item()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, weight_decay=1e-2, momentum=0.9)
    for _ in range(1000):
        input = torch.randn(4)
        output = net(input)
        loss = torch.abs(output)
        net.zero_grad()
        loss.backward()
        optimizer.step()
    assert abs(net(inputs)).mean().item() < 0.1 * before
    assert all(p.grad is not None for p in net.parameters())


def test_modes():
    m = ModalModule()
    x = torch.randn(4)
    assert torch.equal(m(x), x + 1.0)
    m.eval()
    assert torch.equal(m(x), x)
    m.train()
    assert torch.equal(m(x), x + 1.0)


def test_state_is_saved_and_loaded():
    net = Net()
    new_net = Net()
    assert str(new_net.load_state_dict(net.state_dict())) == "<All keys matched successfully>"
    x = torch.randn(4)
    assert torch.equal(net(x), new_net(x))
    m = RunningMean(4)
    for _ in range(10):
        m(torch.randn(4))
    assert "mean" in m._buffers and list(m.state_dict()) == ["mean"]
    m_loaded = RunningMean(4)
    m_loaded.load_state_dict(m.state_dict())
    assert torch.all(m.mean == m_loaded.mean)


def test_persistent_and_other_buffers():
    m = StatefulModule()
    lists = [f"param_list.{i}" for i in range(10)]
    params = [f"param3.param{i}" for i in range(5)]
    state = m.state_dict()
    assert list(state) == ["param1", "param2", "buffer1", *params, *lists, "linear.weight", "linear.bias"]
    assert [n for n, _ in m.named_parameters()] == ["param1", "param2", *params, *lists, "linear.weight", "linear.bias"]
    assert [n for n, _ in m.named_buffers()] == ["buffer1", "buffer2"]
    m_loaded = StatefulModule()
    m_loaded.load_state_dict(state)
    assert torch.equal(m_loaded.buffer1, m.buffer1) and not torch.equal(m_loaded.buffer2, m.buffer2)
    m.register_buffer("unnamed_persistent", torch.ones(1), persistent=False)
    assert "unnamed_persistent" not in m.state_dict()
    with pytest.raises(KeyError, match="attribute 'linear' already exists"):
        m.register_buffer("linear", torch.ones(1))


def test_initialisation():
    m = nn.Linear(5, 3, device="cpu", dtype=torch.float16)
    assert m.weight.dtype == torch.float16 and m.bias.dtype == torch.float16
    m = torch.nn.utils.skip_init(nn.Linear, 5, 3)
    assert m.weight.shape == (3, 5) and isinstance(m.weight, nn.Parameter)
    nn.init.orthogonal_(m.weight)
    assert torch.allclose(m.weight @ m.weight.T, torch.eye(3), atol=1e-6)
    torch.manual_seed(5)
    first = torch.randn(3)
    torch.manual_seed(5)
    torch.nn.utils.skip_init(nn.Linear, 50, 30)
    assert torch.equal(torch.randn(3), first)
    with pytest.raises(RuntimeError, match="Module must support a 'device' arg"):
        torch.nn.utils.skip_init(MyLinear, 4, 3)
    with pytest.raises(RuntimeError, match="Expected a Module"):
        torch.nn.utils.skip_init(int, 4)


def test_hooks():
    def forward_pre_hook(m, inputs):
        return (inputs[0] + 1.0,)

    def forward_hook(m, inputs, output):
        return output + inputs[0]

    def backward_hook(m, grad_inputs, grad_outputs):
        return [torch.zeros_like(g) for g in grad_inputs]

    class TestModule(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return self.weight * x

    m = TestModule()
    x = torch.randn(3, requires_grad=True)
    plain = m(x)
    handle = m.register_forward_pre_hook(forward_pre_hook)
    assert torch.allclose(m(x), plain + 1)
    handle.remove()
    handle = m.register_forward_hook(forward_hook)
    assert torch.allclose(m(x), plain + x)
    handle.remove()
    m(x).sum().backward()
    assert x.grad.tolist() == [1, 1, 1]
    x.grad, m.weight.grad = None, None
    m.register_full_backward_hook(backward_hook)
    m(x).sum().backward()
    assert x.grad.tolist() == [0, 0, 0] and torch.equal(m.weight.grad, x.detach())


def test_parametrized():
    class Symmetric(nn.Module):
        def forward(self, X):
            return X.triu() + X.triu(1).transpose(-1, -2)

    m = nn.Linear(4, 4)
    torch.nn.utils.parametrize.register_parametrization(m, "weight", Symmetric())
    assert torch.allclose(m.weight, m.weight.T)


def test_compiled_like_written():
    net = DynamicNet(2)
    x = torch.randn(5, 4)
    assert torch.allclose(torch.compile(net)(x, "lrelu"), net(x, "lrelu"), atol=1e-6)
