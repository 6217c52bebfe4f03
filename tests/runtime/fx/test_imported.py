"""Imported models as graphs of calls: they compute the same, are found by the file's names, edited, trained, saved."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxgrad as og
from onnxgrad import fx
from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.ops import pointwise as pw
from onnxgrad.ops.errors import GraphError, TraceError

from ...importers.test_real_models import reference

RNG = np.random.default_rng(0)


def model(batch="n"):
    """Return Conv, BatchNormalization, Relu, a flatten by computed sizes, and Gemm."""
    weights = {
        "body.conv.weight": RNG.standard_normal((4, 3, 3, 3)),
        "scale": RNG.random(4) + 0.5,
        "shift": RNG.standard_normal(4),
        "mean": RNG.standard_normal(4),
        "var": RNG.random(4) + 0.5,
        "head.weight": RNG.standard_normal((2, 64)),
        "head.bias": RNG.standard_normal(2),
    }
    nodes = [
        helper.make_node("Conv", ["x", "body.conv.weight"], ["a"], "/body/conv/Conv", pads=[1] * 4),
        helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "var"], ["b"], "/body/bn/BatchNorm"),
        helper.make_node("Relu", ["b"], ["c"], "/body/act/Relu"),
        helper.make_node("Shape", ["c"], ["s"], end=1),
        helper.make_node("Concat", ["s", "rest"], ["t"], axis=0),
        helper.make_node("Reshape", ["c", "t"], ["f"]),
        helper.make_node("Gemm", ["f", "head.weight", "head.bias"], ["y"], "/head/Gemm", transB=1),
    ]
    stored = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    stored.append(numpy_helper.from_array(np.array([-1]), "rest"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 4, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])
    graph = helper.make_graph(nodes, "net", [x], [y], stored)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(proto)
    return load_bytes(proto.SerializeToString())


def images(n):
    return og.tensor(RNG.standard_normal((n, 3, 4, 4)).astype(np.float32))


@pytest.mark.parametrize("batch", [1, 3])
def test_it_computes_the_same_at_every_size(batch):
    m = model()
    traced = fx.symbolic_trace(m)
    x = images(batch)
    np.testing.assert_array_equal(traced(x).detach().numpy(), m(x).detach().numpy())


def test_layers_are_found_by_the_files_names():
    graph = fx.symbolic_trace(model()).graph
    conv = graph.find("/body/conv/Conv")
    assert conv.op == "call_function" and conv.meta["onnx_op"] == "Conv" and conv.args[0] is graph.find("x")
    assert {n.meta.get("onnx_op") for n in graph.nodes} >= {"Conv", "BatchNormalization", "Relu", "Gemm"}
    with pytest.raises(GraphError, match=r"no node is named '/body/conv/Conf'; did you mean .*'/body/conv/Conv'"):
        graph.find("/body/conv/Conf")


def test_weights_keep_their_names_and_are_the_models_own():
    m = model()
    traced = fx.symbolic_trace(m)
    assert dict(traced.named_parameters()).keys() == dict(m.named_parameters()).keys()
    for name, p in traced.named_parameters():
        assert p is m.get_parameter(name)
    traced(images(2)).sum().backward()
    assert m.get_parameter("body.conv.weight").grad is not None


def test_layers_are_replaced_inserted_and_deleted():
    m = model()
    traced = fx.symbolic_trace(m)
    relu = traced.graph.find("/body/act/Relu")
    x = images(2)
    with traced.graph.inserting_after(relu):
        leaky = traced.graph.call_function(og.nn.functional.leaky_relu, (relu.args[0], 0.1))
    relu.replace_all_uses_with(leaky)
    traced.graph.erase_node(relu)
    traced.recompile()
    _, seen = m.intermediates(["/body/bn/BatchNorm"], x)
    (before,) = seen.values()
    w, b = m.get_parameter("head.weight"), m.get_parameter("head.bias")
    wanted = og.nn.functional.linear(og.nn.functional.leaky_relu(before, 0.1).flatten(1), w, b)
    np.testing.assert_allclose(traced(x).detach().numpy(), wanted.detach().numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(GraphError, match="no node is named"):
        traced.graph.find("/body/act/Relu")


def test_a_new_head_trains():
    traced = fx.symbolic_trace(model())
    (flat,) = [n for n in traced.graph.nodes if n.meta.get("onnx_op") == "Reshape"]
    traced.add_submodule("new_head", og.nn.Linear(64, 5))
    out = traced.graph.output_node()
    with traced.graph.inserting_before(out):
        out.args = (traced.graph.call_module("new_head", (flat,)),)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    optimizer = og.optim.SGD(traced.parameters(), lr=0.05)
    x, y = images(4), og.tensor([0, 1, 2, 3])
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = og.nn.functional.cross_entropy(traced(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_an_interpreter_sees_every_layer():
    class Names(fx.Interpreter):
        def run_node(self, n):
            names.append(n.meta.get("onnx_op", n.op))
            return super().run_node(n)

    names = []
    Names(fx.symbolic_trace(model())).run(images(1))
    assert names.index("Conv") < names.index("BatchNormalization") < names.index("Relu")


def test_other_ops_stand_beside_the_files():
    traced = fx.symbolic_trace(model())
    out = traced.graph.output_node()
    with traced.graph.inserting_before(out):
        out.args = (traced.graph.call_function(pw.sigmoid, (out.args[0],)),)
    traced.recompile()
    found = traced(images(2)).detach().numpy()
    assert 0 <= found.min() < found.max() <= 1


def test_concrete_arguments_are_refused():
    with pytest.raises(TraceError, match="concrete_args"):
        fx.symbolic_trace(model(), {"x": 1})


def test_an_edited_model_is_saved_as_a_file(tmp_path):
    ort = pytest.importorskip("onnxruntime")
    traced = fx.symbolic_trace(model())
    relu = traced.graph.find("/body/act/Relu")
    with traced.graph.inserting_after(relu):
        gelu = traced.graph.call_function(og.nn.functional.gelu, (relu.args[0],))
    relu.replace_all_uses_with(gelu)
    traced.graph.erase_node(relu)
    traced.recompile()
    og.save(traced, tmp_path / "edited.onnx", images(2), dynamic_axes={"x": {0: "n"}}, output_names=["y"])
    session = ort.InferenceSession(tmp_path / "edited.onnx")
    again = og.load(tmp_path / "edited.onnx")
    x = images(3)
    wanted = traced(x).detach().numpy()
    np.testing.assert_allclose(session.run(["y"], {"x": x.numpy()})[0], wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(again(x).detach().numpy(), wanted, rtol=1e-5, atol=1e-5)
    assert {n for n, _ in again.named_parameters()} == {n for n, _ in traced.named_parameters()}


@pytest.mark.parametrize(
    "name", ["mnist-rten", "yolox-nano", "silero-vad", "voicevox-intonation", "mtcnn-pnet", "bert-toy-optimized-ort"]
)
def test_real_models_compute_the_same(shared, name):
    folder = shared / "models" / name
    m = og.load(folder / "model.onnx").eval()
    found = reference(folder, m)
    assert found is not None
    feeds = [found.feeds[i.name] for i in m.inputs]
    traced = fx.symbolic_trace(m)
    with og.no_grad():
        ours, theirs = traced(*map(og.tensor, feeds)), m(*feeds)
    ours, theirs = (v if isinstance(v, tuple) else (v,) for v in (ours, theirs))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
