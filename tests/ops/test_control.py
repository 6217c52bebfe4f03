"""Control flow: types, gradients on the tape against PyTorch's unrolled code, bodies inside bodies."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgrad.ops import pointwise as pw, reduce
from onnxgrad.ops.control import if_, loop, scan
from onnxgrad.ops.dims import Dim
from onnxgrad.ops.errors import DTypeError, OpError, ShapeError
from onnxgrad.ops.meeting import merged
from onnxgrad.ops.types import OptionalType, SequenceType, TensorType
from onnxgrad.runtime.autograd import tape
from onnxgrad.runtime.graph.execute import run_graph
from onnxgrad.runtime.graph.graph import Graph
from onnxgrad.runtime.tensor.tensor import Tensor

from .bodies import body
from .case import rand

F = "float64"
F64 = np.dtype(F)
N = Dim.symbol("n")


def tensor(*shape):
    return TensorType(F64, shape)


def test_types_of_two_branches_meet():
    assert merged(tensor(N, 3), tensor(N, 3)) == tensor(N, 3)
    met = merged(tensor(N, 3), tensor(N, 4))
    assert met.shape[0] == N and isinstance(met.shape[1], Dim) and met.shape[1] != N
    assert merged(tensor(2), tensor(2, 3)).known_shape is None
    assert merged(SequenceType(tensor(2)), SequenceType(tensor(2, 3))) == SequenceType(TensorType(F64, None))
    assert merged(tensor(2), OptionalType(tensor(2))) == OptionalType(tensor(2))
    with pytest.raises(DTypeError, match="one way"):
        merged(tensor(2), TensorType(np.dtype(np.int64), (2,)))


def test_branches_have_to_return_as_many_values():
    one, two = body(lambda x: (x,), (F, 2)), body(lambda x: (x, x), (F, 2))
    with pytest.raises(OpError, match="1 values, the other 2"):
        if_.infer_types(TensorType(np.dtype(bool), ()), tensor(2), tensor(2), then=one, orelse=two, split=1)


def test_a_predicate_is_one_element():
    one = body(lambda x: (x,), (F, 2))
    with pytest.raises(ShapeError, match="one element"):
        if_(np.array([True, False]), rand(2), rand(2), then=one, orelse=one, split=1)


def test_sequences_of_different_length_do_not_scan():
    pair = body(lambda s, x, y: (s, pw.add(x, y)), (F,), (F,), (F,))
    how = {"in_axes": (0, 0), "in_reverse": (False,) * 2, "out_axes": (0,), "out_reverse": (False,)}
    with pytest.raises(ShapeError, match=r"different lengths \[2, 3\]"):
        scan(rand(), rand(2), rand(3), body=pair, states=1, inputs=2, **how)


STEP = body(lambda i, c, x, w: (c, pw.sin(pw.mul(x, w)), pw.mul(x, w)), ("int64",), ("bool",), (F, 3), (F, 3))
CELL = body(lambda s, x, w: (pw.tanh(pw.add(pw.mul(s, w), x)), pw.mul(s, x)), (F, 3), (F, 3), (F, 3))


def looped(x, w):
    last, every = loop(np.array(4), None, x, w, body=STEP, carried=1)
    return pw.add(reduce.sum_(pw.mul(last, last)), reduce.sum_(pw.exp(every)))


def scanned(x, w):
    last, every = scan(
        pw.mul(w, 0.5),
        pw.mul(x, np.arange(1.0, 6).reshape(5, 1)),
        w,
        body=CELL,
        states=1,
        inputs=1,
        in_axes=(0,),
        in_reverse=(True,),
        out_axes=(1,),
        out_reverse=(False,),
    )
    return pw.add(reduce.sum_(pw.mul(last, last)), reduce.sum_(pw.sin(every)))


def chosen(x, w):
    twice = body(lambda x: (pw.mul(x, 2.0),), (F, 3))
    cube = body(lambda x, w: (pw.mul(pw.mul(x, x), w),), (F, 3), (F, 3))
    p = pw.greater(reduce.sum_(x), reduce.sum_(w))
    (y,) = if_(p, x, x, w, then=twice, orelse=cube, split=1)
    return reduce.sum_(pw.sin(y))


def torch_looped(torch, x, w):
    total = 0
    for _ in range(4):
        total = total + (x * w).exp().sum()
        x = (x * w).sin()
    return (x * x).sum() + total


def torch_scanned(torch, x, w):
    total, s = 0, w * 0.5
    for t in reversed(range(5)):
        xt = x * (t + 1)
        total = total + (s * xt).sin().sum()
        s = (s * w + xt).tanh()
    return (s * s).sum() + total


def torch_chosen(torch, x, w):
    return (x * 2 if x.sum() > w.sum() else x * x * w).sin().sum()


@pytest.mark.oracle
@pytest.mark.parametrize("ours,theirs", [(looped, torch_looped), (scanned, torch_scanned), (chosen, torch_chosen)])
@pytest.mark.parametrize("seed", range(4))
def test_gradients_of_two_orders_agree_with_unrolled_pytorch(ours, theirs, seed):
    torch = pytest.importorskip("torch")
    arrays = [rand(3, seed=seed), rand(3, seed=seed + 10)]
    xs = [Tensor(a, requires_grad=True) for a in arrays]
    ts = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, z = ours(*xs), theirs(torch, *ts)
    np.testing.assert_allclose(y.array, z.detach().numpy(), atol=1e-12)
    gs = tape.grad(y, xs, create_graph=True, allow_unused=True)
    hs = torch.autograd.grad(z, ts, create_graph=True, allow_unused=True)
    for g, h in zip(gs, hs, strict=True):
        assert (g is None) == (h is None)
        if g is not None:
            np.testing.assert_allclose(g.array, h.detach().numpy(), atol=1e-11)
    second = tape.grad(reduce.sum_(pw.sin(gs[0])), xs, allow_unused=True)
    other = torch.autograd.grad(hs[0].sin().sum(), ts, allow_unused=True)
    for g, h in zip(second, other, strict=True):
        if h is not None:
            np.testing.assert_allclose(g.array, h.numpy(), atol=1e-10)


def test_a_body_inside_a_body_captures_through_it():
    graph = Graph("outer")
    with graph.building():
        p, q, x, w = (
            graph.input(n, t)
            for n, t in (
                ("p", TensorType(np.dtype(bool), ())),
                ("q", TensorType(np.dtype(bool), ())),
                ("x", tensor(N)),
                ("w", tensor(N)),
            )
        )
        from onnxgrad.runtime.graph.body import Body

        middle = graph.body("middle")
        with middle.building():
            inner, other = middle.body("inner"), middle.body("other")
            with inner.building():
                inner.outputs = [pw.mul(x, w)]
            with other.building():
                other.outputs = [pw.neg(x)]
            caught = [v for v, _ in inner.captures]
            middle.outputs = list(
                if_(
                    q,
                    *caught,
                    *(v for v, _ in other.captures),
                    then=Body(inner),
                    orelse=Body(other),
                    split=len(caught),
                )
            )
        rest = graph.body("rest")
        with rest.building():
            rest.outputs = [pw.exp(x)]
        caught = [v for v, _ in middle.captures]
        (y,) = if_(
            p,
            *caught,
            *(v for v, _ in rest.captures),
            then=Body(middle),
            orelse=Body(rest),
            split=len(caught),
        )
        graph.outputs = [y]
    graph.verify()
    assert y.shape == (N,)
    a, b = rand(4), rand(4, seed=1)
    for p_, q_, wanted in ((True, True, a * b), (True, False, -a), (False, True, np.exp(a))):
        (found,) = run_graph(graph, [np.array(p_), np.array(q_), a, b])
        np.testing.assert_array_equal(found, wanted)
