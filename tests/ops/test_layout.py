"""Layout: random slices, pads and reshapes against NumPy, symbolic sizes, and PyTorch's gradients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from onnxgrad.ops import create, index, layout, spatial
from onnxgrad.ops.dims import Dim, evaluate
from onnxgrad.ops.errors import DTypeError, ShapeError, SymbolicError
from onnxgrad.ops.extent import UNBOUNDED, extent
from onnxgrad.ops.types import TensorType, type_of
from onnxgrad.ops.window import Window
from onnxgrad.runtime.graph.contents import dims_of
from onnxgrad.runtime.graph.execute import run_graph
from onnxgrad.runtime.graph.graph import Graph
from onnxgrad.runtime.tensor.tensor import Tensor

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)
N = Dim.symbol("n")
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
bounds = st.one_of(st.integers(-6, 6), st.sampled_from([UNBOUNDED, 2**63 - 1, -UNBOUNDED, -(2**63)]))
steps = st.integers(-3, 3).filter(bool)


def numbers(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float64).reshape(shape)


@given(shapes, st.data())
def test_slice_is_numpys(shape, data):
    axes = tuple(data.draw(st.lists(st.integers(0, len(shape) - 1), unique=True)))
    cuts = [data.draw(st.tuples(bounds, bounds, steps)) for _ in axes]
    starts, stops, by = zip(*cuts, strict=True) if cuts else ((), (), ())
    place = [slice(None)] * len(shape)
    for axis, cut in zip(axes, cuts, strict=True):
        place[axis] = slice(*cut)
    x, where = numbers(shape), {"starts": starts, "stops": stops, "steps": by, "axes": axes}
    y = layout.slice_(x, **where)
    np.testing.assert_array_equal(y, x[tuple(place)])
    assert layout.slice_.infer_types(type_of(x), **where).shape == y.shape
    back = layout.unslice(y, **where, size=shape)
    assert back.sum() == y.sum() and back.shape == shape


@given(st.integers(1, 9), bounds, bounds, steps)
def test_extent_of_a_symbol_holds_for_every_size(n, start, stop, step):
    found = extent(N, start, stop, step)
    if found is not None:
        assert evaluate(found, {"n": n}) == len(range(n)[start:stop:step])


@pytest.mark.parametrize(
    ("cut", "wanted"),
    [
        ((0, UNBOUNDED, 1), N),
        ((1, UNBOUNDED, 1), N - 1),
        ((0, -1, 1), N - 1),
        ((-1, UNBOUNDED, 1), 1),
        ((-1, -UNBOUNDED, -1), N),
        ((0, N, 1), N),
        ((0, UNBOUNDED, 2), (N + 1) // 2),
        ((0, 0, 1), 0),
        ((0, 5, 1), None),
        ((2, UNBOUNDED, 1), None),
    ],
)
def test_extent_of_a_symbol(cut, wanted):
    assert extent(N, *cut) == wanted


@given(shapes, st.data(), st.sampled_from(["constant", "edge", "wrap", "reflect"]))
def test_pad_is_numpys(shape, data, mode):
    pads = tuple(data.draw(st.tuples(st.integers(0, 5), st.integers(0, 5))) for _ in shape)
    if mode == "reflect":
        shape = tuple(n + 1 for n in shape)
    x = numbers(shape)
    y = layout.pad(x, pads=pads, mode=mode)
    np.testing.assert_array_equal(y, np.pad(x, pads, mode=mode))
    assert layout.pad.infer_types(type_of(x), pads=pads, mode=mode).shape == y.shape


@given(shapes, st.data())
def test_reshape_finds_the_hole(shape, data):
    target = list(data.draw(st.permutations(shape)))
    hole = data.draw(st.integers(0, len(target) - 1))
    wanted, target[hole] = target[hole], -1
    assert layout.reshape.infer_types(type_of(numbers(shape)), shape=tuple(target)).shape[hole] == wanted


def test_shape_arithmetic_stays_known():
    """Shape -> Slice, Gather -> Mul -> Unsqueeze -> Concat -> Reshape."""
    graph = Graph()
    x = graph.input("x", TensorType(F32, (N, 8, 6)))
    with graph.building():
        sizes = create.shape_of(x)
        first = index.gather(sizes, np.array(0), axis=0)
        rest = layout.slice_(sizes, starts=(1,), stops=(UNBOUNDED,), steps=(1,), axes=(0,))
        eight, six = layout.split(rest, axis=0, sizes=(1, 1))
        target = layout.concat(layout.unsqueeze(first, axes=(0,)), six, np.array([2, -1]), axis=0)
        assert dims_of(target) == (N, 6, 2, -1)
        assert dims_of(layout.reshape(layout.squeeze(eight, axes=(0,)), shape=(1,))) == (8,)
        y = layout.reshape(x, shape=dims_of(target))
        zeros = create.fill(create.shape_of(y, start=0, end=2), value=0.0, dtype="float32")
        graph.outputs = [y, zeros]
    assert y.shape == (N, 6, 2, 4)
    assert zeros.shape == (N, 6)
    for n in (1, 3):
        a, b = run_graph(graph, [np.zeros((n, 8, 6), np.float32)])
        assert a.shape == (n, 6, 2, 4) and b.shape == (n, 6)


def test_sizes_that_only_run_time_knows_are_bound():
    graph = Graph()
    x = graph.input("x", TensorType(F32, (N,)))
    shape = graph.input("shape", TensorType(I64, (2,)))
    with graph.building():
        y = layout.reshape_to(x, shape)
        graph.outputs = [create.shape_of(y), layout.reshape(y, shape=(y.shape[1], y.shape[0]))]
    sizes, turned = run_graph(graph, [np.zeros(6, np.float32), np.array([2, -1])])
    assert sizes.tolist() == [2, 3] and turned.shape == (3, 2)


def test_range_counts_symbols():
    one = TensorType(I64, (), (1,))
    assert create.range_.infer_types(TensorType(I64, (), (0,)), TensorType(I64, (), (N,)), one).shape == (N,)
    past = TensorType(I64, (), (Dim.symbol("past"),))
    total = TensorType(I64, (), (Dim.symbol("past") + N,))
    assert create.range_.infer_types(past, total, one).shape == (N,)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda x: layout.reshape(x, shape=(5,)), ShapeError),
        (lambda x: layout.reshape.infer(type_of(x), shape=(5,)), ShapeError),
        (lambda x: layout.reshape.infer(type_of(x), shape=(-1, -1)), ShapeError),
        (lambda x: layout.squeeze(x, axes=(0,)), ShapeError),
        (lambda x: layout.squeeze.infer(type_of(x), axes=(5,)), ShapeError),
        (lambda x: layout.concat(x, x[0], axis=0), ShapeError),
        (lambda x: layout.concat.infer(type_of(x), type_of(x.astype(np.float32)), axis=0), DTypeError),
        (lambda x: layout.split(x, axis=0, sizes=(1, 2)), ShapeError),
        (lambda x: layout.expand(x, shape=(5, 3)), ShapeError),
        (lambda x: layout.pad(x[:, :0], pads=((0, 0), (1, 0)), mode="edge"), ShapeError),
        (lambda x: layout.transpose.infer(type_of(x), perm=(0, 0)), ShapeError),
        (lambda x: create.range_(np.array(0), np.array(3), np.array(0)), ShapeError),
        (lambda x: create.fill(np.array([-1]), value=0, dtype="float32"), ShapeError),
    ],
)
def test_misuse_says_so(call, error):
    with pytest.raises(error, match=r"\w+: "):
        call(numbers((2, 3)))


def test_unknown_rank_is_asked_for_only_where_it_matters():
    unknown = TensorType(F32, None)
    assert layout.reshape.infer_types(unknown, shape=(2, 3)).shape == (2, 3)
    assert layout.flatten.infer_types(unknown).ndim == 2
    assert layout.slice_.infer_types(unknown, starts=(0,), stops=(1,), steps=(1,), axes=(0,)).known_shape is None
    with pytest.raises(SymbolicError):
        _ = layout.slice_.infer_types(unknown, starts=(0,), stops=(1,), steps=(1,), axes=(0,)).ndim


def test_a_split_part_that_nothing_reads_costs_no_error():
    x = Tensor(numbers((4, 2)), requires_grad=True)
    _, b, _ = layout.split(x, axis=0, sizes=(1, 2, 1))
    b.backward(np.ones((2, 2)))
    np.testing.assert_array_equal(x.grad.array, [[0, 0], [1, 1], [1, 1], [0, 0]])


def test_half_precision_moves_unrounded():
    x = np.array([[1.0, 2.0], [3.0, 4.0]], np.float16)
    assert layout.tile(x, repeats=(1, 2)).dtype == np.float16
    assert layout.unpad(x, pads=((0, 0), (1, 0)), mode="edge", size=(2, 1)).dtype == np.float16


@pytest.mark.oracle
@pytest.mark.parametrize(("mode", "theirs"), [("reflect", "reflect"), ("edge", "replicate"), ("wrap", "circular")])
def test_pad_gradient_is_torchs(mode, theirs):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 6))
    ours = Tensor(x, requires_grad=True)
    y = layout.pad(ours, pads=((0, 0), (0, 0), (2, 3), (1, 4)), mode=mode)
    theirs_x = torch.tensor(x, requires_grad=True)
    wanted = torch.nn.functional.pad(theirs_x, (1, 4, 2, 3), mode=theirs)
    g = np.random.default_rng(1).standard_normal(y.shape)
    y.backward(g)
    wanted.backward(torch.tensor(g))
    np.testing.assert_array_equal(y.detach().numpy(), wanted.detach().numpy())
    np.testing.assert_allclose(ours.grad.numpy(), theirs_x.grad.numpy(), rtol=0, atol=1e-13)


@pytest.mark.oracle
def test_images_are_torchs():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((2, 12, 4, 6))
    t = torch.tensor(x)
    np.testing.assert_array_equal(spatial.depth_to_space(x, block=2, mode="CRD"), torch.pixel_shuffle(t, 2).numpy())
    np.testing.assert_array_equal(spatial.space_to_depth(x, block=2, mode="CRD"), torch.pixel_unshuffle(t, 2).numpy())
    win = Window((2, 1), ((1, 1), (0, 0)), (1, 2))
    columns = np.random.default_rng(1).standard_normal((2, 18, 12))
    wanted = torch.nn.functional.fold(
        torch.tensor(columns), (6, 8), (3, 3), dilation=(1, 2), padding=(1, 0), stride=(2, 1)
    )
    found = spatial.col2im(columns, size=(6, 8), block=(3, 3), win=win)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-13)
