"""Calls of modules with other parameters than their own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ...ops.errors import ModuleError, OpError
from ..tensor.tensor import Tensor
from .module import Module


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: Any,
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """Call a module with other parameters and buffers; gradients flow back to those.

    What the module changes in place, it changes in the given Tensors.

    Args:
        module: what is called.
        parameter_and_buffer_dicts: Tensors by dotted name, or several such dictionaries; what is not named is the
            module's own.
        args: positional arguments; what is no tuple is the only one.
        kwargs: keyword arguments.
        tie_weights: what is one Tensor under several names in the module is one in the call too.
        strict: demand that the names are those of the module.

    Raises:
        ModuleError: if strict and a name is missing or unexpected.
        OpError: if a name is given twice, or tied names get several values.
        KeyError: if there is no such parameter or buffer.
    """
    given = _merged(parameter_and_buffer_dicts)
    if args is None:
        args = ()
    elif not isinstance(args, tuple):
        args = (args,)
    with _exchanged(module, given, tie_weights, strict):
        return module(*args, **(kwargs or {}))


def deprecated_functional_call(
    module: Module,
    parameters_and_buffers: dict[str, Tensor],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """Call a module with other parameters and buffers: the older name of `func.functional_call`, with a warning."""
    warnings.warn(
        "`torch.nn.utils.stateless.functional_call` is deprecated as of PyTorch 2.0 and will be removed in a future "
        "version of PyTorch. Please use `torch.func.functional_call` instead which is a drop-in replacement.",
        FutureWarning,
        stacklevel=2,
    )
    return functional_call(module, parameters_and_buffers, args, kwargs, tie_weights=tie_weights, strict=strict)


def _merged(dicts: Any) -> dict[str, Tensor]:
    if isinstance(dicts, dict):
        return dicts
    if not isinstance(dicts, Sequence):
        raise OpError(
            f"Expected parameter_and_buffer_dicts to be a dict, or a list/tuple of dicts, but got {type(dicts)}"
        )
    if not all(isinstance(d, dict) for d in dicts):
        raise OpError("Expected all elements of parameter_and_buffer_dicts to be dictionaries")
    names = [n for d in dicts for n in d]
    repeated = [n for n in dict.fromkeys(names) if names.count(n) > 1]
    if repeated:
        raise OpError(f"{repeated} appeared in multiple dictionaries; behavior of functional call is ambiguous")
    return {n: t for d in dicts for n, t in d.items()}


@contextmanager
def _exchanged(module: Module, given: dict[str, Tensor], tie_weights: bool, strict: bool) -> Iterator[None]:
    """Put Tensors in the place of a module's until the block ends; then put its own back."""
    own: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    own.update(module.named_buffers(remove_duplicate=False))
    if strict:
        _check_names(module, own, given)
    wanted = _untied(own, given) if tie_weights else dict(given)
    before: list[tuple[str, Any, str, Any]] = []
    try:
        for name, t in wanted.items():
            home, key = _home(module, name)
            before.append((name, home, key, home[key] if isinstance(home, dict) else vars(home)[key]))
            _put(home, key, t)
        yield
    finally:
        for name, home, key, held in before:
            if name in given and isinstance(home, dict):
                given[name] = home[key]
            _put(home, key, held)


def _check_names(module: Module, own: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    unexpected, missing = [n for n in given if n not in own], [n for n in own if n not in given]
    wrong = []
    if unexpected:
        wrong.append(f"Unexpected key(s): {', '.join(map(repr, unexpected))}.")
    if missing:
        wrong.append(f"Missing key(s): {', '.join(map(repr, missing))}.")
    if wrong:
        lines = "\n\t".join(wrong)
        raise ModuleError(f"Error(s) in reparametrizing for {module._get_name()}:\n\t{lines}")


def _untied(own: dict[str, Tensor], given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what is given under all names of the Tensors whose place it takes."""
    names: dict[int, list[str]] = {}
    for name, t in own.items():
        names.setdefault(id(t), []).append(name)
    found = dict(given)
    for name in given:
        tied = names[id(own[name])] if name in own else [name]
        if len({id(given[n]) for n in tied if n in given}) > 1:
            raise OpError(
                f"functional_call got multiple values for keys {sorted(tied)}, which are tied. Consider using "
                "tie_weights=False"
            )
        for other in tied:
            found[other] = given[name]
    return found


def _home(module: Any, name: str) -> tuple[Any, str]:
    """Return the dictionary that holds a Tensor, and its key there; of a parametrized one the class and the attribute.

    Raises:
        KeyError: if there is none.
    """
    for registry in module._registries():
        if name in registry:
            return registry, name
    first, _, rest = name.partition(".")
    child = module._modules.get(first)
    if rest and child is not None:
        return _home(child, rest)
    if isinstance(vars(type(module)).get(name), property):
        return type(module), name
    raise KeyError(f"{module._get_name()} has no parameter or buffer `{name}`")


def _put(home: Any, key: str, t: Any) -> None:
    if isinstance(home, dict):
        home[key] = t
    else:
        setattr(home, key, t)
