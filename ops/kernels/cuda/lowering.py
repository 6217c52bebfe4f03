"""How an op becomes launches: the rules by op name, and what a rule is given.

A rule is `rule(site) -> bool`. It asks the site for its inputs as it wants them lying in memory, for its outputs, and
adds launches and library calls. It returns False, before it has added any, where it has nothing for these types and
attributes; the op then runs its array kernel on CuPy. All sizes and attributes are numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from ...expr import Expr
from ...types import Array, DType, TensorType
from .kernel import Argument, Description, Grid, Kernel, Ref
from .operand import Operand

Order: TypeAlias = Literal["any", "plain", "channels_last"]
"""`plain`: row-major without gaps. `channels_last`: without gaps, axis 1 innermost. `any`: whatever strides it has."""


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

        A Python scalar is a tensor of one element, of the element type of the first tensor among the arguments.
        """

    def known(self, i: int) -> Array | None:
        """Return the NumPy array of an input that is a constant of the graph, or a scalar, else None."""

    def constant(self, array: Array) -> Ref:
        """Return a NumPy array that is part of the plan, on the device."""

    def write(self, i: int = 0, *, order: Order = "any") -> Ref:
        """Return output i, lying as asked (`any`: as its readers want it); of the epilogue's element type."""

    def temporary(self, dtype: DType, shape: Sequence[int]) -> Ref:
        """Return memory for a row-major tensor that lives until the last work of this site, not cleared."""

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
    """A rule, and which epilogues it applies; None for none."""

    rule: Rule
    fuses: Fuses | None


LOWERINGS: dict[str, Lowering] = {}
"""The rules by op name."""


def every(expression: Expr) -> bool:
    """Accept every epilogue, as kernels whose text is written for it do."""
    return True


def lowers(*ops: str, fuses: Fuses | None = None) -> Callable[[Rule], Rule]:
    """Register a rule for ops by their names.

    Args:
        ops: names.
        fuses: which epilogues the rule applies to its first output.
    """

    def register(rule: Rule) -> Rule:
        for name in ops:
            if name in LOWERINGS:
                raise ValueError(f"op {name!r} has two rules")
            LOWERINGS[name] = Lowering(rule, fuses)
        return rule

    return register
