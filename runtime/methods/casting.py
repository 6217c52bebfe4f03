"""Methods that change element type or device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops.pointwise import cast

if TYPE_CHECKING:
    from ..tensor import Tensor


class Casting:
    """Element types and devices."""

    _array: Any

    def to(self, *targets: Any, dtype: Any = None, device: Any = None, copy: bool = False) -> Tensor:
        """Return the Tensor as another element type, on another device, or as another Tensor is; itself if it is so.

        Args:
            targets: element types (`"float16"`, `og.float16`), devices (`"cpu"`, `"cuda:0"`), or a Tensor.
            dtype: the element type.
            device: the device.
            copy: return a new Tensor even where nothing changes.
        """
        from ..device import device_of, to_device

        for target in targets:
            if hasattr(target, "_array"):
                dtype, device = target.dtype, device_of(target._array)
            elif isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda"):
                device = target
            elif target is not None:
                dtype = target
        me: Any = self
        out = me
        if device is not None and str(device) != device_of(self._array):
            out = to_device(out, str(device))
        if dtype is not None and np.dtype(dtype) != out.dtype:
            out = cast(out, dtype=str(np.dtype(dtype)))
        return me.clone() if copy and out is me else out  # type: ignore[no-any-return]

    def type(self, dtype: Any = None) -> Any:
        """Return the Tensor as another element type; without one, return the name of its own."""
        return str(self._array.dtype) if dtype is None else self.to(dtype=dtype)

    def type_as(self, other: Tensor) -> Tensor:
        """Return the Tensor as the element type of another."""
        return self.to(dtype=other.dtype)

    def cpu(self) -> Tensor:
        """Return it on the CPU."""
        return self.to(device="cpu")

    def cuda(self, index: Any = 0) -> Tensor:
        """Return it on a CUDA device."""
        return self.to(device=index if isinstance(index, str) else f"cuda:{index or 0}")

    def half(self) -> Tensor:
        """Return it as float16."""
        return self.to(dtype="float16")

    def bfloat16(self) -> Tensor:
        """Return it as bfloat16."""
        return self.to(dtype="bfloat16")

    def double(self) -> Tensor:
        """Return it as float64."""
        return self.to(dtype="float64")

    def long(self) -> Tensor:
        """Return it as int64."""
        return self.to(dtype="int64")

    def float(self) -> Tensor:
        """Return it as float32."""
        return self.to(dtype="float32")

    def int(self) -> Tensor:
        """Return it as int32."""
        return self.to(dtype="int32")

    def bool(self) -> Tensor:
        """Return it as truth values."""
        return self.to(dtype="bool")
