"""Which function writes which op as ONNX nodes: the inverse of the bindings.

Adding an op is one function, in the room of its family:

```
@emits(rank.hardmax)
def hardmax(w: Writer, x: Value, *, axis: int) -> str:
    return w.add("Hardmax", x, axis=axis)
```

It takes what the op takes, with a Value in the place of each array, and returns the names of the outputs; None where
the operator set, or the attributes, leave no node for it. Then the op is written as what it consists of: a function
under `@expands`, which calls other ops, or the op's own composition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from ....ops.op import Op

Emitter: TypeAlias = Callable[..., Any]

EMITTERS: dict[str, Emitter] = {}
EXPANSIONS: dict[str, Callable[..., Any]] = {}


def emits(*ops: Op) -> Callable[[Emitter], Emitter]:
    """Register what writes these ops as ONNX nodes.

    Raises:
        ValueError: if one has an emitter already.
    """

    def register(f: Emitter) -> Emitter:
        for o in ops:
            if o.name in EMITTERS:
                raise ValueError(f"op {o.name!r} has two emitters")
            EMITTERS[o.name] = f
        return f

    return register


def expands(*ops: Op) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register what ops consist of, as a function that calls other ops, where they have no composition of their own.

    Raises:
        ValueError: if one has an expansion already.
    """

    def register(f: Callable[..., Any]) -> Callable[..., Any]:
        for o in ops:
            if o.name in EXPANSIONS:
                raise ValueError(f"op {o.name!r} has two expansions")
            EXPANSIONS[o.name] = f
        return f

    return register
