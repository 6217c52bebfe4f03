"""Methods by which other libraries see a Tensor's memory without a copy: DLPack and CUDA's array interface."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from ....ops.errors import AutogradError
from ..capsules import BFLOAT, UINT, recoded
from ..exposed import expose


class Exchanging:
    """What other array libraries ask for."""

    _array: Any

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Return a capsule by which another library shares the memory.

        Args:
            stream: that the other library works in; the work that there is on a CUDA device is ordered before it.
            max_version: of the protocol, that the other library knows.
            dl_device: the device that is wanted.
            copy: whether the memory is another.

        Raises:
            AutogradError: if it requires a gradient, which the other library would not know of; `detach()` first.
            BufferError: of an element type that the protocol does not know.
        """
        self._shareable("__dlpack__()")
        if isinstance(stream, int) and not hasattr(self._array, "get"):
            stream = None
        expose(self._array)
        given: dict[str, Any] = {"stream": stream, "max_version": max_version, "dl_device": dl_device, "copy": copy}
        if isinstance(self._array, np.ndarray) and self._array.dtype == ml_dtypes.bfloat16:
            capsule = self._array.view(np.uint16).__dlpack__(**given)
            recoded(capsule, UINT, BFLOAT)
            return capsule
        return self._array.__dlpack__(**given)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return DLPack's kind of the device (1: the CPU, 2: CUDA) and its number."""
        kind, number = self._array.__dlpack_device__()
        return int(kind), int(number)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """The memory on a CUDA device, as other libraries describe it.

        Raises:
            AttributeError: on the CPU.
            AutogradError: if it requires a gradient.
        """
        if not hasattr(self._array, "__cuda_array_interface__"):
            raise AttributeError("Can't get __cuda_array_interface__ on a Tensor that lies on the CPU")
        self._shareable("__cuda_array_interface__")
        return self._array.__cuda_array_interface__  # type: ignore[no-any-return]

    def _shareable(self, what: str) -> None:
        me: Any = self
        if me.requires_grad:
            raise AutogradError(f"{what} of a Tensor that requires a gradient: share tensor.detach() instead")
        me._readable(what)
