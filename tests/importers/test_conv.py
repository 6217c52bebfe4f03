"""Convolution bindings against onnxruntime: each version, padding mode, stride and dilation."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgrad.ops.errors import UnsupportedAttributeError

from .free_node import agree, normal
from .one_node import ort_node, run_node

VERSIONS = (1, 11, 22)
WINDOWS = [(3, 1, 1), (3, 2, 1), (1, 2, 1), (2, 3, 1), (2, 2, 2)]  # kernel, stride, dilation


@pytest.mark.parametrize("opset", VERSIONS)
@pytest.mark.parametrize(("k", "s", "d"), WINDOWS)
def test_conv(opset: int, k: int, s: int, d: int) -> None:
    how = {"opset": opset, "strides": [s, s], "dilations": [d, d], "kernel_shape": [k, k]}
    agree("Conv", [normal(2, 4, 6, 7), normal(6, 2, k, k), normal(6)], pads=[1, 0, 1, 2], group=2, **how)
    agree("Conv", [normal(2, 4, 6, 7), normal(4, 1, k, k)], pads=[0, 1, 0, 0], group=4, **how)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize(("k", "s"), [(3, 1), (3, 2), (1, 2), (2, 3), (4, 2)])
@pytest.mark.parametrize("size", [5, 6, 7])
def test_conv_auto_pad(mode: str, k: int, s: int, size: int) -> None:
    agree("Conv", [normal(1, 2, size, size + 1), normal(3, 2, k, k)], opset=11, auto_pad=mode, strides=[s, s])


@pytest.mark.parametrize("axes", [1, 3])
def test_conv_of_other_ranks(axes: int) -> None:
    agree("Conv", [normal(2, 2, *(5, 4, 6)[:axes]), normal(3, 2, *(2,) * axes)], opset=11)


@pytest.mark.parametrize("opset", VERSIONS)
@pytest.mark.parametrize(("k", "s", "d"), [*WINDOWS, (4, 2, 1)])
def test_conv_transpose(opset: int, k: int, s: int, d: int) -> None:
    x, how = normal(2, 4, 5, 4), {"opset": opset, "strides": [s, s], "dilations": [d, d]}
    agree("ConvTranspose", [x, normal(4, 3, k, k), normal(3)], **how)
    agree("ConvTranspose", [x, normal(4, 2, k, k), normal(4)], group=2, **how)
    agree("ConvTranspose", [x, normal(4, 1, k, k)], group=4, **how)
    if k > 1:
        agree("ConvTranspose", [x, normal(4, 3, k, k)], pads=[0, 1, 1, 0], **how)
    if s > 1:
        agree("ConvTranspose", [x, normal(4, 3, k, k)], output_padding=[1, 0], **how)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "NOTSET"])
@pytest.mark.parametrize(("k", "s"), [(3, 1), (3, 2), (4, 2), (4, 3)])
def test_conv_transpose_to_a_shape(mode: str, k: int, s: int) -> None:
    args = [normal(1, 2, 5, 4), normal(2, 3, k, k)]
    agree("ConvTranspose", args, opset=11, auto_pad=mode, strides=[s, s], output_shape=[5 * s, 4 * s])
    agree("ConvTranspose", args, opset=11, auto_pad=mode, strides=[s, s])


@pytest.mark.parametrize(
    ("activation", "params"),
    [
        ("Relu", []),
        ("Sigmoid", []),
        ("Tanh", []),
        ("LeakyRelu", [0.1]),
        ("Clip", [-0.5, 0.5]),
        ("HardSigmoid", [0.2, 0.5]),
    ],
)
def test_fused_conv(activation: str, params: list[float]) -> None:
    how = {"opset": 1, "domain": "com.microsoft", "activation": activation}
    if params:
        how["activation_params"] = params
    args = [normal(1, 3, 5, 5), normal(4, 3, 3, 3), normal(4)]
    agree("FusedConv", args, **how)
    agree("FusedConv", [*args, normal(1, 4, 3, 3)], **how)


MICROSOFT = {"opset": 1, "domain": "com.microsoft"}


@pytest.mark.parametrize("residual", [False, True])
def test_nhwc_fused_conv(residual: bool) -> None:
    """onnxruntime's kernel for the CPU takes half precision only: compared with FusedConv of what is turned."""
    x, w, bias, z = normal(2, 5, 6, 4), normal(6, 2, 3, 3), normal(6), normal(2, 5, 6, 6)
    how = {**MICROSOFT, "pads": [1, 1, 1, 1], "group": 2, "activation": "Relu"}
    turned = [x.transpose(0, 3, 1, 2), w, bias, *([z.transpose(0, 3, 1, 2)] if residual else [])]
    (found,) = run_node("NhwcFusedConv", [x, w, bias, *([z] if residual else [])], **how)
    (wanted,) = ort_node("FusedConv", [np.ascontiguousarray(v) for v in turned], **how)
    np.testing.assert_allclose(found, wanted.transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 0, 1, 2]])
def test_conv_transpose_with_dynamic_pads(pads: list[int], constant: bool) -> None:
    args = [normal(2, 4, 5, 4), normal(4, 3, 3, 3), np.array(pads, np.int64), normal(6)]
    how = {**MICROSOFT, "strides": [2, 2], "output_padding": [1, 0], "group": 2}
    how["constants"] = [2] if constant else []
    agree("ConvTransposeWithDynamicPads", args, **how)


def test_unknown_auto_pad_is_named() -> None:
    with pytest.raises(UnsupportedAttributeError, match="auto_pad"):
        run_node("Conv", [normal(1, 2, 5, 5), normal(3, 2, 3, 3)], opset=11, auto_pad="EQUAL")
