"""Views: the same elements, in the order that NumPy gives, without a copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from onnxgrad.ops import layout
from onnxgrad.ops.dims import Dim, evaluate
from onnxgrad.ops.kernels.cpu.operand import Operand, channels_last, packed
from onnxgrad.ops.types import TensorType
from onnxgrad.runtime.compiled.views import reshaped, view

F32 = np.dtype(np.float32)


def _array(operand: Operand, memory: Any, start: int = 0, env: dict[str, int] | None = None) -> Any:
    shape = [evaluate(d, env or {}) for d in operand.shape]
    strides = [evaluate(s, env or {}) * 4 for s in operand.strides]
    return np.lib.stride_tricks.as_strided(memory[start:], shape, strides)


@pytest.mark.parametrize(
    ("shape", "perm", "new", "is_view"),
    [
        ((2, 3, 4), (0, 1, 2), (6, 4), True),
        ((2, 3, 4), (0, 2, 1), (2, 12), False),
        ((2, 3, 4), (2, 0, 1), (4, 6), True),
        ((2, 3, 4, 5), (0, 2, 1, 3), (2, 4, 15), True),
        ((2, 3, 4, 5), (0, 3, 1, 2), (2, 5, 12), True),
        ((2, 1, 4, 1), (0, 2, 1, 3), (8,), True),
        ((2, 3, 4), (1, 0, 2), (3, 2, 2, 2), True),
        ((6, 4), (1, 0), (2, 2, 2, 3), True),
    ],
)
def test_reshape_is_a_view_where_strides_can_say_it(
    shape: tuple[int, ...], perm: tuple[int, ...], new: tuple[int, ...], is_view: bool
) -> None:
    memory = np.arange(int(np.prod(shape)), dtype=np.float32)
    source = packed(F32, shape).transposed(perm)
    seen = reshaped(source, new)
    if shape == (2, 3, 4, 5) and new == (2, 4, 15):
        is_view = False  # 3 * 5 are not neighbours after the permutation
    assert (seen is not None) == is_view
    if seen is not None:
        np.testing.assert_array_equal(_array(seen, memory), memory.reshape(shape).transpose(perm).reshape(new))


@given(st.permutations(range(4)), st.lists(st.integers(1, 4), min_size=4, max_size=4), st.randoms())
def test_reshape_never_gives_another_order(perm: list[int], shape: list[int], random: Any) -> None:
    memory = np.arange(int(np.prod(shape)), dtype=np.float32)
    source = memory.reshape(shape).transpose(perm)
    rest, new = memory.size, []
    while rest > 1:
        d = random.choice([k for k in range(1, rest + 1) if rest % k == 0])
        new.append(d)
        rest //= d
    seen = reshaped(packed(F32, tuple(shape)).transposed(perm), tuple(new))
    if seen is not None:
        np.testing.assert_array_equal(_array(seen, memory), source.reshape(new))


def test_symbolic_sizes_split_and_join() -> None:
    n, s = Dim.symbol("n"), Dim.symbol("s")
    env = {"n": 3, "s": 5}
    memory = np.arange(3 * 5 * 24, dtype=np.float32)
    heads = reshaped(packed(F32, (n, s, 24)), (n, s, 4, 6))
    assert heads is not None
    turned = heads.transposed((0, 2, 1, 3))
    wanted = memory.reshape(3, 5, 4, 6).transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(_array(turned, memory, env=env), wanted)
    back = reshaped(turned.transposed((0, 2, 1, 3)), (n * s, 24))
    assert back is not None
    np.testing.assert_array_equal(_array(back, memory, env=env), memory.reshape(15, 24))


def test_channels_last_images_become_tokens_without_a_copy() -> None:
    operand, size, start = channels_last(F32, (2, 8, 3, 5))
    memory = np.arange(size, dtype=np.float32)
    seen = reshaped(operand, (2, 8, 15))
    assert seen is not None
    np.testing.assert_array_equal(_array(seen, memory, start), memory.reshape(2, 15, 8).transpose(0, 2, 1))
    haloed, _, _ = channels_last(F32, (2, 8, 3, 5), ((0, 0), (0, 0), (1, 1), (1, 1)))
    assert reshaped(haloed, (2, 8, 15)) is None


@pytest.mark.parametrize(
    ("starts", "stops", "steps"), [((1,), (5,), (1,)), ((-3,), (9,), (1,)), ((0,), (6,), (2,)), ((1,), (1,), (1,))]
)
def test_slices_are_views(starts: Any, stops: Any, steps: Any) -> None:
    memory = np.arange(24, dtype=np.float32)
    t = TensorType(F32, (6, 4))
    where = {"starts": starts, "stops": stops, "steps": steps, "axes": (0,)}
    result = layout.slice_.infer_types(t, **where)
    found = view(layout.slice_, packed(F32, (6, 4)), where, (result,))  # type: ignore[arg-type]
    assert found is not None
    wanted = memory.reshape(6, 4)[slice(starts[0], stops[0], steps[0])]
    np.testing.assert_array_equal(_array(found[0][0], memory, int(found[0][1])), wanted)


def test_a_slice_backwards_is_no_view() -> None:
    where = {"starts": (5,), "stops": (-7,), "steps": (-1,), "axes": (0,)}
    assert view(layout.slice_, packed(F32, (6, 4)), where, (TensorType(F32, (6, 4)),)) is None
