"""Pooling bindings against onnxruntime: each version, padding mode and rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .free_node import agree, normal
from .one_node import ort_node, run_node

WINDOWS = [(3, 1, 1), (3, 2, 1), (2, 2, 1), (2, 3, 1), (3, 2, 2)]  # kernel, stride, dilation
PADS: list[dict[str, Any]] = [
    {},
    {"pads": [1, 0, 0, 1]},
    {"pads": [1, 1, 1, 1]},
    {"auto_pad": "SAME_UPPER"},
    {"auto_pad": "SAME_LOWER"},
    {"auto_pad": "VALID"},
]
sizes = pytest.mark.parametrize("size", [5, 6, 7])
windows = pytest.mark.parametrize(("k", "s", "d"), WINDOWS)
padded = pytest.mark.parametrize("pad", PADS, ids=str)


def same_and_dilated(pad: dict[str, Any], d: int) -> bool:
    """Whether onnxruntime deviates from the standard: it leaves dilations out of SAME."""
    return d > 1 and "SAME" in pad.get("auto_pad", "")


@sizes
@windows
@padded
@pytest.mark.parametrize("ceil", [0, 1])
def test_max_pool(size: int, k: int, s: int, d: int, pad: dict[str, Any], ceil: int) -> None:
    if same_and_dilated(pad, d):
        pytest.skip("onnxruntime leaves dilations out of SAME")
    how = {**pad, "kernel_shape": [k, k], "strides": [s, s], "dilations": [d, d], "ceil_mode": ceil}
    agree("MaxPool", [normal(2, 3, size, size + 1)], opset=12, n_out=2, storage_order=size % 2, **how)


@pytest.mark.parametrize("opset", [1, 8, 10, 11, 12, 22])
def test_max_pool_versions(opset: int) -> None:
    agree(
        "MaxPool",
        [normal(2, 3, 6, 7)],
        opset=opset,
        n_out=1 if opset < 8 else 2,
        kernel_shape=[3, 2],
        strides=[2, 1],
    )


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_max_pool_of_integers(dtype: Any) -> None:
    x = (10 * normal(1, 2, 5, 5)).astype(np.int8).astype(dtype)
    agree("MaxPool", [x], opset=12, kernel_shape=[3, 2], pads=[1, 1, 1, 1], free=False)


def test_nhwc_max_pool() -> None:
    x = (10 * normal(1, 6, 5, 3)).astype(np.int8)
    how = {"opset": 1, "domain": "com.microsoft", "kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}
    agree("NhwcMaxPool", [x], free=False, **how)


@sizes
@windows
@padded
@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("count_include_pad", [0, 1])
def test_average_pool(
    size: int, k: int, s: int, d: int, pad: dict[str, Any], ceil: int, count_include_pad: int
) -> None:
    if same_and_dilated(pad, d):
        pytest.skip("onnxruntime leaves dilations out of SAME")
    how = {**pad, "kernel_shape": [k, k], "strides": [s, s], "dilations": [d, d], "ceil_mode": ceil}
    agree("AveragePool", [normal(2, 3, size, size + 1)], opset=19, count_include_pad=count_include_pad, **how)


@pytest.mark.parametrize("opset", [7, 10, 11, 19, 22])
def test_average_pool_versions(opset: int) -> None:
    how: dict[str, Any] = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 0, 1]}
    if opset >= 10:
        how["ceil_mode"] = 1
    agree("AveragePool", [normal(2, 3, 6, 7)], opset=opset, **how)


def test_versions_that_onnxruntime_lacks() -> None:
    x, how = normal(2, 3, 6, 7), {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 0, 1]}
    for op_type, old, new, power in (
        ("AveragePool", 1, 7, {}),
        ("LpPool", 1, 2, {"p": 3.0}),
        ("LpPool", 22, 18, {"p": 3}),
    ):
        (found,) = run_node(op_type, [x], opset=old, **how, **power)
        (wanted,) = run_node(op_type, [x], opset=new, **how, **{k: int(v) for k, v in power.items()})
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("opset", [2, 11, 18])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_lp_pool(opset: int, p: int) -> None:
    how: dict[str, Any] = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 0, 1]}
    if opset >= 18:
        how |= {"ceil_mode": 1, "dilations": [1, 2]}
    agree("LpPool", [normal(2, 3, 6, 7)], opset=opset, p=p, **how)
    agree("GlobalLpPool", [normal(2, 3, 6, 7)], opset=opset, p=p)


@pytest.mark.parametrize("op_type", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("opset", [1, 22])
@pytest.mark.parametrize("size", [(5,), (4, 5), (2, 3, 4)])
def test_global(op_type: str, opset: int, size: tuple[int, ...]) -> None:
    agree(op_type, [normal(2, 3, *size)], opset=opset)


@pytest.mark.parametrize("opset", [9, 11, 22])
def test_max_unpool(opset: int) -> None:
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    y, index = ort_node("MaxPool", [normal(1, 2, 6, 6)], opset=12, n_out=2, **window)
    agree("MaxUnpool", [y, index], opset=opset, **window)


def test_max_unpool_to_a_larger_shape() -> None:
    x = np.array([[[[1, 2], [3, 4]]]], np.float32)
    args = [x, np.array([[[[5, 7], [13, 15]]]]), np.array([1, 1, 5, 5])]
    (y,) = run_node("MaxUnpool", args, opset=11, constants=(2,), kernel_shape=[2, 2], strides=[2, 2])
    wanted = np.zeros((5, 5), np.float32)
    wanted[[1, 1, 3, 3], [1, 3, 1, 3]] = 1, 2, 3, 4
    np.testing.assert_array_equal(y[0, 0], wanted)
