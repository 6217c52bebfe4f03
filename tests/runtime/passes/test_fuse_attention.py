"""Exported attention becomes the op; NumPy's definition is the oracle, and what PyTorch itself exports is found."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.ops import layout, pointwise as pw
from onnxgrad.ops.dims import Dim
from onnxgrad.ops.dropout import dropout
from onnxgrad.ops.matmul import matmul, swapped
from onnxgrad.ops.normalize import softmax
from onnxgrad.runtime.graph.execute import run_graph
from onnxgrad.runtime.passes.drop_dead import drop_dead
from onnxgrad.runtime.passes.fuse_attention import fuse_attention

from .graphs import Built, built, checked, normal, op_names, unchanged

B, H, L, S, E = 2, 3, 4, 5, 8
b, m, s = (Dim.symbol(c) for c in "bms")
Q, K, V = normal(B, H, L, E), normal(B, H, S, E), normal(B, H, S, 6)
ADDED, SEEN = normal(B, 1, L, S), normal(1, H, 1, S) > -0.8
SEEN[..., 0] = True


def attended(q: Any, k: Any, v: Any, scale: float = 1.0, mask: Any = 0.0) -> Any:
    scores = q @ np.swapaxes(k, -1, -2) * scale + mask
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) @ v


def qkv(g: Built) -> tuple[Any, Any, Any]:
    return g.input(Q, (b, H, m, E)), g.input(K, (b, H, s, E)), g.input(V, (b, H, s, 6))


def core(q: Any, k: Any, v: Any, change: Callable[[Any], Any] = lambda x: x) -> Any:
    return matmul(softmax(change(matmul(q, swapped(k))), axis=-1), v)


def _plain(g: Built) -> Any:
    return core(*qkv(g))


def _scaled_queries(g: Built) -> Any:
    q, k, v = qkv(g)
    return core(pw.div(q, 2.0), k, v)


def _both_scaled(g: Built) -> Any:
    q, k, v = qkv(g)
    root = g.graph.constant(np.array(math.sqrt(0.5)))
    return matmul(softmax(matmul(pw.mul(q, root), pw.mul(root, swapped(k))), axis=3), v)


def _scores_divided(g: Built) -> Any:
    return core(*qkv(g), lambda x: pw.div(x, 2.0))


def _masked(g: Built) -> Any:
    return core(*qkv(g), lambda x: pw.add(pw.mul(x, 0.5), g.input(ADDED, (b, 1, m, s))))


def _mask_first(g: Built) -> Any:
    return core(*qkv(g), lambda x: pw.mul(pw.add(g.input(ADDED * 2, (b, 1, m, s)), x), 0.5))


def _mask_subtracted(g: Built) -> Any:
    return core(*qkv(g), lambda x: pw.sub(pw.mul(x, 0.5), g.input(-ADDED, (b, 1, m, s))))


def _seen(g: Built) -> Any:
    return core(*qkv(g), lambda x: pw.where(g.input(SEEN), pw.mul(x, 0.5), -np.inf))


def _hidden(g: Built) -> Any:
    low = g.graph.constant(np.array(-1e9))
    return core(*qkv(g), lambda x: pw.mul(pw.where(pw.logical_not(g.input(SEEN)), low, x), 0.5))


def _two_masks(g: Built) -> Any:
    add, seen = g.input(ADDED, (b, 1, m, s)), g.input(SEEN)
    return core(*qkv(g), lambda x: pw.where(seen, pw.add(pw.mul(x, 0.5), add), -1e30))


def _keys_as_columns(g: Built) -> Any:
    q, v = g.input(Q), g.input(V)
    k = layout.transpose(g.input(K.transpose(0, 2, 1, 3)), perm=(0, 2, 3, 1))
    return matmul(softmax(matmul(q, k), axis=3), v)


def _keys_come_as_columns(g: Built) -> Any:
    return matmul(softmax(matmul(g.input(Q), g.input(np.swapaxes(K, 2, 3).copy())), axis=3), g.input(V))


def _guarded(g: Built) -> Any:
    q, k, v = qkv(g)
    p = dropout(softmax(matmul(q, swapped(k)), axis=3), ratio=0.1)
    return matmul(pw.where(pw.isnan(p), 0.0, p), v)


def _values_first(g: Built) -> Any:
    q, k, v = (swapped(x) for x in qkv(g))
    return swapped(matmul(v, swapped(softmax(matmul(swapped(q), k), axis=3))))


def _a_scale_for_each_head(g: Built) -> Any:
    return core(*qkv(g), lambda x: pw.mul(x, g.weight(np.array([0.5, 0.5, 0.5]).reshape(H, 1, 1))))


def _one_key_head(g: Built) -> Any:
    return core(g.input(Q), g.input(K[:, :1]), g.input(V[:, :1]))


SEEN_ADD = np.where(SEEN, 0, -np.inf)
CASES: list[tuple[Callable[[Built], Any], Any]] = [
    (_plain, attended(Q, K, V)),
    (_scaled_queries, attended(Q, K, V, 0.5)),
    (_both_scaled, attended(Q, K, V, 0.5)),
    (_scores_divided, attended(Q, K, V, 0.5)),
    (_masked, attended(Q, K, V, 0.5, ADDED)),
    (_mask_first, attended(Q, K, V, 0.5, ADDED)),
    (_mask_subtracted, attended(Q, K, V, 0.5, ADDED)),
    (_seen, attended(Q, K, V, 0.5, SEEN_ADD)),
    (_hidden, attended(Q, K, V, 0.5, SEEN_ADD)),
    (_two_masks, attended(Q, K, V, 0.5, ADDED + SEEN_ADD)),
    (_keys_as_columns, attended(Q, K, V)),
    (_keys_come_as_columns, attended(Q, K, V)),
    (_guarded, attended(Q, K, V)),
    (_values_first, attended(Q, K, V)),
    (_a_scale_for_each_head, attended(Q, K, V, 0.5)),
    (_one_key_head, attended(Q, K[:, :1], V[:, :1])),
]


@pytest.mark.parametrize(("make", "wanted"), CASES, ids=lambda v: getattr(v, "__name__", ""))
def test_forms(make: Callable[[Built], Any], wanted: Any) -> None:
    names = op_names(checked(built(make), fuse_attention, [wanted]))
    assert names.count("attention") == 1
    assert not {"softmax", "matmul"} & set(names)


@pytest.mark.parametrize("lead", [(), (6,)])
@pytest.mark.parametrize("masked", [False, True])
def test_without_heads(lead: tuple[int, ...], masked: bool) -> None:
    q, k, v, mask = normal(*lead, L, E), normal(*lead, S, E), normal(*lead, S, 6), normal(*lead, L, S)

    def make(g: Built) -> Any:
        return core(g.input(q), g.input(k), g.input(v), lambda x: pw.add(x, g.input(mask)) if masked else x)

    found = checked(built(make), fuse_attention, [attended(q, k, v, mask=mask if masked else 0.0)])
    assert "softmax" not in op_names(found)


def test_heads_joined_with_the_batch_round_the_mask() -> None:
    flat = (B * H, L, S)

    def make(g: Built) -> Any:
        q, k, v = (g.input(x.reshape(B * H, *x.shape[2:])) for x in (Q, K, V))

        def change(x: Any) -> Any:
            apart = pw.add(layout.reshape(x, shape=(B, H, L, S)), g.input(ADDED))
            return pw.add(layout.reshape(apart, shape=flat), g.input(normal(1, L, S) * 0))

        return core(q, k, v, change)

    found = checked(built(make), fuse_attention, [attended(Q, K, V, mask=ADDED).reshape(B * H, L, 6)])
    assert "softmax" not in op_names(found)


def test_a_query_that_sees_nothing_gives_zeros() -> None:
    seen = np.ones((L, S), bool)
    seen[1] = False

    def make(g: Built) -> Any:
        q, k, v = qkv(g)
        p = softmax(pw.where(g.input(seen), matmul(q, swapped(k)), -np.inf), axis=3)
        return matmul(pw.where(pw.isnan(p), 0.0, p), v)

    g = built(make)
    with np.errstate(invalid="ignore"):
        found = checked(g, fuse_attention)
    assert not g.run(found)[0][:, :, 1].any()


def test_a_causal_mask_that_was_sliced_for_the_queries() -> None:
    buffer = np.tril(np.ones((1, 1, 16, 16), bool))

    def make(g: Built) -> Any:
        q, k, v = qkv(g)
        seen = layout.slice_(g.graph.constant(buffer), starts=(s - m,), stops=(s,), steps=(1,), axes=(2,))
        seen = layout.slice_(seen, starts=(0,), stops=(s,), steps=(1,), axes=(3,))
        return matmul(softmax(pw.where(seen, matmul(q, swapped(k)), -1e4), axis=3), v)

    mask = np.where(buffer[:, :, S - L : S, :S], 0, -np.inf)
    assert "softmax" not in op_names(checked(built(make), fuse_attention, [attended(Q, K, V, mask=mask)]))


def _weights_are_an_output(g: Built) -> Any:
    q, k, v = qkv(g)
    p = softmax(matmul(q, swapped(k)), axis=3)
    return matmul(p, v), p


def _scores_are_read_twice(g: Built) -> Any:
    q, k, v = qkv(g)
    scores = matmul(q, swapped(k))
    return matmul(softmax(scores, axis=3), v), pw.exp(scores)


def _mask_makes_more_queries(g: Built) -> Any:
    q, k, v = g.input(Q[:, :, :1]), g.input(K), g.input(V)
    return core(q, k, v, lambda x: pw.add(x, g.input(ADDED)))


def _mask_of_another_batch(g: Built) -> Any:
    c = Dim.symbol("c")
    return core(*qkv(g), lambda x: pw.add(x, g.input(ADDED, (c, 1, L, S))))


def _softmax_over_queries(g: Built) -> Any:
    q, k, v = g.input(Q), g.input(K), g.input(V)
    return matmul(softmax(matmul(q, swapped(k)), axis=2), v)


def _low_but_visible(g: Built) -> Any:
    return core(*qkv(g), lambda x: pw.where(g.input(SEEN), x, -1.0))


def _scale_of_an_input(g: Built) -> Any:
    return core(*qkv(g), lambda x: pw.mul(x, g.input(normal(S))))


def _guard_of_another_value(g: Built) -> Any:
    q, k, v = qkv(g)
    p = softmax(matmul(q, swapped(k)), axis=3)
    return matmul(pw.where(pw.isnan(g.input(normal(B, H, L, S))), 0.0, p), v)


def _values_of_another_length(g: Built) -> Any:
    t = Dim.symbol("t")
    return core(g.input(Q), g.input(K, (B, H, s, E)), g.input(V, (B, H, t, 6)))


@pytest.mark.parametrize(
    "make",
    [
        _weights_are_an_output, _scores_are_read_twice, _mask_makes_more_queries, _mask_of_another_batch,
        _softmax_over_queries, _low_but_visible, _scale_of_an_input, _guard_of_another_value,
        _values_of_another_length,
    ],
)  # fmt: skip
def test_near_misses_stay(make: Callable[[Built], Any]) -> None:
    unchanged(built(make), fuse_attention)


def _torch_modules() -> dict[str, Any]:
    import torch
    from torch import nn
    from torch.nn import functional

    class SelfAttention(nn.Module):
        def __init__(self, masked: bool) -> None:
            super().__init__()
            self.inner, self.masked = nn.MultiheadAttention(16, 4, batch_first=True), masked

        def forward(self, x: Any) -> Any:
            mask = torch.full((x.shape[1], x.shape[1]), -torch.inf).triu(1) if self.masked else None
            return self.inner(x, x, x, need_weights=not self.masked, attn_mask=mask)[0]

    class Heads(nn.Module):
        def __init__(self, form: str) -> None:
            super().__init__()
            self.project, self.form = nn.Linear(16, 48), form

        def forward(self, x: Any) -> Any:
            batch, length, _ = x.shape
            q, k, v = (t.view(batch, length, 4, 4).transpose(1, 2) for t in self.project(x).chunk(3, -1))
            if self.form == "by hand":
                y = ((q @ k.transpose(-2, -1)) / 2).softmax(-1) @ v
            else:
                seen = x[:, None, None, :, 0] < 1 if self.form == "boolean" else None
                y = functional.scaled_dot_product_attention(q, k, v, seen, is_causal=self.form == "causal")
            return y.transpose(1, 2).reshape(batch, length, 16)

    modules = {f"Heads, {form}": Heads(form) for form in ("by hand", "plain", "causal", "boolean")}
    return {"SelfAttention": SelfAttention(False), "SelfAttention, masked": SelfAttention(True), **modules}


@pytest.mark.parametrize(("dynamo", "free"), [(False, False), (False, True), (True, True)])
@pytest.mark.parametrize(
    "name",
    [
        "SelfAttention", "SelfAttention, masked", "Heads, by hand", "Heads, plain", "Heads, causal", "Heads, boolean",
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_what_pytorch_exports(name: str, dynamo: bool, free: bool) -> None:
    torch = pytest.importorskip("torch")
    if dynamo:
        pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    module, x, file = _torch_modules()[name].eval(), torch.randn(2, 6, 16), io.BytesIO()
    if dynamo:
        sizes = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("length")},) if free else None
        torch.onnx.export(module, (x,), dynamo=True, verbose=False, dynamic_shapes=sizes).save(file)
    else:
        axes = {"x": {0: "batch", 1: "length"}} if free else None
        torch.onnx.export(module, (x,), file, dynamo=False, input_names=["x"], dynamic_axes=axes)
    model = load_bytes(file.getvalue())
    graph = drop_dead(fuse_attention(model.graph).graph).graph
    names = op_names(graph)
    assert names.count("attention") == 1
    assert "softmax" not in names
    wanted = module(x).detach().numpy()
    state = {k: t.array for k, t in model._state.items()}
    found = run_graph(graph, [x.numpy() if v in graph.inputs else state[v.name] for v in graph.entries])
    np.testing.assert_allclose(found[0], wanted, rtol=1e-4, atol=1e-5)
