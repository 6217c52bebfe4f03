"""Who reads what: what is wanted, and how those that read a value want it to lie."""

from __future__ import annotations

import itertools

import pytest

from onnxgrad.ops import layout, pointwise as pw, rank
from onnxgrad.runtime.cuda.readers import Readers, parts

from ..compiled.graphs import build


def readers(graph):
    return Readers(graph, graph.nodes)


def test_wanted():
    graph = build({"x": (4, 6)}, {}, lambda x: pw.exp(rank.topk(x, k=2, axis=1)[0]))
    values, places = graph.nodes[0].outputs
    found = readers(graph)
    assert found.wanted(values) and not found.wanted(places) and found.wanted(graph.outputs[0])
    assert found.ops(values) == ("exp",) and found.ops(places) == found.ops(graph.outputs[0]) == ()


@pytest.mark.parametrize("perm", [*itertools.permutations(range(4)), None])
def test_permuted(perm):
    """The permutation of what lies so is row-major; the last axis stays where it is."""
    graph = build({"x": (2, 3, 4, 5)}, {}, lambda x: pw.exp(layout.transpose(pw.neg(x), perm=perm)))
    made = graph.nodes[0].outputs[0]
    found = readers(graph).permuted(made)
    if perm is None or perm[-1] != 3:
        assert found is None
    else:
        assert found.shape == (2, 3, 4, 5) and found.strides[-1] == 1 and found.transposed(perm).contiguous


def test_permuted_for_all_or_for_none():
    def body(x, *perms):
        return tuple(pw.exp(layout.transpose(x, perm=p)) for p in perms)

    same, other = (0, 2, 1, 3), (1, 0, 2, 3)
    for perms, agreed in (((same, same), True), ((same, other), False)):
        graph = build({"x": (2, 3, 4, 5)}, {}, lambda x, perms=perms: body(pw.neg(x), *perms))
        assert (readers(graph).permuted(graph.nodes[0].outputs[0]) is not None) == agreed


@pytest.mark.parametrize(
    ("perm", "shape", "axis"),
    [((1, 0, 2, 3), (-1, 2, 12), 0), ((0, 1, 2, 3), (2, -3, 4), 1), ((0, 2, 1, 3), (2, 3, -4), -1)],
)
def test_joined(perm, shape, axis):
    """Parts of a concatenation lie in it, behind reshapes and permutations too."""

    def body(x):
        turned = []
        for n, piece in zip((1, 2, 3), layout.split(x, axis=1, sizes=(1, 2, 3)), strict=True):
            turned.append(
                layout.reshape(layout.transpose(piece, perm=perm), shape=[-d * n if d < 0 else d for d in shape])
            )
        return pw.exp(layout.concat(*turned, axis=axis))

    graph = build({"x": (2, 6, 3, 4)}, {}, body)
    (concat,) = (n for n in graph.nodes if n.op is layout.concat)
    taken = []
    for v in graph.nodes[0].outputs:
        value, lies = readers(graph).joined(v)
        assert value is concat.outputs[0] and lies.shape == tuple(v.shape)
        for at in itertools.product(*map(range, lies.shape)):
            taken.append(lies.offset + sum(a * s for a, s in zip(at, lies.strides, strict=True)))
    assert sorted(taken) == list(range(144))
    assert [p.shape for p in parts(concat)] == [tuple(v.shape) for v in concat.inputs()]


def test_what_strides_cannot_say_is_not_joined():
    def body(x):
        a, b = (layout.transpose(p, perm=(1, 0)) for p in layout.split(x, axis=0, sizes=(2, 2)))
        return pw.exp(layout.concat(layout.reshape(a, shape=(2, 3)), layout.reshape(b, shape=(2, 3)), axis=1))

    graph = build({"x": (4, 3)}, {}, body)
    assert [readers(graph).joined(v) for v in graph.nodes[0].outputs] == [None, None]
