"""`og.compile`: functions of all kinds, what is frozen and what is not, errors with hints, sizes that vary."""

from __future__ import annotations

import functools
from collections import namedtuple

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn
from onnxgrad.errors import AutogradError, TraceError
from onnxgrad.nn import functional as F

RNG = np.random.default_rng(0)
GLOBAL = og.tensor([5.0, 5.0])


@pytest.fixture(params=["compiled", "array"])
def engine(request, monkeypatch):
    """Both engines that a traced graph may run on."""
    if request.param == "array":
        monkeypatch.setenv("ONNXGRAD_CPU", "off")
    return request.param


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def net():
    og.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def test_the_structure_of_results_stays(engine):
    Pair = namedtuple("Pair", "a b")

    @og.compile
    def f(x, scale=2):
        return {"sum": (x * scale).sum(), "rest": (x + 1, [scale, "k", None], Pair(x * 3, 1.5))}

    r = f(og.tensor([1.0, 2.0]), scale=3)
    assert r["sum"].item() == 9 and r["rest"][1] == [3, "k", None]
    np.testing.assert_array_equal(r["rest"][0].numpy(), [2, 3])
    assert isinstance(r["rest"][2], Pair) and r["rest"][2].b == 1.5
    np.testing.assert_array_equal(r["rest"][2].a.numpy(), [3, 6])


def test_python_on_static_values_is_part_of_the_graph():
    calls = []

    @og.compile
    def f(x, double):
        calls.append(double)
        return x * 2 if double and x.ndim == 1 else x + 1

    x = og.tensor([1.0, 2.0])
    assert [f(x, d).tolist() for d in (True, False, True, False)] == [[2, 4], [2, 3], [2, 4], [2, 3]]
    assert calls == [True, False] and f.compilations == 2


@pytest.mark.parametrize(
    "bad",
    [
        lambda t: 1 if t.sum() > 0 else 2,
        lambda t: t.sum().item(),
        lambda t: float(t.sum()),
        lambda t: int(t.sum()),
        lambda t: t.tolist(),
        lambda t: t.numpy(),
        lambda t: np.asarray(t),
        lambda t: [0, 1, 2][t.long().sum()],
        lambda t: t[t > 0],
        lambda t: t.detach().reshape(1, 2).zero_(),
        lambda t: og.randn(2) + t,
        lambda t: GLOBAL.item() * t,
    ],
)
def test_python_on_elements_is_refused_with_what_to_do(bad):
    t = og.tensor([1.0, 2.0])
    with pytest.raises(TraceError, match="compiled function"):
        og.compile(bad)(t)
    assert t.tolist() == [1, 2] and GLOBAL.tolist() == [5, 5]


def test_a_part_may_be_overwritten_where_it_is_known_which():
    def f(t):
        t[0] = 1.0
        t[1:].sum()
        t[-1:] = t[:1] + 2
        return t * 2

    t = og.tensor([5.0, 2.0, 7.0])
    assert og.compile(f)(t).tolist() == [2.0, 4.0, 6.0] and t.tolist() == [1.0, 2.0, 3.0]

    def g(t, i):
        t[i] = 1.0
        return t

    with pytest.raises(TraceError, match=r"og\.where"):
        og.compile(g)(t, og.tensor([0]))


def test_what_is_kept_outside_is_refused():
    kept = []

    def f(t):
        kept.append(t + 1)
        return t

    with pytest.raises(TraceError, match="keeps a Tensor"):
        og.compile(f)(og.tensor([1.0]))


def test_an_exception_puts_everything_back():
    m = net()
    before = [(p.array, p._version) for p in m.parameters()]
    next(iter(m.parameters())).grad = og.ones(8, 6)

    def f(m, x):
        m.zero_grad()
        m(x).sum().backward()
        with og.no_grad():
            for p in m.parameters():
                p.add_(1)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        og.compile(f)(m, og.tensor(floats(2, 6)))
    assert all(p.array is a and p._version == v for p, (a, v) in zip(m.parameters(), before, strict=True))
    grads = [p.grad for p in m.parameters()]
    assert grads[0].array.sum() == 48 and grads[1:] == [None] * 3
    assert m(og.tensor(floats(2, 6))).shape == (2, 3)


def test_tensors_in_closures_and_globals_are_read_anew_in_each_call(engine):
    inner = og.tensor([1.0, 2.0])
    f = og.compile(lambda x: x * inner + GLOBAL)
    x = og.tensor([1.0, 1.0])
    assert f(x).tolist() == [6, 7]
    inner.mul_(2)
    assert f(x).tolist() == [7, 9] and f.compilations == 1


