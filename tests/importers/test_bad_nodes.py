"""Nodes that cannot be right: an error of our tree names operator and node, at once and in little memory."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxgrad.errors import LoadError, NotOnnxError, OnnxGradError
from onnxgrad.importers.onnx.model import load_bytes

from .one_node import one_node_model

SECONDS = 10
INT64_MIN, HUGE = -(1 << 63), 1 << 62


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """Stop a test that hangs."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@dataclass
class Row:
    """A node with wrong inputs or attributes.

    Attributes:
        fixed: the inputs that are also tried as initializers.
    """

    op: str
    inputs: list[Any]
    attrs: dict[str, Any] = field(default_factory=dict)
    fixed: tuple[int, ...] = ()
    opset: int = 18
    n_out: int = 1
    name: str = ""

    def __str__(self) -> str:
        return f"{self.op}-{self.name}"


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def f(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 1


X = f(3, 4)
IMAGE = f(1, 2, 5, 5)
KERNEL = f(2, 2, 3, 3)


def _indices() -> Iterator[Row]:
    for name, i in (("below", -4), ("above", 3), ("least", INT64_MIN), ("huge", HUGE)):
        rows = np.full((1, 4), i)
        yield Row("Gather", [X, ints(i)], {"axis": 0}, (1,), name=name)
        yield Row("GatherElements", [X, rows], {"axis": 0}, (1,), name=name)
        yield Row("GatherND", [X, ints(i)[None]], {}, (1,), name=name)
        yield Row("ScatterElements", [X, rows, f(1, 4)], {"axis": 0}, (1,), name=name)
        yield Row("ScatterElements", [X, rows, f(1, 4)], {"axis": 0, "reduction": "add"}, (1,), name=f"add-{name}")
        yield Row("ScatterND", [X, ints(i)[None], f(1, 4)], {}, (1,), name=name)
        yield Row("ScatterND", [X, ints(i)[None], f(1, 4)], {"reduction": "max"}, (1,), name=f"max-{name}")
        if i != -4:
            yield Row("NegativeLogLikelihoodLoss", [X, ints(i, 0, HUGE)], {"reduction": "none"}, name=name)
            yield Row("SoftmaxCrossEntropyLoss", [X, ints(i, 0, HUGE)], {"reduction": "none"}, name=name)
        yield Row("MaxUnpool", [f(1, 1, 1, 1), np.full((1, 1, 1, 1), i * 4)], {"kernel_shape": [2, 2]}, name=name)
    yield Row("Compress", [X, np.array([True] * 5)], {"axis": 0}, name="long-condition")
    for axis in (2, -3, INT64_MIN, HUGE):
        for op in ("Softmax", "Flatten", "Gather", "Concat", "ArgMax", "CumSum", "TopK", "Split", "OneHot", "Hardmax"):
            if op == "Flatten" and axis == 2:
                continue
            extra: dict[str, list[Any]] = {
                "Gather": [ints(0)], "CumSum": [np.array(axis)], "TopK": [ints(1)], "Concat": [X],
                "OneHot": [np.array(2), np.array([0, 1], np.float32)],
            }  # fmt: skip
            data: Any = X if op != "OneHot" else ints(0, 1)
            attrs = {} if op == "CumSum" else {"axis": axis}
            if op == "Split":
                attrs["num_outputs"] = 2
            fixed = (1,) if op == "CumSum" else ()
            yield Row(
                op, [data, *extra.get(op, [])], attrs, fixed, name=f"axis{axis}",
                n_out=2 if op in ("TopK", "Split") else 1,
            )  # fmt: skip
        yield Row("ReduceSum", [X, ints(axis)], {}, (1,), name=f"axis{axis}")
        yield Row("ReduceMax", [X, ints(axis)], {}, (1,), name=f"axis{axis}")
        yield Row("Unsqueeze", [X, ints({2: 4, -3: -5}.get(axis, axis), 0)], {}, (1,), name=f"axis{axis}")
        yield Row("Squeeze", [X, ints(axis)], {}, (1,), name=f"axis{axis}")
        yield Row("Slice", [X, ints(0), ints(1), ints(axis)], {}, (3,), name=f"axis{axis}")
        yield Row("LayerNormalization", [X, f(4)], {"axis": axis}, name=f"axis{axis}")


def _sizes() -> Iterator[Row]:
    for n in (-2, HUGE, INT64_MIN):
        yield Row("Reshape", [X, ints(n, 3)], {}, (1,), name=f"to{n}")
        yield Row("Expand", [X, ints(n, 1, 1)], {}, (1,), name=f"to{n}")
        yield Row("Tile", [X, ints(n, 1)], {}, (1,), name=f"by{n}")
        yield Row("ConstantOfShape", [ints(n, 2)], {}, (0,), name=f"of{n}")
        yield Row("Resize", [IMAGE, None, None, ints(1, 2, n, 5)], {}, (3,), name=f"to{n}")
        yield Row("TopK", [X, ints(n)], {}, (1,), n_out=2, name=f"k{n}")
        yield Row("OneHot", [ints(0, 1), np.array(n), np.array([0, 1], np.float32)], {}, (1,), name=f"depth{n}")
        yield Row("Split", [X, ints(n, 3 - n if n > -9 and n < 9 else 3)], {}, (1,), n_out=2, name=f"parts{n}")
        yield Row("CenterCropPad", [X, ints(n, n)], {}, (1,), name=f"to{n}")
        yield Row("HannWindow", [np.array(n)], {}, (0,), name=f"size{n}")
        yield Row("AffineGrid", [f(1, 2, 3), ints(1, 1, n, 4)], {}, (1,), opset=20, name=f"size{n}")
        yield Row("Col2Im", [f(1, 4, 4), ints(n, n), ints(2, 2)], {}, (1, 2), name=f"to{n}")
        yield Row("DFT", [f(1, 4, 1), np.array(n)], {"axis": 1}, (1,), name=f"length{n}")
        yield Row("MaxUnpool", [f(1, 1, 2, 2), np.zeros((1, 1, 2, 2), np.int64), ints(1, 1, n, 4)],
                  {"kernel_shape": [2, 2]}, (2,), name=f"to{n}")  # fmt: skip
        for op in ("RandomNormal", "RandomUniform"):
            yield Row(op, [], {"shape": [n, 2]}, name=f"of{n}")
    for k in (5, HUGE):
        yield Row("TopK", [X, ints(k)], {}, (1,), n_out=2, name=f"k-above-axis-{k}")
    yield Row("Reshape", [X, ints(5, -1)], {}, (1,), name="not-divisible")
    yield Row("Reshape", [X, ints(-1, -1)], {}, (1,), name="two-unknown")
    yield Row("Expand", [X, ints(3, 5)], {}, (1,), name="impossible")
    yield Row("Split", [X, ints(1, 1)], {}, (1,), n_out=2, name="too-few")
    yield Row("Resize", [IMAGE, None, np.array([1, 1, 1e30, 1], np.float32)], {}, (2,), name="factor")
    yield Row("Resize", [IMAGE, None, np.array([1, 1, -1, 1], np.float32)], {}, (2,), name="negative-factor")
    yield Row("Resize", [IMAGE, None, np.array([1, 1, np.nan, 1], np.float32)], {}, (2,), name="nan-factor")
    for ends in ((0, HUGE, 1), (0, 5, 0), (INT64_MIN, HUGE, 1)):
        yield Row("Range", [np.array(v) for v in ends], {}, (0, 1, 2), name=str(ends))
    yield Row("Range", [np.float32(v) for v in (0, np.inf, 1)], {}, (0, 1, 2), name="to-infinity")
    yield Row("Range", [np.float32(v) for v in (0, np.nan, 1)], {}, (0, 1, 2), name="to-nan")
    yield Row("Range", [np.float32(v) for v in (0, 1e30, 1e-3)], {}, (0, 1, 2), name="many")


def _pads_and_windows() -> Iterator[Row]:
    for mode in ("constant", "reflect", "edge", "wrap"):
        for name, pads in (("huge", (0, 0, HUGE, 0)), ("least", (INT64_MIN, 0, 0, 0)), ("below", (-3, 0, -3, 0))):
            yield Row("Pad", [X, ints(*pads)], {"mode": mode}, (1,), opset=19, name=f"{mode}-{name}")
    yield Row("Pad", [X, ints(0, 0, 1)], {}, (1,), name="odd-count")
    window: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "all": [
            ("stride0", {"strides": [0, 1]}), ("stride-1", {"strides": [-1, 1]}), ("stride-count", {"strides": [1]}),
            ("dilation0", {"dilations": [0, 1]}), ("dilation-huge", {"dilations": [HUGE, 1]}),
            ("pad-huge", {"pads": [0, 0, HUGE, 0]}), ("pad-least", {"pads": [INT64_MIN, 0, 0, 0]}),
            ("pad-below", {"pads": [-9, 0, -9, 0]}), ("pad-count", {"pads": [1, 1]}),
            ("kernel0", {"kernel_shape": [0, 3]}), ("kernel-1", {"kernel_shape": [-1, 3]}),
            ("kernel-huge", {"kernel_shape": [HUGE, HUGE]}), ("kernel-count", {"kernel_shape": [3]}),
        ],
    }  # fmt: skip
    for name, attrs in window["all"]:
        yield Row("Conv", [IMAGE, KERNEL], attrs, name=name)
        yield Row("MaxPool", [IMAGE], {"kernel_shape": [3, 3], **attrs}, name=name)
        yield Row("AveragePool", [IMAGE], {"kernel_shape": [3, 3], **attrs}, opset=19, name=name)
        yield Row("LpPool", [IMAGE], {"kernel_shape": [3, 3], **attrs}, name=name)
        if name not in ("pad-below",):
            yield Row("ConvTranspose", [IMAGE, KERNEL], attrs, name=name)
    yield Row("ConvTranspose", [IMAGE, KERNEL], {"strides": [HUGE, 1]}, name="stride-huge")
    yield Row("ConvTranspose", [IMAGE, KERNEL], {"output_padding": [HUGE, 0]}, name="output-padding")
    yield Row("ConvTranspose", [IMAGE, KERNEL], {"output_shape": [HUGE, HUGE]}, name="output-shape")
    for group in (0, -1, 3, HUGE):
        yield Row("Conv", [IMAGE, KERNEL], {"group": group}, name=f"group{group}")
        yield Row("ConvTranspose", [IMAGE, KERNEL], {"group": group}, name=f"group{group}")
    yield Row("Conv", [IMAGE, f(2, 3, 3, 3)], {}, name="channels")
    yield Row("Conv", [f(1, 2), KERNEL], {}, name="rank")
    yield Row("Conv", [IMAGE, KERNEL, f(3)], {}, name="bias")
    for block in (0, -1, 3, HUGE):
        yield Row("DepthToSpace", [f(1, 4, 2, 2)], {"blocksize": block}, name=f"block{block}")
        yield Row("SpaceToDepth", [f(1, 4, 2, 2)], {"blocksize": block}, name=f"block{block}")


