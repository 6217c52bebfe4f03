"""Graphs of cuDNN's frontend: how they are drawn, planned and run. What they compute is in `cudnn_graphs`.

Dimensions are the op's own (N, C, H, W), strides say how a tensor lies, and both are given for every tensor: versions
of the frontend infer different ones. Sums are float32, or float64 where the elements are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ...errors import KernelError
from ...types import DType
from . import tuning
from .fusion import Activation
from .kernel import Prepared
from .operand import Operand

_DATA_TYPES = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "HALF", "bfloat16": "BFLOAT16"}

TYPES = tuple(_DATA_TYPES)
"""Element types that cuDNN is asked for."""

BETWEEN = 1000
"""The number of the tensor between two graphs; the others have those of their arguments, from 1 on."""

_PLANS = 6
"""So many plans are timed, where plans are timed."""


class Sheet:
    """A graph that is being drawn.

    Attributes:
        graph: the frontend's.
    """

    def __init__(self, cudnn: Any, sums: DType, **options: Any) -> None:
        """Begin a graph whose virtual tensors and sums are of this type."""
        self.cudnn = cudnn
        wide = self.type(sums)
        self.graph = cudnn.pygraph(intermediate_data_type=wide, compute_data_type=wide, **options)
        self.numbers: list[int] = []

    def type(self, dtype: DType) -> Any:
        """Return the frontend's name of an element type.

        Raises:
            KernelError: if it has none.
        """
        if dtype.name not in _DATA_TYPES:
            raise KernelError(f"cuDNN is asked for no {dtype.name}")
        return getattr(self.cudnn.data_type, _DATA_TYPES[dtype.name])

    def reads(self, number: int, o: Operand) -> Any:
        """Return a tensor that is read."""
        self.numbers.append(number)
        return self.graph.tensor(
            name=f"t{number}", dim=list(o.shape), stride=list(o.strides), data_type=self.type(o.dtype), uid=number
        )

    def writes(self, number: int, o: Operand, made: Any) -> None:
        """Say where a result goes."""
        self.numbers.append(number)
        made.set_output(True).set_dim(list(o.shape)).set_stride(list(o.strides))
        made.set_data_type(self.type(o.dtype)).set_uid(number)

    def activated(self, x: Any, a: Activation | None) -> Any:
        """Return the activation of a tensor."""
        g = self.graph
        match a.name if a else "":
            case "":
                return x
            case "relu":
                return g.relu(input=x)
            case "relu6":
                return g.relu(input=x, lower_clip=0.0, upper_clip=6.0)
            case "leaky_relu":
                return g.relu(input=x, negative_slope=a.alpha)  # type: ignore[union-attr]
            case "swish":
                return g.swish(input=x, swish_beta=a.alpha)  # type: ignore[union-attr]
            case "gelu_tanh":
                return g.gelu_approx_tanh(input=x)
            case "gelu" | "sigmoid" | "tanh" | "softplus" as name:
                return getattr(g, name)(input=x)
        raise KernelError(f"cuDNN is asked for no {a}")


ACTIVATIONS = ("relu", "relu6", "leaky_relu", "swish", "gelu", "gelu_tanh", "sigmoid", "tanh", "softplus")
"""Activations that a convolution applies."""

Draw: TypeAlias = Callable[[Sheet], None]


@dataclass(frozen=True)
class CudnnGraphs:
    """What is computed by graphs of cuDNN, one or two behind each other."""

    @property
    def library(self) -> str:
        """`cudnn`."""
        return "cudnn"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The arguments, in order."""
        raise NotImplementedError

    @property
    def sums(self) -> DType:
        """The element type of sums."""
        return np.dtype(np.float64 if self.operands[0].dtype == np.float64 else np.float32)

    @property
    def exact(self) -> bool:
        """Whether products of float32 are those of float32."""
        return False

    def ways(self) -> Iterator[tuple[Draw, ...]]:
        """Yield ways to compute it, each one graph or two with a tensor `between` them."""
        raise NotImplementedError

    def between(self) -> Operand | None:
        """The tensor between two graphs."""
        return None

    def prepare(self) -> Prepared:
        """Build the plans that run it.

        Raises:
            KernelError: if cuDNN has none.
        """
        import cudnn

        return _prepared(self, stages(self, handle=_handle(cudnn, None)))


@dataclass
class Stage:
    """A graph with the plan that was chosen.

    Attributes:
        graph: the frontend's.
        numbers: of its tensors.
        index: of the plan.
        workspace: its bytes.
    """

    graph: Any
    numbers: tuple[int, ...]
    index: int
    workspace: int


