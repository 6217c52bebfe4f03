"""Modules that hold parameters, and whatever else is put into them."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator, KeysView, Mapping
from typing import Any

from ....ops.errors import ModuleError
from ...tensor.tensor import Tensor
from ..module import Module, Parameter
from ..module_attributes import typename


def pairs(method: str, name: str, given: Any) -> list[tuple[str, Any]]:
    """Return the (name, value) pairs that a dictionary is updated with.

    Args:
        method: what was called, for messages.
        name: of the class, for messages.
        given: a mapping, something with `items()`, or the pairs.

    Raises:
        TypeError: if it is none.
        ValueError: if an element is no pair.
    """
    if not isinstance(given, Iterable):
        raise TypeError(
            f"{method} should be called with an iterable of key/value pairs, but got {type(given).__name__}"
        )
    if isinstance(given, Mapping | Module):
        return [*given.items()]
    found = []
    for i, pair in enumerate(given):
        if not isinstance(pair, Iterable):
            raise TypeError(f"{name} update sequence element #{i} should be Iterable; is{type(pair).__name__}")
        entries = [*pair]
        if len(entries) != 2:
            raise ValueError(f"{name} update sequence element #{i} has length {len(entries)}; 2 is required")
        found.append((entries[0], entries[1]))
    return found


def _parameter(value: Any) -> Any:
    """Return a Tensor as a Parameter; anything else as it is."""
    return Parameter(value) if isinstance(value, Tensor) and not isinstance(value, Parameter) else value


def _line(key: Any, value: Any, kind: str) -> str:
    """Return what the repr says of an entry."""
    if not isinstance(value, Tensor):
        return f"  ({key}): Object of type: {type(value).__name__}"
    size = "x".join(map(str, value.shape))
    place = "" if value.device == "cpu" else f" ({value.device})"
    what = "Parameter" if isinstance(value, Parameter) else "Tensor"
    return f"  ({key}): {what} containing: [{kind} of size {size}{place}]"


class ParameterList(Module):
    """A list of parameters, which are registered. Tensors become parameters; other values are kept as they are.

    Args:
        values: what it starts with.
    """

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        super().__init__()
        self._size = 0
        if values is not None:
            self.extend(values)

    def _key(self, index: Any) -> str:
        place = operator.index(index)
        if not -len(self) <= place < len(self):
            raise IndexError(f"index {place} is out of range")
        return str(place % len(self))

    def __getitem__(self, index: Any) -> Any:
        """Return an entry by place, or a list of the entries of a slice."""
        if isinstance(index, slice):
            return type(self)([*self][index])
        return getattr(self, self._key(index))

    def __setitem__(self, index: int, value: Any) -> None:
        """Replace an entry."""
        setattr(self, self._key(index), _parameter(value))

    def __len__(self) -> int:
        """Return the number of entries."""
        return self._size

    def __iter__(self) -> Iterator[Any]:
        """Yield the entries."""
        return (self[i] for i in range(len(self)))

    def __iadd__(self, values: Iterable[Any]) -> ParameterList:
        """Add entries at the end."""
        return self.extend(values)

    def append(self, value: Any) -> ParameterList:
        """Add an entry at the end, and return the list."""
        self._size += 1
        self[self._size - 1] = value
        return self

    def extend(self, values: Iterable[Any]) -> ParameterList:
        """Add entries at the end, and return the list."""
        if not isinstance(values, Iterable) or isinstance(values, Tensor):
            raise TypeError(f"ParameterList.extend should be called with an iterable, but got {type(values).__name__}")
        for value in [*values]:
            self.append(value)
        return self

    def extra_repr(self) -> str:
        """Return the entries."""
        return "\n".join(_line(i, v, f"torch.{getattr(v, 'dtype', '')}") for i, v in enumerate(self))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse."""
        raise ModuleError("ParameterList should not be called.")


