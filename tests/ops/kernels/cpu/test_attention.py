"""Attention and rotary embedding, compiled: against float64 definitions, the array kernels and torch."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import onnxgrad.ops.attention  # noqa: F401 (its ops)
from onnxgrad.ops.dims import Dim
from onnxgrad.ops.kernels.cpu import attention, rotary  # noqa: F401 (their rules)
from onnxgrad.ops.kernels.cpu.jit import compiled_modules
from onnxgrad.ops.op import OPS

from . import site
from .site import TestRef, TestSite, run_op

FLOAT = np.float32


def drawn(seed: int, *shapes: tuple[int, ...], dtype: Any = FLOAT) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(s).astype(dtype) for s in shapes]


def defined(
    q: Any, k: Any, v: Any, mask: Any = None, *, scale: float, softcap: float = 0.0, left: int = -1, right: int = -1,
    offset: int = 0,
) -> Any:  # fmt: skip
    """Return attention from its definition, in float64."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    k, v = (np.repeat(x, group, axis=1) for x in (k, v))
    s = scale * q @ k.swapaxes(2, 3)
    s = softcap * np.tanh(s / softcap) if softcap else s
    if mask is not None:
        s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask.astype(np.float64)
    p, j = np.arange(q.shape[2])[:, None] + offset, np.arange(k.shape[2])
    hidden = np.zeros(s.shape[2:], bool)
    hidden |= (j < p - left) if left >= 0 else False
    hidden |= (j > p + right) if right >= 0 else False
    s = np.where(hidden, -np.inf, s)
    most = s.max(axis=3, keepdims=True, initial=-np.inf)
    e = np.exp(s - np.where(np.isinf(most), 0, most))
    total = e.sum(axis=3, keepdims=True)
    return e / np.where(total == 0, 1, total) @ v


def close(got: Any, wanted: Any, dtype: Any = FLOAT) -> None:
    np.testing.assert_allclose(got, wanted, rtol=0, atol=3e-5 if dtype == FLOAT else 1e-12)


@settings(max_examples=15, deadline=None)
@given(
    b=st.integers(1, 2), k=st.integers(1, 2), group=st.integers(1, 2), queries=st.integers(0, 70),
    keys=st.integers(0, 70), e=st.integers(1, 40), width=st.integers(1, 40),
    dtype=st.sampled_from(["float32", "float64"]),
    masked=st.sampled_from(["none", "bool", "added", "keys", "bool_keys", "queries"]), at_end=st.booleans(),
    left=st.sampled_from([-1, -1, 0, 3]), right=st.sampled_from([-1, -1, 0, 5]), offset=st.integers(-3, 9),
    cap=st.sampled_from([0.0, 0.0, 2.0]), symbolic=st.booleans(),
)  # fmt: skip
def test_any_shape(
    b: int, k: int, group: int, queries: int, keys: int, e: int, width: int, dtype: str, masked: str, at_end: bool,
    left: int, right: int, offset: int, cap: float, symbolic: bool,
) -> None:  # fmt: skip
    h = k * group
    q, key, v = drawn(queries, (b, h, queries, e), (b, k, keys, e), (b, k, keys, width), dtype=dtype)
    args = [q, key, v]
    shape: Any = {
        "none": None, "bool": (b, h, queries, keys), "added": (h, queries, keys), "keys": (b, 1, 1, keys),
        "bool_keys": (keys,), "queries": (queries, 1),
    }[masked]  # fmt: skip
    if shape is not None:
        rng = np.random.default_rng(1)
        mask = rng.random(shape) > 0.4 if "bool" in masked else rng.standard_normal(shape).astype(dtype)
        if masked == "added":
            mask[mask > 1] = -np.inf
        args.append(mask)
    symbols: Any = None
    if symbolic:
        n, s = Dim.symbol("l"), Dim.symbol("s")
        symbols = {0: (Dim.symbol("b"), h, n, e), 1: (Dim.symbol("b"), k, s, e), 2: (Dim.symbol("b"), k, s, width)}
        if shape is not None:
            names = (Dim.symbol("b"), h, n, s)[4 - len(shape) :]
            ones = {"keys": (0, 1, 1, 0), "queries": (0, 1)}.get(masked, (0,) * len(shape))
            symbols[3] = tuple(1 if one else d for d, one in zip(names, ones, strict=True))
    attrs = {"scale": 0.3, "softcap": cap, "left": left, "right": right, "offset": offset}
    got = run_op("attention", args, symbols=symbols, at_end=at_end, **attrs)
    close(got, defined(*args, **attrs), np.dtype(dtype))


