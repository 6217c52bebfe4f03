"""Small models written by hand, for the tests of the importer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def tensor(name: str, *shape: int, seed: int = 0, dtype: Any = np.float32) -> onnx.TensorProto:
    """Return an initializer of seeded normal numbers."""
    values = np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)
    return numpy_helper.from_array(np.asarray(values), name)


def ints(name: str, values: Sequence[int]) -> onnx.TensorProto:
    """Return an int64 initializer."""
    return numpy_helper.from_array(np.array(values, np.int64), name)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    initializers: Sequence[onnx.TensorProto] = (),
    *,
    opset: int = 17,
    functions: Sequence[onnx.FunctionProto] = (),
    extra_opsets: Sequence[Any] = (),
) -> onnx.ModelProto:
    """Return a model of float32 inputs and outputs."""
    graph = helper.make_graph(
        list(nodes), "test",
        [helper.make_tensor_value_info(n, FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, FLOAT, s) for n, s in outputs.items()],
        list(initializers),
    )  # fmt: skip
    made = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset), *extra_opsets],
        functions=list(functions),
        ir_version=9,
    )
    made.producer_name, made.doc_string = "tests", "a test model"
    entry = made.metadata_props.add()
    entry.key, entry.value = "origin", "by hand"
    return made


def cnn(batch: Any = "N") -> onnx.ModelProto:
    """Return Conv, BatchNormalization, Relu, GlobalAveragePool, Flatten, Dropout, Gemm, Softmax."""
    n = helper.make_node
    return model(
        [
            n("Conv", ["x", "conv.weight", "conv.bias"], ["c"], "conv", pads=[1, 1, 1, 1]),
            n("BatchNormalization", ["c", "bn.scale", "bn.bias", "bn.mean", "bn.var"], ["b"], "bn"),
            n("Relu", ["b"], ["r"], "relu"),
            n("GlobalAveragePool", ["r"], ["p"], "pool"),
            n("Flatten", ["p"], ["f"], "flatten"),
            n("Dropout", ["f"], ["d"], "dropout"),
            n("Gemm", ["d", "fc.weight", "fc.bias"], ["g"], "fc", transB=1),
            n("Softmax", ["g"], ["y"], "softmax", axis=-1),
        ],
        {"x": [batch, 3, 8, 8]},
        {"y": [batch, 5]},
        [
            tensor("conv.weight", 4, 3, 3, 3),
            tensor("conv.bias", 4),
            tensor("bn.scale", 4, seed=1),
            tensor("bn.bias", 4, seed=2),
            tensor("bn.mean", 4, seed=3),
            numpy_helper.from_array(np.full(4, 1.5, np.float32), "bn.var"),
            tensor("fc.weight", 5, 4),
            tensor("fc.bias", 5),
        ],
    )


def attention() -> onnx.ModelProto:
    """Return a block whose weights are wrapped as exporters wrap them.

    A MatMul with a constant on the right, one behind a Transpose, one in a Constant node, a position table that is
    added, an embedding that is gathered, a scalar scale, and a mask.
    """
    n = helper.make_node
    mask = np.triu(np.full((4, 4), -1e9, np.float32), 1)
    return model(
        [
            n("Gather", ["table", "ids"], ["e0"], "embed"),
            n("Add", ["e0", "positions"], ["e"], "add_positions"),
            n("MatMul", ["e", "wq"], ["q"], "q"),
            n("Transpose", ["wk"], ["wk_t"], "wk_t", perm=[1, 0]),
            n("MatMul", ["e", "wk_t"], ["k"], "k"),
            n("Constant", [], ["wv"], "wv_const", value=tensor("", 6, 6, seed=4)),
            n("Identity", ["wv"], ["wv_i"], "wv_id"),
            n("MatMul", ["e", "wv_i"], ["v"], "v"),
            n("Transpose", ["k"], ["k_t"], "k_t", perm=[0, 2, 1]),
            n("MatMul", ["q", "k_t"], ["s0"], "scores"),
            n("Div", ["s0", "root"], ["s1"], "scale"),
            n("Add", ["s1", "mask"], ["s2"], "masked"),
            n("Softmax", ["s2"], ["a"], "softmax", axis=-1),
            n("MatMul", ["a", "v"], ["y"], "mix"),
        ],
        {"ids": ["N", 4]},
        {"y": ["N", 4, 6]},
        [
            tensor("table", 11, 6),
            tensor("positions", 4, 6),
            tensor("wq", 6, 6, seed=2),
            tensor("wk", 6, 6, seed=3),
            numpy_helper.from_array(np.array(np.sqrt(6), np.float32), "root"),
            numpy_helper.from_array(mask, "mask"),
        ],
    )


def attention_model() -> onnx.ModelProto:
    """Return `attention` with integer ids."""
    m = attention()
    m.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    return m
