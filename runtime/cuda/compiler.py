"""From a graph of known sizes to steps: groups, views, layouts, rules, array kernels where there is no rule.

Nodes that depend on weights alone are hoisted out (`weights`). Of the rest, pointwise chains and the pointwise tails of
kernels become groups; reshapes, permutations, slices and broadcasts are views; rules (`ops/kernels/cuda`) turn groups
into launches and calls.

Layout: rules ask for their inputs `channels_last` where that is faster (convolutions do), and what only follows its
inputs writes its output as they lie. So whole stretches of a network run channels last, and copies are made at the
edges alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from ...ops import layout
from ...ops.broadcast import broadcast_to
from ...ops.errors import KernelError
from ...ops.expr import Expr
from ...ops.kernels.cpu.operand import Operand as Strided
from ...ops.kernels.cuda import load_rules
from ...ops.kernels.cuda.expression import supports
from ...ops.kernels.cuda.lowering import LOWERINGS, Order, Site
from ...ops.kernels.cuda.operand import Operand, channels_last_strides, packed
from ...ops.kernels.cuda.optimize import multi_tensor, together
from ...ops.kernels.cuda.prelude import C_TYPES
from ...ops.op import Op
from ...ops.types import BFLOAT16, TensorType
from ..compiled.eligible import argument_type, split_weights
from ..compiled.groups import Group, group_nodes
from ..compiled.views import VIEWS, view
from ..graph.graph import Graph, Node, Value
from ..graph.plan import live_nodes
from ..passes.convert_values import move_constants
from ..passes.rewriting import has_graph
from .arena import Placed, Storage
from .site import NodeSite
from .steps import ArrayCall, Copy, Step
from .updates import MOVES, in_runs, targets
from .weights import Hoisted, Lies, WeightStore, placed_operand

ELEMENTS = tuple(BFLOAT16 if name == "bfloat16" else np.dtype(name) for name in C_TYPES)
"""The element types that kernels are written for."""

_LAST = ("conv", "conv_input_grad")
"""Ops whose results lie channels last."""


class Compiler:
    """Compiles one graph.

    Args:
        graph: of known sizes; see `why_not`.
        store: the weights of the programs of this model, on the device that it is for.
        hoist: whether state is weights that rarely change; else each run brings it, behind the inputs.
        in_place: which feeds are overwritten in the end, by the outputs that become what they hold.
        tf32: whether products of float32 may round their operands to TF32.

    Attributes:
        steps: in order.
        feeds: the storage of each feed.
        outputs: where each output lies in the end.
        refused: the nodes that run their array kernels, and why.
    """

    def __init__(
        self, graph: Graph, store: WeightStore, *, hoist: bool = True, in_place: Mapping[int, int] | None = None,
        tf32: bool = False,
    ) -> None:  # fmt: skip
        """Prepare; `compile` does the work."""
        load_rules()
        self.graph, self.store, self.runner, self.tf32 = graph, store, store.runner, tf32
        nodes = live_nodes(graph)
        hoisted, self.nodes = split_weights(graph, nodes) if hoist else ([], nodes)
        self.part = Hoisted(graph, hoisted, state=hoist)
        self.fed = [*graph.inputs, *graph.keys, *([] if hoist else graph.state.values())]
        self.in_place = dict(in_place or {})
        self.steps: list[Step] = []
        self.storages: list[Storage] = []
        self.feeds: list[Storage] = []
        self.outputs: list[Placed] = []
        self.refused: list[str] = []
        self._places: dict[int, list[Placed]] = {}
        self._journal: list[int] = []
        self._targets: dict[int, Placed] = {}

    def compile(self) -> Compiler:
        """Lower every node."""
        for i, v in enumerate(self.fed):
            operand = placed_operand(v)
            self.feeds.append(Storage("feed", operand.nbytes, place=i))
            self._put(v, Placed(operand, self.feeds[i]))
        runs = in_runs(self._grouped(self.nodes), self._alike)
        for value, feed in targets(self.graph.outputs, self.fed, runs, self.in_place).items():
            self._targets[value] = Placed(placed_operand(self.fed[feed]), self.feeds[feed])
        for run in runs:
            if len(run) == 1 or not self._together(run):
                for group in run:
                    self._lower(group)
        self._results()
        self._lifetimes()
        return self

    def _grouped(self, nodes: Sequence[Node], *, alone: bool = False) -> list[Group]:
        def fuses(node: Node) -> bool:
            rule = LOWERINGS.get(node.op.name)
            return not alone and rule is not None and rule.fuses is not None and native(node)

        def accepts(node: Node, expression: Expr) -> bool:
            applies = LOWERINGS[node.op.name].fuses
            return applies is not None and applies(expression)

        return group_nodes(
            self.graph, nodes, fuses=fuses, native=native, supports=supports, elements=ELEMENTS, accepts=accepts
        )

    def _alike(self, group: Group) -> Any:
        """Return what updates of parameters share that can be one launch; None for a group that goes alone."""
        if group.node.op.name not in LOWERINGS or not native(group.node):
            return None
        return together(cast(Site, NodeSite(self, group, group.node.op.name)))

    def _together(self, run: Sequence[Group]) -> bool:
        """Let the updates of many parameters be one launch; whether they are."""
        mark = len(self.steps), len(self.storages), len(self._journal)
        sites = [NodeSite(self, group, group.node.op.name) for group in run]
        try:
            if multi_tensor(cast(list[Site], sites), sites[-1]):
                for site in sites:
                    site.done(self.steps[mark[0] :])
                for step in sites[-1].steps:
                    step.node, step.ops = None, (f"{sites[0].op} of {len(run)}",)
                return True
        except (KernelError, RuntimeError) as error:
            warnings.warn(f"updates of parameters run one by one: {error}", RuntimeWarning, stacklevel=2)
        self._rewind(*mark)
        return False

    # what lies where ---------------------------------------------------------------------------------------------

    def storage(self, nbytes: int) -> Storage:
        """Return memory of the arena."""
        self.storages.append(Storage("arena", nbytes))
        return self.storages[-1]

    def _put(self, v: Value, ref: Placed) -> None:
        self._places.setdefault(id(v), []).append(ref)
        self._journal.append(id(v))

    def _rewind(self, steps: int, storages: int, journal: int) -> None:
        del self.steps[steps:], self.storages[storages:]
        while len(self._journal) > journal:
            self._places[self._journal.pop()].pop()

    def weight(self, v: Value, lies: Lies) -> Placed:
        """Return a value that depends on weights alone, in memory that stays."""
        slot = self.store.slot(self.part, v, lies)
        return Placed(slot.operand, Storage("weight", slot.operand.nbytes, slot=slot))

    def _refs(self, v: Value) -> list[Placed]:
        found = self._places.get(id(v))
        if not found:
            if not self.part.covers(v):
                raise KernelError(f"{v!r} is not in memory")
            self._put(v, self._origin(v))
            found = self._places[id(v)]
        return found

    def _origin(self, v: Value) -> Placed:
        """Return what depends on weights alone, as a view of what it is made of by moving nothing."""
        node = v.node
        source = node.args[0] if node is not None and node.op in VIEWS else None
        if isinstance(source, Value) and self.part.covers(source) and not v.is_constant:
            whole = self._refs(source)[0]
            seen = _views(node.op, whole.operand, node)  # type: ignore[union-attr, arg-type]
            if seen is not None:
                return Placed(seen[v.index], whole.storage)
        return self.weight(v, "plain")

    def read(self, v: Value, order: Order, node: Node | None) -> Placed:
        """Return a value lying as asked; it is copied where it does not."""
        refs = self._refs(v)
        if order == "any":
            return refs[0]
        for ref in refs:
            if ref.operand.contiguous if order == "plain" else ref.operand.channels_last:
                return ref
        if self.part.covers(v):
            self._put(v, self.weight(v, "channels_last" if order == "channels_last" else "plain"))
        else:
            if order == "channels_last" and v.ndim < 3:
                raise KernelError(f"{v!r} has no channels to lie last")
            operand = _lying(v, order)
            made = Placed(operand, self.storage(operand.nbytes))
            self._copy(refs[0], made, node)
            self._put(v, made)
        return self._places[id(v)][-1]

    def _copy(self, source: Placed, target: Placed, node: Node | None) -> None:
        """Add what brings a tensor into other memory."""
        a, b = source.operand, target.operand
        work: Any = Copy(source, target)
        if a.size and (a.strides != b.strides or not (b.contiguous or b.channels_last)):
            from ...ops.kernels.cuda.copy import copying

            try:
                work = copying(source, target)
                work.check()
                self.runner.load(work.kernel)
            except KernelError:
                work = Copy(source, target)
        self.steps.append(Step(work, node, ("copy",)))

    def output(self, v: Value, order: Order) -> Placed:
        """Return memory for what a group makes."""
        operand = _lying(v, order if v.ndim > 2 else "plain")
        target = self._targets.get(id(v))
        if target is not None and target.operand.strides == operand.strides:
            ref = target
        else:
            ref = Placed(operand, self.storage(operand.nbytes))
        self._put(v, ref)
        return ref

    def wants_last(self, group: Group, v: Value) -> bool:
        """Whether what a group makes is to lie channels last, as what it is made of does."""
        if v.ndim < 3 or v.shape[1] == 1 or all(n == 1 for n in v.shape[2:]):
            return False
        if group.anchor is not None and group.anchor.op.name in _LAST:
            return True
        same = [r for r in group.reads() if isinstance(r.type, TensorType) and r.ndim == v.ndim]
        full = [r for r in same if r.shape == v.shape] or same[:1]
        if group.anchor is None or group.anchor.op is layout.concat:
            return any(self._last(r) for r in full if r.shape[1] != 1)
        return bool(full) and self._last(full[0])

    def _last(self, v: Value) -> bool:
        if not self._places.get(id(v)):
            return False
        operand = self._places[id(v)][0].operand
        return operand.channels_last and not operand.contiguous

    # lowering ----------------------------------------------------------------------------------------------------

    def _lower(self, group: Group) -> None:
        node = group.node
        outputs = [group.output, *node.outputs] if group.anchor is None else [group.output, *node.outputs[1:]]
        if all(0 in v.shape for v in outputs):
            for v in {id(v): v for v in outputs}.values():
                self.output(v, "plain")
            return
        if group.anchor is not None and len(group.nodes) == 1 and self._viewed(node):
            return
        reason = "it has no kernel for CUDA"
        if all(native(n) for n in group.nodes):
            names = ["pointwise"] if group.anchor is None and group.expression is not None else []
            names += [group.anchor.op.name] if group.anchor is not None else []
            for name in names:
                refusal = self._ruled(group, name)
                if refusal is None:
                    return
                reason = refusal
        if len(group.nodes) > 1:
            self._apart(group)
        elif group.anchor is None and group.expression is not None and node.op.name in LOWERINGS:
            self._lower(Group(node, [node], node.outputs[0]))
        else:
            self._on_arrays(group, node, reason)

    def _ruled(self, group: Group, name: str) -> str | None:
        """Let a rule lower a group; return why it does not, None where it has."""
        rule = LOWERINGS.get(name)
        if rule is None:
            return "it has no kernel for CUDA"
        mark = len(self.steps), len(self.storages), len(self._journal)
        try:
            site = NodeSite(self, group, name)
            if rule.rule(cast(Site, site)):
                site.done()
                return None
            reason = "no kernel for these types, sizes and attributes"
        except KernelError as error:
            reason = str(error)
        except Exception as error:  # a rule that stumbles costs speed, not the model
            reason = f"its rule failed: {type(error).__name__}: {error}"
            label = group.node.name or group.node.op.name
            warnings.warn(f"{label}: {reason}; it runs its array kernel", RuntimeWarning, stacklevel=2)
        self._rewind(*mark)
        return reason

    def _apart(self, group: Group) -> None:
        """Lower a group that has no kernel in smaller ones: its anchor by itself, or its nodes one by one."""
        rest = group.nodes
        if group.anchor is not None:
            self._lower(Group(group.anchor, [group.anchor], group.anchor.outputs[0]))
            rest = group.nodes[1:]
        parts = [rest] if group.anchor is not None else [[n] for n in rest]
        for part in parts:
            for smaller in self._grouped(part, alone=True):
                self._lower(smaller)

    def _viewed(self, node: Node) -> bool:
        """Place a node's outputs as views of its input, if they are."""
        source = node.args[0] if node.args else None
        if node.op not in MOVES or not isinstance(source, Value):
            return False
        found = [(ref, seen) for ref in self._refs(source) if (seen := _views(node.op, ref.operand, node)) is not None]
        if not found and node.op is not broadcast_to:
            plain = self.read(source, "plain", node)
            seen = _views(node.op, plain.operand, node)
            found = [] if seen is None else [(plain, seen)]
        for ref, operands in found:
            for v, operand in zip(node.outputs, operands, strict=True):
                self._put(v, Placed(operand, ref.storage))
        return bool(found)

    def _on_arrays(self, group: Group, node: Node, reason: str) -> None:
        """Run a node's array kernel."""

        def given(a: Any) -> Any:
            if isinstance(a, list):
                return [given(x) for x in a]
            return self.read(a, "any", node) if isinstance(a, Value) else a

        arguments = tuple(given(a) for a in node.args)
        results = tuple(self.output(v, "channels_last" if self.wants_last(group, v) else "plain") for v in node.outputs)
        kernel = node.op.select([argument_type(a) for a in node.args], node.attrs)
        attrs = {k: self._moved(a) if has_graph(a) else a for k, a in node.attrs.items()}
        self.refused.append(f"{node.name or node.outputs[0].name} ({node.op.name}): {reason}")
        self.steps.append(Step(ArrayCall(node, kernel, arguments, attrs, results, reason), node, (node.op.name,)))

    def _moved(self, body: Any) -> Any:
        """Return a body of control flow with its constants on the device."""
        return body.with_graph(move_constants(body.graph, self.runner.array).graph)

    # results ----------------------------------------------------------------------------

    def _results(self) -> None:
        """Bring to the feeds what overwrites them, when everything else has been read from them."""
        overwritten = {id(self.feeds[feed]) for feed in self.in_place.values()}
        for i, v in enumerate(self.graph.outputs):
            ref = self._refs(v)[0]
            own = i in self.in_place and ref.storage is self.feeds[self.in_place[i]]
            if not own and id(ref.storage) in overwritten:
                kept = Placed(_lying(v, "plain"), self.storage(ref.operand.nbytes))
                self._copy(ref, kept, None)
                ref = kept
            self.outputs.append(ref)
        for i, feed in self.in_place.items():
            if self.outputs[i].storage is not self.feeds[feed]:
                target = Placed(placed_operand(self.fed[feed]), self.feeds[feed])
                self._copy(self.outputs[i], target, None)
                self.outputs[i] = target

    def _lifetimes(self) -> None:
        for n, step in enumerate(self.steps):
            for s in step.storages():
                s.first = n if s.first < 0 else s.first
                s.last = n
        for ref in self.outputs:
            ref.storage.first = max(ref.storage.first, 0)
            ref.storage.last = len(self.steps)


