"""Attention in programs: what layers share, what is left out because nobody reads it, how results lie, refusals."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn, optim
from onnxgrad.nn import functional as F
from onnxgrad.ops import layout, matmul, pointwise as pw
from onnxgrad.ops.attention import attention, attention_grad
from onnxgrad.ops.errors import KernelError
from onnxgrad.ops.kernels.cuda import attention as rules
from onnxgrad.ops.kernels.cuda.cudnn_graphs import Attention, AttentionBackward, AttentionForward
from onnxgrad.runtime.cuda.buckets import Buckets
from onnxgrad.runtime.cuda.printing import kernel_name
from onnxgrad.runtime.graph.autodiff import differentiate
from onnxgrad.runtime.tensor.tensor import Tensor

from ...ops.kernels.cuda import host
from ..compiled.graphs import build, feeds_for, reference
from .host_runner import HostRunner, run_checked

pytestmark = pytest.mark.skipif(bool(host.why_not()), reason=str(host.why_not()))

B, H, L, E = 2, 3, 5, 8
HEADS = (B, H, L, E)


def programs(graph, state=None, *, runner=None, tolerance=2e-2):
    """Run a graph and compare; return its program."""
    runner, state = runner or HostRunner(), state or {}
    buckets = Buckets(graph, runner)
    tensors = {n: Tensor(a) for n, a in state.items()}
    feeds = [_hiding(f) for f in feeds_for(graph)]
    wanted = [np.asarray(w, np.float64) for w in reference(graph, feeds, state)[0]]
    for _ in range(4):
        _close(buckets.run(feeds, tensors)[0], wanted, tolerance)
    assert not buckets.refused
    program = buckets.programs[-1]
    _close(run_checked(program, feeds, tensors), wanted, tolerance)
    assert not program.compiler.refused
    runner.check()
    return program


def _hiding(feed):
    """Let a mask of numbers hide what is below 0, and its last row all."""
    if feed.shape[-1] != L:
        return feed
    feed = np.where(feed < 0, -np.inf, feed).astype(feed.dtype)
    feed.reshape(-1, L)[-1] = -np.inf
    return feed


def _close(found, wanted, tolerance):
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), b, rtol=tolerance, atol=tolerance)


def names(program):
    """Return what the steps are."""
    return [kernel_name(s).removeprefix("cudnn ") for s in program.steps]


def halves(inputs, body, weights=None):
    """Return a graph of float16."""
    return build(inputs, weights or {}, body, dict.fromkeys(inputs, "float16"))


def layers(x, mask, *each, scale=0.3):
    """Return attention over itself, again and again, with its heads joined and split between."""
    for how in each:
        y = attention(x, x, x, mask, scale=scale, **how)
        joined = layout.reshape(layout.transpose(y, perm=(0, 2, 1, 3)), shape=(B, L, H * E))
        x = layout.transpose(layout.reshape(pw.mul(joined, 1.5), shape=(B, L, H, E)), perm=(0, 2, 1, 3))
    return x


@pytest.mark.parametrize(("ways", "biases"), [(({}, {}, {}), 1), (({}, {"right": 0}, {}), 2), (({"left": 1},) * 2, 1)])
@pytest.mark.parametrize("mask", [(B, 1, L, L), (L, L), (1, H, L, L)])
def test_layers_share_what_is_added(ways, biases, mask):
    program = programs(halves({"x": HEADS, "mask": mask}, lambda x, mask: layers(x, mask, *ways)))
    found = names(program)
    assert found.count("attention_bias") == found.count("attention_seen") == biases
    assert found.count("AttentionForward") == found.count("attention_clear") == len(ways)


def test_other_masks_and_other_types_are_apart():
    def body(x, a, b):
        wide = pw.cast(x, dtype="float32")
        first, second = (attention(x, x, x, m, scale=0.3) for m in (a, b))
        return first, second, attention(wide, wide, wide, a, scale=0.3)

    found = names(programs(halves({"x": HEADS, "a": (L, L), "b": (L, L)}, body)))
    assert found.count("attention_bias") == 3


@pytest.mark.parametrize(("mask", "biases"), [(np.tri(L), 0), (np.tri(L) + np.eye(L)[::-1], 1)], ids=["window", "none"])
def test_constants_alike_are_shared(mask, biases):
    low = np.where(mask > 0, 0, -np.inf).astype(np.float16)

    def body(x):
        return attention(attention(x, x, x, low, scale=0.3), x, x, low.copy(), scale=0.3)

    found = names(programs(halves({"x": HEADS}, body)))
    assert found.count("attention_bias") == found.count("attention_seen") == biases
    assert found.count("AttentionForward") == 2


def finetuned():
    """Return forward and backward of two layers, by what enters them; the gradient of the mask is not asked for."""

    def body(x, w, mask):
        y = layers(pw.mul(x, w), mask, {}, {"right": 1})
        return pw.cast(pw.mul(y, y), dtype="float32")

    return differentiate(halves({"x": HEADS, "w": (E,), "mask": (B, 1, 1, L)}, body), ["x", "w"])


def test_backward_finds_what_forward_made():
    program = programs(finetuned(), tolerance=5e-2)
    found = names(program)
    assert found.count("AttentionForward") == found.count("AttentionBackward") == 2
    assert found.count("attention_bias") == found.count("attention_seen") == found.count("attention_clear") == 2
    assert "attention_slopes" not in found and "attention_sums" not in found


def test_the_gradient_of_a_mask_is_computed_where_it_is_read():
    def body(x, mask):
        return pw.cast(pw.mul(layers(x, mask, {}), 2.0), dtype="float32")

    graph = differentiate(halves({"x": HEADS, "mask": (B, 1, 1, L)}, body), ["x", "mask"])
    found = names(programs(graph, tolerance=5e-2))
    assert "attention_slopes" in found and "AttentionBackward" not in found


def test_heads_are_joined_without_a_copy():
    graph = halves({"x": HEADS, "w": (H * E, 4)}, lambda x, w: _projected(attention(x, x, x, scale=0.3), w))
    assert names(programs(graph)) == ["AttentionForward", "cublaslt MatMul"]


def _projected(y, w):
    return matmul.matmul(layout.reshape(layout.transpose(y, perm=(0, 2, 1, 3)), shape=(B, L, H * E)), w)


def test_gradients_are_joined_without_a_copy():
    def body(x, g):
        y = attention(x, x, x, scale=0.3)
        made = attention_grad(g, y, x, x, x, scale=0.3)
        return tuple(layout.reshape(layout.transpose(d, perm=(0, 2, 1, 3)), shape=(B, L, H * E)) for d in made)

    assert names(programs(halves({"x": HEADS, "g": HEADS}, body))) == ["AttentionForward", "AttentionBackward"]


@pytest.mark.parametrize("entries", [2, 6])
def test_directions_share_copies_where_scores_are_kept(entries):
    """Of many entries each tensor of (B, L, H, E) is copied once, of few none is."""

    def heads(x):
        return layout.transpose(layout.reshape(x, shape=(entries, L, H, E)), perm=(0, 2, 1, 3))

    def body(x, y, z, g):
        q, k, v, above = map(heads, (x, y, z, g))
        made = attention(q, k, v, scale=0.3)
        gradients = attention_grad(above, made, q, k, v, scale=0.3)
        return tuple(pw.neg(layout.transpose(t, perm=(0, 2, 1, 3))) for t in (made, *gradients))

    program = programs(build(dict.fromkeys("xyzg", (entries, L, H * E)), {}, body), tolerance=1e-4)
    copies = [n for n in names(program) if n.startswith(("copy", "copied"))]
    assert len(copies) == (0 if entries == 2 else 4)


@pytest.mark.parametrize("others", ["add", "two ways", "reversed", "output"])
def test_other_readers_get_it_plain(others):
    def body(x):
        y = attention(x, x, x, scale=0.3)
        turned = pw.neg(layout.transpose(y, perm=(3, 2, 1, 0) if others == "reversed" else (0, 2, 1, 3)))
        if others == "add":
            return turned, pw.add(y, 1.0)
        if others == "two ways":
            return turned, pw.exp(layout.transpose(y, perm=(1, 0, 2, 3)))
        return (turned, y) if others == "output" else turned

    program = programs(halves({"x": HEADS}, body))
    (step,) = (s for s in program.steps if kernel_name(s) == "cudnn AttentionForward")
    assert step.writes()[0].operand.contiguous


class Refusing(HostRunner):
    """A device whose cuDNN has no attention of these kinds."""

    kinds: tuple[type, ...] = (Attention,)

    def prepare(self, call):
        if isinstance(call.description, self.kinds):
            raise KernelError("cuDNN has no plan")
        return super().prepare(call)


@pytest.mark.parametrize("kinds", [(Attention,), (AttentionForward,), (AttentionBackward,)])
def test_what_is_refused_keeps_its_scores(kinds):
    runner = Refusing()
    runner.kinds = kinds
    program = programs(finetuned(), runner=runner, tolerance=5e-2)
    found = names(program)
    assert found.count("attention_slopes") == 2 and "AttentionBackward" not in found
    assert found.count("AttentionForward") == (2 if kinds == (AttentionBackward,) else 0)
    assert len(program.compiler.declined) == (2 if kinds == (AttentionBackward,) else 4)
    assert all("cuDNN has no plan" in said for said in program.compiler.declined)
    assert "declined: " in str(program)


@pytest.mark.parametrize(("dtype", "how"), [("float32", {}), ("float64", {}), ("float16", {"softcap": 1.5})])
def test_the_limit_is_what_scores_take(monkeypatch, dtype, how):
    said = []
    kept = rules.bytes_kept

    def listens(*given, **more):
        said.append(kept(*given, **more))
        return said[-1]

    monkeypatch.setattr(rules, "bytes_kept", listens)
    query, key = (1, 2, 64, 16), (1, 2, 96, 16)

    def body(g, *given):
        return attention_grad(g, attention(*given, scale=0.3, **how), *given, scale=0.3, **how)

    inputs = {"g": query, "q": query, "k": key, "v": key, "mask": (64, 96)}
    program = programs(build(inputs, {}, body, dict.fromkeys(inputs, dtype)), tolerance=5e-2)
    small = program.feed_bytes + sum(p.operand.nbytes for p in program.compiler.outputs)
    added = 64 * 96 * 8  # which other layers keep longer
    assert said[-1] - added <= program.arena_bytes <= said[-1] + small


def projected(x, w, *, swapped=False):
    """Return attention over parts of one projection."""
    parts = layout.split(matmul.matmul(x, w), axis=2, sizes=(H * E,) * 3)
    q, k, v = (layout.transpose(layout.reshape(p, shape=(B, L, H, E)), perm=(0, 2, 1, 3)) for p in parts)
    y = attention(v, k, q, scale=0.3) if swapped else attention(q, k, v, scale=0.3)
    return pw.cast(
        pw.mul(layout.reshape(layout.transpose(y, perm=(0, 2, 1, 3)), shape=(B, L, H * E)), 2.0), dtype="float32"
    )


@pytest.mark.parametrize("swapped", [False, True])
def test_gradients_of_one_projection_lie_in_it(swapped):
    graph = halves({"x": (B, L, 4), "w": (4, 3 * H * E)}, lambda x, w: projected(x, w, swapped=swapped))
    program = programs(differentiate(graph, ["x", "w"]), tolerance=5e-2)
    (step,) = (s for s in program.steps if kernel_name(s) == "cudnn AttentionBackward")
    assert {p.operand.strides for p in step.writes()} == {(3 * L * H * E, E, 3 * H * E, 1)}
    assert len({id(p.storage) for p in step.writes()}) == 1
    assert not [n for n in names(program) if "concat" in n or "copy" in n]


@pytest.mark.parametrize("more", ["another part", "another reader", "twice", "an output"])
def test_what_is_read_otherwise_is_joined_by_copies(more):
    def body(x, g):
        y = attention(x, x, x, scale=0.3)
        made = attention_grad(g, y, x, x, x, scale=0.3)
        parts = [layout.reshape(layout.transpose(d, perm=(0, 2, 1, 3)), shape=(B, L, H * E)) for d in made]
        if more == "another part":
            parts[1] = pw.exp(parts[1])
        if more == "twice":
            parts[2] = parts[0]
        joined = pw.neg(layout.concat(*parts, axis=2))
        if more == "another reader":
            return joined, pw.exp(parts[0])
        return (joined, parts[0]) if more == "an output" else joined

    found = names(programs(halves({"x": HEADS, "g": HEADS}, body), tolerance=5e-2))
    assert found.count("AttentionBackward") == 1 and any("concat" in n for n in found)


class Sentences(nn.Module):
    """Two layers of attention over words that a mask of integers says are there."""

    def __init__(self, one):
        super().__init__()
        self.one = one
        sizes = (48,) if one else (16,) * 3
        self.parts = nn.ModuleList([nn.Linear(16, n) for _ in range(2) for n in sizes])
        self.out = nn.ModuleList([nn.Linear(16, 16) for _ in range(2)])

    def forward(self, x, there):
        mask = ((1.0 - there.float()) * -1e4)[:, None, None, :]
        n, s, _ = x.shape
        for i, out in enumerate(self.out):
            own = self.parts[i : i + 1] if self.one else self.parts[3 * i : 3 * i + 3]
            parts = [part for p in own for part in p(x).chunk(3 if self.one else 1, 2)]
            q, k, v = (t.reshape(n, s, 2, 8).transpose(1, 2) for t in parts)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.dtype))
            x = x + out(y.transpose(1, 2).reshape(n, s, 16))
        return x


@pytest.mark.parametrize("one", [False, True], ids=["three projections", "one"])
def test_a_step_of_masked_attention_in_bfloat16(one, on_cuda):
    og.manual_seed(0)
    module = Sentences(one)
    eager = copy.deepcopy(module)

    def step_of(m):
        o = optim.SGD(m.parameters(), lr=0.05)

        def step(x, there, wanted):
            o.zero_grad()
            with og.amp.autocast("bfloat16"):
                loss = (m(x, there).float() - wanted).square().mean()
            loss.backward()
            o.step()
            return loss

        return step

    compiled, plain = og.compile(step_of(module)), step_of(eager)
    rng = np.random.default_rng(0)
    for _ in range(4):
        x, wanted = (rng.standard_normal((3, 5, 16)).astype(np.float32) for _ in range(2))
        given = [x, np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [1] * 5]), wanted]
        a, b = (run(*map(og.tensor, given)).item() for run in (compiled, plain))
        np.testing.assert_allclose(a, b, rtol=2e-2)
    for p, q in zip(module.parameters(), eager.parameters(), strict=True):
        np.testing.assert_allclose(p._array, q._array, rtol=2e-2, atol=5e-3)
    (program,) = compiled.programs[0].engine._buckets.programs
    found = names(program)
    assert not program.compiler.refused and not [n for n in found if n.startswith(("copy_u16", "concat"))]
    assert [found.count(n) for n in ("AttentionForward", "AttentionBackward", "attention_bias")] == [2, 2, 1]
    on_cuda.check()
