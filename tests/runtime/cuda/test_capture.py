"""What is recorded as CUDA graphs, and what happens where that fails."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from onnxgrad.ops import cumulative, layout, matmul, pointwise as pw, reduce as red
from onnxgrad.runtime.cuda.capture import WARM_UPS
from onnxgrad.runtime.cuda.program import CudaProgram
from onnxgrad.runtime.tensor.tensor import Tensor

from ...ops.kernels.cuda import host
from ..compiled.graphs import build, feeds_for, reference
from .host_runner import CaptureError, HostRunner, verify

pytestmark = pytest.mark.skipif(host.why_not() is not None, reason=str(host.why_not()))

TURNED = {"x": (3, 40, 33)}


def turned(x):
    """A kernel, an array kernel in the middle (cumulative sums of integers have no rule here), a kernel."""
    y = pw.mul(pw.add(x, 1.0), 2.0)
    z = pw.cast(cumulative.cumsum(pw.cast(y, dtype="int64"), axis=0), dtype="float32")
    return layout.transpose(pw.add(z, y), perm=(2, 0, 1))


def make(body, inputs, monkeypatch=None, *, without=(), **how):
    from onnxgrad.runtime.cuda import compiler

    compiler.load_rules()
    if without:
        monkeypatch.setattr(compiler, "LOWERINGS", {k: v for k, v in compiler.LOWERINGS.items() if k not in without})
    graph = build(inputs, {}, body)
    runner = HostRunner()
    return graph, runner, CudaProgram(graph, runner, **how)


def test_runs_are_recorded_after_warm_ups_and_replayed(monkeypatch):
    graph, runner, program = make(turned, TURNED, monkeypatch, without=("cumsum",))
    verify(program)
    assert [s.capturable for s in program.capture.segments] == [True, False, True]
    for run in range(WARM_UPS + 3):
        feeds = feeds_for(graph, seed=run)
        runner.log.clear()
        np.testing.assert_allclose(program.run(feeds)[0], reference(graph, feeds, {})[0][0], rtol=1e-6)
        assert runner.log.count("begin") == runner.log.count("end") == (2 if run == WARM_UPS else 0)
        assert runner.log.count("replay") == (2 if run >= WARM_UPS else 0)
        launched = [name for name in runner.log if name.startswith("pointwise")]
        assert bool(launched) == (run <= WARM_UPS)
    assert program.capture.graphs == 2
    runner.check()


def test_without_capture_the_same_runs(monkeypatch):
    graph, runner, program = make(turned, TURNED, monkeypatch, without=("cumsum",), capture=False)
    _, _, captured = make(turned, TURNED, monkeypatch, without=("cumsum",))
    for run in range(WARM_UPS + 2):
        feeds = feeds_for(graph, seed=run)
        np.testing.assert_array_equal(program.run(feeds)[0], captured.run(feeds)[0])
    assert "begin" not in runner.log
    assert program.capture.graphs == 0
    assert captured.capture.graphs == 2


def test_what_cannot_be_recorded_runs_on_with_a_warning(monkeypatch):
    graph, runner, program = make(turned, TURNED, monkeypatch, without=("cumsum",))
    first = next(s.work.kernel.name for s in program.steps if s.capturable)
    runner.refuses = {first}
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for run in range(WARM_UPS + 3):
            feeds = feeds_for(graph, seed=run)
            np.testing.assert_allclose(program.run(feeds)[0], reference(graph, feeds, {})[0][0], rtol=1e-6)
    told = [str(w.message) for w in found]
    assert len(told) == 1
    assert "cannot be recorded" in told[0]
    assert first in told[0]
    assert runner.recording is None


def test_a_whole_graph_of_kernels_is_one_recording():
    graph, runner, program = make(lambda x: red.sum_(pw.exp(pw.mul(x, 0.1)), axes=(2,)), TURNED)
    assert not program.compiler.refused
    for run in range(WARM_UPS + 2):
        feeds = feeds_for(graph, seed=run)
        np.testing.assert_allclose(program.run(feeds)[0], reference(graph, feeds, {})[0][0], rtol=1e-5)
    assert program.capture.graphs == 1
    assert runner.log.count("begin") == 1


def test_a_weight_in_another_place_is_recorded_anew(no_kernels):
    """Here a copy alone can be recorded; its address is part of the recording."""
    w = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    graph = build({"x": (1, 3, 2, 2)}, {"w": w}, lambda x, w: (w, matmul.matmul(x, w)))
    from .host_runner import aligned

    program, t = CudaProgram(graph, HostRunner()), Tensor(aligned(w))
    for _ in range(WARM_UPS + 2):
        np.testing.assert_array_equal(program.run(feeds_for(graph), {"w": t})[0], w)
    before = program.store.generation
    t.data = aligned(2 * w)
    np.testing.assert_array_equal(program.run(feeds_for(graph), {"w": t})[0], 2 * w)
    assert program.store.generation > before


@pytest.mark.parametrize("asked", ["allocate", "download", "synchronize", "array", "copy"])
def test_the_host_runner_notices_what_a_graph_cannot_hold(asked):
    runner = HostRunner()
    runner.begin_capture()
    arguments = {"allocate": (64,), "synchronize": ()}.get(asked, (np.zeros(3),))
    with pytest.raises(CaptureError, match=asked):
        getattr(runner, asked)(*arguments)
