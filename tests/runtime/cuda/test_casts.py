"""Casts of parameters: one launch a step, before everything else."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgrad.ops import conv, layout, matmul, optimize, pointwise as pw
from onnxgrad.ops.kernels.cuda.kernel import LibraryCall
from onnxgrad.ops.types import BFLOAT16
from onnxgrad.ops.window import Window
from onnxgrad.runtime.cuda.printing import kernel_name
from onnxgrad.runtime.cuda.program import CudaProgram
from onnxgrad.runtime.passes.rewriting import run_passes
from onnxgrad.runtime.passes.turn_products import turn_products

from ...ops.kernels.cuda import host
from ..compiled.graphs import build, feeds_for, reference, with_state_fed
from ..compiled.test_program import SAME, weights
from .host_runner import HostRunner, aligned, verify

ONE = Window((1, 1), ((0, 0), (0, 0)), (1, 1))

pytestmark = pytest.mark.skipif(host.why_not() is not None, reason=str(host.why_not()))


def half(x):
    return pw.cast(x, dtype="bfloat16")


def ran(inputs, state, body, passes=()):
    """Run a graph of parameters that each run brings, and return its program."""
    graph = run_passes(build(inputs, state, body), passes).graph
    runner = HostRunner()
    program = CudaProgram(with_state_fed(graph), runner)
    verify(program)
    for seed in range(4):
        feeds = feeds_for(graph, seed=seed)
        found = program.run([*feeds, *map(aligned, state.values())])
        for a, b in zip(found, reference(graph, feeds, state)[0], strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=2e-2, atol=0.1)
    runner.check()
    return program


def casts_of(program):
    """Return the numbers and names of the steps that cast."""
    return [(i, s.ops) for i, s in enumerate(program.steps) if any(op.startswith("cast") for op in s.ops)]


def test_casts_of_parameters_are_one_launch():
    """Transposed, reshaped and plain ones lie as what they are made of."""
    state = weights(w=(16, 8), v=(8, 16), b=(8,), c=(4, 2))

    def body(x, w, v, b, c):
        turned = matmul.matmul(half(x), half(layout.transpose(w, perm=(1, 0))))
        y = matmul.matmul(pw.relu(turned), half(layout.transpose(v, perm=(1, 0))))
        return pw.add(pw.add(y, half(b)), half(layout.reshape(c, shape=(8,))))

    program = ran({"x": (4, 8)}, state, body)
    assert casts_of(program) == [(0, ("cast of 5",))]
    assert [s.ops[0] for s in program.steps] == ["cast of 5", "matmul", "matmul", "matmul"][: len(program.steps)]
    assert all("copy" not in s.ops for s in program.steps)


def test_what_has_a_cast_of_its_own():
    """Filters lie as convolutions read them; results, numbers of other types and chains stay where they are."""
    state = weights(w=(8, 8, 3, 3), v=(8, 8, 1, 1), b=(8, 1, 1), c=(8,))

    def body(x, w, v, b, c):
        y = conv.conv(conv.conv(half(x), half(w), win=SAME), half(v), win=ONE)
        return pw.add(y, half(b)), half(c), pw.cast(pw.mul(c, 2.0), dtype="bfloat16"), pw.cast(c, dtype="float64")

    program = ran({"x": (2, 8, 6, 6)}, state, body)
    assert (0, ("cast of 2",)) in casts_of(program)
    assert [s.ops for s in program.steps].count(("cast",)) == 4
    assert all("copy" not in s.ops for s in program.steps)


def test_one_cast_is_nothing_new():
    """A single one is the kernel of any cast."""
    program = ran(
        {"x": (4, 8)}, weights(w=(8, 6)), lambda x, w: matmul.matmul(pw.cast(pw.neg(x), dtype="bfloat16"), half(w))
    )
    assert program.steps[-1].writes()[0].operand.dtype == BFLOAT16
    assert not any(op.startswith("cast of") for _, ops in casts_of(program) for op in ops)


def test_gradients_of_weights_are_made_as_they_are_stored():
    """What is a transposed, widened product of half precision is one call: no transposition, no pass that widens."""

    def body(x, g, numbers, w):
        product = matmul.matmul(layout.transpose(half(x), perm=(1, 0)), half(g))
        gradient = layout.transpose(pw.cast(product, dtype="float32"), perm=(1, 0))
        return optimize.sgd_update(w, gradient, None, numbers, decays=False, nesterov=False)[0]

    given = {"x": (4, 8), "g": (4, 16), "numbers": (4,)}, weights(w=(16, 8)), body
    before, program = ran(*given), ran(*given, passes=[turn_products])
    assert [s.ops[0] for s in before.steps] == ["cast of 2", "matmul", "copy", "sgd_update"]
    assert [s.ops[0] for s in program.steps] == ["cast of 2", "matmul", "sgd_update"]
    product = program.steps[1]
    assert product.ops == ("matmul", "cast") and product.work.description.d.dtype == np.float32


def test_residuals_are_part_of_products():
    """A product in half precision with its bias and a sum in float32 is one call, beside the vector that is widened."""
    state = weights(w=(8, 8), b=(8,))

    def body(x, r, w, b):
        return pw.add(pw.cast(pw.add(matmul.matmul(half(x), half(w)), half(b)), dtype="float32"), r)

    program = ran({"x": (4, 8), "r": (4, 8)}, state, body)
    last = program.steps[-1]
    assert isinstance(last.work, LibraryCall) and last.ops == ("matmul", "add", "cast", "add")
    d = last.work.description
    assert d.bias and d.c == d.d and d.d.dtype == np.float32 and d.a.dtype == BFLOAT16
    assert [kernel_name(s) for s in program.steps][:-1].count("epilogue") == 0


@pytest.mark.parametrize(("turned", "axis", "copies"), [(True, 1, 0), (False, 0, 0), (False, 1, 1), (True, 0, 1)])
def test_matrices_that_are_cast_to_be_one(turned, axis, copies):
    """They are written side by side where they lie one behind the other; else a kernel joins them."""
    state = weights(v=(8, 8), w=(8, 8), b=(8,), c=(8,))

    def body(x, v, w, b, c):
        both = [half(layout.transpose(m, perm=(1, 0)) if turned else m) for m in (v, w)]
        whole = layout.concat(*both, axis=axis)
        y = matmul.matmul(half(x), whole if axis else layout.transpose(whole, perm=(1, 0)))
        return pw.add(y, layout.concat(half(b), half(c), axis=0))

    program = ran({"x": (4, 8)}, state, body)
    ops = [s.ops[0] for s in program.steps]
    assert ops[0] == "cast of 5" and ops.count("concat") == copies * 2 and ops[-1] == "matmul"
