"""Remove what moves or copies elements without need, and merge what is left.

Cases:
    1. nodes that hand on what they read: identity, dropout in evaluation, cast to the same type, and transpose,
       reshape, squeeze, unsqueeze, flatten, slice, split, expand, tile, pad and concat where nothing moves or grows;
    2. transpose of transpose: one, or none; a transpose that moves axes of size 1 alone is a reshape;
    3. reshape, squeeze, unsqueeze, flatten of one another: one reshape, where the sizes can be said;
    4. concat of a concat along the same axis that nothing else reads;
    5. transpose before pointwise ops, concat, pad and mean goes behind them, where it may meet its inverse (models that
       were exported channels last); operands that are weights are laid out anew instead;
    6. pad with zeros along spatial axes before conv and sum_pool: into their window; a mean counts the same elements.
Refused: values whose sizes have names that attributes mention, where the value that would stand for them has not; pads
of other values, of max_pool, negative, or known only at run time; what is computed of weights alone (it runs once).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...ops import conv as conv_ops, layout, pool, reduce as red
from ...ops.dims import Dim, Shape
from ...ops.extent import axis_of
from ...ops.layout import Pads
from ...ops.op import Op
from ...ops.pointwise import Pointwise
from ...ops.window import Window
from ..graph.graph import Graph, Node, Value
from .extents import mentioned_symbols, stands_for
from .matching import (
    changes_nothing,
    is_ranked,
    is_weight,
    like,
    lined_up,
    made_by,
    number,
    perm_of,
    shape_of,
    weight_values,
)
from .rewriting import PassResult, rebuild

VIEWS = (layout.reshape, layout.squeeze, layout.unsqueeze, layout.flatten)


def merge_layout(graph: Graph) -> PassResult:
    """Merge and remove nodes of layout, in one walk: each rule reads what the ones before it made."""
    merging = _Merging(graph)
    new = rebuild(graph, merging.rewrite)
    return PassResult(new if merging.changed else graph, merging.changed)


class _Merging:
    def __init__(self, graph: Graph) -> None:
        self.mentioned = mentioned_symbols(graph)
        self.weights = weight_values(graph)
        self.aside = {v.node for v in self.weights}
        self.readers = graph.consumers()
        self.results = {*graph.outputs, *graph.updates.values()}
        self.changed = 0

    def rewrite(self, node: Node, args: tuple[Any, ...], new: Graph) -> tuple[Any, ...] | None:
        if node in self.aside or not args or len(node.outputs) != 1 or not is_ranked(node):
            return None
        old = node.outputs[0]
        kept = self._handed_on(node, args)
        if kept is not None:
            self.changed += 1
            return (kept,)
        rule = _RULES.get(node.op, _Merging._sunk if isinstance(node.op, Pointwise) else None)
        before = len(new.nodes)
        made = None if rule is None else rule(self, node, args)
        if made is None:
            return None
        is_new = len(new.nodes) > before and made.node is new.nodes[-1]
        if not is_new and not stands_for(made, old, self.mentioned):
            return None
        self.changed += 1
        return (like(made, old) if is_new else made,)

    def _handed_on(self, node: Node, args: tuple[Any, ...]) -> Value | None:
        """Return the value that a node hands on, None where it does anything."""
        x, old = args[0], node.outputs[0]
        if not isinstance(x, Value) or (x.node is None and old in self.results):
            return None
        does_nothing = _NOTHING.get(node.op)
        if changes_nothing(node) or (does_nothing is not None and does_nothing(node, args)):
            return x if stands_for(x, old, self.mentioned) else None
        return None

    # transpose

    def _transposed(self, node: Node, args: tuple[Any, ...]) -> Value | None:
        x, perm = args[0], perm_of(node)
        inner = made_by(x, layout.transpose)
        if inner is not None:
            first = perm_of(inner)
            perm = tuple(first[p] for p in perm)
            source: Value = inner.args[0]
            if perm == tuple(range(len(perm))):
                return source
            return layout.transpose(source, perm=perm)  # type: ignore[no-any-return]
        moving = [p for p in perm if x.shape[p] != 1]
        if moving == sorted(moving) and (shape := _said(node.outputs[0].shape, x)) is not None:
            return self._viewed(node, (layout.reshape(x, shape=shape),)) or layout.reshape(x, shape=shape)
        return None

    # reshape and its kin

    def _viewed(self, node: Node, args: tuple[Any, ...]) -> Value | None:
        x = args[0]
        inner = made_by(x, *VIEWS)
        if inner is None:
            return None
        source: Value = inner.args[0]
        if shape_of(source) is None or shape_of(node.outputs[0]) is None:
            return None
        if source.shape == node.outputs[0].shape:
            return source
        if node.op is layout.reshape:
            shape = _said(node.outputs[0].shape, source) or node.attrs["shape"]
        else:
            shape = _said(node.outputs[0].shape, source)
        return None if shape is None else layout.reshape(source, shape=shape)

    def _joined(self, node: Node, args: tuple[Any, ...]) -> Value | None:
        axis = node.attrs["axis"]
        parts: list[Any] = []
        for was, x in zip(node.args, args, strict=True):
            inner = made_by(x, layout.concat)
            same = inner is not None and inner.attrs["axis"] == axis and len(self.readers[was]) == 1
            parts += inner.args if inner is not None and same and was not in self.results else [x]
        if len(parts) != len(args):
            return layout.concat(*parts, axis=axis)  # type: ignore[no-any-return]
        return self._sunk(node, args)

    # transposes that go behind what follows

    def _sunk(self, node: Node, args: tuple[Any, ...]) -> Value | None:
        """Return a pointwise op or concat of transposed values as the transpose of it."""
        shape = shape_of(node.outputs[0])
        turned = [made_by(a, layout.transpose) for a in args]
        perms = {perm_of(t) for t in turned if t is not None}
        if shape is None or len(perms) != 1:
            return None
        (perm,) = perms
        rank = len(shape)
        if len(perm) != rank or not self._gains(node, turned):
            return None
        back = tuple(perm.index(i) for i in range(rank))
        inner = []
        for was, a, t in zip(node.args, args, turned, strict=True):
            laid = t.args[0] if t is not None else self._laid_back(was, a, back, whole=node.op is layout.concat)
            if laid is None:
                return None
            inner.append(laid)
        attrs = dict(node.attrs)
        if node.op is layout.concat:
            attrs["axis"] = perm[axis_of(attrs["axis"], rank, "concat")]
        return layout.transpose(node.op(*inner, **attrs), perm=perm)  # type: ignore[no-any-return]

    def _gains(self, node: Node, turned: Sequence[Node | None]) -> bool:
        """Whether a transpose behind the node leaves no more of them than before it."""
        if sum(t is not None for t in turned) > 1:
            return True
        (was,) = (v for v, t in zip(node.args, turned, strict=False) if t is not None)
        if was in self.results:
            return False
        return all(r is node or r.op is layout.transpose or isinstance(r.op, Pointwise) for r in self.readers[was])

    def _laid_back(self, was: Any, a: Any, back: tuple[int, ...], *, whole: bool) -> Any:
        """Return an operand that is no transpose as it lines up with what is not transposed, None where it costs."""
        shape = lined_up(a, len(back))
        if shape is None:
            return None
        if all(d == 1 for d in shape) and not whole:
            return a
        if not is_weight(was, self.weights) or any(isinstance(d, Dim) for d in shape):
            return None
        if sum(d != 1 for d in shape) > 1 or whole:
            wide = a if len(a.shape) == len(back) else layout.reshape(a, shape=shape)
            return layout.transpose(wide, perm=back)
        return layout.reshape(a, shape=tuple(shape[i] for i in back))

    def _padded(self, node: Node, args: tuple[Any, ...]) -> Value | None:
        """Return the pad of a transposed value as the transpose of a pad."""
        turned = made_by(args[0], layout.transpose)
        if turned is None or not self._gains(node, [turned]) or node.attrs.get("axes") is not None:
            return None
        perm, pads = perm_of(turned), node.attrs["pads"]
        inner = layout.pad(
            turned.args[0], *args[1:], **{**node.attrs, "pads": tuple(pads[perm.index(i)] for i in range(len(perm)))}
        )
        return layout.transpose(inner, perm=perm)  # type: ignore[no-any-return]

    def _averaged(self, node: Node, args: tuple[Any, ...]) -> Value | None:
        """Return the mean of a transposed value over the axes as they were before."""
        turned = made_by(args[0], layout.transpose)
        if turned is None or not self._gains(node, [turned]):
            return None
        perm, x = perm_of(turned), turned.args[0]
        axes = red.positive(node.attrs.get("axes"), len(perm))
        inside = tuple(sorted(perm[a] for a in axes))
        if node.attrs.get("keepdims"):
            return layout.transpose(red.mean(x, axes=inside, keepdims=True), perm=perm)  # type: ignore[no-any-return]
        left = [p for i, p in enumerate(perm) if i not in axes]
        return red.mean(x, axes=inside, keepdims=False) if left == sorted(left) else None

    # pads that go into windows

    def _windowed(self, node: Node, args: tuple[Any, ...]) -> Value | None:
        before = made_by(args[0], layout.pad)
        if before is None or before.attrs.get("mode", "constant") != "constant":
            return None
        value = before.args[1] if len(before.args) > 1 else None
        x = before.args[0]
        if shape_of(x) is None or (value is not None and number(value) != 0):
            return None
        pads = layout.all_pads(before.attrs["pads"], before.attrs.get("axes"), len(x.shape))
        if any(not isinstance(p, int) or p < 0 for pair in pads for p in pair) or any(map(any, pads[:2])):
            return None
        win: Window = node.attrs["win"]
        attrs = dict(node.attrs)
        attrs["win"] = Window(win.strides, _widened(win.pads, pads[2:]), win.dilations, win.group)
        if attrs.get("counted") is not None:
            attrs["counted"] = _widened(attrs["counted"], pads[2:])
        return node.op(x, *args[1:], **attrs)  # type: ignore[no-any-return]


_RULES: dict[Op, Callable[[_Merging, Node, tuple[Any, ...]], Value | None]] = {
    layout.transpose: _Merging._transposed,
    **dict.fromkeys(VIEWS, _Merging._viewed),
    layout.concat: _Merging._joined,
    layout.pad: _Merging._padded,
    red.mean: _Merging._averaged,
    conv_ops.conv: _Merging._windowed,
    pool.sum_pool: _Merging._windowed,
}


def _widened(pads: Pads, by: Pads) -> Pads:
    return tuple((lo + a, hi + b) for (lo, hi), (a, b) in zip(pads, by, strict=True))


def _said(shape: Shape, x: Value) -> Shape | None:
    """Return a shape to which x can be reshaped, in sizes that x binds itself; None where there is none."""
    names = {d for d in x.shape if isinstance(d, Dim) and d.name is not None}
    if all(isinstance(d, int) or d in names for d in shape):
        return tuple(shape)
    open_ = [i for i, d in enumerate(shape) if isinstance(d, Dim)]
    if len(open_) == 1 and all(d != 0 for d in shape):
        return layout.swap(tuple(shape), open_[0], -1)
    return None


def _same_shape(node: Node, args: tuple[Any, ...]) -> bool:
    return shape_of(args[0]) is not None and shape_of(args[0]) == shape_of(node.outputs[0])


def _whole(node: Node, args: tuple[Any, ...]) -> bool:
    return _same_shape(node, args) and all(step == 1 for step in node.attrs["steps"])


def _in_order(node: Node, args: tuple[Any, ...]) -> bool:
    return shape_of(node.outputs[0]) is not None and perm_of(node) == tuple(range(len(node.outputs[0].shape)))


def _no_pads(node: Node, args: tuple[Any, ...]) -> bool:
    return all(pair == (0, 0) for pair in node.attrs["pads"])


def _alone(node: Node, args: tuple[Any, ...]) -> bool:
    return len(args) == 1


_NOTHING: dict[Op, Callable[[Node, tuple[Any, ...]], bool]] = {
    **dict.fromkeys((*VIEWS, layout.expand, red.broadcast_to), _same_shape),
    layout.tile: lambda node, args: all(r == 1 for r in node.attrs["repeats"]),
    layout.slice_: _whole,
    layout.transpose: _in_order,
    layout.pad: _no_pads,
    layout.concat: _alone,
    layout.split: lambda node, args: len(node.attrs["sizes"]) == 1,
}
"""Where each op hands on what it reads."""
