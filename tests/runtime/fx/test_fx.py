"""Graphs of Python calls: traced as PyTorch traces, changed, run, and the two tutorials on them."""

import copy
import operator
import time

import numpy as np
import pytest

import onnxgrad as og
import onnxgrad.nn.functional as F
from onnxgrad import fx, nn
from onnxgrad.nn.functional import relu
from onnxgrad.ops.errors import GraphError, InputError, TraceError


def scaled(x):
    return x * 3


fx.wrap("scaled")


def network(lib):
    nn, F = lib.nn, lib.nn.functional

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(4, 4)

        def forward(self, x):
            return self.lin(x) + x

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Block())
            self.w = nn.Parameter(lib.ones(1))
            self.register_buffer("shift", lib.zeros(4))

        def forward(self, x, scale=2.0):
            y = self.body(x) * self.w + self.shift
            y = F.relu(y) + lib.sigmoid(y)
            n = y.size(0)
            y = y.view(n, -1)[:, :3] / scale
            return {"y": y, "parts": (y.sum(dim=1), -y)}

    return Net()


def rows(graph):
    kwargs = [{k: v for k, v in n.kwargs.items() if k != "inplace"} for n in graph.nodes]
    return [(n.op, n.name, str(n.args), str(k), len(n.users)) for n, k in zip(graph.nodes, kwargs, strict=True)]


@pytest.mark.oracle
def test_graphs_are_pytorchs():
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("torch.fx").symbolic_trace(network(torch))
    # PyTorch's leaves are the modules of torch.nn: the block is traced into, as here
    assert rows(fx.symbolic_trace(network(og)).graph) == rows(theirs.graph)


def test_it_computes_and_trains_as_the_module():
    net = network(og)
    traced = fx.symbolic_trace(net)
    x = og.randn(5, 4)
    ours, its = net(x), traced(x)
    assert its["y"].tolist() == ours["y"].tolist() and its["parts"][0].tolist() == ours["parts"][0].tolist()
    assert dict(traced.named_parameters()).keys() == dict(net.named_parameters()).keys()
    traced(x, scale=1.0)["y"].sum().backward()
    assert net.w.grad is not None and net.w is traced.w
    assert list(traced.state_dict()) and "(body): Module(" in repr(traced)


def test_every_function_and_operator_is_seen():
    def f(x, y):
        a = relu(x) + scaled(y) @ x.T
        b = og.cat([a, a.exp()], dim=1) ** 2
        return 2 - b[0, ::2], abs(-a), x.shape[0] // 2

    traced = fx.symbolic_trace(f)
    targets = [fx_target(n) for n in traced.graph.nodes]
    for name in ("relu", "scaled", "matmul", "cat", "exp", "pow", "sub", "getitem", "neg", "abs", "floordiv"):
        assert name in targets
    x, y = og.randn(3, 3), og.randn(3, 3)
    for ours, direct in zip(traced(x, y), f(x, y), strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(direct))


def fx_target(node):
    return node.target if isinstance(node.target, str) else node.target.__name__


def test_nothing_is_left_behind():
    before = (nn.Module.__call__, F.relu, og.cat, relu)
    fx.symbolic_trace(network(og))
    with pytest.raises(ZeroDivisionError):
        fx.symbolic_trace(lambda x: x + 1 // 0)
    assert (nn.Module.__call__, F.relu, og.cat, relu) == before


def test_tensors_of_the_function_become_attributes():
    shift = og.tensor([1.0, 2.0])
    before = og.Tensor.__add__
    traced = fx.symbolic_trace(lambda x: (shift + x) * (shift < x + 5))
    assert traced(og.zeros(2)).tolist() == [1.0, 2.0] and "_tensor_constant0" in dict(traced.named_buffers())
    assert og.Tensor.__add__ is before


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: x if x.sum() > 0 else -x, "cannot be used as inputs to control flow"),
        (lambda x: [v * 2 for v in x], "cannot be iterated"),
        (lambda x: range(len(x)), "known only when the graph runs"),
        (lambda *xs: xs, "name its arguments"),
    ],
)
def test_what_would_be_frozen_is_refused(f, message):
    with pytest.raises(TraceError, match=message):
        fx.symbolic_trace(f)


