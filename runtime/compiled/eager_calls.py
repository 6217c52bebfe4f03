"""Compiled kernels for eager calls: heavy ops on large arrays run a program of one op, kept for each signature.

Recurrent layers meet sequences and batches of many sizes: their signatures leave these open.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol

import numpy as np

from ...ops import attention, conv, matmul, normalize, pool, rnn, rnn_grad, rnn_train
from ...ops.kernels.cpu.target import available
from ...ops.op import Kernel, Op

LARGE = 1 << 17
"""Ops over fewer elements than this cost less than compiling them."""

HEAVY: tuple[Op, ...] = (
    conv.conv, conv.conv_input_grad, conv.conv_weight_grad, matmul.matmul, attention.attention,
    attention.attention_grad, pool.max_pool, normalize.batch_norm_train, normalize.layer_norm, normalize.softmax,
)  # fmt: skip

LONG = 1 << 13
"""The same for ops that run step by step."""

_LAYER = ("tb.", "...", "...", "..", "b", ".b.", ".b.", "..")
_STEPS, _STATE = "t.b.", ".b."

OPEN: dict[Op, tuple[str, ...]] = {
    rnn.rnn: _LAYER[:6],
    rnn.gru: _LAYER[:6],
    rnn.lstm: _LAYER,
    rnn_train.gru_train: _LAYER[:6],
    rnn_train.lstm_train: _LAYER,
    rnn_grad.rnn_grad: (_STEPS, _STATE, _STEPS, *_LAYER[:6]),
    rnn_grad.gru_grad: (_STEPS, _STATE, _STEPS, *_LAYER[:6], _STEPS),
    rnn_grad.lstm_grad: (_STEPS, _STATE, _STATE, _STEPS, *_LAYER, _STEPS, _STEPS),
}
"""Ops whose programs serve any size of some axes: for each argument its axes, open ones by a letter."""


class DeviceKernel(Protocol):
    """An op's kernel on a device; see `runtime/cuda/eager.py`."""

    array: type
    """The class of the arrays that it takes."""

    def __call__(self, *args: Any, **attrs: Any) -> Any:
        """Compute."""


class EagerKernel:
    """An op's array kernel, or a compiled one: where NumPy's arrays are large, and on a device.

    Attributes:
        device: for the arrays of a device; None until there is one, and where the array kernel is as good.
    """

    def __init__(self, op: Op, slow: Kernel) -> None:
        """Wrap an op."""
        self.op, self.slow = op, slow
        self.least = LONG if op in OPEN else LARGE if op in HEAVY else sys.maxsize
        self.device: DeviceKernel | None = None
        self._fast: Kernel | None = None

    def __call__(self, *args: Any, **attrs: Any) -> Any:
        """Compute."""
        for a in args:
            if type(a) is np.ndarray and a.size >= self.least:
                break
        else:
            device = self.device
            if device is not None:
                for a in args:
                    if type(a) is device.array:
                        return device(*args, **attrs)
            return self.slow(*args, **attrs)
        if self._fast is None:
            if not available():
                return self.slow(*args, **attrs)
            from .eager import FastKernel

            self._fast = FastKernel(self.op, self.slow, OPEN.get(self.op, ()))
        return self._fast(*args, **attrs)


def accelerate() -> None:
    """Give the heavy ops their eager kernels."""
    for op in (*HEAVY, *OPEN):
        if op.array_kernel is not None:
            op.eager_kernel = EagerKernel(op, op.array_kernel)
