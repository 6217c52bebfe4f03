"""From a graph to a program: groups, layouts, kernels, stages.

Nodes that depend on weights alone are hoisted out. Of the rest, nodes are grouped (`groups`), views cost nothing
(`views`), rules (`ops/kernels/cpu`) turn groups into kernel calls, and what no rule takes runs its array kernel
between them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from ...ops import layout
from ...ops.dims import Dim, DimLike, Shape, product, symbols_in
from ...ops.errors import KernelError
from ...ops.kernels.cpu import load_rules
from ...ops.kernels.cpu.bfloat16 import convert_kernel
from ...ops.kernels.cpu.copy import copy_kernel, zero_halo_kernel
from ...ops.kernels.cpu.kernel import Kernel
from ...ops.kernels.cpu.lowering import LOWERINGS, Elements, Order, Site
from ...ops.kernels.cpu.operand import Halo, Operand, channels_last, packed
from ...ops.kernels.cpu.pointwise import supports
from ...ops.kernels.cpu.target import host_target
from ...ops.types import BFLOAT16, Array, TensorType
from ..graph.graph import Graph, Node, Value
from ..graph.plan import live_nodes
from ..passes.rewriting import has_graph
from .arrangement import Arrangement
from .bodies import compiled_attributes
from .choice import check_precision
from .eligible import Eligible, argument_type, split_weights
from .groups import Group, group_nodes
from .rounding import rounded_values
from .site import NodeSite
from .stages import HostStep, Origin, Ref, RefusedError, SlotArg, Stage, Storage, side_by_side, written
from .views import VIEWS, view
from .weights import AS_IT_IS, Slot, Weights


class Compiler:
    """Compiles one graph.

    Args:
        graph: after the DEVICE passes.
        exact: without algorithms of larger rounding errors.
        precision: `float32`, or `bf16` to multiply operands rounded to bfloat16 in convolutions and products of
            matrices.
        hoist: whether state is weights that rarely change; else its entries are feeds, behind the inputs (training).
        without: names of nodes that run their array kernels.
        make: compiles the graph of a body.
    """

    def __init__(
        self, graph: Graph, *, exact: bool = False, hoist: bool = True,
        without: frozenset[str] = frozenset(), make: Any = None, precision: str = "float32",
    ) -> None:  # fmt: skip
        """Prepare; `compile` does the work.

        Raises:
            InputError, KernelError: if the precision is unknown or cannot be had.
        """
        load_rules()
        check_precision(precision)
        self.precision = precision
        self.make = make
        self.graph, self.exact, self.target = graph, exact, host_target()
        nodes = live_nodes(graph)
        hoisted, rest = split_weights(graph, nodes) if hoist else ([], nodes)
        self.nodes = rest
        self.weights = Weights(graph, hoisted)
        self.fed = [*graph.inputs, *graph.keys, *(inner for _, inner in graph.captures)]
        if not hoist:
            self.fed += list(graph.state.values())
            self.weights._depends.clear()
        self.symbols = {
            d.name for v in self.fed if isinstance(v.type, TensorType) for d in v.type.known_shape or ()
            if isinstance(d, Dim) and d.name
        }  # fmt: skip
        self.eligible = Eligible(self.symbols, without)
        self.arrangement = Arrangement(graph, self.eligible)
        self.stages: list[Stage] = []
        self.slots: dict[int, int] = {id(v): i for i, v in enumerate(self.fed)}
        self.slot_count = len(self.fed)
        self.places: dict[int, list[Ref]] = {}
        self.outputs: list[tuple[str, Any]] = []
        self.storages: list[Storage] = []
        self.refused: list[str] = []
        self.flags: list[tuple[Ref, str, Node]] = []
        self.told: list[TensorType] = []

    def compile(self) -> Compiler:
        """Lower every node."""
        self._feeds()
        groups = group_nodes(
            self.graph, self.nodes, fuses=self.eligible.fuses, native=self.eligible.native, supports=supports
        )
        self.arrangement.choose_orders(groups)
        self.arrangement.choose_halos(groups)
        if self.precision == "bf16":
            self.arrangement.rounded = rounded_values(
                self.graph, groups, self.eligible.native, lambda g: NodeSite(self, g, g.node.op.name)
            )
        self.arrangement.choose_homes(groups)
        self.wanted_outputs = {id(v): i for i, v in reversed(list(enumerate(self.graph.outputs)))}
        for group in groups:
            self._lower(group)
        self._results()
        self.weights.keep_slots({id(s.slot) for s in self.storages})
        self.stages = side_by_side(self.stages)
        self._lifetimes()
        return self

    # what lies where ---------------------------------------------------------------------------------------------

    def _feeds(self) -> None:
        for i, v in enumerate(self.fed):
            if isinstance(v.type, TensorType) and v.type.known_shape is not None and self.eligible.bound(v.type):
                storage = self._storage("feed", v.dtype, product(v.shape), place=i)
                self.places[id(v)] = [Ref(packed(v.dtype, v.shape), storage)]

    def _storage(self, kind: str, dtype: Any, elements: DimLike, **more: Any) -> Storage:
        storage = Storage(kind, np.dtype(dtype), elements, **more)
        self.storages.append(storage)
        return storage

    def refs_of(self, v: Value) -> list[Ref]:
        """Return where a value lies; weights and constants get their slot when first asked for."""
        found = self.places.get(id(v))
        if found is None and self.weights.covers(v):
            found = self.places[id(v)] = [self._weight(v, AS_IT_IS, lambda a: a, v.tensor_type)]
        if found is None:
            found = self.places[id(v)] = [self._upload(v)]
        return found

    def _weight(self, v: Value, how: str, pack: Callable[[Array], Array], t: TensorType) -> Ref:
        storage = self._storage("weight", t.dtype, product(t.shape), slot=self.weights.slot(v, how, pack))
        return Ref(packed(t.dtype, t.shape), storage)

    def origin(self, v: Value) -> Origin:
        """Return a value that depends on weights alone as a view of the one that it is made of by moving nothing."""
        node = v.node
        source = node.args[0] if node is not None and node.op in VIEWS else None
        if isinstance(source, Value) and self.weights.covers(source):
            found = self.origin(source)
            types = tuple(o.tensor_type for o in node.outputs)  # type: ignore[union-attr]
            seen = view(node.op, found.operand, node.attrs, types)  # type: ignore[union-attr]
            if seen is not None and isinstance(seen[v.index][1], int):
                return Origin(seen[v.index][0], found.value, found.start + int(seen[v.index][1]))
        return Origin(packed(v.dtype, v.shape), v)

    def _upload(self, v: Value) -> Ref:
        """Return a value that Python holds as memory that kernels read."""
        if id(v) not in self.slots or not isinstance(v.type, TensorType):
            raise RefusedError(f"{v!r} is not in memory")
        storage = self._storage("host", v.dtype, product(v.shape), place=self.slots[id(v)])
        return Ref(packed(v.dtype, v.shape), storage)

    # lowering ----------------------------------------------------------------------------------------------------

    def _lower(self, group: Group) -> None:
        node = group.node
        if all(self._told(v) for n in group.nodes for v in n.outputs):
            return
        if group.anchor is not None and len(group.nodes) == 1 and self._viewed(node):
            return
        if group.anchor is not None and node.op is layout.concat and self.eligible.native(node):
            self._joined(node)
            return
        if group.anchor is None and group.expression is not None:
            name = "pointwise"
        elif group.anchor is not None:
            name = group.anchor.op.name
        else:
            name = ""
        rule = LOWERINGS.get(name)
        reason = "no compiled kernel"
        if rule is not None and all(self.eligible.native(n) for n in group.nodes):
            mark = self._mark()
            try:
                site = NodeSite(self, group, name)
                if rule.rule(cast(Site, site)):
                    site.done()
                    return
            except RefusedError as refusal:
                reason = str(refusal)
            except Exception as error:  # a rule that stumbles costs speed, not the model
                reason = f"its rule failed: {type(error).__name__}: {error}"
                warnings.warn(f"{node.name or node.op.name}: {reason}; it runs its array kernel", RuntimeWarning, 2)
            self._rewind(mark)
            if name == "pointwise" or len(group.nodes) > 1:
                self._apart(group)
                return
        self._on_host(node, reason)

    def _told(self, v: Value) -> bool:
        """Place a small integer tensor whose elements follow from the sizes of the feeds: nothing computes it."""
        t = v.type
        if not isinstance(t, TensorType) or t.contents is None or not self.eligible.bound(t):
            return False
        if not all(s in self.symbols for s in symbols_in(t.contents)):
            return False
        storage = self._storage("told", t.dtype, product(t.shape), place=len(self.told))
        self.told.append(t)
        self.places[id(v)] = [Ref(packed(t.dtype, t.shape), storage)]
        return True

    def _joined(self, node: Node) -> None:
        """Bring the inputs of a concatenation behind each other; those that were written there are there already."""
        out, axis = node.outputs[0], node.attrs["axis"]
        axis = axis + out.ndim if axis < 0 else axis
        inputs = list(node.inputs())
        firsts = [self.refs_of(v)[0] for v in inputs]
        start: DimLike = firsts[0].start
        whole = firsts[0]
        for v, ref in zip(inputs, firsts, strict=True):
            same = ref.storage is whole.storage and ref.operand.strides == whole.operand.strides
            if not same or ref.start != start or ref.storage.kind != "arena":
                break
            start = start + v.shape[axis] * ref.operand.strides[axis]
        else:
            halo = whole.operand.halo if axis == 1 else ()
            operand = Operand(whole.operand.dtype, out.shape, whole.operand.strides, halo, 0)
            if id(out) not in self.places or self.places[id(out)][0].storage is whole.storage:
                self.places[id(out)] = [Ref(operand, whole.storage, whole.start)]
                return
        order = self.arrangement.orders.get(id(out), "plain")
        made = self.places.get(id(out), [None])[0] or self.home(out, order) or self._make(out, order)
        assert made is not None
        self.places[id(out)] = [made]
        calls = []
        start = 0
        for v, ref in zip(inputs, firsts, strict=True):
            piece = Operand(made.operand.dtype, v.shape, made.operand.strides)
            target = Ref(piece, made.storage, made.start + start * made.operand.strides[axis])
            start = start + v.shape[axis]
            if ref.storage is made.storage and ref.start == target.start:
                continue
            calls.append(written(self._copied(ref.operand, piece), (ref, target), node))
        if calls:
            self.stages.append(Stage(calls))

    def _mark(self) -> tuple[Any, ...]:
        return len(self.stages), len(self.storages), {k: list(v) for k, v in self.places.items()}, len(self.flags)

    def _rewind(self, mark: tuple[Any, ...]) -> None:
        stages, storages, places, flags = mark
        del self.stages[stages:], self.storages[storages:], self.flags[flags:]
        self.places = places

    def _apart(self, group: Group) -> None:
        """Run the nodes of a group that has no kernel one by one."""
        for node in group.nodes:
            single = Group(node, [node], node.outputs[0])
            if len(group.nodes) > 1 and (group.anchor is not node or LOWERINGS.get(node.op.name) is not None):
                made = group_nodes(
                    self.graph, [node], fuses=lambda n: False, native=self.eligible.native, supports=supports
                )
                single = made[0]
            if len(group.nodes) == 1:
                self._on_host(node, "no compiled kernel")
            else:
                self._lower(single)

    def _viewed(self, node: Node) -> bool:
        """Place a node's outputs as views of its input, if they are."""
        if node.op not in VIEWS or not self.eligible.native(node):
            return False
        source = node.args[0]
        if not isinstance(source, Value):
            return False
        types = tuple(v.tensor_type for v in node.outputs)
        refs = self.refs_of(source)
        for ref in refs:
            seen = view(node.op, ref.operand, node.attrs, types)
            if seen is not None:
                for out, (operand, start) in zip(node.outputs, seen, strict=True):
                    self.places.setdefault(id(out), []).append(Ref(operand, ref.storage, ref.start + start))
        if id(node.outputs[0]) in self.places:
            return True
        plain = self.read(source, "plain", (), node)
        seen = view(node.op, plain.operand, node.attrs, types)
        if seen is None:
            return False
        for out, (operand, start) in zip(node.outputs, seen, strict=True):
            self.places[id(out)] = [Ref(operand, plain.storage, plain.start + start)]
        return True

    def _on_host(self, node: Node, reason: str) -> None:
        """Run a node's array kernel."""
        args = tuple(self._host_argument(a) for a in node.args)
        types = [argument_type(a) for a in node.args]
        outs = []
        for v in node.outputs:
            self.slots[id(v)] = self.slot_count
            outs.append(self.slot_count)
            self.slot_count += 1
        self.refused.append(f"{node.name or node.op.name} ({node.op.name}): {reason}")
        symbolic = any(hasattr(a, "free_symbols") or any(True for _ in symbols_in(a)) for a in node.attrs.values())
        kernel = node.op.select(types, node.attrs)
        attrs = node.attrs
        if any(map(has_graph, attrs.values())):
            attrs = compiled_attributes(node, self.weights, self._held, self.make)
        self.stages.append(Stage(host=HostStep(node, kernel, args, tuple(outs), reason, symbolic, attrs)))

    def _held(self, v: Value) -> Slot:
        """Return the slot of a weight as it is."""
        return self.weights.slot(v, AS_IT_IS, lambda a: a)

    def _host_argument(self, a: Any) -> Any:
        if isinstance(a, list):
            return [self._host_argument(v) for v in a]
        if not isinstance(a, Value):
            return a
        if a.is_constant:
            return a.array
        if id(a) in self.slots:
            return SlotArg(self.slots[id(a)])
        if id(a) in self.places or self.weights.covers(a):
            return self.read(a, "any", (), None)
        raise KernelError(f"{a!r} is not defined before it is read")

    def _copied(self, source: Operand, target: Operand) -> Kernel:
        """Return the kernel that copies a tensor, to another element type where it has to be."""
        if source.dtype == target.dtype:
            return copy_kernel(source, target)
        return convert_kernel(self.target, source, target)

    def read(self, v: Value, order: Order, halo: Halo, node: Node | None, elements: Elements = "own") -> Ref:
        """Return a value lying as asked; copy it where it does not."""
        every = self.refs_of(v)
        dtype = BFLOAT16 if elements == "bfloat16" else every[0].operand.dtype if elements == "stored" else v.dtype
        refs = [r for r in every if r.operand.dtype == dtype]
        if not refs and order == "any":
            order = "channels_last" if every[0].operand.channels_last and isinstance(v.shape[1], int) else "plain"
        if order == "any" and not halo:
            return refs[-1] if self.arrangement.last(v) and len(refs) > 1 else refs[0]
        for ref in refs:
            if (order == "channels_last" and ref.operand.channels_last and ref.operand.has_halo(halo)) or (
                order == "plain" and ref.operand.contiguous
            ):
                return ref
        shape = v.shape
        if self.weights.covers(v) and dtype == v.dtype and order == "channels_last" and not halo:
            last = Operand(dtype, shape, channels_last(dtype, shape)[0].strides)
            ref = self._weight(v, "channels last", pack_channels_last, v.tensor_type)
            every.append(Ref(last, ref.storage))
            return every[-1]
        if order == "channels_last":
            wanted = self.arrangement.halos.get(id(v), halo) if halo else halo
            if not isinstance(shape[1], int):
                raise RefusedError(f"the number of channels of {v!r} is known only at run time")
            ref = self._channels_last(dtype, shape, wanted)
            if ref.operand.halo:
                self.stages.append(Stage([written(zero_halo_kernel(ref.operand), (ref,), node)]))
        else:
            ref = Ref(packed(dtype, shape), self._storage("arena", dtype, product(shape)))
        source = refs[0] if refs else every[0]
        copied = written(self._copied(source.operand, ref.operand), (source, ref), node)
        if ref.operand.halo:
            self.stages[-1].calls.append(copied)
        else:
            self.stages.append(Stage([copied]))
        every.append(ref)
        return ref

    def _channels_last(self, dtype: Any, shape: Shape, halo: Halo) -> Ref:
        lanes = self.target.lanes(dtype)
        channels = int(shape[1])
        multiple = lanes if not self.target.masks and channels >= lanes else 1
        operand, elements, start = channels_last(np.dtype(dtype), shape, halo, multiple)
        return Ref(operand, self._storage("arena", dtype, elements), start)

    def home(self, v: Value, order: Order) -> Ref | None:
        """Return the place of a value inside the concatenation that it becomes part of."""
        if id(v) not in self.arrangement.homes:
            return None
        out, start, axis = self.arrangement.homes[id(v)]
        if id(out) not in self.places:
            whole = self.home(out, order)
            if whole is None:
                whole = self._make(out, order)
            self.places[id(out)] = [whole]
        whole = self.places[id(out)][0]
        if (order == "channels_last") != whole.operand.channels_last or self.arrangement.lies_as(
            v
        ) != whole.operand.dtype:
            return None
        halo = whole.operand.halo
        if halo and axis > 1:
            return None
        operand = Operand(whole.operand.dtype, v.shape, whole.operand.strides, halo, 0)
        wanted = self.arrangement.halos.get(id(v), ())
        if wanted and not operand.has_halo(wanted):
            return None
        return Ref(operand, whole.storage, whole.start + start * whole.operand.strides[axis])

    def _make(self, v: Value, order: Order, dtype: Any = None) -> Ref:
        dtype = dtype or self.arrangement.lies_as(v)
        if order == "channels_last" and v.ndim > 2 and isinstance(v.shape[1], int):
            ref = self._channels_last(dtype, v.shape, self.arrangement.halos.get(id(v), ()))
            if ref.operand.halo:
                self.stages.append(Stage([written(zero_halo_kernel(ref.operand), (ref,), None)]))
            return ref
        i = self.wanted_outputs.get(id(v))
        if i is not None and v.dtype == dtype:
            return Ref(packed(dtype, v.shape), self._storage("output", dtype, product(v.shape), place=i))
        return Ref(packed(dtype, v.shape), self._storage("arena", dtype, product(v.shape)))

    # results -----------------------------------------------------------------------------------------------------

    def _results(self) -> None:
        """Bring every output of the graph, and every update, into an array of its own."""
        for i, v in enumerate((*self.graph.outputs, *self.graph.updates.values())):
            if v.is_constant:
                self.outputs.append(("constant", v.array))
            elif id(v) in self.slots and (id(v) not in self.places or self.slots[id(v)] >= len(self.fed)):
                self.outputs.append(("slot", self.slots[id(v)]))
            else:
                self.read(v, "any", (), None)
                refs = [r for r in self.refs_of(v) if r.operand.dtype == v.dtype]
                mine = [r for r in refs if r.storage.kind == "output" and r.storage.place == i]
                if not mine:
                    ref = Ref(packed(v.dtype, v.shape), self._storage("output", v.dtype, product(v.shape), place=i))
                    self.stages.append(
                        Stage([written(copy_kernel(refs[0].operand, ref.operand), (refs[0], ref), None)])
                    )
                self.outputs.append(("output", i))

    def _lifetimes(self) -> None:
        for n, stage in enumerate(self.stages):
            refs = [r for c in stage.calls for r in c.refs]
            if stage.host is not None:
                refs += [r for a in stage.host.args for r in (a if isinstance(a, list) else [a]) if isinstance(r, Ref)]
            for r in refs:
                s = r.storage
                s.first = n if s.first < 0 else s.first
                s.last = n


def pack_channels_last(array: Array) -> Array:
    """Return an array with axis 1 innermost."""
    return np.moveaxis(array, 1, -1)
