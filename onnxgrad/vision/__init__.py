"""The pieces of torchvision that lessons use."""

from . import datasets, transforms, utils

__all__ = [
    "datasets",
    "transforms",
    "utils",
]
