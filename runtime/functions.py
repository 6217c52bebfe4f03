"""Methods of a Tensor as functions: `relu(x)` for `x.relu()`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..ops import matmul as matmul_ops
from ..ops.op import namespace
from .tensor import Tensor


def _function(name: str) -> Callable[..., Any]:
    method = getattr(Tensor, name)

    def function(input: Any, *args: Any, **kwargs: Any) -> Any:
        return method(input if isinstance(input, Tensor) else Tensor(input), *args, **kwargs)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = method.__doc__
    return function


def einsum(equation: str, *operands: Any) -> Any:
    """Return the sum of products that the equation asks for; see NumPy's."""
    given = operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    full = matmul_ops.explicit(equation, [x.ndim for x in given])
    return matmul_ops.einsum(*given, equation=full)


def is_tensor(x: Any) -> bool:
    """Whether it is a Tensor."""
    return isinstance(x, Tensor)


def equal(a: Tensor, b: Tensor) -> bool:
    """Whether two Tensors have one shape and the same elements."""
    return a.shape == b.shape and bool((a.array == b.array).all())


def allclose(a: Tensor, b: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether all elements of two Tensors are close."""
    return bool(namespace(a.array).allclose(a.array, b.array, rtol, atol, equal_nan))


def isclose(a: Tensor, b: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Where the elements of two Tensors are close."""
    return Tensor(namespace(a.array).isclose(a.array, b.array, rtol, atol, equal_nan))


def get_default_dtype() -> np.dtype[Any]:
    """Return the element type of Tensors made of Python floats."""
    return Tensor.default_dtype  # type: ignore[no-any-return]


def set_default_dtype(dtype: Any) -> None:
    """Set the element type of Tensors made of Python floats."""
    Tensor.default_dtype = np.dtype(dtype)


abs = _function("abs")
acos = _function("acos")
acosh = _function("acosh")
add = _function("add")
all = _function("all")
amax = _function("amax")
amin = _function("amin")
any = _function("any")
argmax = _function("argmax")
argmin = _function("argmin")
argsort = _function("argsort")
asin = _function("asin")
asinh = _function("asinh")
atan = _function("atan")
atanh = _function("atanh")
bmm = _function("bmm")
ceil = _function("ceil")
chunk = _function("chunk")
clamp = _function("clamp")
clip = _function("clip")
clone = _function("clone")
cos = _function("cos")
cosh = _function("cosh")
cumsum = _function("cumsum")
detach = _function("detach")
div = _function("div")
dot = _function("dot")
eq = _function("eq")
erf = _function("erf")
exp = _function("exp")
expand = _function("expand")
flatten = _function("flatten")
flip = _function("flip")
floor = _function("floor")
floor_divide = _function("floor_divide")
fmod = _function("fmod")
gather = _function("gather")
ge = _function("ge")
gt = _function("gt")
index_select = _function("index_select")
isfinite = _function("isfinite")
isinf = _function("isinf")
isnan = _function("isnan")
le = _function("le")
log = _function("log")
log10 = _function("log10")
log2 = _function("log2")
log_softmax = _function("log_softmax")
logical_and = _function("logical_and")
logical_not = _function("logical_not")
logical_or = _function("logical_or")
logsumexp = _function("logsumexp")
lt = _function("lt")
masked_fill = _function("masked_fill")
masked_select = _function("masked_select")
matmul = _function("matmul")
max = _function("max")
maximum = _function("maximum")
mean = _function("mean")
min = _function("min")
minimum = _function("minimum")
mm = _function("mm")
mul = _function("mul")
narrow = _function("narrow")
ne = _function("ne")
neg = _function("neg")
nonzero = _function("nonzero")
norm = _function("norm")
permute = _function("permute")
pow = _function("pow")
prod = _function("prod")
reciprocal = _function("reciprocal")
relu = _function("relu")
remainder = _function("remainder")
repeat = _function("repeat")
reshape = _function("reshape")
round = _function("round")
rsqrt = _function("rsqrt")
select = _function("select")
sigmoid = _function("sigmoid")
sign = _function("sign")
sin = _function("sin")
sinh = _function("sinh")
softmax = _function("softmax")
sort = _function("sort")
split = _function("split")
sqrt = _function("sqrt")
square = _function("square")
squeeze = _function("squeeze")
std = _function("std")
sub = _function("sub")
sum = _function("sum")
swapaxes = _function("swapaxes")
t = _function("t")
tan = _function("tan")
tanh = _function("tanh")
topk = _function("topk")
transpose = _function("transpose")
tril = _function("tril")
triu = _function("triu")
true_divide = _function("true_divide")
unbind = _function("unbind")
unflatten = _function("unflatten")
unsqueeze = _function("unsqueeze")
var = _function("var")
