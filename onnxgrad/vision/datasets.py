"""Data sets of pictures."""

from ..tools.vision.cifar import CIFAR10, CIFAR100
from ..tools.vision.dataset import VisionDataset
from ..tools.vision.folder import DatasetFolder, ImageFolder
from ..tools.vision.mnist import MNIST, FashionMNIST

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "DatasetFolder",
    "FashionMNIST",
    "ImageFolder",
    "VisionDataset",
]