class ParameterDict(Module):
    """A dictionary of parameters, which are registered. Tensors become parameters; other values are kept as they are.

    Args:
        parameters: what it starts with: a mapping, or (name, value) pairs.
    """

    def __init__(self, parameters: Any = None) -> None:
        super().__init__()
        self._keys: dict[str, None] = {}
        if parameters is not None:
            self.update(parameters)

    def _checked(self, key: Any) -> str:
        if not isinstance(key, str):
            raise TypeError(
                "Index given to ParameterDict cannot be used as a key as it is not a string (type is "
                f"'{type(key).__name__}'). Open an issue on github if you need non-string keys."
            )
        return key

    def __getitem__(self, key: str) -> Any:
        """Return an entry by name."""
        return getattr(self, self._checked(key))

    def __setitem__(self, key: str, value: Any) -> None:
        """Add or replace an entry."""
        setattr(self, self._checked(key), _parameter(value))
        self._keys[key] = None

    def __delitem__(self, key: str) -> None:
        """Remove an entry."""
        del self._keys[key]
        delattr(self, self._checked(key))

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._keys)

    def __reversed__(self) -> Iterator[str]:
        """Yield the names, the newest first."""
        return reversed([*self._keys])

    def __contains__(self, key: object) -> bool:
        """Return whether there is such an entry."""
        return key in self._keys

    def copy(self) -> ParameterDict:
        """Return another dictionary of the same entries."""
        return ParameterDict(OrderedDict(self.items()))

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return an entry, which is added where there is none."""
        if key not in self:
            self[key] = default
        return self[key]

    def clear(self) -> None:
        """Remove all entries."""
        for key in [*self._keys]:
            del self[key]

    def pop(self, key: str) -> Any:
        """Remove an entry, and return it."""
        found = self[key]
        del self[key]
        return found

    def popitem(self) -> tuple[str, Any]:
        """Remove the newest entry, and return its name and value."""
        key = [*self._keys][-1] if self._keys else None
        if key is None:
            raise KeyError("popitem(): dictionary is empty")
        return key, self.pop(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return an entry, or the default where there is none."""
        return self[key] if key in self else default  # noqa: SIM401 - `get` itself

    def fromkeys(self, keys: Iterable[str], default: Any = None) -> ParameterDict:
        """Return another dictionary with one value under all names."""
        return ParameterDict((key, default) for key in keys)

    def keys(self) -> KeysView[str]:
        """Return the names."""
        return self._keys.keys()

    def items(self) -> Iterable[tuple[str, Any]]:
        """Return names and values."""
        return ((key, self[key]) for key in self._keys)

    def values(self) -> Iterable[Any]:
        """Return the values."""
        return (self[key] for key in self._keys)

    def update(self, parameters: Any) -> None:
        """Add or replace entries; those of a mapping without an order of its own by their names' order.

        Args:
            parameters: a mapping, another ParameterDict, or (name, value) pairs.
        """
        found = pairs("ParametersDict.update", "ParameterDict", parameters)
        if isinstance(parameters, Mapping) and not isinstance(parameters, OrderedDict):
            found = sorted(found, key=lambda pair: pair[0])
        for key, value in found:
            self[key] = value

    def extra_repr(self) -> str:
        """Return the entries."""
        return "\n".join(_line(k, v, typename(v)) for k, v in self.items())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse."""
        raise ModuleError("ParameterDict should not be called.")

    def __or__(self, other: Any) -> ParameterDict:
        """Return the entries of both; where both have a name, the right one's."""
        made = self.copy()
        made.update(other)
        return made

    def __ror__(self, other: Any) -> ParameterDict:
        """Return the entries of both; where both have a name, the right one's."""
        made = other.copy() if isinstance(other, ParameterDict) else ParameterDict(OrderedDict(other))
        made.update(self)
        return made

    def __ior__(self, other: Any) -> ParameterDict:
        """Add or replace entries."""
        self.update(other)
        return self
