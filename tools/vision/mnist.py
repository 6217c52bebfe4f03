"""MNIST and Fashion-MNIST. Source: LeCun et al. 1998; Xiao et al. 2017."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ...ops.errors import LoadError, MissingFileError
from ...runtime.tensor.tensor import Tensor
from .dataset import Change, VisionDataset
from .pillow import pillow

LARGEST_BYTES = 1 << 30
"""A file that promises more is refused."""


def read_idx(path: Path) -> Any:
    """Return the bytes of an IDX file, perhaps compressed, in their shape.

    Raises:
        LoadError: if it is damaged, or holds something else than bytes.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] != 8 or not 1 <= head[3] <= 3:
                raise LoadError(f"{path} is not an IDX file of bytes: it starts with {head!r}")
            sizes = file.read(4 * head[3])
            shape = tuple(int(n) for n in np.frombuffer(sizes, ">u4")) if len(sizes) == 4 * head[3] else (-1,)
            count = math.prod(shape)
            if not 0 <= count <= LARGEST_BYTES:
                raise LoadError(f"{path} is damaged: its sizes are {shape}")
            data = file.read(count + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise LoadError(f"{path} cannot be read: {error}") from error
    if len(data) != count:
        found = "more" if len(data) > count else len(data)
        raise LoadError(f"{path} is damaged: of sizes {shape} are {count} bytes, found {found}")
    return np.frombuffer(bytearray(data), np.uint8).reshape(shape)


class MNIST(VisionDataset):
    """70,000 handwritten digits of 28x28 grey pixels.

    Args:
        root: the folder in which `MNIST/raw` lies, or which holds the files itself; they may be compressed (`.gz`).
        train: the 60,000 for training, else the 10,000 for testing.
        transform: called with each picture.
        target_transform: called with each digit.
        download: nothing is ever fetched: where files are missing, the error says which to put where.

    Attributes:
        data: the pixels, uint8 (N, 28, 28).
        targets: the classes' numbers, int64 (N,).
        classes: the classes' names.

    Raises:
        MissingFileError: if files are missing.
        LoadError: if one is damaged.
    """

    url = "https://ossci-datasets.s3.amazonaws.com/mnist/"
    classes = [  # noqa: RUF012 - torchvision's attribute, never changed here
        "0 - zero", "1 - one", "2 - two", "3 - three", "4 - four", "5 - five", "6 - six", "7 - seven", "8 - eight",
        "9 - nine",
    ]  # fmt: skip

    def __init__(
        self,
        root: Any,
        train: bool = True,
        transform: Change | None = None,
        target_transform: Change | None = None,
        download: bool = False,
    ) -> None:
        super().__init__(root, transform=transform, target_transform=target_transform)
        self.train = train
        start = "train" if train else "t10k"
        images, labels = (read_idx(self._found(f"{start}-{kind}-ubyte")) for kind in ("images-idx3", "labels-idx1"))
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise LoadError(f"{self.root}: images of shape {images.shape} and labels of {labels.shape} are no pair")
        self.data, self.targets = Tensor(images), Tensor(labels.astype(np.int64))

    @property
    def raw_folder(self) -> str:
        """Where the files belong."""
        return str(Path(self.root or ".") / type(self).__name__ / "raw")

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The classes' numbers."""
        return {name: i for i, name in enumerate(self.classes)}

    def _found(self, name: str) -> Path:
        for folder in (Path(self.raw_folder), Path(self.root or ".")):
            for path in (folder / name, folder / f"{name}.gz"):
                if path.is_file():
                    return path
        raise MissingFileError(
            f"Dataset not found: {self.raw_folder} has no {name} or {name}.gz. To have it, download "
            f"{self.url}{name}.gz and put it there: nothing is fetched here"
        )

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return a picture and its class's number."""
        picture = pillow().fromarray(np.ascontiguousarray(self.data._array[index]))
        return self._changed(picture, int(self.targets._array[index]))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.data)

    def extra_repr(self) -> str:
        """Return which part it is."""
        return f"Split: {'Train' if self.train else 'Test'}"


class FashionMNIST(MNIST):
    """70,000 pieces of clothing of 28x28 grey pixels; `root` holds `FashionMNIST/raw`, otherwise as `MNIST`."""

    url = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
    classes = [  # noqa: RUF012 - as in MNIST
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ]  # fmt: skip
