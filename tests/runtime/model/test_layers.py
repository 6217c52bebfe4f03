"""Layers of imported models: hooks on nodes of the file, and what the model does while there are some."""

import copy

import numpy as np
import pytest
from onnx import helper, numpy_helper

import onnxgrad as og
from onnxgrad import nn
from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.nn.modules import module as global_hooks
from onnxgrad.ops.errors import ModuleError
from onnxgrad.runtime.model.frozen_prefix import split
from onnxgrad.runtime.model.layers import _RUNS

from ...importers.models import cnn, model

NODE = helper.make_node


def net():
    return load_bytes(cnn().SerializeToString())


def image(n=2):
    return np.random.default_rng(n).standard_normal((n, 3, 8, 8)).astype(np.float32)


def two_readers():
    """A layer that is read twice, one with two outputs, and one of two nodes in the graph."""
    return load_bytes(
        model(
            [
                NODE("Split", ["x"], ["a", "b"], name="split", axis=1, num_outputs=2),
                NODE("Gemm", ["a", "w", "c"], ["g"], name="gemm"),
                NODE("Add", ["g", "b"], ["s"], name="add"),
                NODE("Mul", ["s", "g"], ["y"], name="mul"),
            ],
            {"x": ["N", 4]},
            {"y": None},
            [
                numpy_helper.from_array(np.arange(4, dtype=np.float32).reshape(2, 2), "w"),
                numpy_helper.from_array(np.ones(2, np.float32), "c"),
            ],
            opset=18,
        ).SerializeToString()
    )


def test_layers_are_modules():
    m = net()
    names = [name for name, _, _ in m.layers()]
    assert [n for n, _ in m.named_modules()] == ["", *names] and [n for n, _ in m.named_children()] == names
    layer = m.get_submodule(names[0])
    assert layer is dict(m.named_modules())[names[0]] and m.get_submodule("") is m
    assert repr(layer) == "Conv(conv: float32(N, 4, 8, 8))"
    assert [n for n, _ in layer.named_parameters()] == ["conv.weight", "conv.bias"]
    assert [n for n, _ in m.get_submodule("bn").named_buffers()] == ["bn.mean", "bn.var"]
    with pytest.raises(AttributeError, match=r"Model has no attribute `nope`; did you mean \["):
        m.get_submodule("nope")
    outer = nn.Sequential(m)
    assert outer.get_submodule(f"0.{names[0]}") is layer
    with pytest.raises(ModuleError, match="is run by its model"):
        layer(og.ones(1))
    with pytest.raises(ModuleError, match="has the mode of its model"):
        layer.train()
    m.train()
    assert layer.training and not m.eval().get_submodule(names[0]).training
    with pytest.raises(ModuleError, match="cannot be replaced"):
        m.set_submodule(names[0], nn.ReLU())


def test_forward_hooks_see_what_a_layer_takes_and_gives():
    m, x = net(), image()
    y = m(x)
    seen = {}
    for name, layer in m.named_children():
        layer.register_forward_hook(lambda layer, args, out, name=name: seen.update({name: (args, out)}))
    np.testing.assert_allclose(m(x).detach().numpy(), y.detach().numpy(), rtol=1e-6)
    assert list(seen) == [n for n, _, _ in m.layers()]
    first, last = next(iter(seen.values())), list(seen.values())[-1]
    np.testing.assert_array_equal(first[0][0].numpy(), x)
    np.testing.assert_allclose(last[1].detach().numpy(), y.detach().numpy(), rtol=1e-6)
    for name, _, _ in m.layers():
        np.testing.assert_allclose(m.intermediates([name], x)[1][name].detach().numpy(), seen[name][1].detach().numpy())
    (run,) = m.run({m.inputs[0].name: x})
    np.testing.assert_allclose(run, y.detach().numpy(), rtol=1e-6)


def test_hooks_replace_inputs_and_outputs():
    m = two_readers()
    x = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)
    w, c = np.arange(4, dtype=np.float32).reshape(2, 2), 1

    def by_hand(a, b, scale=1.0, shift=0.0):
        g = (a @ w + c) * scale
        return (g + b + shift) * g

    np.testing.assert_allclose(m(x).detach().numpy(), by_hand(x[:, :2], x[:, 2:]))
    with m.get_submodule("gemm").register_forward_hook(lambda layer, args, out: out * 2):
        np.testing.assert_allclose(m(x).detach().numpy(), by_hand(x[:, :2], x[:, 2:], 2.0))
        np.testing.assert_allclose(m.run({"x": x})[0], by_hand(x[:, :2], x[:, 2:], 2.0))
    with m.get_submodule("gemm").register_forward_pre_hook(lambda layer, args: args[0] + 1):
        np.testing.assert_allclose(m(x).detach().numpy(), by_hand(x[:, :2] + 1, x[:, 2:]))
    with m.get_submodule("add").register_forward_pre_hook(lambda layer, args: (args[0], args[1] + 5)):
        np.testing.assert_allclose(m(x).detach().numpy(), by_hand(x[:, :2], x[:, 2:], shift=5.0))
    with m.get_submodule("split").register_forward_hook(lambda layer, args, out: (out[1], out[0])):
        np.testing.assert_allclose(m(x).detach().numpy(), by_hand(x[:, 2:], x[:, :2]))
    np.testing.assert_allclose(m.run({"x": x})[0], by_hand(x[:, :2], x[:, 2:]))
    assert not m._hooked and not _RUNS.stack


