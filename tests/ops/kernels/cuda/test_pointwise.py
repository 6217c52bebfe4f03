"""Pointwise kernels over every way of lying in memory, against the array kernels of the ops."""

import numpy as np
import pytest

from onnxgrad.ops import pointwise as pw
from onnxgrad.ops.expr import Var, call, maximum, sigmoid, where
from onnxgrad.ops.kernels.cuda import elementwise, indexing, pointwise
from onnxgrad.ops.kernels.cuda.lowering import LOWERINGS
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import BFLOAT16, TensorType

from . import host
from .site import lower, make_site, refuses, run_op

pytestmark = [
    pytest.mark.skipif(host.why_not() is not None, reason=str(host.why_not())),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

A, B, C = (Var(f"a{i}") for i in range(3))
HALF = (np.dtype(np.float16), BFLOAT16)


def draw(shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def chain(arrays, *, dtype=None, **how):
    """Return a * b + c, from the kernel and in float64."""
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    dtype = np.dtype(dtype or arrays[0].dtype)
    expression = A * B + C if len(arrays) == 3 else A * B + A
    (y,) = run_op("pointwise", arrays, {"expression": expression}, results=[TensorType(dtype, shape)], **how)
    wide = [a.astype(np.float64) for a in arrays]
    return y, wide[0] * wide[1] + (wide[2] if len(arrays) == 3 else wide[0])


def check(arrays, **how):
    y, wanted = chain(arrays, **how)
    tolerance = {2: 2e-2 if y.dtype == BFLOAT16 else 4e-3, 4: 3e-7, 8: 1e-15}[y.dtype.itemsize]
    np.testing.assert_allclose(y.astype(np.float64), wanted, rtol=tolerance, atol=tolerance * 4)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (5,), (1000,), (3, 0, 2), (7, 11), (4, 1, 6), (2, 3, 5, 8)])
def test_tensors_of_one_shape(shape):
    check([draw(shape, seed=i) for i in range(3)])


@pytest.mark.parametrize("dtypes", [("float16",) * 3, (BFLOAT16, BFLOAT16, "float32"), ("float64",) * 3,
                                    ("float32", "float16", "float64")])  # fmt: skip
@pytest.mark.parametrize("shift", [0, 1])
def test_element_types(dtypes, shift):
    check([draw((3, 131), t, i) for i, t in enumerate(dtypes)], shift=shift)


BROADCASTS = [
    ((2, 8, 7, 7), (8, 1, 1), ()),  # a channel's numbers, rows that packs do not divide
    ((2, 8, 4, 8), (8, 1, 1), (2, 1, 1, 1)),
    ((5, 64), (64,), (5, 1)),
    ((5, 63), (63,), (5, 1)),
    ((3, 1, 16), (1, 4, 1), (3, 4, 16)),
    ((6, 1, 1), (1, 5, 1), (1, 1, 9)),
    ((4, 6, 8), (1, 6, 1), (4, 1, 8)),
]  # fmt: skip


@pytest.mark.parametrize("shapes", BROADCASTS)
@pytest.mark.parametrize(("dtype", "order"), [("float32", "plain"), ("float16", "plain"), ("float32", "transposed")])
def test_broadcasting(shapes, dtype, order):
    check([draw(s, dtype, i) for i, s in enumerate(shapes)], order=order)


@pytest.mark.parametrize("out_order", ["plain", "channels_last", "transposed"])
def test_any_strides(out_order):
    base = draw((6, 10, 16, 8))
    turned = draw((16, 3, 8, 8)).transpose(1, 2, 0, 3)
    check([base[::2, 1:9], turned, base[:3, :8, ::-1, ::-1]], order="own", out_order=out_order)
    gaps = draw((3, 8, 9), seed=1)[:, :, :8]  # rows that packs would fit, at places that they do not
    check([base[:3, :8, 3], gaps, gaps], order="own", out_order=out_order)
    rows = np.broadcast_to(base[0, :1, 0], (3, 8, 8))
    check([base[:3, :8, 3], base[3:, 2:, 4], rows], order="own", out_order=out_order)


@pytest.mark.parametrize("order", ["plain", "channels_last"])
def test_channels_last(order):
    check([draw((2, 12, 5, 5)), draw((12, 1, 1), seed=1), draw((2, 12, 5, 5), seed=2)], order=order)
    check([draw((2, 12, 5, 5)), draw((12, 1, 1), seed=1)], order=order, out_order="channels_last")


@pytest.fixture
def many_packs(monkeypatch):
    """Let threads take several packs, as they do of large tensors."""
    monkeypatch.setattr(elementwise, "_ENOUGH_BLOCKS", 0)