def _shapes_and_types() -> Iterator[Row]:
    yield Row("Add", [X, f(5)], {}, name="broadcast")
    yield Row("Where", [np.ones((3, 4), bool), X, f(5)], {}, name="broadcast")
    yield Row("Add", [X, X.astype(np.float64)], {}, name="types")
    yield Row("MatMul", [X, X], {}, name="inner")
    yield Row("MatMul", [X, X.T.astype(np.int32)], {}, name="types")
    yield Row("Gemm", [X, X], {}, name="inner")
    yield Row("Concat", [X, f(3, 5)], {"axis": 0}, name="sizes")
    yield Row("Transpose", [X], {"perm": [0, 0]}, name="twice")
    yield Row("Transpose", [X], {"perm": [0, 2]}, name="outside")
    yield Row("Transpose", [X], {"perm": [0]}, name="short")
    yield Row("Einsum", [X, X], {"equation": "ij,jk->ik"}, name="sizes")
    yield Row("Einsum", [X], {"equation": "ij,jk"}, name="count")
    yield Row("Einsum", [X], {"equation": "ij->ik"}, name="letter")
    yield Row("Einsum", [X], {"equation": "i->"}, name="rank")
    yield Row("BatchNormalization", [IMAGE, f(3), f(3), f(3), f(3)], {}, name="channels")
    yield Row("LayerNormalization", [X, f(5)], {}, name="scale")
    yield Row("GroupNormalization", [IMAGE, f(2), f(2)], {"num_groups": 0}, opset=21, name="groups0")
    yield Row("GroupNormalization", [IMAGE, f(2), f(2)], {"num_groups": 3}, opset=21, name="groups3")
    yield Row("LSTM", [f(2, 1, 3), f(1, 8, 4), f(1, 8, 2)], {"hidden_size": 2}, n_out=3, name="input-size")
    yield Row("LSTM", [f(2, 1, 3), f(1, 8, 3), f(1, 8, 2)], {"hidden_size": 3}, n_out=3, name="hidden-size")
    yield Row("GRU", [f(2, 1, 3), f(2, 6, 3), f(1, 6, 2)], {"hidden_size": 2}, n_out=2, name="directions")
    yield Row("Slice", [X, ints(0), ints(2), ints(0), ints(0)], {}, (4,), name="step0")
    yield Row("Cast", [X], {"to": 999}, name="type")
    yield Row("Trilu", [f(3), np.array(0)], {}, (1,), name="rank")
    yield Row("LRN", [IMAGE], {"size": -1}, name="size")
    yield Row("Det", [X], {}, name="square")
    yield Row("Softmax", [X], {"axis": "last"}, name="attribute-type")
    yield Row("Gemm", [X, X.T], {"alpha": "half"}, name="attribute-type")
    yield Row("Conv", [IMAGE, KERNEL], {"strides": [1.5, 1.0]}, name="attribute-type")
    yield Row("Add", [X], {}, name="too-few-inputs")
    yield Row("Relu", [X, X], {}, name="too-many-inputs")
    yield Row("BatchNormalization", [IMAGE, f(2), None, f(2), f(2)], {}, name="left-out-input")
    yield Row("Relu", [X], {}, n_out=2, name="too-many-outputs")


