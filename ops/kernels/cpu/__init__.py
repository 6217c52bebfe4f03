"""Kernels emitted through LLVM: the families that matter for speed, for any CPU that LLVM knows."""

from __future__ import annotations

import importlib

FAMILIES: tuple[str, ...] = (
    "pointwise", "pool", "pool_grad", "conv", "conv_grad", "matmul", "layout", "index", "resize", "cumulative",
    "rank", "reduce", "softmax", "normalize", "normalize_grad", "lp_norm", "loss", "loss_grad", "optimize", "lrn",
    "attention", "attention_grad", "rotary", "rnn", "rnn_grad", "quantize",
    "quantized_products",
)  # fmt: skip
"""Modules with rules (`lowering.lowers`), imported when a plan is first compiled."""


def load_rules() -> None:
    """Import the rules of every family."""
    for name in FAMILIES:
        importlib.import_module(f".{name}", __name__)
