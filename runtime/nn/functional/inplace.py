"""Functions whose result takes the place of their input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def changed(function: Callable[..., Any], input: Any, *args: Any) -> Any:
    """Put function(input, *args) in the place of a Tensor and return that; what is no Tensor stays as it is.

    Raises:
        AutogradError: on a leaf that requires a gradient.
    """
    if not hasattr(input, "_changed"):
        return function(input, *args)
    return input._changed(lambda x: function(x, *args))


def in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of the same name with an underscore, whose result takes the place of its input."""

    def method(input: Any, *args: Any, **kwargs: Any) -> Any:
        return function(input, *args, **kwargs, inplace=True)

    method.__name__ = method.__qualname__ = f"{function.__name__}_"
    method.__doc__ = f"Put the result of `{function.__name__}` in the place of the elements."
    return method