@pytest.mark.parametrize("shapes", [((3000,), (), ()), ((2, 8, 25, 7), (8, 1, 1), ()), ((40, 64), (64,), (40, 1))])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_several_packs_a_thread(many_packs, shapes, dtype):
    check([draw(s, dtype, i) for i, s in enumerate(shapes)])
    check([draw(s, dtype, i) for i, s in enumerate(shapes[:2])])


@pytest.mark.parametrize("shapes", BROADCASTS[:2])
def test_indices_of_64_bits(monkeypatch, shapes):
    monkeypatch.setattr(indexing, "NARROW", 0)
    site = make_site("add", [draw(s) for s in shapes[:2]])
    assert lower(site) and "typedef i64 index" in site.work[0].kernel.code
    check([draw(s, seed=i) for i, s in enumerate(shapes)])


def test_an_input_that_lies_across_is_copied_first(monkeypatch):
    monkeypatch.setattr(pointwise, "_LARGE", 0)
    arrays = [draw((3, 20, 36)), draw((3, 36, 20), seed=1).transpose(0, 2, 1), draw((36, 20), seed=2).T]
    results = [TensorType(np.dtype("float32"), (3, 20, 36))]
    site = make_site("pointwise", arrays, {"expression": A * B + C}, results=results, order="own")
    assert lower(site) and len(site.work) == 3
    check(arrays, order="own")


def test_constants_become_parameters_and_exponents_products():
    x = draw((40,))
    types = [TensorType(x.dtype, x.shape)]

    def texts(value, expression):
        arrays = [x, np.array(value, np.float32)]
        site = make_site("pointwise", arrays, {"expression": expression}, results=types, constants=[1])
        assert lower(site)
        (y,) = run_op("pointwise", arrays, {"expression": expression}, results=types, constants=[1])
        return y, site.work[0].kernel

    y, first = texts(3.0, A * B)
    z, second = texts(5.0, A * B)
    np.testing.assert_array_equal(y, 3 * x)
    np.testing.assert_array_equal(z, 5 * x)
    assert first.key == second.key and first.parameters.count("pointer") == 2
    y, kernel = texts(2.0, call("pow", A, B))
    np.testing.assert_array_equal(y, x * x)
    assert "powf" not in kernel.code
    (y,) = run_op("pow", [np.array([3, -2], np.int64), 2])
    np.testing.assert_array_equal(y, [9, 4])
    (y,) = run_op("add", [np.array([True, False]), np.array([True, True])], constants=[1])
    np.testing.assert_array_equal(y, [True, True])


def test_a_size_compiles_nothing():
    def key(*shapes):
        site = make_site("add", [draw(s) for s in shapes])
        assert lower(site)
        return site.work[0].kernel.key

    assert key((64, 12, 20), (12, 1)) == key((32, 8, 36), (8, 1))
    assert key((64, 20), (64, 20)) == key((7, 4, 4), (7, 4, 4))


def test_in_place():
    """A thread reads its elements before it writes them, so the target may be an input."""
    x = draw((3, 77))
    site = make_site("relu", [x])
    assert lower(site)
    (work,) = site.work
    source, target = work.arguments[:2]
    target.buffer.memory[:] = source.view().tobytes() and np.frombuffer(x.tobytes(), np.uint8)
    host.run(work.kernel, work.grid, work.block, [target.address, target.address, *work.arguments[2:]])
    np.testing.assert_array_equal(target.view(), np.maximum(x, 0))


FLOATS = [n for n, o in OPS.items() if isinstance(o, pw.Pointwise) and o.expression is not None and "_grad_" not in n]


def test_every_pointwise_op_has_a_rule():
    assert {n for n, o in OPS.items() if isinstance(o, pw.Pointwise) and "_grad_" not in n} <= LOWERINGS.keys()


@pytest.mark.parametrize("name", ["relu", "gelu", "mish", "leaky_relu", "clip", "hard_sigmoid", "where", "elu", "less",
                                  "shrink", "prelu"])  # fmt: skip
def test_ops_alone(name):
    op = OPS[name]
    x = draw((4, 33)) * 3
    scalars = {"alpha": 0.25, "beta": 0.5, "low": -0.5, "high": 0.75, "bias": 0.1, "threshold": 0.5}
    given = {"c": x > 0, "slope": draw((33,), seed=1), **scalars}
    arrays = [given.get(n, x if i == 0 else draw((4, 33), seed=i)) for i, n in enumerate(op.names)]
    (y,) = run_op(name, arrays)
    wanted = op.run(*(a.astype(np.float64) if getattr(a, "dtype", None) == np.float32 else a for a in arrays))
    np.testing.assert_allclose(y, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "mish", "softplus"])
