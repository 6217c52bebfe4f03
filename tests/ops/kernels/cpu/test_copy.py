"""Copies between layouts: every element, bit for bit, and nothing beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from onnxgrad.ops.dims import Dim, evaluate
from onnxgrad.ops.errors import KernelError
from onnxgrad.ops.kernels.cpu.copy import copy_kernel, fill_kernel, zero_halo_kernel
from onnxgrad.ops.kernels.cpu.jit import compiled_modules
from onnxgrad.ops.kernels.cpu.operand import Operand, channels_last, packed

from .site import TestRef, TestSite


@dataclass(frozen=True)
class Layout:
    """How a tensor lies in a test: the order of its axes in memory, and places around each."""

    order: tuple[int, ...]
    around: tuple[tuple[int, int], ...]

    def operand(self, dtype: Any, shape: tuple[Any, ...]) -> tuple[Operand, Any, Any]:
        """Return the operand, the elements of its memory and its first element."""
        strides: list[Any] = [0] * len(shape)
        step: Any = 1
        start: Any = 0
        for axis in reversed(self.order):
            low, high = self.around[axis]
            strides[axis] = step
            start = start + low * step
            step = step * (shape[axis] + low + high)
        return Operand(np.dtype(dtype), shape, tuple(strides)), step, start


def plain(rank: int) -> Layout:
    return Layout(tuple(range(rank)), ((0, 0),) * rank)


def site(env: dict[str, int] | None = None, at_end: bool = True) -> TestSite:
    return TestSite("identity", [], {}, [], [], env or {}, at_end=at_end)


def place(s: TestSite, operand: Operand, size: Any, start: Any) -> TestRef:
    return TestRef(operand, s._bytes(size, operand.dtype), start)


def bits(rng: np.random.Generator, dtype: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return elements of random bits: NaNs of all kinds, -0, denormal numbers."""
    dtype = np.dtype(dtype)
    return np.frombuffer(rng.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)


def check(
    shape: tuple[int, ...], dtype: Any, a: Layout, b: Layout, *, symbolic: tuple[int, ...] = (), at_end: bool = True,
    slack: tuple[int, int] = (0, 0), threads: int = 1,
) -> None:  # fmt: skip
    rng = np.random.default_rng(0)
    env = {f"n{i}": shape[i] for i in symbolic}
    sizes = tuple(Dim.symbol(f"n{i}") if i in symbolic else n for i, n in enumerate(shape))
    s = site(env, at_end)
    refs = []
    for layout, free in zip((a, b), slack, strict=True):
        operand, size, start = layout.operand(dtype, sizes)
        operand = Operand(operand.dtype, operand.shape, operand.strides, slack=free)
        refs.append(place(s, operand, size, start))
    source, target = refs
    source.buffer[:] = np.frombuffer(rng.bytes(source.buffer.size), np.uint8)
    before = target.buffer.copy()
    kernel = copy_kernel(source.operand, target.operand)
    s.call(kernel, [source, target])
    s.run(threads)
    kind = f"u{np.dtype(dtype).itemsize}"
    np.testing.assert_array_equal(target.view(env).view(kind), source.view(env).view(kind))
    if not slack[1]:
        wanted = TestRef(target.operand, before, target.start)
        wanted.view(env)[...] = source.view(env)
        np.testing.assert_array_equal(target.buffer, before)


@st.composite
def layouts(draw: Any, rank: int) -> Layout:
    order = tuple(draw(st.permutations(range(rank))))
    around = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(rank))
    return Layout(order, around if draw(st.booleans()) else ((0, 0),) * rank)


@st.composite
def cases(draw: Any) -> Any:
    rank = draw(st.integers(0, 5))
    sizes = st.one_of(st.integers(0, 5), st.integers(6, 40)) if rank < 4 else st.integers(0, 9)
    shape = tuple(draw(sizes) for _ in range(rank))
    symbolic = tuple(i for i in range(rank) if draw(st.booleans()))
    dtype = draw(st.sampled_from(["uint8", "float16", "float32", "int64"]))
    return shape, dtype, draw(layouts(rank)), draw(layouts(rank)), symbolic, draw(st.booleans())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(cases())
