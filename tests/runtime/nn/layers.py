"""One setting of a layer: it prints, computes and differentiates as PyTorch's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import onnxgrad as og

from .parity import Compared, both


def draw(*shapes: tuple[int, ...], seed: int = 7) -> tuple[np.ndarray, ...]:
    """Return normal arrays of these shapes."""
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal(s) for s in shapes)


def same_layer(
    compared: Compared,
    name: str,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    inputs: Sequence[Any],
    dtype: str,
    **how: Any,
) -> None:
    """Compare the layer of this name, its repr too."""
    import torch

    ours, theirs = (getattr(lib.nn, name)(*args, **kwargs) for lib in (og, torch))
    assert repr(ours) == repr(theirs)
    both(compared, name, lambda lib: getattr(lib.nn, name)(*args, **kwargs), inputs, dtype, **how)


def same_function(
    compared: Compared, name: str, args: Sequence[Any], kwargs: dict[str, Any], inputs: Sequence[Any], dtype: str
) -> None:
    """Compare the function of this name, called with the inputs and then the arguments."""
    both(
        compared,
        f"F.{name}",
        lambda lib: lambda *xs: getattr(lib.nn.functional, name)(*xs, *args, **kwargs),
        inputs,
        dtype,
    )


def message(call: Any, lib: Any) -> tuple[type[BaseException], str]:
    """Return what a wrong call raises: the error's class and the first line of what it says."""
    try:
        call(lib)
    except Exception as error:
        return type(error), str(error).split("\n")[0]
    raise AssertionError("no error")


def same_error(call: Any) -> None:
    """Check that a wrong call says here what it says in PyTorch, with a class of error that its users catch."""
    import torch

    kind, says = message(call, torch)
    with pytest.raises(kind if kind is not NotImplementedError else RuntimeError, match=re.escape(says)):
        call(og)
