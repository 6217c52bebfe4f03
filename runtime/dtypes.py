"""Element types by PyTorch's names; each is a NumPy dtype."""

from __future__ import annotations

import numpy as np

from ..ops.types import BFLOAT16

float64 = double = np.dtype(np.float64)
float32 = float = np.dtype(np.float32)
float16 = half = np.dtype(np.float16)
bfloat16 = BFLOAT16
int64 = long = np.dtype(np.int64)
int32 = int = np.dtype(np.int32)
int16 = short = np.dtype(np.int16)
int8 = np.dtype(np.int8)
uint64 = np.dtype(np.uint64)
uint32 = np.dtype(np.uint32)
uint16 = np.dtype(np.uint16)
uint8 = np.dtype(np.uint8)
bool = np.dtype(np.bool_)
