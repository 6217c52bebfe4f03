"""What methods with several results return: named tuples that print as PyTorch's."""

from __future__ import annotations

from typing import Any, NamedTuple

_FUNCTIONS: dict[type[Any], str] = {}


def function_of(kind: type[Any]) -> str:
    """Return the name of the function that returns such a tuple."""
    return _FUNCTIONS[kind]


def _shown(found: Any) -> str:
    parts = (f"{name}={value!r}" for name, value in zip(found._fields, found, strict=True))
    return f"torch.return_types.{function_of(type(found))}(\n" + ",\n".join(parts) + ")"


class Found(NamedTuple):
    """Values along an axis, and where they are."""

    values: Any
    indices: Any

    def __repr__(self) -> str:
        """Return it as PyTorch prints it."""
        return _shown(self)


class Ends(NamedTuple):
    """The smallest and the largest."""

    min: Any
    max: Any

    def __repr__(self) -> str:
        """Return it as PyTorch prints it."""
        return _shown(self)


class Bins(NamedTuple):
    """How many are in each bin, and where bins begin and end."""

    hist: Any
    bin_edges: Any

    def __repr__(self) -> str:
        """Return it as PyTorch prints it."""
        return _shown(self)


class LogDet(NamedTuple):
    """The sign of a determinant and the logarithm of its absolute value."""

    sign: Any
    logabsdet: Any

    def __repr__(self) -> str:
        """Return it as PyTorch prints it."""
        return _shown(self)


class Eigen(NamedTuple):
    """Eigenvalues and eigenvectors."""

    eigenvalues: Any
    eigenvectors: Any

    def __repr__(self) -> str:
        """Return it as PyTorch prints it."""
        return _shown(self)


class Svd(NamedTuple):
    """The singular value decomposition."""

    U: Any
    S: Any
    Vh: Any

    def __repr__(self) -> str:
        """Return it as PyTorch prints it."""
        return _shown(self)


class Qr(NamedTuple):
    """The QR decomposition."""

    Q: Any
    R: Any

    def __repr__(self) -> str:
        """Return it as PyTorch prints it."""
        return _shown(self)


class LeastSquares(NamedTuple):
    """The solution that is nearest, and how near it is."""

    solution: Any
    residuals: Any
    rank: Any
    singular_values: Any

    def __repr__(self) -> str:
        """Return it as PyTorch prints it."""
        return _shown(self)


def _of(function: str) -> type[Found]:
    made = type("Found", (Found,), {"__slots__": (), "__doc__": f"The result of `{function}`."})
    _FUNCTIONS[made] = function
    return made


FoundMin, FoundTopk, FoundSort, FoundKthvalue = map(_of, ("min", "topk", "sort", "kthvalue"))
FoundMedian, FoundNanmedian, FoundMode = map(_of, ("median", "nanmedian", "mode"))
FoundCummax, FoundCummin = map(_of, ("cummax", "cummin"))
_FUNCTIONS |= {
    Found: "max", Ends: "aminmax", Bins: "histogram", LogDet: "linalg_slogdet", Eigen: "linalg_eigh", Svd: "linalg_svd",
    Qr: "linalg_qr", LeastSquares: "linalg_lstsq",
}  # fmt: skip
