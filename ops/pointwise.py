"""Pointwise ops: one scalar expression each, with broadcasting.

From the line come the array kernel and the derivative; a derivative that symbols would make inaccurate or
costly is declared instead, in x or in y. The gradient of each is a pointwise op, so every order exists.

Source: ONNX Abs-13 ... Xor-7, Gelu-20, Mish-18; broadcasting as NumPy.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from . import expr as e
from .dims import broadcast
from .errors import DTypeError, ShapeError
from .expr import Const, Expr, Var
from .op import Op, namespace, op
from .primitives import compile_array, differentiate
from .types import DType, TensorType, is_float, is_integer

Flow: TypeAlias = tuple[Callable[..., Any] | None, tuple[int, ...]]

_making = threading.RLock()


class Pointwise(Op):
    """An op that is a scalar expression over broadcast inputs.

    Args:
        name: its name.
        names: its inputs, in order.
        expression: the value.
        partials: declared derivatives by input name, over the inputs and `y`; the rest is differentiated.
        result: `float` and `same` promote the inputs, `bool` gives truth values.
        kernel: an array function to use instead of the compiled expression.
    """

    def __init__(
        self,
        name: str,
        names: tuple[str, ...],
        expression: Expr | None,
        *,
        partials: dict[str, Expr] | None = None,
        result: str = "same",
        kernel: Callable[..., Any] | None = None,
        doc: str = "",
    ) -> None:
        """Make the op and register its kernel and gradient."""
        self.names, self.expression, self.result = names, expression, result
        self.partials: dict[str, Expr] = dict(partials or {})

        def infer(*types: Any) -> TensorType:
            return _infer(name, result, types)

        infer.__doc__ = doc
        super().__init__(name, infer, symbolic=result in ("same", "bool"), dtype="bool" if result == "bool" else None)
        if kernel is None:
            assert expression is not None
            kernel = compile_array(expression, names)
        self.kernel("array")(kernel)
        self._flows: tuple[Flow | None, ...] | None = None
        self._gradients: dict[str, tuple[Pointwise, tuple[str, ...]] | None] = {}
        if result != "bool" and expression is not None:
            self.defvjp(self._vjp)

    def gradient(self, name: str) -> tuple[Pointwise, tuple[str, ...]] | None:
        """Return the op `(g, *reads) -> g * dself/dname` and what it reads, or None where it is zero.

        The reads are inputs of this op, and `y` for its output.
        """
        with _making:
            if name not in self._gradients:
                self._gradients[name] = self._make_gradient(name)
            return self._gradients[name]

    def flows(self) -> tuple[Flow | None, ...]:
        """Return, for each input, how its gradient comes from the output's.

        A kernel over the gradient and what it reads: the numbers of inputs, -1 for the output. No kernel: it is the
        gradient itself.
        """
        if self._flows is None:
            made: list[Flow | None] = []
            for name in self.names:
                found = self.gradient(name)
                if found is None:
                    made.append((_flat, ()))
                    continue
                gradient, reads = found
                same = isinstance(gradient.expression, Var)
                places = tuple(self.names.index(n) if n in self.names else -1 for n in reads)
                made.append((None if same else gradient.array_kernel, () if same else places))
            self._flows = tuple(made)
        return self._flows

    def _make_gradient(self, name: str) -> tuple[Pointwise, tuple[str, ...]] | None:
        assert self.expression is not None
        partial = self.partials.get(name)
        if partial is None:
            partial = differentiate(self.expression, name)
        if isinstance(partial, Const) and partial.value == 0:
            return None
        found = e.variables(partial)
        reads = tuple(n for n in (*self.names, "y") if n in found)
        # in the new op `g` is its cotangent and `y` its output: what had these names here gets others
        renamed = {n: f"{self.name}_{n}" if n in ("g", "y") else n for n in reads}
        value = _chain(e.substitute(partial, {n: Var(new) for n, new in renamed.items() if n != new}), Var("g"))
        ins = ("g", *renamed.values())
        return Pointwise(f"{self.name}_grad_{name}", ins, value, doc=f"Gradient of {self.name} by {name}."), reads

    def _vjp(self, g: Any, y: Any, *args: Any) -> tuple[Callable[[], Any] | None, ...]:
        values = dict(zip(self.names, args, strict=True))

        def entry(name: str) -> Callable[[], Any] | None:
            x = values[name]
            if not hasattr(x, "shape") or not is_float(x.dtype):
                return None
            found = self.gradient(name)
            if found is None:
                return lambda: _zeros(g, x)
            gradient, reads = found
            if isinstance(gradient.expression, Var):
                return lambda: sum_to_like(g, x)
            return lambda: sum_to_like(gradient(g, *(values.get(n, y) for n in reads)), x)

        return tuple(entry(n) for n in self.names)


def _chain(partial: Expr, g: Var) -> Expr:
    """Return g times the partial; a choice by mask stays a choice, so that inf * 0 does not make NaN."""
    if isinstance(partial, e.Call) and partial.fn == "where":
        condition, a, b = partial.args
        return e.where(condition, _chain(a, g), _chain(b, g))
    return g * partial


def sum_to_like(g: Any, x: Any) -> Any:
    """Sum a cotangent over the axes along which x was broadcast."""
    if tuple(g.shape) == tuple(x.shape):
        return g
    from .broadcast import sum_to

    return sum_to(g, shape=tuple(x.shape))


def _flat(g: Any) -> Any:
    """Return the gradient through a step."""
    return namespace(g).zeros_like(g)


def _zeros(g: Any, x: Any) -> Any:
    from .create import full_like

    return full_like(g, shape=tuple(x.shape), value=0)


def _infer(name: str, result: str, types: Sequence[Any]) -> TensorType:
    arrays = [t for t in types if isinstance(t, TensorType)]
    if not arrays:
        raise DTypeError(f"{name}: wants at least one array, found {types}")
    dtype: DType = np.dtype(bool)
    if result != "bool":
        dtype = _promote(name, [t for t in arrays if t.dtype != np.dtype(bool)] or arrays)
        if result == "float" and dtype.kind in "iub":
            raise DTypeError(f"{name}: wants floats, found {dtype}")
        scalars = [t for t in types if isinstance(t, float)]
        if scalars and dtype.kind in "iub":
            dtype = np.dtype(np.float64)
    if any(t.known_shape is None for t in arrays):
        return TensorType(dtype, None)
    try:
        return TensorType(dtype, broadcast(*(t.shape for t in arrays)))
    except ShapeError as error:
        raise ShapeError(f"{name}: {_mismatch(arrays)}{error}") from None


def _mismatch(arrays: Sequence[TensorType]) -> str:
    """Return where two shapes do not fit, in PyTorch's words."""
    if len(arrays) != 2:
        return ""
    a, b = (t.shape for t in arrays)
    rank = max(len(a), len(b))
    for axis in range(-1, -rank - 1, -1):
        if -axis <= min(len(a), len(b)) and a[axis] != b[axis] and 1 not in (a[axis], b[axis]):
            return (
                f"The size of tensor a ({a[axis]}) must match the size of tensor b ({b[axis]}) at non-singleton "
                f"dimension {rank + axis}; "
            )
    return ""