ROWS = [*_indices(), *_sizes(), *_pads_and_windows(), *_shapes_and_types()]


@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_refused(row: Row) -> None:
    for constants in {(), row.fixed}:
        types = [TensorProto.FLOAT] * row.n_out
        proto = one_node_model(
            row.op, row.inputs, opset=row.opset, n_out=row.n_out, constants=constants, out_types=types, **row.attrs
        )
        feeds = {f"x{i}": np.asarray(a) for i, a in enumerate(row.inputs) if a is not None and i not in constants}
        with pytest.raises(OnnxGradError) as caught:
            found = load_bytes(proto.SerializeToString()).run(feeds)
            pytest.fail(f"gave {[np.shape(v) for v in found]}")
        message = str(caught.value)
        assert f"{row.op}-" in message or "'node/" in message, message  # or the node that its function body has
        assert "'node" in message
        error: BaseException | None = caught.value
        while error is not None:
            assert not isinstance(error, MemoryError | RecursionError), "the sizes were found out by trying"
            error = error.__cause__


def model(nodes: list[Any], *, initializers: Any = (), functions: Any = (), inputs: Any = ("x",)) -> bytes:
    graph = helper.make_graph(
        nodes, "bad", [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in inputs],
        [onnx.ValueInfoProto(name="y")], list(initializers),
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=9)
    data: bytes = proto.SerializeToString()
    return data


