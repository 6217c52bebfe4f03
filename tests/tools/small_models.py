"""Small networks for the tests of finetuning and explaining, and data that they can learn."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxgrad.importers.onnx.build import Layer, sequential
from onnxgrad.importers.onnx.model import load_bytes

CNN = (
    Layer("conv", 4),
    Layer("batch_norm"),
    Layer("relu"),
    Layer("max_pool", kernel=2),
    Layer("conv", 6),
    Layer("relu"),
    Layer("flatten"),
    Layer("gemm", 3),
)


def cnn(*extra, seed=0, shape=(2, 8, 8)):
    return load_bytes(sequential((*CNN, *extra), shape, seed=seed))


def bars(n, seed=0, side=8):
    """Images with a bright bar in the left, middle or right part, and which."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    images = rng.normal(0, 0.3, (n, 2, side, side)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        image[:, :, 1 + 2 * label : 3 + 2 * label] += 1
    return images, labels


def from_nodes(nodes, inputs, outputs, tensors=(), opset=17):
    """A model of these nodes; inputs and outputs are (name, shape)."""
    infos = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values]
        for values in (inputs, outputs)
    ]
    initializers = [numpy_helper.from_array(np.asarray(a, np.float32), n) for n, a in dict(tensors).items()]
    graph = helper.make_graph(nodes, "g", *infos, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    return load_bytes(model.SerializeToString())


def state_of(model):
    return {n: t.array.copy() for n, t in (*model.named_parameters(), *model.named_buffers())}


def settings_of(model):
    return model.training, {n: (t.requires_grad, t.grad) for n, t in model.named_parameters()}


def half(model):
    """The same model in a file of float16."""
    from onnxgrad.importers.onnx.save import to_bytes

    proto = onnx.load_from_string(to_bytes(model))
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for info in (*proto.graph.input, *proto.graph.output):
        info.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.checker.check_model(proto, full_check=True)
    return load_bytes(proto.SerializeToString())
