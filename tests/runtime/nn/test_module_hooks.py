"""Hooks of modules: what they see and change, when they are called, and that nothing stays behind."""

import copy
import gc
import weakref

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn
from onnxgrad.nn.modules import module as global_hooks
from onnxgrad.ops.errors import ModuleError, ShapeError, TraceError
from onnxgrad.runtime.nn.module_hooks import GLOBAL

W = np.arange(6, dtype=np.float64).reshape(2, 3) / 3 - 0.7
X = np.array([[1.0, -2.0, 0.5], [0.3, 0.2, -1.0]])


def linear(lib):
    m = lib.nn.Linear(3, 2).double()
    m.load_state_dict({"weight": lib.tensor(W), "bias": lib.tensor([0.1, -0.2], dtype=lib.float64)})
    return m


def leaf(lib, array=X):
    return lib.tensor(array, dtype=lib.float64, requires_grad=True)


def plain(x):
    """Return nested results with arrays for Tensors."""
    if isinstance(x, tuple | list):
        return [plain(v) for v in x]
    return x.detach().numpy().tolist() if hasattr(x, "detach") else x


def replaced_inputs(lib):
    m, x, log = linear(lib), leaf(lib), []
    m.register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    m.register_forward_pre_hook(lambda m, args: args[0] + 1)  # what is no tuple is the only argument
    m.register_forward_pre_hook(lambda m, args: log.append(args[0]), prepend=True)
    y = m(x)
    y.sum().backward()
    return y, x.grad, log, m.weight.grad


def keywords(lib):
    class Scaled(lib.nn.Module):
        def forward(self, x, scale=1.0):
            return x * scale

    m, log = Scaled(), []
    m.register_forward_pre_hook(lambda m, args, kwargs: (args, {**kwargs, "scale": 3.0}), with_kwargs=True)
    m.register_forward_pre_hook(lambda m, args, kwargs: log.append((args, kwargs["scale"])), with_kwargs=True)
    m.register_forward_hook(lambda m, args, kwargs, out: out + kwargs["scale"], with_kwargs=True)
    return m(leaf(lib), scale=2.0), log


def replaced_outputs(lib):
    m, x, log = linear(lib), leaf(lib), []
    m.register_forward_hook(lambda m, args, out: out.relu())
    m.register_forward_hook(lambda m, args, out: log.append(out))
    m.register_forward_hook(lambda m, args, out: log.append(out), prepend=True)
    y = m(x)
    y.sum().backward()
    return y, x.grad, log


def seen_gradients(lib):
    class Two(lib.nn.Module):
        def forward(self, a, name, b, flag=None):
            return a * b.detach() + b**2, a.sum(), "text"

    m, log = Two(), []
    m.register_full_backward_hook(lambda m, gi, go: log.append((gi, go)))
    a, b = leaf(lib), leaf(lib, X * 2)
    y, s, _ = m(a, "name", b, flag=True)
    (y * y).sum().backward(retain_graph=True)  # s takes no part
    (y.sum() + s * 2).backward()
    return log, a.grad, b.grad


def constant_inputs(lib):
    m, log = lib.nn.Bilinear(3, 3, 2).double(), []
    for p, array in zip(m.parameters(), (np.ones((2, 3, 3)), np.ones(2)), strict=True):
        p.data = lib.tensor(array)
    m.register_full_backward_hook(lambda m, gi, go: log.append((gi, go)))
    x = leaf(lib)
    m(x, lib.tensor(X)).sum().backward()
    return log, x.grad


def replaced_gradients(lib):
    m, x, log = linear(lib), leaf(lib), []
    m.register_full_backward_pre_hook(lambda m, go: (go[0] * 3,))
    m.register_full_backward_pre_hook(lambda m, go: log.append(go), prepend=True)
    m.register_full_backward_hook(lambda m, gi, go: (gi[0] + 1,))
    m.register_full_backward_hook(lambda m, gi, go: log.append((gi, go)))
    m(x).sum().backward()
    return x.grad, m.weight.grad, log


def nested(lib):
    order = []
    net = lib.nn.Sequential(linear(lib), lib.nn.Sequential(lib.nn.Tanh(), lib.nn.Sigmoid()))
    for name, m in net.named_modules():
        m.register_forward_pre_hook(lambda m, args, name=name: order.append(("enter", name)))
        m.register_forward_hook(lambda m, args, out, name=name: order.append(("leave", name)))
        m.register_full_backward_pre_hook(lambda m, go, name=name: order.append(("back", name, go)))
        m.register_full_backward_hook(lambda m, gi, go, name=name: order.append(("done", name, gi, go)))
    net(leaf(lib)).sum().backward()
    return order


def several_calls(lib):
    m, x, log = linear(lib), leaf(lib), []
    m.register_full_backward_hook(lambda m, gi, go: log.append(go[0].sum().item()))
    (m(x).sum() + (m(x) * 2).sum()).backward()
    with lib.no_grad():
        m(x)
    return log, x.grad