@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_is_rounded_once(name, dtype):
    x = np.concatenate([draw((500,)) * 4, [0.0, -0.0, np.inf, -np.inf, np.nan]]).astype(dtype)
    (y,) = run_op(name, [x])
    with np.errstate(all="ignore"):
        exact = OPS[name].run(x.astype(np.float64))
    wanted = exact.astype(dtype)
    off = y.view(np.int16).astype(int) - wanted.view(np.int16).astype(int)
    kept = ~np.isnan(exact)
    assert np.abs(off[kept]).max() <= 1 and (off[kept] != 0).mean() < 0.02
    assert np.isnan(y.astype(np.float64)[~kept]).all()


CASTS = [("float32", "float16"), ("int64", "bool"), ("bool", "float64"), ("uint8", "float32"), ("float32", "int8")]


@pytest.mark.parametrize(("source", "to"), CASTS)
def test_cast(source, to):
    x = np.array([0, 1, 2, 3, 7, 100, -0.0, 1.5, 99.4] * 3).astype(source)
    (y,) = run_op("cast", [x], {"dtype": to})
    np.testing.assert_array_equal(y, x.astype(to))


def test_mixed_types_and_conditions():
    x, c, k = draw((5, 1, 9)), draw((7, 1), seed=3) > 0, np.arange(9, dtype=np.int64)
    expression = where(B, A, sigmoid(A)) * call("cast:int64:float32", C)
    (y,) = run_op("pointwise", [x, c, k], {"expression": expression}, results=[TensorType(x.dtype, (5, 7, 9))])
    wanted = np.where(c, x, 1 / (1 + np.exp(-x.astype(np.float64)))) * k
    np.testing.assert_allclose(y, wanted, rtol=1e-6)
    (y,) = run_op("pointwise", [x, x], {"expression": maximum(A, 0) < B}, results=[TensorType(np.dtype(bool), x.shape)])
    np.testing.assert_array_equal(y, np.maximum(x, 0) < x)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_quantisation(dtype):
    x = np.concatenate([draw((4, 30)) * 40, [[np.inf, -np.inf, 1e30, -1e30, 0.5] * 6]]).astype(np.float32)
    scale, zero = np.array(0.3, np.float32), np.array(3, dtype)
    (q,) = run_op("quantize_linear", [x, scale, zero], {"dtype": dtype})
    np.testing.assert_array_equal(q, OPS["quantize_linear"].run(x, scale, zero, dtype=dtype))
    (y,) = run_op("dequantize_linear", [q, scale, zero], {"dtype": "float32"})
    np.testing.assert_array_equal(y, OPS["dequantize_linear"].run(q, scale, zero, dtype="float32"))
    rows = draw((30,), seed=1) ** 2 + 0.1
    (y,) = run_op("fake_quantize", [x, rows, rows], {"dtype": dtype, "to": "float32"})
    np.testing.assert_array_equal(y, OPS["fake_quantize"].run(x, rows, rows, dtype=dtype, to="float32"))
    sums = np.arange(-300, 300, 7, dtype=np.int32)
    (y,) = run_op("requantize", [sums, scale], {"dtype": dtype})
    np.testing.assert_array_equal(y, OPS["requantize"].run(sums, scale, dtype=dtype))


def test_what_is_refused():
    x = draw((3,))
    assert refuses("cast", [x], {"dtype": "float8_e4m3fn"})
    assert refuses("polygamma", [np.ones(3, np.float32), x])
    assert refuses("quantize_linear", [x, np.array(0.5, np.float16)], {"dtype": "int8"})


@pytest.mark.parametrize(
    "dtypes", [("float32", BFLOAT16), (BFLOAT16, "float32"), ("float16", "float64"), ("int32", "bool")]
)
@pytest.mark.parametrize("shape", [(64, 96), (3, 40, 5, 5), (2, 2), (3, 64, 9)])
def test_casts_of_what_lies_across(dtypes, shape):
    """One launch reads a tensor as it lies and writes it as it is wanted; large ones by tiles."""
    x = (draw(shape) * 3).astype(dtypes[0])
    attrs = {"dtype": np.dtype(dtypes[1]).name}
    wanted = x.astype(dtypes[1])
    orders = ["transposed", "channels_last"] if len(shape) > 2 else ["transposed"]
    for order in orders:
        site = make_site("cast", [x], attrs, order=order, out_order="plain")
        assert lower(site) and len(site.work) == 1
        (y,) = run_op("cast", [x], attrs, order=order, out_order="plain")
        np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize(("read_by", "last"), [(("conv",), True), (("conv", "conv_input_grad"), True), ((), False),
                                               (("conv", "matmul"), False)])  # fmt: skip
def test_casts_for_convolutions(read_by, last):
    """What convolutions alone read is written channels last."""
    x = draw((4, 16, 3, 3))
    site = make_site("cast", [x], {"dtype": "bfloat16"}, read_by=read_by)
    assert lower(site) and site.outputs[0].operand.channels_last is last
    (y,) = run_op("cast", [x], {"dtype": "bfloat16"}, read_by=read_by)
    np.testing.assert_array_equal(y, x.astype(BFLOAT16))
