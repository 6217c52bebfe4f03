"""The tape, run backwards: gradients of what was recorded (`runtime/autograd/node.py`), to `.grad` or to the caller."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from ...ops.create import full_like
from ...ops.errors import AutogradError
from ...ops.op import eagerly, namespace
from ...ops.pointwise import add, cast
from ...ops.types import Array
from ..cuda.guard import placed
from ..tensor.tensor import Tensor
from .anomaly import check, explained
from .grad_mode import MODE, enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from .node import AccumulateGrad, Needed, Node
from .node_hooks import through
from .saved import Edge, Late

__all__ = ["backward", "enable_grad", "grad", "is_grad_enabled", "no_grad", "set_grad_enabled"]

Arrived: TypeAlias = dict[Node | AccumulateGrad, list[Any]]


def backward(
    tensors: Tensor | Sequence[Tensor],
    gradients: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Add the gradients of Tensors to `.grad` of the leaves that they were computed from.

    Args:
        tensors: what is differentiated.
        gradients: one cotangent a Tensor; 1 for scalars.
        retain_graph: keep what was saved, for a second backward; `create_graph` by default.
        create_graph: record the gradient computation, for higher orders.
        inputs: add only to `.grad` of these.

    Raises:
        AutogradError: without a cotangent for what is no scalar, on what was not recorded, and a second time over what
            the first has freed.
    """
    roots = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    gs = _cotangents(roots, gradients)
    retain = create_graph if retain_graph is None else retain_graph
    xs = None if inputs is None else [inputs] if isinstance(inputs, Tensor) else list(inputs)
    wanted = None if xs is None else {_edge(x, "backward's inputs") for x in xs}
    arrived = _flow(roots, gs, create_graph, retain, wanted)
    seen = {id(g._array) for g in gs}
    if xs is not None:
        for x in xs:
            node, index = x._grad_edge()
            if (found := arrived.get(node)) is not None and found[index] is not None:
                _accumulate(x, found[index], seen)
                if isinstance(node, AccumulateGrad):
                    _accumulated(node, create_graph)
        return
    for node, found in arrived.items():
        if isinstance(node, AccumulateGrad):
            _accumulate(node.variable, found[0], seen)
            _accumulated(node, create_graph)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
    materialize_grads: bool = False,
) -> tuple[Any, ...]:
    """Return the gradients of outputs by inputs, leaving `.grad` alone.

    Args:
        outputs: what is differentiated.
        inputs: by what; leaves or computed Tensors.
        grad_outputs: one cotangent an output; 1 for scalars.
        retain_graph: keep what was saved; `create_graph` by default.
        create_graph: record the gradient computation, for higher orders.
        allow_unused: return None for an input that the outputs do not depend on, instead of raising.
        materialize_grads: return zeros for it instead.

    Raises:
        AutogradError: if an input was not used and may not be, and as `backward` does.
    """
    ys = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    xs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    edges = [_edge(x, "the differentiated Tensors") for x in xs]
    retain = create_graph if retain_graph is None else retain_graph
    arrived = _flow(ys, _cotangents(ys, grad_outputs), create_graph, retain, set(edges))
    found: list[Tensor | None] = []
    for i, (x, (node, index)) in enumerate(zip(xs, edges, strict=True)):
        g = arrived[node][index] if node in arrived else None
        if g is None and materialize_grads:
            g = Tensor(_filled_like(x._array, 0))
        elif g is None and not allow_unused:
            raise AutogradError(
                f"input {i} appears not to have been used in the graph; pass allow_unused=True if that is meant"
            )
        found.append(g if g is None or isinstance(g, Tensor) else Tensor(g))
    return tuple(found)


def _edge(x: Tensor, what: str) -> Edge:
    if not x.requires_grad:
        raise AutogradError(f"one of {what} does not require grad")
    return x._grad_edge()


def _cotangents(roots: Sequence[Tensor], given: Any) -> list[Tensor]:
    if not isinstance(given, list | tuple):
        given = [given] * len(roots)
    if len(given) != len(roots):
        raise AutogradError(f"{len(roots)} outputs and {len(given)} gradients for them")
    return [_cotangent(t, g, i) for i, (t, g) in enumerate(zip(roots, given, strict=True))]