def test_backward_hooks():
    m = two_readers()
    x = og.tensor([[1.0, 2.0, 3.0, 4.0]], requires_grad=True)
    m(x).sum().backward()
    plain, x.grad = x.grad, None
    seen = []
    with m.get_submodule("gemm").register_full_backward_hook(
        lambda layer, gi, go: seen.append((gi, go)) or (gi[0] * 0,)
    ):
        m(x).sum().backward()
    ((grad_input,), (grad_output,)) = seen[0]
    g = (x.detach().numpy()[:, :2] @ m.get_parameter("w").detach().numpy()) + 1
    b = x.detach().numpy()[:, 2:]
    np.testing.assert_allclose(grad_output.numpy(), 2 * g + b)
    np.testing.assert_allclose(grad_input.numpy(), plain.numpy()[:, :2])
    np.testing.assert_allclose(x.grad.numpy()[:, 2:], plain.numpy()[:, 2:])
    assert not x.grad.numpy()[:, :2].any()


def test_grad_cam_by_hooks():
    m = net()
    name = next(n for n, kind, _ in m.layers() if kind == "Conv")
    kept = {}
    layer = m.get_submodule(name)
    layer.register_forward_hook(lambda layer, args, out: kept.update(activation=out))
    layer.register_full_backward_hook(lambda layer, gi, go: kept.update(gradient=go[0]))
    x = og.tensor(image(1), requires_grad=True)
    m(x)[0, 1].backward()
    y, found = m.intermediates([name], og.tensor(image(1)))
    (g,) = og.autograd.grad(y[0, 1], found[name])
    np.testing.assert_allclose(kept["gradient"].numpy(), g.numpy(), rtol=1e-6)


def test_training_goes_on_under_hooks():
    results = []
    calls = []
    for hooked in (False, True):
        m = net()
        m.train()
        if hooked:
            for layer in m.children():
                layer.register_forward_hook(lambda *_: calls.append(1))
        m(image(4)).sum().backward()
        results.append([p.grad.numpy() for p in m.parameters()] + [b.numpy() for b in m.buffers()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


class StopEarlyError(Exception):
    pass


def test_what_a_hook_raises_comes_out_as_it_is():
    m = net()
    name = m.layers()[1][0]
    calls = []

    def stop(*args):
        raise StopEarlyError("far enough")

    m.get_submodule(m.layers()[0][0]).register_forward_hook(lambda *a: calls.append("once"), always_call=True)
    m.get_submodule(name).register_forward_hook(lambda *a: calls.append("always"), always_call=True)
    with m.get_submodule(name).register_forward_pre_hook(stop), pytest.raises(StopEarlyError, match=r"^far enough$"):
        m(image())
    assert calls == ["once", "always"] and not _RUNS.stack
    m(image())


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda out: out[:1], r"returned a Tensor float32\[1, 2\] for output; wanted a Tensor float32\[3, 2\]"),
        (lambda out: out.double(), r"returned a Tensor float64\[3, 2\]"),
        (lambda out: "text", "returned a str for output"),
        (lambda out: (out, out), "returned a tuple of 2 for output"),
    ],
)
def test_a_wrong_result_names_hook_and_layer(returned, message):
    def bad_hook(layer, args, out):
        return returned(out)

    m = two_readers()
    with (
        m.get_submodule("gemm").register_forward_hook(bad_hook),
        pytest.raises(ModuleError, match=rf"bad_hook of layer gemm {message}"),
    ):
        m(np.ones((3, 4), np.float32))
    with (
        m.get_submodule("add").register_forward_pre_hook(lambda layer, args: args[0]),
        pytest.raises(ModuleError, match="returned a tuple of 1 for inputs; wanted 2 values"),
    ):
        m(np.ones((3, 4), np.float32))


def test_hooks_of_all_modules_see_layers():
    m, seen = two_readers(), []
    x = np.ones((1, 4), np.float32)
    with global_hooks.register_module_forward_hook(lambda layer, args, out: seen.append(layer._get_name())):
        m(x)
    assert seen == ["Split", "Gemm", "Add", "Mul", "Model"]
    m(x)
    assert len(seen) == 5


def test_compiled_functions_call_hooks_while_they_are_traced():
    m = two_readers()
    x = np.ones((2, 4), np.float32)
    f = og.compile(lambda x: m(x) + 1)
    before = f(x).detach().numpy()
    with m.get_submodule("gemm").register_forward_hook(lambda layer, args, out: out * 2):
        np.testing.assert_allclose(f(x).detach().numpy(), (m(x) + 1).detach().numpy(), rtol=1e-6)
        assert not np.allclose(f(x).detach().numpy(), before)
    np.testing.assert_allclose(f(x).detach().numpy(), before, rtol=1e-6)


def test_copies_have_layers_of_their_own():
    m = two_readers()
    m.get_submodule("gemm").register_forward_hook(lambda layer, args, out: out * 0)
    other = copy.deepcopy(m)
    m.get_submodule("gemm")._forward_hooks.clear()
    x = np.ones((1, 4), np.float32)
    assert m(x).abs().sum().item() > 0 and other(x).abs().sum().item() == 0


def test_hooks_of_the_model_itself():
    m, seen = two_readers(), []
    x = og.tensor(np.ones((1, 4), np.float32), requires_grad=True)
    m.register_forward_pre_hook(lambda m, args: args[0] * 2)
    m.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go)))
    y = m(x)
    y.sum().backward()
    np.testing.assert_allclose(y.detach().numpy(), m.run({"x": np.full((1, 4), 2, np.float32)})[0])
    np.testing.assert_allclose(seen[0][0][0].numpy() * 2, x.grad.numpy())


def test_no_prefix_is_kept_while_hooks_look_on():
    m = net()
    m.freeze()
    m.unfreeze("fc.*")
    assert split(m, logits=True) is not None
    with m.get_submodule("conv").register_forward_hook(lambda layer, args, out: None):
        assert split(m, logits=True) is None
