"""Compiled kernels for eager calls: heavy ops on large arrays run a program of one op, kept for each signature."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ops import attention, conv, matmul, normalize, pool
from ..ops.kernels.cpu.target import available
from ..ops.op import Kernel, Op

LARGE = 1 << 17
"""Ops over fewer elements than this cost less than compiling them."""

HEAVY: tuple[Op, ...] = (
    conv.conv, conv.conv_input_grad, conv.conv_weight_grad, matmul.matmul, attention.attention,
    attention.attention_grad, pool.max_pool, normalize.batch_norm_train, normalize.layer_norm, normalize.softmax,
)  # fmt: skip


class EagerKernel:
    """An op's array kernel, or its compiled one where the arrays are large."""

    def __init__(self, op: Op, slow: Kernel) -> None:
        """Wrap an op."""
        self.op, self.slow = op, slow
        self._fast: Kernel | None = None

    def __call__(self, *args: Any, **attrs: Any) -> Any:
        """Compute."""
        for a in args:
            if type(a) is np.ndarray and a.size >= LARGE:
                break
        else:
            return self.slow(*args, **attrs)
        if self._fast is None:
            if not available():
                return self.slow(*args, **attrs)
            from .compiled.eager import FastKernel

            self._fast = FastKernel(self.op, self.slow)
        return self._fast(*args, **attrs)


def accelerate() -> None:
    """Give the heavy ops their eager kernels."""
    for op in HEAVY:
        if op.array_kernel is not None:
            op.eager_kernel = EagerKernel(op, op.array_kernel)