@pytest.mark.parametrize(
    ("queries", "keys"), [(128, 128), (197, 197), (1, 600), (3, 300), (33, 700), (16, 257), (5, 5)]
)
@pytest.mark.parametrize("right", [-1, 0])
def test_agrees_with_torch(queries: int, keys: int, right: int) -> None:
    torch = pytest.importorskip("torch")
    q, k, v = drawn(0, (1, 3, queries, 64), (1, 3, keys, 64), (1, 3, keys, 64))
    got = run_op("attention", [q, k, v], scale=0.125, right=right)
    seen = None if right < 0 else torch.ones(queries, keys, dtype=torch.bool).tril()
    wanted = torch.nn.functional.scaled_dot_product_attention(*map(torch.from_numpy, (q, k, v)), attn_mask=seen)
    close(got, wanted.numpy())
    close(got, OPS["attention"].run(q, k, v, scale=0.125, right=right))


@pytest.mark.parametrize("order", ["(B,L,3,H,E)", "(B,E,H,L)"])
@pytest.mark.parametrize("at_end", [False, True])
def test_strided_inputs_and_output(monkeypatch: pytest.MonkeyPatch, order: str, at_end: bool) -> None:
    """q, k and v may be views of one projection, and the result may be written as (B, L, H, V)."""

    class Projected(TestSite):
        def read(self, i: int, *, order: str = "any", **kw: Any) -> TestRef:
            if order == "plain" or i > 2:
                return super().read(i, order=order, **kw)
            b, h, n, e = self.types[i].shape
            strides = (n * 3 * h * e, e, 3 * h * e, 1) if spread else (n * h * e, n, 1, h * n)
            operand = replace(super().read(i).operand, strides=strides)
            size = (n - 1) * 3 * h * e + h * e + (b - 1) * strides[0] if spread else b * h * n * e
            return self._place(operand, self.arrays[i], size)

        def write(self, i: int = 0, **kw: Any) -> TestRef:
            ref = super().write(i, **kw)
            _, h, n, v = ref.operand.shape
            strides = (h * n * v, v, h * v, 1) if spread else (h * n * v, n, 1, h * n)
            self.outputs[i] = replace(ref, operand=replace(ref.operand, strides=strides))
            return self.outputs[i]

    spread = order == "(B,L,3,H,E)"
    monkeypatch.setattr(site, "TestSite", Projected)
    for queries in (2, 21, 45):
        args = drawn(1, (2, 3, queries, 20), (2, 3, 31, 20), (2, 3, 31, 24))
        close(run_op("attention", args, scale=0.2, at_end=at_end), defined(*args, scale=0.2))


def test_results_do_not_depend_on_threads() -> None:
    args = drawn(2, (2, 4, 77, 32), (2, 4, 300, 32), (2, 4, 300, 32))
    one, two, four = (run_op("attention", args, scale=0.1, threads=n) for n in (1, 2, 4))
    assert np.array_equal(one, two) and np.array_equal(one, four)


def test_new_sizes_need_no_compiler() -> None:
    b, n, s = (Dim.symbol(x) for x in "bls")
    symbols = {0: (b, 2, n, 8), 1: (b, 2, s, 8), 2: (b, 2, s, 8)}
    before = None
    for batch, queries, keys in ((1, 1, 9), (2, 40, 40), (3, 5, 300), (0, 5, 5), (1, 17, 17)):
        args = drawn(3, (batch, 2, queries, 8), (batch, 2, keys, 8), (batch, 2, keys, 8))
        close(run_op("attention", args, symbols=symbols, scale=0.5), defined(*args, scale=0.5))
        before = before if before is not None else compiled_modules()
    assert compiled_modules() == before


