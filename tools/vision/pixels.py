"""Pictures to Tensors and back, and Tensors of other element types. Source: torchvision.transforms.functional."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ops.errors import DTypeError, InputError, ShapeError
from ...ops.types import is_float, is_integer
from ...runtime.tensor.tensor import Tensor
from .pillow import is_picture, pillow

_MODE_DTYPES = {"I": np.int32, "I;16": np.uint16, "F": np.float32}
_MODES: dict[int, dict[Any, tuple[str, ...]]] = {
    1: {np.uint8: ("L", "1", "P"), np.int16: ("I;16",), np.uint16: ("I;16",), np.int32: ("I",), np.float32: ("F",)},
    2: {np.uint8: ("LA",)},
    3: {np.uint8: ("RGB", "YCbCr", "HSV")},
    4: {np.uint8: ("RGBA", "CMYK", "RGBX")},
}
"""The modes that pixels of so many channels may have, the default first."""


def is_image(value: Any) -> bool:
    """Whether a value is a picture of Pillow's, or a Tensor that holds one."""
    return is_picture(value) or (isinstance(value, Tensor) and value.ndim >= 2)


def checked(image: Any) -> Any:
    """Return an image.

    Raises:
        TypeError: if it is neither a picture of Pillow's nor a Tensor of two or more axes.
    """
    if not is_image(image):
        raise TypeError(f"img should be PIL Image or Tensor Image (..., C, H, W). Got {type(image)}")
    return image


def size_of(image: Any) -> tuple[int, int]:
    """Return height and width."""
    return (image.height, image.width) if is_picture(image) else (image.shape[-2], image.shape[-1])


def channels_of(image: Any) -> int:
    """Return the number of channels."""
    if is_picture(image):
        return len(image.getbands())
    return 1 if image.ndim == 2 else int(image.shape[-3])


def to_tensor(pic: Any) -> Tensor:
    """Return a picture, or an array of height, width and channels, as a Tensor of channels, height and width.

    Bytes are divided by 255 and become float32; other element types stay.

    Raises:
        TypeError: if it is neither.
        InputError: if an array has not two or three axes.
    """
    if not is_picture(pic) and not isinstance(pic, np.ndarray):
        raise TypeError(f"pic should be PIL Image or ndarray. Got {type(pic)}")
    if isinstance(pic, np.ndarray):
        if pic.ndim not in (2, 3):
            raise InputError(f"pic should be 2/3 dimensional. Got {pic.ndim} dimensions.")
        pixels = pic
    else:
        pixels = np.array(pic, _MODE_DTYPES.get(pic.mode, np.uint8))
        if pic.mode == "1":
            pixels = 255 * pixels
    pixels = np.ascontiguousarray(_planes(pixels))
    if pixels.dtype == np.uint8:
        pixels = pixels.astype(Tensor.default_dtype) / Tensor.default_dtype.type(255)
    return Tensor(pixels)


def pil_to_tensor(pic: Any) -> Tensor:
    """Return a picture as a Tensor of channels, height and width, its values as they are.

    Raises:
        TypeError: if it is no picture.
    """
    if not is_picture(pic):
        raise TypeError(f"pic should be PIL Image. Got {type(pic)}")
    return Tensor(np.ascontiguousarray(_planes(np.array(pic))))


def _planes(pixels: Any) -> Any:
    return (pixels[:, :, None] if pixels.ndim == 2 else pixels).transpose(2, 0, 1)


