"""Values by name, loaded into what a module holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..ops.errors import StateDictError
from .device import to_device
from .grad_mode import no_grad
from .tensor import Tensor


class IncompatibleKeys(NamedTuple):
    """What a state dict and a module do not share."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        """Return it, or that all keys matched."""
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


def load_into(
    own: Mapping[str, Tensor], name: str, state_dict: Mapping[str, Any], strict: bool, assign: bool
) -> IncompatibleKeys:
    """Copy values by name into a module's Tensors; see `Module.load_state_dict`."""
    given = {k: v._array if isinstance(v, Tensor) else np.asarray(v) for k, v in state_dict.items()}
    keys = IncompatibleKeys([k for k in own if k not in given], [k for k in given if k not in own])
    wrong = []
    if strict and keys.unexpected_keys:
        wrong.append(f"Unexpected key(s) in state_dict: {_quoted(keys.unexpected_keys)}. ")
    if strict and keys.missing_keys:
        wrong.append(f"Missing key(s) in state_dict: {_quoted(keys.missing_keys)}. ")
    for k, t in own.items():
        if k in given and given[k].shape != t.shape:
            wrong.append(
                f"size mismatch for {k}: copying a param with shape {given[k].shape} from checkpoint, "
                f"the shape in current model is {t.shape}."
            )
    if wrong:
        lines = "".join(f"\n\t{w}" for w in wrong)
        raise StateDictError(f"Error(s) in loading state_dict for {name}:{lines}")
    with no_grad():
        for k, t in own.items():
            if k in given and assign:
                t.data = given[k]
            elif k in given:
                t.copy_(to_device(given[k], t.device))
    return keys


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{n}"' for n in names)
