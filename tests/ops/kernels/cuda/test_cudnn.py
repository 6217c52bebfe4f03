"""cuDNN's graphs: it accepts each description that the rules make, without a device; plans run what they are passed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.errors import KernelError
from onnxgrad.ops.expr import Var, call, maximum, minimum, sigmoid
from onnxgrad.ops.kernels.cuda import attention, conv, conv_grad, cudnn  # noqa: F401
from onnxgrad.ops.kernels.cuda.cudnn import ACTIVATIONS
from onnxgrad.ops.kernels.cuda.cudnn_graphs import (
    Attention,
    AttentionBackward,
    AttentionForward,
    ConvForward,
    Convolution,
    lifted,
)
from onnxgrad.ops.kernels.cuda.fusion import Activation
from onnxgrad.ops.kernels.cuda.kernel import LibraryCall
from onnxgrad.ops.kernels.cuda.lowering import Epilogue
from onnxgrad.ops.kernels.cuda.operand import Operand, channels_last_strides
from onnxgrad.ops.types import BFLOAT16

from . import driver
from .site import lower, make_site
from .test_attention import FORMS, arguments as attention_arguments
from .test_conv import CASES, arguments, window

F32, F16 = np.dtype(np.float32), np.dtype(np.float16)

_LOWER = """
import cudnn
from onnxgrad.ops.kernels.cuda.cudnn import Sheet
for d in given:
    try:
        for draw in (draw for way in d.ways() for draw in way):
            sheet = Sheet(cudnn, d.sums, sm_version=90)
            draw(sheet)
            sheet.graph.validate()
            sheet.graph.build_operation_graph()
        found.append(None)
    except (RuntimeError, cudnn.cudnnGraphNotSupportedError) as error:
        found.append(f"{d}: {error}")
