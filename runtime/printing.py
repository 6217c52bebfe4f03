"""How a Tensor prints: PyTorch's format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..ops.types import is_float

if TYPE_CHECKING:
    from .tensor import Tensor

EDGE = 3
"""Of a large Tensor, so many entries are shown at each end of an axis."""
LARGE = 1000


def show(t: Tensor) -> str:
    """Return a Tensor as PyTorch prints it."""
    array = t._array.get() if hasattr(t._array, "get") else t._array
    tail = ""
    if t.device != "cpu":
        tail += f", device='{t.device}'"
    if not array.size and array.shape != (0,):
        tail += f", size={array.shape}"
    if array.dtype not in (np.dtype(np.float32), np.dtype(np.int64), np.dtype(bool)):
        tail += f", dtype={array.dtype}"
    if t.grad_fn is not None:
        tail += f", grad_fn=<{t.grad_fn.name}>"
    elif t.requires_grad:
        tail += ", requires_grad=True"
    return f"tensor({_body(array)}{tail})"


def _body(array: Any) -> str:
    if array.dtype == object:
        return str(array.tolist())
    if not array.size:
        return "[]"
    floats = is_float(array.dtype)
    numbers = array.astype(np.float64) if floats else array
    seen = _ends(numbers).reshape(-1)
    texts = [_float_format(seen)(v) if floats else str(v) for v in seen.tolist()]
    width = max(map(len, texts))
    one = _float_format(seen) if floats else str
    if array.ndim == 0:
        return one(numbers.item())
    return _rows(numbers, lambda v: one(v).rjust(width), 8, array.size > LARGE)


def _ends(array: Any) -> Any:
    """Return what of the array is shown."""
    if array.size > LARGE:
        for axis, n in enumerate(array.shape):
            if n > 2 * EDGE:
                array = array.take([*range(EDGE), *range(n - EDGE, n)], axis=axis)
    return array


def _float_format(seen: Any) -> Any:
    finite = np.abs(seen[np.isfinite(seen) & (seen != 0)])
    if not finite.size:
        return lambda v: f"{v:.0f}." if np.isfinite(v) else str(v)
    small, large = finite.min(), finite.max()
    whole = bool((finite == np.ceil(finite)).all())
    if large / small > 1000 or large > 1e8 or (not whole and small < 1e-4):
        return lambda v: f"{v:.4e}" if np.isfinite(v) else str(v)
    return lambda v: (f"{v:.0f}." if whole else f"{v:.4f}") if np.isfinite(v) else str(v)


def _rows(array: Any, one: Any, indent: int, short: bool) -> str:
    n = array.shape[0]
    chosen = [*range(EDGE), None, *range(n - EDGE, n)] if short and n > 2 * EDGE else [*range(n)]
    if array.ndim == 1:
        parts = [" ..." if i is None else one(array[i].item()) for i in chosen]
        per_line = max(1, (81 - indent) // (len(parts[0]) + 2))
        lines = [", ".join(parts[k : k + per_line]) for k in range(0, len(parts), per_line)]
        return f"[{(',' + chr(10) + ' ' * indent).join(lines)}]"
    parts = ["..." if i is None else _rows(array[i], one, indent + 1, short) for i in chosen]
    gap = "," + "\n" * (array.ndim - 1) + " " * indent
    return f"[{gap.join(parts)}]"
