"""`sequential`: an untrained `.onnx` model from a list of layers, as a start for training and for tests."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops.errors import ShapeError
from ...ops.types import Array

if TYPE_CHECKING:
    import onnx

OPSET = 17
IR_VERSION = 8

KINDS = (
    "conv", "batch_norm", "relu", "max_pool", "average_pool", "global_average_pool", "dropout", "flatten", "gemm",
    "softmax",
)  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """A layer of a sequential model.

    Attributes:
        kind: one of `KINDS`.
        size: channels out of a conv, features out of a gemm.
        kernel: side of the window of a conv or pool; a conv is padded by half of it.
        stride: of the window; a pool's is its kernel by default.
        ratio: of elements that a dropout drops.
    """

    kind: str
    size: int = 0
    kernel: int = 3
    stride: int = 0
    ratio: float = 0.5


def sequential(
    layers: Sequence[Layer], shape: Sequence[int], *, name: str = "model", doc: str = "", seed: int = 0
) -> bytes:
    """Return the bytes of an `.onnx` model that applies the layers in order; `load_bytes` makes a Model of them.

    The input is called `input`, its batch size is free, and the output is called `output`. Nodes are called `conv1`,
    `relu1`, `conv2` and so on, their tensors `conv1.weight`, `conv1.bias`. Weights are drawn as PyTorch draws them:
    U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    Args:
        layers: what to apply.
        shape: of one example, without the batch: (C, H, W) or (features,).
        name: of the graph.
        doc: what the model is, kept in the file.
        seed: of the weights.

    Raises:
        ShapeError: if a layer does not fit what comes before it.
    """
    import onnx
    from onnx import TensorProto, helper

    made = _Builder(tuple(shape), np.random.default_rng(seed))
    for layer in layers:
        made.add(layer)
    if not made.nodes:
        raise ShapeError("sequential wants at least one layer, found none")
    made.nodes[-1].output[0] = "output"
    graph = helper.make_graph(
        made.nodes,
        name,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", *made.shape])],
        made.tensors,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="onnxgrad",
        doc_string=doc,
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


class _Builder:
    def __init__(self, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        self.shape, self.rng = shape, rng
        self.value = "input"
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.counts: Counter[str] = Counter()

    def add(self, layer: Layer) -> None:
        self.counts[layer.kind] += 1
        at = f"{layer.kind}{self.counts[layer.kind]}"
        method = getattr(self, f"_{layer.kind}", None) if layer.kind in KINDS else None
        if method is None:
            raise ShapeError(f"sequential knows {', '.join(KINDS)}; found {layer.kind!r}")
        method(at, layer)

    def _node(self, op: str, at: str, inputs: Sequence[str] = (), **attributes: Any) -> None:
        from onnx import helper

        node = helper.make_node(op, [self.value, *inputs], [f"{at}.out"], name=at, **attributes)
        self.nodes.append(node)
        self.value = f"{at}.out"

    def _tensor(self, name: str, array: Array) -> str:
        from onnx import numpy_helper

        self.tensors.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def _drawn(self, at: str, *shape: int) -> list[str]:
        """Add a weight of this shape and a bias."""
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        weight = self.rng.uniform(-bound, bound, shape)
        bias = self.rng.uniform(-bound, bound, shape[0])
        return [self._tensor(f"{at}.weight", weight), self._tensor(f"{at}.bias", bias)]

    def _channels(self, at: str) -> int:
        if len(self.shape) != 3:
            raise ShapeError(f"{at} wants (C, H, W) before it, found {self.shape}")
        return self.shape[0]

    def _windowed(self, layer: Layer, at: str, pad: int, stride: int) -> tuple[int, ...]:
        sizes = tuple((s + 2 * pad - layer.kernel) // stride + 1 for s in self.shape[1:])
        if min(sizes) < 1:
            raise ShapeError(f"{at}: a window of {layer.kernel} does not fit into {self.shape[1:]}")
        return sizes

    def _conv(self, at: str, layer: Layer) -> None:
        channels, pad, stride = self._channels(at), layer.kernel // 2, layer.stride or 1
        sizes = self._windowed(layer, at, pad, stride)
        tensors = self._drawn(at, layer.size, channels, layer.kernel, layer.kernel)
        self._node("Conv", at, tensors, kernel_shape=[layer.kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)
        self.shape = (layer.size, *sizes)

    def _batch_norm(self, at: str, layer: Layer) -> None:
        n = self._channels(at)
        parts = {"weight": np.ones(n), "bias": np.zeros(n), "mean": np.zeros(n), "var": np.ones(n)}
        self._node("BatchNormalization", at, [self._tensor(f"{at}.{k}", v) for k, v in parts.items()])

    def _relu(self, at: str, layer: Layer) -> None:
        self._node("Relu", at)

    def _pool(self, op: str, at: str, layer: Layer) -> None:
        channels, stride = self._channels(at), layer.stride or layer.kernel
        sizes = self._windowed(layer, at, 0, stride)
        self._node(op, at, kernel_shape=[layer.kernel] * 2, strides=[stride] * 2)
        self.shape = (channels, *sizes)

    def _max_pool(self, at: str, layer: Layer) -> None:
        self._pool("MaxPool", at, layer)

    def _average_pool(self, at: str, layer: Layer) -> None:
        self._pool("AveragePool", at, layer)

    def _global_average_pool(self, at: str, layer: Layer) -> None:
        self.shape = (self._channels(at), 1, 1)
        self._node("GlobalAveragePool", at)

    def _dropout(self, at: str, layer: Layer) -> None:
        self._node("Dropout", at, [self._tensor(f"{at}.ratio", np.array(layer.ratio))])

    def _flatten(self, at: str, layer: Layer) -> None:
        self._node("Flatten", at, axis=1)
        self.shape = (math.prod(self.shape),)

    def _gemm(self, at: str, layer: Layer) -> None:
        if len(self.shape) != 1:
            raise ShapeError(f"{at} wants features before it (add a flatten layer), found {self.shape}")
        self._node("Gemm", at, self._drawn(at, layer.size, self.shape[0]), transB=1)
        self.shape = (layer.size,)

    def _softmax(self, at: str, layer: Layer) -> None:
        self._node("Softmax", at, axis=1 if len(self.shape) == 3 else -1)