def why_not(graph: Graph) -> str:
    """Return why a graph cannot be a program of known sizes; nothing where it can."""
    if graph.captures:
        return "it is the body of another graph"
    for v in (*graph.values(), *(v for n in graph.nodes for v in n.inputs()), *graph.outputs):
        t = v.type
        where = f"{v.name!r}, made by {v.node.op.name}," if v.node is not None else f"{v.name!r}"
        if not isinstance(t, TensorType):
            return f"{where} is {t}, no tensor"
        if t.dtype.kind in "OSUT":
            return f"{where} holds {t.dtype}"
        if t.known_shape is None or not all(isinstance(d, int) for d in t.known_shape):
            return f"the sizes of {where} are known only when it has been computed: {t}"
    return ""


def native(node: Node) -> bool:
    """Whether all that a node reads and makes has elements that kernels are written for."""
    return all(v.dtype in ELEMENTS for v in (*node.inputs(), *node.outputs))


def _lying(v: Value, order: Order) -> Operand:
    shape = tuple(int(d) for d in v.shape)
    if order == "channels_last":
        return Operand(v.dtype, shape, channels_last_strides(shape))
    return packed(v.dtype, shape)


def _views(op: Op, operand: Operand, node: Node) -> list[Operand] | None:
    """Return each output of a node as a view of an operand; None where it is none."""
    types = tuple(v.tensor_type for v in node.outputs)
    if op is broadcast_to:
        return [operand.broadcast_to(tuple(int(d) for d in types[0].shape))]
    seen = view(op, Strided(operand.dtype, operand.shape, operand.strides), node.attrs, types)
    if seen is None:
        return None
    found = []
    for made, start in seen:
        shape, strides = tuple(int(d) for d in made.shape), tuple(int(s) for s in made.strides)
        found.append(Operand(operand.dtype, shape, strides, operand.offset + int(start)))
    return found