@pytest.mark.parametrize("dims", [[-1], [2, -1], [HUGE], [HUGE, 4], [INT64_MIN], [3]], ids=str)
@pytest.mark.parametrize(
    "kind", [TensorProto.FLOAT, TensorProto.STRING, TensorProto.INT4], ids=["float", "text", "int4"]
)
def test_initializer_dims(dims: list[int], kind: int) -> None:
    t = TensorProto(name="w", data_type=kind, dims=dims)
    if kind == TensorProto.STRING:
        t.string_data.extend([b"a", b"b"])
    else:
        t.raw_data = b"\x00" * (8 if kind == TensorProto.FLOAT else 1)
    with pytest.raises(NotOnnxError, match="'w'"):
        load_bytes(model([helper.make_node("Identity", ["w"], ["y"])], initializers=[t]))


@pytest.mark.parametrize("dims", [[-1], [HUGE, 4], [1 << 40]], ids=str)
def test_sparse_initializer_dims(dims: list[int]) -> None:
    values = onnx.numpy_helper.from_array(f(1), "w")
    sparse = helper.make_sparse_tensor(values, onnx.numpy_helper.from_array(ints(0), "at"), dims)
    proto = onnx.ModelProto.FromString(model([helper.make_node("Identity", ["w"], ["y"])]))
    proto.graph.sparse_initializer.append(sparse)
    with pytest.raises(NotOnnxError, match="'w'"):
        load_bytes(proto.SerializeToString())


