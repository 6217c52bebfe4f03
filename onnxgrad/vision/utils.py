"""Many pictures in one."""

from ..tools.vision.grid import make_grid, save_image

__all__ = [
    "make_grid",
    "save_image",
]
