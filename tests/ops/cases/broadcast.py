"""Broadcasting and its adjoint: the rows of the op table."""

from __future__ import annotations

import numpy as np

from onnxgrad.ops.broadcast import broadcast_to, sum_to

from ..case import OpCase, rand

CASES = [
    OpCase(sum_to, (rand(2, 3, 4),), lambda x: x.sum(0).sum(1, keepdims=True), {"shape": (3, 1)}),
    OpCase(sum_to, (rand(2, 3),), lambda x: x, {"shape": (2, 3)}),
    OpCase(sum_to, (rand(2, 3),), lambda x: np.array(x.sum()), {"shape": ()}),
    OpCase(broadcast_to, (rand(3, 1),), lambda x: np.stack([np.hstack([x] * 4)] * 2), {"shape": (2, 3, 4)}),
    OpCase(broadcast_to, (rand(),), lambda x: np.full((2, 2), float(x)), {"shape": (2, 2)}),
]