def _promote(name: str, arrays: Sequence[TensorType]) -> DType:
    dtypes = {t.dtype for t in arrays}
    if len(dtypes) == 1:
        return dtypes.pop()
    try:
        return np.result_type(*dtypes)
    except TypeError:
        raise DTypeError(f"{name}: element types {sorted(map(str, dtypes))} do not mix") from None


x, a, b, y, alpha = Var("x"), Var("a"), Var("b"), Var("y"), Var("alpha")


def _unary(name: str, expression: Expr, *, dx: Expr | None = None, result: str = "float", doc: str = "") -> Pointwise:
    return Pointwise(name, ("x",), expression, partials={"x": dx} if dx is not None else None, result=result, doc=doc)


def _binary(name: str, expression: Expr, *, result: str = "same", doc: str = "", **partials: Expr) -> Pointwise:
    return Pointwise(name, ("a", "b"), expression, partials=partials, result=result, doc=doc)


add = _binary("add", a + b, doc="a + b.")
sub = _binary("sub", a - b, doc="a - b.")
mul = _binary("mul", a * b, doc="a * b.")
div = _binary("div", a / b, doc="a / b; integers truncate towards zero.")
mod = _binary("mod", e.call("mod", a, b), doc="Remainder with the sign of the divisor.")
fmod = _binary("fmod", e.call("fmod", a, b), doc="Remainder with the sign of the dividend, as C's fmod.")
pow_ = _binary("pow", e.pow_(a, b), doc="a to the b.")
maximum = _binary("maximum", e.maximum(a, b), doc="The larger; a tie shares the gradient evenly.")
minimum = _binary("minimum", e.minimum(a, b), doc="The smaller; a tie shares the gradient evenly.")
atan2 = _binary("atan2", e.call("atan2", a, b), result="float", doc="The angle of the point (b, a), in (-pi, pi].")
hypot = _binary("hypot", e.call("hypot", a, b), result="float", doc="sqrt(a^2 + b^2), without overflow.")
copysign = _binary(
    "copysign", e.call("copysign", a, b), result="float", doc="|a| with the sign of b; derivative 0 at 0."
)
logaddexp = _binary("logaddexp", e.call("logaddexp", a, b), result="float", doc="log(e^a + e^b), without overflow.")
logaddexp2 = _binary("logaddexp2", e.call("logaddexp2", a, b), result="float", doc="log2(2^a + 2^b), without overflow.")