def _cotangent(t: Tensor, gradient: Any, index: int) -> Tensor:
    if not t.requires_grad:
        why = f": {t._cut} has no gradient" if t._cut is not None else ""
        raise AutogradError(f"element {index} of tensors does not require grad and does not have a grad_fn{why}")
    if gradient is None:
        if t.numel() != 1:
            raise AutogradError(f"grad can be implicitly created only for scalar outputs, found shape {t.shape}")
        return Tensor(_filled_like(t._array, 1))
    g = gradient if isinstance(gradient, Tensor) else Tensor(namespace(t._array).asarray(gradient, t.dtype))
    if g.shape != t.shape:
        raise AutogradError(f"Mismatch in shape: the gradient has shape {g.shape}, the output {t.shape}")
    return g if g.dtype == t.dtype else cast(g, dtype=str(t.dtype))


def _filled_like(array: Any, value: int) -> Any:
    if hasattr(array, "interpret_priority"):
        return full_like(array, shape=tuple(array.shape), value=value)
    xp = namespace(array)
    with placed(array):
        return xp.ones_like(array) if value else xp.zeros_like(array)


def _flow(
    roots: Sequence[Tensor],
    gradients: Sequence[Tensor],
    create_graph: bool,
    retain_graph: bool,
    wanted: set[Edge] | None,
) -> Arrived:
    """Flow gradients from the roots down; return what arrived at leaves, or at the wanted places.

    Gradients are Tensors where their computation is recorded, else plain arrays: the same ops compute on those.
    """
    arrived: Arrived = {}
    with set_grad_enabled(create_graph), np.errstate(all="ignore"), _eagerly():
        for t, g in zip(roots, gradients, strict=True):
            _arrive(arrived, t._grad_edge(), g if create_graph else g._array)
        order = _order(arrived)
        useful = None if wanted is None else _useful(order, wanted)
        needed = None if useful is None or wanted is None else _needed(useful, wanted)
        places = frozenset() if wanted is None else frozenset(node for node, _ in wanted)
        for node in order:
            gs = arrived.get(node)
            if gs is None or not (useful is None or node in useful or node in places):
                continue
            if node.hooks is not None:
                gs = node.hooks.arrive(node, gs, create_graph)
            if not places or node not in places:
                del arrived[node]
            elif useful is not None and node not in useful:
                arrived[node] = gs
                continue
            else:
                arrived[node] = gs
            _step(node, gs, arrived, create_graph, needed)
            if not retain_graph:
                node.release()
        for end, gs in arrived.items():
            if isinstance(end, AccumulateGrad):
                _arrive_at_leaf(end, gs, create_graph)
    return arrived


def _needed(useful: set[Node | AccumulateGrad], wanted: set[Edge]) -> Needed:
    return lambda edge: edge[0] in useful or edge in wanted


def _arrive_at_leaf(end: AccumulateGrad, gs: list[Any], recorded: bool) -> None:
    leaf = end.variable
    if leaf._hooks is not None:
        gs[0] = through(leaf._hooks, gs[0], recorded, "AccumulateGrad")
    if end.hooks is not None:
        gs[:] = end.hooks.arrive(end, gs, recorded)


@contextlib.contextmanager
def _eagerly() -> Iterator[None]:
    """Let ops on plain arrays use their compiled kernels."""
    before, eagerly.on = eagerly.on, True
    try:
        yield
    finally:
        eagerly.on = before


def _order(roots: Iterable[Node | AccumulateGrad]) -> list[Node]:
    """Return the nodes below the roots, each before those that it was computed from."""
    stack = [n for n in roots if isinstance(n, Node)]
    seen = set(stack)
    while stack:
        for edge in stack.pop().inputs:
            if edge is not None:
                node = edge[0]
                if node not in seen and isinstance(node, Node):
                    seen.add(node)
                    stack.append(node)
    return sorted(seen, key=lambda n: n.sequence, reverse=True)


