"""Which engine runs a graph on a CUDA device: programs where its shapes can have one, its arrays node by node else."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence

from ...ops.errors import InputError
from ..amp.narrow import narrow
from ..compiled.choice import HALF_PRECISIONS
from ..graph.graph import Graph
from ..passes.drop_dead import drop_dead
from ..passes.merge_equal import merge_equal
from ..passes.merge_products import merge_products
from ..passes.pipelines import DEVICE
from ..passes.rewriting import Pass
from .buckets import Buckets
from .runner import CupyRunner, Runner

VARIABLE = "ONNXGRAD_CUDA"
"""The environment variable: `uncaptured` records no CUDA graphs, `off` makes no programs."""


@functools.cache
def runner_of(index: int) -> Runner:
    """Return the runner of a CUDA device; all programs of the process share it, and its stream."""
    return CupyRunner(index)


def passes_for(precision: str) -> Sequence[Pass]:
    """Return the passes for a graph that only runs, in a precision: `float32`, `bf16` or `fp16`."""
    narrowed = () if precision == "float32" else (narrow(HALF_PRECISIONS[precision]), merge_equal)
    return (*DEVICE, *narrowed, merge_products, drop_dead)


def compile_buckets(
    graph: Graph, device: str, *, passes: Sequence[Pass] = DEVICE,
    in_place: Mapping[int, int] | None = None,
) -> Buckets:  # fmt: skip
    """Return what runs a graph on a device.

    Args:
        graph: as the PORTABLE passes, or a trace, left it.
        device: `cuda:N`.
        passes: for the graph, once its sizes are known.
        in_place: outputs, and the feeds that they replace.

    Raises:
        InputError: if the environment variable holds something else.
    """
    mode = os.environ.get(VARIABLE, "")
    if mode not in ("", "uncaptured", "off"):
        raise InputError(f"{VARIABLE} is {mode!r}, wanted 'uncaptured' or 'off', or unset")
    return Buckets(
        graph, runner_of(int(device.partition(":")[2] or 0)), passes=passes, in_place=in_place,
        tf32=_tf32, capture=mode != "uncaptured", programs=0 if mode == "off" else None,
    )  # fmt: skip


def _tf32() -> bool:
    from ..tensor.backends import cuda

    return bool(cuda.matmul.allow_tf32)
