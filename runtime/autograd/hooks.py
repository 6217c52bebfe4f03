"""The handle that registering a hook returns."""

from __future__ import annotations

import itertools
import weakref
from collections import OrderedDict
from typing import Any

_numbers = itertools.count()


class Hooks(OrderedDict[int, Any]):
    """Functions by their handle's number, in the order in which they are called."""


class RemovableHandle:
    """Takes a hook away again, by `remove()` or at the end of a `with` block.

    Args:
        hooks_dict: where the hook is put under this handle's `id`. It is not kept alive.
        extra_dict: one more such dict, or a list of them, that may hold the same number.

    Attributes:
        id: the number, which no other handle has.
    """

    def __init__(self, hooks_dict: OrderedDict[int, Any], *, extra_dict: Any = None) -> None:
        self.id: int = next(_numbers)
        extra = [] if extra_dict is None else extra_dict if isinstance(extra_dict, list) else [extra_dict]
        self._dicts = [weakref.ref(d) for d in (hooks_dict, *extra)]

    def remove(self) -> None:
        """Take the hook away; doing so twice, or after its owner is gone, is no error."""
        for reference in self._dicts:
            hooks = reference()
            if hooks is not None:
                hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        """Return the handle."""
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Take the hook away."""
        self.remove()
