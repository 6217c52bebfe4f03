"""Parametrizations: parameters that are computed from others each time they are read.

A parametrized module gets a class of its own, in which the parameter is a property; what is trained lies in
`module.parametrizations.<name>.original`, or `original0`, `original1` and so on where it is several Tensors.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ...ops.errors import ModuleError, OpError, TraceError
from ..autograd.grad_mode import MODE, no_grad
from ..tensor.tensor import Tensor
from .module import Module, Parameter
from .modules.container import ModuleDict, ModuleList


class _Cache(threading.local):
    """What parametrizations gave inside `cached`, in one thread."""

    depth = 0

    def __init__(self) -> None:
        self.found: dict[tuple[int, str], Tensor] = {}


_CACHE = _Cache()


@contextmanager
def cached() -> Iterator[None]:
    """Compute each parametrized Tensor once inside the block, when it is first read."""
    _CACHE.depth += 1
    try:
        yield
    finally:
        _CACHE.depth -= 1
        if not _CACHE.depth:
            _CACHE.found = {}


def _register(module: Module, name: str, x: Tensor) -> None:
    if isinstance(x, Parameter):
        module.register_parameter(name, x)
    else:
        module.register_buffer(name, x)


class ParametrizationList(ModuleList):
    """The parametrizations of one Tensor, applied in order, and what they are applied to.

    Args:
        modules: the parametrizations.
        original: the Tensor.
        unsafe: skip the check that they change neither shape nor element type.
    """

    original: Tensor

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False) -> None:
        if not modules:
            raise OpError("ParametrizationList requires one or more modules.")
        super().__init__(modules)
        self.unsafe = unsafe
        shape, dtype = original.shape, original.dtype
        new: Any = original
        with no_grad():
            for module in reversed([*self]):
                if hasattr(module, "right_inverse"):
                    try:
                        new = module.right_inverse(new)
                    except NotImplementedError:
                        continue
        if not isinstance(new, Tensor | Sequence):
            raise OpError(
                f"'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). Got {_kind(new)}"
            )
        self.is_tensor = isinstance(new, Tensor)
        self.ntensors = 1 if isinstance(new, Tensor) else len(new)
        if isinstance(new, Tensor):
            self._keep_one(original, new)
        else:
            self._keep_several(original, new)
        if not unsafe:
            _check_same("Registering a parametrization", "unparametrized", "parametrized", dtype, shape, self())

    def _keep_one(self, original: Tensor, new: Tensor) -> None:
        for what in ("dtype", "device"):
            before, after = getattr(original, what), getattr(new, what)
            if before != after:
                raise OpError(
                    f"When `right_inverse` outputs one tensor, it may not change the {what}.\n"
                    f"original.{what}: {before}\nright_inverse(original).{what}: {after}"
                )
        with no_grad():
            _set(original, new)
        _register(self, "original", original)

    def _keep_several(self, original: Tensor, new: Sequence[Any]) -> None:
        for i, x in enumerate(new):
            if not isinstance(x, Tensor):
                raise OpError(
                    "'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). Got element "
                    f"{i} of the sequence with type {_kind(x)}"
                )
            made = Parameter(x, original.requires_grad) if isinstance(original, Parameter) else x
            made.requires_grad_(original.requires_grad)
            _register(self, f"original{i}", made)

    def right_inverse(self, value: Tensor) -> None:
        """Set what the parametrizations are applied to such that they give a value.

        Raises:
            ModuleError: if one of them has no `right_inverse`.
            OpError: if one returns what does not fit.
        """
        with no_grad():
            new: Any = value
            for module in reversed([*self]):
                if not hasattr(module, "right_inverse"):
                    raise ModuleError(f"parametrization {type(module).__name__} does not implement right_inverse.")
                new = module.right_inverse(new)
            if self.is_tensor:
                if not isinstance(new, Tensor):
                    raise OpError(f"`right_inverse` should return a tensor. Got {_kind(new)}")
                if new.dtype != self.original.dtype:
                    raise OpError(
                        f"The tensor returned by `right_inverse` has dtype {new.dtype} while `original` has dtype "
                        f"{self.original.dtype}"
                    )
                _set(self.original, new)
                return
            if not isinstance(new, Sequence):
                raise OpError(f"'right_inverse' must return a sequence of tensors. Got {_kind(new)}")
            if len(new) != self.ntensors:
                raise OpError(
                    f"'right_inverse' must return a sequence of tensors of length {self.ntensors}. Got a sequence of "
                    f"length {len(new)}."
                )
            for i, x in enumerate(new):
                old = getattr(self, f"original{i}")
                if not isinstance(x, Tensor):
                    raise OpError(
                        f"`right_inverse` must return a sequence of tensors. Got element {i} of type {_kind(x)}"
                    )
                if x.dtype != old.dtype:
                    raise OpError(
                        f"Tensor {i} returned by `right_inverse` has dtype {x.dtype} while `original{i}` has dtype "
                        f"{old.dtype}"
                    )
                _set(old, x)

    def forward(self) -> Any:
        """Apply the parametrizations."""
        first, *others = self
        x = first(self.original) if self.is_tensor else first(*self._originals())
        for module in others:
            x = module(x)
        return x

    def _originals(self) -> list[Any]:
        return [getattr(self, f"original{i}") for i in range(self.ntensors)]


def _set(old: Tensor, new: Tensor) -> None:
    if new is not old:
        old.data = new.detach()


def _kind(x: Any) -> str:
    return f"{type(x).__name__}."


def _check_same(what: str, before: str, after: str, dtype: Any, shape: Any, x: Any) -> None:
    """Refuse a parametrization that changes shape or element type."""
    if not isinstance(x, Tensor):
        raise OpError(f"A parametrization must return a tensor. Got {_kind(x)}")
    for kind, wanted, found in (("dtype", dtype, x.dtype), ("shape", shape, x.shape)):
        if wanted != found:
            raise OpError(
                f"{what} may not change the {kind} of the tensor, unless the `unsafe` flag is enabled.\n"
                f"{before} {kind}: {wanted}\n{after} {kind}: {found}"
            )


def _give_class(module: Module) -> None:
    """Give a module a class of its own, whose properties are its parametrized Tensors."""
    base = type(module)

    def __getstate__(self: Any) -> Any:  # noqa: N807 - becomes a method
        raise ModuleError("Serialization of parametrized modules is only supported through state_dict().")

    def __deepcopy__(self: Any, memo: dict[int, Any]) -> Any:  # noqa: N807 - becomes a method
        replica = object.__new__(type(self))
        memo[id(self)] = replica
        replica.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return replica

    members: dict[str, Any] = {"__getstate__": __getstate__, "__module__": base.__module__}
    if not hasattr(base, "__deepcopy__"):
        members["__deepcopy__"] = __deepcopy__
    module.__class__ = type(f"Parametrized{base.__name__}", (base,), members)


def _give_property(module: Module, name: str) -> None:
    assert not hasattr(module, name), f"Module already has an attribute named '{name}'"

    def read(self: Any) -> Any:
        parametrization = self.parametrizations[name]
        if not _CACHE.depth:
            return parametrization()
        if MODE.trace is not None:
            raise TraceError("Cannot trace a model while caching parametrizations.")
        key = (id(self), name)
        if key not in _CACHE.found:
            _CACHE.found[key] = parametrization()
        return _CACHE.found[key]

    def write(self: Any, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    setattr(type(module), name, property(read, write))


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """Compute a parameter or buffer of a module as parametrization(original) from now on.

    Where it is parametrized already, the new parametrization is applied after the others. One that has a method
    `right_inverse` can be assigned to: `module.weight = x` sets the original to right_inverse(x), and so does
    registering.

    Args:
        module: whose Tensor it is; it is changed and returned.
        tensor_name: the name of the parameter or buffer.
        parametrization: the module that computes it.
        unsafe: skip the check that it changes neither shape nor element type.

    Raises:
        OpError: if there is no such Tensor, or shape or element type change.
    """
    parametrization.train(module.training)
    held: Any = module
    if is_parametrized(module, tensor_name):
        if not unsafe:
            _check_next(module, tensor_name, parametrization)
        held.parametrizations[tensor_name].append(parametrization)
        held.parametrizations[tensor_name].unsafe |= unsafe
    elif tensor_name in module._buffers or tensor_name in module._parameters:
        made = ParametrizationList([parametrization], getattr(module, tensor_name), unsafe=unsafe)
        delattr(module, tensor_name)
        if not is_parametrized(module):
            _give_class(module)
            held.parametrizations = ModuleDict()
        _give_property(module, tensor_name)
        held.parametrizations[tensor_name] = made
    else:
        raise OpError(
            f"Module '{module}' does not have a parameter, a buffer, or a parametrized element with name "
            f"'{tensor_name}'"
        )
    return module


def _check_next(module: Module, name: str, parametrization: Any) -> None:
    y = getattr(module, name)
    x = parametrization(y)
    _check_same(
        "Registering a parametrization", f"module.{name}", f"parametrization(module.{name})", y.dtype, y.shape, x
    )
    if not hasattr(parametrization, "right_inverse"):
        return
    try:
        z = parametrization.right_inverse(x)
    except NotImplementedError:
        return
    if not isinstance(z, Tensor):
        raise OpError(f"parametrization.right_inverse must return a tensor. Got: {type(z).__name__}")
    for kind, wanted, found in (("dtype", y.dtype, z.dtype), ("shape", y.shape, z.shape)):
        if wanted != found:
            raise OpError(
                f"The tensor returned by parametrization.right_inverse must have the same {kind} as module.{name}, "
                f"unless the `unsafe` flag is enabled.\nmodule.{name}.{kind}: {wanted}\nreturned {kind}: {found}"
            )


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Return whether a module is parametrized, or its Tensor of this name."""
    held = getattr(module, "parametrizations", None)
    if not isinstance(held, ModuleDict):
        return False
    return len(held) > 0 if tensor_name is None else tensor_name in held


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Make a parametrized Tensor a parameter or buffer again.

    Args:
        module: whose Tensor it is; it is changed and returned.
        tensor_name: its name.
        leave_parametrized: keep what the parametrizations give now; else go back to the original, where that is one
            Tensor.

    Raises:
        OpError: if it is not parametrized, or made of several Tensors that it is to go back to.
    """
    if not is_parametrized(module, tensor_name):
        raise OpError(f"Module {module} does not have a parametrization on {tensor_name}")
    held: Any = module
    parametrizations = held.parametrizations[tensor_name]
    if parametrizations.is_tensor:
        original = parametrizations.original
        if leave_parametrized:
            with no_grad():
                _set(original, getattr(module, tensor_name))
    elif leave_parametrized:
        t = getattr(module, tensor_name)
        original = Parameter(t) if t.requires_grad else t
    else:
        raise OpError(
            "Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is parametrized in terms of a "
            "sequence of tensors."
        )
    delattr(type(module), tensor_name)
    del held.parametrizations[tensor_name]
    _register(module, tensor_name, original)
    if not is_parametrized(module):
        del held.parametrizations
        held.__class__ = type(module).__bases__[0]
    return module


def type_before_parametrizations(module: Module) -> type:
    """Return the class of a module as it was before it was parametrized."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def transfer_parametrizations_and_params(
    from_module: Module, to_module: Module, tensor_name: str | None = None
) -> Module:
    """Give a module the parametrizations of another, and what they are applied to.

    Args:
        from_module: whose they are.
        to_module: which gets them; it is changed and returned.
        tensor_name: of one Tensor only.
    """
    if not is_parametrized(from_module):
        return to_module
    source: Any = from_module
    target: Any = to_module
    for name in [*source.parametrizations] if tensor_name is None else [tensor_name]:
        if not hasattr(to_module, name):
            setattr(to_module, name, Parameter(getattr(from_module, name)))
        given = source.parametrizations[name]
        for parametrization in given:
            register_parametrization(to_module, name, parametrization)
        taken = target.parametrizations[name]
        names = ["original"] if given.is_tensor else [f"original{i}" for i in range(given.ntensors)]
        for original in names:
            setattr(taken, original, getattr(given, original))
    return to_module