def test_in_place_changes_happen(engine):
    state = og.zeros(2)
    array = state.array

    @og.compile
    def f(x):
        state.add_(x)
        x.detach().mul_(2)
        return state * 1

    x = og.tensor([1.0, 2.0])
    assert f(x).tolist() == [1, 2] and x.tolist() == [2, 4]
    assert f(x).tolist() == [3, 6] and x.tolist() == [4, 8]
    assert state.array is array and state._version == 2 and x._version == 2


def test_aliases_change_together():
    w = og.tensor([1.0, 2.0])

    @og.compile
    def f(x):
        alias = w.detach()
        w.add_(x)
        return alias * 1

    assert f(og.ones(2)).tolist() == [2, 3]


def test_lesson_updates_by_data():
    w = og.tensor([1.0, 2.0], requires_grad=True)

    @og.compile
    def step(x):
        loss = (w * x).sum()
        loss.backward()
        w.data -= 0.5 * w.grad.data
        w.grad = None
        return loss

    x = og.ones(2)
    assert [step(x).item(), step(x).item()] == [3, 2] and w.tolist() == [0, 1] and w.grad is None


def test_numpy_arguments_are_inputs(engine):
    f = og.compile(lambda x, y: (x * y).sum())
    for _ in range(3):
        a, b = floats(4), floats(4)
        np.testing.assert_allclose(f(a, {"k": b}["k"]).item(), (a * b).sum(), rtol=1e-5)
    assert f.compilations == 1


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: m.forward, lambda m: functools.partial(m.forward)])
def test_modules_and_methods(engine, wrap):
    m = net()
    c, x = og.compile(wrap(m)), og.tensor(floats(3, 6))
    np.testing.assert_allclose(c(x).detach().numpy(), m(x).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_a_compiled_module_has_the_modules_attributes():
    m = net()
    c = og.compile(m)
    assert [n for n, _ in c.named_parameters()] == [n for n, _ in m.named_parameters()]
    c.eval()
    assert not m.training


def test_a_decorator_with_arguments_and_on_methods():
    class Scale:
        def __init__(self):
            self.by = og.tensor(3.0)

        @og.compile(threads=1)
        def __call__(self, x):
            return x * self.by

    s = Scale()
    assert s(og.ones(2)).tolist() == [3, 3]
    s.by.fill_(4)
    assert s(og.ones(2)).tolist() == [4, 4]


def test_modes_of_modules_are_part_of_the_signature():
    m = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    c, x = og.compile(m), og.tensor(floats(2, 4))
    og.manual_seed(3)
    a = c(x).detach().numpy()
    og.manual_seed(3)
    np.testing.assert_allclose(a, m(x).detach().numpy(), rtol=1e-5, atol=1e-6)
    m.eval()
    np.testing.assert_allclose(c(x).detach().numpy(), m(x).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_gradients_flow_through_a_compiled_module(engine):
    og.manual_seed(0)
    m = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 5)
    )
    c = og.compile(m)
    for batch in (4, 6, 3):
        x = og.tensor(floats(batch, 3, 8, 8), requires_grad=True)
        before = {k: t.array.copy() for k, t in m.state_dict().items()}
        found = []
        for f in (c, m):
            for k, t in m.state_dict().items():
                t.array[...] = before[k]
            y = f(x)
            (y * y).sum().backward()
            found.append(
                [x.grad.array, *(p.grad.array for p in m.parameters()), *(b.array.copy() for b in m.buffers())]
            )
            x.grad = None
            m.zero_grad()
        for a, b in zip(*found, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * max(1, np.abs(b).max()))
    assert c.compilations == 2


def test_a_changed_parameter_is_noticed_by_backward():
    m = net()
    y = og.compile(m)(og.tensor(floats(2, 6)))
    with og.no_grad():
        next(iter(m.parameters())).add_(1)
    with pytest.raises(AutogradError, match="modified by an inplace operation"):
        y.sum().backward()


def test_second_derivatives_of_a_compiled_function_are_refused():
    x = og.tensor([1.0, 2.0], requires_grad=True)
    y = og.compile(lambda x: (x * x).sum())(x)
    with pytest.raises(AutogradError, match="first derivatives only"):
        y.backward(create_graph=True)


def test_backward_inside_into_a_computed_argument_is_refused():
    x = og.ones(2, requires_grad=True) * 2

    def f(x):
        loss = (x * x).sum()
        loss.backward()
        return loss

    with pytest.raises(AutogradError, match="computed outside"):
        og.compile(f)(x)


def test_64_batch_sizes_cost_three_compilations():
    m = net()
    c = og.compile(lambda x, y: F.mse_loss(m(x), y))
    with og.no_grad():
        for n in RNG.permutation(64) + 1:
            x, y = og.tensor(floats(n, 6)), og.tensor(floats(n, 3))
            np.testing.assert_allclose(c(x, y).item(), F.mse_loss(m(x), y).item(), rtol=1e-4)
    assert c.compilations <= 3


