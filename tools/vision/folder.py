"""Data sets that are folders: one folder a class. Source: torchvision.datasets.folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ...ops.errors import InputError, MissingFileError
from .dataset import Change, VisionDataset
from .pillow import pillow

IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def has_file_allowed_extension(filename: str, extensions: str | tuple[str, ...]) -> bool:
    """Whether a file's name ends with one of these, in small or capital letters."""
    return filename.lower().endswith(extensions)


def default_loader(path: str) -> Any:
    """Return a file's picture in red, green and blue."""
    with open(path, "rb") as file:
        return pillow().open(file).convert("RGB")


pil_loader = default_loader


def find_classes(directory: Any) -> tuple[list[str], dict[str, int]]:
    """Return the names of the folders in a folder, and their numbers.

    Raises:
        MissingFileError: if there are none.
    """
    classes = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir())
    if not classes:
        raise MissingFileError(f"Couldn't find any class folder in {directory}.")
    return classes, {name: i for i, name in enumerate(classes)}


def make_dataset(
    directory: Any,
    class_to_idx: dict[str, int] | None = None,
    extensions: str | tuple[str, ...] | None = None,
    is_valid_file: Callable[[str], bool] | None = None,
    allow_empty: bool = False,
) -> list[tuple[str, int]]:
    """Return the files below each class's folder with the class's number, in the order of their names.

    Raises:
        InputError: if not one of `extensions` and `is_valid_file` is given.
        MissingFileError: if a class has no file.
    """
    if (extensions is None) == (is_valid_file is None):
        raise InputError("Both extensions and is_valid_file cannot be None or not None at the same time")
    numbers = find_classes(directory)[1] if class_to_idx is None else class_to_idx
    if not numbers:
        raise InputError("'class_to_index' must have at least one entry to collect any samples.")

    def wanted(path: str) -> bool:
        return is_valid_file(path) if is_valid_file else has_file_allowed_extension(path, extensions)  # type: ignore[arg-type]

    found = [
        (path, numbers[name])
        for name in sorted(numbers)
        for folder, _, files in sorted(os.walk(os.path.join(os.path.expanduser(directory), name), followlinks=True))
        for path in (os.path.join(folder, file) for file in sorted(files))
        if wanted(path)
    ]
    empty = sorted(name for name, number in numbers.items() if number not in {n for _, n in found})
    if empty and not allow_empty:
        message = f"Found no valid file for the classes {', '.join(empty)}. "
        if extensions is not None:
            shown = extensions if isinstance(extensions, str) else ", ".join(extensions)
            message += f"Supported extensions are: {shown}"
        raise MissingFileError(message)
    return found


class DatasetFolder(VisionDataset):
    """Files of a folder with one folder a class: `root/dog/a.ext`, `root/cat/nested/b.ext`.

    Args:
        root: the folder.
        loader: returns what a file holds.
        extensions: which files; or
        is_valid_file: says of a path whether it is one.
        transform: called with what each file holds.
        target_transform: called with each class's number.
        allow_empty: allow classes without files.

    Attributes:
        classes: the names of the classes, sorted.
        class_to_idx: their numbers.
        samples: each file with its class's number.
        targets: the numbers.

    Raises:
        MissingFileError: if there are no classes, or one has no file.
    """

    def __init__(
        self,
        root: Any,
        loader: Callable[[str], Any],
        extensions: tuple[str, ...] | None = None,
        transform: Change | None = None,
        target_transform: Change | None = None,
        is_valid_file: Callable[[str], bool] | None = None,
        allow_empty: bool = False,
    ) -> None:
        super().__init__(root, transform=transform, target_transform=target_transform)
        self.loader, self.extensions = loader, extensions
        self.classes, self.class_to_idx = self.find_classes(self.root)
        self.samples = make_dataset(self.root, self.class_to_idx, extensions, is_valid_file, allow_empty)
        self.targets = [target for _, target in self.samples]

    def find_classes(self, directory: Any) -> tuple[list[str], dict[str, int]]:
        """Return the classes and their numbers; a subclass may choose others."""
        return find_classes(directory)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Read a file."""
        path, target = self.samples[index]
        return self._changed(self.loader(path), target)

    def __len__(self) -> int:
        """Return how many files there are."""
        return len(self.samples)


class ImageFolder(DatasetFolder):
    """Pictures of a folder with one folder a class: `root/dog/a.png`, `root/cat/nested/b.jpg`.

    Args:
        root: the folder.
        transform: called with each picture.
        target_transform: called with each class's number.
        loader: returns a file's picture; in red, green and blue by default.
        is_valid_file: says of a path whether it is a picture; by the name's ending by default.
        allow_empty: allow classes without pictures.

    Raises:
        MissingFileError: if there are no classes, or one has no picture.
    """

    def __init__(
        self,
        root: Any,
        transform: Change | None = None,
        target_transform: Change | None = None,
        loader: Callable[[str], Any] = default_loader,
        is_valid_file: Callable[[str], bool] | None = None,
        allow_empty: bool = False,
    ) -> None:
        extensions = IMG_EXTENSIONS if is_valid_file is None else None
        super().__init__(root, loader, extensions, transform, target_transform, is_valid_file, allow_empty)
        self.imgs = self.samples
