"""Emitters: dropout in evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ops import dropout as ops
from ....runtime.graph.graph import Value
from .registry import emits
from .writer import Writer


@emits(ops.dropout)
def dropout(w: Writer, x: Value, *, ratio: float) -> Any:
    return w.add("Dropout", x, w.number(ratio, np.float32))
