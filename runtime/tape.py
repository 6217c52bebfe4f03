"""The tape, run backwards: gradients of what was recorded (`runtime/node.py`), to `.grad` or to the caller."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..ops.create import full_like
from ..ops.errors import AutogradError
from ..ops.op import eagerly, namespace
from ..ops.pointwise import add, cast
from ..ops.types import Array
from .grad_mode import MODE, enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from .node import AccumulateGrad, Edge, Node, Saved, SavedOutput
from .tensor import Tensor

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
        return
    for node, found in arrived.items():
        if isinstance(node, AccumulateGrad):
            _accumulate(node.variable, found[0], seen)


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
        places = frozenset() if wanted is None else frozenset(node for node, _ in wanted)
        for node in order:
            if useful is not None and node not in useful:
                continue
            gs = arrived.get(node)
            if gs is None:
                continue
            if node not in places:
                del arrived[node]
            if node.retained and wanted is None:
                _retain(node, gs)
            _step(node, gs, arrived, create_graph, useful, wanted)
            if not retain_graph:
                node.release()
    return arrived


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
    gs = arrived.get(node)
    if gs is None:
        gs = arrived[node] = [None] * (len(node.shapes) if isinstance(node, Node) else 1)
    held = gs[index]
    gs[index] = g if held is None else held + g if MODE.trace is None else add(held, g)


def _step(
    node: Node,
    gs: list[Any],
    arrived: Arrived,
    create_graph: bool,
    useful: set[Node | AccumulateGrad] | None,
    wanted: set[Edge] | None,
) -> None:
    """Hand the gradients of a node's outputs on to its inputs."""
    if node.freed:
        raise AutogradError(
            "Trying to backward through the graph a second time: what "
            f"{node.name} saved was freed by the first. Specify retain_graph=True there."
        )
    args: Sequence[Any] = node.args
    ys: Sequence[Any] = node.outputs
    if node.saves:
        args = [a.unpack(node, create_graph) if isinstance(a, Saved) else a for a in args]
        ys = [o.unpack(node, create_graph) if isinstance(o, SavedOutput) else o for o in ys]
    vjp = node.op.vjp
    assert vjp is not None
    g, y = (tuple(gs), tuple(ys)) if node.several else (gs[0], ys[0])
    entries = vjp(g, y, *args, **node.attrs)
    for edge, entry, a in zip(node.inputs, entries, args, strict=False):
        if edge is None or entry is None:
            continue
        if useful is not None and wanted is not None and edge[0] not in useful and edge not in wanted:
            continue
        g = entry()
        if g.shape != a.shape and MODE.trace is None:
            raise AutogradError(f"{node.name} returned a gradient of shape {g.shape} for an input of shape {a.shape}")
        if g.dtype is not a.dtype and g.dtype != a.dtype:
            g = cast(g, dtype=str(a.dtype))
        _arrive(arrived, edge, g)


def _retain(node: Node, gs: Sequence[Any]) -> None:
    assert node.retained is not None
    for index, ref in node.retained:
        if (kept := ref()) is not None and (g := gs[index]) is not None:
            g = g if isinstance(g, Tensor) else Tensor(g.copy() if MODE.trace is None else g)
            kept.grad = g if kept.grad is None else kept.grad + g


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
            namespace(held).add(held, g, out=held)
            leaf.grad._bump()
            return
        g = held + g
    if not isinstance(g, np.ndarray) and isinstance(g, np.generic):
        g = np.asarray(g)
    if id(g) in seen or not _private(g):
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