less = _binary("less", a < b, result="bool", doc="a < b.")
less_equal = _binary("less_equal", a <= b, result="bool", doc="a <= b.")
greater = _binary("greater", a > b, result="bool", doc="a > b.")
greater_equal = _binary("greater_equal", a >= b, result="bool", doc="a >= b.")
equal = _binary("equal", e.equal(a, b), result="bool", doc="a == b.")


def _logical(name: str, names: tuple[str, ...], function: str, doc: str, result: str = "bool") -> Pointwise:
    def kernel(*arrays: Any) -> Any:
        xp = namespace(*arrays)
        return xp.asarray(getattr(xp, function)(*arrays))

    return Pointwise(name, names, None, result=result, kernel=kernel, doc=doc)


logical_and = _logical("logical_and", ("a", "b"), "logical_and", "a and b.")
logical_or = _logical("logical_or", ("a", "b"), "logical_or", "a or b.")
logical_xor = _logical("logical_xor", ("a", "b"), "logical_xor", "a xor b.")
logical_not = _logical("logical_not", ("x",), "logical_not", "not x.")
bitwise_and = _logical("bitwise_and", ("a", "b"), "bitwise_and", "a & b, bit by bit.", "same")
bitwise_or = _logical("bitwise_or", ("a", "b"), "bitwise_or", "a | b, bit by bit.", "same")
bitwise_xor = _logical("bitwise_xor", ("a", "b"), "bitwise_xor", "a ^ b, bit by bit.", "same")
bitwise_not = _logical("bitwise_not", ("x",), "invert", "~x, bit by bit.", "same")
shift_left = _logical("shift_left", ("a", "b"), "left_shift", "a moved b bits up; unsigned.", "same")
shift_right = _logical("shift_right", ("a", "b"), "right_shift", "a moved b bits down; unsigned.", "same")
signbit = _logical("signbit", ("x",), "signbit", "Whether the sign is minus, also of -0.")
isnan = _logical("isnan", ("x",), "isnan", "Whether x is not a number.")

