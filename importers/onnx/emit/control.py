"""Emitters: control flow."""

from __future__ import annotations

from typing import Any

from ....ops import control as ops
from ....runtime.graph.body import Body
from .registry import emits
from .writer import Writer


def _several(made: Any) -> tuple[Any, ...]:
    return made if isinstance(made, tuple) else (made,)


@emits(ops.if_)
def if_(w: Writer, pred: Any, *captures: Any, then: Body, orelse: Body, split: int) -> Any:
    bodies = {"then_branch": w.body(then, captures[:split]), "else_branch": w.body(orelse, captures[split:])}
    return _several(w.add("If", pred, outputs=len(w.node.outputs), bodies=bodies))


@emits(ops.loop)
def loop(w: Writer, max_trip: Any, cond: Any, *args: Any, body: Body, carried: int) -> Any:
    inner = w.body(body, args[carried:])
    return _several(w.add("Loop", max_trip, cond, *args[:carried], outputs=len(w.node.outputs), bodies={"body": inner}))


@emits(ops.scan)
def scan(
    w: Writer, *args: Any, body: Body, states: int, inputs: int, in_axes: tuple[int, ...],
    in_reverse: tuple[bool, ...], out_axes: tuple[int, ...], out_reverse: tuple[bool, ...],
) -> Any:  # fmt: skip
    given = args[: states + inputs]
    made = w.add(
        "Scan", *given, outputs=len(w.node.outputs), bodies={"body": w.body(body, args[states + inputs :])},
        num_scan_inputs=inputs,
        scan_input_axes=in_axes if any(in_axes) else None,
        scan_input_directions=[int(r) for r in in_reverse] if any(in_reverse) else None,
        scan_output_axes=out_axes if any(out_axes) else None,
        scan_output_directions=[int(r) for r in out_reverse] if any(out_reverse) else None,
    )  # fmt: skip
    return _several(made)