def test_control_flow_on_concrete_arguments():
    def f(x, flag):
        return x * 2 if flag else x

    assert fx.symbolic_trace(f, {"flag": True})(og.ones(1)).tolist() == [2.0]


def test_editing():
    traced = fx.symbolic_trace(lambda x, y: F.relu(x + y) * x)
    graph = traced.graph
    (add,) = graph.find_nodes(op="call_function", target=operator.add)
    add.target = operator.mul
    (activation,) = [n for n in graph.nodes if n.name == "relu"]
    with graph.inserting_after(activation):
        doubled = graph.call_method("mul", (activation, 2))
    activation.replace_all_uses_with(doubled, lambda user: user is not doubled)
    graph.lint()
    assert "x * y" in traced.recompile()
    x, y = og.tensor([1.0, -2.0]), og.tensor([3.0, 4.0])
    assert traced(x, y).tolist() == (F.relu(x * y) * 2 * x).tolist()
    with pytest.raises(GraphError, match=r"Tried to erase Node relu but it still had 1 users .*\[mul"):
        graph.erase_node(activation)
    doubled.replace_all_uses_with(activation)
    graph.erase_node(doubled)
    assert traced(x, y).tolist() == (F.relu(x * y) * x).tolist()


def test_dead_code_and_moves():
    traced = fx.symbolic_trace(lambda x: (x + 1, x * 2)[1])
    assert traced.graph.eliminate_dead_code() and not traced.graph.eliminate_dead_code()
    assert [n.name for n in traced.graph.nodes] == ["x", "mul", "output"]
    x, mul, out = traced.graph.nodes
    assert x.next is mul and out.prev is mul and mul.all_input_nodes == [x] and list(x.users) == [mul]
    out.prepend(x)
    with pytest.raises(GraphError, match="used before it has been defined"):
        traced.recompile()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda g: g.call_module("nope", (g.nodes[0],)), "no submodule 'nope'"),
        (lambda g: g.call_function(relu, (fx.symbolic_trace(lambda x: x).graph.nodes[0],)), "of another graph"),
        (lambda g: g.create_node("call", relu), "a node's op is one of placeholder"),
    ],
)
def test_bad_changes(break_it, message):
    with pytest.raises(GraphError, match=message):
        break_it(fx.symbolic_trace(network(og)).graph)


def test_missing_and_surplus_arguments():
    traced = fx.symbolic_trace(lambda x, y: x + y)
    with pytest.raises(InputError, match="parameter y, but one was not passed in"):
        traced(og.ones(1))
    with pytest.raises(InputError, match=r"takes \['x', 'y'\]; found more"):
        traced(og.ones(1), og.ones(1), og.ones(1))


def test_patterns_are_replaced():
    def f(x, w):
        a = F.relu(x) * w
        return F.relu(a) * w + F.relu(a).sum()

    traced = fx.symbolic_trace(f)
    found = fx.replace_pattern(traced, lambda a, b: F.relu(a) * b, lambda a, b: F.gelu(a) - b)
    x, w = og.randn(4), og.randn(4)
    a = F.gelu(x) - w
    assert len(found) == 2
    np.testing.assert_allclose(traced(x, w).numpy(), (F.gelu(a) - w + F.relu(a).sum()).numpy(), rtol=1e-6)


def test_a_transformer_makes_another_graph():
    class Negated(fx.Transformer):
        def call_function(self, target, args, kwargs):
            if target is F.relu:
                return -super().call_function(target, args, kwargs)
            return super().call_function(target, args, kwargs)

    net = network(og)
    traced = fx.symbolic_trace(net)
    made = Negated(traced).transform()
    assert [n.name for n in made.graph.nodes if n.name.startswith("neg")] == ["neg", "neg_1"]
    assert dict(made.named_parameters())["w"] is net.w
    made(og.randn(2, 4))


def test_imported_layers_may_stand_in_a_graph():
    traced = fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    traced.add_submodule("extra.head", nn.Linear(2, 3))
    out = traced.graph.output_node()
    with traced.graph.inserting_before(out):
        head = traced.graph.call_module("extra.head", (out.args[0],))
    out.args = (head,)
    traced.recompile()
    assert tuple(traced(og.ones(1, 2)).shape) == (1, 3)
    head.replace_all_uses_with(head.args[0])
    traced.graph.erase_node(head)
    traced.delete_all_unused_submodules()
    assert "extra.head" not in dict(traced.named_modules())


