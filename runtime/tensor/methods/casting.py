"""Methods that change element type or device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ....ops.errors import InputError
from ....ops.pointwise import cast

if TYPE_CHECKING:
    from ..tensor import Tensor

TYPES = {
    "float32": "FloatTensor", "float64": "DoubleTensor", "float16": "HalfTensor", "bfloat16": "BFloat16Tensor",
    "int64": "LongTensor", "int32": "IntTensor", "int16": "ShortTensor", "int8": "CharTensor", "uint8": "ByteTensor",
    "bool": "BoolTensor",
}  # fmt: skip
"""PyTorch's names of Tensors of an element type."""


class Casting:
    """Element types and devices."""

    _array: Any

    def to(
        self,
        *targets: Any,
        dtype: Any = None,
        device: Any = None,
        non_blocking: bool = False,
        copy: bool = False,
        memory_format: Any = None,
        other: Any = None,
    ) -> Tensor:
        """Return the Tensor as another element type, on another device, or as another Tensor is; itself if it is so.

        Args:
            targets: element types (`"float16"`, `og.float16`), devices (`"cpu"`, `"cuda:0"`), or a Tensor; then
                `non_blocking` and `copy`, as PyTorch takes them.
            dtype: the element type.
            device: the device; a number is a CUDA device.
            non_blocking: return before a copy between the CPU and a CUDA device is done. The CPU has to wait for one to
                it (`cuda.synchronize()`), and must not change what is pinned (`pin_memory()`) before it is copied.
            copy: return a new Tensor even where nothing changes.
            memory_format: taken and ignored: Tensors are row-major.
            other: a Tensor whose element type and device to take.

        Raises:
            InputError: for what is neither a device nor an element type.
        """
        from ..device import device_of, element_type, named, to_device

        flags: list[bool] = []
        for target in (*targets, other):
            if hasattr(target, "_array"):
                dtype, device = target.dtype, device_of(target._array)
            elif isinstance(target, bool):
                flags.append(target)
            elif named(target) or isinstance(target, int):
                device = target
            elif target is not None:
                dtype = target
        copy = copy or (len(flags) > 1 and flags[1])
        non_blocking = non_blocking or (len(flags) > 0 and flags[0])
        me: Any = self
        out = me
        if device is not None and device != me.device:
            out = to_device(out, device, not non_blocking)
        if dtype is not None and (wanted := element_type(dtype)) != out.dtype:
            out = cast(out, dtype=str(wanted))
        return me.clone() if copy and out is me else out  # type: ignore[no-any-return]

    def type(self, dtype: Any = None, non_blocking: bool = False) -> Any:
        """Return the Tensor as another element type; without one, PyTorch's name of its own: `torch.FloatTensor`.

        Raises:
            InputError: for a name that there is not.
        """
        if dtype is None:
            home = "torch.cuda." if self.is_cuda else "torch."  # type: ignore[attr-defined]
            return home + TYPES.get(str(self._array.dtype), f"{self._array.dtype}")
        if isinstance(dtype, str) and dtype.startswith("torch."):
            name = dtype.rpartition(".")[2]
            known = {v: k for k, v in TYPES.items()}
            if name not in known:
                raise InputError(f"invalid type: '{dtype}'")
            return self.to(known[name], device="cuda" if ".cuda." in dtype else "cpu")
        return self.to(dtype=getattr(dtype, "element", dtype))

    def type_as(self, other: Tensor) -> Tensor:
        """Return the Tensor as the element type, and on the device, of another."""
        return self.to(other)

    def cpu(self, memory_format: Any = None) -> Tensor:
        """Return it on the CPU."""
        return self.to(device="cpu")

    def cuda(self, device: Any = None, non_blocking: bool = False, memory_format: Any = None) -> Tensor:
        """Return it on a CUDA device: a number or a name, the current one by default."""
        return self.to(device="cuda" if device is None else device, non_blocking=non_blocking)

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

    def short(self) -> Tensor:
        """Return it as int16."""
        return self.to(dtype="int16")

    def char(self) -> Tensor:
        """Return it as int8."""
        return self.to(dtype="int8")

    def byte(self) -> Tensor:
        """Return it as uint8."""
        return self.to(dtype="uint8")

    def float(self) -> Tensor:
        """Return it as float32."""
        return self.to(dtype="float32")

    def int(self) -> Tensor:
        """Return it as int32."""
        return self.to(dtype="int32")

    def bool(self) -> Tensor:
        """Return it as truth values."""
        return self.to(dtype="bool")
