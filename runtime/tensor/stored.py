"""Weights that stay in their file until somebody wants them.

A model that only runs needs its weights once, to pack them. A Tensor of stored weights therefore has no array at first:
packing reads the file's pages as they lie in the system's cache, and whoever asks for the array has it read then.

The file stays open, so it may be replaced or deleted meanwhile. What is written *into* it is noticed and refused.
"""

from __future__ import annotations

import math
import mmap
import os
import sys
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops.errors import LoadError
from ...ops.types import Array
from ..autograd.grad_mode import MODE
from .device import CPU, device
from .size import Size
from .tensor import Tensor, changes

if TYPE_CHECKING:
    from collections.abc import Sequence

SUPPORTED = os.name == "posix" and sys.byteorder == "little"
"""Whether weights may stay in files: an open file can be replaced, and its bytes are those of arrays."""


class StoredFile:
    """An open file that arrays are read from.

    Attributes:
        path: where it was opened.
        size: in bytes.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open it."""
        self.path = Path(path)
        self._handle = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        weakref.finalize(self, os.close, self._handle)
        self._stamp = self._now()
        self.size = self._stamp[0]
        self._mapping: weakref.ref[mmap.mmap] | None = None
        self._lock = threading.Lock()

    def _now(self) -> tuple[int, int]:
        status = os.fstat(self._handle)
        return status.st_size, status.st_mtime_ns

    def _check(self) -> None:
        if self._now() != self._stamp:
            raise LoadError(
                f"{self.path} was written into while a model of it was in use, before all its weights were read; "
                "replace a model's file instead (onnxgrad.save does), or load the model from its bytes (load_bytes)"
            )

    def mapped(self) -> mmap.mmap:
        """Return the file's bytes, read-only, in memory as long as somebody holds them.

        Raises:
            LoadError: if somebody wrote into the file since it was opened.
        """
        self._check()
        with self._lock:
            found = None if self._mapping is None else self._mapping()
            if found is None:
                found = mmap.mmap(self._handle, self.size, access=mmap.ACCESS_READ)
                self._mapping = weakref.ref(found)
            return found

    def release(self) -> None:
        """Let go of the memory of pages that were looked at; they are there again when they are looked at again."""
        found = None if self._mapping is None else self._mapping()
        if found is not None:
            found.madvise(mmap.MADV_DONTNEED)

    def read_into(self, out: Array, offset: int) -> None:
        """Fill an array of bytes from an offset on.

        Raises:
            LoadError: as `mapped`.
        """
        self._check()
        view = memoryview(out)
        while len(view):
            count = os.preadv(self._handle, [view], offset)
            if not count:
                raise LoadError(f"{self.path} ends at byte {offset}")
            view, offset = view[count:], offset + count

    def __deepcopy__(self, memo: Any) -> StoredFile:
        """Return itself: nothing changes it."""
        return self


class StoredArray:
    """An array that lies in a file.

    Args:
        file: which.
        offset: of its first byte.
        stored: the element type in the file.
        shape: its sizes.
        dtype: the element type that is wanted of it; the file's by default.

    Attributes:
        seen: whether anybody has looked at its elements.

    Raises:
        LoadError: if the file is shorter.
    """

    def __init__(self, file: StoredFile, offset: int, stored: Any, shape: Sequence[int], dtype: Any = None) -> None:
        """Describe it; see the class for the arguments."""
        self.file, self.offset, self.stored, self.shape = file, offset, np.dtype(stored), tuple(map(int, shape))
        self.dtype = np.dtype(dtype or stored)
        self.size, self.ndim = math.prod(self.shape), len(self.shape)
        self.nbytes = self.size * self.dtype.itemsize
        self.seen = False
        if offset + self.size * self.stored.itemsize > file.size:
            raise LoadError(f"{file.path} ends before byte {offset + self.size * self.stored.itemsize}")

    def astype(self, dtype: Any) -> StoredArray:
        """Return the same with another element type."""
        return StoredArray(self.file, self.offset, self.stored, self.shape, dtype)

    def lying(self) -> Array:
        """Return it read-only as it lies in the file, perhaps at an odd address; converted, where that is wanted."""
        self.seen = True
        found: Array = np.ndarray(self.shape, self.stored, buffer=self.file.mapped(), offset=self.offset)
        return found if self.stored == self.dtype else found.astype(self.dtype)

    def read(self) -> Array:
        """Return it as an array of its own."""
        self.seen = True
        out: Array = np.empty(self.shape, self.stored)
        if out.size:
            self.file.read_into(out.reshape(-1).view(np.uint8), self.offset)
        return out if self.stored == self.dtype else out.astype(self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return it as an array of its own."""
        return self.read() if dtype is None else self.read().astype(dtype, copy=False)

    def __deepcopy__(self, memo: Any) -> StoredArray:
        """Return itself: nothing changes it."""
        return self

    def __reduce__(self) -> Any:
        """Pickle as an array."""
        return np.asarray, (self.read(),)


def lying(array: Array | StoredArray) -> Array:
    """Return an array to look at, wherever it lies."""
    return array.lying() if isinstance(array, StoredArray) else array


_reading = threading.Lock()


class StoredTensor(Tensor):
    """A Tensor whose array is read when somebody asks for it; it is a plain Tensor then.

    Attributes:
        stored: where the array lies.
    """

    stored: StoredArray

    def __init__(self, stored: StoredArray, requires_grad: bool = False) -> None:
        """Refer to a stored array."""
        self.stored, self.requires_grad = stored, requires_grad

    @property
    def _array(self) -> Array:
        with _reading:
            if "_array" not in self.__dict__:
                self._become(self.stored.read())
            return self.__dict__["_array"]

    @_array.setter
    def _array(self, array: Array) -> None:
        with _reading:
            self._become(array)

    def _become(self, array: Array) -> None:
        self.__dict__["_array"] = array
        self.__dict__.pop("stored", None)
        self.__class__ = Tensor  # type: ignore[assignment]
        changes[0] += 1

    @property
    def shape(self) -> Size:
        """The sizes."""
        return Size(self._known.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type."""
        return self._known.dtype  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        """The rank."""
        return self._known.ndim  # type: ignore[no-any-return]

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        return self._known.nbytes  # type: ignore[no-any-return]

    @property
    def device(self) -> device:
        """Where it lies: `cpu`."""
        return CPU

    @property
    def _known(self) -> Any:
        """What knows the type: another thread may be reading the array."""
        stored = self.__dict__.get("stored")
        return self.__dict__["_array"] if stored is None else stored

    def numel(self) -> int:
        """Return the number of elements."""
        return self._known.size  # type: ignore[no-any-return]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copy and pickle as the plain Tensor."""
        assert self._array is not None
        return Tensor.__reduce_ex__(self, protocol)


def tensor_of(array: Array | StoredArray, requires_grad: bool) -> Tensor:
    """Return a Tensor of an array, stored where it lies in a file."""
    if isinstance(array, StoredArray):
        if MODE.trace is None:
            return StoredTensor(array, requires_grad)
        array = array.read()
    return Tensor(array, requires_grad=requires_grad)
