"""Which ops run the device's kernels when they are called one at a time, and why.

All sizes do: a launch costs no more than one of CuPy's. Pointwise ops, reshapes, slices and the like stay CuPy's, which
computes each as one kernel, or as none.
"""

from __future__ import annotations

from typing import Any

from ...ops import (
    attention,
    broadcast,
    conv,
    dropout,
    index,
    loss,
    matmul,
    normalize,
    pool,
    random,
    rank,
    reduce,
    resize,
    rnn,
    rnn_grad,
    rnn_train,
)
from ...ops.op import Op
from ..compiled.eager_calls import EagerKernel
from .eager import DeviceKernel, EagerDevices

ON_DEVICE: dict[str, tuple[Op, ...]] = {
    "the array kernel unfolds the image, K times its size for K taps, and adds up tap by tap": (
        conv.conv, conv.conv_input_grad, conv.conv_weight_grad,
    ),
    "the array kernel widens half precision in memory, and multiplies without tensor cores": (
        matmul.matmul, matmul.einsum,
    ),
    "the array kernel walks tiles that fit a CPU's cache, some launches each": (
        attention.attention, attention.attention_weights, attention.attention_grad,
    ),
    "the array kernel reads and writes the whole tensor several times": (
        normalize.softmax, normalize.softmax_grad, normalize.log_softmax, normalize.log_softmax_grad,
        normalize.standardize, normalize.standardize_grad, normalize.layer_norm, normalize.layer_norm_grad,
        normalize.rms_norm, normalize.rms_norm_grad, normalize.batch_norm, normalize.batch_norm_train,
        normalize.batch_norm_train_grad, normalize.instance_norm, normalize.group_norm,
        loss.softmax_cross_entropy, loss.softmax_cross_entropy_grad,
    ),
    "the array kernel goes over the tensor once a tap": (
        pool.max_pool, pool.max_pool_grad, pool.max_pool_indices, pool.sum_pool, pool.sum_pool_grad,
    ),
    "the array kernel makes the places of all elements as int64, and adds with atomics, in any order": (
        index.gather, index.gather_grad, index.gather_elements, index.scatter_elements, index.gather_nd,
        index.scatter_nd, pool.pool_gather, pool.pool_scatter, pool.max_unpool,
    ),
    "the array kernel draws on the host and copies": (
        dropout.dropout_train, dropout.dropout_mask, random.bernoulli,
    ),
    "the array kernel gathers each tap with its weight": (resize.resize, resize.resize_grad),
    "the array kernel widens half precision in memory, or makes temporaries of full size": (
        broadcast.sum_to, reduce.sum_, reduce.mean, reduce.logsumexp, reduce.l2_norm,
    ),
    "the array kernel sorts everything": (rank.topk,),
    "the array kernel launches a dozen kernels a time step": (
        rnn.rnn, rnn.gru, rnn.lstm, rnn_train.gru_train, rnn_train.lstm_train, rnn_grad.rnn_grad, rnn_grad.gru_grad,
        rnn_grad.lstm_grad,
    ),
}  # fmt: skip
"""Ops whose array kernel on CuPy is much slower or hungrier than the device's own, by what is wrong with it."""


def accelerate(cupy: Any) -> None:
    """Give these ops their kernels for the arrays of a CuPy."""
    devices = EagerDevices(cupy)
    for ops in ON_DEVICE.values():
        for op in ops:
            slow = op.array_kernel
            assert slow is not None, op.name
            if not isinstance(op.eager_kernel, EagerKernel):
                op.eager_kernel = EagerKernel(op, slow)
            op.eager_kernel.device = DeviceKernel(op, slow, devices)