def stages(description: CudnnGraphs, **options: Any) -> list[Stage]:
    """Return graphs with plans: of the first way that has some with sums in a fixed order, else of the first with any.

    Args:
        description: what is computed.
        options: of the frontend's graphs: whose plans are built, by a handle or by the properties of a device.

    Raises:
        KernelError: if no way has plans.
    """
    reasons = []
    for deterministic in (True, False):
        for way in description.ways():
            try:
                return [_planned(description, draw, deterministic, options) for draw in way]
            except KernelError as error:
                reasons.append(str(error))
    raise KernelError(f"cuDNN has no plan for {description}: {'; '.join(dict.fromkeys(reasons))}")


def _prepared(description: CudnnGraphs, made: Sequence[Stage]) -> Prepared:
    """Return what runs graphs one behind the other; the tensor between them lies behind their workspace.

    Threads take turns: not every engine's plan may be executed by several at once.
    """
    import cudnn

    between = description.between() if len(made) > 1 else None
    workspace = -(-max(s.workspace for s in made) // 256) * 256
    packs: tuple[tuple[int, ...], list[dict[int, int]]] = ((), [])
    lock = threading.Lock()

    def run(pointers: tuple[int, ...], scratch: int, stream: int) -> None:
        nonlocal packs
        addresses = (*pointers, scratch + workspace)
        known, ready = packs
        if known != addresses:
            where = {**{1 + i: p for i, p in enumerate(pointers)}, BETWEEN: scratch + workspace}
            ready = [{n: where[n] for n in s.numbers} for s in made]
            packs = (addresses, ready)
        handle = _handle(cudnn, stream)
        with lock:
            for stage, pack in zip(made, ready, strict=True):
                stage.graph.execute_plan_at_index(pack, scratch, index=stage.index, handle=handle)

    return Prepared(run, workspace + (between.nbytes if between else 0))


def _planned(description: CudnnGraphs, draw: Draw, deterministic: bool, options: dict[str, Any]) -> Stage:
    """Return a graph with a plan.

    Raises:
        KernelError: if there is none.
    """
    import cudnn

    sheet = Sheet(cudnn, description.sums, **options)
    graph, note = sheet.graph, cudnn.numerical_note
    barred = [note.REDUCED_PRECISION_REDUCTION, *([note.NONDETERMINISTIC] if deterministic else [])]
    refused = (RuntimeError, ValueError, cudnn.cudnnGraphNotSupportedError)
    try:
        draw(sheet)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        if BETWEEN not in sheet.numbers[:1]:  # plans of an epilogue alone multiply nothing, and have other notes
            if any(o.dtype == np.float32 for o in description.operands[:2]):
                barred += [note.DOWN_CONVERT_INPUTS, *([note.TENSOR_CORE] if description.exact else [])]
            graph.deselect_numeric_notes(barred)
        count = graph.get_execution_plan_count()
    except refused as error:
        raise KernelError(str(error)) from error
    most = _PLANS if tuning.wanted("cudnn") and "handle" in options else 1
    built: list[int] = []
    reason = "no plan is proposed"
    for index in range(count):
        try:
            graph.build_plan_at_index(index)
            built.append(index)
        except refused as error:
            reason = str(error)
        if len(built) == most:
            break
    if not built:
        raise KernelError(reason)
    numbers = tuple(sheet.numbers)
    made = [Stage(graph, numbers, i, int(graph.get_workspace_size_plan_at_index(i))) for i in built]
    if len(made) > 1:
        operands = {1 + i: o for i, o in enumerate(description.operands)}
        between = description.between()
        sizes = [_bytes(operands.get(n, between)) for n in numbers]

        def timed(stage: Stage) -> tuning.Candidate:
            def run(pointers: tuple[int, ...], workspace: int, stream: int) -> None:
                pack = dict(zip(numbers, pointers, strict=True))
                graph.execute_plan_at_index(pack, workspace, index=stage.index, handle=_handle(cudnn, stream))

            return run

        return made[tuning.fastest([timed(s) for s in made], sizes, max(s.workspace for s in made)) or 0]
    return made[0]


def _bytes(o: Operand | None) -> int:
    """Return the bytes from an operand's first element to its last."""
    assert o is not None
    return (1 + sum((n - 1) * s for n, s in zip(o.shape, o.strides, strict=True))) * o.dtype.itemsize


class _Handles(threading.local):
    """The handles of a thread by device, and the streams that they are set to."""

    def __init__(self) -> None:
        self.by_device: dict[int, Any] = {}
        self.streams: dict[int, int] = {}


_handles = _Handles()


def _handle(cudnn: Any, stream: int | None) -> Any:
    """Return this thread's handle of the current device, set to a stream."""
    import cupy

    device = int(cupy.cuda.runtime.getDevice())
    handle = _handles.by_device.get(device)
    if handle is None:
        handle = _handles.by_device[device] = cudnn.create_handle()
    if stream is not None and _handles.streams.get(device) != stream:
        cudnn.set_stream(handle=handle, stream=stream)
        _handles.streams[device] = stream
    return handle
