"""Parametrizations that are ready: orthogonal, weight-normalised and spectrally normalised weights."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

import numpy as np

from ...ops.errors import OpError
from ...ops.kernels.array.host import on_host
from ...ops.layout import concat
from ...ops.linalg import solve
from ...ops.matrix_exp import matrix_exp
from ...ops.op import namespace
from ..autograd.grad_mode import no_grad
from ..cuda.guard import placed
from ..tensor import random
from ..tensor.creation import zeros
from ..tensor.tensor import Tensor
from .module import Module
from .modules.conv import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from .parametrize import register_parametrization


class _OrthMaps(Enum):
    """How an orthogonal matrix is made of an unconstrained one."""

    matrix_exp = auto()
    cayley = auto()
    householder = auto()


def _unit(like: Tensor, size: int) -> Tensor:
    with placed(like._array):
        return Tensor(namespace(like._array).eye(size, dtype=like.dtype))


class _Orthogonal(Module):
    """A matrix, or a batch of them, with orthonormal columns, or rows where they are fewer.

    Source: Lezcano-Casado & Martinez-Rubio 2019 (matrix_exp); Helfrich et al. 2018 (cayley); Lezcano-Casado 2019 (the
    base that it turns away from).
    """

    base: Any

    def __init__(self, weight: Tensor, orthogonal_map: _OrthMaps, *, use_trivialization: bool = True) -> None:
        super().__init__()
        self.shape, self.orthogonal_map = weight.shape, orthogonal_map
        self.use_trivialization = use_trivialization
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, X: Any) -> Any:
        """Return the orthogonal matrix."""
        transposed = X.shape[-2] < X.shape[-1]
        x = X.mT if transposed else X
        q = self._by_reflections(x) if self.orthogonal_map is _OrthMaps.householder else self._by_rotation(x)
        if self.use_trivialization:
            q = self.base @ q
        return q.mT if transposed else q

    def _by_rotation(self, x: Any) -> Any:
        """Return the exponential, or the Cayley transform, of the skew-symmetric part."""
        n, k = x.shape[-2:]
        low = x.tril()
        if n != k:
            right = zeros(*x.shape[:-1], n - k, dtype=x.dtype, device=x.device)
            low = concat(low, right, axis=x.ndim - 1)
        skew = low - low.mT
        if self.orthogonal_map is _OrthMaps.matrix_exp:
            q: Any = matrix_exp(skew)
        else:
            unit = _unit(x, n)
            q = solve(unit - 0.5 * skew, unit + 0.5 * skew)
        return q if n == k else q[..., :k]

    def _by_reflections(self, x: Any) -> Any:
        """Return the product of the reflections whose vectors stand below the diagonal.

        I - V T V^T, the first columns of it, where T^-1 is V^T V above the diagonal and half of it on the diagonal.

        Source: Joffrain et al. 2006, "Accumulating Householder transformations, revisited".
        """
        n, k = x.shape[-2:]
        unit = _unit(x, n)[:, :k]
        v = x.tril(-1) + unit
        inner = v.mT @ v
        q = unit - v @ solve(inner.triu() - 0.5 * (inner * _unit(x, k)), v[..., :k, :].mT)
        signs = (x.detach() * unit).sum(-2).long()
        return q * signs.unsqueeze(-2)

    def right_inverse(self, Q: Any) -> Any:
        """Return what gives a matrix; where it is not orthogonal, one that gives an orthogonal matrix near it.

        Raises:
            OpError: of another shape.
            NotImplementedError: where the map has no inverse that can be computed.
        """
        if Q.shape != self.shape:
            raise OpError(
                f"Expected a matrix or batch of matrices of shape {self.shape}. Got a tensor of shape {Q.shape}."
            )
        with placed(Q._array):
            return self._inverted(Q)

    def _inverted(self, Q: Tensor) -> Tensor:
        xp = namespace(Q._array)
        q = Q._array
        transposed = q.shape[-2] < q.shape[-1]
        q = q.swapaxes(-1, -2) if transposed else q
        n, k = q.shape[-2:]
        if not self.use_trivialization:
            if self.orthogonal_map is not _OrthMaps.householder:
                raise NotImplementedError(
                    "It is not possible to assign to the matrix exponential or the Cayley parametrizations when "
                    "use_trivialization=False."
                )
            a = _packed(q)
            return Tensor(a.swapaxes(-1, -2).copy() if transposed else a)
        if n != k:
            beside = random.normal(xp.empty((*q.shape[:-1], n - k), q.dtype), 0.0, 1.0)
            q = _orthonormal(xp.concatenate([q, beside], -1))
        else:
            q = q.copy() if _is_orthonormal(q) else _orthonormal(q)
        self.base = Tensor(xp.ascontiguousarray(q))
        return Tensor(xp.broadcast_to(-xp.eye(*Q.shape[-2:], dtype=q.dtype), Q.shape).copy())


def _is_orthonormal(q: Any) -> bool:
    xp = namespace(q)
    atol = 10.0 * q.shape[-2] * float(np.finfo(q.dtype).eps)
    return bool(xp.allclose(q.swapaxes(-1, -2) @ q, xp.eye(q.shape[-1], dtype=q.dtype), atol=atol))


def _orthonormal(a: Any) -> Any:
    xp = namespace(a)
    q, r = on_host(np.linalg.qr)(a)
    return q * xp.sign(xp.diagonal(r, axis1=-2, axis2=-1))[..., None, :]


def _packed(a: Any) -> Any:
    """Return the vectors of the reflections of a QR decomposition, and the signs of R's diagonal on the diagonal."""
    xp = namespace(a)
    h, tau = on_host(np.linalg.qr)(a, mode="raw")
    h = xp.ascontiguousarray(h.swapaxes(-1, -2))
    i = xp.arange(h.shape[-1])
    signs = xp.sign(h[..., i, i])
    h[..., i, i] = xp.where(tau == 0, -signs, signs)
    return h


