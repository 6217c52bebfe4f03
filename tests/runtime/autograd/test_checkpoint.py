"""Computing again in backward: gradients as without, and less memory."""

from __future__ import annotations

import functools
import gc
import weakref
from typing import Any

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.autograd import check_grads, grad, recompute_loops
from onnxgrad.ops import control, matmul, pointwise as pw
from onnxgrad.ops.errors import AutogradError
from onnxgrad.runtime.autograd.node import Node
from onnxgrad.runtime.autograd.saved import Saved, SavedOutput
from onnxgrad.utils.checkpoint import checkpoint

from ...ops.bodies import body

F = "float64"


def drawn(*shape: int, seed: int = 0) -> og.Tensor:
    return og.tensor(np.random.default_rng([seed, *shape]).uniform(-1, 1, shape), requires_grad=True)


W = drawn(3, 3, seed=9)


def layer(x: Any) -> Any:
    return ((x @ W).sin() * x).exp()


def kept(y: og.Tensor) -> int:
    """Return the bytes that the tape below a Tensor keeps."""
    found: dict[int, int] = {}
    stack, seen = [y.grad_fn], set()
    while stack:
        node = stack.pop()
        if not isinstance(node, Node) or id(node) in seen:
            continue
        seen.add(id(node))
        for a in (*node.args, *node.outputs):
            if type(a) is Saved:
                found[id(a.tensor.array)] = a.tensor.nbytes
            elif type(a) is SavedOutput:
                found[id(a.array)] = a.array.nbytes
        stack += [e[0] for e in node.inputs if e is not None]
    return sum(found.values())


def gradients(f: Any, *xs: og.Tensor) -> list[np.ndarray]:
    y = f(*xs)
    y = sum(v.sum() for v in y) if isinstance(y, tuple) else y.sum()
    return [g.numpy() for g in grad([y], [*xs, W], allow_unused=True) if g is not None]


def same(f: Any, g: Any, *xs: og.Tensor) -> None:
    for a, b in zip(gradients(f, *xs), gradients(g, *xs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradients_of_arguments_and_of_what_it_takes_from_around_it() -> None:
    same(lambda x: checkpoint(layer, x), layer, drawn(2, 3))


def test_several_results_and_other_arguments() -> None:
    def f(parts: dict[str, Any], n: int, *, scale: Any, name: str) -> tuple[Any, ...]:
        assert name == "here" and type(parts["more"]) is tuple
        x, y = parts["x"], parts["more"][0]
        return (x * y).sin() ** n, y * scale, n

    def plain(x: Any, y: Any) -> Any:
        return f({"x": x, "more": (y, 1)}, 3, scale=x, name="here")[:2]

    def again(x: Any, y: Any) -> Any:
        return checkpoint(f, {"x": x, "more": (y, 1)}, 3, scale=x, name="here")[:2]

    same(again, plain, drawn(2, 3), drawn(2, 3, seed=1))


def test_inside_one_another() -> None:
    def outer(f: Any) -> Any:
        return lambda x: layer(f(layer(f(x) * 0.5)) * 0.1)

    inner = outer(lambda x: checkpoint(layer, x))
    same(lambda x: checkpoint(inner, x), outer(layer), drawn(2, 3))
    same(lambda x: checkpoint(lambda v: checkpoint(inner, v.sin()), x), lambda x: outer(layer)(x.sin()), drawn(2, 3))


def test_every_order() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (2, 3))
    check_grads(lambda v: checkpoint(layer, v), (x,), order=2)
    check_grads(lambda v: checkpoint(lambda u: checkpoint(layer, u) * u, v), (x,), order=2)


def test_a_gradient_inside() -> None:
    def steep(x: Any) -> Any:
        v = x * 1.0
        (g,) = grad([layer(v).sum()], [v], create_graph=True)
        return (g * g).sin()

    same(lambda x: checkpoint(steep, x), steep, drawn(2, 3))


def test_backward_twice() -> None:
    x = drawn(2, 3)
    y = checkpoint(layer, x).sum()
    y.backward(retain_graph=True)
    first = x.grad.numpy().copy()
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * first)
    with pytest.raises(AutogradError, match="second time"):
        y.backward()