neg = _unary("neg", -x, result="same", doc="-x.")
abs_ = _unary("abs", e.abs_(x), result="same", doc="|x|; derivative 0 at 0.")
sign = _unary("sign", e.sign(x), result="same", doc="-1, 0 or 1.")
floor = _unary("floor", e.call("floor", x), doc="The largest integer not above x.")
ceil = _unary("ceil", e.call("ceil", x), doc="The smallest integer not below x.")
round_ = _unary("round", e.call("round", x), doc="The nearest integer, halves to even.")
exp = _unary("exp", e.exp(x), dx=y, doc="e to the x.")
log = _unary("log", e.log(x), doc="Natural logarithm.")
log2 = _unary("log2", e.call("log2", x), doc="Logarithm to base 2.")
log10 = _unary("log10", e.call("log10", x), doc="Logarithm to base 10.")
log1p = _unary("log1p", e.call("log1p", x), doc="log(1 + x), exact near 0.")
exp2 = _unary("exp2", e.call("exp2", x), doc="2 to the x.")
expm1 = _unary("expm1", e.call("expm1", x), doc="e^x - 1, exact near 0.")
trunc = _unary("trunc", e.call("trunc", x), result="same", doc="x without its fraction.")
sqrt = _unary("sqrt", e.sqrt(x), dx=0.5 / y, doc="Square root.")
reciprocal = _unary("reciprocal", 1 / x, dx=-(y * y), doc="1 / x.")
sin = _unary("sin", e.sin(x), doc="Sine.")
cos = _unary("cos", e.cos(x), doc="Cosine.")
tan = _unary("tan", e.call("tan", x), dx=1 + y * y, doc="Tangent.")
asin = _unary("asin", e.call("asin", x), doc="Inverse sine.")
acos = _unary("acos", e.call("acos", x), doc="Inverse cosine.")
atan = _unary("atan", e.call("atan", x), doc="Inverse tangent.")
sinh = _unary("sinh", e.call("sinh", x), doc="Hyperbolic sine.")
cosh = _unary("cosh", e.call("cosh", x), doc="Hyperbolic cosine.")
asinh = _unary("asinh", e.call("asinh", x), doc="Inverse hyperbolic sine.")
acosh = _unary("acosh", e.call("acosh", x), doc="Inverse hyperbolic cosine.")
atanh = _unary("atanh", e.call("atanh", x), doc="Inverse hyperbolic tangent.")
erf = _unary("erf", e.erf(x), doc="Error function.")
erfc = _unary("erfc", e.call("erfc", x), doc="1 - erf(x), exact where erf is almost 1.")
erfinv = _unary("erfinv", e.call("erfinv", x), doc="Inverse of the error function.")
lgamma = _unary("lgamma", e.call("lgamma", x), doc="Logarithm of the absolute value of the gamma function.")
tanh = _unary("tanh", e.tanh(x), dx=1 - y * y, doc="Hyperbolic tangent.")
sigmoid = _unary("sigmoid", e.sigmoid(x), dx=y * (1 - y), doc="1 / (1 + e^-x).")
polygamma = Pointwise(
    "polygamma",
    ("n", "x"),
    e.call("polygamma", Var("n"), x),
    result="float",
    doc="The n-th derivative of the digamma function, which is that of lgamma.",
)
softplus = _unary("softplus", e.softplus(x), doc="log(1 + e^x), without overflow.")
softsign = _unary("softsign", x / (1 + e.abs_(x)), dx=1 / ((1 + e.abs_(x)) * (1 + e.abs_(x))), doc="x / (1 + |x|).")
relu = _unary("relu", e.maximum(x, 0), dx=e.where(y > 0, 1.0, 0.0), result="same", doc="max(x, 0); derivative 0 at 0.")
relu6 = _unary(
    "relu6",
    e.minimum(e.maximum(x, 0), 6),
    dx=e.where(y > 0, e.where(y < 6, 1.0, 0.0), 0.0),
    result="same",
    doc="x kept between 0 and 6; derivative 0 at both bounds.",
)
gelu = _unary("gelu", 0.5 * x * (1 + e.erf(0.7071067811865476 * x)), doc="x Phi(x), exact.")
gelu_tanh = _unary(
    "gelu_tanh",
    0.5 * x * (1 + e.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))),
    doc="x Phi(x), by tanh. Source: Hendrycks & Gimpel 2016.",
)
mish = _unary("mish", x * e.tanh(e.softplus(x)), doc="x tanh(softplus(x)). Source: ONNX Mish-18.")


def _shaped(name: str, *names: str, expression: Expr, dx: Expr | None = None, doc: str) -> Pointwise:
    partials = {"x": dx} if dx is not None else None
    return Pointwise(name, ("x", *names), expression, partials=partials, result="float", doc=doc)


