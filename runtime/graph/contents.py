"""What is known of integer values while a graph is built: shapes, axes and the like, as dimensions.

Types carry the contents of small integer tensors; what is computed from small constants alone is computed here, once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ops import dims
from ...ops.dims import Dim
from ...ops.errors import OnnxGradError, SymbolicError
from ...ops.places import to_numpy
from ...ops.types import Array, TensorType, contents_array
from .graph import Value


def known_contents(value: Any) -> Array | None:
    """Return the values of an integer argument as an object array of dimensions, or None where run time decides.

    Takes a Value, a Tensor or an array. What is computed from constants alone is computed here.
    """
    if isinstance(value, Value):
        array = _constant(value)
        if array is not None:
            return np.asarray(array).astype(object)
        return contents_array(value.type) if isinstance(value.type, TensorType) else None
    array = getattr(value, "array", value)
    return np.asarray(to_numpy(array)).astype(object)


def _constant(value: Value) -> Any:
    """Return the array that a value always is, computed once, or None."""
    if value.is_constant:
        return value.array
    if value.known is not None:
        return value.known
    t = value.type
    if isinstance(t, TensorType) and t.contents is not None and all(isinstance(c, int) for c in t.contents):
        return np.array(t.contents, t.dtype).reshape([int(d) for d in t.shape])
    if not value.fixed:
        return None
    node = value.node
    assert node is not None
    args = [_constant(a) if isinstance(a, Value) else a for a in node.args]
    if any(a is None and b is not None for a, b in zip(args, node.args, strict=True)):
        return None
    try:
        result = node.op.run(*args, **node.attrs)
    except OnnxGradError:
        value.fixed = False
        return None
    results = result if node.several else (result,)
    for v, r in zip(node.outputs, results, strict=True):
        v.known = np.asarray(r)
    return value.known


def dims_of(value: Any) -> tuple[Any, ...]:
    """Return the elements of a 1-D (or scalar) integer argument as dimensions.

    Where only run time knows them, they become fresh symbols of the value's type, bound when the value is computed.

    Raises:
        SymbolicError: if not even their number is known.
    """
    known = known_contents(value)
    if known is None:
        t = value.tensor_type
        n = dims.product(t.shape)
        if isinstance(n, Dim):
            raise SymbolicError(f"the number of elements of {value!r} is known only at run time")
        value.type = TensorType(t.dtype, t.shape, tuple(Dim.fresh() for _ in range(n)))
        return value.type.contents  # type: ignore[no-any-return]
    return tuple(v if isinstance(v, Dim) else int(v) for v in known.reshape(-1))
