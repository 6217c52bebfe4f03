"""Methods that say what a Tensor is, and how it lies in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ....ops.errors import OpError
from ....ops.types import is_float

if TYPE_CHECKING:
    from ..tensor import Tensor


class Storage:
    """The memory that a Tensor and its views share."""

    def __init__(self, tensor: Any) -> None:
        """Look at a Tensor's memory."""
        array = tensor._array
        while getattr(array.base, "dtype", None) is not None:
            array = array.base
        self._array = array

    def data_ptr(self) -> int:
        """Return the address of the first byte."""
        a = self._array
        return a.data.ptr if hasattr(a.data, "ptr") else a.ctypes.data  # type: ignore[no-any-return]

    def nbytes(self) -> int:
        """Return the size in bytes."""
        return self._array.nbytes  # type: ignore[no-any-return]

    def size(self) -> int:
        """Return the number of elements."""
        return self._array.size  # type: ignore[no-any-return]

    def tolist(self) -> list[Any]:
        """Return the elements in the order of memory."""
        return self._array.ravel(order="K").tolist()  # type: ignore[no-any-return]

    __len__ = size

    def __getitem__(self, index: int) -> Any:
        """Return one element, counted in the order of memory."""
        return self._array.ravel(order="K")[index].item()


class Describing:
    """What a Tensor is."""

    _array: Any

    @property
    def itemsize(self) -> int:
        """The bytes of an element."""
        return self._array.dtype.itemsize  # type: ignore[no-any-return]

    @property
    def is_cuda(self) -> bool:
        """Whether it lies on a CUDA device."""
        return self.device.type == "cuda"  # type: ignore[attr-defined, no-any-return]

    @property
    def is_cpu(self) -> bool:
        """Whether it lies on the CPU."""
        return self.device.type == "cpu"  # type: ignore[attr-defined, no-any-return]

    @property
    def is_sparse(self) -> bool:
        """False: every Tensor is dense."""
        return False

    @property
    def is_quantized(self) -> bool:
        """False: quantized numbers are integers beside their scale."""
        return False

    @property
    def is_meta(self) -> bool:
        """False: every Tensor has elements."""
        return False

    @property
    def real(self) -> Tensor:
        """Itself: numbers are real."""
        return self  # type: ignore[return-value]

    def conj(self) -> Tensor:
        """Return itself: real numbers are their own conjugates."""
        return self  # type: ignore[return-value]

    def nelement(self) -> int:
        """Return the number of elements."""
        return self.numel()  # type: ignore[attr-defined, no-any-return]

    def ndimension(self) -> int:
        """Return the rank."""
        return self._array.ndim  # type: ignore[no-any-return]

    def is_complex(self) -> bool:
        """Return False: numbers are real."""
        return False

    def is_signed(self) -> bool:
        """Return whether the element type has negative numbers."""
        return self._array.dtype.kind not in "ub"

    def is_nonzero(self) -> bool:
        """Return whether the only element is not 0.

        Raises:
            OpError: unless there is one element.
        """
        n = self.numel()  # type: ignore[attr-defined]
        if n != 1:
            many = "no values" if n == 0 else "more than one value"
            raise OpError(f"Boolean value of Tensor with {many} is ambiguous")
        return bool(self)

    def is_same_size(self, other: Tensor) -> bool:
        """Return whether another has the same shape."""
        return tuple(self._array.shape) == tuple(other.shape)

    def is_inference(self) -> bool:
        """Return False: what is made in inference mode can be recorded afterwards."""
        return False

    def is_pinned(self, device: Any = None) -> bool:
        """Return whether it lies in page-locked memory, which a CUDA device copies without waiting for the CPU."""
        from ....ops.kernels.array.transfer import is_pinned

        return is_pinned(self._array)

    def is_shared(self) -> bool:
        """Return False: memory is not shared between processes here."""
        return False

    def get_device(self) -> int:
        """Return the number of the CUDA device, -1 on the CPU."""
        index = self.device.index  # type: ignore[attr-defined]
        return -1 if index is None else int(index)

    def stride(self, dim: int | None = None) -> Any:
        """Return how many elements lie between neighbours, along every axis or one."""
        from .axes import place

        size = self._array.dtype.itemsize
        steps = tuple(s // size for s in self._array.strides)
        return steps if dim is None else steps[place(dim, len(steps))]

    def storage_offset(self) -> int:
        """Return how many elements lie before the first, in the memory that views share."""
        first = self.data_ptr()  # type: ignore[attr-defined]
        return (first - Storage(self).data_ptr()) // self._array.dtype.itemsize  # type: ignore[no-any-return]

    def untyped_storage(self) -> Storage:
        """Return the memory that it and its views share."""
        return Storage(self)

    storage = untyped_storage

    def pin_memory(self, device: Any = None) -> Tensor:
        """Return a copy in page-locked memory, itself where it lies there or where there is no CUDA device.

        Raises:
            DeviceError: on a CUDA device.
        """
        from ...cuda.pinned import pin

        return pin(self)  # type: ignore[arg-type]

    def share_memory_(self) -> Tensor:
        """Return itself: data loaders work in threads, which share memory anyway."""
        return self  # type: ignore[return-value]


def is_floating_point(input: Any) -> bool:
    """Return whether the elements are floats."""
    return is_float(input.dtype)
