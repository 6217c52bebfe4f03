"""Models built from a list of layers: what the standard's checker and onnxruntime say of them."""

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxgrad.importers.onnx.build import KINDS, Layer, sequential
from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.ops.errors import ShapeError

EVERY = (
    Layer("conv", 4, kernel=5, stride=2),
    Layer("batch_norm"),
    Layer("relu"),
    Layer("max_pool", kernel=2),
    Layer("conv", 6),
    Layer("average_pool", kernel=2, stride=1),
    Layer("global_average_pool"),
    Layer("flatten"),
    Layer("dropout", ratio=0.3),
    Layer("gemm", 5),
    Layer("softmax"),
)


def test_every_kind_computes_what_onnxruntime_computes():
    assert {layer.kind for layer in EVERY} == set(KINDS)
    data = sequential(EVERY, (3, 16, 12), name="net", doc="what it is")
    x = np.random.default_rng(0).normal(size=(2, 3, 16, 12)).astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(data).run(None, {"input": x})
    model = load_bytes(data)
    np.testing.assert_allclose(model.run({"input": x})[0], wanted, atol=1e-6)
    assert wanted.shape == (2, 5)
    assert onnx.load_from_string(data).doc_string == "what it is"
    assert [name for name, _, _ in model.layers()][:3] == ["conv1", "batch_norm1", "relu1"]


def test_a_seed_decides_the_weights():
    one, same, other = (sequential(EVERY, (3, 16, 16), seed=s) for s in (1, 1, 2))
    assert one == same != other


def test_weights_are_drawn_as_torch_draws_them():
    model = load_bytes(sequential([Layer("flatten"), Layer("gemm", 400)], (25, 2, 2)))
    for p in model.parameters():
        assert 0.095 < np.abs(p.array).max() <= 0.1
        assert abs(p.array.mean()) < 0.01


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([], "at least one layer"),
        ([Layer("lstm", 4)], "'lstm'"),
        ([Layer("gemm", 4)], "flatten"),
        ([Layer("flatten"), Layer("conv", 4)], "conv1 wants"),
        ([Layer("max_pool", kernel=9)], "does not fit"),
    ],
)
def test_layers_that_do_not_fit(layers, said):
    with pytest.raises(ShapeError, match=said):
        sequential(layers, (3, 8, 8))
