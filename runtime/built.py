"""What an importer hands over: the seam between a Model and its file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ops.types import Array, TensorType, ValueType
from .graph import Graph
from .report import Role
from .stored import StoredArray


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


@dataclass
class Built:
    """What an importer hands over.

    Attributes:
        graph: the computation, in float32 where the file is half precision.
        arrays: data of parameters, buffers and constants by name.
        roles: what each tensor is and why.
        inputs, outputs: as the file declares them.
        batch: how the batch size is treated, in words.
    """

    graph: Graph
    arrays: dict[str, Array | StoredArray]
    roles: dict[str, Role]
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    batch: str
    batch_was_fixed: bool = False
