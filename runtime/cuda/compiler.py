"""From a graph of known sizes to steps: groups, views, layouts, rules, array kernels where there is no rule.

Nodes that depend on weights alone are hoisted out (`weights`). Of the rest, pointwise chains and the pointwise tails of
kernels become groups; reshapes, permutations, slices and broadcasts are views; rules (`ops/kernels/cuda`) turn groups
into launches and calls. What kernels compute as they read is not written: casts to float32 (`widening`), pointwise ops
before reductions (`prologues`).

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
from ...ops.kernels.cuda import load_rules
from ...ops.kernels.cuda.expression import supports
from ...ops.kernels.cuda.lowering import LOWERINGS, Prologue, Site
from ...ops.kernels.cuda.optimize import multi_tensor, together
from ...ops.kernels.cuda.prelude import C_TYPES
from ...ops.types import BFLOAT16, TensorType
from ..compiled.eligible import argument_type, split_weights
from ..compiled.groups import Group, group_nodes
from ..graph.graph import Graph, Node, Value
from ..graph.plan import live_nodes
from ..passes.convert_values import move_constants
from ..passes.rewriting import has_graph
from .arena import Placed, Storage
from .casts import cast_together, casts_first
from .places import Places, views_of
from .prologues import prologue, with_casts, with_prologues
from .readers import Readers, complete
from .site import NodeSite
from .steps import ArrayCall, Step
from .updates import MOVES, in_runs, statistics_last, targets
from .weights import Hoisted, WeightStore, lying
from .widening import Widenings

ELEMENTS = tuple(BFLOAT16 if name == "bfloat16" else np.dtype(name) for name in C_TYPES)
"""The element types that kernels are written for."""


class Compiler(Places):
    """Compiles one graph.

    Args:
        graph: of known sizes; see `why_not`.
        store: the weights of the programs of this model, on the device that it is for.
        in_place: which feeds are overwritten in the end, by the outputs that become what they hold.
        tf32: whether products of float32 may round their operands to TF32.

    Attributes:
        steps: in order.
        feeds: the storage of each feed.
        outputs: where each output lies in the end.
        flags: what kernels that meet bad input set.
        refused: the nodes that run their array kernels, and why.
        declined: the nodes that run without the library that is best for them, and why.
    """

    def __init__(
        self, graph: Graph, store: WeightStore, *, in_place: Mapping[int, int] | None = None, tf32: bool = False
    ) -> None:
        """Prepare; `compile` does the work."""
        load_rules()
        nodes = live_nodes(graph)
        hoisted, self.nodes = split_weights(graph, nodes)
        readers = Readers(graph, nodes)
        widenings = Widenings(self.nodes, readers, LOWERINGS, ELEMENTS)
        super().__init__(store, Hoisted(graph, hoisted), readers, widenings)
        self.graph, self.tf32 = graph, tf32
        self.fed = [*graph.inputs, *graph.keys]
        self.in_place = dict(in_place or {})
        self.feeds: list[Storage] = []
        self.outputs: list[Placed] = []
        self.flags: list[Storage] = []
        self.refused: list[str] = []
        self.declined: list[str] = []

    def compile(self) -> Compiler:
        """Lower every node."""
        for i, v in enumerate(self.fed):
            operand = lying(v)
            self.feeds.append(Storage("feed", operand.nbytes, place=i))
            self._put(v, Placed(operand, self.feeds[i]))
        nodes = statistics_last(self.nodes, self.readers)
        groups = self._grouped(nodes)
        if self.widenings.found_in(groups):
            groups = self._grouped(nodes)
        groups = with_casts(with_prologues(groups, self.readers, LOWERINGS), self.readers, LOWERINGS)
        early, groups = casts_first(groups, self.fed, self.readers)
        runs = [*early, *in_runs(groups, self._alike)]
        for value, feed in targets(self.graph.outputs, self.fed, runs, self.in_place).items():
            self._targets[value] = Placed(lying(self.fed[feed]), self.feeds[feed])
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
            self.graph, nodes, fuses=fuses, native=lambda n: native(n) and n not in self.widenings, supports=supports,
            elements=ELEMENTS, accepts=accepts, rounds=True,
        )  # fmt: skip

    def _alike(self, group: Group) -> Any:
        """Return what updates of parameters share that can be one launch; None for a group that goes alone."""
        if group.node.op.name not in LOWERINGS or not native(group.node):
            return None
        return together(cast(Site, NodeSite(self, group, group.node.op.name)))

    def _together(self, run: Sequence[Group]) -> bool:
        """Let the casts or the updates of many parameters be one launch; whether they are."""
        mark = self.mark()
        sites = [NodeSite(self, group, group.node.op.name) for group in run]
        try:
            if cast_together(sites) or multi_tensor(cast(list[Site], sites)):
                for site in sites:
                    site.done(self.steps[mark.steps :])
                for step in sites[-1].steps:
                    step.node, step.ops = None, (f"{sites[0].op} of {sum(s.op == sites[0].op for s in sites)}",)
                return True
        except (KernelError, RuntimeError) as error:
            warnings.warn(f"{sites[0].op} of {len(run)} tensors run one by one: {error}", RuntimeWarning, stacklevel=2)
        self.rewind(mark)
        return False

    def prologue(self, group: Group) -> Prologue | None:
        """Return pointwise ops for a kernel that computes them as it reads, if their tensors lie alike."""
        last = self.wants_last(group, group.output)
        values = [*map(self.widenings.source, group.operands)]
        return prologue(
            group, [self.along(v, last) if v.shape == group.output.shape else self._refs(v)[0] for v in values]
        )

    # lowering ----------------------------------------------------------------------------------------------------

    def _lower(self, group: Group) -> None:
        node = group.node
        if node in self.widenings and self.widenings.wait(node, self._refs(node.args[0])):
            self._waiting[id(group.output)] = group
            return
        self._waiting.update((id(before.output), before) for before in group.prologues.values())
        self.realise(group)
        if group.rounded is not None and not self._places.get(id(group.rounded.output)):
            self.realise(group.rounded)

    def realise(self, group: Group) -> None:
        """Lower a group, one that has waited too."""
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
        mark = self.mark()
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
        self.rewind(mark)
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
        if node.op is layout.concat:
            return self._joined(node)
        if node.op not in MOVES or not isinstance(source, Value):
            return False
        found = [
            (ref, seen) for ref in self._refs(source) if (seen := views_of(node.op, ref.operand, node)) is not None
        ]
        if not found and node.op is not broadcast_to:
            plain = self.read(source, "plain", node)
            seen = views_of(node.op, plain.operand, node)
            found = [] if seen is None else [(plain, seen)]
        for ref, operands in found:
            for v, operand in zip(node.outputs, operands, strict=True):
                self._put(v, Placed(operand, ref.storage))
        return bool(found)

    def _joined(self, node: Node) -> bool:
        """Place a concatenation whose parts have been made where they belong, if they have."""
        out = node.outputs[0]
        room = self._shared.get((("joined", id(out)), ()))
        if room is None or not complete(node, [self._refs(x) for x in node.inputs()], room):
            return False
        self._put(out, Placed(lying(out, "plain"), room))
        return True

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
            feed = self.in_place.get(i)
            own = feed is not None and ref.storage is self.feeds[feed] and ref.operand == lying(self.fed[feed])
            if not own and id(ref.storage) in overwritten:
                kept = Placed(lying(v, "plain"), self.storage(ref.operand.nbytes))
                self._copy(ref, kept, None)
                ref = kept
            self.outputs.append(ref)
        for i, feed in self.in_place.items():
            if self.outputs[i].storage is not self.feeds[feed]:
                target = Placed(lying(self.fed[feed]), self.feeds[feed])
                self._copy(self.outputs[i], target, None)
                self.outputs[i] = target

    def _lifetimes(self) -> None:
        for n, step in enumerate(self.steps):
            for s in step.storages():
                if s.kind == "flag" and s.first < 0:
                    s.place = len(self.flags)
                    self.flags.append(s)
                s.first = n if s.first < 0 else s.first
                s.last = n
        for ref in self.outputs:
            ref.storage.first = max(ref.storage.first, 0)
            ref.storage.last = len(self.steps)


def why_not(graph: Graph) -> str:
    """Return why a graph cannot be a program of known sizes; nothing where it can."""
    if graph.captures:
        return "it is the body of another graph"
    values = (*graph.values(), *(v for n in graph.nodes for v in n.inputs()), *graph.outputs)
    return next((why for v in values if (why := why_unknown(v))), "")


def why_unknown(v: Value) -> str:
    """Return why a value cannot be one of a program; nothing where it can."""
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