def second_order(lib):
    m, x = linear(lib), leaf(lib)
    m.register_full_backward_hook(lambda m, gi, go: (gi[0] * 2,))
    y = (m(x) ** 2).sum()
    (g,) = lib.autograd.grad(y, x, create_graph=True)
    (g**2).sum().backward()
    return g, x.grad, m.weight.grad


def always_called(lib):
    class Broken(lib.nn.Module):
        def forward(self, x):
            raise KeyError("inside")

    m, log = Broken(), []
    m.register_forward_hook(lambda m, args, out: log.append("never"))
    m.register_forward_hook(lambda m, args, out: log.append(out), always_call=True)
    with pytest.raises(KeyError, match="inside"):
        m(leaf(lib))
    m = linear(lib)
    m.register_forward_hook(lambda m, args, out: log.append("first"), always_call=True)
    m.register_forward_hook(lambda m, args, out: 1 / 0)
    m.register_forward_hook(lambda m, args, out: log.append(type(out).__name__), always_call=True)
    with pytest.raises(ZeroDivisionError):
        m(leaf(lib))
    return log


def everywhere(lib):
    hooks, order = lib.nn.modules.module, []
    net, x = lib.nn.Sequential(linear(lib), lib.nn.ReLU()), leaf(lib)
    net[0].register_forward_hook(lambda m, args, out: order.append("own"))
    handles = [
        hooks.register_module_forward_pre_hook(lambda m, args: order.append(("pre", type(m).__name__))),
        hooks.register_module_forward_hook(lambda m, args, out: order.append(("post", type(m).__name__, out))),
        hooks.register_module_full_backward_pre_hook(lambda m, go: order.append(("back", go))),
        hooks.register_module_full_backward_hook(lambda m, gi, go: order.append(("done", gi))),
    ]
    net(x).sum().backward()
    for h in handles:
        h.remove()
    net(x).sum().backward()
    return order, x.grad


SCENES = [
    replaced_inputs, keywords, replaced_outputs, seen_gradients, constant_inputs, replaced_gradients, nested,
    several_calls, second_order, always_called, everywhere,
]  # fmt: skip


def close(a, b):
    if isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-12, abs=1e-12)
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            close(x, y)
    else:
        assert a == b


@pytest.mark.oracle
@pytest.mark.parametrize("scene", SCENES, ids=lambda s: s.__name__)
def test_hooks_see_and_change_what_pytorchs_do(scene):
    torch = pytest.importorskip("torch")
    close(plain(scene(og)), plain(scene(torch)))
    assert not GLOBAL.any() and not GLOBAL.always and not GLOBAL.with_kwargs


def test_full_backward_hook_by_hand():
    m, x = linear(og), leaf(og)
    seen = []
    m.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go)) or (gi[0] * 2,))
    m(x).sum().backward()
    ((grad_input,), (grad_output,)) = seen[0]
    np.testing.assert_allclose(grad_output.numpy(), np.ones((2, 2)))
    np.testing.assert_allclose(grad_input.numpy(), np.ones((2, 2)) @ W)
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.ones((2, 2)) @ W)
    np.testing.assert_allclose(m.weight.grad.numpy(), np.ones((2, 2)) @ X)


def test_without_gradients_at_the_inputs():
    m, seen = linear(og), []
    m.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go)))
    with pytest.warns(UserWarning, match="Full backward hook is firing"):
        m(og.tensor(X)).sum().backward()
    assert seen[0][0] == (None,) and seen[0][1][0].tolist() == [[1, 1], [1, 1]]
    m.register_full_backward_hook(lambda m, gi, go: (og.ones(1),))
    y = m(og.tensor(X)).sum()
    with pytest.raises(ModuleError, match=r"should always return None.*Linear"), pytest.warns(UserWarning):
        y.backward()
    m = nn.Module()
    m.forward = lambda x: {"y": x * 2}
    m.register_full_backward_hook(lambda m, gi, go: seen.append("never"))
    with pytest.warns(UserWarning, match="should be a Tensor or a tuple of Tensors but received"):
        m(leaf(og))["y"].sum().backward()
    assert len(seen) == 2


def test_old_backward_hook_is_the_full_one():
    m, x, seen = linear(og), leaf(og), []
    m.register_backward_hook(lambda m, gi, go: seen.append(gi[0]))
    m(x).sum().backward()
    assert og.equal(seen[0], x.grad)


@pytest.mark.parametrize(
    ("register", "returned", "message"),
    [
        ("register_full_backward_hook", lambda: (og.ones(2, 3), og.ones(1)), "invalid number of grad_input, got 2"),
        ("register_full_backward_hook", lambda: (og.ones(2, 2),), r"\[2, 2\] as grad_input 0; wanted float64\[2, 3\]"),
        ("register_full_backward_hook", lambda: ("text",), "a str as grad_input 0"),
        ("register_full_backward_pre_hook", lambda: (), "invalid number of grad_output, got 0, but expected 1"),
        ("register_full_backward_pre_hook", lambda: (og.ones(2, 2),), "as grad_output 0; wanted float64"),
    ],
)  # fmt: skip
def test_a_wrong_gradient_names_hook_and_module(register, returned, message):
    m, x = linear(og), leaf(og)

    def bad_hook(*args):
        return returned()

    with getattr(m, register)(bad_hook), pytest.raises(ModuleError, match=rf"(?s)(?=.*bad_hook of Linear).*{message}"):
        m(x).sum().backward()
    x.grad = None
    m(x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.ones((2, 2)) @ W)


