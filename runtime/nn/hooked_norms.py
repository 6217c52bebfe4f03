"""Weight and spectral normalisation by hooks, by PyTorch's older names; `parametrizations` does it by properties."""

from __future__ import annotations

import warnings
from typing import Any

from ...ops.errors import ModuleError, OpError
from ...ops.linalg import pinv
from ...ops.op import namespace
from ..autograd.grad_mode import no_grad
from ..cuda.guard import placed
from ..tensor import random
from ..tensor.tensor import Tensor
from .computed import set_computed
from .module import Module, Parameter
from .parametrizations import as_matrix, norm_except_dim, normalized, transposed


class WeightNorm:
    """The hook of `weight_norm`.

    Args:
        name: of the weight.
        dim: the axis along which each slice has its own length; -1 for one length in all.
    """

    def __init__(self, name: str, dim: int) -> None:
        self.name, self.dim = name, dim

    def compute_weight(self, module: Module) -> Any:
        """Return the weight of a module."""
        g, v = getattr(module, f"{self.name}_g"), getattr(module, f"{self.name}_v")
        return v * (g / norm_except_dim(v, self.dim))

    @staticmethod
    def apply(module: Module, name: str, dim: int | None) -> WeightNorm:
        """Normalise a weight of a module.

        Raises:
            ModuleError: if that has been done already.
        """
        warnings.warn(
            "`torch.nn.utils.weight_norm` is deprecated in favor of `torch.nn.utils.parametrizations.weight_norm`.",
            FutureWarning,
            stacklevel=3,
        )
        if any(isinstance(h, WeightNorm) and h.name == name for h in module._forward_pre_hooks.values()):
            raise ModuleError(f"Cannot register two weight_norm hooks on the same parameter {name}")
        made = WeightNorm(name, -1 if dim is None else dim)
        weight = getattr(module, name)
        del module._parameters[name]
        module.register_parameter(f"{name}_g", Parameter(norm_except_dim(weight.detach(), made.dim)))
        module.register_parameter(f"{name}_v", Parameter(weight.data))
        setattr(module, name, made.compute_weight(module))
        module.register_forward_pre_hook(made)
        return made

    def remove(self, module: Module) -> None:
        """Make the weight a parameter again."""
        with no_grad():
            weight = self.compute_weight(module)
        delattr(module, self.name)
        del module._parameters[f"{self.name}_g"], module._parameters[f"{self.name}_v"]
        setattr(module, self.name, Parameter(weight))

    def __call__(self, module: Module, inputs: Any) -> None:
        """Compute the weight again, before a forward."""
        set_computed(module, self.name, self.compute_weight(module))


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Train a weight as length `weight_g` and direction `weight_v`; `parametrizations.weight_norm` is newer.

    Args:
        module: whose weight it is; it is changed and returned.
        name: of the weight.
        dim: the axis along which each slice has its own length; None for one length in all.

    Raises:
        ModuleError: if that has been done already.
    """
    WeightNorm.apply(module, name, dim)
    return module


def remove_weight_norm(module: Module, name: str = "weight") -> Module:
    """Make a normalised weight a parameter again, and return the module.

    Raises:
        OpError: if it is not normalised.
    """
    for number, hook in module._forward_pre_hooks.items():
        if isinstance(hook, WeightNorm) and hook.name == name:
            hook.remove(module)
            del module._forward_pre_hooks[number]
            return module
    raise OpError(f"weight_norm of '{name}' not found in {module}")


class SpectralNorm:
    """The hook of `spectral_norm`.

    Args:
        name: of the weight.
        n_power_iterations: at each forward in training mode.
        dim: the axis of the outputs.
        eps: the smallest norm that is divided by.
    """

    _version = 1

    def __init__(self, name: str = "weight", n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12) -> None:
        if n_power_iterations <= 0:
            raise OpError(
                f"Expected n_power_iterations to be positive, but got n_power_iterations={n_power_iterations}"
            )
        self.name, self.n_power_iterations, self.dim, self.eps = name, n_power_iterations, dim, eps

    def compute_weight(self, module: Module, do_power_iteration: bool) -> Any:
        """Return the weight of a module, after following the singular vectors where that is asked for."""
        weight, u, v = (getattr(module, f"{self.name}{suffix}") for suffix in ("_orig", "_u", "_v"))
        matrix = as_matrix(weight, self.dim)
        if do_power_iteration:
            with no_grad():
                for _ in range(self.n_power_iterations):
                    v.copy_(normalized(matrix.T @ u, self.eps))
                    u.copy_(normalized(matrix @ v, self.eps))
            u, v = u.clone(), v.clone()
        return weight / (u * (matrix @ v)).sum()

    @staticmethod
    def apply(module: Module, name: str, n_power_iterations: int, dim: int, eps: float) -> SpectralNorm:
        """Normalise a weight of a module.

        Raises:
            ModuleError: if that has been done already.
            OpError: if there is no such weight.
        """
        if any(isinstance(h, SpectralNorm) and h.name == name for h in module._forward_pre_hooks.values()):
            raise ModuleError(f"Cannot register two spectral_norm hooks on the same parameter {name}")
        made = SpectralNorm(name, n_power_iterations, dim, eps)
        weight = module._parameters[name]
        if weight is None:
            raise OpError(f"`SpectralNorm` cannot be applied as parameter `{name}` is None")
        matrix = as_matrix(weight, dim)
        empty = namespace(weight._array).empty
        with placed(weight._array):
            vectors = [normalized(Tensor(random.normal(empty(n, weight.dtype), 0.0, 1.0)), eps) for n in matrix.shape]
        delattr(module, name)
        module.register_parameter(f"{name}_orig", weight)
        setattr(module, name, weight.data)
        module.register_buffer(f"{name}_u", vectors[0])
        module.register_buffer(f"{name}_v", vectors[1])
        module.register_forward_pre_hook(made)
        module._register_state_dict_hook(_Saved(made))
        module._register_load_state_dict_pre_hook(_Loaded(made))
        return made

    def remove(self, module: Module) -> None:
        """Make the weight a parameter again."""
        with no_grad():
            weight = self.compute_weight(module, do_power_iteration=False)
        for suffix in ("", "_u", "_v", "_orig"):
            delattr(module, f"{self.name}{suffix}")
        module.register_parameter(self.name, Parameter(weight))

    def __call__(self, module: Module, inputs: Any) -> None:
        """Compute the weight again, before a forward."""
        set_computed(module, self.name, self.compute_weight(module, do_power_iteration=module.training))


class _Saved:
    """Notes the version of a normalised weight in a state dict."""

    def __init__(self, norm: SpectralNorm) -> None:
        self.norm = norm

    def __call__(self, module: Module, state_dict: Any, prefix: str, local_metadata: dict[str, Any]) -> None:
        """Note it."""
        local_metadata.setdefault("spectral_norm", {})[f"{self.norm.name}.version"] = self.norm._version


class _Loaded:
    """Makes a state dict that was saved before versions were noted fit: it holds the weight and no `weight_v`."""

    def __init__(self, norm: SpectralNorm) -> None:
        self.norm = norm

    def __call__(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], strict: bool,
        missing_keys: list[str], *unused: Any,
    ) -> None:  # fmt: skip
        """Solve for the vector that gives the saved weight."""
        norm = self.norm
        if local_metadata.get("spectral_norm", {}).get(f"{norm.name}.version", 0) >= 1:
            return
        key = prefix + norm.name
        if key not in state_dict:
            return
        missing = [k for k in (f"{key}_orig", f"{key}_u") if k not in state_dict]
        if missing:
            missing_keys.extend(missing if strict else [])
            return
        with no_grad():
            orig, u = (_tensor(state_dict[f"{key}{suffix}"]) for suffix in ("_orig", "_u"))
            sigma = (orig / _tensor(state_dict.pop(key))).mean()
            matrix = as_matrix(orig, norm.dim)
            v: Any = pinv(matrix.T @ matrix) @ (matrix.T @ u)
            state_dict[f"{key}_v"] = v * (sigma / (u * (matrix @ v)).sum())


def _tensor(x: Any) -> Any:
    return x if isinstance(x, Tensor) else Tensor(x)


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Module:
    """Keep the largest singular value of a weight at 1; `parametrizations.spectral_norm` is newer.

    Args:
        module: whose weight it is; it is changed and returned.
        name: of the weight.
        n_power_iterations: at each forward in training mode.
        eps: the smallest norm that is divided by.
        dim: the axis of the outputs; 0, but 1 for transposed convolutions, by default.

    Raises:
        ModuleError: if that has been done already.
    """
    axis = dim if dim is not None else int(transposed(module))
    SpectralNorm.apply(module, name, n_power_iterations, axis, eps)
    return module


def remove_spectral_norm(module: Module, name: str = "weight") -> Module:
    """Make a normalised weight a parameter again, and return the module.

    Raises:
        OpError: if it is not normalised.
    """
    for number, hook in module._forward_pre_hooks.items():
        if isinstance(hook, SpectralNorm) and hook.name == name:
            hook.remove(module)
            del module._forward_pre_hooks[number]
            break
    else:
        raise OpError(f"spectral_norm of '{name}' not found in {module}")
    for hooks in (module._state_dict_hooks, module._load_state_dict_pre_hooks):
        for number, other in [*hooks.items()]:
            if isinstance(other, _Saved | _Loaded) and other.norm is hook:
                del hooks[number]
    return module
