"""Parameter groups by name: rates and other settings of layers chosen by patterns."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any

from ...ops.errors import InputError
from ..nn.module import Module
from ..tensor.tensor import Tensor


def group_parameters(
    module: Module | Iterable[tuple[str, Tensor]], settings: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return parameter groups for an optimizer, by patterns of parameter names.

    ```
    groups = og.optim.group_parameters(model, {"*.bias": {"weight_decay": 0}, "layer4.*": {"lr": 1e-4}})
    optimizer = og.optim.AdamW(groups, lr=1e-3)
    ```

    A parameter belongs to the first pattern that matches its name. What no pattern matches is a last group that takes
    the optimizer's own settings.

    Args:
        module: whose parameters they are, or its `named_parameters()`.
        settings: for each pattern (`*`, `?`, `[...]` as in file names) what its group is given, such as `lr`.

    Raises:
        InputError: if a pattern is the first match of no parameter; it names parameters that look like it.
    """
    named = list(module.named_parameters() if isinstance(module, Module) else module)
    groups: dict[str | None, list[tuple[str, Tensor]]] = {pattern: [] for pattern in settings}
    groups[None] = []
    for name, p in named:
        groups[next((s for s in settings if fnmatch.fnmatchcase(name, s)), None)].append((name, p))
    for pattern in settings:
        if not groups[pattern]:
            raise InputError(_nothing(pattern, [name for name, _ in named]))
    made = [{"params": groups[pattern], **settings[pattern]} for pattern in settings]
    return [*made, {"params": groups[None]}] if groups[None] else made


def _nothing(pattern: str, names: list[str]) -> str:
    taken = [n for n in names if fnmatch.fnmatchcase(n, pattern)]
    if taken:
        return (
            f"pattern {pattern!r}: all parameters that it matches ({', '.join(taken[:3])}) belong to patterns before it"
        )
    close = difflib.get_close_matches(pattern, names, 3, 0.3) or names[:3]
    return f"pattern {pattern!r} matches no parameter name; there are {', '.join(close)} among {len(names)}"
