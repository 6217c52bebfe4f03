"""Copies and layout ops against NumPy: what moves must arrive bit by bit."""

import ml_dtypes
import numpy as np
import pytest

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.errors import KernelError
from onnxgrad.ops.kernels.cuda import copy, indexing, layout  # noqa: F401 - registers the rules
from onnxgrad.ops.kernels.cuda.copy import copying
from onnxgrad.ops.kernels.cuda.operand import Operand, channels_last_strides, packed
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import BFLOAT16, TensorType

from . import host
from .site import Buffer, TestRef, TestSite, lower, make_site, refuses, run_op

pytestmark = pytest.mark.skipif(host.why_not() is not None, reason=str(host.why_not()))

ELEMENTS = [
    "float32",
    "float64",
    "float16",
    BFLOAT16,
    "bool",
    "int8",
    "uint16",
    "int32",
    "uint64",
    ml_dtypes.float8_e4m3fn,
]


def draw(shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)


def check(name, arrays, attrs=None, **how):
    """Compare an op's kernels with its array kernel, bit by bit."""
    found = run_op(name, arrays, attrs, **how)
    wanted = OPS[name].run(*arrays, **(attrs or {}))
    for y, z in zip(found, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
        assert y.dtype == z.dtype and y.shape == z.shape
        np.testing.assert_array_equal(y.view(f"u{y.itemsize}"), np.ascontiguousarray(z).view(f"u{y.itemsize}"))


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_every_element_type_is_copied_and_turned(dtype):
    check("identity", [draw((3, 37), dtype)])
    check("transpose", [draw((36, 40), dtype)])


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (5, 7), (8, 8), (33, 65), (64, 64), (130, 9), (8, 129)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "float64"])
def test_matrices_are_turned(shape, dtype):
    check("transpose", [draw(shape, dtype)])


@pytest.mark.parametrize("perm", [(0, 2, 3, 1), (0, 3, 1, 2), (0, 2, 1, 3), (3, 2, 1, 0), (1, 0, 3, 2), (2, 0, 1, 3)])
@pytest.mark.parametrize("shape", [(2, 3, 20, 16), (2, 24, 6, 10)])
def test_axes_are_permuted(perm, shape):
    check("transpose", [draw(shape, "float16")], {"perm": perm})


@pytest.mark.parametrize("channels", [3, 8, 20])
@pytest.mark.parametrize(
    "dtypes", [("float32", "float32"), ("float16", "float16"), ("float32", "float16"), ("uint8", "float32")]
)
@pytest.mark.parametrize("back", [False, True])
def test_channels_last_and_back(channels, dtypes, back):
    source, target = (np.dtype(t) for t in dtypes)
    shape = (2, channels, 9, 8)
    plain, last = packed(source, shape).strides, channels_last_strides(shape)
    of, to = (last, plain) if back else (plain, last)
    x = draw(shape, source)
    np.testing.assert_array_equal(moved(x, Operand(source, shape, of), Operand(target, shape, to)), x.astype(target))


def moved(x, of, to):
    """Return what `copying` writes."""
    site = TestSite("copying", [x], {}, [], [TensorType(to.dtype, to.shape)])
    source = site._hold(of, x)
    target = site._made(
        to,
        Buffer(
            (to.offset + 1 + sum((n - 1) * s for n, s in zip(to.shape, to.strides, strict=True))) * to.dtype.itemsize
        ),
    )
    site.outputs[0] = target
    made = copying(source, target)
    site.launch(made.kernel, made.grid, made.block, made.arguments, writes=made.writes)
    first, second = (site.run(at_end=e, seed=i)[0] for i, e in enumerate((True, False)))
    assert first.tobytes() == second.tobytes()
    return first


