"""How an op becomes kernels: the rules by op name, and what a rule is given.

A rule is `rule(site) -> bool`. It asks the site for its inputs as it wants them lying in memory, for its output, and
adds kernel calls. It returns False, before it has added any, where it has no kernel for these types and attributes;
the op then runs its array kernel inside the same plan.

A *demand*, `demand(node_types, attrs) -> {input: Demand}`, tells beforehand how a rule would like its inputs to lie, so
that whoever makes them can write them so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from ...dims import DimLike, Shape
from ...expr import Expr
from ...types import Array, DType, TensorType
from .kernel import Kernel
from .operand import Halo, Operand
from .target import Target

Order: TypeAlias = Literal["any", "plain", "channels_last"]
"""`plain`: row-major without gaps. `channels_last`: axis 1 has stride 1. `any`: whatever strides it has."""


Elements: TypeAlias = Literal["own", "stored", "bfloat16"]
"""How the elements of an input lie: of its `own` type; as they are `stored`, which for float32 may be bfloat16; rounded
to `bfloat16`."""


@dataclass(frozen=True)
class Demand:
    """How a rule would like an input to lie."""

    order: Order = "any"
    halo: Halo = ()


@dataclass(frozen=True)
class Epilogue:
    """A pointwise expression that a kernel applies to each element of its result before it stores it.

    Attributes:
        expression: over `x`, the kernel's own result, and `a0`, `a1`, ...: further operands.
        operands: those, broadcast to the shape of the output (strides of 0); stride 1 or 0 along its innermost axis.
        dtype: of what is stored.
    """

    expression: Expr
    operands: tuple[Operand, ...]
    dtype: DType


class Ref(Protocol):
    """A tensor in memory: what a kernel call is given."""

    @property
    def operand(self) -> Operand:
        """How it lies."""


class Site(Protocol):
    """One node (with the pointwise ops fused to it) where kernels are wanted."""

    @property
    def op(self) -> str:
        """The op's name."""

    @property
    def attrs(self) -> dict[str, Any]:
        """Its attributes; sizes may be `Dim`s."""

    @property
    def types(self) -> Sequence[Any]:
        """The types of its arguments: `TensorType`, None where left out, Python scalars, lists of types."""

    @property
    def result(self) -> TensorType:
        """The type of its (first) output, before the epilogue."""

    @property
    def results(self) -> Sequence[TensorType]:
        """The types of all outputs."""

    @property
    def target(self) -> Target:
        """What CPU it is for."""

    @property
    def exact(self) -> bool:
        """Whether algorithms with larger rounding errors (Winograd) are unwanted."""

    @property
    def precision(self) -> str:
        """`float32`, or `bf16`: contractions of float32 multiply operands rounded to bfloat16."""

    @property
    def epilogue(self) -> Epilogue | None:
        """What to apply to the first output; only rules registered with `fuses=True` are given one."""

    @property
    def epilogue_refs(self) -> Sequence[Ref]:
        """The operands of the epilogue, to be passed behind the kernel's own."""

    def read(
        self, i: int, *, order: Order = "any", halo: Halo = (), item: int | None = None, elements: Elements = "own"
    ) -> Ref:
        """Return input i (item `item` of it, where it is a list) lying as asked; what lies otherwise is copied."""

    def known(self, i: int) -> Array | None:
        """Return the array of an input that is a constant of the graph, else None."""

    def hoistable(self, i: int) -> bool:
        """Whether an input depends on weights and constants alone, so that `packed` may be used."""

    def packed(self, i: int, how: str, pack: Callable[[Array], Array]) -> Ref:
        """Return what `pack` makes of an input's array, made once for each version of the weights.

        Args:
            i: which input.
            how: names the packing: equal names pack equally, so that two readers share one.
            pack: a function of a NumPy array; the result is kept as a row-major array at an address aligned to 64.
        """

    def origin(self, i: int, *, plain: bool = False) -> Ref:
        """Return how an input of known sizes that is `hoistable` lies where the kernels of `prepared` read it.

        Args:
            i: which input.
            plain: row-major; else with whatever strides the weights' transposes and slices give it.
        """

    def prepared(self, origin: Ref, kernels: Sequence[Kernel], dtype: DType, shape: Shape) -> Ref:
        """Return what kernels make of an input, made once for each version of the weights.

        Args:
            origin: what `origin` returned.
            kernels: over (input, result); they may run in any order.
            dtype: of the result.
            shape: of the result, which lies row-major; what no kernel writes is anything.
        """

    def constant(self, array: Array) -> Ref:
        """Return an array that is part of the plan."""

    def write(self, i: int = 0, *, order: Order = "any") -> Ref:
        """Return output i, lying as its readers want it within what is asked for; of the epilogue's element type.

        Where its readers round it anyway and the rule is one of `bfloat16.WRITERS`, float32 lies as bfloat16.
        """

    def temporary(self, dtype: Any, shape: Sequence[DimLike]) -> Ref:
        """Return memory for a row-major tensor that lives until the last kernel of this site."""

    def flag(self, message: str) -> Ref:
        """Return an int64 word that a kernel sets non-zero where its input is bad; the run then raises this message.

        The word is 0 before the site's first kernel. Several chunks may set it, to any number that is not 0.
        """

    def call(self, kernel: Kernel, refs: Sequence[Ref]) -> None:
        """Run a kernel on these, after those called before."""


Rule: TypeAlias = Callable[[Site], bool]
DemandRule: TypeAlias = Callable[[Sequence[Any], dict[str, Any]], dict[int, Demand]]


@dataclass(frozen=True)
class Lowering:
    """A rule, what it demands, whether it applies an epilogue, and whether it reads its first input as bfloat16."""

    rule: Rule
    demand: DemandRule | None
    fuses: bool
    rounds: Callable[[Site], bool] | None = None


LOWERINGS: dict[str, Lowering] = {}
"""The rules by op name."""


def lowers(
    *ops: str, demand: DemandRule | None = None, fuses: bool = False, rounds: Callable[[Site], bool] | None = None
) -> Callable[[Rule], Rule]:
    """Register a rule for ops by their names.

    Args:
        ops: names.
        demand: how it would like its inputs to lie.
        fuses: whether the rule applies `site.epilogue` to its first output.
        rounds: tells beforehand whether the rule reads the first input of a site as bfloat16, just as it lies.
    """

    def register(rule: Rule) -> Rule:
        for name in ops:
            if name in LOWERINGS:
                raise ValueError(f"op {name!r} has two rules")
            LOWERINGS[name] = Lowering(rule, demand, fuses, rounds)
        return rule

    return register