def test_a_wrong_result_of_a_pre_hook():
    m = linear(og)
    m.register_forward_pre_hook(lambda m, args, kwargs: args, with_kwargs=True)
    with pytest.raises(ModuleError, match=r"must return None or a tuple of \(new_args"):
        m(leaf(og))


def test_what_an_always_called_hook_raises_after_an_error_is_a_warning():
    m = linear(og)
    m.register_forward_hook(lambda m, args, out: 1 / 0, always_call=True)
    with (
        pytest.warns(UserWarning, match=r"raised an exception that was silenced"),
        pytest.raises(ShapeError),
    ):
        m(og.ones(2, 5, dtype=og.float64))


def test_handles():
    m, calls = linear(og), []
    with m.register_forward_hook(lambda m, args, out: calls.append(1), always_call=True, with_kwargs=False) as handle:
        m(leaf(og))
    m(leaf(og))
    assert calls == [1] and not m._forward_hooks and not m._forward_hooks_always_called
    handle.remove()
    other = m.register_forward_pre_hook(lambda m, args: None)
    assert other.id > handle.id and list(m._forward_pre_hooks) == [other.id]
    gone = weakref.ref(m)
    del m
    gc.collect()
    assert gone() is None
    other.remove()


def test_hooks_may_remove_themselves():
    m, calls = linear(og), []

    def once(*args):
        calls.append(1)
        handle.remove()

    handle = m.register_forward_hook(once)
    m(leaf(og))
    m(leaf(og))
    assert calls == [1]


def test_copies_have_the_hooks():
    m, calls = linear(og), []
    m.register_forward_hook(lambda m, args, out: calls.append(m))
    other = copy.deepcopy(m)
    other(leaf(og))
    m._forward_hooks.clear()
    other(leaf(og))
    m(leaf(og))
    assert calls == [other, other] and not og.equal(other.weight, other.weight * 0) and other.weight is not m.weight


def test_registration_hooks():
    seen = []
    handles = [
        global_hooks.register_module_parameter_registration_hook(lambda m, n, p: seen.append(("p", n))),
        global_hooks.register_module_buffer_registration_hook(lambda m, n, b: seen.append(("b", n))),
        global_hooks.register_module_module_registration_hook(lambda m, n, c: nn.Tanh() if n == "act" else None),
    ]
    m = nn.Module()
    m.w = nn.Parameter(og.ones(1))
    m.b = nn.Buffer(og.ones(1))
    m.act = nn.ReLU()
    for h in handles:
        h.remove()
    m.v = nn.Parameter(og.ones(1))
    assert seen == [("p", "w"), ("b", "b")] and isinstance(m.act, nn.Tanh)


class TestCompiled:
    def test_hooks_are_part_of_the_graph(self):
        net, x = nn.Sequential(linear(og), nn.ReLU()), leaf(og)
        step = og.compile(net)
        plain_result = step(x)
        calls = []

        def doubled(m, args, out):
            calls.append(type(out).__name__)
            return out * 2

        with net[0].register_forward_hook(doubled):
            assert og.allclose(step(x), net(x)) and not og.allclose(step(x), plain_result)
            assert len(calls) == 2  # once traced, once eager
        assert og.allclose(step(x), plain_result) and step.compilations == 2

    def test_backward_hooks(self):
        net = nn.Sequential(linear(og), nn.Tanh())
        net[0].register_full_backward_hook(lambda m, gi, go: (gi[0] * 3,))
        net[1].register_full_backward_pre_hook(lambda m, go: (go[0] * 2,))

        def gradients(x):
            return og.autograd.grad(net(x).sum(), [x, net[0].weight])

        for a, b in zip(og.compile(gradients)(leaf(og)), gradients(leaf(og)), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)

    def test_what_a_hook_keeps_is_an_error(self):
        net, kept = linear(og), []
        net.register_forward_hook(lambda m, args, out: kept.append(out))
        with pytest.raises(TraceError, match="keeps a Tensor"):
            og.compile(net)(leaf(og))

    def test_module_compile(self):
        net = linear(og)
        net.compile()
        y = net(leaf(og))
        assert net._compiled_call_impl.compilations == 1 and og.allclose(y, linear(og)(leaf(og)))
        y.sum().backward()
        np.testing.assert_allclose(net.weight.grad.numpy(), np.ones((2, 2)) @ X)
        assert copy.deepcopy(net)._compiled_call_impl is None
