"""CUDA gradients of recurrent layers against the array kernels in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxgrad.ops.rnn_grad  # noqa: F401 (its ops)
from onnxgrad.ops.kernels.cuda import recurrent_arrangement, recurrent_grad as _rules
from onnxgrad.ops.kernels.cuda.kernel import Launch
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import BFLOAT16

from . import nvrtc
from .site import lower, make_site, refuses, run_op
from .test_recurrent import KINDS, WIDEST, S, T, layer

assert _rules
CLOSE = {"float64": 1e-12, "float32": 2e-5, "float16": 1e-2, "bfloat16": 8e-2}


@pytest.fixture(params=["one kernel", "a step a launch"])
def way(request: Any, monkeypatch: Any) -> str:
    if request.param != "one kernel":
        monkeypatch.setattr(recurrent_arrangement, "_LAUNCH_CLOCKS", 0)
    return str(request.param)


def wide(args: list[Any]) -> list[Any]:
    return [a.astype(np.float64) if a is not None and a.dtype.kind not in "iu" else a for a in args]


def gradient(op: str, args: list[Any], attrs: dict[str, Any], *, given: str = "all", kept: bool = True) -> list[Any]:
    """Return the arguments of the gradient of a layer; `given` says which gradients arrive."""
    rng, dtype = np.random.default_rng(1), args[0].dtype
    states = 2 if op == "lstm" else 1
    train = OPS[f"{op}_train"] if op != "rnn" else OPS[op]
    y, *rest = train.run(*wide(args), **attrs)
    arriving = [rng.standard_normal(v.shape).astype(dtype) for v in (y, *rest[:states])]
    if given != "all":
        arriving = [a if (i == 0) == (given == "steps") else None for i, a in enumerate(arriving)]
    beside = [v.astype(dtype) if kept else None for v in rest[states:]]
    return [*arriving, y.astype(dtype), *args, *beside]


def check(op: str, args: list[Any], attrs: dict[str, Any], **how: Any) -> None:
    unread, states = how.get("unread", ()), 2 if op == "lstm" else 1
    dtype, lengths = args[states + 1].dtype, args[states + 6]
    got = run_op(f"{op}_grad", args, attrs, **how)
    wanted = list(OPS[f"{op}_grad"].run(*wide(args), **attrs))
    if op == "gru" and not attrs["linear_before_reset"] and lengths is not None:  # behind the end no gradient meets it
        wanted[2] = wanted[2] * (np.arange(wanted[2].shape[1])[:, None] < lengths)[None, :, :, None]
    wanted = [w for i, w in enumerate(wanted) if i not in unread]
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a.astype(np.float64), b, rtol=0, atol=CLOSE[dtype.name] * max(1, np.abs(b).max()))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op", "linear"), KINDS)
@pytest.mark.parametrize("lengths", [False, True])
def test_gradients(op: str, linear: bool, direction: str, lengths: bool, way: str) -> None:
    args, attrs = layer(op, 5, 6, 3, 10, direction, lengths=lengths, linear=linear)
    check(op, gradient(op, args, attrs), attrs, compiles=direction != "reverse")


@pytest.mark.parametrize("dtype", [np.float64, np.float16, BFLOAT16])
@pytest.mark.parametrize(("op", "linear"), KINDS)
def test_floats_of_other_widths(op: str, linear: bool, dtype: Any, way: str) -> None:
    args, attrs = layer(op, 4, 3, 5, 8, "bidirectional", dtype, linear=linear, lengths=True)
    check(op, gradient(op, args, attrs), attrs)


@pytest.mark.parametrize("given", ["steps", "states"])
@pytest.mark.parametrize(("op", "linear"), KINDS)
def test_bare_layers(op: str, linear: bool, given: str, way: str) -> None:
    for steps in (1, 2):
        args, attrs = layer(op, steps, 2, 4, 9, "bidirectional", bias=False, states=False, linear=linear)
        check(op, gradient(op, args, attrs, given=given), attrs, compiles=steps == 2)


@pytest.mark.parametrize(("op", "linear"), KINDS)
def test_gates_that_nobody_kept_are_made_anew(op: str, linear: bool, way: str) -> None:
    args, attrs = layer(op, 4, 3, 4, 6, "bidirectional", linear=linear, lengths=True)
    check(op, gradient(op, args, attrs, kept=False), attrs, compiles=False)


@pytest.mark.parametrize("unread", [(0,), (1,), (0, 1)])
def test_results_that_nothing_reads(unread: tuple[int, ...], way: str) -> None:
    for op in ("lstm", "gru"):
        args, attrs = layer(op, 3, 2, 4, 6, "bidirectional", linear=True)
        check(op, gradient(op, args, attrs), attrs, unread=unread, compiles=False)


@pytest.mark.parametrize("name", ["Relu", "Affine"])
def test_activations_of_each_direction(name: str, way: str) -> None:
    args, attrs = layer("rnn", 3, 2, 4, 6, "bidirectional")
    attrs["cells"] = ((T,), ((name, 0.5, 0.1),))
    check("rnn", gradient("rnn", args, attrs), attrs, compiles=False)


def test_coupled_gates(way: str) -> None:
    args, attrs = layer("lstm", 3, 2, 4, 6, "bidirectional")
    attrs["input_forget"] = True
    check("lstm", gradient("lstm", args, attrs), attrs)


def test_inputs_of_any_strides(way: str) -> None:
    args, attrs = layer("lstm", 4, 3, 5, 8, "bidirectional")
    given = gradient("lstm", args, attrs)
    for i in (0, 3):  # the gradient of the steps, and the steps
        given[i] = np.ascontiguousarray(given[i].transpose(2, 0, 1, 3)).transpose(1, 2, 0, 3)
    check("lstm", given, attrs, order="own", compiles=False)


@pytest.mark.parametrize("op", ["rnn", "gru", "lstm"])
def test_weights_that_are_read_in_every_step(op: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(recurrent_arrangement, "_OTHER_REGISTERS", 1000)
    for dtype in (np.float32, np.float16):
        for hidden in (10, 11, 40):
            args, attrs = layer(op, 3, 3, 4, hidden, "bidirectional", dtype)
            check(op, gradient(op, args, attrs), attrs)


@pytest.mark.parametrize("processors", [8, 4, 3, 1])
def test_blocks_of_several_entries(processors: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(recurrent_arrangement, "PROCESSORS", processors)
    monkeypatch.setattr(recurrent_arrangement, "_LAUNCH_CLOCKS", 10**6)
    for op, linear in KINDS:
        args, attrs = layer(op, 3, 11, 4, 20, lengths=True, linear=linear)
        check(op, gradient(op, args, attrs), attrs)


@pytest.mark.parametrize(("op", "hidden", "batch"), WIDEST)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_walks_of_real_sizes_compile(op: str, hidden: int, batch: int, dtype: Any) -> None:
    args, attrs = layer(op, 2, 1, 4, hidden, lengths=True, dtype=dtype)
    args[4] = args[4].repeat(batch)
    args = [np.zeros((*a.shape[:1], batch, *a.shape[2:]), dtype) if i in (0, 5, 6) else a for i, a in enumerate(args)]
    site = make_site(f"{op}_grad", gradient(op, args, attrs), attrs)
    assert lower(site)
    kernels = [w.kernel for w in site.work if isinstance(w, Launch)]
    for checked in nvrtc.begin_checks(kernels):
        checked.result()


def test_launches() -> None:
    """A step costs two of them, a small layer one in all."""
    args, attrs = layer("lstm", 4, 4, 8, 300, "bidirectional")
    site = make_site("lstm_grad", gradient("lstm", args, attrs), attrs)
    assert lower(site) and len(site.work) == 2 * 4 + 1
    args, attrs = layer("lstm", 4, 4, 8, 64, "bidirectional")
    site = make_site("lstm_grad", gradient("lstm", args, attrs), attrs)
    assert lower(site) and len(site.work) == 1


def test_refusals() -> None:
    args, attrs = layer("lstm", 3, 2, 4, 6, peepholes=True)
    assert refuses("lstm_grad", gradient("lstm", args, attrs), attrs)
    args, attrs = layer("lstm", 3, 2, 4, 6)
    attrs["cells"] = ((S, T, ("Elu", 1.0, 0.0)),)
    assert refuses("lstm_grad", gradient("lstm", args, attrs), attrs)