"""


def descriptions(op: str, arrays: list[Any], attrs: dict[str, Any], **how: Any) -> list[Any]:
    """Return what a rule asks cuDNN for."""
    site = make_site(op, arrays, attrs, **how)
    lower(site)
    return [w.description for w in site.work if isinstance(w, LibraryCall) and w.description.library == "cudnn"]


def convolutions() -> list[Convolution]:
    """Return those of the tests of convolutions."""
    found = []
    for name in CASES:
        for dtype in (F32, F16, BFLOAT16):
            x, w, g, win = arguments(name, dtype)
            found += descriptions("conv", [x, w], {"win": win}, tf32=True)
            found += descriptions("conv_input_grad", [g, w], {"win": win, "size": x.shape[2:]})
            found += descriptions("conv_weight_grad", [g, x], {"win": win, "kernel": w.shape[2:]})
    x, w, g, win = arguments("3x3", F16)
    shape = g.shape
    bias, last = Operand(F16, shape, (0, 1, 0, 0)), Operand(F16, shape, channels_last_strides(shape))
    a, b, y = Var("a0"), Var("a1"), Var("x")
    for expression, operands in (
        (maximum(y + a + b, 0), (bias, last)),
        (minimum(maximum(y + a, 0), 6), (bias,)),
        ((y + a) * sigmoid(y + a), (bias,)),
    ):
        extra = [np.zeros([1 if s == 0 else n for n, s in zip(shape, o.strides, strict=True)], F16) for o in operands]
        made = Epilogue(expression, operands, F16)
        found += descriptions("conv", [x, w], {"win": win}, epilogue=made, extra=extra)
        assert found[-1].added and found[-1].activation
    return found


def attentions() -> list[Attention]:
    """Return those of the tests of attention."""
    found = []
    for name in FORMS:
        for dtype in (F16, BFLOAT16):
            arrays, attrs = attention_arguments(name, dtype)
            g = np.zeros((*arrays[0].shape[:3], arrays[2].shape[3]), dtype)
            found += descriptions("attention", arrays, attrs)
            found += descriptions("attention", arrays, attrs, out_order="heads", read_by=["attention_grad"])
            found += descriptions("attention_grad", [g, g, *arrays], attrs)
            found += descriptions("attention_grad", [g, g, *arrays], attrs, out_order="heads", unread=[3])
    return found


def projected() -> list[Attention]:
    """Return attention over parts of one projection, as long as a sentence, and gradients that lie in one tensor."""
    b, h, n, e = 4, 12, 128, 64
    part = Operand(BFLOAT16, (b, h, n, e), (3 * n * h * e, e, 3 * h * e, 1))
    y = Operand(BFLOAT16, (b, h, n, e), (n * h * e, e, h * e, 1))
    bias = Operand(BFLOAT16, (b, 1, n, n), (n * n, n * n, n, 1))
    given = part, part, part, y
    return [
        AttentionForward(*given, bias, 0.125, with_stats=True),
        AttentionForward(*given, None, 0.125, right=0, with_stats=True),
        AttentionBackward(*given, bias, 0.125, g=y, dq=part, dk=part, dv=part),
        AttentionBackward(*given, None, 0.125, right=0, g=y, dq=part, dk=part, dv=part),
    ]


@pytest.mark.skipif(driver.why_not("cudnn") is not None, reason=str(driver.why_not("cudnn")))
@pytest.mark.parametrize("made", [convolutions, attentions, projected])
def test_accepted(made: Callable[[], list[Any]]) -> None:
    """CuDNN validates and lowers every graph."""
    every = list(dict.fromkeys(made()))
    assert len(every) > 50 or made is projected
    answers = driver.ask(_LOWER, every)
    assert [a for a in answers if a is not None] == []


def described(activation: Activation | None = None, **more: Any) -> ConvForward:
    """Return a convolution with a bias."""
    shape = (2, 8, 5, 5)
    o = Operand(F32, shape, channels_last_strides(shape))
    w = Operand(F32, (8, 8, 3, 3), channels_last_strides((8, 8, 3, 3)))
    bias = Operand(F32, (1, 8, 1, 1), (8, 1, 8, 8))
    return ConvForward(o, w, o, ((1, 1), (1, 1)), (1, 1), (1, 1), added=(bias,), activation=activation, **more)


@pytest.mark.skipif(driver.why_not("cudnn") is not None, reason=str(driver.why_not("cudnn")))
def test_activations_accepted() -> None:
    """Every activation, fused and behind; a wrong size is refused."""
    every = [described(Activation(name, 0.5)) for name in ACTIVATIONS]
    assert driver.ask(_LOWER, every) == [None] * len(every)
    wrong = ConvForward(every[0].image, every[0].filters, every[0].output, ((0, 0), (0, 0)), (1, 1), (1, 1))
    (answer,) = driver.ask(_LOWER, [wrong])
    assert answer is not None and answer.startswith(str(wrong))


_PLAN = """
import cudnn
from onnxgrad.ops.errors import KernelError
from onnxgrad.ops.kernels.cuda.cudnn import stages
device = cudnn.create_device_properties(given[0])
for d in given[1:]:
    try:
        made = stages(d, device_property=device, sm_version=90)
        found.append([s.graph.get_plan_name_at_index(s.index) for s in made])
    except KernelError as error:
        found.append(str(error))