# The tutorial "Building a Convolution/Batch Norm fuser in FX".


class WrappedBatchNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.mod = nn.BatchNorm2d(1)

    def forward(self, x):
        return self.mod(x)


class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 1, 1)
        self.bn1 = nn.BatchNorm2d(1)
        self.conv2 = nn.Conv2d(1, 1, 1)
        self.nested = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 1, 1))
        self.wrapped = WrappedBatchNorm()

    def forward(self, x):
        return self.wrapped(self.nested(self.conv2(self.bn1(self.conv1(x)))))


def fuse_conv_bn_eval(conv, bn):
    fused_conv = copy.deepcopy(conv)
    fused_conv.weight, fused_conv.bias = fuse_conv_bn_weights(
        fused_conv.weight, fused_conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
    )
    return fused_conv


def fuse_conv_bn_weights(conv_w, conv_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b):
    if conv_b is None:
        conv_b = og.zeros_like(bn_rm)
    bn_var_rsqrt = og.rsqrt(bn_rv + bn_eps)
    conv_w = conv_w * (bn_w * bn_var_rsqrt).reshape([-1] + [1] * (len(conv_w.shape) - 1))
    conv_b = (conv_b - bn_rm) * bn_var_rsqrt * bn_w + bn_b
    return nn.Parameter(conv_w), nn.Parameter(conv_b)


def _parent_name(target):
    *parent, name = target.rsplit(".", 1)
    return parent[0] if parent else "", name


def replace_node_module(node, modules, new_module):
    parent_name, name = _parent_name(node.target)
    setattr(modules[parent_name], name, new_module)


def fuse(model):
    model = copy.deepcopy(model)
    fx_model = fx.symbolic_trace(model)
    modules = dict(fx_model.named_modules())
    for node in fx_model.graph.nodes:
        if node.op != "call_module":
            continue
        if type(modules[node.target]) is nn.BatchNorm2d and type(modules[node.args[0].target]) is nn.Conv2d:
            if len(node.args[0].users) > 1:
                continue
            conv, bn = modules[node.args[0].target], modules[node.target]
            replace_node_module(node.args[0], modules, fuse_conv_bn_eval(conv, bn))
            node.replace_all_uses_with(node.args[0])
            fx_model.graph.erase_node(node)
    fx_model.graph.lint()
    fx_model.recompile()
    return fx_model


def test_the_fuser_of_the_tutorial():
    model = M()
    model(og.randn(64, 1, 8, 8))  # running statistics that are not trivial
    model.eval()
    fused = fuse(model)
    assert [n.target for n in fused.graph.nodes if n.op == "call_module"] == ["conv1", "conv2", "nested.1"]
    x = og.randn(5, 1, 32, 32)
    np.testing.assert_allclose(fused(x).detach().numpy(), model(x).detach().numpy(), rtol=1e-4, atol=1e-5)


# The tutorial "Building a Simple CPU Performance Profiler with FX".


class ProfilingInterpreter(fx.Interpreter):
    def __init__(self, mod):
        gm = fx.symbolic_trace(mod)
        super().__init__(gm)
        self.total_runtime_sec = []
        self.runtimes_sec = {}

    def run(self, *args):
        t_start = time.time()
        return_val = super().run(*args)
        self.total_runtime_sec.append(time.time() - t_start)
        return return_val

    def run_node(self, n):
        t_start = time.time()
        return_val = super().run_node(n)
        self.runtimes_sec.setdefault(n, [])
        self.runtimes_sec[n].append(time.time() - t_start)
        return return_val


def test_the_profiler_of_the_tutorial():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)).eval()
    interp = ProfilingInterpreter(net)
    x = og.randn(2, 3, 8, 8)
    assert interp.run(x).tolist() == net(x).tolist()
    assert [n.name for n in interp.runtimes_sec] == ["input", "_0", "_1", "_2", "_3", "_4", "output"]
    assert sum(t for (t,) in interp.runtimes_sec.values()) <= interp.total_runtime_sec[0]
