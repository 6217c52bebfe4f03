"""Every layer, function and method leaves as ONNX nodes that compute the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import onnxgrad as og
import onnxgrad.nn.functional as F
from onnxgrad import nn
from onnxgrad.errors import SaveError
from onnxgrad.importers.onnx.export import to_onnx_model

from .leaving import exported, tensors

RNG = np.random.default_rng(7)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def whole(high: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, high, shape)


class Calling(nn.Module):
    """A module around a function."""

    def __init__(self, f: Callable[..., Any]) -> None:
        super().__init__()
        self.f = f

    def forward(self, *xs: Any) -> Any:
        return self.f(*xs)


def shaken(module: Any) -> Any:
    """Return a module in evaluation mode, its parameters and statistics drawn."""
    for p in module.parameters():
        p.data = og.tensor(RNG.standard_normal(tuple(p.shape)).astype(np.float32) * 0.5)
    for b in module.buffers():
        if b.dtype.kind == "f":
            b.data = og.tensor(RNG.random(tuple(b.shape)).astype(np.float32) + 0.5)
    return module.eval()


LAYERS: dict[str, tuple[Callable[[], Any], Callable[[int], list[Any]]]] = {
    "Linear": (lambda: nn.Linear(5, 3), lambda n: [floats(n, 5)]),
    "Linear without bias": (lambda: nn.Linear(5, 3, bias=False), lambda n: [floats(n, 5)]),
    "Linear of 3 axes": (lambda: nn.Linear(5, 3), lambda n: [floats(n, 4, 5)]),
    "Bilinear": (lambda: nn.Bilinear(3, 4, 2), lambda n: [floats(n, 3), floats(n, 4)]),
    "Conv1d": (lambda: nn.Conv1d(2, 4, 3, stride=2, padding=1), lambda n: [floats(n, 2, 9)]),
    "Conv2d": (lambda: nn.Conv2d(2, 4, (3, 2), padding=(1, 0), dilation=2), lambda n: [floats(n, 2, 9, 8)]),
    "Conv2d in groups": (lambda: nn.Conv2d(4, 6, 3, groups=2, bias=False), lambda n: [floats(n, 4, 6, 6)]),
    "Conv2d same": (lambda: nn.Conv2d(2, 3, 4, padding="same"), lambda n: [floats(n, 2, 7, 7)]),
    "Conv2d reflected": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), lambda n: [floats(n, 2, 6, 6)]),
    "Conv2d circular": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), lambda n: [floats(n, 2, 6, 6)]),
    "Conv2d replicated": (
        lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="replicate"),
        lambda n: [floats(n, 2, 6, 6)],
    ),
    "Conv3d": (lambda: nn.Conv3d(2, 3, 2, stride=2), lambda n: [floats(n, 2, 5, 5, 5)]),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(3, 2, 3, stride=2, padding=1), lambda n: [floats(n, 3, 5)]),
    "ConvTranspose2d": (
        lambda: nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2),
        lambda n: [floats(n, 4, 4, 5)],
    ),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(2, 3, 2, stride=2, bias=False), lambda n: [floats(n, 2, 3, 3, 3)]),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(4), lambda n: [floats(n, 4)]),
    "BatchNorm1d of 3 axes": (lambda: nn.BatchNorm1d(4, affine=False), lambda n: [floats(n, 4, 5)]),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(4, eps=1e-3), lambda n: [floats(n, 4, 3, 3)]),
    "BatchNorm2d untracked": (lambda: nn.BatchNorm2d(4, track_running_stats=False), lambda n: [floats(n, 4, 3, 3)]),
    "BatchNorm3d": (lambda: nn.BatchNorm3d(4), lambda n: [floats(n, 4, 3, 3, 2)]),
    "LayerNorm": (lambda: nn.LayerNorm(6), lambda n: [floats(n, 3, 6)]),
    "LayerNorm of 2 axes": (lambda: nn.LayerNorm((3, 6), elementwise_affine=False), lambda n: [floats(n, 3, 6)]),
    "LayerNorm without bias": (lambda: nn.LayerNorm(6, bias=False), lambda n: [floats(n, 6)]),
    "RMSNorm": (lambda: nn.RMSNorm(6), lambda n: [floats(n, 3, 6)]),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), lambda n: [floats(n, 4, 5, 3)]),
    "InstanceNorm1d": (lambda: nn.InstanceNorm1d(4), lambda n: [floats(n, 4, 6)]),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(4, affine=True), lambda n: [floats(n, 4, 5, 6)]),
    "InstanceNorm3d": (lambda: nn.InstanceNorm3d(2), lambda n: [floats(n, 2, 4, 3, 3)]),
    "MaxPool1d": (lambda: nn.MaxPool1d(3, 2), lambda n: [floats(n, 2, 9)]),
    "MaxPool2d": (lambda: nn.MaxPool2d(3, 2, padding=1, dilation=2), lambda n: [floats(n, 2, 9, 9)]),
    "MaxPool2d ceil": (lambda: nn.MaxPool2d(3, 2, ceil_mode=True), lambda n: [floats(n, 2, 8, 7)]),
    "MaxPool2d indices": (lambda: nn.MaxPool2d(2, return_indices=True), lambda n: [floats(n, 2, 6, 6)]),
    "MaxPool3d": (lambda: nn.MaxPool3d(2), lambda n: [floats(n, 2, 4, 4, 4)]),
    "AvgPool1d": (lambda: nn.AvgPool1d(3, 2, padding=1), lambda n: [floats(n, 2, 9)]),
    "AvgPool2d": (lambda: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), lambda n: [floats(n, 2, 9, 9)]),
    "AvgPool2d ceil": (lambda: nn.AvgPool2d(3, 2, ceil_mode=True), lambda n: [floats(n, 2, 8, 8)]),
    "AvgPool2d ceil, padded": (
        lambda: nn.AvgPool2d(3, 2, padding=1, ceil_mode=True, count_include_pad=True), lambda n: [floats(n, 2, 8, 8)],
    ),
    "AvgPool2d divisor": (lambda: nn.AvgPool2d(2, divisor_override=3), lambda n: [floats(n, 2, 6, 6)]),
    "AvgPool3d": (lambda: nn.AvgPool3d(2), lambda n: [floats(n, 2, 4, 4, 4)]),
    "AdaptiveAvgPool1d": (lambda: nn.AdaptiveAvgPool1d(3), lambda n: [floats(n, 2, 9)]),
    "AdaptiveAvgPool2d of one": (lambda: nn.AdaptiveAvgPool2d(1), lambda n: [floats(n, 2, 5, 7)]),
    "AdaptiveAvgPool2d uneven": (lambda: nn.AdaptiveAvgPool2d((3, None)), lambda n: [floats(n, 2, 5, 7)]),
    "AdaptiveAvgPool3d": (lambda: nn.AdaptiveAvgPool3d(2), lambda n: [floats(n, 2, 4, 4, 4)]),
    "Embedding": (lambda: nn.Embedding(10, 4), lambda n: [whole(10, n, 3)]),
    "Embedding with padding": (lambda: nn.Embedding(10, 4, padding_idx=0), lambda n: [whole(10, n, 3)]),
    "Dropout": (lambda: nn.Dropout(0.3), lambda n: [floats(n, 4)]),
    "Flatten": (lambda: nn.Flatten(), lambda n: [floats(n, 2, 3, 4)]),
    "Flatten of some": (lambda: nn.Flatten(2), lambda n: [floats(n, 2, 3, 4)]),
    "Unflatten": (lambda: nn.Unflatten(1, (2, 3)), lambda n: [floats(n, 6, 2)]),
    "Identity": (lambda: nn.Identity(), lambda n: [floats(n, 4)]),
    "EmbeddingBag": (lambda: nn.EmbeddingBag(10, 4), lambda n: [whole(10, n, 3)]),
    "AdaptiveMaxPool2d": (lambda: nn.AdaptiveMaxPool2d(2), lambda n: [floats(n, 2, 6, 4)]),
    "LPPool2d": (lambda: nn.LPPool2d(2, 2), lambda n: [floats(n, 2, 6, 6)]),
    "LPPool1d": (lambda: nn.LPPool1d(3, 3, 2), lambda n: [abs(floats(n, 2, 9))]),
    "LocalResponseNorm": (lambda: nn.LocalResponseNorm(3), lambda n: [floats(n, 5, 4, 4)]),
    "PixelShuffle": (lambda: nn.PixelShuffle(2), lambda n: [floats(n, 8, 3, 2)]),
    "PixelUnshuffle": (lambda: nn.PixelUnshuffle(2), lambda n: [floats(n, 2, 4, 6)]),
    "ChannelShuffle": (lambda: nn.ChannelShuffle(2), lambda n: [floats(n, 6, 3, 2)]),
    "Unfold": (lambda: nn.Unfold((2, 3), dilation=1, padding=1, stride=2), lambda n: [floats(n, 2, 6, 7)]),
    "Fold": (lambda: nn.Fold((4, 5), (2, 2)), lambda n: [floats(n, 8, 12)]),
    "ConstantPad1d": (lambda: nn.ConstantPad1d((1, 2), 3.5), lambda n: [floats(n, 2, 5)]),
    "ZeroPad2d": (lambda: nn.ZeroPad2d((1, 0, -1, 2)), lambda n: [floats(n, 2, 5, 4)]),
    "ReflectionPad2d": (lambda: nn.ReflectionPad2d(2), lambda n: [floats(n, 2, 5, 4)]),
    "ReplicationPad3d": (lambda: nn.ReplicationPad3d(1), lambda n: [floats(n, 2, 3, 3, 2)]),
    "CircularPad2d": (lambda: nn.CircularPad2d((1, 2, 0, 1)), lambda n: [floats(n, 2, 5, 4)]),
    "Upsample nearest": (lambda: nn.Upsample(scale_factor=2), lambda n: [floats(n, 2, 3, 4)]),
    "Upsample nearest 1.5": (lambda: nn.Upsample(scale_factor=1.5), lambda n: [floats(n, 2, 3, 4)]),
    "Upsample nearest-exact": (lambda: nn.Upsample(size=(7, 3), mode="nearest-exact"), lambda n: [floats(n, 2, 3, 4)]),
    "Upsample bilinear": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), lambda n: [floats(n, 2, 3, 4)]),
    "Upsample bilinear to a size": (lambda: nn.Upsample(size=(7, 3), mode="bilinear"), lambda n: [floats(n, 2, 3, 4)]),
    "Upsample corners": (
        lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), lambda n: [floats(n, 2, 3, 4)],
    ),
    "Upsample linear": (lambda: nn.Upsample(size=7, mode="linear"), lambda n: [floats(n, 2, 4)]),
    "Upsample trilinear": (lambda: nn.Upsample(scale_factor=2, mode="trilinear"), lambda n: [floats(n, 2, 3, 2, 2)]),
    "Upsample bicubic": (lambda: nn.Upsample(scale_factor=2, mode="bicubic"), lambda n: [floats(n, 2, 4, 4)]),
    "LSTMCell": (lambda: nn.LSTMCell(3, 4), lambda n: [floats(n, 3), floats(n, 4), floats(n, 4)]),
    "GRUCell": (lambda: nn.GRUCell(3, 4), lambda n: [floats(n, 3), floats(n, 4)]),
    "RNNCell": (lambda: nn.RNNCell(3, 4, nonlinearity="relu"), lambda n: [floats(n, 3), floats(n, 4)]),
    "AdaptiveMaxPool1d": (lambda: nn.AdaptiveMaxPool1d(2), lambda n: [floats(n, 2, 6)]),
    "AdaptiveMaxPool3d": (lambda: nn.AdaptiveMaxPool3d(2), lambda n: [floats(n, 2, 4, 2, 6)]),
    "AlphaDropout": (lambda: nn.AlphaDropout(), lambda n: [floats(n, 4)]),
    "FeatureAlphaDropout": (lambda: nn.FeatureAlphaDropout(), lambda n: [floats(n, 4)]),
    "Dropout1d": (lambda: nn.Dropout1d(), lambda n: [floats(n, 4, 2)]),
    "Dropout2d": (lambda: nn.Dropout2d(), lambda n: [floats(n, 4, 2, 2)]),
    "Dropout3d": (lambda: nn.Dropout3d(), lambda n: [floats(n, 4, 2, 2, 1)]),
    "CircularPad1d": (lambda: nn.CircularPad1d(2), lambda n: [floats(n, 2, 5)]),
    "CircularPad3d": (lambda: nn.CircularPad3d(1), lambda n: [floats(n, 2, 3, 3, 2)]),
    "ConstantPad2d": (lambda: nn.ConstantPad2d(1, -2.0), lambda n: [floats(n, 2, 3, 4)]),
    "ConstantPad3d": (lambda: nn.ConstantPad3d(1, 0.5), lambda n: [floats(n, 2, 3, 3, 2)]),
    "ReflectionPad1d": (lambda: nn.ReflectionPad1d((2, 1)), lambda n: [floats(n, 2, 5)]),
    "ReflectionPad3d": (lambda: nn.ReflectionPad3d(1), lambda n: [floats(n, 2, 3, 3, 2)]),
    "ReplicationPad1d": (lambda: nn.ReplicationPad1d(2), lambda n: [floats(n, 2, 5)]),
    "ReplicationPad2d": (lambda: nn.ReplicationPad2d((1, 0, 2, 1)), lambda n: [floats(n, 2, 5, 4)]),
    "ZeroPad1d": (lambda: nn.ZeroPad1d(2), lambda n: [floats(n, 2, 5)]),
    "ZeroPad3d": (lambda: nn.ZeroPad3d(1), lambda n: [floats(n, 2, 3, 3, 2)]),
    "LPPool3d": (lambda: nn.LPPool3d(2, 2), lambda n: [floats(n, 2, 4, 4, 2)]),
    "Softmax2d": (lambda: nn.Softmax2d(), lambda n: [floats(n, 3, 2, 2)]),
    "UpsamplingBilinear2d": (lambda: nn.UpsamplingBilinear2d(scale_factor=2), lambda n: [floats(n, 2, 3, 4)]),
    "UpsamplingNearest2d": (lambda: nn.UpsamplingNearest2d(size=(6, 5)), lambda n: [floats(n, 2, 3, 4)]),
    "CosineSimilarity": (lambda: nn.CosineSimilarity(), lambda n: [floats(n, 4), floats(n, 4)]),
    "PairwiseDistance": (lambda: nn.PairwiseDistance(), lambda n: [floats(n, 4), floats(n, 4)]),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    make, inputs = LAYERS[name]
    module = shaken(make())
    if name == "LSTMCell":
        cell, module = module, Calling(lambda x, h, c: cell(x, (h, c)))
        module.cell = cell
    example = inputs(2)
    names = [f"input{i}" for i in range(len(example))]
    results = {"MaxPool2d indices": ["output", "indices"], "LSTMCell": ["h", "c"]}.get(name, ["output"])
    axes = {n: {0: "batch"} for n in (*names, *results)}
    exported(module, example, dynamic=axes, others=[inputs(5)], input_names=names, output_names=results)


RECURRENT = {
    "RNN": lambda: nn.RNN(3, 4),
    "RNN relu": lambda: nn.RNN(3, 4, 2, nonlinearity="relu", bias=False),
    "GRU": lambda: nn.GRU(3, 4, 2, bidirectional=True),
    "GRU batch first": lambda: nn.GRU(3, 4, batch_first=True),
    "LSTM": lambda: nn.LSTM(3, 4, 2, dropout=0.5),
    "LSTM both ways": lambda: nn.LSTM(3, 4, bidirectional=True, batch_first=True),
}


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("opset", [18, 22])
def test_recurrent_layers(name, opset):
    module = shaken(RECURRENT[name]())
    proto = exported(
        module, [floats(5, 2, 3)], dynamic={"input": {0: "first", 1: "second"}}, others=[[floats(7, 3, 3)]],
        opset_version=opset,
    )  # fmt: skip
    assert {t.name for t in proto.graph.initializer} == {n for n, _ in module.named_parameters()}


def test_a_recurrent_layer_with_a_state():
    module = shaken(nn.LSTM(3, 4))
    given = Calling(lambda x, h, c: module(x, (h, c)))
    given.inner = module
    exported(
        given,
        [floats(5, 2, 3), floats(1, 2, 4), floats(1, 2, 4)],
        dynamic={f"input_{i}": {1: "batch"} for i in range(3)},
    )


def test_a_projecting_lstm():
    exported(shaken(nn.LSTM(3, 4, proj_size=2)), [floats(3, 2, 3)])


ATTENDING = {
    "MultiheadAttention": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), 3),
    "MultiheadAttention without weights": (lambda: _without_weights(nn.MultiheadAttention(8, 2, batch_first=True)), 3),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1),
    "TransformerEncoderLayer first": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", norm_first=True, batch_first=True), 1,
    ),
    "TransformerEncoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2), 1,
    ),
    "TransformerDecoderLayer": (lambda: nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 2),
    "TransformerDecoder": (
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 1), 2,
    ),
    "Transformer": (lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True), 2),
}  # fmt: skip


def _without_weights(attention: Any) -> Any:
    called = Calling(lambda q, k, v: attention(q, k, v, need_weights=False)[0])
    called.attention = attention
    return called


@pytest.mark.parametrize("name", ATTENDING)
@pytest.mark.parametrize("opset", [20, 23])
def test_attention(name, opset):
    make, count = ATTENDING[name]
    module = shaken(make())
    names = [f"x{i}" for i in range(count)]

    def inputs(batch: int, steps: int) -> list[np.ndarray]:
        return [floats(batch, steps, 8) for _ in names]

    exported(
        module, inputs(2, 5), dynamic={n: {0: "batch", 1: "time"} for n in names}, others=[inputs(3, 4)],
        input_names=names, opset_version=opset, rtol=2e-5,
    )  # fmt: skip


ACTIVATIONS = [
    nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(0.2), nn.PReLU(), nn.ELU(0.7), nn.CELU(0.7), nn.SELU(), nn.GELU(),
    nn.GELU("tanh"), nn.SiLU(), nn.Mish(), nn.Sigmoid(), nn.LogSigmoid(), nn.Tanh(), nn.Hardtanh(-0.5, 2.0),
    nn.Hardsigmoid(), nn.Hardswish(), nn.Softplus(), nn.Softplus(2.0, 5.0), nn.Softsign(), nn.Softmax(1),
    nn.LogSoftmax(1), nn.Softmin(1), nn.Hardshrink(0.4), nn.Softshrink(0.4), nn.Tanhshrink(), nn.Threshold(0.1, -2.0),
    nn.RReLU().eval(), nn.GLU(1),
]  # fmt: skip


@pytest.mark.parametrize("module", ACTIVATIONS, ids=repr)
@pytest.mark.parametrize("opset", [18, 20])
def test_activations(module, opset):
    exported(module, [floats(2, 6, 3) * 3], dynamic={"input": [0, 2]}, others=[[floats(3, 6, 4)]], opset_version=opset)


FUNCTIONS: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "arithmetic": (lambda x, y: (x + y * 2 - 1) / (y * y + 0.5), [floats(2, 3), floats(3)]),
    "reflected": (lambda x: 1 - 2 / (x * x + 1), [floats(4)]),
    "integers": (lambda x, y: (x + 3) * y - x // (y + 1), [whole(9, 5), whole(9, 5)]),
    "integers to floats": (lambda x: x / 2 + 0.5, [whole(9, 5)]),
    "remainder": (lambda x, y: (x % 0.7, x.fmod(0.7), y % 4), [floats(6) * 5, whole(50, 6) - 25]),
    "powers": (lambda x: (x**2, (x * x) ** 0.5, 2**x, x.square()), [floats(5)]),
    "comparisons": (lambda x, y: (x < y, x <= y, x > y, x >= y, x == y, x != y), [whole(3, 8), whole(3, 8)]),
    "logic": (lambda x, y: ((x > 0) & (y > 0), (x > 0) | (y > 0), (x > 0) ^ (y > 0), ~(x > 0)), [floats(8), floats(8)]),
    "bits": (lambda x, y: (x & y, x | y, x ^ y, ~x), [whole(64, 8), whole(64, 8)]),
    "choices": (
        lambda x, y: (og.where(x > y, x, y), x.masked_fill(y < 0, -1.0), og.where(x > 0, x, 0.0)),
        [floats(6), floats(6)],
    ),
    "unary": (
        lambda x: (x.exp(), x.abs().log(), x.abs().sqrt(), x.sin(), x.cos(), x.tan(), x.tanh(), x.erf(), x.sigmoid()),
        [floats(7)],
    ),
    "rounding": (
        lambda x: (x.floor(), x.ceil(), x.round(), x.sign(), x.neg(), x.reciprocal(), x.rsqrt().isnan()),
        [floats(7) * 3],
    ),
    "inverse functions": (
        lambda x: (x.asin(), x.acos(), x.atan(), x.sinh(), x.cosh(), x.asinh(), (x.abs() + 1).acosh(), x.atanh()),
        [floats(7).clip(-0.9, 0.9)],
    ),
    "logarithms": (lambda x: (x.abs().log2(), x.abs().log10(), x.logsumexp(0), x.log_softmax(0)), [floats(7)]),
    "clamp": (lambda x: (x.clamp(-0.5, 0.5), x.clamp(min=0.1), x.clamp(max=0.1), x.maximum(x * 2)), [floats(7)]),
    "not finite": (lambda x: ((x / 0).isinf(), (x / 0).isfinite(), (0 * x / 0).isnan()), [floats(4)]),
    "sums": (lambda x: (x.sum(), x.sum(0), x.sum((0, 2), keepdim=True), x.mean(-1), x.prod(1)), [floats(2, 3, 4)]),
    "extremes": (lambda x: (x.max(), x.max(1), x.min(2, keepdim=True), x.amax((0, 1)), x.amin()), [floats(2, 3, 4)]),
    "places": (lambda x: (x.argmax(1), x.argmin(), x.topk(2, 2), x.sort(1), x.argsort(0)), [floats(2, 3, 4)]),
    "spread": (
        lambda x: (x.var(1), x.std((0, 2), unbiased=False), x.norm(), x.norm(1, 0), x.norm(3, 1)),
        [floats(2, 3, 4)],
    ),
    "truth": (lambda x: ((x > 0).any(), (x > 0).all(1), (x > 0).sum(0)), [floats(2, 3)]),
    "cumsum": (lambda x, y: (x.cumsum(1), y.cumsum(0)), [floats(2, 5), whole(9, 4)]),
    "shapes": (
        lambda x: (x.reshape(4, -1), x.permute(2, 0, 1), x.transpose(0, 1), x.T, x.mT, x.flatten(1)),
        [floats(2, 3, 4)],
    ),
    "axes": (
        lambda x: (x.unsqueeze(1), x.unsqueeze(0).squeeze(0), x.squeeze(), x.unflatten(1, (3, 2))),
        [floats(2, 6)],
    ),
    "repeats": (lambda x: (x.repeat(2, 3), x.unsqueeze(1).expand(2, 5, 3), x.flip(0), x.flip((0, 1))), [floats(2, 3)]),
    "parts": (lambda x: (x.split(2, 1), x.chunk(2, 0), x.unbind(1), x.narrow(1, 1, 2), x.select(0, 1)), [floats(2, 5)]),
    "slices": (lambda x: (x[0], x[:, 1], x[..., -1], x[1:, ::2], x[:, None], x[-2:, 1:-1]), [floats(3, 5, 4)]),
    "lists": (lambda x, i: (x[[0, 2]], x[:, i], x[i], x[i, i]), [floats(3, 3, 2), whole(3, 4)]),
    "gathers": (lambda x, i: (x.gather(1, i), x.index_select(0, i[0])), [floats(3, 4), whole(3, 3, 2)]),
    "triangles": (lambda x: (x.tril(), x.triu(1), x.tril(-1)), [floats(3, 4)]),
    "joined": (lambda x, y: (og.cat([x, y], 1), og.stack([x, x], 1)), [floats(2, 3), floats(2, 2)]),
    "casts": (lambda x: (x.long(), x.int(), x.bool(), x.half(), x.double(), (x > 0).float()), [floats(5) * 3]),
    "products": (
        lambda x, y: (x @ y, x[0] @ y, x[0] @ y[:, 0], x.mm(y), og.einsum("ij,jk->ki", x, y)),
        [floats(2, 3), floats(3, 4)],
    ),
    "batched products": (
        lambda x, y: (x @ y, x.bmm(y), og.einsum("bij,bjk->bik", x, y)),
        [floats(5, 2, 3), floats(5, 3, 4)],
    ),
    "attention": (
        lambda q, k: (F.scaled_dot_product_attention(q, k, k), F.scaled_dot_product_attention(q, q, q, is_causal=True)),
        [floats(2, 3, 4, 5), floats(2, 3, 6, 5)],
    ),
    "pads": (
        lambda x: (F.pad(x, (1, 2)), F.pad(x, (1, 1, 2, 0), value=2.0), F.pad(x, (1, 2), "reflect"), F.pad(x, (-1, 1))),
        [floats(2, 3, 5)],
    ),
    "pads around": (lambda x: (F.pad(x, (1, 2), "circular"), F.pad(x, (1, 2), "replicate")), [floats(2, 3, 5)]),
    "one_hot": (lambda i: F.one_hot(i, 5), [whole(5, 3, 2)]),
    "normalize": (lambda x: (F.normalize(x), F.normalize(x, p=1.0, dim=0)), [floats(3, 4)]),
    "linear": (lambda x, w, b: (F.linear(x, w, b), F.linear(x, w)), [floats(3, 4), floats(5, 4), floats(5)]),
    "bilinear forms": (lambda x: x.T @ x, [floats(3, 4)]),
    "logarithms of sums": (
        lambda x, y: (x.logaddexp(y), x.atan2(y), x.hypot(y), x.copysign(y)),
        [floats(6), floats(6)],
    ),
    "small numbers": (lambda x: (x.log1p(), x.expm1(), x.exp2(), x.trunc(), x.signbit()), [floats(6) * 0.01]),
    "uneven maxima": (lambda x: F.adaptive_max_pool2d(x, (3, 2)), [floats(2, 2, 7, 5)]),
    "running": (lambda x: (x.cumprod(1), x.logcumsumexp(1)), [floats(2, 5)]),
    "grids": (
        lambda x, g: [
            F.grid_sample(x, g, mode, padding, align_corners=corners)
            for mode in ("bilinear", "nearest", "bicubic")
            for padding in ("zeros", "border", "reflection")
            for corners in (False, True)
        ],
        [floats(2, 3, 4, 5), floats(2, 3, 3, 2)],
    ),
    "interpolated": (
        lambda x: (F.interpolate(x, scale_factor=0.5, mode="bilinear"), F.interpolate(x, (5, 5), mode="area")),
        [floats(1, 2, 6, 8)],
    ),
    "affine grid": (lambda t: F.affine_grid(t, (2, 3, 4, 5), align_corners=False), [floats(2, 2, 3)]),
    "swish": (lambda x: F.silu(x), [floats(4)]),
    "cosine": (lambda x, y: F.cosine_similarity(x, y), [floats(3, 4), floats(3, 4)]),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    f, inputs = FUNCTIONS[name]
    exported(Calling(f), inputs)


LOSSES: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "mse": (F.mse_loss, [floats(3, 4), floats(3, 4)]),
    "l1": (lambda x, y: F.l1_loss(x, y, reduction="sum"), [floats(3, 4), floats(3, 4)]),
    "smooth l1": (F.smooth_l1_loss, [floats(3, 4), floats(3, 4)]),
    "huber": (lambda x, y: F.huber_loss(x, y, reduction="none"), [floats(3, 4), floats(3, 4)]),
    "bce": (lambda x, y: F.binary_cross_entropy(x.sigmoid(), y.sigmoid()), [floats(3, 4), floats(3, 4)]),
    "bce with logits": (lambda x, y: F.binary_cross_entropy_with_logits(x, y.sigmoid()), [floats(3), floats(3)]),
    "kl": (lambda x, y: F.kl_div(x.log_softmax(1), y.softmax(1), reduction="batchmean"), [floats(3, 4), floats(3, 4)]),
    "cross entropy": (F.cross_entropy, [floats(5, 4), whole(4, 5)]),
    "cross entropy of images": (
        lambda x, y: F.cross_entropy(x, y, reduction="none"),
        [floats(2, 4, 3), whole(4, 2, 3)],
    ),
    "cross entropy, weighted": (
        lambda x, y: F.cross_entropy(x, y, weight=og.tensor([1.0, 2.0, 0.5, 1.0]), label_smoothing=0.1),
        [floats(5, 4), whole(4, 5)],
    ),
    "nll": (lambda x, y: F.nll_loss(x.log_softmax(1), y, ignore_index=1), [floats(5, 4), whole(4, 5)]),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name):
    f, inputs = LOSSES[name]
    exported(Calling(f), inputs)


def unpooling(n: int) -> Callable[..., Any]:
    pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[n - 1](2, return_indices=True)
    back = (nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d)[n - 1](2)
    return lambda x: back(*pool(x))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_unpooling(n):
    exported(Calling(unpooling(n)), [floats(2, 3, *(4, 6, 4)[:n])], dynamic={"input": {0: "batch"}})


SIGNS = np.array([1.0, -1.0, 1.0], np.float32)
LOSS_LAYERS: dict[str, tuple[Callable[[], Any], list[Any]]] = {
    "BCELoss": (nn.BCELoss, [RNG.random((3, 4)).astype(np.float32), RNG.random((3, 4)).astype(np.float32)]),
    "BCEWithLogitsLoss": (nn.BCEWithLogitsLoss, [floats(3, 4), RNG.random((3, 4)).astype(np.float32)]),
    "CosineEmbeddingLoss": (nn.CosineEmbeddingLoss, [floats(3, 4), floats(3, 4), SIGNS]),
    "CrossEntropyLoss": (nn.CrossEntropyLoss, [floats(5, 4), whole(4, 5)]),
    "GaussianNLLLoss": (nn.GaussianNLLLoss, [floats(3, 4), floats(3, 4), abs(floats(3, 4))]),
    "HingeEmbeddingLoss": (nn.HingeEmbeddingLoss, [floats(3), SIGNS]),
    "HuberLoss": (nn.HuberLoss, [floats(3, 4), floats(3, 4)]),
    "KLDivLoss": (lambda: nn.KLDivLoss(reduction="batchmean"), [floats(3, 4), abs(floats(3, 4))]),
    "L1Loss": (nn.L1Loss, [floats(3, 4), floats(3, 4)]),
    "MSELoss": (nn.MSELoss, [floats(3, 4), floats(3, 4)]),
    "MarginRankingLoss": (nn.MarginRankingLoss, [floats(3), floats(3), SIGNS]),
    "MultiLabelSoftMarginLoss": (nn.MultiLabelSoftMarginLoss, [floats(3, 4), whole(2, 3, 4).astype(np.float32)]),
    "MultiLabelMarginLoss": (nn.MultiLabelMarginLoss, [floats(2, 4), np.array([[1, -1, 0, 0], [0, 2, -1, 1]])]),
    "MultiMarginLoss": (nn.MultiMarginLoss, [floats(5, 4), whole(4, 5)]),
    "NLLLoss": (nn.NLLLoss, [floats(5, 4), whole(4, 5)]),
    "PoissonNLLLoss": (nn.PoissonNLLLoss, [floats(3, 4), abs(floats(3, 4))]),
    "SmoothL1Loss": (nn.SmoothL1Loss, [floats(3, 4), floats(3, 4)]),
    "SoftMarginLoss": (nn.SoftMarginLoss, [floats(3), SIGNS]),
    "TripletMarginLoss": (nn.TripletMarginLoss, [floats(3, 4), floats(3, 4), floats(3, 4)]),
    "TripletMarginWithDistanceLoss": (nn.TripletMarginWithDistanceLoss, [floats(3, 4), floats(3, 4), floats(3, 4)]),
}


@pytest.mark.parametrize("name", LOSS_LAYERS)
def test_loss_layers(name):
    make, inputs = LOSS_LAYERS[name]
    exported(make(), inputs)


CANNOT: dict[str, tuple[Callable[[], Any], list[Any], str]] = {
    "CTCLoss": (
        nn.CTCLoss, [floats(6, 2, 4), 1 + whole(3, 2, 2), np.array([6, 6]), np.array([2, 2])], "no ONNX form",
    ),
    "FractionalMaxPool2d": (lambda: nn.FractionalMaxPool2d(2, output_size=3), [floats(1, 2, 7, 7)], "random numbers"),
    "FractionalMaxPool3d": (lambda: nn.FractionalMaxPool3d(2, output_size=2), [floats(1, 1, 5, 5, 5)], "random number"),
}  # fmt: skip


@pytest.mark.parametrize("name", CANNOT)
def test_layers_without_a_form(name):
    make, inputs, says = CANNOT[name]
    with pytest.raises(SaveError, match=f"{name}.*{says}"):
        to_onnx_model(make().eval(), tuple(tensors(inputs)))


HOLDERS = {
    "Module",
    "ModuleDict",
    "ModuleList",
    "ParameterDict",
    "ParameterList",
    "RNNBase",
    "RNNCellBase",
    "Sequential",
}


def test_every_layer_has_a_row():
    rows = {key.split()[0] for table in (LAYERS, RECURRENT, ATTENDING, LOSS_LAYERS) for key in table}
    rows |= {type(m).__name__ for m in ACTIVATIONS} | {f"MaxUnpool{n}d" for n in (1, 2, 3)} | CANNOT.keys() | HOLDERS
    layers = {n for n in nn.__all__ if isinstance(getattr(nn, n), type) and issubclass(getattr(nn, n), nn.Module)}
    assert layers - rows == set()