"""


def unrounded() -> list[Any]:
    """Return convolutions of half precision that are written in float32, with a bias and a sum too."""
    found = []
    wide = call("cast:bfloat16:float32", Var("x"))
    for xs, ws, win in (
        ((2, 16, 9, 9), (16, 16, 3, 3), window(2, pads=1)), ((2, 16, 9, 9), (32, 16, 1, 1), window(2, strides=2)),
    ):  # fmt: skip
        shape = (xs[0], ws[0], *win.out(xs[2:], ws[2:]))
        x, w, g = (np.zeros(s, BFLOAT16) for s in (xs, ws, shape))
        bias, full = Operand(BFLOAT16, shape, (0, 1, 0, 0)), Operand(F32, shape, channels_last_strides(shape))
        sums = Epilogue(wide + Var("a0") + Var("a1"), (bias, full), F32)
        extra = [np.zeros((shape[1], 1, 1), BFLOAT16), np.zeros(shape, F32)]
        found += descriptions("conv", [x, w], {"win": win}, epilogue=Epilogue(wide, (), F32))
        found += descriptions("conv", [x, w], {"win": win}, epilogue=sums, extra=extra)
    attrs = {"win": win, "kernel": ws[2:]}
    found += descriptions("conv_weight_grad", [g, x], attrs, epilogue=Epilogue(wide, (), F32))
    assert all(d.result.dtype == F32 for d in found) and len(found) == 5
    return found


@pytest.mark.skipif(driver.why_not("cudnn") is not None, reason=str(driver.why_not("cudnn")))
def test_plans() -> None:
    """An H200 has plans: with epilogues in one graph, exact ones of float32, uneven padding, groups, attention."""
    every: list[Any] = [described(Activation("relu")), described(Activation("swish"), tf32=True)]
    for name, dtype in (("same upper", F16), ("groups", BFLOAT16), ("1-D uneven", F32), ("3-D", F16)):
        x, w, g, win = arguments(name, dtype)
        every += descriptions("conv", [x, w], {"win": win})
        every += descriptions("conv_input_grad", [g, w], {"win": win, "size": x.shape[2:]})
        every += descriptions("conv_weight_grad", [g, x], {"win": win, "kernel": w.shape[2:]})
    for name in ("window", "mask of keys", "bottom"):
        arrays, attrs = attention_arguments(name, F16)
        g = np.zeros((*arrays[0].shape[:3], arrays[2].shape[3]), F16)
        every += descriptions("attention_grad", [g, g, *arrays], attrs)
        every += descriptions("attention", arrays, attrs, out_order="heads", read_by=["attention_grad"])
    every += [*unrounded(), *projected()]
    answers = driver.ask(_PLAN, [driver.H200, *every])
    assert [a for a in answers if isinstance(a, str)] == []
    assert {len(a) for a in answers} == {1}


def test_lifted() -> None:
    """One spatial axis is the second of two."""
    o = Operand(F32, (2, 3, 7), channels_last_strides((2, 3, 7)))
    assert lifted(o).shape == (2, 3, 1, 7) and lifted(o).strides == channels_last_strides((2, 3, 1, 7))


# plans, with a frontend that remembers what it is asked ---------------------------------------------------------------


class _Tensor:
    def __getattr__(self, name: str) -> Any:
        return lambda *a: self


class _Graph:
    """A graph with three plans, of which the first does not build; `refused` says which graphs have none."""

    def __init__(self, log: list[Any], refused: Callable[[_Graph], bool], **options: Any) -> None:
        self.log, self.refused, self.options, self.ops, self.notes = log, refused, options, [], []  # type: ignore[var-annotated]

    def __getattr__(self, name: str) -> Any:
        def op(**tensors: Any) -> Any:
            self.ops.append(name)
            return (_Tensor(), _Tensor()) if name == "sdpa" else _Tensor()

        return op

    def validate(self) -> None:
        """Accept."""

    build_operation_graph = validate

    def create_execution_plans(self, modes: list[str]) -> None:
        """Propose plans."""
        assert modes == ["A", "FALLBACK"]

    def deselect_numeric_notes(self, notes: list[str]) -> None:
        """Note them."""
        self.notes = notes

    def get_execution_plan_count(self) -> int:
        """Three."""
        return 3

    def build_plan_at_index(self, index: int) -> None:
        """Build all but the first."""
        if index == 0 or self.refused(self):
            raise RuntimeError(f"plan {index} does not build")

    def get_workspace_size_plan_at_index(self, index: int) -> int:
        """Some bytes."""
        return 100 * index

    def execute_plan_at_index(self, pack: dict[int, int], workspace: int, *, index: int, handle: Any) -> None:
        """Note it."""
        self.log.append((list(self.ops), dict(pack), workspace, index, handle))


class _Types:
    def __getattr__(self, name: str) -> str:
        return name


@pytest.fixture
def frontend(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Put a frontend in the place of cuDNN's."""
    log: list[Any] = []
    graphs: list[_Graph] = []
    made = SimpleNamespace(log=log, graphs=graphs, refused=lambda graph: False, streams=[])

    def pygraph(**options: Any) -> _Graph:
        graphs.append(_Graph(log, lambda g: made.refused(g), **options))
        return graphs[-1]

    class NotSupportedError(Exception):
        """As the frontend's."""

    module = SimpleNamespace(
        pygraph=pygraph,
        data_type=_Types(),
        numerical_note=_Types(),
        heur_mode=_Types(),
        cudnnGraphNotSupportedError=NotSupportedError,
        create_handle=lambda: "handle",
        set_stream=lambda handle, stream: made.streams.append(stream),
    )
    monkeypatch.setitem(sys.modules, "cudnn", module)
    runtime = SimpleNamespace(getDevice=lambda: 0)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=SimpleNamespace(runtime=runtime)))
    monkeypatch.setattr(cudnn, "_handles", cudnn._Handles())
    monkeypatch.setenv("ONNXGRAD_CUDA_TUNE", "off")
    return made


