"""Whole networks leave as files, come back, are trained on and leave again; what cannot leave says why."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import onnx
import pytest

import onnxgrad as og
import onnxgrad.nn.functional as F
from onnxgrad import nn
from onnxgrad.errors import SaveError
from onnxgrad.importers.onnx.emit.graph import nodes_to_onnx
from onnxgrad.importers.onnx.export import export, export_graph, to_onnx_model
from onnxgrad.runtime.tracing.module import trace_module

from .leaving import exported, ort_run, same

RNG = np.random.default_rng(11)
BATCH = {"input": {0: "batch"}, "output": {0: "batch"}}


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Any) -> Any:
        return F.relu(x + self.conv2(F.relu(self.bn1(self.conv1(x)))))


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.body = nn.Sequential(Residual(8), Residual(8))
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        x = self.body(self.stem(x))
        return self.head(self.dropout(x.mean((2, 3))))


class Classifier(nn.Module):
    """The last state of an LSTM over embedded words."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.lstm = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 3)

    def forward(self, words: Any) -> Any:
        _, (h, _) = self.lstm(self.embedding(words))
        return self.head(og.cat([h[0], h[1]], 1))


class Attentive(nn.Module):
    """An encoder layer with positions, written out by hand."""

    def __init__(self, width: int = 8, heads: int = 2, steps: int = 12) -> None:
        super().__init__()
        self.heads = heads
        self.words, self.places = nn.Embedding(20, width), nn.Embedding(steps, width)
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, words: Any) -> Any:
        b, t = words.shape
        x = self.words(words) + self.places.weight[:t]
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        q, k, v = (y.view(b, t, self.heads, -1).transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, -1)
        x = x + self.out(y)
        return x + self.feed(x)


