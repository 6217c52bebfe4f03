"""The two pipelines, by promise.

PORTABLE keeps every parameter and is safe to train and save. DEVICE may fold, fuse, relayout and prepack, for running
only; it starts where PORTABLE ends. What it computes of state alone stays in the graph as nodes that depend on nothing
else, for an engine to run once for each version of the weights.

FUSE is what of DEVICE training wants before it is differentiated: ops with gradients of their own.

The order of DEVICE: patterns are sought as exporters wrote them, before transposes move; batch norm is folded once
transposes no longer lie between it and its convolution; then patterns that the layout hid are sought again.
"""

from __future__ import annotations

from collections.abc import Sequence

from .drop_dead import drop_dead
from .fold_constants import fold_constants
from .fold_norms import fold_norms
from .fuse_activations import fuse_activations
from .fuse_attention import fuse_attention
from .fuse_normalization import fuse_normalization
from .fuse_quantized import fuse_quantized
from .merge_equal import merge_equal
from .merge_layout import merge_layout
from .rewriting import Pass
from .simplify_arithmetic import simplify_arithmetic

PORTABLE: Sequence[Pass] = (fold_constants, drop_dead)
FUSE: Sequence[Pass] = (merge_equal, fuse_attention, fuse_normalization, fuse_activations, drop_dead)
DEVICE: Sequence[Pass] = (
    fold_constants,
    drop_dead,
    fuse_quantized,
    drop_dead,
    merge_equal,
    fuse_attention,
    fuse_normalization,
    drop_dead,
    merge_layout,
    drop_dead,
    fold_norms,
    fuse_attention,
    fuse_normalization,
    simplify_arithmetic,
    merge_layout,
    merge_equal,
    drop_dead,
)
