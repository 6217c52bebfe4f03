"""Convolutions and attention by cuDNN, through graphs of its frontend: the one file that knows them.

Dimensions are the op's own (N, C, H, W), strides say how a tensor lies, and both are given for every tensor: versions
of the frontend infer different ones. Sums are float32, or float64 where the elements are.
"""

from __future__ import annotations

import json
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
from .operand import Operand, Sizes

_DATA_TYPES = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "HALF", "bfloat16": "BFLOAT16"}

TYPES = tuple(_DATA_TYPES)
"""Element types that cuDNN is asked for."""

_BETWEEN = 1000
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
class _Cudnn:
    """What all descriptions share."""

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

    def prepare(self, device: Any) -> Prepared:
        """Build the plans that run it.

        Raises:
            KernelError: if cuDNN has none.
        """
        return _prepare(self)


# convolutions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Convolution(_Cudnn):
    """One of the three partial derivatives of <output, conv(image, filters)>.

    Attributes:
        image: (N, C, *S).
        filters: (F, C / groups, *K).
        output: (N, F, *O).
        pads: zeros before and behind each spatial axis.
        strides: of the window.
        dilations: of its taps.
        tf32: whether products of float32 may round their factors.
        added: what is added to the result, each of its shape or of size 1 along some axes.
        activation: applied last.
    """

    image: Operand
    filters: Operand
    output: Operand
    pads: tuple[tuple[int, int], ...]
    strides: Sizes
    dilations: Sizes
    tf32: bool = False
    added: tuple[Operand, ...] = ()
    activation: Activation | None = None

    @property
    def factors(self) -> tuple[Operand, Operand]:
        """What is multiplied."""
        raise NotImplementedError

    @property
    def result(self) -> Operand:
        """What is written."""
        raise NotImplementedError

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The factors, what is added, the result."""
        return (*self.factors, *self.added, self.result)

    @property
    def exact(self) -> bool:
        """Whether products of float32 are those of float32."""
        return not self.tf32

    def convolved(self, sheet: Sheet, first: Any, second: Any, window: dict[str, list[int]]) -> Any:
        """Return the result of the convolution of two tensors."""
        raise NotImplementedError

    def ways(self) -> Iterator[tuple[Draw, ...]]:
        """Yield one graph, and where there is an epilogue the convolution and the epilogue."""
        yield (self._whole,)
        if self.added or self.activation:
            yield self._bare, self._rest

    def between(self) -> Operand | None:
        """The result before the epilogue, not rounded."""
        o = lifted(self.result)
        return Operand(self.sums, o.shape, o.strides)

    def _product(self, sheet: Sheet) -> Any:
        first, second = (sheet.reads(1 + i, lifted(o)) for i, o in enumerate(self.factors))
        before, behind = zip(*self.pads, strict=True)
        window = {
            name: [*([one] if len(self.pads) == 1 else []), *values]
            for name, values, one in (
                ("pre_padding", before, 0), ("post_padding", behind, 0), ("stride", self.strides, 1),
                ("dilation", self.dilations, 1),
            )
        }  # fmt: skip
        return self.convolved(sheet, first, second, window)

    def _ended(self, sheet: Sheet, x: Any) -> None:
        for i, o in enumerate(self.added):
            x = sheet.graph.add(a=x, b=sheet.reads(3 + i, lifted(o)))
        sheet.writes(len(self.operands), lifted(self.result), sheet.activated(x, self.activation))

    def _whole(self, sheet: Sheet) -> None:
        x = self._product(sheet)
        if self.added or self.activation:  # the frontend cannot know the size of what a gradient makes
            x.set_dim(list(lifted(self.result).shape)).set_stride(list(lifted(self.result).strides))
        self._ended(sheet, x)

    def _bare(self, sheet: Sheet) -> None:
        between = self.between()
        assert between is not None
        sheet.writes(_BETWEEN, between, self._product(sheet))

    def _rest(self, sheet: Sheet) -> None:
        between = self.between()
        assert between is not None
        self._ended(sheet, sheet.reads(_BETWEEN, between))


@dataclass(frozen=True)
class ConvForward(Convolution):
    """Convolution. Arguments: image, filters, what is added, output."""

    @property
    def factors(self) -> tuple[Operand, Operand]:
        """Image and filters."""
        return self.image, self.filters

    @property
    def result(self) -> Operand:
        """The output."""
        return self.output

    def convolved(self, sheet: Sheet, first: Any, second: Any, window: dict[str, list[int]]) -> Any:
        """Return the convolution."""
        return sheet.graph.conv_fprop(image=first, weight=second, **window)


@dataclass(frozen=True)
class ConvInputGrad(Convolution):
    """The transposed convolution. Arguments: output, filters, what is added, image."""

    @property
    def factors(self) -> tuple[Operand, Operand]:
        """Output and filters."""
        return self.output, self.filters

    @property
    def result(self) -> Operand:
        """The image."""
        return self.image

    def convolved(self, sheet: Sheet, first: Any, second: Any, window: dict[str, list[int]]) -> Any:
        """Return the transposed convolution."""
        return sheet.graph.conv_dgrad(loss=first, filter=second, **window)


@dataclass(frozen=True)
class ConvWeightGrad(Convolution):
    """The gradient of a convolution in its filters. Arguments: output, image, filters."""

    @property
    def factors(self) -> tuple[Operand, Operand]:
        """Output and image."""
        return self.output, self.image

    @property
    def result(self) -> Operand:
        """The filters."""
        return self.filters

    def convolved(self, sheet: Sheet, first: Any, second: Any, window: dict[str, list[int]]) -> Any:
        """Return the gradient."""
        return sheet.graph.conv_wgrad(image=second, loss=first, **window)


def lifted(o: Operand) -> Operand:
    """Return an operand of one spatial axis as one of two, the first of size 1."""
    if o.ndim != 3:
        return o
    (n, c, w), (sn, sc, sw) = o.shape, o.strides
    return Operand(o.dtype, (n, c, 1, w), (sn, sc, sw * w, sw))


# attention ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attention(_Cudnn):
    """What both directions of attention share.

    Attributes:
        q: (B, H, L, E), elements of a head neighbours, as in the others.
        k: (B, K, S, E), where K divides H.
        v: (B, K, S, V).
        y: (B, H, L, V).
        bias: (1 or B, 1 or H, L, S), added to the scores.
        scale: of the scores.
        left: how many keys before its place a query sees; -1 for all.
        right: how many behind it.
        bottom: whether the last query stands at the last key; else the first stands at the first.
    """

    q: Operand
    k: Operand
    v: Operand
    y: Operand
    bias: Operand | None
    scale: float
    left: int = -1
    right: int = -1
    bottom: bool = False

    @property
    def stats(self) -> Operand:
        """(B, H, L, 1), float32: the logarithm of the sum of exponentials of the scores."""
        b, h, n, _ = self.q.shape
        return Operand(np.dtype(np.float32), (b, h, n, 1), (h * n, n, 1, 1))

    def options(self, sheet: Sheet) -> dict[str, Any]:
        """Return what the frontend takes for the scores."""
        found: dict[str, Any] = {"attn_scale": self.scale}
        if self.left >= 0 or self.right >= 0:
            place = sheet.cudnn.diagonal_alignment
            found["diagonal_alignment"] = place.BOTTOM_RIGHT if self.bottom else place.TOP_LEFT
        if self.left >= 0:
            found["diagonal_band_left_bound"] = self.left + 1  # counts the key at the query's own place
        if self.right >= 0:
            found["diagonal_band_right_bound"] = self.right
        return found


@dataclass(frozen=True)
class AttentionForward(Attention):
    """Attention. Arguments: q, k, v, the bias where there is one, y, and the stats where they are wanted."""

    with_stats: bool = False

    @property
    def operands(self) -> tuple[Operand, ...]:
        """As above."""
        more = () if self.bias is None else (self.bias,)
        return (self.q, self.k, self.v, *more, self.y, *((self.stats,) if self.with_stats else ()))

    def ways(self) -> Iterator[tuple[Draw, ...]]:
        """Yield the one graph."""

        def draw(sheet: Sheet) -> None:
            q, k, v = (sheet.reads(1 + i, o) for i, o in enumerate((self.q, self.k, self.v)))
            options = self.options(sheet)
            if self.bias is not None:
                options["bias"] = sheet.reads(4, self.bias)
            y, stats = sheet.graph.sdpa(q=q, k=k, v=v, generate_stats=self.with_stats, **options)
            at = 4 + (self.bias is not None)
            sheet.writes(at, self.y, y)
            if self.with_stats:
                sheet.writes(at + 1, self.stats, stats)

        yield (draw,)


@dataclass(frozen=True)
class AttentionBackward(Attention):
    """The gradients of attention. Arguments: q, k, v, y, g, stats, the bias where there is one, and those of q, k, v.

    Attributes:
        g: of the result, (B, H, L, V).
        dq: like q.
        dk: like k.
        dv: like v.
    """

    g: Operand | None = None
    dq: Operand | None = None
    dk: Operand | None = None
    dv: Operand | None = None

    @property
    def operands(self) -> tuple[Operand, ...]:
        """As above."""
        assert self.g and self.dq and self.dk and self.dv
        more = () if self.bias is None else (self.bias,)
        return (self.q, self.k, self.v, self.y, self.g, self.stats, *more, self.dq, self.dk, self.dv)

    def ways(self) -> Iterator[tuple[Draw, ...]]:
        """Yield the one graph, whose sums have a fixed order."""

        def draw(sheet: Sheet) -> None:
            count = 6 + (self.bias is not None)
            given = [sheet.reads(1 + i, o) for i, o in enumerate(self.operands[:count])]
            options = self.options(sheet)
            if self.bias is not None:
                options["bias"] = given[6]
            names = ("q", "k", "v", "o", "dO", "stats")
            made = sheet.graph.sdpa_backward(
                **dict(zip(names, given, strict=False)), use_deterministic_algorithm=True, **options
            )
            for i, (o, x) in enumerate(zip(self.operands[count:], made, strict=True)):
                sheet.writes(count + 1 + i, o, x)

        yield (draw,)


# planning and running -------------------------------------------------------------------------------------------------


def validate_and_lower(description: _Cudnn, sm_version: int = 90) -> None:
    """Check that cuDNN accepts the graphs of a description: no device is wanted, nor a driver.

    Raises:
        KernelError: saying what it does not accept.
    """
    import cudnn

    for way in description.ways():
        for draw in way:
            sheet = Sheet(cudnn, description.sums, sm_version=sm_version)
            try:
                draw(sheet)
                sheet.graph.validate()
                sheet.graph.build_operation_graph()
            except (RuntimeError, cudnn.cudnnGraphNotSupportedError) as error:
                raise KernelError(f"cuDNN refuses {description}: {error}") from error


@dataclass
class _Stage:
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


def plans_on(description: _Cudnn, properties: str) -> tuple[str, ...]:
    """Return the names of the plans that a device would run: no device is wanted.

    Args:
        description: what is computed.
        properties: of the device, as JSON (`cudnn.create_device_properties`).

    Raises:
        KernelError: if there are none.
    """
    import cudnn

    device = cudnn.create_device_properties(properties)
    generation = int(json.loads(properties)["deviceVer"]) // 10
    stages = _stages(description, device_property=device, sm_version=generation)
    return tuple(str(s.graph.get_plan_name_at_index(s.index)) for s in stages)


def _prepare(description: _Cudnn) -> Prepared:
    import cudnn

    return _prepared(description, _stages(description, handle=_handle(cudnn, None)))


def _stages(description: _Cudnn, **options: Any) -> list[_Stage]:
    """Return graphs with plans: of the first way that has some, with sums in a fixed order where they have one.

    Raises:
        KernelError: if no way has plans.
    """
    reasons = []
    for way in description.ways():
        for deterministic in (True, False):
            try:
                return [_planned(description, draw, deterministic, options) for draw in way]
            except KernelError as error:
                reasons.append(str(error))
    raise KernelError(f"cuDNN has no plan for {description}: {'; '.join(dict.fromkeys(reasons))}")


def _prepared(description: _Cudnn, stages: Sequence[_Stage]) -> Prepared:
    """Return what runs graphs one behind the other; the tensor between them lies behind their workspace."""
    import cudnn

    between = description.between() if len(stages) > 1 else None
    workspace = -(-max(s.workspace for s in stages) // 256) * 256
    packs: tuple[tuple[int, ...], list[dict[int, int]]] = ((), [])

    def run(pointers: tuple[int, ...], scratch: int, stream: int) -> None:
        nonlocal packs
        addresses = (*pointers, scratch + workspace)
        known, ready = packs
        if known != addresses:
            where = {**{1 + i: p for i, p in enumerate(pointers)}, _BETWEEN: scratch + workspace}
            ready = [{n: where[n] for n in s.numbers} for s in stages]
            packs = (addresses, ready)
        handle = _handle(cudnn, stream)
        for stage, pack in zip(stages, ready, strict=True):
            stage.graph.execute_plan_at_index(pack, scratch, index=stage.index, handle=handle)

    return Prepared(run, workspace + (between.nbytes if between else 0))


def _planned(description: _Cudnn, draw: Draw, deterministic: bool, options: dict[str, Any]) -> _Stage:
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
        if _BETWEEN not in sheet.numbers[:1]:  # plans of an epilogue alone multiply nothing, and have other notes
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
    made = [_Stage(graph, numbers, i, int(graph.get_workspace_size_plan_at_index(i))) for i in built]
    if len(made) > 1:
        operands = {1 + i: o for i, o in enumerate(description.operands)}
        between = description.between()
        sizes = [_bytes(operands.get(n, between)) for n in numbers]

        def timed(stage: _Stage) -> tuning.Candidate:
            def run(pointers: tuple[int, ...], workspace: int, stream: int) -> None:
                pack = dict(zip(numbers, pointers, strict=True))
                graph.execute_plan_at_index(pack, workspace, index=stage.index, handle=_handle(cudnn, stream))

            return run

        return made[tuning.fastest([timed(s) for s in made], sizes, max(s.workspace for s in made))]
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
