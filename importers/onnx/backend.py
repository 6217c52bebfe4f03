"""The standard's own interface to a runtime, `onnx.backend.base.Backend`: its test runner drives onnxgrad through it.

```
import onnxgrad.backend as backend

outputs = backend.prepare(onnx.load("model.onnx"), "CPU").run([x])
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.backend import base

from ...ops.errors import InputError
from ...runtime.model.model import Model
from ...runtime.tensor.device import device_count
from .model import load_bytes


class BackendRep(base.BackendRep):
    """A model that is ready to run.

    Attributes:
        model: the loaded model.
    """

    def __init__(self, model: Model) -> None:
        """Hold a model; `Backend.prepare` makes it."""
        self.model = model
        self._outputs = base.namedtupledict("Outputs", [o.name for o in model.outputs])

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Run the model and return its outputs, a tuple that can be indexed by output name too.

        Args:
            inputs: a list or tuple in the order of the model's inputs, a dictionary by name, or the one input of a
                model that has one; each an array, a scalar, a list of arrays (a sequence) or None (an empty optional).
            kwargs: none are known; they are there because the standard's interface has them.

        Raises:
            InputError: naming the input that does not fit.
        """
        names = [i.name for i in self.model.inputs]
        if isinstance(inputs, Mapping):
            feeds = dict(inputs)
        else:
            given = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
            if len(given) > len(names):
                raise InputError(f"the model takes {len(names)} inputs {names}, found {len(given)}")
            feeds = dict(zip(names, given, strict=False))
        return self._outputs(*self.model.run({n: _array(v) for n, v in feeds.items()}))


def _array(v: Any) -> Any:
    """Return a value with arrays for its scalars and TensorProtos."""
    if isinstance(v, list | tuple):
        return [_array(x) for x in v]
    if isinstance(v, onnx.TensorProto):
        from .tensors import to_array

        return to_array(v)
    return np.asarray(v) if isinstance(v, np.generic) else v


class Backend(base.Backend):
    """onnxgrad as the standard's backend; half precision is computed as the file says, not in float32."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto | bytes, device: str = "CPU", **kwargs: Any) -> BackendRep:
        """Load a model.

        Args:
            model: the model, or its bytes.
            device: `CPU`, or `CUDA[:n]`.
            kwargs: `widen_half=True` computes float16 and bfloat16 in float32; `accuracy` is that of `og.load`,
                `exact` by default; others are not known and do nothing.

        Raises:
            LoadError: if the model cannot be understood; see `og.load`.
            InputError: for a device that is not there.
        """
        if not cls.supports_device(device):
            raise InputError(f"no device {device!r}: there are 'CPU' and {device_count()} of 'CUDA:n'")
        data = model if isinstance(model, bytes) else model.SerializeToString()
        widen = bool(kwargs.get("widen_half", False))
        accuracy = str(kwargs.get("accuracy", "exact"))  # the standard's own tests compare to the last digits
        return BackendRep(load_bytes(data, device=device.lower(), widen_half=widen, accuracy=accuracy))

    @classmethod
    def run_model(cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        """Load a model, run it once and return its outputs; see `prepare` and `BackendRep.run`."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[Any, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Run one node and return its outputs.

        Args:
            node: the node.
            inputs: values for the inputs that it names, in order, or by name.
            device: as for `prepare`.
            outputs_info: element type and shape of each output; they are found without it.
            kwargs: `opset_version` of the node's domain (the newest by default), and those of `prepare`.

        Raises:
            LoadError: if the node cannot be understood.
            InputError: for inputs that do not fit.
        """
        names = list(dict.fromkeys(n for n in node.input if n))
        values = inputs if isinstance(inputs, Mapping) else dict(zip(names, inputs, strict=False))
        version = int(kwargs.pop("opset_version", 0)) or _newest(node.domain)
        declared = [onnx.ValueInfoProto(name=n) for n in node.output if n]
        for info, (dtype, shape) in zip(declared, outputs_info or (), strict=False):
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            info.type.CopyFrom(helper.make_tensor_type_proto(kind, shape))
        graph = helper.make_graph([node], node.op_type, [_info(n, values.get(n)) for n in names], declared)
        opsets = [helper.make_opsetid(node.domain, version)]
        return cls.run_model(helper.make_model(graph, opset_imports=opsets), values, device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether `CPU` or `CUDA[:n]` can be used here."""
        kind, _, number = device.upper().partition(":")
        if kind == "CPU":
            return number in ("", "0")
        return kind == "CUDA" and (not number or number.isdigit()) and int(number or 0) < device_count()


def _newest(domain: str) -> int:
    versions = onnx.defs.get_all_schemas()
    found = [s.since_version for s in versions if s.domain == ("" if domain == "ai.onnx" else domain)]
    return max(found, default=1)


def _info(name: str, value: Any) -> onnx.ValueInfoProto:
    return helper.make_value_info(name, _type(_array(value), name))


def _type(value: Any, name: str) -> onnx.TypeProto:
    if isinstance(value, list):
        inner = _type(value[0], name) if value else helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None)
        return helper.make_sequence_type_proto(inner)
    if value is None:
        raise InputError(f"input {name!r} of the node has no value; an optional input that is left out has no name")
    array = np.asarray(value)
    text = array.dtype.kind in "OSU"
    kind = onnx.TensorProto.STRING if text else helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_type_proto(kind, array.shape)


is_compatible = Backend.is_compatible
prepare = Backend.prepare
run_model = Backend.run_model
run_node = Backend.run_node
supports_device = Backend.supports_device