def orthogonal(
    module: Module, name: str = "weight", orthogonal_map: str | None = None, *, use_trivialization: bool = True
) -> Module:
    """Keep a matrix of a module, or each of a batch, orthogonal: its columns, or its rows where they are fewer.

    Args:
        module: whose Tensor it is; it is changed and returned.
        name: of the Tensor.
        orthogonal_map: `matrix_exp`, `cayley` or `householder`; by default the first for square matrices, the last for
            others.
        use_trivialization: start from the given matrix, made orthogonal, and turn away from it.

    Raises:
        OpError: if there is no such Tensor, it is no matrix, or there is no such map.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise OpError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    if weight.ndim < 2:
        raise OpError(f"Expected a matrix or batch of matrices. Got a tensor of {weight.ndim} dimensions.")
    if orthogonal_map is None:
        orthogonal_map = "matrix_exp" if weight.shape[-2] == weight.shape[-1] else "householder"
    if orthogonal_map not in _OrthMaps.__members__:
        raise OpError(f'orthogonal_map has to be one of "matrix_exp", "cayley", "householder". Got: {orthogonal_map}')
    made = _Orthogonal(weight, _OrthMaps[orthogonal_map], use_trivialization=use_trivialization)
    return register_parametrization(module, name, made, unsafe=True)


def norm_except_dim(v: Any, dim: int) -> Any:
    """Return the Euclidean norms over all axes but one, with axes of size 1; over all of them where dim is -1."""
    if dim == -1:
        return (v * v).sum().sqrt()
    return (v * v).sum([d for d in range(v.ndim) if d != dim], True).sqrt() if v.ndim > 1 else (v * v).sqrt()


class _WeightNorm(Module):
    """A length and a direction. Source: Salimans & Kingma 2016."""

    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Any, weight_v: Any) -> Any:
        """Return the direction scaled to the length."""
        return weight_v * (weight_g / norm_except_dim(weight_v, self.dim))

    def right_inverse(self, weight: Any) -> Any:
        """Return length and direction of a weight."""
        return norm_except_dim(weight, self.dim), weight


class _OldKeys:
    """Lets the names of the hook-based weight norm be loaded into a parametrized module."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, state_dict: dict[str, Any], prefix: str, *unused: Any) -> None:
        """Rename `weight_g` and `weight_v`."""
        old = [f"{prefix}{self.name}{suffix}" for suffix in ("_g", "_v")]
        if all(key in state_dict for key in old):
            for i, key in enumerate(old):
                state_dict[f"{prefix}parametrizations.{self.name}.original{i}"] = state_dict.pop(key)


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Train a weight as length (`original0`) and direction (`original1`).

    Args:
        module: whose Tensor it is; it is changed and returned.
        name: of the Tensor.
        dim: the axis along which each slice has its own length; None for one length in all.
    """
    register_parametrization(module, name, _WeightNorm(dim), unsafe=True)
    module._register_load_state_dict_pre_hook(_OldKeys(name))
    return module


def normalized(x: Any, eps: float) -> Any:
    """Return a vector divided by its Euclidean norm, which counts as eps where it is smaller."""
    return x / (x * x).sum().sqrt().clamp(min=eps)


def as_matrix(weight: Any, dim: int) -> Any:
    """Return a weight with one axis first and the others joined."""
    if dim:
        weight = weight.permute(dim, *(d for d in range(weight.ndim) if d != dim))
    return weight.flatten(1)


class _SpectralNorm(Module):
    """A weight divided by its largest singular value, which power iteration follows. Source: Miyato et al. 2018."""

    _u: Any
    _v: Any

    def __init__(self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12) -> None:
        super().__init__()
        ndim = weight.ndim
        if not -ndim <= dim < ndim:
            raise IndexError(f"Dimension out of range (expected to be in range of [-{ndim}, {ndim - 1}] but got {dim})")
        if n_power_iterations <= 0:
            raise OpError(
                f"Expected n_power_iterations to be positive, but got n_power_iterations={n_power_iterations}"
            )
        self.dim, self.eps = dim % ndim, eps
        if ndim > 1:
            self.n_power_iterations = n_power_iterations
            matrix = as_matrix(weight, self.dim).detach()
            for name, size in zip(("_u", "_v"), matrix.shape, strict=True):
                with placed(matrix._array):
                    drawn = random.normal(namespace(matrix._array).empty(size, matrix.dtype), 0.0, 1.0)
                self.register_buffer(name, normalized(Tensor(drawn), eps))
            self._follow(matrix, 15)

    def _follow(self, matrix: Any, iterations: int) -> None:
        with no_grad():
            for _ in range(iterations):
                self._u.copy_(normalized(matrix @ self._v, self.eps))
                self._v.copy_(normalized(matrix.T @ self._u, self.eps))

    def forward(self, weight: Any) -> Any:
        """Return the weight divided; in training mode the singular vectors are followed first."""
        if weight.ndim == 1:
            return normalized(weight, self.eps)
        matrix = as_matrix(weight, self.dim)
        if self.training:
            self._follow(matrix, self.n_power_iterations)
        u, v = self._u.clone(), self._v.clone()
        return weight / (u * (matrix @ v)).sum()

    def right_inverse(self, value: Any) -> Any:
        """Return the value: it is divided each time."""
        return value


def transposed(module: Module) -> bool:
    """Return whether the outputs of a module's weight are its second axis."""
    return isinstance(module, ConvTranspose1d | ConvTranspose2d | ConvTranspose3d)


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Module:
    """Keep the largest singular value of a weight at 1.

    Args:
        module: whose Tensor it is; it is changed and returned.
        name: of the Tensor.
        n_power_iterations: at each reading in training mode.
        eps: the smallest norm that is divided by.
        dim: the axis of the outputs; 0, but 1 for transposed convolutions, by default.

    Raises:
        OpError: if there is no such Tensor, or no iterations.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise OpError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    axis = dim if dim is not None else int(transposed(module))
    return register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations, axis, eps))
