"""Explanations: the mathematics on tiny nets, Captum on a whole one, and nothing left behind."""

import numpy as np
import pytest
from onnx import helper

from onnxgrad.importers.onnx.build import Layer
from onnxgrad.ops.errors import AutogradError, InputError, MissingExtraError
from onnxgrad.tools.explain import Explanation, grad_cam, integrated_gradients, last_convolution, saliency
from onnxgrad.tools.explain.integrated_gradients import METHODS
from onnxgrad.tools.explain.resample import blur, resize

from .small_models import bars, cnn, from_nodes, settings_of, state_of

X = bars(3)[0]


def explanations(model, x, **kwargs):
    return [f(model, x, **kwargs) for f in (saliency, integrated_gradients, grad_cam)]


def linear():
    weight = np.array([[1.0, -2.0, 3.0], [0.5, 0.0, -1.0]])
    node = helper.make_node("Gemm", ["x", "w"], ["y"], name="gemm", transB=1)
    return from_nodes([node], [("x", ["n", 3])], [("y", ["n", 2])], {"w": weight}), weight


def test_saliency_of_a_linear_model_is_its_weights():
    model, weight = linear()
    x = np.array([[1, 2, 3], [-1, 0, 2]], np.float32)
    signed = saliency(model, x, [0, 1], absolute=False)
    np.testing.assert_array_equal(weight, signed.values)
    np.testing.assert_array_equal(np.abs(weight), saliency(model, x, [0, 1]).values)
    np.testing.assert_allclose([6, -2.5], signed.score)
    assert signed.target == ((0,), (1,))


def test_integrated_gradients_of_a_square():
    """f = sum x^2 from baseline b: the values are x^2 - b^2, and with a trapezoid they are exact too."""
    node = [helper.make_node("Mul", ["x", "x"], ["s"]), helper.make_node("ReduceSum", ["s", "axes"], ["y"], keepdims=1)]
    model = from_nodes_with_axes(node)
    x = np.array([[1, 2, -3]], np.float32)
    for method in ("gausslegendre", "riemann_middle", "riemann_trapezoid"):
        found = integrated_gradients(model, x, 0, baseline=0.5, method=method, steps=8)
        weights = np.array([1, 2, -3.0]) ** 2 - 0.25
        if method == "riemann_trapezoid":  # Captum's points and weights: the sum of the weights is 7/8
            assert abs(found.delta[0]) > 0.1
            continue
        np.testing.assert_allclose(found.values[0], weights, rtol=1e-5)
        assert abs(found.delta[0]) < 1e-5