def test_any_layout_to_any(case: Any) -> None:
    shape, dtype, a, b, symbolic, at_end = case
    check(shape, dtype, a, b, symbolic=symbolic, at_end=at_end)


NONE = ((0, 0),) * 4
HALO = ((0, 0), (0, 0), (1, 2), (3, 1))


@pytest.mark.parametrize("dtype", ["int8", "bfloat16", "float32"])
@pytest.mark.parametrize("shape", [(2, 64, 7, 9), (1, 17, 33, 5), (1, 3, 20, 33), (3, 1, 5, 1)])
@pytest.mark.parametrize("around", [NONE, HALO])
@pytest.mark.parametrize("symbolic", [(), (0, 2, 3)])
def test_images(dtype: str, shape: tuple[int, ...], around: Any, symbolic: tuple[int, ...]) -> None:
    import ml_dtypes

    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    last = Layout((0, 2, 3, 1), around)
    check(shape, kind, plain(4), last, symbolic=symbolic)
    check(shape, kind, last, plain(4), symbolic=symbolic, at_end=False, threads=2)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("multiple", [1, 4])
@pytest.mark.parametrize("width", [1, 16, 33])
def test_slack_between_pixels(channels: int, multiple: int, width: int) -> None:
    rng = np.random.default_rng(1)
    s = site()
    x = bits(rng, np.float32, (2, channels, 3, width))
    source = s._place(packed(x.dtype, x.shape), x)
    operand, size, start = channels_last(x.dtype, x.shape, HALO, multiple)
    middle = place(s, operand, size, start)
    back = place(s, packed(x.dtype, x.shape), x.size, 0)
    s.call(copy_kernel(source.operand, operand), [source, middle])
    s.call(copy_kernel(operand, back.operand), [middle, back])
    s.run()
    np.testing.assert_array_equal(middle.view({}).view(np.uint32), x.view(np.uint32))
    np.testing.assert_array_equal(back.view({}).view(np.uint32), x.view(np.uint32))


@pytest.mark.parametrize("shape", [(197, 768), (768, 197), (1, 5000), (3, 5000), (5000, 3), (16, 16), (2000, 2000)])
def test_transposed(shape: tuple[int, int]) -> None:
    check(shape, np.float32, plain(2), Layout((1, 0), ((0, 0),) * 2), threads=2)


@pytest.mark.parametrize("step", [-2, -1, 2, 3, 4, 5])
@pytest.mark.parametrize("n", [1, 2, 16, 300])
def test_steps_and_reversal(step: int, n: int) -> None:
    rng = np.random.default_rng(2)
    s = site()
    x = bits(rng, np.float32, (3, (n - 1) * abs(step) + 1))
    source = s._place(packed(x.dtype, x.shape), x)
    view = x[:, ::step]
    target = place(s, packed(x.dtype, view.shape), view.size, 0)
    start = 0 if step > 0 else x.shape[1] - 1
    operand = Operand(x.dtype, view.shape, (x.shape[1], step))
    s.call(copy_kernel(operand, target.operand, start), [source, target])
    s.run()
    np.testing.assert_array_equal(target.view({}).view(np.uint32), view.copy().view(np.uint32))


