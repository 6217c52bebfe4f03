"""Transforms that always do the same. Source: torchvision.transforms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...ops.errors import InputError
from ...runtime.nn.module import Module
from . import color, geometry, pixels
from .geometry import InterpolationMode, both_of, mode_of


class Compose:
    """Transforms one after the other."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = transforms

    def __call__(self, img: Any) -> Any:
        """Apply them."""
        for transform in self.transforms:
            img = transform(img)
        return img

    def __repr__(self) -> str:
        """Return it as torchvision prints it."""
        return "\n".join([f"{type(self).__name__}(", *(f"    {t}" for t in self.transforms), ")"])


class ToTensor:
    """A picture, or an array of height, width and channels, becomes a Tensor of channels, height and width.

    Bytes are divided by 255 and become float32; other element types stay.
    """

    def __call__(self, pic: Any) -> Any:
        """Apply it."""
        return pixels.to_tensor(pic)

    def __repr__(self) -> str:
        """Return it as torchvision prints it."""
        return f"{type(self).__name__}()"


class PILToTensor:
    """A picture becomes a Tensor of channels, height and width, its values as they are."""

    def __call__(self, pic: Any) -> Any:
        """Apply it."""
        return pixels.pil_to_tensor(pic)

    def __repr__(self) -> str:
        """Return it as torchvision prints it."""
        return f"{type(self).__name__}()"


class ToPILImage:
    """A Tensor of channels, height and width, or an array of height, width and channels, becomes a picture.

    Args:
        mode: of the picture; by default what the channels and the element type suggest.
    """

    def __init__(self, mode: str | None = None) -> None:
        self.mode = mode

    def __call__(self, pic: Any) -> Any:
        """Apply it."""
        return pixels.to_pil_image(pic, self.mode)

    def __repr__(self) -> str:
        """Return it as torchvision prints it."""
        return f"{type(self).__name__}({'' if self.mode is None else f'mode={self.mode}'})"


class Lambda:
    """Any function.

    Raises:
        TypeError: if it is none.
    """

    def __init__(self, lambd: Callable[[Any], Any]) -> None:
        if not callable(lambd):
            raise TypeError(f"Argument lambd should be callable, got {type(lambd).__name__!r}")
        self.lambd = lambd

    def __call__(self, img: Any) -> Any:
        """Apply it."""
        return self.lambd(img)

    def __repr__(self) -> str:
        """Return it as torchvision prints it."""
        return f"{type(self).__name__}()"


class Transform(Module):
    """A transform that is a module; a subclass defines `forward` and what its repr shows."""

    def _settings(self) -> str:
        return ""

    def __repr__(self) -> str:
        """Return it as torchvision prints it."""
        return f"{type(self).__name__}({self._settings()})"


class Normalize(Transform):
    """(image - mean) / std, one mean and deviation a channel.

    Args:
        mean: one value a channel.
        std: one value a channel.
        inplace: change the Tensor itself.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> None:
        super().__init__()
        self.mean, self.std, self.inplace = mean, std, inplace

    def forward(self, tensor: Any) -> Any:
        """Apply it."""
        return pixels.normalize(tensor, self.mean, self.std, self.inplace)

    def _settings(self) -> str:
        return f"mean={self.mean}, std={self.std}"


class ConvertImageDtype(Transform):
    """Another element type, the values scaled: floats from 0 to 1, integers from 0 to the largest."""

    def __init__(self, dtype: Any) -> None:
        super().__init__()
        self.dtype = np.dtype(dtype)

    def forward(self, image: Any) -> Any:
        """Apply it."""
        return pixels.convert_image_dtype(image, self.dtype)


class Resize(Transform):
    """Another size.

    Args:
        size: height and width; or the shorter side alone, and the other side follows.
        interpolation: how pixels are found.
        max_size: of the longer side, where the shorter one is given.
        antialias: of Tensors: widen the filter where the image shrinks, which Pillow always does.

    Raises:
        TypeError: if the size is no number or sequence.
        InputError: if it has more than two numbers.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        interpolation: Any = InterpolationMode.BILINEAR,
        max_size: int | None = None,
        antialias: bool | None = True,
    ) -> None:
        super().__init__()
        if not isinstance(size, int | Sequence):
            raise TypeError(f"Size should be int or sequence. Got {type(size)}")
        if isinstance(size, Sequence) and len(size) not in (1, 2):
            raise InputError("If size is a sequence, it should have 1 or 2 values")
        self.size, self.max_size, self.antialias = size, max_size, antialias
        self.interpolation = mode_of(interpolation)

    def forward(self, img: Any) -> Any:
        """Apply it."""
        return geometry.resize(img, self.size, self.interpolation, self.max_size, self.antialias)

    def _settings(self) -> str:
        return (
            f"size={self.size}, interpolation={self.interpolation.value}, max_size={self.max_size}, "
            f"antialias={self.antialias}"
        )


class CenterCrop(Transform):
    """The middle; a smaller image is padded with 0 first."""

    def __init__(self, size: int | Sequence[int]) -> None:
        super().__init__()
        self.size = both_of(size)

    def forward(self, img: Any) -> Any:
        """Apply it."""
        return geometry.center_crop(img, self.size)

    def _settings(self) -> str:
        return f"size={self.size}"


class Pad(Transform):
    """A border.

    Args:
        padding: its width: everywhere; left and right, then top and bottom; or left, top, right, bottom.
        fill: what a constant border is filled with: a number, or one a channel.
        padding_mode: `constant`, `edge`, `reflect` (without repeating the edge) or `symmetric` (with).
    """

    def __init__(self, padding: int | Sequence[int], fill: Any = 0, padding_mode: str = "constant") -> None:
        super().__init__()
        if not isinstance(padding, int) and len(padding) not in (1, 2, 4):
            raise InputError(
                f"Padding must be an int or a 1, 2, or 4 element tuple, not a {len(padding)} element tuple"
            )
        self.padding, self.fill, self.padding_mode = padding, fill, padding_mode

    def forward(self, img: Any) -> Any:
        """Apply it."""
        return geometry.pad(img, self.padding, self.fill, self.padding_mode)

    def _settings(self) -> str:
        return f"padding={self.padding}, fill={self.fill}, padding_mode={self.padding_mode}"


class Grayscale(Transform):
    """Grey, in one channel or in three equal ones."""

    def __init__(self, num_output_channels: int = 1) -> None:
        super().__init__()
        self.num_output_channels = num_output_channels

    def forward(self, img: Any) -> Any:
        """Apply it."""
        return color.rgb_to_grayscale(img, self.num_output_channels)

    def _settings(self) -> str:
        return f"num_output_channels={self.num_output_channels}"
