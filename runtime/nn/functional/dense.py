"""Linear maps."""

from __future__ import annotations

from typing import Any

from ....ops import layout, matmul, pointwise as pw
from ....ops.errors import DTypeError
from ...amp.casting import in_half
from ...autograd.node_names import labelled
from .spatial import scalar_type


def linear(input: Any, weight: Any, bias: Any = None) -> Any:
    """Return x W^T + b. Shapes: (*, in), (out, in), (out,) -> (*, out).

    Raises:
        DTypeError: if the element types of input and weight differ.
    """
    input, weight, bias = in_half(input, weight, bias)
    if input.dtype != weight.dtype:
        raise DTypeError(
            "linear: mat1 and mat2 must have the same dtype, but got "
            f"{scalar_type(input.dtype)} and {scalar_type(weight.dtype)}: the input is {input.dtype}"
            f"{list(input.shape)}, the weight {weight.dtype}{list(weight.shape)}"
        )
    y = matmul.matmul(input, layout.transpose(weight, perm=(1, 0)) if weight.ndim == 2 else weight)
    if bias is None:
        return y
    y = pw.add(y, bias)
    return labelled(y, "Addmm") if input.ndim == 2 else y
