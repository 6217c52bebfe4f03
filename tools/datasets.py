"""Examples from folders of photos and from files of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ops.errors import InputError
from ..ops.types import HALF, Array, DType, TensorType, is_float
from .images import SUFFIXES, Preparation, layout_of, read_image

if TYPE_CHECKING:
    from ..runtime.model.built import ValueInfo

KEPT_BYTES = 1 << 30
"""Photos are read once and kept if they fit into this."""


@dataclass(frozen=True)
class Labelled:
    """Examples for training.

    Attributes:
        examples: in a form that `finetune` takes.
        count: how many classes there are; 0 if the targets are not classes.
        classes: their names, if they have any.
    """

    examples: Any
    count: int
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.examples[1]) if isinstance(self.examples, tuple) else len(self.examples)


class Photos:
    """Photos with their classes, read when they are asked for.

    Args:
        files: the photos and their classes.
        dtype: of the input.
        shape: of the input.
        how: bytes become numbers.
        views: how many random parts there are of each photo; 0 for the whole photo, once.
        seed: of the parts.
    """

    def __init__(
        self,
        files: Sequence[tuple[Path, int]],
        dtype: DType,
        shape: Sequence[Any],
        how: Preparation,
        views: int = 0,
        seed: int = 0,
    ) -> None:
        self.files, self.dtype, self.shape, self.how = list(files), dtype, tuple(shape), how
        self.views, self.seed = views, seed
        self.batched = layout_of(self.shape).rank == 4

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.files) * max(1, self.views)

    def __getitem__(self, index: int) -> tuple[Array, Any]:
        """Read one."""
        path, label = self.files[index % len(self.files)]
        view = np.random.default_rng((self.seed, index)) if self.views else None
        x = read_image(path, self.dtype, self.shape, self.how, view)
        return (x[0] if self.batched else x), np.int64(label)

    def kept(self) -> Any:
        """Return all as arrays if they fit into memory, else themselves."""
        elements = int(np.prod([d for d in self.shape[-3:] if isinstance(d, int)]))
        if elements * self.dtype.itemsize * len(self) > KEPT_BYTES:
            return self
        xs, ys = zip(*(self[i] for i in range(len(self))), strict=True)
        return np.stack(xs), np.array(ys)


def from_folder(
    folder: Path,
    inputs: Sequence[ValueInfo],
    preparation: Preparation,
    *,
    side: int = 224,
    val_split: float = 0.2,
    views: int = 0,
    seed: int = 0,
) -> tuple[Labelled, Labelled | None]:
    """Return photos of a folder for training, and others for validation.

    Args:
        folder: with one folder of photos a class; or with `train` and `val`, each such a folder.
        inputs: of the model.
        preparation: how photos become inputs.
        side: height and width of photos where the model leaves them open.
        val_split: the part of each class that is kept for validation where there is no `val`.
        views: how many random parts of each photo to train on; 0 for the whole photo.
        seed: of the split and the parts.

    Raises:
        InputError: if there are no photos, or the model takes none.
    """
    declared = inputs[0]
    if len(inputs) != 1 or not isinstance(declared.type, TensorType) or declared.type.known_shape is None:
        raise InputError(f"photos want a model of one image; this one takes {', '.join(map(str, inputs))}")
    if not 0 <= val_split < 1 or views < 0:
        raise InputError(f"val_split is a part from 0 to below 1 and views no less than 0, found {val_split}, {views}")
    shape = _sized(declared.type.known_shape, side)
    dtype = np.dtype(np.float32) if declared.dtype in HALF else declared.dtype
    parted = (folder / "train").is_dir()
    first = folder / "train" if parted else folder
    classes = tuple(sorted(d.name for d in first.iterdir() if d.is_dir() and not d.name.startswith(".")))
    training = _files(first, classes)
    held: list[tuple[Path, int]] = []
    if parted:
        held = _files(folder / "val", classes) if (folder / "val").is_dir() else []
    elif val_split:
        training, held = _divided(training, val_split, seed)
    made = [Photos(training, dtype, shape, preparation, views, seed), Photos(held, dtype, shape, preparation)]
    found = [Labelled(photos.kept(), len(classes), classes) if photos.files else None for photos in made]
    assert found[0] is not None
    return found[0], found[1]


def _files(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    """Return the photos of a folder of classes, in the order of their names."""
    strange = [d.name for d in folder.iterdir() if d.is_dir() and not d.name.startswith(".") and d.name not in classes]
    if strange:
        raise InputError(f"{folder} has classes that the training photos lack: {', '.join(sorted(strange))}")
    files = [
        (path, label)
        for label, name in enumerate(classes)
        for path in (sorted((folder / name).rglob("*")) if (folder / name).is_dir() else [])
        if path.suffix.lower() in SUFFIXES and path.is_file()
    ]
    empty = [name for label, name in enumerate(classes) if not any(at == label for _, at in files)]
    if not files or len(classes) < 2:
        raise InputError(f"{folder}: wanted a folder of photos for each of two or more classes, found {list(classes)}")
    if empty and folder.name != "val":
        raise InputError(f"{folder}: no photos of {', '.join(empty)}")
    return files


def _divided(
    files: list[tuple[Path, int]], part: float, seed: int
) -> tuple[list[tuple[Path, int]], list[tuple[Path, int]]]:
    """Return photos for training and others for validation: a part of each class, drawn by a seed."""
    rng = np.random.default_rng(seed)
    held: set[Path] = set()
    for label in sorted({at for _, at in files}):
        mine = [path for path, at in files if at == label]
        held |= {mine[i] for i in rng.permutation(len(mine))[: round(len(mine) * part)]}
    return [f for f in files if f[0] not in held], [f for f in files if f[0] in held]


def _sized(shape: Sequence[Any], side: int) -> tuple[Any, ...]:
    """Return the shape with the sizes of the image filled in."""
    layout = layout_of(tuple(shape))
    first = 0 if layout.rank < 4 else 1
    return tuple(
        d if isinstance(d, int) or i < first or i == layout.channel_axis else side for i, d in enumerate(shape)
    )


def from_arrays(path: Path) -> tuple[Labelled, Labelled | None]:
    """Return the arrays `x` and `y` of an .npz file, and `x_val` and `y_val` if it has them.

    Raises:
        InputError: if it does not hold them.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except FileNotFoundError:
        raise
    except Exception as error:  # NumPy and zipfile raise half a dozen kinds on damaged files
        raise InputError(f"{path}: not an .npz file that can be read: {error}") from error
    if not {"x", "y"} <= set(arrays):
        raise InputError(f"{path}: wanted arrays x and y, found {', '.join(arrays) or 'none'}")
    y = arrays["y"]
    classes = not is_float(y.dtype)
    count = int(y.max(initial=-1)) + 1 if classes else 0
    training = Labelled((arrays["x"], y), count)
    if not {"x_val", "y_val"} <= set(arrays):
        return training, None
    return training, Labelled((arrays["x_val"], arrays["y_val"]), count)