def _useful(order: Sequence[Node], wanted: set[Edge]) -> set[Node | AccumulateGrad]:
    """Return the nodes whose gradients lead to a wanted place."""
    useful: set[Node | AccumulateGrad] = set()
    for node in reversed(order):
        if any(e is not None and (e[0] in useful or e in wanted) for e in node.inputs):
            useful.add(node)
    return useful


def _arrive(arrived: Arrived, edge: Edge, g: Any) -> None:
    node, index = edge
    held = arrived.setdefault(node, [None] * len(node.shapes))
    held[index] = g if held[index] is None else _sum(held[index], g)


def _sum(a: Any, b: Any) -> Any:
    if Late.traces and MODE.trace is not None:
        return add(a, b)
    if Late.guard is None:
        return a + b
    with placed(a, "a sum of gradients"):
        return a + b


def _step(node: Node, gs: list[Any], arrived: Arrived, recorded: bool, needed: Needed | None) -> None:
    """Hand the gradients of a node's outputs on to its inputs."""
    if node.freed:
        raise AutogradError(
            "Trying to backward through the graph a second time: what "
            f"{node.name()} saved was freed by the first. Specify retain_graph=True there."
        )
    if Late.special and MODE.anomaly:
        try:
            found = node.gradients(gs, recorded, needed)
        except Exception as error:
            raise explained(error, node) from error
        check(node, found)
    elif Late.guard is None:
        found = node.gradients(gs, recorded, needed)
    else:
        found = Late.guard.gradients(node, gs, recorded, needed)
    if node.hooks is not None and node.hooks.after:
        found = node.hooks.leave(node, found, gs, recorded)
    for i, g, like in found:
        if g.shape != like.shape and MODE.trace is None:
            raise AutogradError(
                f"{node.name()} returned a gradient of shape {g.shape} for an input of shape {like.shape}"
            )
        if g.dtype is not like.dtype and g.dtype != like.dtype:
            with placed(g, node.name()):
                g = cast(g, dtype=str(like.dtype))
        end, index = node.inputs[i]  # type: ignore[misc]
        held = arrived.get(end)
        if held is None:
            held = arrived[end] = [None] * len(end.shapes)
        if held[index] is None:
            held[index] = g
        else:
            held[index] = _sum(held[index], g)


def _accumulated(end: AccumulateGrad, recorded: bool) -> None:
    """Call the hooks that see a leaf's gradient; where nothing is recorded they may change the leaf."""
    if end.variable._post_hooks is None and end.hooks is None:
        return
    with set_grad_enabled(recorded):
        if end.variable._post_hooks is not None:
            for fn in list(end.variable._post_hooks.values()):
                fn(end.variable)
        if end.hooks is not None:
            for fn in list(end.hooks.after.values()):
                fn((), (end.variable.grad,))


def _accumulate(leaf: Tensor, g: Any, seen: set[int]) -> None:
    """Add to `.grad`: in place where the sum is not recorded, and never into memory that something else sees."""
    if isinstance(g, Tensor):
        leaf.grad = g if leaf.grad is None else leaf.grad + g
        return
    if MODE.trace is not None:
        MODE.trace.accumulate(leaf, g)
        return
    if leaf.grad is not None:
        held = leaf.grad._array
        if not leaf.grad.requires_grad and held.dtype == g.dtype and held.shape == g.shape:
            with placed(held, "a sum of gradients"):
                namespace(held).add(held, g, out=held)
            leaf.grad._bump()
            return
        with placed(held, "a sum of gradients"):
            g = held + g
    if not isinstance(g, np.ndarray) and isinstance(g, np.generic):
        g = np.asarray(g)
    if id(g) in seen or leaf._hooks is not None or not _private(g):
        with placed(g):
            g = g.copy()
    seen.add(id(g))
    leaf.grad = Tensor(g)


def _private(array: Array) -> bool:
    """Whether the elements are written and seen through this array alone."""
    if not isinstance(array, np.ndarray):
        return array.base is None
    if not array.flags.writeable:
        return False
    base = array.base
    # A reshaped result owns its base: this name, the array and getrefcount's argument are the references to it.
    return base is None or (isinstance(base, np.ndarray) and base.size == array.size and sys.getrefcount(base) <= 3)