where = Pointwise("where", ("c", "a", "b"), e.where(Var("c"), a, b), doc="a where the condition holds, else b.")
prelu = Pointwise(
    "prelu",
    ("x", "slope"),
    e.maximum(x, 0) + Var("slope") * e.minimum(x, 0),
    partials={"x": e.where(x > 0, 1.0, Var("slope"))},
    doc="x, or slope * x where x < 0; derivative slope at 0, as in PyTorch.",
)
leaky_relu = _shaped(
    "leaky_relu",
    "alpha",
    expression=e.maximum(x, 0) + alpha * e.minimum(x, 0),
    dx=e.where(x > 0, 1.0, alpha),
    doc="x, or alpha * x where x < 0; derivative alpha at 0, as in PyTorch.",
)
elu = _shaped(
    "elu",
    "alpha",
    expression=e.maximum(x, 0) + alpha * e.call("expm1", e.minimum(x, 0)),
    dx=e.where(x > 0, 1.0, alpha * e.exp(e.where(x > 0, 0.0, x))),
    doc="x, or alpha (e^x - 1) where x <= 0; derivative alpha at 0, as in PyTorch.",
)
celu = _shaped(
    "celu",
    "alpha",
    expression=e.maximum(x, 0) + alpha * e.call("expm1", e.minimum(x, 0) / alpha),
    dx=e.where(x > 0, 1.0, e.exp(e.where(x > 0, 0.0, x) / alpha)),
    doc="x, or alpha (e^(x / alpha) - 1) where x <= 0. Source: ONNX Celu-12.",
)
swish = _shaped("swish", "alpha", expression=x * e.sigmoid(alpha * x), doc="x sigmoid(alpha x). Source: ONNX Swish-24.")
thresholded_relu = _shaped(
    "thresholded_relu",
    "alpha",
    expression=e.where(alpha < x, x, 0),
    doc="x where it is above alpha, else 0. Source: ONNX ThresholdedRelu-10.",
)
shrink = Pointwise(
    "shrink",
    ("x", "bias", "threshold"),
    e.where(x < -Var("threshold"), x + Var("bias"), e.where(Var("threshold") < x, x - Var("bias"), 0)),
    doc="x moved towards 0 by the bias, and 0 between the thresholds. Source: ONNX Shrink-9.",
)
hard_sigmoid = Pointwise(
    "hard_sigmoid",
    ("x", "alpha", "beta"),
    e.maximum(0, e.minimum(1, alpha * x + Var("beta"))),
    partials={
        n: e.where(y > 0, e.where(y < 1, d, 0.0), 0.0) for n, d in (("x", alpha), ("alpha", x), ("beta", Const(1)))
    },
    result="float",
    doc="alpha x + beta, kept between 0 and 1; derivative 0 at both bounds.",
)
low, high = Var("low"), Var("high")
clip = Pointwise(
    "clip",
    ("x", "low", "high"),
    e.minimum(e.maximum(x, low), high),
    partials={
        "x": e.where(x < low, 0.0, e.where(high < x, 0.0, 1.0)),
        "low": e.where(x < low, e.where(high < low, 0.0, 1.0), 0.0),
        "high": e.where(high < e.maximum(x, low), 1.0, 0.0),
    },
    doc="x kept between low and high, high where they cross; at a bound the gradient is x's, as in PyTorch.",
)


@op(symbolic=True)
def cast(x: TensorType, *, dtype: str, saturate: bool = True, rounding: str = "up") -> TensorType:
    """Convert to another element type; floats truncate towards zero when they become integers.

    Args:
        x: numbers, truth values or strings.
        dtype: the element type to convert to; `object` for strings.
        saturate: what is too large for a float of 8 bits becomes its largest number, else NaN or inf.
        rounding: `up`, `down` or `nearest`, to powers of two (float8_e8m0fnu); other types round to nearest even.

    Source: ONNX Cast-28.
    """
    t = np.dtype(dtype)
    return TensorType(t, x.known_shape, x.contents if is_integer(t) else None)


@cast.defvjp
def _cast_vjp(
    g: Any, y: Any, x: Any, *, dtype: str, saturate: bool = True, rounding: str = "up"
) -> tuple[Callable[[], Any] | None, ...]:
    if not is_float(x.dtype) or not is_float(np.dtype(dtype)):
        return (None,)
    return (lambda: cast(g, dtype=str(x.dtype)),)


@op()
def bitcast(x: TensorType, *, dtype: str) -> TensorType:
    """Read the same bits as another element type of the same width. Not differentiable.

    Raises:
        DTypeError: if the widths differ.

    Source: ONNX BitCast-26.
    """
    t = np.dtype(dtype)
    if t.itemsize != x.dtype.itemsize:
        raise DTypeError(f"bitcast: {x.dtype} and {dtype} are not of the same width")
    return TensorType(t, x.known_shape)