def test_copying_parts_of_tensors():
    x = draw((6, 20, 9))
    gaps = Operand(x.dtype, x.shape, (400, 10, 1), 3)
    np.testing.assert_array_equal(moved(x, packed(x.dtype, x.shape), gaps), x)
    np.testing.assert_array_equal(moved(x, gaps, Operand(x.dtype, x.shape, (180, 1, 20))), x)
    row = Operand(x.dtype, x.shape, (0, 0, 1))
    np.testing.assert_array_equal(moved(x[:1, :1], row, packed(x.dtype, x.shape)), np.broadcast_to(x[:1, :1], x.shape))
    empty = TestRef(packed(x.dtype, (3, 0, 4)), Buffer(0))
    assert copying(empty, empty).grid == (1, 1, 1)
    with pytest.raises(KernelError, match="is not copied to"):
        copying(TestRef(row, Buffer(0)), TestRef(packed(x.dtype, (6, 20)), Buffer(0)))


def test_offsets_of_64_bits(monkeypatch):
    monkeypatch.setattr(indexing, "NARROW", 0)
    site = make_site("transpose", [draw((20, 40))])
    assert lower(site) and "typedef i64 index" in site.work[0].kernel.code
    check("transpose", [draw((3, 20, 40))], {"perm": (0, 2, 1)})
    check("concat", [draw((3, 5)), draw((3, 6))], {"axis": 1})
    check("pad", [draw((3, 5))], {"pads": ((1, 2), (0, 3)), "mode": "edge"})


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("order", ["plain", "channels_last"])
def test_concat_and_split(axis, order):
    sizes = [4, 8, 1, 0, 3]
    arrays = [draw(tuple(n if i == axis % 3 else 4 for i in range(3)), seed=n) for n in sizes]
    check("concat", arrays, {"axis": axis}, order=order)
    whole = np.concatenate(arrays, axis=axis)
    check("split", [whole], {"axis": axis, "sizes": tuple(sizes)}, order=order)


@pytest.mark.parametrize("attrs", [
    {"starts": (1, -5), "stops": (9, 100), "steps": (1, 1), "axes": (0, 2)},
    {"starts": (0,), "stops": (2**31,), "steps": (3,), "axes": (1,)},
    {"starts": (-1, 8), "stops": (-(2**31), 1), "steps": (-1, -2), "axes": (1, -1)},
    {"starts": (5,), "stops": (2,), "steps": (1,), "axes": (0,)},
])  # fmt: skip
def test_slice_and_unslice(attrs):
    x = draw((9, 7, 12), "int32")
    check("slice", [x], attrs)
    part = OPS["slice"].run(x, **attrs)
    check("unslice", [np.ascontiguousarray(part)], {**attrs, "size": x.shape})


@pytest.mark.parametrize(("mode", "order"), [
    *((m, "plain") for m in ("constant", "edge", "reflect", "wrap")),
    *((m, "channels_last") for m in ("constant", "reflect")),
])  # fmt: skip
@pytest.mark.parametrize("pads", [
    ((0, 0), (0, 0), (1, 1), (1, 1)), ((0, 0), (0, 0), (0, 0), (4, 8)), ((1, 0), (0, 2), (0, 0), (0, 0)),
    ((0, 0), (0, 0), (-1, 2), (3, -2)), ((0, 0), (0, 0), (0, 0), (-2, 0)),
])  # fmt: skip
def test_pad(mode, pads, order):
    check("pad", [draw((2, 4, 6, 8)), *([7] if mode == "constant" else [])], {"pads": pads, "mode": mode}, order=order)


@pytest.mark.parametrize("dtype", ["float16", "bool", "int8", "float64"])
def test_pad_of_other_types(dtype):
    attrs = {"pads": ((16, 16), (3, 5)), "mode": "constant"}
    check("pad", [draw((4, 24), dtype)], attrs)
    check("pad", [draw((4, 24), dtype), draw((), dtype, 3)], attrs)
    check("pad", [draw((4, 24), dtype), draw((1,), dtype, 3)], attrs, constants=[1])
    check("pad", [draw((0, 24), dtype), draw((), dtype, 3)], attrs)
    check("pad", [draw((4, 24), dtype)], {"pads": ((2, 3),), "mode": "reflect", "axes": (-1,)})


