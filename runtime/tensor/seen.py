"""Which Tensors have changed since an engine last read them."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from .exposed import is_exposed
from .stored import StoredTensor


class Seen:
    """The arrays and versions that an engine has read, by the names of its weights."""

    def __init__(self) -> None:
        """Begin with nothing read."""
        self._of: dict[str, tuple[weakref.ref[Any], int]] = {}

    def changed(self, tensors: Mapping[str, Any]) -> set[str]:
        """Return the names of those that are new, hold another array or version, or that somebody else may write to."""
        return {name for name, t in tensors.items() if self._has_changed(name, t)}

    def forget(self) -> None:
        """Let everything have changed."""
        self._of.clear()

    def _has_changed(self, name: str, tensor: Any) -> bool:
        seen, version = self._of.get(name), tensor._version
        if isinstance(tensor, StoredTensor):
            self._of[name] = (weakref.ref(tensor.stored), version)
            return seen is None or seen[0]() is not tensor.stored
        if seen is None or seen[0]() is not tensor._array or seen[1] != version:
            self._of[name] = (weakref.ref(tensor._array), version)
            return True
        return is_exposed(tensor._array)