def test_random_numbers_come_again_and_leave_the_generator_where_it_was() -> None:
    def noisy(x: Any) -> Any:
        return (x * og.rand(2, 3)).sin() * og.rand(2, 3)

    def run(f: Any) -> tuple[np.ndarray, np.ndarray]:
        og.manual_seed(3)
        x = drawn(2, 3)
        f(x).sum().backward()
        return x.grad.numpy(), og.rand(4).numpy()

    for a, b in zip(run(noisy), run(lambda x: checkpoint(noisy, x)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(run(noisy)[0], run(lambda x: checkpoint(noisy, x, preserve_rng_state=False))[0])


def test_without_gradients_it_is_a_call() -> None:
    calls = []
    with og.no_grad():
        y = checkpoint(lambda x: calls.append(1) or layer(x), drawn(2, 3))
    assert not y.requires_grad and calls == [1]
    assert checkpoint(lambda a, b: a + b, 1, b=2) == 3


def test_it_runs_again_once_and_only_as_far_as_it_has_to() -> None:
    calls = []

    def f(x: Any) -> Any:
        calls.append("start")
        y = x.sin().exp()
        calls.append("end")
        return y

    checkpoint(f, drawn(2, 3)).sum().backward()
    assert calls == ["start", "end", "start"]


def test_what_is_not_the_same_again_is_an_error() -> None:
    sizes = iter([2, 3])

    def f(x: Any) -> Any:
        return x.reshape(-1)[: next(sizes)].sin().exp().sum()

    with pytest.raises(AutogradError, match="has to compute the same"):
        checkpoint(f, drawn(2, 3)).backward()
    short = iter([False, True])
    with pytest.raises(AutogradError, match="values were kept"):
        checkpoint(lambda x: x.sum() if next(short) else x.sin().exp().sum(), drawn(2, 3)).backward()


def test_a_changed_argument_is_an_error() -> None:
    x = drawn(2, 3)
    y = x * 1.0
    z = checkpoint(layer, y).sum()
    with og.no_grad():
        y.mul_(2.0)
    with pytest.raises(AutogradError, match="inplace"):
        z.backward()


def test_only_the_arguments_are_kept() -> None:
    def deep(x: Any, n: int, f: Any) -> Any:
        for _ in range(n):
            x = f(x)
        return x

    def block(x: Any, n: int) -> Any:
        return deep(x, n, lambda v: (v * 0.9).sin().exp() * 0.3)

    x = drawn(100, 100)
    plain = [kept(deep(x, 3, functools.partial(block, n=n))) for n in (1, 8)]
    again = [kept(deep(x, 3, functools.partial(checkpoint, block, n=n))) for n in (1, 8)]
    assert plain[1] > 7 * plain[0] and again[0] == again[1] <= x.nbytes
    same(lambda v: deep(v, 3, lambda u: checkpoint(block, u, 8)), lambda v: deep(v, 3, lambda u: block(u, 8)), x)


def test_values_go_when_the_graph_does() -> None:
    x = drawn(2, 3)
    alive: list[Any] = []

    def f(v: Any) -> Any:
        y = v.sin()
        alive.append(weakref.ref(y.array))
        return y.exp()

    z = checkpoint(f, x)
    gc.collect()
    assert alive[0]() is None
    z.sum().backward()
    del z
    gc.collect()
    assert all(ref() is None for ref in alive)


def steps(n: int) -> Any:
    """Return a loop's body that computes n times more than it hands on."""

    def step(i: Any, going: Any, x: Any, w: Any) -> tuple[Any, ...]:
        for _ in range(n):
            x = pw.sin(pw.mul(matmul.matmul(x, w), x))
        return going, x, pw.mul(x, x)

    return body(step, ("int64",), ("bool",), (F, 20, 20), (F, 20, 20))


def looped(n: int) -> Any:
    return lambda x, w: control.loop(np.array(4), None, x, w, body=steps(n), carried=1)


def scanned(x: Any, w: Any) -> Any:
    inner = body(lambda s, e, v: (pw.sin(matmul.matmul(pw.mul(s, e), v)),) * 2, (F, 20, 20), (F, 20, 20), (F, 20, 20))
    how = {"in_axes": (0,), "in_reverse": (False,), "out_axes": (0,), "out_reverse": (False,)}
    xs = og.stack([x, x.sin(), x.cos()])
    return control.scan(x, xs, w, body=inner, states=1, inputs=1, **how)


@pytest.mark.parametrize("f", [looped(2), scanned], ids=["loop", "scan"])
def test_loops_compute_again(f: Any) -> None:
    x, w = drawn(20, 20), drawn(20, 20, seed=1)

    def again(*xs: Any) -> Any:
        with recompute_loops():
            return f(*xs)

    same(again, f, x, w)


def test_a_loop_keeps_what_goes_around_and_no_more() -> None:
    x, w = drawn(20, 20), drawn(20, 20, seed=1)

    def bytes_of(n: int) -> int:
        return kept(looped(n)(x, w)[0])

    plain = [bytes_of(n) for n in (1, 6)]
    with recompute_loops():
        again = [bytes_of(n) for n in (1, 6)]
    assert plain[1] > 4 * plain[0]
    assert again[0] == again[1] <= 5 * x.nbytes


def test_loops_in_loops_compute_again() -> None:
    inner = steps(2)

    def around(i: Any, going: Any, x: Any, w: Any) -> tuple[Any, ...]:
        return going, control.loop(pw.add(i, 1), None, pw.sin(x), w, body=inner, carried=1)[0]

    outer = body(around, ("int64",), ("bool",), (F, 20, 20), (F, 20, 20))

    def f(x: Any, w: Any) -> Any:
        return control.loop(np.array(3), None, x, w, body=outer, carried=1)[0]

    def again(*xs: Any) -> Any:
        with recompute_loops():
            return f(*xs)

    same(again, f, drawn(20, 20), drawn(20, 20, seed=1))


@pytest.mark.oracle
def test_as_pytorch() -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.checkpoint import checkpoint as theirs

    x = np.random.default_rng(0).uniform(-1, 1, (2, 3))
    t, w = torch.tensor(x, requires_grad=True), torch.tensor(W.detach().numpy(), requires_grad=True)
    theirs(lambda v: ((v @ w).sin() * v).exp(), t, use_reentrant=False).sum().backward()
    ours = gradients(lambda v: checkpoint(layer, v, use_reentrant=False), og.tensor(x, requires_grad=True))
    np.testing.assert_allclose(ours[0], t.grad.numpy(), rtol=1e-12)
    np.testing.assert_allclose(ours[1], w.grad.numpy(), rtol=1e-12)
