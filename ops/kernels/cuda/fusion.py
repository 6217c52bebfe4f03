"""Epilogues that libraries apply themselves: an activation of a sum of the result and further operands.

Whatever else an epilogue asks for, `finish` applies in a kernel of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...expr import Call, Const, Expr, Var, minimum, sigmoid, variables
from ...pointwise import elu, gelu, gelu_tanh, leaky_relu, relu, relu6, sigmoid as sigmoid_op, softplus, swish, tanh
from ...types import HALF, DType
from .copy import copied
from .elementwise import elementwise
from .expression import supports
from .indexing import View, view
from .kernel import Ref
from .lowering import Epilogue, Site

_TEMPLATES = {
    "relu": (relu.expression,),
    "relu6": (relu6.expression, minimum(6, relu.expression) if relu.expression else None),
    "gelu": (gelu.expression,),
    "gelu_tanh": (gelu_tanh.expression,),
    "sigmoid": (sigmoid_op.expression,),
    "tanh": (tanh.expression,),
    "swish": (swish.expression, Var("x") * sigmoid(Var("x"))),
    "leaky_relu": (leaky_relu.expression,),
    "elu": (elu.expression,),
    "softplus": (softplus.expression,),
}
"""Activations as expressions of `x`; another variable in them is a number."""

_COMMUTATIVE = frozenset({"add", "mul", "max", "min"})

_ALIGNED = 16
"""A vector that begins at a multiple of so many bytes is read by libraries where it lies; another one is copied."""

_WIDENING = frozenset(f"cast:{half.name}:float32" for half in HALF)
"""Casts that change nothing: half precision is computed in float32."""


@dataclass(frozen=True)
class Activation:
    """A function that is applied last.

    Attributes:
        name: a key of the templates above.
        alpha: its number, where it has one; 1 otherwise.
    """

    name: str
    alpha: float = 1.0


@dataclass(frozen=True)
class Tail:
    """activation(x + the sum of `added`), those by the names of their variables."""

    added: tuple[str, ...] = ()
    activation: Activation | None = None


def tail_of(expression: Expr) -> Tail | None:
    """Return what an expression of `x` and other variables computes, or None where it is nothing of that kind."""
    expression = _unwidened(expression)
    plain = _sum(expression)
    if plain is not None:
        return Tail(plain)
    for name, templates in _TEMPLATES.items():
        for template in templates:
            for found in _matches(template, expression, {}) if template is not None else ():
                added = _sum(found["x"])
                if added is not None:
                    alpha = found.get("alpha", Const(1.0))
                    return Tail(added, Activation(name, float(alpha.value) if isinstance(alpha, Const) else 1.0))
    return None


def _unwidened(e: Expr) -> Expr:
    """Return an expression without the casts from half precision to float32."""
    done: dict[int, Expr] = {}

    def visit(n: Expr) -> Expr:
        if not isinstance(n, Call):
            return n
        if id(n) not in done:
            args = tuple(map(visit, n.args))
            done[id(n)] = args[0] if n.fn in _WIDENING else Call(n.fn, args)
        return done[id(n)]

    return visit(e)


def _sum(e: Expr) -> tuple[str, ...] | None:
    """Return what is added to `x`, or None where the expression is no such sum."""
    terms, waiting = [], [e]
    while waiting:
        n = waiting.pop()
        if isinstance(n, Var):
            terms.append(n.name)
        elif isinstance(n, Call) and n.fn == "add":
            waiting.extend(reversed(n.args))
        else:
            return None
    if terms.count("x") != 1 or len(set(terms)) != len(terms):
        return None
    return tuple(t for t in terms if t != "x")


def _matches(template: Expr, e: Expr, found: dict[str, Expr]) -> Iterator[dict[str, Expr]]:
    """Yield what the variables of a template stand for, each way in which it is the expression."""
    if isinstance(template, Var):
        if template.name in found:
            if _same(found[template.name], e):
                yield found
        elif template.name == "x" or isinstance(e, Const):
            yield {**found, template.name: e}
    elif isinstance(template, Const):
        if isinstance(e, Const) and math.isclose(e.value, template.value, rel_tol=1e-6):
            yield found
    elif (
        isinstance(template, Call) and isinstance(e, Call) and template.fn == e.fn and len(template.args) == len(e.args)
    ):
        orders = [e.args, e.args[::-1]] if e.fn in _COMMUTATIVE else [e.args]
        for args in orders:
            partial = [found]
            for t, a in zip(template.args, args, strict=True):
                partial = [more for p in partial for more in _matches(t, a, p)]
            yield from partial


def _same(a: Expr, b: Expr) -> bool:
    """Whether two expressions are the same, node by node."""
    if a is b:
        return True
    if isinstance(a, Var) and isinstance(b, Var):
        return a.name == b.name
    if isinstance(a, Const) and isinstance(b, Const):
        return a.value == b.value
    return (
        isinstance(a, Call)
        and isinstance(b, Call)
        and a.fn == b.fn
        and len(a.args) == len(b.args)
        and all(map(_same, a.args, b.args))
    )


def fuses(expression: Expr) -> bool:
    """Whether there is code for an epilogue, in a library or as a kernel of its own."""
    real = np.dtype(np.float32)
    return supports(expression, dict.fromkeys(variables(expression), real), real)


def only_stores(epilogue: Epilogue) -> bool:
    """Whether an epilogue stores what it is applied to, and does nothing else."""
    found = _unwidened(epilogue.expression)
    return isinstance(found, Var) and found.name == "x"


def finish(site: Site, epilogue: Epilogue, source: View, dtype: DType, target: View) -> None:
    """Launch the kernel that applies an epilogue.

    Args:
        site: whose epilogue it is.
        epilogue: what is applied.
        source: what it is applied to, of the target's shape; it may be the target.
        dtype: the element type of the source.
        target: what is written.
    """
    if only_stores(epilogue):
        made = copied(source, target, "epilogue")
        site.launch(made.kernel, made.grid, made.block, made.arguments, writes=made.writes)
        return
    inputs = {"x": source}
    for i, (ref, o) in enumerate(zip(site.epilogue_refs, epilogue.operands, strict=True)):
        inputs[f"a{i}"] = View(ref, target.shape, o.strides)
    types = {"x": dtype} | {f"a{i}": o.dtype for i, o in enumerate(epilogue.operands)}
    made = elementwise("epilogue", epilogue.expression, inputs, target, types=types, stored=epilogue.dtype)
    site.launch(made.kernel, made.grid, made.block, made.arguments, writes=made.writes)


def vector(site: Site, terms: Sequence[View], dtype: DType) -> Ref:
    """Return the sum of vectors as one of an element type, what is there already where it is one such vector.

    Args:
        site: where.
        terms: vectors of one length, of any float type.
        dtype: of the sum.
    """
    first = terms[0]
    packed = first.aligned(_ALIGNED // dtype.itemsize) and (first.strides == (1,) or first.size == 1)
    if len(terms) == 1 and first.ref.operand.dtype == dtype and packed:
        return first.ref
    made = site.temporary(dtype, first.shape)
    names = [f"a{i}" for i in range(len(terms))]
    total: Expr = Var(names[0])
    for n in names[1:]:
        total = total + Var(n)
    types = {n: t.ref.operand.dtype for n, t in zip(names, terms, strict=True)}
    launch = elementwise("bias", total, dict(zip(names, terms, strict=True)), view(made), types=types, stored=dtype)
    site.launch(launch.kernel, launch.grid, launch.block, launch.arguments, writes=launch.writes)
    return made


def copy(site: Site, source: View, dtype: DType, target: View, *, stored: DType | None = None) -> None:
    """Launch a copy of elements, converted where the target stores another type."""
    x = Var("x")
    made = elementwise("copied", x, {"x": source}, target, types={"x": dtype}, stored=stored or dtype)
    site.launch(made.kernel, made.grid, made.block, made.arguments, writes=made.writes)