def to_pil_image(pic: Any, mode: str | None = None) -> Any:
    """Return a Tensor of channels, height and width, or an array of height, width and channels, as a picture.

    Floats from 0 to 1 become bytes, rounded down.

    Args:
        pic: the pixels.
        mode: of the picture; by default what the channels and the element type suggest.

    Raises:
        TypeError: if it is neither, or of another element type.
        InputError: if it has another number of axes or channels, or the mode does not fit.
    """
    if not isinstance(pic, Tensor | np.ndarray):
        raise TypeError(f"pic should be Tensor or ndarray. Got {type(pic)}.")
    if pic.ndim not in (2, 3):
        raise InputError(f"pic should be 2/3 dimensional. Got {pic.ndim} dimensions.")
    pixels: Any = pic
    if isinstance(pic, Tensor):
        pixels = np.asarray(pic.detach().cpu().numpy())
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels.transpose(1, 2, 0)
    elif pixels.ndim == 2:
        pixels = pixels[:, :, None]
    channels = pixels.shape[2]
    if channels not in _MODES:
        raise InputError(f"pic should not have > 4 channels. Got {channels} channels.")
    if is_float(pixels.dtype) and mode != "F":
        pixels = (pixels * 255).astype(np.uint8)
    allowed = _MODES[channels].get(pixels.dtype.type)
    if allowed is None:
        raise TypeError(f"Input type {pixels.dtype} is not supported")
    if mode is not None and mode not in allowed:
        raise InputError(
            f"Incorrect mode ({mode}) supplied for input type {pixels.dtype} with {channels} channels. "
            f"Should be one of {list(allowed)}"
        )
    pixels = np.ascontiguousarray(pixels[:, :, 0] if channels == 1 else pixels)
    wanted = mode or allowed[0]
    made = pillow().fromarray(pixels)
    if made.mode != wanted:
        made = (
            pillow().frombytes(wanted, made.size, pixels.tobytes())
            if wanted not in ("1", "P")
            else made.convert(wanted)
        )
    return made


def normalize(tensor: Tensor, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> Tensor:
    """Return (tensor - mean) / std, one mean and deviation a channel.

    Args:
        tensor: floats of channels, height and width, perhaps with leading axes.
        mean: one value a channel, or one for all.
        std: as `mean`.
        inplace: change the Tensor itself.

    Raises:
        TypeError: if it is no Tensor.
        DTypeError: if it holds no floats.
        ShapeError: if it has fewer than three axes.
        InputError: if a deviation is 0.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"img should be Tensor Image. Got {type(tensor)}")
    if not tensor.is_floating_point():
        raise DTypeError(f"Input tensor should be a float tensor. Got {tensor.dtype}.")
    if tensor.ndim < 3:
        raise ShapeError(
            f"Expected tensor to be a tensor image of size (..., C, H, W). Got tensor.size() = {tuple(tensor.shape)}"
        )
    centre, spread = (
        Tensor(np.asarray(v, tensor.dtype).reshape(-1, 1, 1)).to(device=tensor.device) for v in (mean, std)
    )
    if not np.asarray(std, tensor.dtype).all():
        raise InputError(f"std evaluated to zero after conversion to {tensor.dtype}, leading to division by zero.")
    if inplace:
        return tensor.sub_(centre).div_(spread)
    return (tensor - centre) / spread


def convert_image_dtype(image: Tensor, dtype: Any = np.float32) -> Tensor:
    """Return an image of another element type, its values scaled: floats from 0 to 1, integers from 0 to the largest.

    Raises:
        TypeError: if it is no Tensor.
        DTypeError: if large integers would not come out of floats exactly.
    """
    if not isinstance(image, Tensor):
        raise TypeError("Input img should be Tensor Image")
    wanted, found = np.dtype(dtype), image.dtype
    if wanted == found:
        return image
    if is_float(found) and is_float(wanted):
        return image.to(dtype=wanted)
    if is_float(found):
        if (found == np.float32 and wanted.itemsize >= 4) or (found == np.float64 and wanted.itemsize == 8):
            raise DTypeError(f"The cast from {found} to {wanted} cannot be performed safely.")
        return (image * (largest(wanted) + 1.0 - 1e-3)).to(dtype=wanted)
    if is_float(wanted):
        return image.to(dtype=wanted) / largest(found)
    high, top = largest(found), largest(wanted)
    if high > top:
        return (image // ((high + 1) // (top + 1))).to(dtype=wanted)
    return image.to(dtype=wanted) * ((top + 1) // (high + 1))


def largest(dtype: Any) -> int:
    """Return the value of a white pixel: 1 for floats and truth values."""
    return int(np.iinfo(dtype).max) if is_integer(np.dtype(dtype)) else 1
