"""Transforms that draw at random, from the process's generator or a data loader's worker's.

Source: torchvision.transforms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...ops.errors import InputError
from ...runtime.tensor import random
from . import color, geometry
from .geometry import InterpolationMode, both_of, mode_of
from .pixels import channels_of, size_of
from .transforms import Transform


def uniform(low: float, high: float) -> float:
    """Return a draw from [low, high)."""
    return float(random.uniform(np.empty((), np.float64), low, high))


def below(n: int) -> int:
    """Return a whole number from 0 to below n."""
    return int(random.integers(0, n, ()))


class RandomApply(Transform):
    """All of some transforms, or none of them.

    Args:
        transforms: which.
        p: how likely they are applied.
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]], p: float = 0.5) -> None:
        super().__init__()
        self.transforms, self.p = transforms, p

    def forward(self, img: Any) -> Any:
        """Apply them, perhaps."""
        if self.p < uniform(0, 1):
            return img
        for transform in self.transforms:
            img = transform(img)
        return img

    def __repr__(self) -> str:
        """Return it as torchvision prints it."""
        lines = [f"{type(self).__name__}(", f"    p={self.p}", *(f"    {t}" for t in self.transforms), ")"]
        return "\n".join(lines)


class RandomChoice(Transform):
    """One of some transforms.

    Args:
        transforms: which.
        p: how likely each is; equally by default.
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]], p: Sequence[float] | None = None) -> None:
        super().__init__()
        if p is not None and len(p) != len(transforms):
            raise InputError(f"Length of p doesn't match the number of transforms: {len(p)} and {len(transforms)}")
        self.transforms, self.p = transforms, p

    def forward(self, img: Any) -> Any:
        """Apply one."""
        ends = np.cumsum([1.0] * len(self.transforms) if self.p is None else self.p)
        return self.transforms[int(np.searchsorted(ends, uniform(0, float(ends[-1])), side="right"))](img)

    def __repr__(self) -> str:
        """Return it as torchvision prints it."""
        inside = "\n".join(f"    {t}" for t in self.transforms)
        return f"{type(self).__name__}(\n{inside}\n)(p={self.p})"


class _Perhaps(Transform):
    """A change that is made with a likelihood."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def forward(self, img: Any) -> Any:
        """Apply it, perhaps."""
        return self._change(img) if uniform(0, 1) < self.p else img

    def _change(self, img: Any) -> Any:
        raise NotImplementedError

    def _settings(self) -> str:
        return f"p={self.p}"


class RandomHorizontalFlip(_Perhaps):
    """Mirrored left to right, with likelihood p."""

    def _change(self, img: Any) -> Any:
        return geometry.hflip(img)


class RandomVerticalFlip(_Perhaps):
    """Mirrored top to bottom, with likelihood p."""

    def _change(self, img: Any) -> Any:
        return geometry.vflip(img)


class RandomGrayscale(_Perhaps):
    """Grey in as many channels as before, with likelihood p."""

    def __init__(self, p: float = 0.1) -> None:
        super().__init__(p)

    def _change(self, img: Any) -> Any:
        return color.rgb_to_grayscale(img, channels_of(img))


class RandomCrop(Transform):
    """A part at a random place.

    Args:
        size: height and width, or one number for both.
        padding: a border that is added first; see `Pad`.
        pad_if_needed: pad an image that is smaller than the part.
        fill: of the border.
        padding_mode: of the border.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        padding: int | Sequence[int] | None = None,
        pad_if_needed: bool = False,
        fill: Any = 0,
        padding_mode: str = "constant",
    ) -> None:
        super().__init__()
        self.size, self.padding, self.pad_if_needed = both_of(size), padding, pad_if_needed
        self.fill, self.padding_mode = fill, padding_mode

    @staticmethod
    def get_params(img: Any, output_size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Draw top, left, height and width.

        Raises:
            InputError: if the image is smaller.
        """
        (h, w), (high, wide) = size_of(img), output_size
        if h < high or w < wide:
            raise InputError(f"Required crop size {(high, wide)} is larger than input image size {(h, w)}")
        if (h, w) == (high, wide):
            return 0, 0, h, w
        return below(h - high + 1), below(w - wide + 1), high, wide

    def forward(self, img: Any) -> Any:
        """Apply it."""
        if self.padding is not None:
            img = geometry.pad(img, self.padding, self.fill, self.padding_mode)
        if self.pad_if_needed and size_of(img)[1] < self.size[1]:
            img = geometry.pad(img, [self.size[1] - size_of(img)[1], 0], self.fill, self.padding_mode)
        if self.pad_if_needed and size_of(img)[0] < self.size[0]:
            img = geometry.pad(img, [0, self.size[0] - size_of(img)[0]], self.fill, self.padding_mode)
        return geometry.crop(img, *self.get_params(img, self.size))

    def _settings(self) -> str:
        return f"size={self.size}, padding={self.padding}"