@pytest.mark.parametrize("queries", [1, 40])
def test_what_is_no_number(queries: int) -> None:
    """A row without keys gives zeros; NaN and inf stay in their row."""
    q, k, v = drawn(4, (1, 2, queries, 16), (1, 2, 300, 16), (1, 2, 300, 16))
    hidden = np.zeros((queries, 300), bool)
    assert np.array_equal(run_op("attention", [q, k, v, hidden], scale=1.0), np.zeros_like(q))
    q[0, 0, 0, 3], q[0, 1, 0, 2] = np.nan, np.inf
    got = run_op("attention", [q, k, v], scale=1.0)
    wanted = OPS["attention"].run(q, k, v, scale=1.0)
    assert np.array_equal(np.isnan(got), np.isnan(wanted))
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "queries", "keys", "right"),
    [("int32", 1, 30, -1), ("int64", 1, 300, 0), ("int64", 3, 300, -1), ("int32", 40, 30, 0), ("int64", 40, 300, -1)],
)
def test_lengths_starts_and_sink(kind: str, queries: int, keys: int, right: int) -> None:
    """Entries that are shorter or stand elsewhere are a mask; a sink is a key with this score and the value 0."""
    q, k, v, sink = drawn(5, (4, 4, queries, 16), (4, 2, keys, 16), (4, 2, keys, 8), (4,))
    sink[3] = -np.inf
    lengths, starts = np.array([keys + 7, 0, 5, keys - 1], kind), np.array([0, 2, keys - queries, -1], kind)
    args: list[Any] = [q, k, v, None, lengths, starts]
    j, p = np.arange(keys), starts.reshape(-1, 1, 1) + np.arange(queries)[:, None]
    seen = ((j < lengths.reshape(-1, 1, 1)) & ((j <= p + right) | (right < 0)))[:, None]
    for at_end in (False, True):
        got = run_op("attention", args, at_end=at_end, scale=0.3, right=right)
        close(got, defined(q, k, v, seen, scale=0.3))
        got = run_op("attention", [*args, sink], at_end=at_end, scale=0.3, right=right)
        wide_k, wide_v = (np.pad(np.repeat(x, 2, axis=1), ((0, 0), (0, 0), (0, 1), (0, 0))) for x in (k, v))
        scores = np.zeros((4, 4, queries, keys + 1), FLOAT)
        scores[..., -1] = sink.reshape(4, 1)
        scores[..., :-1][~np.broadcast_to(seen, (4, 4, queries, keys))] = -np.inf
        close(got, defined(q, wide_k, wide_v, scores, scale=0.3))
        wide = [a.astype(np.float64) if a is not None and a.dtype == FLOAT else a for a in (*args, sink)]
        close(got, OPS["attention"].run(*wide, scale=0.3, right=right))


def test_refuses_what_it_has_no_code_for() -> None:
    q, k, v = drawn(5, (2, 2, 4, 8), (2, 2, 6, 8), (2, 2, 6, 8))
    assert run_op("attention", [q, k, v, None, np.array([3.0, 4.0])], scale=1.0) is None
    assert run_op("attention", [x.astype(np.float16) for x in (q, k, v)], scale=1.0) is None


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(
    ("e", "r", "per_head"), [(64, 32, False), (64, 16, True), (10, 3, False), (48, 24, False), (2, 1, True)]
)
def test_rotary_embedding(interleaved: bool, e: int, r: int, per_head: bool) -> None:
    for (heads, n), at_end in itertools.product(((2, 5), (1, 1), (3, 0)), (False, True)):
        x, cos, sin = drawn(6, (2, heads, n, e), (*((2, heads) if per_head else ()), n, r), (n, r))
        got = run_op("rotary_embedding", [x, cos, sin], interleaved=interleaved, at_end=at_end)
        a, b = (x[..., 0 : 2 * r : 2], x[..., 1 : 2 * r : 2]) if interleaved else (x[..., :r], x[..., r : 2 * r])
        wanted = x.astype(np.float64).copy()
        one, other = a * cos.astype(np.float64) - b * sin, a * sin.astype(np.float64) + b * cos
        if interleaved:
            wanted[..., 0 : 2 * r : 2], wanted[..., 1 : 2 * r : 2] = one, other
        else:
            wanted[..., :r], wanted[..., r : 2 * r] = one, other
        np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-6)
        np.testing.assert_allclose(
            got, OPS["rotary_embedding"].run(x, cos, sin, interleaved=interleaved), rtol=0, atol=2e-6
        )
