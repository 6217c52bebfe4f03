"""What all data sets of pictures share. Source: torchvision.datasets.vision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...ops.errors import InputError
from ...runtime.data.dataset import Dataset

Change = Callable[[Any], Any]


class VisionDataset(Dataset[Any]):
    """Pictures with their targets, and what is done to both.

    Args:
        root: the folder.
        transforms: called with a picture and its target, returns both.
        transform: called with each picture.
        target_transform: called with each target.

    Raises:
        InputError: if there are both kinds.
    """

    def __init__(
        self,
        root: Any = None,
        transforms: Callable[[Any, Any], Any] | None = None,
        transform: Change | None = None,
        target_transform: Change | None = None,
    ) -> None:
        self.root = str(Path(root).expanduser()) if root is not None else None
        separate = transform is not None or target_transform is not None
        if transforms is not None and separate:
            raise InputError("Only transforms or transform/target_transform can be passed as argument")
        self.transform, self.target_transform = transform, target_transform
        self.transforms = StandardTransform(transform, target_transform) if separate else transforms

    def _changed(self, picture: Any, target: Any) -> tuple[Any, Any]:
        """Return an example as the transforms make it."""
        if self.transform is not None:
            picture = self.transform(picture)
        if self.target_transform is not None:
            target = self.target_transform(target)
        if self.transforms is not None and not isinstance(self.transforms, StandardTransform):
            picture, target = self.transforms(picture, target)
        return picture, target

    def __len__(self) -> int:
        """Return how many there are."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """Return it as torchvision prints it."""
        body = [f"Number of datapoints: {len(self)}"]
        if self.root is not None:
            body.append(f"Root location: {self.root}")
        body += self.extra_repr().splitlines()
        if self.transforms is not None:
            body.append(repr(self.transforms))
        return "\n".join([f"Dataset {type(self).__name__}", *(f"    {line}" for line in body)])

    def extra_repr(self) -> str:
        """Return what the repr shows besides."""
        return ""


class StandardTransform:
    """A transform for pictures and one for targets."""

    def __init__(self, transform: Change | None = None, target_transform: Change | None = None) -> None:
        self.transform, self.target_transform = transform, target_transform

    def __call__(self, picture: Any, target: Any) -> tuple[Any, Any]:
        """Apply them."""
        picture = picture if self.transform is None else self.transform(picture)
        return picture, target if self.target_transform is None else self.target_transform(target)

    def __repr__(self) -> str:
        """Return it as torchvision prints it."""
        lines = [type(self).__name__]
        for head, transform in (("Transform: ", self.transform), ("Target transform: ", self.target_transform)):
            if transform is not None:
                first, *rest = repr(transform).splitlines()
                lines += [head + first, *(" " * len(head) + line for line in rest)]
        return "\n".join(lines)
