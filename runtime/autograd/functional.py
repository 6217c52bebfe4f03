"""`og.autograd.functional`: Jacobians, Hessians and their products with vectors, of functions of Tensors.

Products with a Jacobian (`jvp`) come from a gradient of the gradient: the gradient is linear in its cotangent, so its
derivative by the cotangent is the Jacobian.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...ops.errors import AutogradError
from ..tensor.creation import zeros_like
from ..tensor.joining import stack
from ..tensor.tensor import Tensor
from . import tape
from .grad_mode import enable_grad, is_grad_enabled, set_grad_enabled

Function = Callable[..., Any]
Tensors = tuple[Tensor, ...]


def _as_tuple(given: Any, what: str, function: str) -> tuple[bool, Tensors]:
    """Return whether it is a tuple, and it as one.

    Raises:
        TypeError: if something is no Tensor.
    """
    several = isinstance(given, tuple)
    items = given if several else (given,)
    for i, item in enumerate(items):
        if not isinstance(item, Tensor):
            found = f"value at index {i} has type {type(item)}" if several else f"given {what} has type {type(item)}"
            raise TypeError(
                f"The {what} given to {function} must be either a Tensor or a tuple of Tensors but the {found}."
            )
    return several, items


def _shaped(results: Sequence[Any], several: bool) -> Any:
    return tuple(results) if several else results[0]


def _prepared(inputs: Tensors, create_graph: bool, need_graph: bool) -> Tensors:
    """Return inputs that are Tensors of their own, so that what the function captured besides them stays apart."""
    return tuple(
        t.view_as(t) if create_graph and t.requires_grad else t.detach().requires_grad_(need_graph) for t in inputs
    )


def _finished(results: Any, create_graph: bool) -> Any:
    """Return results without their past, unless it was asked for."""
    if create_graph:
        return results
    return tuple(t.detach() if isinstance(t, Tensor) else _finished(t, False) for t in results)


def _check_vector(v: Tensors, like: Tensors, several: bool) -> None:
    if len(v) != len(like):
        if several:
            raise AutogradError(f"v is a tuple of invalid length: should be {len(like)} but got {len(v)}.")
        raise AutogradError("The given v should contain a single Tensor.")
    for i, (a, b) in enumerate(zip(v, like, strict=True)):
        if a.shape != b.shape:
            where = f"Entry {i} in " if several else ""
            raise AutogradError(f"{where}v has invalid size: should be {tuple(b.shape)} but got {tuple(a.shape)}.")


def _check_depends(outputs: Sequence[Any], what: str) -> None:
    """Refuse, in strict mode, what does not depend on the inputs."""
    for i, t in enumerate(outputs):
        if t is None:
            raise AutogradError(
                f"The output of the user-provided function is independent of input {i}. This is not allowed in strict "
                "mode."
            )
        if t.requires_grad:
            continue
        if what == "hessian":
            raise AutogradError(
                f"The hessian of the user-provided function with respect to input {i} is independent of the input. "
                "This is not allowed in strict mode. You should ensure that your function is thrice differentiable and "
                "that the hessian depends on the inputs."
            )
        if what == "jacobian":
            raise AutogradError(
                "While computing the hessian, found that the jacobian of the user-provided function with respect to "
                f"input {i} is independent of the input. This is not allowed in strict mode. You should ensure that "
                "your function is twice differentiable and that the jacobian depends on the inputs (this would be "
                "violated by a linear function for example)."
            )
        if what == "grad_inputs":
            raise AutogradError(
                f"The gradient with respect to input {i} is independent of the inputs of the user-provided function. "
                "This is not allowed in strict mode."
            )
        raise AutogradError(
            f"Output {i} of the user-provided function does not require gradients. The outputs must be computed in a "
            "differentiable manner from the input when running in strict mode."
        )


def _grad(
    outputs: Sequence[Any],
    inputs: Tensors,
    cotangents: Sequence[Any] | None = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> tuple[Any, ...]:
    """Return gradients; None for inputs, and nothing from outputs, that take no part."""
    given = cotangents if cotangents is not None else [None] * len(outputs)
    live = [(y, v) for y, v in zip(outputs, given, strict=True) if y is not None and y.requires_grad]
    if not live:
        return (None,) * len(inputs)
    return tape.grad([y for y, _ in live], inputs, [v for _, v in live], retain_graph, create_graph, allow_unused=True)


_INDEPENDENT = {
    "back": "The output of the user-provided function is independent of input {}. This is not allowed in strict mode.",
    "back_trick": (
        "The gradient with respect to the input is independent of entry {} in the grad_outputs when using the double "
        "backward trick to compute forward mode gradients. This is not allowed in strict mode."
    ),
    "double_back": (
        "The jacobian of the user-provided function is independent of input {}. This is not allowed in strict mode."
    ),
    "double_back_trick": (
        "The hessian of the user-provided function is independent of entry {} in the grad_jacobian. This is not "
        "allowed in strict mode as it prevents from using the double backward trick to replace forward mode AD."
    ),
}


def _filled(grads: Sequence[Any], like: Tensors, strict: bool, create_graph: bool, stage: str) -> Tensors:
    """Return gradients with zeros where there are none; in strict mode that is an error."""
    found = []
    for i, (g, t) in enumerate(zip(grads, like, strict=True)):
        if g is None:
            if strict:
                raise AutogradError(_INDEPENDENT[stage].format(i))
            g = zeros_like(t)
        elif strict and create_graph and not g.requires_grad:
            what = "hessian" if "double" in stage else "jacobian"
            raise AutogradError(
                f"The {what} of the user-provided function is independent of input {i}. This is not allowed in strict "
                "mode when create_graph=True."
            )
        found.append(g)
    return tuple(found)


def _vector(v: Any, like: Tensors, several: bool, create_graph: bool, function: str, missing: str) -> Any:
    """Return the given vector, checked against what it goes with; None where that is a single number."""
    if v is None:
        if len(like) != 1 or like[0].numel() != 1:
            raise AutogradError(missing)
        return None
    _, items = _as_tuple(v, "v", function)
    items = _prepared(items, create_graph, False)
    _check_vector(items, like, several)
    return items


_OF_INPUT = (
    "The vector v can only be None if the input to the user-provided function is a single Tensor with a single element."
)
_OF_OUTPUT = (
    "The vector v can only be None if the user-provided function returns a single Tensor with a single element."
)


def vjp(
    func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """Return the outputs of a function and the product of a vector and its Jacobian.

    Args:
        func: takes Tensors, returns a Tensor or a tuple of them.
        inputs: a Tensor or a tuple of them.
        v: of the shapes of the outputs; needed unless they are one number.
        create_graph: record the computation.
        strict: refuse an input that the outputs do not depend on, instead of returning zeros for it.

    Raises:
        AutogradError: if the vector does not fit, and as `strict` says.
    """
    with enable_grad():
        several, xs = _as_tuple(inputs, "inputs", "vjp")
        xs = _prepared(xs, create_graph, True)
        many, ys = _as_tuple(func(*xs), "outputs of the user-provided function", "vjp")
        if strict:
            _check_depends(ys, "outputs")
        vs = _vector(v, ys, many, create_graph, "vjp", _OF_OUTPUT)
    with set_grad_enabled(create_graph or is_grad_enabled()):
        found = _filled(_grad(ys, xs, vs, create_graph), xs, strict, create_graph, "back")
    return _shaped(_finished(ys, create_graph), many), _shaped(_finished(found, create_graph), several)


def jvp(
    func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """Return the outputs of a function and the product of its Jacobian and a vector; arguments as `vjp`.

    `v` is of the shapes of the inputs; needed unless they are one number.
    """
    with enable_grad():
        several, xs = _as_tuple(inputs, "inputs", "jvp")
        xs = _prepared(xs, create_graph, True)
        vs = _vector(v, xs, several, create_graph, "jvp", _OF_INPUT)
        many, ys = _as_tuple(func(*xs), "outputs of the user-provided function", "jvp")
        if strict:
            _check_depends(ys, "outputs")
        cotangents = tuple(zeros_like(y, requires_grad=True) for y in ys)
        backward = _grad(ys, xs, cotangents, create_graph=True)
        if strict:
            _check_depends(backward, "grad_inputs")
        found = _through(backward, cotangents, vs, create_graph)
        filled = _filled(found, ys, strict, create_graph, "back_trick")
    return _shaped(_finished(ys, create_graph), many), _shaped(_finished(filled, create_graph), many)


def _through(backward: Sequence[Any], cotangents: Tensors, vs: Any, create_graph: bool) -> tuple[Any, ...]:
    """Return the derivative of a gradient by its cotangents, along a vector."""
    given = [None] * len(backward) if vs is None else vs
    return _grad(backward, cotangents, given, create_graph)


def jacobian(
    func: Function,
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """Return the Jacobian: for each output and input one Tensor, its shape theirs, one behind the other.

    Args:
        func: takes Tensors, returns a Tensor or a tuple of them.
        inputs: a Tensor or a tuple of them.
        create_graph: record the computation.
        strict: refuse an output that does not depend on an input, instead of returning zeros.
        vectorize: taken: the rows come one after another either way.
        strategy: `reverse-mode` takes rows, `forward-mode` (with `vectorize`) columns.

    Returns:
        A Tensor; a tuple of them where there are several inputs or several outputs; a tuple (one entry an output) of
        tuples (one entry an input) where there are several of both.

    Raises:
        AutogradError: as `strict` says.
    """
    if strategy not in ("forward-mode", "reverse-mode"):
        raise AssertionError(
            'Expected strategy to be either "forward-mode" or "reverse-mode". Hint: If your function has more outputs '
            'than inputs, "forward-mode" tends to be more performant. Otherwise, prefer to use "reverse-mode".'
        )
    if strategy == "forward-mode":
        if create_graph:
            raise NotImplementedError(
                'torch.autograd.functional.jacobian: `create_graph=True` and `strategy="forward-mode"` are not '
                'supported together (yet). Please either set `create_graph=False` or `strategy="reverse-mode"`.'
            )
        if not vectorize:
            raise NotImplementedError(
                "Computing Jacobian using forward-AD or forward-over-reverse Hessian is only implemented for "
                "`vectorize=True`."
            )
    if vectorize and strict:
        raise AutogradError(
            "torch.autograd.functional.jacobian: `strict=True` and `vectorized=True` are not supported together. "
            "Please either set `strict=False` or `vectorize=False`."
        )
    with enable_grad():
        several, xs = _as_tuple(inputs, "inputs", "jacobian")
        # By columns PyTorch keeps the past of recorded inputs; here the rows do.
        create_graph = create_graph or (strategy == "forward-mode" and any(t.requires_grad for t in xs))
        xs = _prepared(xs, create_graph, True)
        many, ys = _as_tuple(func(*xs), "outputs of the user-provided function", "jacobian")
        if strict:
            _check_depends(ys, "outputs")
        forward = strategy == "forward-mode" and not create_graph
        rows = _columns(ys, xs) if forward else [_rows(y, i, xs, strict, create_graph) for i, y in enumerate(ys)]
    finished = [_shaped(_finished(r, create_graph), several) for r in rows]
    return _shaped(finished, many)


def _rows(y: Tensor, number: int, xs: Tensors, strict: bool, create_graph: bool) -> Tensors:
    """Return the Jacobians of one output, row by row."""
    found: list[list[Tensor]] = [[] for _ in xs]
    flat = y.reshape(-1)
    for j in range(flat.shape[0]):
        grads = _grad((flat[j],), xs, None, create_graph, retain_graph=True)
        for i, (g, x) in enumerate(zip(grads, xs, strict=True)):
            if g is None:
                if strict:
                    raise AutogradError(
                        f"Output {number} of the user-provided function is independent of input {i}. This is not "
                        "allowed in strict mode."
                    )
                g = zeros_like(x)
            elif strict and create_graph and not g.requires_grad:
                raise AutogradError(
                    "The jacobian of the user-provided function is independent of input "
                    f"{number}. This is not allowed in strict mode when create_graph=True."
                )
            found[i].append(g)
    empty = [x.new_zeros((*y.shape, *x.shape)) for x in xs] if not flat.shape[0] else []
    return tuple(
        empty[i] if empty else stack(rows).reshape(*y.shape, *x.shape)
        for i, (rows, x) in enumerate(zip(found, xs, strict=True))
    )


def _columns(ys: Tensors, xs: Tensors) -> list[Tensors]:
    """Return the Jacobians of every output, column by column: products with unit vectors."""
    cotangents = tuple(zeros_like(y, requires_grad=True) for y in ys)
    backward = _grad(ys, xs, cotangents, create_graph=True)
    found: list[list[Tensor]] = [[] for _ in ys]
    for i, x in enumerate(xs):
        columns: list[list[Tensor]] = [[] for _ in ys]
        for j in range(x.numel()):
            unit = x.detach().new_zeros(x.numel())
            unit._array[j] = 1
            products = _grad((backward[i],), cotangents, (unit.reshape(tuple(x.shape)),), retain_graph=True)
            for k, (g, y) in enumerate(zip(products, ys, strict=True)):
                columns[k].append(zeros_like(y.detach()) if g is None else g.detach())
        for k, y in enumerate(ys):
            found[k].append(stack(columns[k], -1).reshape(*y.shape, *x.shape))
    return [tuple(f) for f in found]


def _scalar(func: Function, function: str, strict: bool) -> Function:
    """Return a function, checked to return one Tensor of one element."""

    def checked(*inputs: Any) -> Tensor:
        out = func(*inputs)
        several, ys = _as_tuple(out, "outputs of the user-provided function", function)
        if strict:
            _check_depends(ys, "outputs")
        if several or not isinstance(out, Tensor):
            raise AutogradError(f"The function given to {function} should return a single Tensor")
        if out.numel() != 1:
            raise AutogradError(
                f"The Tensor returned by the function given to {function} should contain a single element"
            )
        return out.squeeze()

    return checked


def hessian(
    func: Function,
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """Return the second derivatives of a function of one number: for each pair of inputs one Tensor.

    Arguments as `jacobian`; `outer_jacobian_strategy` is how the gradient is differentiated.

    Raises:
        AutogradError: unless the function returns one Tensor of one element, and as `strict` says.
    """
    several, xs = _as_tuple(inputs, "inputs", "hessian")
    if outer_jacobian_strategy not in ("forward-mode", "reverse-mode"):
        raise AssertionError('Expected strategy to be either "forward-mode" or "reverse-mode".')
    checked = _scalar(func, "hessian", strict)

    def gradient(*inner: Tensor) -> Tensors:
        if outer_jacobian_strategy == "forward-mode":
            inner = tuple(t.requires_grad_(True) for t in inner)
        found = jacobian(checked, inner, create_graph=True)
        if strict:
            _check_depends(found, "jacobian")
        return found  # type: ignore[no-any-return]

    found = jacobian(
        gradient, xs, create_graph=create_graph, strict=strict, vectorize=vectorize, strategy=outer_jacobian_strategy
    )
    rows = [_shaped(row, several) for row in found]
    return _shaped(rows, several)


def vhp(
    func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """Return the output of a function of one number and the product of a vector and its Hessian; see `vjp`."""
    with enable_grad():
        several, xs = _as_tuple(inputs, "inputs", "vhp")
        xs = _prepared(xs, create_graph, True)
        vs = _vector(v, xs, several, create_graph, "vhp", _OF_INPUT)
        ys = _one(func, xs, "vhp", strict)
        jac = _grad(ys, xs, create_graph=True)
        if strict:
            _check_depends(jac, "jacobian")
    with set_grad_enabled(create_graph or is_grad_enabled()):
        found = _filled(_grad(jac, xs, vs, create_graph), xs, strict, create_graph, "double_back")
    return _finished(ys, create_graph)[0], _shaped(_finished(found, create_graph), several)


def hvp(
    func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """Return the output of a function of one number and the product of its Hessian and a vector; see `vjp`.

    By symmetry that is `vhp`, which is cheaper.
    """
    with enable_grad():
        several, xs = _as_tuple(inputs, "inputs", "hvp")
        xs = _prepared(xs, create_graph, True)
        vs = _vector(v, xs, several, create_graph, "hvp", _OF_INPUT)
        ys = _one(func, xs, "hvp", strict)
        jac = _grad(ys, xs, create_graph=True)
        if strict:
            _check_depends(jac, "jacobian")
        cotangents = tuple(zeros_like(x, requires_grad=True) for x in xs)
        double = _grad(jac, xs, cotangents, create_graph=True)
        if strict:
            _check_depends(double, "hessian")
        found = _through(double, cotangents, vs, create_graph)
        filled = _filled(found, xs, strict, create_graph, "double_back_trick")
    return _finished(ys, create_graph)[0], _shaped(_finished(filled, create_graph), several)


def _one(func: Function, xs: Tensors, function: str, strict: bool) -> Tensors:
    several, ys = _as_tuple(func(*xs), "outputs of the user-provided function", function)
    if strict:
        _check_depends(ys, "outputs")
    if several:
        raise AutogradError(f"The function given to {function} should return a single Tensor")
    if ys[0].numel() != 1:
        raise AutogradError(f"The Tensor returned by the function given to {function} should contain a single element")
    return ys