def test_pad_reaches_round_more_than_once():
    for mode in ("reflect", "wrap", "edge"):
        check("pad", [draw((3, 2))], {"pads": ((7, 8), (5, 0)), "mode": mode})
        check("pad", [draw((1, 2))], {"pads": ((3, 3), (0, 0)), "mode": mode})


def test_expand_tile_flip_shift():
    x = draw((3, 1, 8), "float16")
    check("expand", [x], {"shape": (2, 3, 5, 1)})
    check("broadcast_to", [x], {"shape": (3, 4, 8)})
    check("tile", [draw((3, 2, 8))], {"repeats": (2, 1, 3)})
    check("tile", [draw((3, 2))], {"repeats": (0, 2)})
    check("flip", [draw((3, 4, 9))], {"axes": (0, -1)})
    check("flip", [draw((3, 4, 9))], {"axes": ()})
    for by in (2, -3, 0, 40):
        check("shift", [draw((3, 7, 4))], {"axis": 1, "by": by})


def test_reshapes_and_bits():
    x = draw((3, 4, 5))
    for name, attrs in (("reshape", {"shape": (5, -1)}), ("flatten", {"axis": 2}), ("unsqueeze", {"axes": (0, 3)}),
                        ("squeeze", {"axes": None}), ("bitcast", {"dtype": "int32"})):  # fmt: skip
        check(name, [x], attrs, order="transposed")
    assert refuses("bitcast", [x], {"dtype": "int32"}, results=[TensorType(np.dtype(np.int64), (3, 4, 5))])


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 8, 8), (3, 1, 9), (0, 4)])
def test_trilu(upper, shape):
    for k in (0, 1, -2, 50):
        check("trilu", [draw(shape, "float16")], {"upper": upper, "k": k}, order="transposed")


def test_a_diagonal_that_only_run_time_knows_is_refused():
    assert refuses("trilu", [draw((3, 3))], {"upper": True, "k": Dim.symbol("k")})


def test_constants_and_ranges():
    for value, dtype in ((1.5, "float16"), (-1, "int64"), (True, "bool"), (np.inf, "float64"), (2**64 - 1, "uint64")):
        x = np.zeros((1,), dtype)
        check("full_like", [x], {"shape": (3, 5), "value": value})
    (y,) = run_op("fill", [np.array([2, 3])], {"value": 4, "dtype": "int32"})
    np.testing.assert_array_equal(y, np.full((2, 3), 4, np.int32))
    ends = [np.array(v) for v in (10, -5, -3)]
    check("range", ends, constants=[0, 1, 2], results=[TensorType(np.dtype(np.int64), (5,))])
    assert refuses("range", ends, results=[TensorType(np.dtype(np.int64), (5,))])


def test_a_tile_is_taken_only_where_both_sides_are_long():
    def kernel(shape, perm):
        site = make_site("transpose", [np.zeros(shape, np.float32)], {"perm": perm})
        assert lower(site)
        return site.work[0].kernel

    def name(shape, perm):
        return kernel(shape, perm).name

    few_last = kernel((2, 100, 3), (0, 2, 1)).code  # in the order of the source, where neighbours lie together
    assert "xs[k] = *(const pack<u32, 4>*)(x + b)" in few_last
    assert name((2, 16, 100), (0, 2, 1)) == "transpose_across_u32"
    assert name((2, 3, 100), (0, 2, 1)) == "transpose_u32"
    assert name((4, 8, 16, 64), (0, 2, 1, 3)) == "transpose_u32"
    assert copy.bits(np.dtype(bool)) == np.uint8
    with pytest.raises(KernelError, match="no elements"):
        copy.bits(np.dtype(np.complex128))
    assert refuses("identity", [np.array(["a"], object)])