class Hourglass(nn.Module):
    """Down, and up again beside what was there before."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.join, self.out = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(4, 1, 1)
        self.larger = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)

    def forward(self, x: Any) -> Any:
        a = F.relu(self.down1(x))
        b = F.relu(self.down2(F.max_pool2d(a, 2)))
        return self.out(self.larger(F.relu(self.join(og.cat([a, self.up(b)], 1)))))


def perceptron() -> Any:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 4), nn.Softmax(1))


def test_a_perceptron():
    proto = exported(perceptron().eval(), [floats(2, 6)], dynamic=BATCH, others=[[floats(7, 6)]])
    assert [n.op_type for n in proto.graph.node] == ["Gemm", "Relu", "Gemm", "Softmax"]


@pytest.mark.parametrize("opset", [18, 20, 21, 23, 26])
def test_a_convolutional_network(opset):
    module = Convolutional().eval()
    module.stem[1].running_mean += 0.1
    proto = exported(
        module, [floats(2, 3, 16, 16)], dynamic=BATCH, others=[[floats(3, 3, 16, 16)]], opset_version=opset
    )
    assert [o.version for o in proto.opset_import] == [opset]


def test_open_height_and_width():
    axes = {"input": {0: "batch", 2: "height", 3: "width"}}
    exported(Convolutional().eval(), [floats(2, 3, 16, 16)], dynamic=axes, others=[[floats(3, 3, 24, 20)]])
    exported(Hourglass().eval(), [floats(1, 1, 8, 8)], dynamic=axes, others=[[floats(2, 1, 12, 16)]])


def test_a_recurrent_classifier():
    words = RNG.integers(0, 20, (2, 7))
    axes = {"input": {0: "batch", 1: "time"}, "output": {0: "batch"}}
    exported(Classifier().eval(), [words], dynamic=axes, others=[[RNG.integers(0, 20, (4, 5))]])


def test_an_encoder_layer():
    axes = {"input": {0: "batch"}}
    exported(Attentive().eval(), [RNG.integers(0, 20, (2, 7))], dynamic=axes, others=[[RNG.integers(0, 20, (4, 7))]])


def test_open_axes_of_double_precision():
    """onnxruntime has few kernels for it; the file is checked and comes back."""
    module = Convolutional().double().eval()
    x = RNG.standard_normal((2, 3, 16, 16))
    exported(module, [x], dynamic=BATCH, others=[[x[:1]]], runtime=False, rtol=1e-10)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    module, x = module.to(getattr(og, dtype)), og.tensor(floats(2, 3, 8, 8)).to(getattr(og, dtype))
    proto = to_onnx_model(module, x, opset_version=22)
    back = og.load(io.BytesIO(proto.SerializeToString()), widen_half=False)
    same(back.run({"input": x.numpy()})[0].astype(np.float32), module(x).float(), rtol=0.02)
    if dtype == "bfloat16":
        with pytest.raises(SaveError, match="bfloat16 wants opset_version=22"):
            to_onnx_model(module, x)


def test_a_loaded_model_inside_a_module(tmp_path):
    inner = Convolutional().eval()
    x = floats(2, 3, 16, 16)
    og.save(inner, tmp_path / "inner.onnx", og.tensor(x), dynamic_axes=BATCH)
    module = nn.Sequential(og.load(tmp_path / "inner.onnx"), nn.Linear(5, 2)).eval()
    proto = exported(module, [x], dynamic=BATCH, others=[[x[:1]]])
    names = {n for n, _ in (*module.named_parameters(), *module.named_buffers())}
    assert {t.name for t in proto.graph.initializer} == names


# names ---------------------------------------------------------------------------------------------------------------


def test_parameters_and_nodes_are_called_as_in_the_module():
    module = Convolutional().eval()
    proto = to_onnx_model(module, og.tensor(floats(1, 3, 16, 16)))
    names = {t.name for t in proto.graph.initializer}
    assert names == {k for k in module.state_dict() if not k.endswith("num_batches_tracked")}
    assert {"/stem/0/Conv", "/stem/1/BatchNormalization", "/body/1/Relu", "/body/1/Relu_1", "/body/0/Add"} <= {
        n.name for n in proto.graph.node
    }
    assert "/body/0/conv2/Conv_output_0" in {o for n in proto.graph.node for o in n.output}
    assert len({n.name for n in proto.graph.node}) == len(proto.graph.node)
    assert [i.name for i in proto.graph.input] == ["input"] and [o.name for o in proto.graph.output] == ["output"]
    assert (proto.producer_name, proto.ir_version) == ("onnxgrad", 10)
    assert proto.producer_version


def test_types_of_values_are_declared():
    proto = to_onnx_model(perceptron().eval(), og.tensor(floats(2, 6)), dynamic_axes=BATCH)
    shapes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in proto.graph.value_info
    }
    assert shapes["/0/Gemm_output_0"] == ["batch", 16]
    declared = proto.graph.output[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in declared] == ["batch", 4]


class Naming(nn.Module):
    def forward(self, first: Any, second: Any, *, scale: Any = None, times: int = 1) -> Any:
        total = first + second * times
        return {"total": total, "rest": (total * 2 if scale is None else total * scale, None, first)}


def test_inputs_and_outputs_are_called_as_arguments_and_keys():
    x = og.tensor(floats(2, 3))
    proto = to_onnx_model(Naming(), (x, x, {"times": 3}))
    assert [i.name for i in proto.graph.input] == ["first", "second"]
    assert [o.name for o in proto.graph.output] == ["total", "rest_0", "rest_2"]
    total, *_ = ort_run(proto, {"first": x.numpy(), "second": x.numpy()})
    same(total, x.numpy() * 4)
    named = to_onnx_model(Naming(), {"first": x, "second": x, "scale": x}, output_names=["a", "b", "c"])
    assert [i.name for i in named.graph.input] == ["first", "second", "scale"]
    assert [o.name for o in named.graph.output] == ["a", "b", "c"]


def test_axes_named_by_number():
    proto = to_onnx_model(perceptron().eval(), og.tensor(floats(2, 6)), dynamic_axes={"input": [0], "output": [0]})
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "input_dynamic_axes_1"
    assert proto.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "output_dynamic_axes_1"


class Tied(nn.Module):
    """One weight under two names, and a Tensor that is neither a parameter nor a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
        self.head.weight = self.embedding.weight
        self.shift = og.tensor(floats(4))

    def forward(self, words: Any) -> Any:
        return self.head(self.embedding(words) + self.shift)


