"""CIFAR-10 and CIFAR-100 in their binary version. Source: Krizhevsky 2009.

The "python version" is made of pickles, which are programs: it is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...ops.errors import LoadError, MissingFileError
from .dataset import Change, VisionDataset
from .pillow import pillow

PIXELS = 3 * 32 * 32


class CIFAR10(VisionDataset):
    """60,000 pictures of 32x32 pixels in 10 classes.

    Args:
        root: the folder in which `cifar-10-batches-bin` lies.
        train: the 50,000 for training, else the 10,000 for testing.
        transform: called with each picture.
        target_transform: called with each class's number.
        download: nothing is ever fetched: where files are missing, the error says which to put where.

    Attributes:
        data: the pixels, uint8 (N, 32, 32, 3).
        targets: the classes' numbers.
        classes: the classes' names.
        class_to_idx: their numbers.

    Raises:
        MissingFileError: if files are missing.
        LoadError: if only the python version is there, or a file is damaged.
    """

    base_folder = "cifar-10-batches-bin"
    python_folder = "cifar-10-batches-py"
    url = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    train_list = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
    test_list = ("test_batch.bin",)
    meta = "batches.meta.txt"
    _labels = 1
    """Bytes before each picture; the last is the class's number."""

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
        names = self.train_list if train else self.test_list
        folder = self._found((*names, self.meta))
        self.classes = [line for line in (folder / self.meta).read_text().splitlines() if line]
        self.class_to_idx = {name: i for i, name in enumerate(self.classes)}
        parts = [self._read(folder / name) for name in names]
        self.data = np.concatenate([pixels for pixels, _ in parts])
        self.targets: list[int] = np.concatenate([labels for _, labels in parts]).tolist()

    def _found(self, names: tuple[str, ...]) -> Path:
        """Return the folder that holds all these files.

        Raises:
            MissingFileError: if one is missing.
            LoadError: if the python version is there instead.
        """
        folder = Path(self.root or ".") / self.base_folder
        missing = [name for name in names if not (folder / name).is_file()]
        if not missing:
            return folder
        how = f"download {self.url} and unpack it in {self.root}: nothing is fetched here"
        pickles = folder.parent / self.python_folder
        if pickles.is_dir():
            raise LoadError(
                f"{pickles} is the python version, whose files are pickles: reading one runs any code in it, so they "
                f"are not read. For the same pictures as bytes, {how}"
            )
        raise MissingFileError(f"Dataset not found: {folder} has no {', '.join(missing)}. To have it, {how}")

    def _read(self, path: Path) -> tuple[Any, Any]:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        size = self._labels + PIXELS
        if not data.size or data.size % size:
            raise LoadError(f"{path} is damaged: it has {data.size} bytes, wanted a multiple of {size}")
        rows = data.reshape(-1, size)
        labels = rows[:, self._labels - 1]
        if labels.max() >= len(self.classes):
            raise LoadError(f"{path} is damaged: it has a picture of class {labels.max()} of {len(self.classes)}")
        return rows[:, self._labels :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return a picture and its class's number."""
        return self._changed(pillow().fromarray(np.ascontiguousarray(self.data[index])), self.targets[index])

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.data)

    def extra_repr(self) -> str:
        """Return which part it is."""
        return f"Split: {'Train' if self.train else 'Test'}"


class CIFAR100(CIFAR10):
    """60,000 pictures of 32x32 pixels in 100 classes; `root` holds `cifar-100-binary`, otherwise as `CIFAR10`."""

    base_folder = "cifar-100-binary"
    python_folder = "cifar-100-python"
    url = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
    train_list = ("train.bin",)
    test_list = ("test.bin",)
    meta = "fine_label_names.txt"
    _labels = 2
