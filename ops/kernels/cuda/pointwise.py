"""Rules for pointwise ops: fused chains, single ops, casts, quantisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...expr import Call, Const, Expr, Var, substitute, variables
from ...op import OPS
from ...pointwise import Pointwise
from ...types import DType, TensorType
from ..cpu.quantize import QUANTISATION, expression as quantisation
from .copy import copied
from .elementwise import elementwise
from .expression import named, supports
from .indexing import View, broadcast, ordered, view
from .kernel import Ref
from .lowering import Order, Site, lowers
from .operand import Sizes
from .prelude import C_TYPES, computed

_LARGE = 1 << 18
"""Bytes from which an input that lies across the target is copied first, through shared memory."""

_LAST = ("conv", "conv_input_grad", "conv_weight_grad")
"""Ops that read channels last."""


def lower(site: Site, expression: Expr, numbers: Sequence[int]) -> bool:
    """Lower an expression over a site's arguments.

    Args:
        site: whose first output is written.
        expression: over `a0`, `a1`, ...
        numbers: for each of those, which argument it is.
    """
    result = site.results[0]
    shape = tuple(int(n) for n in result.shape)
    types: dict[str, DType] = {}
    constants: dict[str, Expr] = {}
    for n, i in enumerate(numbers):
        t = site.types[i]
        if isinstance(t, TensorType):
            types[f"a{n}"] = t.dtype
        elif isinstance(t, bool | int | float):
            constants[f"a{n}"] = Const(t)
        else:
            return False
    if any(t.name not in C_TYPES for t in (*types.values(), result.dtype)):
        return False
    expression = substitute(expression, constants) if constants else expression
    exponents = _exponents(expression)
    known: dict[str, int | float | bool] = {}
    for n, i in enumerate(numbers):
        value = site.known(i) if f"a{n}" in types else None
        if value is not None and value.size == 1 and f"a{n}" in variables(expression):
            known[f"a{n}"] = np.asarray(value).reshape(()).astype(_exact(types[f"a{n}"])).item()
    alike = {computed(t) for n, t in types.items() if computed(t) != "bool" and n not in known}
    fixed: dict[str, Expr] = {n: Const(v) for n, v in known.items() if n in exponents and alike == {computed(types[n])}}
    expression = substitute(expression, fixed) if fixed else expression
    read = variables(expression)
    types = {n: t for n, t in types.items() if n in read}
    if not supports(expression, types, result.dtype):
        return False
    target = site.write(0, order=_order(site, expression))
    if result.size == 0:
        return True
    inputs: dict[str, View | int | float] = {}
    renamed: dict[str, Expr] = {}
    used: dict[str, DType] = {}
    for n, i in enumerate(numbers):
        if f"a{n}" not in types:
            continue
        name = f"a{len(inputs)}"
        renamed[f"a{n}"], used[name] = Var(name), types[f"a{n}"]
        if f"a{n}" in known and computed(used[name]) != "u64":
            inputs[name] = known[f"a{n}"]
        elif isinstance(expression, Var):
            made = copied(broadcast(site.read(i), shape), view(target), "cast")
            site.launch(made.kernel, made.grid, made.block, made.arguments, writes=made.writes)
            return True
        else:
            inputs[name] = _along_target(site, site.read(i), shape, target)
    expression = substitute(expression, renamed)
    made = elementwise(
        named("pointwise", expression), expression, inputs, view(target), types=used, stored=result.dtype
    )
    site.launch(made.kernel, made.grid, made.block, made.arguments, writes=made.writes)
    return True


def _order(site: Site, expression: Expr) -> Order:
    """Return how the result is to lie: what is cast for convolutions alone as they read it, which saves a copy."""
    readers = site.readers(0)
    for_convolutions = readers and isinstance(expression, Var) and all(op in _LAST for op in readers)
    return "channels_last" if for_convolutions and site.results[0].ndim > 2 else "any"


def _exact(dtype: DType) -> Any:
    """Return the NumPy type that holds the elements of a type and that Python reads numbers from."""
    return np.float32 if dtype.itemsize == 2 and dtype.kind not in "iub" else dtype


def _exponents(expression: Expr) -> set[str]:
    """Return the variables that are exponents: as constants they make powers products."""
    found: set[str] = set()
    seen: set[int] = set()
    waiting = [expression]
    while waiting:
        n = waiting.pop()
        if isinstance(n, Call) and id(n) not in seen:
            seen.add(id(n))
            waiting.extend(n.args)
            if n.fn == "pow" and isinstance(n.args[1], Var):
                found.add(n.args[1].name)
    return found


def _along_target(site: Site, source: Ref, shape: Sizes, target: Ref) -> View:
    """Return a tensor broadcast to a shape; where it is large and lies across the target, a copy that does not."""
    own = broadcast(source, shape)
    walked, (mine, theirs) = ordered(shape, [own.strides, target.operand.strides], target.operand.strides)
    crosses = walked and theirs[-1] == 1 and abs(mine[-1]) > 1 and 1 in mine and walked[mine.index(1)] >= 8
    if not crosses or walked[-1] < 8 or source.operand.nbytes < _LARGE:
        return own
    axes = sorted(range(len(shape)), key=lambda i: -abs(target.operand.strides[i]))
    kept = [i for i in axes if own.strides[i] != 0]
    made = site.temporary(source.operand.dtype, tuple(shape[i] for i in kept))
    strides = [0] * len(shape)
    for i, s in zip(kept, made.operand.strides, strict=True):
        strides[i] = s
    inner = tuple(own.strides[i] for i in kept)
    launch = copied(View(source, made.operand.shape, inner), view(made))
    site.launch(launch.kernel, launch.grid, launch.block, launch.arguments, writes=launch.writes)
    return View(made, shape, tuple(strides))


@lowers("pointwise")
def _pointwise(site: Site) -> bool:
    return lower(site, site.attrs["expression"], range(len(site.types)))


@lowers(*(op.name for op in OPS.values() if isinstance(op, Pointwise)))
def _single(site: Site) -> bool:
    op = OPS[site.op]
    assert isinstance(op, Pointwise)
    arguments = {n: Var(f"a{i}") for i, n in enumerate(op.names)}
    if op.expression is None:
        expression: Expr = Call(op.name, tuple(arguments.values()))
    else:
        expression = substitute(op.expression, dict(arguments))
    return lower(site, expression, range(len(op.names)))


@lowers("cast")
def _cast(site: Site) -> bool:
    source, to = site.types[0].dtype.name, np.dtype(site.attrs["dtype"]).name
    if source not in C_TYPES or to not in C_TYPES:
        return False
    return lower(site, Var("a0"), (0,))


@lowers(*QUANTISATION)
def _quantisation(site: Site) -> bool:
    given = [i for i, t in enumerate(site.types) if t is not None]
    if not all(isinstance(site.types[i], TensorType) for i in given):
        return False
    arguments = [Var(f"a{given.index(i)}") if i in given else None for i in range(len(site.types))]
    dtypes = [None if t is None else t.dtype for t in site.types]
    found = quantisation(site.op, site.attrs, dtypes, site.results[0].dtype, arguments)
    return found is not None and lower(site, found, given)