def test_shared_weights_are_written_once():
    module = Tied().eval()
    proto = exported(module, [RNG.integers(0, 10, (2, 3))])
    assert {t.name for t in proto.graph.initializer} == {"embedding.weight", "shift"}
    back = og.load(io.BytesIO(proto.SerializeToString()))
    assert [n for n, _ in back.named_parameters()] == ["embedding.weight"]


# there and back ------------------------------------------------------------------------------------------------------


def test_a_file_comes_back_trains_and_leaves_again(tmp_path):
    module = Convolutional().eval()
    x = floats(4, 3, 16, 16)
    og.save(module, tmp_path / "net.onnx", og.tensor(x), dynamic_axes=BATCH)
    model = og.load(tmp_path / "net.onnx")
    assert {n for n, _ in model.named_parameters()} == {n for n, _ in module.named_parameters()}
    assert {n for n, _ in model.named_buffers()} == {n for n, b in module.named_buffers() if b.dtype.kind == "f"}
    same(og.compile(model)(og.tensor(x)), module(og.tensor(x)))
    optimizer = og.optim.SGD(model.parameters(), lr=0.1)
    model.train()
    F.cross_entropy(model(og.tensor(x)), og.tensor(np.arange(4))).backward()
    optimizer.step()
    model.eval()
    og.save(model, tmp_path / "tuned.onnx")
    again = og.load(tmp_path / "tuned.onnx")
    same(again.run({"input": x[:2]}), model.run({"input": x[:2]}))
    assert not np.allclose(again.run({"input": x})[0], module(og.tensor(x)).detach().numpy())
    module.load_state_dict({**module.state_dict(), **{k: v for k, v in again.state_dict().items()}})
    same(again.run({"input": x}), module.eval()(og.tensor(x)))


def test_weights_beside_the_file(tmp_path):
    module = perceptron().eval()
    export(module, tmp_path / "net.onnx", og.tensor(floats(1, 6)), external_data=True)
    assert not (tmp_path / "net.onnx.data").exists()  # small ones stay in the file
    wide = nn.Linear(64, 64).eval()
    x = floats(2, 64)
    export(wide, tmp_path / "wide.onnx", og.tensor(x), external_data=True)
    assert (tmp_path / "wide.onnx.data").stat().st_size == 64 * 64 * 4
    onnx.checker.check_model(str(tmp_path / "wide.onnx"), full_check=True)
    same(og.load(tmp_path / "wide.onnx").run({"input": x}), wide(og.tensor(x)))


def test_an_open_file():
    file = io.BytesIO()
    og.save(perceptron().eval(), file, og.tensor(floats(1, 6)))
    onnx.checker.check_model(onnx.load_from_string(file.getvalue()))


def test_by_the_name_that_pytorch_gives_it(tmp_path):
    module, x = perceptron().eval(), floats(2, 6)
    og.onnx.export(module, (og.tensor(x),), str(tmp_path / "net.onnx"), input_names=["x"], output_names=["p"])
    same(ort_run(onnx.load(tmp_path / "net.onnx"), {"x": x}), module(og.tensor(x)))


def test_the_module_is_left_as_it_was():
    module = Convolutional().eval()
    before = {k: v.numpy().copy() for k, v in module.state_dict().items()}
    to_onnx_model(module, og.tensor(floats(1, 3, 16, 16)))
    assert all("forward" not in vars(m) for m in module.modules())
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    for k, v in module.state_dict().items():
        np.testing.assert_array_equal(v.numpy(), before[k])


def test_an_imported_graph_is_written_from_its_ops(tmp_path):
    module, x = Convolutional().eval(), floats(2, 3, 16, 16)
    export(module, tmp_path / "net.onnx", og.tensor(x), dynamic_axes=BATCH)
    model = og.load(tmp_path / "net.onnx")
    state = {n: t.array for n, t in (*model.named_parameters(), *model.named_buffers())}
    export_graph(model.graph, state, tmp_path / "again.onnx")
    first, second = (onnx.load(tmp_path / n) for n in ("net.onnx", "again.onnx"))
    one, other = ([(n.op_type, n.name) for n in m.graph.node if n.op_type != "Constant"] for m in (first, second))
    assert one == other
    same(ort_run(second, {"input": x}), module(og.tensor(x)))


