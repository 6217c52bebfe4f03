"""Bindings: images that come as the bytes of a file."""

from __future__ import annotations

from typing import Any

from ....ops import image
from ..node import NodeView
from ..registry import binds


@binds("ImageDecoder", 20)
def image_decoder(node: NodeView, data: Any) -> Any:
    return image.decode_image(data, pixel_format=node.one_of("pixel_format", "RGB", tuple(image.CHANNELS)))
