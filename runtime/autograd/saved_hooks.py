"""Hooks on what nodes keep for backward: packed when it is saved, unpacked when backward asks for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ...ops.errors import AutogradError
from ..tensor.tensor import Tensor, wrap
from .grad_mode import MODE, no_grad
from .saved import Saved, SavedOutput, count_special

if TYPE_CHECKING:
    from .node import Node

Pack = Callable[[Tensor], Any]
Unpack = Callable[[Any], Tensor]


class _Refusal(threading.local):
    message: str | None = None


_REFUSAL = _Refusal()


class saved_tensors_hooks:  # noqa: N801 - PyTorch's name
    """In a `with` block, nodes keep `pack_hook(tensor)` in the place of a Tensor; of nested blocks the inner counts.

    Args:
        pack_hook: gets a Tensor that a node keeps, and returns anything; it must not change the Tensor.
        unpack_hook: gets that, and returns a Tensor of the same shape, element type and values.
    """

    def __init__(self, pack_hook: Pack, unpack_hook: Unpack) -> None:
        """Keep the hooks."""
        self.pack_hook, self.unpack_hook = pack_hook, unpack_hook
        self._before: list[Any] = []

    def __enter__(self) -> None:
        """Begin.

        Raises:
            AutogradError: inside `disable_saved_tensors_hooks`.
        """
        if _REFUSAL.message is not None:
            raise AutogradError(_REFUSAL.message)
        self._before.append(MODE.keeper)
        MODE.keeper = _Keeper(self.pack_hook, self.unpack_hook)
        count_special(1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        MODE.keeper = self._before.pop()
        count_special(-1)


class save_on_cpu(saved_tensors_hooks):  # noqa: N801 - PyTorch's name
    """In a `with` block, what nodes keep lies on the CPU until backward wants it, then where it was.

    Args:
        pin_memory: taken and ignored.
        device_type: taken and ignored.
    """

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda") -> None:
        """Make the hooks."""
        super().__init__(lambda t: (t.device, t.cpu()), lambda kept: kept[1].to(device=kept[0]))


@contextmanager
def disable_saved_tensors_hooks(error_message: str) -> Iterator[None]:
    """Make `saved_tensors_hooks` an error with this message for the time of a `with` block."""
    before, _REFUSAL.message = _REFUSAL.message, error_message
    try:
        yield
    finally:
        _REFUSAL.message = before


class _Keeper:
    def __init__(self, pack: Pack, unpack: Unpack) -> None:
        self.pack, self.unpack = pack, unpack

    def save(self, tensor: Tensor) -> Saved:
        return Saved(tensor) if MODE.trace is not None else _Packed(self, tensor)

    def save_output(self, tensor: Tensor, index: int) -> SavedOutput:
        return SavedOutput(tensor, index) if MODE.trace is not None else _PackedOutput(self, tensor, index)

    def packed(self, tensor: Tensor) -> Any:
        before, MODE.keeper = MODE.keeper, None
        version = tensor._version
        try:
            with no_grad():
                found = self.pack(tensor)
        finally:
            MODE.keeper = before
        if tensor._version != version:
            raise AutogradError("A saved tensor pack hook is modifying its input in place; it must not.")
        return found

    def unpacked(self, kept: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        with no_grad():
            found = self.unpack(kept)
        if not isinstance(found, Tensor):
            raise TypeError(
                f"Output of saved tensor unpack_hook expected to be a Tensor but got {type(found).__name__}"
            )
        if (found.shape, found.dtype) != (shape, dtype):
            raise AutogradError(
                f"the unpack hook returned {found.dtype}{list(found.shape)} for a saved tensor of {dtype}{list(shape)}"
            )
        return found._array


class _Packed(Saved):
    """Stands for an argument."""

    __slots__ = ("dtype", "edge", "keeper", "kept", "shape")

    def __init__(self, keeper: _Keeper, tensor: Tensor) -> None:
        self.keeper, self.kept = keeper, keeper.packed(tensor)
        self.shape, self.dtype = tensor.shape, tensor.dtype
        self.edge = tensor._grad_edge() if tensor.requires_grad else None

    def unpack(self, node: Node | None, recorded: bool) -> Any:
        """Return what the unpack hook makes: a Tensor with its past where what follows is recorded, else an array."""
        array = self.keeper.unpacked(self.kept, self.shape, self.dtype)
        if not recorded:
            return array
        tensor = wrap(array)
        tensor.requires_grad, tensor._edge = self.edge is not None, self.edge
        return tensor


class _PackedOutput(SavedOutput):
    """Stands for an output."""

    __slots__ = ("dtype", "keeper", "kept", "shape")

    def __init__(self, keeper: _Keeper, tensor: Tensor, index: int) -> None:
        self.keeper, self.index = keeper, index
        self.shape, self.dtype = tensor.shape, tensor.dtype
        self.kept = keeper.packed(tensor.detach())

    def unpack(self, node: Node | None, recorded: bool) -> Any:
        """Return what the unpack hook makes: the node's output where what follows is recorded, else an array."""
        array = self.keeper.unpacked(self.kept, self.shape, self.dtype)
        return self.tied(wrap(array), node) if recorded else array
