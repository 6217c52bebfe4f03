"""Sizes that agree for all sizes of the inputs that work get one name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops import conv, index, layout, pointwise as pw
from onnxgrad.ops.dims import Dim, symbols_in
from onnxgrad.ops.errors import AssumptionError
from onnxgrad.ops.types import TensorType
from onnxgrad.ops.window import Window
from onnxgrad.runtime.compiled.program import Program
from onnxgrad.runtime.graph.graph import Graph
from onnxgrad.runtime.passes.resolve_symbols import resolve_symbols

F32 = np.dtype(np.float32)
N, H, W = (Dim.symbol(s) for s in "nhw")


def built(shapes: list[tuple[Any, ...]], body: Any) -> Graph:
    g = Graph("test")
    with g.building():
        made = body(*[g.input(f"x{i}", TensorType(F32, s)) for i, s in enumerate(shapes)])
    g.outputs = [made]
    return g


def open_symbols(g: Graph) -> set[str]:
    known = {s for v in g.inputs for s in symbols_in(v.shape)}
    return {s for node in g.nodes for v in node.outputs for s in symbols_in(v.shape)} - known


def causal(x: Any) -> Any:
    mask = np.tril(np.ones((64, 64), np.float32))
    part = layout.slice_(mask_of(x, mask), starts=(0, 0), stops=(N, N), steps=(1, 1), axes=(0, 1))
    return pw.add(x, part)


def mask_of(x: Any, mask: Any) -> Any:
    return x.graph.constant(mask)


def test_a_slice_of_a_constant_is_as_long_as_what_it_is_added_to() -> None:
    g = built([(N, N)], causal)
    assert open_symbols(g)
    made = resolve_symbols(g)
    assert made.changed
    assert not open_symbols(made.graph)
    assert made.graph.outputs[0].shape == (N, N)
    x = np.random.default_rng(0).standard_normal((7, 7)).astype(np.float32)
    found = Program(made.graph).run([x], {})[0][0]
    np.testing.assert_allclose(found, x + np.tril(np.ones((7, 7))), rtol=1e-6)


def test_an_assumption_that_does_not_hold_is_noticed_before_anything_runs() -> None:
    program = Program(resolve_symbols(built([(N, N)], causal)).graph)
    with pytest.raises(AssumptionError):
        program.run([np.ones((65, 65), np.float32)], {})


HALVED = Window((2, 2), ((1, 1), (1, 1)), (1, 1))


def pyramid(x: Any, w: Any) -> Any:
    down = conv.conv(x, w, win=HALVED)
    further = conv.conv(down, w, win=HALVED)
    n, c, h, v = further.shape
    split = layout.expand(layout.reshape(further, shape=(n, c, h, 1, v, 1)), shape=(n, c, h, 2, v, 2))
    spread = layout.reshape(split, shape=(n, c, 2 * h, 2 * v))
    return pw.add(down, spread)


def test_maps_that_are_halved_and_doubled_meet_for_multiples() -> None:
    g = built([(1, 3, H, W), (3, 3, 3, 3)], pyramid)
    assert open_symbols(g)
    made = resolve_symbols(g)
    assert not open_symbols(made.graph)
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((1, 3, 16, 24), (3, 3, 3, 3)))
    found = Program(made.graph).run([x, w])[0][0]
    assert found.shape == (1, 3, 8, 12)
    with pytest.raises(AssumptionError):
        Program(made.graph).run([rng.standard_normal((1, 3, 14, 24)).astype(np.float32), w])


def test_what_hangs_on_data_stays_open() -> None:
    g = built([(N,)], lambda x: index.nonzero(pw.less(0.0, x)))
    made = resolve_symbols(g)
    assert open_symbols(made.graph)


def test_a_graph_without_open_symbols_is_left_alone() -> None:
    g = built([(N, 3)], lambda x: pw.relu(x))
    assert resolve_symbols(g).graph is g
