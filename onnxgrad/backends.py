"""PyTorch's switches of the libraries below it."""

from .runtime.tensor.backends import cuda, cudnn, mkl, mkldnn, mps, openmp

__all__ = [
    "cuda",
    "cudnn",
    "mkl",
    "mkldnn",
    "mps",
    "openmp",
]
