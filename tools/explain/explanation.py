"""The result of an explanation: numbers, and the pictures that they make."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops.dims import show
from ...ops.errors import InputError, MissingExtraError
from ...ops.types import Array
from ..images import MODES
from .resample import blur, resize, spread_of

if TYPE_CHECKING:
    from types import ModuleType

    from PIL.Image import Image


@dataclass(frozen=True)
class Explanation:
    """What speaks for a model's answer.

    Attributes:
        values: one number an element of the input, or a position of the layer (N, 1, *S).
        target: the class or index that was explained, one an example.
        score: the model's score for it.
        method: `saliency`, `integrated gradients` or `Grad-CAM`.
        x: the input that was explained.
        layer: the layer that was looked at, for Grad-CAM.
        delta: by how much integrated gradients miss the difference of scores.
    """

    values: Array
    target: tuple[tuple[int, ...], ...]
    score: Array
    method: str
    x: Array = field(repr=False)
    layer: str | None = None
    delta: Array | None = None

    def __repr__(self) -> str:
        """Return it in a line, without the values."""
        at = f", layer={self.layer!r}" if self.layer is not None else ""
        return f"Explanation({self.method}{at}, target={self.target}, values of shape {self.values.shape})"

    def heatmap(self, index: int = 0, *, signed: bool = False, blurred: float = 0.0) -> Array:
        """Return one example's explanation as a picture of the image's height and width, from 0 (nothing) to 1.

        Grad-CAM is brought to the image's size bilinearly; the other methods' channels are joined: the largest for
        saliency, the sum for integrated gradients; their 1 is the 99th percentile, so that single pixels do not hide
        the rest.

        Args:
            index: which example.
            signed: from -1 (against the target) to 1 instead.
            blurred: smooth it by this many pixels; gradients by single pixels are speckled.

        Raises:
            InputError: if the input is not an image.
        """
        height, width, axis = self._image_axes()
        one = self.values[index].astype(np.float64)
        if self.layer is not None:
            flat = resize(one[0], (height, width))
        elif axis is None:
            flat = one
        elif self.method == "saliency":
            flat = np.abs(one).max(axis=axis)
        else:
            flat = one.sum(axis=axis)
        flat = flat if signed else np.maximum(flat, 0) if self.layer is not None else np.abs(flat)
        flat = blur(flat, blurred) if blurred > 0 else flat
        top = np.abs(flat).max() if self.layer is not None else spread_of(np.abs(flat))
        return np.clip(flat / top, -1, 1) if top > 0 else np.zeros_like(flat)

    def overlay(self, image: Any = None, index: int = 0, *, strength: float = 0.85) -> Image:
        """Return the image with the heat map laid over it.

        Args:
            image: a picture or the path of one; by default the input itself, brought to the range of grey or colour.
            index: which example.
            strength: how much the hottest spots cover the image, 0 to 1.

        Raises:
            InputError: if the input is not an image.
            MissingExtraError: if the packages of the extra `explain` are not installed.
        """
        picture = _pictures()
        found: Image = picture.overlay(
            self.heatmap(index, blurred=self._blur()), self._image(picture, image, index), strength
        )
        return found

    def save(
        self,
        path: str | os.PathLike[str],
        image: Any = None,
        index: int = 0,
        *,
        title: str | None = None,
        label: str = "",
    ) -> None:
        """Write a picture: the image, the heat map and the overlay side by side.

        Args:
            path: where to; the ending decides the format.
            image: a picture or the path of one; by default the input itself.
            index: which example.
            title: of the picture; the method, the target and its score by default.
            label: what the target is called.

        Raises:
            InputError: if the input is not an image.
            MissingExtraError: if the packages of the extra `explain` are not installed.
        """
        picture = _pictures()
        if title is None:
            target = self.target[index]
            named = label or f"class {target[0] if len(set(target[1:]) | {0}) == 1 and target else show(target)}"
            title = f"{self.method} for {named}, score {float(self.score[index]):.4g}"
        sigma = self._blur()
        note = f"layer {self.layer}" if self.layer else f"blurred by {sigma:.1f} pixels" if sigma else ""
        title = title[:1].upper() + title[1:]
        picture.save(path, self.heatmap(index, blurred=sigma), self._image(picture, image, index), title, note)

    def _image(self, picture: ModuleType, image: Any, index: int) -> Image:
        height, width, axis = self._image_axes()
        if image is not None:
            return picture.fitted(image, (width, height))  # type: ignore[no-any-return]
        pixels = self.x[index].astype(np.float64)
        pixels = pixels[..., None] if axis is None else np.moveaxis(pixels, axis, -1)
        return picture.of_pixels(pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1])  # type: ignore[no-any-return]

    def _blur(self) -> float:
        """Return the standard deviation in pixels that a picture is smoothed by: 1% of the image, 0 for tiny ones."""
        height, width, _ = self._image_axes()
        return 0.0 if self.layer is not None or min(height, width) < 64 else min(height, width) / 100

    def _image_axes(self) -> tuple[int, int, int | None]:
        """Return height and width of one example, and the axis of its channels."""
        shape = self.x.shape[1:]
        if len(shape) == 2:
            return shape[0], shape[1], None
        if len(shape) == 3 and (shape[0] in MODES or shape[2] not in MODES):
            return shape[1], shape[2], 0
        if len(shape) == 3:
            return shape[0], shape[1], 2
        raise InputError(
            f"the input has shape {show(self.x.shape)}: not an image, so there is no heat map; see `values`"
        )


def _pictures() -> ModuleType:
    try:
        from . import picture
    except ImportError as error:
        raise MissingExtraError(f"pictures need the package {error.name}: pip install 'onnxgrad[explain]'") from error
    return picture
