"""Dimensions: integers, or integer polynomials over symbols that run time binds.

A dimension is a Python `int` or a `Dim`. Arithmetic on `Dim` (`+ - * // %`) stays exact: what cannot be
written as a polynomial becomes an *atom* of it, such as `(h + 1)//2`. Symbols stand for sizes, so they are taken
to be at least 1 where an inequality has to be decided; one that stays open raises `SymbolicError`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias, Union

from .errors import ShapeError, SymbolicError

Env: TypeAlias = Mapping[str, int]
Monomial: TypeAlias = "tuple[Atom, ...]"
DimLike: TypeAlias = Union[int, "Dim"]
Shape: TypeAlias = tuple[DimLike, ...]

_fresh = itertools.count()


@dataclasses.dataclass(frozen=True)
class Quotient:
    """The atom `floor(num / den)` or, with `mod`, `num mod den`."""

    num: DimLike
    den: DimLike
    mod: bool = False

    def __str__(self) -> str:
        """Return it as it is written in Python."""
        den = f"({self.den})" if isinstance(self.den, Dim) else self.den
        return f"({self.num}){'%' if self.mod else '//'}{den}"


@dataclasses.dataclass(frozen=True)
class Larger:
    """The atom `max(a, b)`; `at_least` makes it."""

    a: DimLike
    b: DimLike

    def __str__(self) -> str:
        """Return it as it is written in Python."""
        return f"max({self.a}, {self.b})"


Atom: TypeAlias = str | Quotient | Larger


class Dim:
    """An integer polynomial over symbols; immutable, hashable, equal when its normal form is."""

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: Iterable[tuple[Monomial, int]]) -> None:
        """Make the polynomial of these (monomial, coefficient) pairs, already in normal form."""
        self.terms = tuple(terms)
        self._hash = hash(self.terms)

    @staticmethod
    def symbol(name: str) -> Dim:
        """Return the dimension that is just this symbol."""
        return Dim([((name,), 1)])

    @staticmethod
    def fresh() -> Dim:
        """Return a symbol that no other dimension has; run time binds it where it first appears."""
        return Dim.symbol(f"?{next(_fresh)}")

    @property
    def name(self) -> str | None:
        """The symbol's name if this is a bare symbol, else None."""
        if len(self.terms) == 1:
            (monomial, coefficient) = self.terms[0]
            if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], str):
                return monomial[0]
        return None

    def symbols(self) -> Iterator[str]:
        """Yield the names of all symbols in it, inside quotients too."""
        for monomial, _ in self.terms:
            for atom in monomial:
                if isinstance(atom, str):
                    yield atom
                else:
                    yield from symbols_in(atom)

    def evaluate(self, env: Env) -> int:
        """Return the integer it is under these bindings.

        Raises:
            SymbolicError: if a symbol of it is not bound.
        """
        total = 0
        for monomial, coefficient in self.terms:
            product = coefficient
            for atom in monomial:
                product *= _evaluate_atom(atom, env)
            total += product
        return total

    def lower_bound(self) -> int | None:
        """Return a number it is never below when every symbol is at least 1, or None."""
        total = 0
        for monomial, coefficient in self.terms:
            if coefficient < 0 and monomial:
                return None
            least = coefficient
            for atom in monomial:
                low = _lower_atom(atom)
                if low is None:
                    return None
                least *= low
            total += least
        return total

    def __add__(self, other: Any) -> DimLike:
        """Sum."""
        if not isinstance(other, int | Dim):
            return NotImplemented
        return _make(itertools.chain(self.terms, _terms(other)))

    __radd__ = __add__

    def __neg__(self) -> DimLike:
        """Negative."""
        return _make((m, -c) for m, c in self.terms)

    def __sub__(self, other: Any) -> DimLike:
        """Difference."""
        if not isinstance(other, int | Dim):
            return NotImplemented
        return _make(itertools.chain(self.terms, _terms(-other)))

    def __rsub__(self, other: Any) -> DimLike:
        """Difference."""
        return _make(itertools.chain(_terms(-self), _terms(other)))

    def __mul__(self, other: Any) -> DimLike:
        """Product."""
        if type(other) is int and other:
            return self if other == 1 else Dim([(m, c * other) for m, c in self.terms])
        if not isinstance(other, int | Dim):
            return NotImplemented
        return _make((tuple(sorted(m + n, key=str)), c * d) for m, c in self.terms for n, d in _terms(other))

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> DimLike:
        """Quotient, rounded down; exact where every term divides."""
        return _divide(self, other) if isinstance(other, int | Dim) else NotImplemented

    def __rfloordiv__(self, other: Any) -> DimLike:
        """Quotient, rounded down."""
        return _divide(other, self) if isinstance(other, int) else NotImplemented

    def __mod__(self, other: Any) -> DimLike:
        """Remainder of the quotient rounded down."""
        if not isinstance(other, int | Dim):
            return NotImplemented
        quotient = _divide(self, other)
        exact = not isinstance(quotient, Dim) or not any(isinstance(a, Quotient) for m, _ in quotient.terms for a in m)
        if exact and self - quotient * other == 0:
            return 0
        return Dim([((Quotient(self, other, mod=True),), 1)])

    def __eq__(self, other: object) -> bool:
        """Structural equality: never guesses that two symbols may be bound alike."""
        return isinstance(other, Dim) and self.terms == other.terms

    def __hash__(self) -> int:
        """Hash of the normal form."""
        return self._hash

    def _sign(self, other: DimLike, what: str) -> int:
        """Return the sign of self - other where all bindings agree on it."""
        diff = self - other
        if not isinstance(diff, Dim):
            return (diff > 0) - (diff < 0)
        if (low := diff.lower_bound()) is not None and low > 0:
            return 1
        negative = -diff
        if isinstance(negative, Dim) and (low := negative.lower_bound()) is not None and low > 0:
            return -1
        if what in ("<", ">=") and (low := diff.lower_bound()) == 0:
            return 0
        raise SymbolicError(f"{self} {what} {other} is known only at run time")

    def __lt__(self, other: DimLike) -> bool:
        """Whether it is smaller, if that can be decided now."""
        return self._sign(other, "<") < 0

    def __ge__(self, other: DimLike) -> bool:
        """Whether it is at least that, if that can be decided now."""
        return self._sign(other, ">=") >= 0

    def __gt__(self, other: DimLike) -> bool:
        """Whether it is larger, if that can be decided now."""
        return self._sign(other, ">") > 0

    def __le__(self, other: DimLike) -> bool:
        """Whether it is at most that, if that can be decided now."""
        return self._sign(other, "<=") <= 0

    def __bool__(self) -> bool:
        """Whether it differs from 0, if that can be decided now."""
        return self._sign(0, "!=") != 0

    def __index__(self) -> int:
        """Refuse: a symbol is not an integer yet."""
        raise SymbolicError(f"dimension {self} is known only at run time")

    __int__ = __index__

    def __str__(self) -> str:
        """Return it as it is written, `2*n + 1`."""
        parts = []
        for monomial, coefficient in self.terms:
            factors = [str(a) for a in monomial]
            if coefficient != 1 or not factors:
                factors.insert(0, str(coefficient))
            parts.append("*".join(factors))
        return " + ".join(parts).replace("+ -", "- ")

    __repr__ = __str__