def test_some_nodes_of_a_graph():
    module = perceptron().eval()
    traced = trace_module(module, (og.tensor(floats(2, 6)),), {}, ["x"], [(2, 6)])
    graph = traced.graph
    last = graph.nodes[-4:]
    inside = {v for n in last for v in n.outputs}
    given = {v: f"given.{v.name}" for n in last for v in n.inputs() if v not in inside and not v.is_constant}
    nodes, tensors = nodes_to_onnx(last, given, {graph.outputs[0]: "probabilities"})
    assert [n.op_type for n in nodes] == ["Gemm", "Softmax"]
    assert nodes[-1].output == ["probabilities"] and set(nodes[0].input) <= set(given.values()) and not tensors


# refusals ------------------------------------------------------------------------------------------------------------


class Branching(nn.Module):
    def forward(self, x: Any) -> Any:
        return x if float(x.sum()) > 0 else -x


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", og.tensor([0.0]))

    def forward(self, x: Any) -> Any:
        self.calls.add_(1)
        return x + self.calls


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.ReLU(), Branching())

    def forward(self, x: Any) -> Any:
        return self.branch(x)


class Unwritable(nn.Module):
    def forward(self, x: Any) -> Any:
        return x.lgamma()


class Strided(nn.Module):
    """A batch size that Python compares with a number."""

    def forward(self, x: Any) -> Any:
        return x.reshape(*(x.shape[0] // i for i in range(1, x.shape[0] + 1)), -1)


@pytest.mark.parametrize(
    ("module", "options", "says"),
    [
        (Inner().eval(), {}, r"in branch\.1 \(Branching\).*known only when"),
        (Counting().eval(), {}, r"changes 'calls'.*eval\(\)"),
        (nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5)), {}, r"1 \(Dropout\) draws random numbers; call eval\(\)"),
        (nn.BatchNorm1d(6), {}, r"running it changes .*eval\(\)"),
        (Unwritable().eval(), {}, r"lgamma.*no operator"),
        (perceptron().eval(), {"dynamic_axes": {"x": {0: "batch"}}}, r"dynamic_axes names 'x'; the inputs are input"),
        (perceptron().eval(), {"dynamic_axes": {"input": {2: "batch"}}}, r"'input' has 2 axes, found axis 2"),
        (perceptron().eval(), {"dynamic_axes": {"output": {2: "batch"}}}, r"'output' has 2 axes, found axis 2"),
        (nn.LayerNorm(6), {"dynamic_axes": {"input": {1: "features"}}}, r"features cannot stay open"),
        (perceptron().eval(), {"opset_version": 12}, r"opset_version is 12, wanted 18 to 26"),
        (perceptron().eval(), {"input_names": ["a", "b"]}, r"input_names: wants 1 different names"),
        (perceptron().eval(), {"output_names": ["input"]}, r"output_names: wants 1 different names"),
        (perceptron().eval(), {"input_names": ["0.weight"]}, r"0\.weight is the name of a parameter"),
        (Strided().eval(), {"dynamic_axes": BATCH}, r"batch cannot stay open"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)  # fmt: skip
def test_what_cannot_leave_says_why(module, options, says):
    with pytest.raises(SaveError, match=f"(?s){says}"):
        to_onnx_model(module, og.tensor(floats(2, 6)), **options)


def test_training_mode_without_consequences_is_no_obstacle():
    assert to_onnx_model(nn.Sequential(nn.Linear(6, 4), nn.ReLU()), og.tensor(floats(2, 6))).graph.node


def test_example_inputs_are_wanted(tmp_path):
    with pytest.raises(SaveError, match="example_inputs"):
        og.save(perceptron(), tmp_path / "net.onnx")
    with pytest.raises(SaveError, match="no Tensor"):
        to_onnx_model(perceptron(), (3,))
    assert not (tmp_path / "net.onnx").exists()
