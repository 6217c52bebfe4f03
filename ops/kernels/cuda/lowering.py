"""How an op becomes launches: the rules by op name, and what a rule is given.

A rule is `rule(site) -> bool`. It asks the site for its inputs as it wants them lying in memory, for its outputs, and
adds launches and library calls. It returns False, before it has added any, where it has nothing for these types and
attributes; the op then runs its array kernel on CuPy. All sizes and attributes are numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from ...expr import Expr
from ...types import Array, DType, TensorType
from .kernel import Argument, Description, Grid, Kernel, Ref
from .operand import Operand

Order: TypeAlias = Literal["any", "plain", "channels_last", "permuted"]
"""`plain`: row-major without gaps. `channels_last`: without gaps, axis 1 innermost. `any`: whatever strides it has.
`permuted`, of what is written: so that the permutation that reads it is row-major, the last axis innermost; else plain.
"""

T = TypeVar("T")


@dataclass(frozen=True)
class Epilogue:
    """A pointwise expression that a kernel applies to each element of its first result before it stores it.

    Attributes:
        expression: over `x`, the kernel's own result, and `a0`, `a1`, ...: further operands.
        operands: those, broadcast to the shape of the output (strides of 0).
        dtype: of what is stored.
    """

    expression: Expr
    operands: tuple[Operand, ...]
    dtype: DType


@dataclass(frozen=True)
class Prologue:
    """A pointwise expression that a kernel computes of tensors where it would read an input.

    Attributes:
        expression: over `a0`, `a1`, ...
        refs: those, broadcast to the shape of the input (strides of 0); the first has all its axes.
    """

    expression: Expr
    refs: tuple[Ref, ...]


class Site(Protocol):
    """One node (with the pointwise ops fused to it) where work for the device is wanted."""

    @property
    def op(self) -> str:
        """The op's name; `pointwise` for a chain of pointwise ops, whose attribute `expression` reads `a0`, `a1` ..."""

    @property
    def attrs(self) -> dict[str, Any]:
        """Its attributes."""

    @property
    def types(self) -> Sequence[Any]:
        """The types of its arguments: `TensorType`, None where left out, Python scalars, lists of types."""

    @property
    def results(self) -> Sequence[TensorType]:
        """The types of its outputs, before the epilogue."""

    @property
    def tf32(self) -> bool:
        """Whether products of float32 may round their operands to TF32."""

    @property
    def epilogue(self) -> Epilogue | None:
        """What to apply to the first output; only rules registered with `fuses` are given one."""

    @property
    def epilogue_refs(self) -> Sequence[Ref]:
        """The operands of the epilogue."""

    def read(self, i: int, *, order: Order = "any", item: int | None = None) -> Ref:
        """Return input i (item `item` of it, where it is a list) lying as asked; what lies otherwise is copied.

        A Python scalar is a tensor of one element, of the element type of the first tensor among the arguments. Where a
        rule is registered with `narrow`, the operand may be of half precision although the type says float32.
        """

    def prologue(self, i: int) -> Prologue | None:
        """Return what input i is, as long as nobody has computed it; else None, and for rules without `prologue`."""

    def known(self, i: int) -> Array | None:
        """Return the NumPy array of an input that is a constant of the graph, or a scalar, else None."""

    def constant(self, array: Array) -> Ref:
        """Return a NumPy array that is part of the plan, on the device."""

    def wanted(self, i: int) -> bool:
        """Whether something reads output i; what nobody reads is neither computed nor written."""

    def readers(self, i: int) -> Sequence[str]:
        """Return the names of the ops that read output i."""

    def write(self, i: int = 0, *, order: Order = "any") -> Ref:
        """Return output i, lying as asked (`any`: as its readers want it); of the epilogue's element type."""

    def rounded(self) -> Ref | None:
        """Return the memory, lying as output 0, for what a kernel rounds it to beside it; None where nobody wants that.

        Only rules registered with `rounds` are asked; it is known once output 0 is.
        """

    def temporary(self, dtype: DType, shape: Sequence[int]) -> Ref:
        """Return memory for a row-major tensor that lives until the last work that reads it, not cleared."""

    def shared(self, key: Hashable, inputs: Sequence[int | None], make: Callable[[], T]) -> T:
        """Return what `make` returns, or what it returned at an earlier site for an equal key and the same inputs.

        Args:
            key: everything beside the inputs that what is made depends on.
            inputs: the numbers of those that it is made of, in order.
            make: adds the work that makes it.
        """

    def attempt(self, work: Callable[[], None]) -> bool:
        """Return whether work could be added; what it has added before a library refuses a call is taken back."""

    def flag(self, message: str) -> Ref:
        """Return an int32 in memory, 0 until a kernel that meets bad input stores 1: the program then raises a message.

        A launch that is given it writes it. The error comes later: kernels go on, and touch nothing but their tensors.
        """

    def table(self, refs: Sequence[Ref], *, writes: Sequence[int] = ()) -> Ref:
        """Return a vector of int64 in device memory: the addresses of the first elements of tensors.

        A launch that reads the table counts as reading the tensors, and as writing those at the indices `writes`.
        """

    def launch(
        self,
        kernel: Kernel,
        grid: Grid,
        block: Grid,
        arguments: Sequence[Argument],
        *,
        writes: Sequence[int],
        shared_bytes: int = 0,
    ) -> None:
        """Launch a kernel behind what was added before; `writes` are the indices of the arguments that it writes."""

    def call(self, description: Description, refs: Sequence[Ref], *, writes: Sequence[int]) -> None:
        """Call a library behind what was added before."""


Rule: TypeAlias = Callable[[Site], bool]
Fuses: TypeAlias = Callable[[Expr], bool]


@dataclass(frozen=True)
class Lowering:
    """A rule, and which epilogues it applies; None for none. For the rest see `lowers`."""

    rule: Rule
    fuses: Fuses | None
    narrow: frozenset[int] = frozenset()
    prologue: Mapping[int, int] = field(default_factory=dict)
    rounds: bool = False

    @property
    def finishes(self) -> bool:
        """Whether it is for a library, so that epilogues that this does not know are kernels of their own."""
        return self.fuses is not None and self.fuses is not every


LOWERINGS: dict[str, Lowering] = {}
"""The rules by op name."""


def every(expression: Expr) -> bool:
    """Accept every epilogue, as kernels whose text is written for it do."""
    return True


def lowers(
    *ops: str, fuses: Fuses | None = None, narrow: Sequence[int] = (), prologue: Mapping[int, int] | None = None,
    rounds: bool = False,
) -> Callable[[Rule], Rule]:  # fmt: skip
    """Register a rule for ops by their names.

    Args:
        ops: names.
        fuses: which epilogues the rule applies to its first output.
        narrow: the inputs of type float32 that the rule also reads in half precision, because its kernels widen each
            element: what is cast to float32 for such rules alone is never written.
        prologue: the inputs that the rule asks `Site.prologue` for, because its kernels can compute pointwise ops as
            they read, and how often they read each.
        rounds: whether the rule also writes `Site.rounded`.
    """

    def register(rule: Rule) -> Rule:
        for name in ops:
            if name in LOWERINGS:
                raise ValueError(f"op {name!r} has two rules")
            LOWERINGS[name] = Lowering(rule, fuses, frozenset(narrow), dict(prologue or {}), rounds)
        return rule

    return register