def test_sizes_that_were_equal_by_chance_part(engine):
    c = og.compile(lambda a, b: a.sum() * b.sum())
    for m, n in ((3, 3), (4, 4), (5, 6), (7, 2), (9, 9)):
        a, b = floats(m), floats(n)
        np.testing.assert_allclose(c(a, b).item(), a.sum() * b.sum(), rtol=1e-3, atol=1e-4)
    assert c.compilations == 3


def test_sizes_that_python_reads_are_compiled_one_by_one_with_a_warning():
    c = og.compile(lambda x: sum(x[i] for i in range(x.shape[0])))
    assert c(og.ones(2)).item() == 2
    with pytest.warns(RuntimeWarning, match="each new size is compiled anew"):
        assert c(og.ones(3)).item() == 3
    assert c(og.ones(5)).item() == 5 and c.compilations == 3


def test_indexing_and_slices(engine):
    f = og.compile(lambda x, i: (x[:, 0], x[..., 1:3], x[-1], x[i], x[:, None].shape[1]))
    for n in (4, 5, 6):
        x, i = floats(n, 4), RNG.integers(0, n, 3)
        found = f(og.tensor(x), og.tensor(i))
        for a, b in zip(found[:4], (x[:, 0], x[..., 1:3], x[-1], x[i]), strict=True):
            np.testing.assert_array_equal(a.numpy(), b)
        assert found[4] == 1


def test_programs_are_bounded():
    f = og.compile(lambda x, k: x + k)
    x = og.ones(2)
    for k in range(70):
        assert f(x, k).tolist() == [1 + k, 1 + k]
    assert (len(f._programs), len(f._families)) == (8, 64)


def test_a_compiled_function_inside_another_is_part_of_it():
    inner = og.compile(lambda x: x * 2)
    outer = og.compile(lambda x: inner(x) + 1)
    assert outer(og.ones(2)).tolist() == [3, 3] and inner.compilations == 0


def test_eager_code_in_other_threads_goes_on(engine):
    import threading

    wrong = []

    def eager():
        x = og.ones(4, requires_grad=True)
        for _ in range(200):
            x.grad = None
            (x * 3).sum().backward()
            if x.grad.tolist() != [3] * 4:
                wrong.append(x.grad.tolist())

    thread = threading.Thread(target=eager)
    thread.start()
    for n in range(2, 7):
        og.compile(net())(og.tensor(floats(n, 6)))
    thread.join()
    assert not wrong


def test_an_argument_that_is_a_parameter_too():
    m = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    a, b = m.parameters()
    f, x = og.compile(lambda m, w, x: m(x) + w.sum()), og.ones(1, 2)
    with og.no_grad():
        for w in (a, b, a, og.ones(2, 2), b):
            np.testing.assert_allclose(f(m, w, x).numpy(), (m(x) + w.sum()).numpy(), rtol=1e-5)


def test_modes_behind_objects_and_compiled_functions_count():
    class Holder:
        def __init__(self):
            self.m = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.9))

        def run(self, x):
            return self.m(x)

    h = Holder()
    for f in (og.compile(h.run), og.compile(lambda x: og.compile(h.run)(x))):
        h.m.train()
        x = og.ones(4, 2)
        og.manual_seed(0)
        dropped = f(x).detach().numpy()
        h.m.eval()
        kept = f(x).detach().numpy()
        assert (dropped == 0).any() and not (kept == 0).any()


def test_arrays_of_tensors_are_not_there():
    with pytest.raises(TraceError, match="works on the array"):
        og.compile(lambda x: og.Tensor(x.array.astype("float64") * 2))(og.ones(2))


def test_checkpointed_parts_draw_once():
    from onnxgrad.utils.checkpoint import checkpoint

    m = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Tanh())

    def backward(x):
        m.zero_grad()
        checkpoint(m, x).sum().backward()

    grads = []
    x = og.tensor(floats(3, 4))
    for f in (og.compile(backward), backward):
        og.manual_seed(5)
        f(x)
        grads.append([p.grad.array for p in m.parameters()])
    for a, b in zip(*grads, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x.mean(),
        lambda x: x[:, 1:].sum(),
        lambda x: x[:, :-1].mean(),
        lambda x: x.mean(1).sum(),
        lambda x: (x * 2).sum(),
    ],
)
def test_gradients_that_read_nothing_but_sizes(f):
    compiled = og.compile(f)
    for size in (4, 5, 6, 3):
        x, y = (og.tensor(np.arange(6.0 * size).reshape(2, size, 3), requires_grad=True) for _ in range(2))
        compiled(x).backward()
        f(y).backward()
        np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-12)


def test_gradient_of_nothing() -> None:
    """What has no elements is made without work, and without a warning."""
    gradient = og.compile(og.func.grad(lambda x: x.sum()))
    assert gradient(og.zeros(0, 3)).shape == (0, 3)
