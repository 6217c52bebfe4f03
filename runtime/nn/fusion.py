"""Batch normalisation folded into the layer before it, for running only."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from ...ops.errors import OpError
from ..autograd.grad_mode import no_grad
from ..tensor.creation import ones_like, zeros_like
from .module import Module, Parameter

Layer = TypeVar("Layer", bound=Module)


def _evaluated(layer: Any, bn: Any) -> None:
    if layer.training or bn.training:
        raise AssertionError("Fusion only for eval!")
    if bn.running_mean is None or bn.running_var is None:
        raise OpError("bn.running_mean and bn.running_var must not be None")


def fuse_conv_bn_eval(conv: Layer, bn: Module, transpose: bool = False) -> Layer:
    """Return a convolution that does what a convolution and a batch normalisation behind it do.

    Args:
        conv: the convolution, in evaluation mode.
        bn: the normalisation, in evaluation mode.
        transpose: whether the convolution is a transposed one.

    Raises:
        AssertionError: in training mode.
        OpError: without running statistics.
    """
    _evaluated(conv, bn)
    return _fused(conv, bn, fuse_conv_bn_weights, transpose)


def _fused(layer: Layer, bn: Any, fuse: Any, *how: Any) -> Layer:
    made: Any = copy.deepcopy(layer)
    made.weight, made.bias = fuse(
        made.weight, made.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias, *how
    )
    return made  # type: ignore[no-any-return]


def fuse_conv_bn_weights(
    conv_w: Any, conv_b: Any, bn_rm: Any, bn_rv: Any, bn_eps: float, bn_w: Any, bn_b: Any, transpose: bool = False
) -> tuple[Parameter, Parameter]:
    """Return weight and bias of such a convolution.

    Args:
        conv_w: the weight.
        conv_b: the bias, or None.
        bn_rm: the running mean.
        bn_rv: the running variance.
        bn_eps: what is added to it.
        bn_w: the scale, or None.
        bn_b: the shift, or None.
        transpose: whether the convolution is a transposed one.
    """
    shape = [1, -1] if transpose else [-1, 1]
    return _weights(conv_w, conv_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, shape + [1] * (conv_w.ndim - 2))


def _weights(
    w: Any, b: Any, mean: Any, var: Any, eps: float, scale: Any, shift: Any, shape: list[int]
) -> tuple[Parameter, Parameter]:
    with no_grad():
        factor = (var + eps).rsqrt() * (ones_like(mean) if scale is None else scale)
        before = zeros_like(mean) if b is None else b
        bias = (before - mean) * factor + (zeros_like(mean) if shift is None else shift)
        weight = (w * factor.reshape(shape)).to(dtype=w.dtype)
        bias = bias.to(dtype=before.dtype if b is not None else w.dtype)
    return Parameter(weight, w.requires_grad), Parameter(bias, before.requires_grad)


def fuse_linear_bn_eval(linear: Layer, bn: Module) -> Layer:
    """Return a linear layer that does what a linear layer and a batch normalisation behind it do.

    Args:
        linear: the layer, in evaluation mode.
        bn: the normalisation, in evaluation mode.

    Raises:
        AssertionError: in training mode, or where the numbers of features differ.
        OpError: without running statistics.
    """
    _evaluated(linear, bn)
    wanted, found = getattr(linear, "out_features"), getattr(bn, "num_features")  # noqa: B009 - of a Module
    if wanted != found and found != 1:
        raise AssertionError(
            "To fuse, linear.out_features == bn.num_features or bn.num_features == 1, got "
            f"linear.out_features={wanted} and bn.num_features={found}"
        )
    return _fused(linear, bn, fuse_linear_bn_weights)


def fuse_linear_bn_weights(
    linear_w: Any, linear_b: Any, bn_rm: Any, bn_rv: Any, bn_eps: float, bn_w: Any, bn_b: Any
) -> tuple[Parameter, Parameter]:
    """Return weight and bias of such a linear layer; see `fuse_conv_bn_weights`."""
    return _weights(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, [-1, 1])