class RandomResizedCrop(Transform):
    """A part of random area and proportions, resized.

    Args:
        size: height and width of the result, or one number for both.
        scale: between which shares of the whole area the part lies.
        ratio: between which proportions, width by height.
        interpolation: how pixels are found.
        antialias: see `Resize`.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3.0 / 4.0, 4.0 / 3.0),
        interpolation: Any = InterpolationMode.BILINEAR,
        antialias: bool | None = True,
    ) -> None:
        super().__init__()
        if not isinstance(scale, Sequence):
            raise TypeError("Scale should be a sequence")
        if not isinstance(ratio, Sequence):
            raise TypeError("Ratio should be a sequence")
        if scale[0] > scale[1] or ratio[0] > ratio[1]:
            raise InputError(f"Scale and ratio should be of kind (min, max), found {scale} and {ratio}")
        self.size, self.scale, self.ratio = both_of(size), scale, ratio
        self.interpolation, self.antialias = mode_of(interpolation), antialias

    @staticmethod
    def get_params(img: Any, scale: Sequence[float], ratio: Sequence[float]) -> tuple[int, int, int, int]:
        """Draw top, left, height and width; the middle in the nearest proportions where ten draws do not fit."""
        height, width = size_of(img)
        for _ in range(10):
            area = height * width * uniform(scale[0], scale[1])
            aspect = math.exp(uniform(math.log(ratio[0]), math.log(ratio[1])))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return below(height - h + 1), below(width - w + 1), h, w
        w, h = width, height
        if width / height < min(ratio):
            h = round(w / min(ratio))
        elif width / height > max(ratio):
            w = round(h * max(ratio))
        return (height - h) // 2, (width - w) // 2, h, w

    def forward(self, img: Any) -> Any:
        """Apply it."""
        place = self.get_params(img, self.scale, self.ratio)
        return geometry.resized_crop(img, *place, self.size, self.interpolation, self.antialias)

    def _settings(self) -> str:
        return (
            f"size={self.size}, scale={tuple(round(s, 4) for s in self.scale)}, "
            f"ratio={tuple(round(r, 4) for r in self.ratio)}, interpolation={self.interpolation.value}, "
            f"antialias={self.antialias}"
        )


class RandomRotation(Transform):
    """A picture turned by a random angle.

    Args:
        degrees: between which angles; one number d stands for -d to d.
        interpolation: how pixels are found.
        expand: make the picture as large as the turned one is.
        center: around which point (x, y); the middle by default.
        fill: what comes in from outside.
    """

    def __init__(
        self,
        degrees: float | Sequence[float],
        interpolation: Any = InterpolationMode.NEAREST,
        expand: bool = False,
        center: Sequence[float] | None = None,
        fill: Any = 0,
    ) -> None:
        super().__init__()
        if isinstance(degrees, int | float):
            if degrees < 0:
                raise InputError("If degrees is a single number, it must be positive.")
            degrees = (-degrees, degrees)
        if len(degrees) != 2:
            raise InputError("degrees should be a sequence of length 2.")
        self.degrees = [float(d) for d in degrees]
        self.interpolation, self.expand, self.center, self.fill = mode_of(interpolation), expand, center, fill

    def forward(self, img: Any) -> Any:
        """Apply it."""
        angle = uniform(*self.degrees)
        return geometry.rotate(img, angle, self.interpolation, self.expand, self.center, self.fill)

    def _settings(self) -> str:
        center = "" if self.center is None else f", center={self.center}"
        fill = "" if self.fill is None else f", fill={self.fill}"
        return f"degrees={self.degrees}, interpolation={self.interpolation.value}, expand={self.expand}{center}{fill}"


class ColorJitter(Transform):
    """Brightness, contrast, saturation and hue changed by random factors, in random order.

    Args:
        brightness: between which factors; one number b stands for max(0, 1 - b) to 1 + b.
        contrast: as `brightness`.
        saturation: as `brightness`.
        hue: between which turns, from -0.5 to 0.5; one number h stands for -h to h.
    """

    def __init__(
        self,
        brightness: float | Sequence[float] = 0,
        contrast: float | Sequence[float] = 0,
        saturation: float | Sequence[float] = 0,
        hue: float | Sequence[float] = 0,
    ) -> None:
        super().__init__()
        self.brightness = _span(brightness, "brightness")
        self.contrast = _span(contrast, "contrast")
        self.saturation = _span(saturation, "saturation")
        self.hue = _span(hue, "hue", 0.0, (-0.5, 0.5))

    def forward(self, img: Any) -> Any:
        """Apply it."""
        changes = (
            (self.brightness, color.adjust_brightness),
            (self.contrast, color.adjust_contrast),
            (self.saturation, color.adjust_saturation),
            (self.hue, color.adjust_hue),
        )
        order = random.permutation(4).tolist()
        factors = [None if span is None else uniform(*span) for span, _ in changes]
        for i in order:
            if (factor := factors[i]) is not None:
                img = changes[i][1](img, factor)
        return img

    def _settings(self) -> str:
        return f"brightness={self.brightness}, contrast={self.contrast}, saturation={self.saturation}, hue={self.hue}"


def _span(
    value: Any, name: str, middle: float = 1.0, bound: tuple[float, float] = (0.0, math.inf)
) -> tuple[float, float] | None:
    """Return between which factors to draw, None where there is one that changes nothing.

    Raises:
        TypeError: if the value is neither a number nor two.
        InputError: if it lies outside.
    """
    if isinstance(value, int | float):
        if value < 0:
            raise InputError(f"If {name} is a single number, it must be non negative.")
        low, high = middle - value, middle + value
        low = max(low, 0.0) if middle else low
    elif isinstance(value, list | tuple) and len(value) == 2:
        low, high = value
    else:
        raise TypeError(f"{name} should be a single number or a list/tuple with length 2.")
    if not bound[0] <= low <= high <= bound[1]:
        raise InputError(f"{name} values should be between {bound}, but got {[low, high]}.")
    return None if low == high == middle else (float(low), float(high))
