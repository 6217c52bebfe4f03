"""The gradients of attention, compiled: against the array kernel in float64 and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import onnxgrad.ops.attention  # noqa: F401 (its ops)
from onnxgrad.ops.dims import Dim
from onnxgrad.ops.kernels.cpu import attention_grad  # noqa: F401 (its rules)
from onnxgrad.ops.kernels.cpu.jit import compiled_modules
from onnxgrad.ops.op import OPS

from .site import run_op


def drawn(
    b: int, h: int, k: int, queries: int, keys: int, e: int, width: int, mask: Any = None, dtype: str = "float64",
    **attrs: Any,
) -> list[Any]:  # fmt: skip
    """Return arguments in float64, but for the mask; the result among them is that of the forward op."""
    rng = np.random.default_rng(queries)
    q, key, v, g = (
        rng.standard_normal(s).astype(dtype).astype(np.float64)
        for s in ((b, h, queries, e), (b, k, keys, e), (b, k, keys, width), (b, h, queries, width))
    )
    more = [] if mask is None else [mask]
    return [g, OPS["attention"].run(q, key, v, *more, **attrs), q, key, v, *more]


def check(args: list[Any], dtype: str, symbols: Any = None, **attrs: Any) -> None:
    how = {n: attrs.pop(n) for n in ("at_end",) if n in attrs}
    got = run_op(
        "attention_grad", [a if a.dtype == bool else a.astype(dtype) for a in args], symbols=symbols, **how, **attrs
    )
    wanted = OPS["attention_grad"].run(*args, **attrs)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-4 if dtype == "float32" else 1e-11)


@settings(max_examples=12, deadline=None)
@given(
    b=st.integers(0, 2), k=st.integers(1, 2), group=st.integers(1, 2), queries=st.integers(0, 70),
    keys=st.integers(0, 50), e=st.integers(1, 40), width=st.integers(1, 40),
    dtype=st.sampled_from(["float32", "float64"]),
    masked=st.sampled_from(["none", "bool", "keys", "queries", "all", "rows"]), at_end=st.booleans(),
    left=st.sampled_from([-1, -1, 3]), right=st.sampled_from([-1, 0, 5]), offset=st.integers(-3, 9),
    symbolic=st.booleans(),
)  # fmt: skip
def test_any_shape(
    b: int, k: int, group: int, queries: int, keys: int, e: int, width: int, dtype: str, masked: str, at_end: bool,
    left: int, right: int, offset: int, symbolic: bool,
) -> None:  # fmt: skip
    h = k * group
    rng, mask = np.random.default_rng(0), None
    if masked == "bool":
        mask = rng.random((b, h, queries, keys)) > 0.4
    elif masked != "none":
        shape = {
            "keys": (b, 1, 1, keys),
            "queries": (queries, keys),
            "all": (b, h, queries, keys),
            "rows": (1, h, 1, keys),
        }
        mask = rng.standard_normal(shape[masked]).astype(dtype).astype(np.float64)
    attrs = {"scale": 0.3, "left": left, "right": right, "offset": offset}
    args = drawn(b, h, k, queries, keys, e, width, mask, dtype, **attrs)
    symbols: Any = None
    if symbolic and masked in ("none", "bool", "all"):
        n, s, batch = Dim.symbol("l"), Dim.symbol("s"), Dim.symbol("b")
        above, head = (batch, h, n, width), (batch, k, s, e)
        symbols = {0: above, 1: above, 2: (batch, h, n, e), 3: head, 4: (batch, k, s, width), 5: (batch, h, n, s)}
    check(args, dtype, symbols, at_end=at_end, **attrs)


@pytest.mark.parametrize("right", [-1, 0])
def test_agrees_with_torch(right: int) -> None:
    torch = pytest.importorskip("torch")
    args = drawn(2, 3, 3, 70, 70, 32, 32, dtype="float32", scale=0.2, right=right)
    got = run_op("attention_grad", [a.astype(np.float32) for a in args], scale=0.2, right=right)
    q, k, v = (torch.from_numpy(a).requires_grad_() for a in args[2:])
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.2, is_causal=right == 0)
    wanted = torch.autograd.grad(y, (q, k, v), torch.from_numpy(args[0]))
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=5e-5)


def test_refuses_what_it_has_no_code_for() -> None:
    args = [a.astype(np.float32) for a in drawn(1, 2, 2, 4, 5, 8, 8, scale=1.0)]
    assert run_op("attention_grad", args, scale=1.0, softcap=2.0) is None
    assert run_op("attention_grad", [*args, np.zeros((4, 1), np.float32)], scale=1.0) is None


def test_results_do_not_depend_on_threads_and_new_sizes_need_no_compiler() -> None:
    before = None
    for b, queries, keys in ((2, 50, 40), (1, 3, 90), (3, 33, 5)):
        args = [a.astype(np.float32) for a in drawn(b, 2, 2, queries, keys, 16, 16, scale=0.3)]
        n, s, batch = Dim.symbol("l"), Dim.symbol("s"), Dim.symbol("b")
        above, head = (batch, 2, n, 16), (batch, 2, s, 16)
        symbols = {0: above, 1: above, 2: above, 3: head, 4: head}
        one, two, four = (run_op("attention_grad", args, symbols=symbols, threads=t, scale=0.3) for t in (1, 2, 4))
        assert all(np.array_equal(x, y) and np.array_equal(x, z) for x, y, z in zip(one, two, four, strict=True))
        before = before if before is not None else compiled_modules()
    assert compiled_modules() == before