def from_nodes_with_axes(nodes):
    import onnx
    from onnx import TensorProto, numpy_helper

    from onnxgrad.importers.onnx.model import load_bytes

    infos = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in (("x", ["n", 3]), ("y", ["n", 1]))
    ]
    graph = helper.make_graph(nodes, "g", *infos, [numpy_helper.from_array(np.array([1]), "axes")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return load_bytes(model.SerializeToString())


def test_grad_cam_by_hand():
    """score = sum over positions and channels of v_c * A_c / positions: the map is relu(sum of v_c A_c) / positions."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="conv", kernel_shape=[1, 1]),
        helper.make_node("GlobalAveragePool", ["a"], ["p"], name="pool"),
        helper.make_node("Conv", ["p", "v"], ["y"], name="head", kernel_shape=[1, 1]),
    ]
    w = np.array([1.0, -2.0]).reshape(2, 1, 1, 1)
    v = np.array([[3.0, 1.0]]).reshape(1, 2, 1, 1)
    model = from_nodes(nodes, [("x", ["n", 1, 2, 3])], [("y", ["n", 1, 1, 1])], {"w": w, "v": v})
    x = np.arange(-2, 4, dtype=np.float32).reshape(1, 1, 2, 3)
    found = grad_cam(model, x, 0)
    assert found.layer == "conv" == last_convolution(model)
    np.testing.assert_allclose(found.values, np.maximum(x, 0) / 6, rtol=1e-6)
    np.testing.assert_allclose(grad_cam(model, x, 0, relu=False).values, x / 6, rtol=1e-6)


@pytest.mark.parametrize("extra", [(), (Layer("softmax"),)])
def test_integrated_gradients_add_up(extra):
    model = cnn(*extra)
    for output in ("logits", "output"):
        found = integrated_gradients(model, X, steps=200, output=output, baseline=0.1)
        difference = found.values.reshape(3, -1).sum(axis=1) - found.delta
        assert np.abs(found.delta).max() < 1e-3
        np.testing.assert_allclose(difference, found.score - score_of_baseline(model, found, output), atol=1e-5)


def score_of_baseline(model, found, output):
    base = np.full_like(X, 0.1)
    scores = (model.logits(base) if output == "logits" else model(base)).detach().numpy()
    return np.array([scores[i, t] for i, (t,) in enumerate(found.target)])


def test_before_a_softmax_by_default():
    plain, behind = cnn(), cnn(Layer("softmax"))
    for a, b in zip(explanations(plain, X), explanations(behind, X), strict=True):
        np.testing.assert_array_equal(a.values, b.values)
        np.testing.assert_array_equal(a.score, b.score)
    assert saliency(behind, X, output="output").score.max() <= 1


@pytest.mark.parametrize("rows", [1, 2, 7, None])
def test_the_number_of_rows_at_once_does_not_matter(rows):
    model = cnn()
    whole = integrated_gradients(model, X, steps=10, internal_batch_size=30)
    parts = integrated_gradients(model, X, steps=10, internal_batch_size=rows)
    np.testing.assert_allclose(whole.values, parts.values, atol=1e-6)


def test_a_batch_is_its_examples():
    model = cnn()
    for f in (saliency, integrated_gradients, grad_cam):
        together = f(model, X).values
        alone = np.concatenate([f(model, X[i : i + 1]).values for i in range(3)])
        np.testing.assert_allclose(together, alone, atol=1e-6)


def fixed_at_one():
    """A network that keeps a batch size of 1 in its constants."""
    import onnx
    from onnx import TensorProto, numpy_helper

    from onnxgrad.importers.onnx.model import load_bytes

    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="conv", kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Reshape", ["b", "to"], ["c"], name="reshape"),
        helper.make_node("Gemm", ["c", "v"], ["y"], name="gemm"),
    ]
    tensors = [
        numpy_helper.from_array(rng.normal(size=(3, 2, 3, 3)).astype(np.float32), "w"),
        numpy_helper.from_array(rng.normal(size=(48, 4)).astype(np.float32), "v"),
        numpy_helper.from_array(np.array([1, 48]), "to"),
    ]
    infos = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in (("x", [1, 2, 4, 4]), ("y", [1, 4]))
    ]
    graph = helper.make_graph(nodes, "g", *infos, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return load_bytes(model.SerializeToString())


def test_a_batch_size_of_one_in_the_file():
    model = fixed_at_one()
    x = np.random.default_rng(1).normal(size=(1, 2, 4, 4)).astype(np.float32)
    found = integrated_gradients(model, x, steps=64)
    assert abs(found.delta[0]) < 0.05
    assert grad_cam(model, x).values.shape == (1, 1, 4, 4)


def test_frozen_models_are_explained_the_same():
    free, frozen = cnn(), cnn()
    frozen.freeze()
    for a, b in zip(explanations(free, X), explanations(frozen, X), strict=True):
        np.testing.assert_array_equal(a.values, b.values)


def test_inside_no_grad():
    import onnxgrad as og

    model = cnn()
    with og.no_grad():
        inside = explanations(model, X)
        assert not og.is_grad_enabled()
    for a, b in zip(explanations(model, X), inside, strict=True):
        np.testing.assert_array_equal(a.values, b.values)


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_left_behind(training):
    model = cnn(Layer("dropout"))
    model.train(training)
    model.freeze("conv1.weight")
    before, settings = state_of(model), settings_of(model)
    explanations(model, X)
    for wrong in (
        lambda: saliency(model, X, 3),
        lambda: integrated_gradients(model, X, [0, 1]),
        lambda: grad_cam(model, X, layer="nothing"),
        lambda: grad_cam(model, X, layer="gemm1"),
        lambda: saliency(model, X[:, :1]),
    ):
        with pytest.raises(InputError):
            wrong()
        assert settings_of(model) == settings
    for name, array in state_of(model).items():
        np.testing.assert_array_equal(before[name], array)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m: saliency(m, X, 3), "does not exist"),
        (lambda m: saliency(m, X, [0, 1]), "2 targets for 3"),
        (lambda m: saliency(m, X, (0, 1)), "one number an axis"),
        (lambda m: grad_cam(m, X, layer="conv3"), "conv2"),
        (lambda m: grad_cam(m, X, layer="gemm1"), "channels"),
        (lambda m: integrated_gradients(m, X, method="simpson"), "gausslegendre"),
        (lambda m: integrated_gradients(m, X, steps=0), "at least 1"),
        (lambda m: integrated_gradients(m, X, baseline=np.zeros(5)), "baseline"),
        (lambda m: integrated_gradients(m, X, internal_batch_size=0), "at least 1"),
        (lambda m: saliency(m, X, output="probability"), "'logits' or 'output'"),
        (lambda m: saliency(m, X, wrt="image"), "no input 'image'"),
        (lambda m: saliency(m, X.astype(np.int64)), "int64"),
        (lambda m: saliency(m, X[:0]), "at least one"),
        (lambda m: grad_cam(m.forward, X), "og.load"),
    ],
)
def test_what_errors_say(call, said):
    with pytest.raises(InputError, match=said):
        call(cnn())


def test_the_default_layer_is_one_that_the_score_depends_on():
    """Two branches with a score each: the last convolution of the file belongs to the second."""
    nodes = [
        *(helper.make_node("Conv", ["x", w], [f"a{w}"], name=f"conv_{w}", kernel_shape=[3, 3]) for w in "vw"),
        *(helper.make_node("GlobalMaxPool", [f"a{w}"], [f"p{w}"], name=f"pool_{w}") for w in "vw"),
        helper.make_node("Concat", ["pv", "pw"], ["y"], name="join", axis=1),
    ]
    ones = np.ones((1, 1, 3, 3))
    x = np.random.default_rng(0).random((2, 1, 5, 5), np.float32)
    model = from_nodes(nodes, [("x", ["n", 1, 5, 5])], [("y", ["n", 2, 1, 1])], {"v": ones, "w": ones})
    assert [grad_cam(model, x, target).layer for target in (0, 1)] == ["conv_v", "conv_w"]
    assert not grad_cam(model, x, 0, layer="conv_w").values.any()


def test_a_model_without_convolutions():
    with pytest.raises(InputError, match="no convolution"):
        grad_cam(linear()[0], np.zeros((1, 3), np.float32))


def test_several_inputs_and_outputs():
    nodes = [
        helper.make_node("Mul", ["a", "b"], ["p"], name="mul"),
        helper.make_node("Add", ["a", "b"], ["q"], name="add"),
    ]
    shape = ["n", 2]
    model = from_nodes(nodes, [("a", shape), ("b", shape)], [("p", shape), ("q", shape)])
    x = {"a": np.array([[1, 2], [3, 4]], np.float32), "b": np.array([[5, 6], [7, 8]], np.float32)}
    np.testing.assert_array_equal([[5, 0], [0, 8]], saliency(model, x, [0, 1]).values)
    np.testing.assert_array_equal([[1, 0], [0, 4]], saliency(model, x, [0, 1], wrt="b").values)
    np.testing.assert_array_equal([[1, 0], [1, 0]], saliency(model, x, 0, output_index=1).values)
    found = integrated_gradients(model, x, 0, wrt="a", steps=4)
    np.testing.assert_allclose([[5, 0], [21, 0]], found.values, rtol=1e-6)


def test_modules_that_are_no_imports():
    from onnxgrad import nn

    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    assert np.abs(integrated_gradients(module, x, 1).delta).max() < 1e-4
    assert saliency(module, x).values.shape == (2, 3)
    assert module.training


def test_heat_maps():
    model = cnn()
    for found in explanations(model, X):
        heat = found.heatmap(1)
        assert heat.shape == (8, 8)
        assert heat.min() >= 0 and heat.max() == 1
        assert found.heatmap(1, signed=True).min() >= -1
        assert found.heatmap(0, blurred=1.0).shape == (8, 8)


def test_a_heat_map_of_nothing_is_zero():
    nothing = Explanation(np.zeros((1, 1, 2, 2), np.float32), ((0,),), np.zeros(1), "Grad-CAM", X[:1], layer="conv")
    np.testing.assert_array_equal(np.zeros((8, 8)), nothing.heatmap())


def test_a_heat_map_wants_an_image():
    with pytest.raises(InputError, match="not an image"):
        saliency(linear()[0], np.zeros((1, 3), np.float32)).heatmap()


def test_pictures(tmp_path):
    from PIL import Image

    image = bars(1)[0][:, :1]
    model = cnn(shape=(1, 8, 8))
    for found in explanations(model, image):
        assert found.overlay().size == (256, 256)
        assert found.overlay(Image.new("RGB", (400, 300))).size == (300, 300)
        path = tmp_path / f"{found.method}.png"
        found.save(path, label="left")
        with Image.open(path) as picture:
            assert picture.format == "PNG" and picture.width > 2 * picture.height


def test_a_photo_that_cannot_be_read(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"no photo")
    with pytest.raises(InputError, match=r"photo\.png"):
        grad_cam(cnn(shape=(1, 8, 8)), bars(1)[0][:, :1]).save(tmp_path / "out.png", tmp_path / "photo.png")
    assert not (tmp_path / "out.png").exists()


def test_without_the_extra(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "onnxgrad.tools.explain.picture", raising=False)
    import onnxgrad.tools.explain as package

    monkeypatch.delattr(package, "picture", raising=False)
    with pytest.raises(MissingExtraError, match=r"onnxgrad\[explain\]"):
        grad_cam(cnn(shape=(1, 8, 8)), bars(1)[0][:, :1]).save(tmp_path / "out.png")


def test_resizing_keeps_a_constant_and_the_ends():
    np.testing.assert_allclose(resize(np.full((2, 3), 7.0), (5, 9)), 7)
    np.testing.assert_allclose(resize(np.array([0.0, 1.0]), (4,)), [0, 0.25, 0.75, 1])
    np.testing.assert_allclose(blur(np.full((4, 5), 2.0), 1.5), 2)


@pytest.mark.oracle
@pytest.mark.parametrize("size", [(16, 24), (3, 5), (8, 8)])
def test_resizing_equals_torch(size):
    import torch

    values = np.random.default_rng(0).normal(size=(6, 9))
    wanted = torch.nn.functional.interpolate(
        torch.tensor(values)[None, None], size=size, mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(resize(values, size), wanted[0, 0].numpy(), atol=1e-12)


def torch_copy(model):
    import torch
    from torch import nn

    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 3),
    )
    state = {n: torch.tensor(a) for n, a in state_of(model).items()}
    places = {"0": "conv1", "1": "batch_norm1", "4": "conv2", "7": "gemm1"}
    names = {f"{i}.{part}": f"{name}.{part}" for i, name in places.items() for part in ("weight", "bias")}
    names |= {"1.running_mean": "batch_norm1.mean", "1.running_var": "batch_norm1.var"}
    net.load_state_dict({k: state[v] for k, v in names.items()} | {"1.num_batches_tracked": torch.tensor(0)})
    return net.eval()


@pytest.fixture
def pair():
    """Our network with running statistics worth having, and the same in torch."""
    model = cnn()
    rng = np.random.default_rng(5)
    for name, buffer in model.named_buffers():
        buffer.data = (rng.random(buffer.shape) + (0.5 if name.endswith("var") else 0)).astype(np.float32)
    return model, torch_copy(model)


@pytest.mark.oracle
@pytest.mark.parametrize("target", [0, [2, 1, 0]])
def test_saliency_equals_captum(pair, target):
    import torch
    from captum.attr import Saliency

    model, net = pair
    for absolute in (True, False):
        wanted = Saliency(net).attribute(torch.tensor(X).requires_grad_(), target=target, abs=absolute)
        np.testing.assert_allclose(saliency(model, X, target, absolute=absolute).values, wanted.numpy(), atol=1e-4)


@pytest.mark.oracle
@pytest.mark.parametrize("method", METHODS)
def test_integrated_gradients_equal_captums(pair, method):
    import torch
    from captum.attr import IntegratedGradients

    model, net = pair
    wanted, delta = IntegratedGradients(net).attribute(
        torch.tensor(X), torch.tensor(X[::-1] * 0.2), target=[2, 1, 0], n_steps=20, method=method,
        return_convergence_delta=True,
    )  # fmt: skip
    found = integrated_gradients(model, X, [2, 1, 0], baseline=X[::-1] * np.float32(0.2), steps=20, method=method)
    np.testing.assert_allclose(found.values, wanted.numpy(), atol=1e-4)
    np.testing.assert_allclose(found.delta, delta.numpy(), atol=1e-4)


@pytest.mark.oracle
@pytest.mark.parametrize(("layer", "index"), [(None, 4), ("conv1", 0), ("relu1", 2), ("batch_norm1", 1)])
@pytest.mark.parametrize("relu", [True, False])
def test_grad_cam_equals_captums(pair, layer, index, relu):
    import torch
    from captum.attr import LayerAttribution, LayerGradCam

    model, net = pair
    wanted = LayerGradCam(net, net[index]).attribute(torch.tensor(X), [2, 1, 0], relu_attributions=relu)
    found = grad_cam(model, X, [2, 1, 0], layer=layer, relu=relu)
    np.testing.assert_allclose(found.values, wanted.detach().numpy(), atol=1e-4)
    if relu:
        large = LayerAttribution.interpolate(wanted, (8, 8), "bilinear")[1, 0].detach().numpy()
        np.testing.assert_allclose(found.heatmap(1), large / large.max(), atol=1e-4)


def test_a_real_network_looks_at_the_goldfish(shared):
    """The heat of "goldfish" lies at the height of the fish."""
    from onnxgrad.importers.onnx.model import load
    from onnxgrad.tools.images import Preparation, read_image

    model = load(shared / "models" / "squeezenet-fp16" / "model.onnx")
    how = Preparation(scale=1, mean=(103.94, 116.78, 123.68), bgr=True, crop=True)
    x = read_image(shared / "data" / "images" / "goldfish.jpg", np.dtype(np.float32), model.inputs[0].shape, how)
    found = grad_cam(model, x)
    assert found.target == ((1, 0, 0),)
    heat = found.heatmap()
    assert heat.shape == (224, 224)
    assert heat[90:190].sum() > 0.7 * heat.sum()


@pytest.mark.parametrize("name", ["mnist8-cntk", "mnist-burn", "imageclassifier-cifar10-winml"])
def test_integrated_gradients_of_trained_networks_add_up(shared, name):
    from onnxgrad.importers.onnx.model import load

    model = load(shared / "models" / name / "model.onnx")
    with np.load(shared / "models" / name / "io.npz") as arrays:
        x = arrays[f"in:{model.inputs[0].name}"]
    found = integrated_gradients(model, x, steps=400)
    difference = found.values.reshape(len(x), -1).sum(axis=1, dtype=np.float64) - found.delta
    assert np.abs(found.delta).max() <= 1e-3 * np.abs(difference).max()


def test_a_score_that_no_gradient_reaches_is_an_error_not_zeros():
    model = from_nodes(
        [helper.make_node("Round", ["x"], ["r"], "rounded"), helper.make_node("MatMul", ["r", "w"], ["y"], "mm")],
        [("x", ["N", 4])],
        [("y", ["N", 3])],
        {"w": np.ones((4, 3))},
    )
    with pytest.raises(AutogradError, match="no gradient leads from the score back to input 'x'"):
        saliency(model, np.ones((1, 4), np.float32), target=0)
