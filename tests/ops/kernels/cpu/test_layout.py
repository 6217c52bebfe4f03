"""Layout ops: compiled copies against the array kernels and NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.kernels.cpu import layout  # noqa: F401 (registers the rules)
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import TensorType

from .site import run_op

ORDERS = ["plain", "channels_last"]


def noise(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    """Return elements of random bits."""
    return np.frombuffer(np.random.default_rng(0).bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize), dtype).reshape(
        shape
    )


def same(got: Any, wanted: Any) -> None:
    """Compare bits."""
    wanted = np.array(wanted, order="C")
    assert got is not None
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    kind = f"u{got.dtype.itemsize}"
    np.testing.assert_array_equal(got.view(kind), wanted.view(kind))


def symbols(shape: tuple[int, ...]) -> tuple[Any, ...]:
    return tuple(Dim.symbol(f"n{i}") for i in range(len(shape)))


def test_bindings() -> None:
    """Every op that this file tests has its array kernel."""
    for name in ("transpose", "expand", "concat", "tile", "flip", "slice", "unslice", "shift", "pad", "trilu"):
        assert OPS[name].array_kernel is not None


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.int64])
def test_transpose(order: str, dtype: Any) -> None:
    x = noise(2, 5, 6, 7, dtype=dtype)
    for perm in ((0, 2, 3, 1), (3, 2, 1, 0), (0, 1, 2, 3), (-1, 0, 1, 2), None):
        same(run_op("transpose", [x], order=order, multiple=4, perm=perm), np.transpose(x, perm))
    same(run_op("transpose", [x], symbols={0: symbols(x.shape)}, perm=(0, 2, 1, 3)), x.transpose(0, 2, 1, 3))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat(order: str, axis: int) -> None:
    xs = []
    for n in (1, 3, 0, 20):
        shape = [2, 5, 4, 3]
        shape[axis] = n
        xs.append(noise(*shape))
    halo = ((0, 0), (0, 0), (1, 1), (1, 1)) if order == "channels_last" else ()
    got = run_op("concat", xs, order=order, multiple=8, out_halo=halo, threads=2, axis=axis)
    same(got, np.concatenate(xs, axis))


def test_concat_refuses_what_only_run_time_can_compare() -> None:
    xs = [noise(2, 3), noise(2, 4)]
    n, m = Dim.symbol("n"), Dim.symbol("m")
    assert run_op("concat", xs, symbols={0: (n, 3), 1: (m, 4)}, axis=1) is None
    same(run_op("concat", xs, symbols={0: (n, 3), 1: (n, 4)}, axis=1), np.concatenate(xs, 1))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 1, 4, 1), (1, 1, 1, 1), (5,), ()])
def test_expand_and_tile(order: str, shape: tuple[int, ...]) -> None:
    x = noise(*shape)
    wide = (2, 3, 4, 5)
    same(run_op("expand", [x], order=order, shape=wide), np.broadcast_to(x, wide))
    same(run_op("broadcast_to", [x], order=order, shape=wide), np.broadcast_to(x, wide))
    repeats = (2, 3, 1, 2)[: x.ndim]
    same(run_op("tile", [x], order=order, repeats=repeats), np.tile(x, repeats))
    if x.ndim == 4:
        same(run_op("tile", [x], symbols={0: symbols(shape)}, repeats=repeats), np.tile(x, repeats))


def test_expand_to_symbols() -> None:
    x = noise(7, 1)
    n = Dim.symbol("n")
    same(run_op("expand", [x], symbols={0: (n, 1)}, shape=(3, n, n)), np.broadcast_to(x, (3, 7, 7)))
    assert run_op("expand", [noise(7, 2)], symbols={0: (n, Dim.symbol("m"))}, shape=(n, n)) is None


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("axes", [(), (0,), (1, -1), (0, 1, 2, 3)])
def test_flip(order: str, axes: tuple[int, ...]) -> None:
    x = noise(2, 19, 6, 21)
    same(run_op("flip", [x], order=order, axes=axes), np.flip(x, axes) if axes else x)
    same(run_op("flip", [x], symbols={0: symbols(x.shape)}, axes=axes), np.flip(x, axes) if axes else x)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 40), st.integers(-45, 45), st.integers(-45, 45), st.sampled_from([1, 2, 5, -1, -2, -7])
        ),
        min_size=1, max_size=3,
    ),
    st.sampled_from(ORDERS),
)  # fmt: skip
def test_slice(parts: list[tuple[int, int, int, int]], order: str) -> None:
    x = noise(*(p[0] for p in parts))
    attrs = {"starts": tuple(p[1] for p in parts), "stops": tuple(p[2] for p in parts)}
    attrs |= {"steps": tuple(p[3] for p in parts), "axes": tuple(range(len(parts)))}
    got = run_op("slice", [x], order=order, **attrs)
    wanted = x[tuple(slice(*p[1:]) for p in parts)]
    same(got, wanted)
    back = run_op("unslice", [got], order=order, **attrs, size=x.shape)
    same(back, OPS["unslice"].array_kernel(got, **attrs, size=x.shape))


def test_slice_of_symbolic_sizes() -> None:
    x = noise(9, 24)
    n, m = Dim.symbol("n"), Dim.symbol("m")
    end = 2**31
    for start, stop, step in ((0, end, 2), (end, -end, -1), (0, end, 1)):
        attrs: dict[str, Any] = {"starts": (start,), "stops": (stop,), "steps": (step,), "axes": (1,)}
        same(run_op("slice", [x], symbols={0: (n, m)}, **attrs), x[:, slice(start, stop if stop > 0 else None, step)])
    unknown = {"starts": (5,), "stops": (9,), "steps": (1,), "axes": (1,)}
    assert run_op("slice", [x], symbols={0: (n, Dim.fresh())}, **unknown) is None


@pytest.mark.parametrize("by", [-50, -3, 0, 2, 7])
def test_shift(by: int) -> None:
    x = noise(3, 7, 2)
    same(run_op("shift", [x], axis=1, by=by), OPS["shift"].array_kernel(x, axis=1, by=by))


PADS = [((0, 0), (0, 0), (1, 2), (3, 0)), ((1, 0), (2, 1), (0, 0), (0, 3)), ((0, 0),) * 4]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
@pytest.mark.parametrize("pads", [*PADS, ((0, -1), (-1, 2), (-2, 1), (2, -3))])
def test_pad(order: str, mode: str, pads: Any) -> None:
    x = noise(2, 5, 6, 7)
    got = run_op("pad", [x, None], order=order, multiple=4, threads=2, pads=pads, mode=mode)
    if all(p >= 0 for pair in pads for p in pair):
        numpys = {"constant_values": 0} if mode == "constant" else {}
        same(got, np.pad(x, pads, mode=mode, **numpys))
    same(got, OPS["pad"].array_kernel(x, pads=pads, mode=mode))


def test_pad_with_a_value() -> None:
    x, value = noise(3, 4), np.array(-0.0, np.float32)
    pads = ((1, 0), (0, 2))
    same(run_op("pad", [x, value], weights=[1], pads=pads), np.pad(x, pads, constant_values=-0.0))
    same(run_op("pad", [x, 2.5], pads=pads), np.pad(x, pads, constant_values=2.5))
    same(run_op("pad", [x, 2.5], symbols={0: symbols(x.shape)}, pads=pads), np.pad(x, pads, constant_values=2.5))
    assert run_op("pad", [x, value], pads=pads) is None, "the value is known at run time only"
    assert run_op("pad", [x, None], symbols={0: symbols(x.shape)}, pads=pads, mode="edge") is None
    assert run_op("pad", [x, None], pads=((3, 0), (0, 0)), mode="reflect") is None, "longer than the axis"


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
def test_full_like(dtype: Any) -> None:
    x = np.zeros(3, dtype)
    same(run_op("full_like", [x], shape=(3, 0), value=1), np.full((3, 0), 1, dtype))
    same(run_op("full_like", [x], shape=(2, 33), value=1), np.full((2, 33), 1, dtype))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("ends", [(0, 10, 1), (5, 5, 1), (9, -4, -3), (2, 40, 7)])
def test_range(dtype: Any, ends: tuple[int, int, int]) -> None:
    from onnxgrad.ops.kernels.cpu.lowering import LOWERINGS

    from .site import TestSite

    scalars = [np.asarray(v, dtype) for v in ends]
    types = [TensorType(np.dtype(dtype), (), (v,)) for v in ends]
    site = TestSite("range", scalars, {}, types, [OPS["range"].infer_types(*types)], {})
    assert LOWERINGS["range"].rule(site)  # type: ignore[arg-type]
    site.run()
    same(site.outputs[0].view({}).copy(), np.arange(*ends, dtype=dtype))
    assert run_op("range", scalars) is None, "the ends are known at run time only"


@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("k", [-3, 0, 1])
@pytest.mark.parametrize("shape", [(2, 3, 17, 40), (40, 3), (1, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_trilu(upper: bool, k: int, shape: tuple[int, ...], dtype: Any) -> None:
    x = noise(*shape, dtype=dtype)
    wanted = (np.triu if upper else np.tril)(x, k)
    same(run_op("trilu", [x], order="channels_last", upper=upper, k=k), wanted)
    same(run_op("trilu", [x], symbols={0: symbols(shape)}, upper=upper, k=k), wanted)
