"""What an importer hands over: the seam between a Model and its file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...ops.types import Array, TensorType, ValueType
from ..graph.graph import Graph
from ..tensor.stored import StoredArray
from .report import Role


@dataclass(frozen=True)
class ValueInfo:
    """An input or output of a model."""

    name: str
    type: ValueType

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type; strings are objects."""
        return self.type.dtype if isinstance(self.type, TensorType) else np.dtype(object)

    @property
    def shape(self) -> tuple[Any, ...] | None:
        """Sizes and symbols, or None where the rank is unknown or it is not a tensor."""
        return self.type.known_shape if isinstance(self.type, TensorType) else None

    def __str__(self) -> str:
        """Return `name: type`."""
        return f"{self.name}: {self.type}"


@dataclass(frozen=True)
class Note:
    """What an importer writes down about a model.

    Attributes:
        identity: equal for models that are built equally.
        write: keeps it for other processes.
    """

    identity: str
    write: Callable[[], None]


@dataclass
class Built:
    """What an importer hands over.

    Attributes:
        graph: the computation, in float32 where the file is half precision.
        arrays: data of parameters, buffers and constants by name.
        roles: what each tensor is and why.
        inputs, outputs: as the file declares them.
        batch: how the batch size is treated, in words.
        note: what another process needs to run the model without building it; None where that is not enough.
    """

    graph: Graph
    arrays: dict[str, Array | StoredArray]
    roles: dict[str, Role]
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    batch: str
    batch_was_fixed: bool = False
    note: Note | None = None

    @property
    def whole(self) -> Built:
        """Itself."""
        return self

    @property
    def state(self) -> dict[str, tuple[Array | StoredArray, Any]]:
        """The data of what the graph has as state, and the element type that it has there."""
        return {n: (self.arrays[n], v.tensor_type.dtype) for n, v in self.graph.state.items()}

    @property
    def fed(self) -> list[ValueType]:
        """The types that the graph computes its inputs in."""
        return [v.type for v in self.graph.inputs]


_building = threading.RLock()


@dataclass
class Recalled:
    """What an importer remembers of a model that another process has built: enough to run it where it was compiled.

    Attributes:
        note: what it was recalled by.
        state: as `Built.state`.
        fed: as `Built.fed`.
        build: builds it after all.
    """

    note: Note
    state: Mapping[str, tuple[Array | StoredArray, Any]]
    fed: list[ValueType]
    roles: dict[str, Role]
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    batch: str
    batch_was_fixed: bool
    build: Callable[[], Built]
    _whole: list[Built] = field(default_factory=list)

    @property
    def whole(self) -> Built:
        """The model, built when somebody first asks."""
        with _building:
            if not self._whole:
                self._whole.append(self.build())
            return self._whole[0]

    @property
    def graph(self) -> Graph:
        """The computation."""
        return self.whole.graph

    @property
    def arrays(self) -> dict[str, Array | StoredArray]:
        """Data of parameters, buffers and constants by name."""
        return self.whole.arrays