def test_plan(frontend: SimpleNamespace) -> None:
    """One graph, the first plan that builds, addresses by argument, the stream set once."""
    ready = described(Activation("relu")).prepare()
    assert ready.workspace_bytes == 256
    for pointers in ((10, 20, 30, 40), (10, 20, 30, 40), (11, 20, 30, 40)):
        ready.run(pointers, 5000, 7)
    ops = ["conv_fprop", "add", "relu"]
    packs = [(ops, {1: x, 2: 20, 3: 30, 4: 40}, 5000, 1, "handle") for x in (10, 10, 11)]
    assert [([n for n in o if n != "tensor"], *rest) for o, *rest in frontend.log] == packs
    assert frontend.streams == [7]


def test_two_graphs(frontend: SimpleNamespace) -> None:
    """Where no plan has the epilogue, it is a graph of its own, behind a tensor in the workspace."""
    frontend.refused = lambda g: "conv_fprop" in g.ops and "relu" in g.ops
    ready = described(Activation("relu")).prepare()
    assert ready.workspace_bytes == 256 + 2 * 8 * 5 * 5 * 4
    ready.run((10, 20, 30, 40), 5000, 7)
    (first, pack, *_), (second, behind, *_) = frontend.log
    assert "conv_fprop" in first and "relu" not in first and pack == {1: 10, 2: 20, cudnn.BETWEEN: 5256}
    assert "relu" in second and behind == {cudnn.BETWEEN: 5256, 3: 30, 4: 40}


def test_notes(frontend: SimpleNamespace) -> None:
    """Which plans are barred: inexact products, sums without an order; the last only as long as there are others."""
    described().prepare()
    exact = {"REDUCED_PRECISION_REDUCTION", "NONDETERMINISTIC", "DOWN_CONVERT_INPUTS", "TENSOR_CORE"}
    assert set(frontend.graphs[-1].notes) == exact
    described(tf32=True).prepare()
    assert set(frontend.graphs[-1].notes) == exact - {"TENSOR_CORE"}
    frontend.refused = lambda g: "NONDETERMINISTIC" in g.notes
    described().prepare()
    assert set(frontend.graphs[-1].notes) == exact - {"NONDETERMINISTIC"}


def test_no_plan(frontend: SimpleNamespace) -> None:
    """The reason is said."""
    frontend.refused = lambda g: True
    with pytest.raises(KernelError, match="plan 2 does not build"):
        described(Activation("relu")).prepare()
