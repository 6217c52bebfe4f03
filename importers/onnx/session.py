"""`InferenceSession`: for people who come from onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...ops.errors import InputError
from ...ops.types import MapType, OptionalType, SequenceType, TensorType, ValueType, dtype_name
from ...runtime.model.built import ValueInfo
from ...runtime.model.model import Model
from .model import load, load_bytes

_ORT_NAMES = {"float32": "float", "float64": "double"}


@dataclass(frozen=True)
class NodeArg:
    """An input or output, as onnxruntime describes it.

    Attributes:
        name: its name.
        type: `tensor(float)` and the like.
        shape: integers, symbols' names, or None for sizes that nothing names.
    """

    name: str
    type: str
    shape: list[Any]


class InferenceSession:
    """Runs a model by input names, as onnxruntime's class of this name does.

    Args:
        path_or_bytes: the file, or its bytes.
        sess_options: accepted for its callers; onnxruntime's options mean nothing here.
        providers: `CUDAExecutionProvider` first runs on CUDA, else on the CPU.
    """

    def __init__(
        self, path_or_bytes: str | os.PathLike[str] | bytes, sess_options: Any = None,
        providers: Sequence[Any] | None = None,
    ) -> None:  # fmt: skip
        """Load the model; see the class for the arguments."""
        first = providers[0] if providers else "CPUExecutionProvider"
        first = first[0] if isinstance(first, tuple) else first
        device = "cuda" if first == "CUDAExecutionProvider" else "cpu"
        self._providers = [first]
        if isinstance(path_or_bytes, bytes):
            self.model: Model = load_bytes(path_or_bytes, device=device)
        else:
            self.model = load(path_or_bytes, device=device)

    def run(self, output_names: Sequence[str] | None, input_feed: dict[str, Any], run_options: Any = None) -> list[Any]:
        """Return the outputs of these names, all of them for None.

        Raises:
            InputError: naming the input, what was found and what was wanted.
        """
        if not isinstance(input_feed, dict):
            raise InputError(f"run wants a dictionary of arrays by input name, found {type(input_feed).__name__}")
        return self.model.run(input_feed, output_names or None)

    def get_inputs(self) -> list[NodeArg]:
        """Return the inputs."""
        return [_node_arg(i) for i in self.model.inputs]

    def get_outputs(self) -> list[NodeArg]:
        """Return the outputs."""
        return [_node_arg(o) for o in self.model.outputs]

    def get_providers(self) -> list[str]:
        """Return what it runs on, by onnxruntime's name."""
        return list(self._providers)


def _node_arg(info: ValueInfo) -> NodeArg:
    shape: list[Any] = []
    for d in info.shape or ():
        shape.append(d if isinstance(d, int) else (d.name if d.name and not d.name.startswith("?") else None))
    return NodeArg(info.name, _type_name(info.type), shape)


def _type_name(t: ValueType) -> str:
    if isinstance(t, TensorType):
        name = dtype_name(t.dtype)
        return f"tensor({_ORT_NAMES.get(name, name)})"
    if isinstance(t, SequenceType):
        return f"seq({_type_name(t.element)})"
    if isinstance(t, OptionalType):
        return f"optional({_type_name(t.element)})"
    assert isinstance(t, MapType)
    key = dtype_name(t.key)
    return f"map({_ORT_NAMES.get(key, key)},{_type_name(t.value)})"
