"""Functions with a backward of their own, as PyTorch's lessons write them."""

import gc
import weakref

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.autograd import Function
from onnxgrad.autograd.function import once_differentiable
from onnxgrad.ops.errors import AutogradError


def leaf(*values):
    return og.tensor(list(values), dtype=og.float64, requires_grad=True)


class Exp(Function):
    @staticmethod
    def forward(ctx, i):
        result = i.exp()
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx, grad_output):
        (result,) = ctx.saved_tensors
        return grad_output * result


class Scaled(Function):
    """Several inputs and outputs, a number, an output without a gradient, what is not asked for left out."""

    @staticmethod
    def forward(ctx, a, b, k):
        ctx.save_for_backward(a, b)
        ctx.k = k
        order = (a > b).to(og.float64)
        ctx.mark_non_differentiable(order)
        return a * b * k, a + b, order

    @staticmethod
    def backward(ctx, g, h, _):
        a, b = ctx.saved_tensors
        ga = g * b * ctx.k + h if ctx.needs_input_grad[0] else None
        gb = g * a * ctx.k + h if ctx.needs_input_grad[1] else None
        return ga, gb, None


class Cube(Function):
    @staticmethod
    def forward(x):
        return x**3, 3 * x**2

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0], output[1])

    @staticmethod
    def backward(ctx, g, h):
        x, d = ctx.saved_tensors
        return g * d + h * 6 * x


class Legendre(Function):
    @staticmethod
    def forward(ctx, input):
        ctx.save_for_backward(input)
        return 0.5 * (5 * input**3 - 3 * input)

    @staticmethod
    def backward(ctx, grad_output):
        (input,) = ctx.saved_tensors
        return grad_output * 1.5 * (5 * input**2 - 1)


@pytest.mark.parametrize("f", [Exp.apply, Legendre.apply, lambda x: Cube.apply(x)[0], lambda x: Cube.apply(x)[1]])
def test_gradients_to_second_order(f):
    x = leaf(0.5, -1.0, 2.0)
    assert og.autograd.gradcheck(f, (x,)) and og.autograd.gradgradcheck(f, (x,))


def test_names_and_leaves_are_pytorchs():
    y = Exp.apply(leaf(1.0))
    assert y.grad_fn.name() == "ExpBackward" and not y.is_leaf and "grad_fn=<ExpBackward>" in repr(y)
    assert y.grad_fn.next_functions[0][0].name() == "AccumulateGrad"
    assert Exp.apply(og.ones(2)).grad_fn is None
    with og.no_grad():
        assert not Exp.apply(leaf(1.0)).requires_grad


def test_several_inputs_and_outputs():
    a, b = leaf(1.0, 5.0), leaf(3.0, 4.0)
    p, s, order = Scaled.apply(a, b, 2.0)
    assert order.tolist() == [0.0, 1.0] and not order.requires_grad and p.requires_grad
    (p.sum() + 3 * s.sum()).backward()
    assert a.grad.tolist() == [9.0, 11.0] and b.grad.tolist() == [5.0, 13.0]
    a.grad = None
    p, _, _ = Scaled.apply(a, b.detach(), 2.0)
    p.sum().backward()  # s takes no part: its gradient is zeros
    assert a.grad.tolist() == [6.0, 8.0]


def test_gradients_that_take_no_part_may_be_none():
    seen = []

    class Pair(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.set_materialize_grads(False)
            return x * 2, x * 3

        @staticmethod
        def backward(ctx, g, h):
            seen.append((g is None, h is None))
            return (0 if g is None else g * 2) + (0 if h is None else h * 3)

    x = leaf(1.0)
    Pair.apply(x)[1].backward()
    assert seen == [(True, False)] and x.grad.item() == 3.0


def test_changes_in_place():
    class Double(Function):
        @staticmethod
        def forward(ctx, x):
            x.mul_(2)
            ctx.mark_dirty(x)
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 2

    w = leaf(1.0, 2.0)
    x = w * 1
    part = x[1:]
    assert Double.apply(x) is x and x.grad_fn.name() == "DoubleBackward" and x._version == 1
    ((x * x).sum() + part.sum()).backward()
    assert w.grad.tolist() == [8.0, 18.0]
    with pytest.raises(AutogradError, match="leaf Variable"):
        Double.apply(w)
    w.grad, y = None, w * 1
    Double.apply(y[:1])
    y.sum().backward()
    assert w.grad.tolist() == [2.0, 1.0]


def test_an_argument_that_is_returned_is_another_tensor():
    class Same(Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 7

    w = leaf(1.0)
    y = Same.apply(w)
    assert y is not w and w.grad_fn is None
    y.backward()
    assert w.grad.item() == 7.0


def test_a_gradient_of_the_broadcast_shape_is_added_up():
    class Spread(Function):
        @staticmethod
        def forward(ctx, x):
            return x.expand(4, 2).clone()

        @staticmethod
        def backward(ctx, g):
            return g

    w = leaf(1.0, 2.0)
    Spread.apply(w).sum().backward()
    assert w.grad.tolist() == [4.0, 4.0]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda g: (g, g), r"incorrect number of gradients \(expected 1, got 2\)"),
        (lambda g: g.reshape(1, 2)[:, :1], r"invalid gradient at index 0 - got \[1, 1\] but expected shape compatible"),
        (lambda g: 3.0, "returned float as its gradient 0"),
    ],
)
def test_wrong_gradients_are_named(result, message):
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return result(g)

    with pytest.raises(AutogradError, match=message):
        Wrong.apply(leaf(1.0, 2.0)).sum().backward()


def test_what_was_saved_is_checked_and_freed():
    w = leaf(1.0, 2.0)
    x = w * 1
    y = Legendre.apply(x)
    x.add_(1)
    with pytest.raises(AutogradError, match="modified by an inplace operation"):
        y.sum().backward()
    y = Exp.apply(w).sum()
    y.backward()
    with pytest.raises(AutogradError, match="a second time"):
        y.backward()
    with pytest.raises(TypeError, match="save_for_backward can only save variables"):

        class Bad(Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(3)

        Bad.apply(w)


def test_outputs_that_are_saved_do_not_keep_themselves():
    y = Exp.apply(leaf(1.0))
    gone = weakref.ref(y)
    gc.disable()
    try:
        del y
        assert gone() is None
    finally:
        gc.enable()


def test_once_differentiable():
    class Once(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @once_differentiable
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 2 * g * x

    w = leaf(3.0)
    v = leaf(1.0)
    (g,) = og.autograd.grad(Once.apply(w), w, v, create_graph=True)
    assert g.item() == 6.0
    with pytest.raises(AutogradError, match="marked with @once_differentiable"):
        g.backward()


def test_it_compiles():
    w = leaf(0.5, 1.5)
    y = og.compile(lambda t: (Exp.apply(t) * 3).sum())(w)
    y.backward()
    np.testing.assert_allclose(w.grad.numpy(), 3 * np.exp([0.5, 1.5]), rtol=1e-12)


def test_missing_parts_are_errors():
    class Nothing(Function):
        pass

    class Half(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

    with pytest.raises(NotImplementedError, match="must implement the forward"):
        Nothing.apply(leaf(1.0))
    with pytest.raises(NotImplementedError, match="must implement either the backward or vjp"):
        Half.apply(leaf(1.0)).backward()