def test_zero_size_is_no_error() -> None:
    for row in (
        Row("Relu", [f(0, 3)]), Row("MatMul", [f(2, 0), f(0, 3)]), Row("ReduceSum", [f(0, 3)]),
        Row("Concat", [f(0, 3), f(2, 3)], {"axis": 0}), Row("Gather", [X, ints()], {"axis": 0}),
        Row("Conv", [f(0, 2, 5, 5), KERNEL]), Row("Softmax", [f(2, 0)]), Row("TopK", [X, ints(0)], n_out=2),
    ):  # fmt: skip
        proto = one_node_model(row.op, row.inputs, opset=18, n_out=row.n_out, **row.attrs)
        load_bytes(proto.SerializeToString()).run({f"x{i}": a for i, a in enumerate(row.inputs)})


@pytest.mark.parametrize("op", ["ArgMax", "MaxPool"])
def test_nothing_to_choose_from(op: str) -> None:
    x, attrs = (f(1, 1, 0, 3), {"kernel_shape": [2, 2]}) if op == "MaxPool" else (f(0, 3), {})
    types = [TensorProto.FLOAT if op != "ArgMax" else TensorProto.INT64]
    proto = one_node_model(op, [x], opset=17, out_types=types, **attrs)
    with pytest.raises(OnnxGradError, match=f"{op}.*node"):
        load_bytes(proto.SerializeToString()).run({"x0": x})


def _function(name: str, calls: str) -> onnx.FunctionProto:
    body = [helper.make_node(calls, ["a"], ["b"], name=f"in-{name}", domain="local")]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, ["a"], ["b"], body, opsets)


def test_functions_that_call_each_other() -> None:
    functions = [_function("One", "Two"), _function("Two", "One")]
    with pytest.raises(LoadError, match=r"(One|Two)"):
        load_bytes(model([helper.make_node("One", ["x"], ["y"], domain="local")], functions=functions))


def test_functions_that_double_each_time() -> None:
    def twice(k: int) -> onnx.FunctionProto:
        body = [helper.make_node(f"F{k + 1}", [a], [b], domain="local") for a, b in (("a", "m"), ("m", "b"))]
        last = [helper.make_node("Neg", ["a"], ["b"])]
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
        return helper.make_function("local", f"F{k}", ["a"], ["b"], body if k < 50 else last, opsets)

    with pytest.raises(LoadError, match="F"):
        call = helper.make_node("F0", ["x"], ["y"], domain="local")
        load_bytes(model([call], functions=[twice(k) for k in range(51)]))


def _field(number: int, payload: bytes) -> bytes:
    """Return a protobuf field that holds a message; `helper` cannot copy messages that are nested this deep."""
    size, n = b"", len(payload)
    while n >= 128:
        size, n = size + bytes([n & 127 | 128]), n >> 7
    return bytes([number << 3 | 2]) + size + bytes([n]) + payload


def _nested(depth: int) -> bytes:
    """Return a model of Ifs inside each other, one branch of each deep."""
    node = helper.make_node("Abs", ["x"], ["z0"], name="innermost").SerializeToString()
    for k in range(depth):
        flat = helper.make_graph([helper.make_node("Neg", ["x"], ["n"])], f"e{k}", [], [onnx.ValueInfoProto(name="n")])
        outer = helper.make_node("If", ["c"], [f"z{k + 1}"], name=f"if{k}", else_branch=flat)
        graph = helper.make_graph([], f"g{k}", [], [onnx.ValueInfoProto(name=f"z{k}")])
        deep = onnx.AttributeProto(name="then_branch", type=onnx.AttributeProto.GRAPH).SerializeToString()
        deep += _field(6, graph.SerializeToString() + _field(1, node))
        node = outer.SerializeToString() + _field(5, deep)
    zero = onnx.numpy_helper.from_array(np.float32(0), "zero")
    before = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["c"]),
    ]
    data = model([*before, helper.make_node("Identity", [f"z{depth}"], ["y"])], initializers=[zero])
    return data + _field(7, _field(1, node))


def test_nesting() -> None:
    np.testing.assert_array_equal(load_bytes(_nested(25)).run({"x": f(2)})[0], f(2))
    for depth in (40, 100, 1000):
        with pytest.raises(LoadError):
            load_bytes(_nested(depth))
