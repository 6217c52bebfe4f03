"""How values are to lie in memory, decided before any kernel is chosen: order, halo, place inside a concatenation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...ops import layout
from ...ops.dims import DimLike
from ...ops.kernels.cpu.lowering import LOWERINGS, Demand, Order
from ...ops.kernels.cpu.operand import Halo
from ...ops.types import BFLOAT16, TensorType
from ..graph.graph import Graph, Value
from .eligible import Eligible, argument_type
from .groups import Group
from .views import VIEWS


class Arrangement:
    """The layout of the values of a graph.

    Attributes:
        orders: of memory, by the id of a value.
        halos: the zeros that readers want around it.
        homes: for the input of a concatenation, the value that it becomes part of, where, and along which axis.
        rounded: the ids of values that are kept as bfloat16.
    """

    def __init__(self, graph: Graph, eligible: Eligible) -> None:
        """Start with nothing decided."""
        self.graph, self.eligible = graph, eligible
        self.orders: dict[int, Order] = {}
        self.halos: dict[int, Halo] = {}
        self.homes: dict[int, tuple[Value, DimLike, int]] = {}
        self.rounded: set[int] = set()

    def _demands(self, group: Group) -> dict[int, Demand]:
        anchor = group.anchor
        rule = LOWERINGS.get(anchor.op.name) if anchor is not None else None
        if anchor is None or rule is None or rule.demand is None or not self.eligible.native(anchor):
            return {}
        return rule.demand([argument_type(a) for a in anchor.args], anchor.attrs)

    def choose_orders(self, groups: Sequence[Group]) -> None:
        """Predict the order of each value: channels last behind convolutions, as long as rank and axes stay."""
        for group in groups:
            out = group.output
            if not isinstance(out.type, TensorType) or out.type.known_shape is None:
                continue
            demands = self._demands(group)
            order: Order = "plain"
            if any(d.order == "channels_last" for d in demands.values()):
                order = "channels_last"
            elif out.ndim > 2 and group.node.op not in VIEWS and self.eligible.native(group.node):
                same = [v for v in group.reads() if v.tensor_type.known_shape and v.ndim == out.ndim]
                large = [v for v in same if sum(d == 1 for d in v.shape) <= sum(d == 1 for d in out.shape)] or same
                if group.anchor is None or group.anchor.op is layout.concat:
                    order = "channels_last" if any(self.last(v) for v in large) else "plain"
                elif large and self.last(large[0]) and LOWERINGS.get(group.node.op.name) is not None:
                    order = "channels_last"
            for v in (out, *group.node.outputs):
                self.orders[id(v)] = order

    def last(self, v: Value) -> bool:
        """Whether a value is to lie channels last."""
        return self.orders.get(id(v)) == "channels_last"

    def choose_halos(self, groups: Sequence[Group]) -> None:
        """Find the zeros that readers want around each value."""
        for group in groups:
            for i, d in self._demands(group).items():
                v = group.anchor.args[i] if group.anchor is not None else None
                if isinstance(v, Value) and d.halo:
                    self._widen(v, d.halo)

    def _widen(self, v: Value, halo: Halo) -> None:
        old = self.halos.get(id(v), halo)
        self.halos[id(v)] = tuple((max(a, c), max(b, e)) for (a, b), (c, e) in zip(old, halo, strict=True))

    def choose_homes(self, groups: Sequence[Group]) -> None:
        """Let the inputs of a concatenation be written where it wants them, the longest concatenations first."""
        made = {id(v): g for g in groups for v in g.node.outputs}
        concats = [g for g in groups if g.anchor is not None and g.anchor.op is layout.concat]
        for group in sorted(concats, key=lambda g: -len(list(g.anchor.inputs()))):  # type: ignore[union-attr]
            node = group.anchor
            assert node is not None
            axis, out = node.attrs["axis"], node.outputs[0]
            if group.output is not out or id(out) in self.homes or not self.eligible.native(node):
                continue
            axis = axis + out.ndim if axis < 0 else axis
            start: DimLike = 0
            for v in node.inputs():
                source = made.get(id(v))
                fits = source is not None and source.node.op not in VIEWS and id(v) not in self.homes
                fits = fits and self.lies_as(v) == self.lies_as(out)
                if fits and v not in self.graph.outputs and self.orders.get(id(v)) == self.orders.get(id(out)):
                    self.homes[id(v)] = (out, start, axis)
                    if axis == 1 and id(v) in self.halos:
                        self._widen(out, self.halos[id(v)])
                start = start + v.shape[axis]

    def lies_as(self, v: Value) -> Any:
        """Return the element type as which a value is to lie in memory."""
        return BFLOAT16 if id(v) in self.rounded else v.dtype
