"""What a node of the tape keeps of its arguments and outputs for backward, version-checked when it is read."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ...ops.errors import AutogradError
from ...ops.op import Op
from ...ops.types import is_float
from .grad_mode import MODE

if TYPE_CHECKING:
    from ..tensor.tensor import Tensor
    from .node import AccumulateGrad, Node

Edge: TypeAlias = "tuple[Node | AccumulateGrad, int]"
"""Where a gradient goes: an output of a node."""

STALE: Any = (None, -1)
"""The edge of a view whose base was changed in place: it is found anew when somebody asks for it."""


class Late:
    """The Tensor class and its quick constructor, which `runtime/tensor/tensor.py` puts here: it imports this module.

    Attributes:
        traces: how many traces are under way, in all threads.
        special: how many settings of `MODE` that nodes ask for are on, in all threads: traces, keepers, anomaly.
        autocasts: how many threads have `MODE.autocast` on.
        guard: what stands round ops on a device (`runtime/cuda/guard.py`); None until CUDA is used.
    """

    tensor_class: type[Tensor]
    wrap: Callable[[Any], Tensor]
    traces = 0
    special = 0
    autocasts = 0
    guard: Any = None


_counting = threading.Lock()


def count_traces(by: int) -> None:
    """Note that traces begin or end."""
    with _counting:
        Late.traces += by
        Late.special += by


def count_special(by: int) -> None:
    """Note that settings of `MODE` that nodes ask for are on from now on, or are so no more."""
    with _counting:
        Late.special += by


def switch_autocast(casts: Any) -> None:
    """Make something this thread's `MODE.autocast`; None to switch it off."""
    by = (casts is not None) - (MODE.autocast is not None)
    with _counting:
        Late.autocasts += by
    MODE.autocast = casts


def introduce(tensor_class: type[Tensor], wrap: Callable[[Any], Tensor]) -> None:
    """Make the Tensor class known."""
    Late.tensor_class, Late.wrap = tensor_class, staticmethod(wrap)


class Shaped:
    """What is left of an argument whose values the VJP does not read."""

    __slots__ = ("dtype", "shape")
    interpret_priority = 3

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Keep a shape and an element type."""
        self.shape, self.dtype = shape, dtype

    @property
    def ndim(self) -> int:
        """The rank."""
        return len(self.shape)

    @staticmethod
    def __interpret__(op: Op, args: Sequence[Any], attrs: dict[str, Any]) -> Any:
        """Refuse: the values were not kept."""
        raise AutogradError(f"{op.name}: the gradient reads a value that tracing did not find; please report this")


shaped = functools.lru_cache(maxsize=4096)(Shaped)


class Saved:
    """An argument kept for backward, with its version at that time."""

    __slots__ = ("tensor", "version")

    def __init__(self, tensor: Tensor) -> None:
        """Keep a Tensor."""
        counter = tensor._counter
        self.tensor, self.version = tensor, 0 if counter is None else counter[0]

    def unpack(self, node: Node | None, recorded: bool) -> Any:
        """Return the Tensor where what follows is recorded, else its array.

        Raises:
            AutogradError: if it was changed in place since.
        """
        t = self.tensor
        counter = t._counter
        if counter is not None and counter[0] != self.version:
            raise _changed(t._array, t._past(), t._version, self.version)
        return t if recorded else t._array


class SavedOutput:
    """An output kept for backward: its array and version counter, so that the node does not keep itself alive."""

    __slots__ = ("array", "counter", "index", "version")

    def __init__(self, tensor: Tensor, index: int) -> None:
        """Keep an output's array."""
        self.array, self.counter, self.index = tensor._array, tensor._shared_counter(), index
        self.version = self.counter[0]

    def unpack(self, node: Node | None, recorded: bool) -> Any:
        """Return the output, tied to its node again where what follows is recorded, else its array.

        Raises:
            AutogradError: if it was changed in place since.
        """
        if self.counter[0] != self.version:
            edge = None if node is None else (node, self.index)
            raise _changed(self.array, edge, self.counter[0], self.version)
        if not recorded:
            return self.array
        t = Late.wrap(self.array)
        t._counter = self.counter
        return self.tied(t, node)

    def tied(self, tensor: Tensor, node: Node | None) -> Tensor:
        """Return a Tensor of the output's array as the output of its node."""
        if node is not None and is_float(tensor.dtype):
            tensor.requires_grad, tensor._edge = True, (node, self.index)
        return tensor


def _changed(array: Any, edge: Edge | None, found: int, wanted: int) -> AutogradError:
    where = f", which is output {edge[1]} of {edge[0].name()}," if edge is not None else ""
    return AutogradError(
        "one of the variables needed for gradient computation has been modified by an inplace operation: "
        f"[{array.dtype} {list(array.shape)}]{where} is at version {found}; expected version {wanted} instead. "
        "Hint: the change came after the value was saved for backward; change a clone() of it instead."
    )
