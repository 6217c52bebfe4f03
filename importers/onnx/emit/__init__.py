"""The emitters, one file a family, named as those of `ops`: how canonical ops become ONNX nodes.

Importing this package registers them all.
"""

from . import (
    attention,
    control,
    conv,
    create,
    cumulative,
    dropout,
    image,
    index,
    layout,
    matmul,
    normalize,
    pointwise,
    pool,
    quantize,
    rank,
    reduce,
    resize,
    rnn,
    sampling,
)

__all__ = [
    "attention",
    "control",
    "conv",
    "create",
    "cumulative",
    "dropout",
    "image",
    "index",
    "layout",
    "matmul",
    "normalize",
    "pointwise",
    "pool",
    "quantize",
    "rank",
    "reduce",
    "resize",
    "rnn",
    "sampling",
]