def _terms(d: DimLike) -> tuple[tuple[Monomial, int], ...]:
    return d.terms if isinstance(d, Dim) else (((), int(d)),)


def _make(terms: Iterable[tuple[Monomial, int]]) -> DimLike:
    total: dict[Monomial, int] = {}
    for monomial, coefficient in terms:
        total[monomial] = total.get(monomial, 0) + coefficient
    kept = [(m, c) for m, c in total.items() if c]
    if not kept:
        return 0
    if len(kept) == 1:
        return Dim(kept) if kept[0][0] else kept[0][1]
    return Dim(sorted(kept, key=lambda t: (not t[0], str(t[0]))))


def _divide_term(monomial: Monomial, coefficient: int, by: Monomial, k: int) -> tuple[Monomial, int] | None:
    if coefficient % k:
        return None
    rest = list(monomial)
    for atom in by:
        if atom not in rest:
            return None
        rest.remove(atom)
    return tuple(rest), coefficient // k


def _divide(num: DimLike, den: DimLike) -> DimLike:
    if den == 0:
        raise ShapeError(f"{num} // 0")
    if den == 1:
        return num
    if num == den:
        return 1
    by = _terms(den)
    if len(by) > 1:
        return Dim([((Quotient(num, den),), 1)])
    whole: list[tuple[Monomial, int]] = []
    rest: list[tuple[Monomial, int]] = []
    for monomial, coefficient in _terms(num):
        done = _divide_term(monomial, coefficient, *by[0])
        if done is None:
            rest.append((monomial, coefficient))
        else:
            whole.append(done)
    left = _make(rest)
    if isinstance(left, int) and isinstance(den, int):
        whole.append(((), left // den))
    elif left != 0:
        whole.append(((Quotient(left, den),), 1))
    return _make(whole)


def _evaluate_atom(atom: Atom, env: Env) -> int:
    if isinstance(atom, str):
        if atom not in env:
            raise SymbolicError(f"dimension {atom} is not bound yet")
        return env[atom]
    if isinstance(atom, Larger):
        return at_least(evaluate(atom.a, env), evaluate(atom.b, env))  # type: ignore[return-value]
    num, den = evaluate(atom.num, env), evaluate(atom.den, env)
    if den == 0:
        raise ShapeError(f"{atom} divides by zero: {den}")
    return num % den if atom.mod else num // den


def _lower_atom(atom: Atom) -> int | None:
    if isinstance(atom, str):
        return 1
    if isinstance(atom, Quotient):
        return None if _lower(atom.num) is None else 0
    return max((low for d in (atom.a, atom.b) if (low := _lower(d)) is not None), default=None)


def _lower(d: DimLike) -> int | None:
    if isinstance(d, Dim):
        low = d.lower_bound()
        return low if low is not None and low >= 0 else None
    return d if d >= 0 else None


def at_least(d: DimLike, low: DimLike) -> DimLike:
    """Return max(d, low): one of the two where that can be decided now, else an atom of both."""
    try:
        return d if d >= low else low
    except SymbolicError:
        return Dim([((Larger(*sorted((d, low), key=str)),), 1)])


def evaluate(d: DimLike, env: Env) -> int:
    """Return the integer that a dimension is under these bindings."""
    return d.evaluate(env) if isinstance(d, Dim) else int(d)


_WITHOUT_SYMBOLS = frozenset({int, float, bool, str, type(None)})


def symbols_in(value: Any) -> Iterator[str]:
    """Yield the symbols in a dimension, or in an attribute made of tuples, dataclasses and bodies."""
    if type(value) in _WITHOUT_SYMBOLS:
        return
    if isinstance(value, Dim):
        yield from value.symbols()
    elif isinstance(value, tuple | list):
        for item in value:
            if type(item) not in _WITHOUT_SYMBOLS:
                yield from symbols_in(item)
    elif hasattr(value, "free_symbols"):
        yield from value.free_symbols()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from symbols_in(getattr(value, field.name))


def bind(value: Any, env: Env) -> Any:
    """Return an attribute with every dimension in it replaced by its integer."""
    if isinstance(value, Dim):
        return value.evaluate(env)
    if isinstance(value, tuple):
        return tuple(bind(v, env) for v in value)
    if hasattr(value, "free_symbols"):
        return value.bind(env)
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and any(True for _ in symbols_in(value)):
        changes = {f.name: bind(getattr(value, f.name), env) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **changes)
    return value


def substitute(value: Any, env: Mapping[str, DimLike]) -> Any:
    """Return an attribute with some of its symbols replaced by dimensions; the others stay."""
    return bind(value, _Substitution(env))


class _Substitution(dict[str, Any]):
    """Bindings to dimensions; a symbol without one stays itself."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> Dim:
        return Dim.symbol(name)


def product(shape: Iterable[DimLike]) -> DimLike:
    """Return the number of elements of a shape."""
    total: DimLike = 1
    for d in shape:
        total = total * d
    return total


def broadcast(*shapes: Shape) -> Shape:
    """Return the shape that these broadcast to.

    Two different symbols may meet where one of them is 1 at run time; the result is then a fresh symbol.

    Raises:
        ShapeError: if two integers differ and neither is 1.
    """
    rank = max((len(s) for s in shapes), default=0)
    out: list[DimLike] = []
    for axis in range(rank):
        dims = [s[axis - rank + len(s)] for s in shapes if axis - rank + len(s) >= 0]
        sizes = {d for d in dims if isinstance(d, int) and d != 1}
        symbols = {d for d in dims if isinstance(d, Dim)}
        if len(sizes) > 1:
            raise ShapeError(f"shapes {', '.join(map(show, shapes))} do not broadcast: axis {axis - rank}")
        if sizes:
            out.append(sizes.pop())
        elif len(symbols) == 1:
            out.append(symbols.pop())
        else:
            out.append(Dim.fresh() if symbols else 1)
    return tuple(out)


def show(shape: Iterable[DimLike] | None) -> str:
    """Return a shape as people read it, `(n, 3, 224, 224)`."""
    if shape is None:
        return "(unknown rank)"
    dims = [str(d) for d in shape]
    return f"({dims[0]},)" if len(dims) == 1 else f"({', '.join(dims)})"
