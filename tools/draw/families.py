"""Colours of operators, by the family of ops that they belong to."""

from __future__ import annotations

from ...ops.op import Op

FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "convolution": ("#b5d3f5", ("conv",)),
    "matrix product, attention": ("#cbc3f3", ("matmul", "attention", "linear_attention")),
    "normalization": ("#f7e3a1", ("normalize", "dropout")),
    "activation, arithmetic": ("#f8ccb4", ("pointwise", "expr", "loss", "optimize")),
    "pooling, resizing, reduction": (
        "#bde3bf", ("pool", "reduce", "cumulative", "rank", "pairwise", "resize", "sampling", "spatial", "regions"),
    ),
    "shape, index": (
        "#e6e3dd",
        ("layout", "index", "broadcast", "extent", "create", "transfer", "meeting", "encode", "generation", "random"),
    ),
    "recurrent, control flow": ("#e8c4e4", ("rnn", "control", "sequence")),
    "quantization": ("#c4e6ea", ("quantize",)),
}  # fmt: skip
"""What a family is called: its colour, and the modules of `ops` that belong to it."""

OTHER, GROUP = "#e8e2d4", "#d6e0ea"
INPUT, OUTPUT = "#ffffff", "#caff70"
FOLDED = "#f6f7f9"

_OF_MODULE = {module: family for family, (_, modules) in FAMILIES.items() for module in modules}


def family_of(op: Op) -> str:
    """Return the name of an op's family."""
    return _OF_MODULE.get(op.infer.__module__.rpartition(".")[2], "other")


def colour_of(family: str) -> str:
    """Return the colour of a family."""
    return FAMILIES[family][0] if family in FAMILIES else OTHER