@pytest.mark.parametrize("shape", [(5, 1, 7), (5, 4, 1), (1, 1, 1), (1, 3, 40), (40, 3, 1)])
def test_broadcasts(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    s = site({"n": 40})
    x = bits(rng, np.int16, shape)
    wide = (
        5 if shape[0] == 5 else Dim.symbol("n"),
        3 if shape[1] == 3 else 4,
        Dim.symbol("n") if shape[2] == 1 else shape[2],
    )
    source = s._place(packed(x.dtype, x.shape), x)
    operand = packed(x.dtype, wide)
    target = place(s, operand, operand.size, 0)
    s.call(copy_kernel(source.operand.broadcast_to(wide), operand), [source, target])
    s.run()
    got = target.view(s.env)
    np.testing.assert_array_equal(got, np.broadcast_to(x, got.shape))


@pytest.mark.parametrize("channels,multiple", [(1, 1), (3, 1), (3, 4), (64, 1), (20, 16)])
@pytest.mark.parametrize("halo", [((0, 0), (0, 0), (1, 1), (1, 1)), HALO, ((0, 0), (0, 0), (0, 3), (0, 0))])
@pytest.mark.parametrize("symbolic", [False, True])
def test_zero_halo(channels: int, multiple: int, halo: Any, symbolic: bool) -> None:
    s = site({"n": 2, "h": 6}, at_end=symbolic)
    n, h = (Dim.symbol("n"), Dim.symbol("h")) if symbolic else (2, 6)
    operand, size, start = channels_last(np.float32, (n, channels, h, 9), halo, multiple)
    ref = place(s, operand, size, start)
    s.call(zero_halo_kernel(operand), [ref])
    s.run()
    assert np.isnan(ref.view(s.env)).all(), "the inside is left alone"
    ref.view(s.env)[...] = 0
    assert not s._with_halo(ref).any() if not symbolic else evaluate(size, s.env) == ref.buffer.size // 4
    if symbolic:
        whole = ref.buffer.view(np.float32).reshape(2, 6 + sum(halo[2]), 9 + sum(halo[3]), -1)[..., :channels]
        assert not whole.any()


def test_zero_halo_of_a_slice_of_channels_leaves_the_others() -> None:
    s = site()
    whole, size, start = channels_last(np.float32, (1, 8, 4, 4), ((0, 0), (0, 0), (1, 1), (1, 1)))
    part = Operand(whole.dtype, (1, 3, 4, 4), whole.strides, whole.halo)
    ref = place(s, part, size, start)
    s.call(zero_halo_kernel(part), [ref])
    s.run()
    flat = ref.buffer.view(np.float32).reshape(6, 6, 8)
    assert np.isnan(flat[..., 3:]).all()
    border = np.ones((6, 6), bool)
    border[1:5, 1:5] = False
    assert not flat[border][:, :3].any()


@pytest.mark.parametrize("dtype,value", [("float32", -0.0), ("float32", np.nan), ("int64", -7), ("bool", True)])
@pytest.mark.parametrize("n", [0, 1, 15, 1000])
def test_fill(dtype: str, value: Any, n: int) -> None:
    s = site({"n": n})
    for operand in (packed(np.dtype(dtype), (3, n)), packed(np.dtype(dtype), (Dim.symbol("n"), 2))):
        ref = place(s, operand, operand.size, 0)
        s.call(fill_kernel(operand, value), [ref])
        s.run()
        got = ref.view(s.env)
        wanted = np.full(got.shape, value, dtype)
        assert got.tobytes() == wanted.tobytes()


def test_new_sizes_compile_nothing() -> None:
    check((5, 6), np.float32, plain(2), Layout((1, 0), ((0, 0),) * 2), symbolic=(0, 1))
    before = compiled_modules()
    check((50, 33), np.float32, plain(2), Layout((1, 0), ((0, 0),) * 2), symbolic=(0, 1))
    assert compiled_modules() == before


def test_refusals() -> None:
    with pytest.raises(KernelError, match="no copy"):
        copy_kernel(packed(np.dtype("f4"), (2,)), packed(np.dtype("f4"), (3,)))
    with pytest.raises(KernelError, match="have to be"):
        copy_kernel(packed(np.dtype("c16"), (2,)), packed(np.dtype("c16"), (2,)))
