"""Tiles: what covers an axis whose size only run time knows."""

import pytest

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.kernels.cpu.target import host_target
from onnxgrad.ops.kernels.cpu.tiling import best_tile, spare_tiles


@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
def test_tiles_of_open_axes(vectors: int) -> None:
    """A small tile is no wider than a whole one, and room is counted for whatever is left behind whole ones."""
    target = host_target()
    tile = best_tile(target, target.lanes("float32"), (Dim.symbol("n"),), 258, 64, vectors)[1]
    assert 0 < tile.rest <= tile.columns
    alone = tile.rest - 1  # an axis shorter than a small tile is done column by column
    behind = -(-(tile.columns - 1) // tile.rest)
    assert spare_tiles(tile) >= max(alone, behind)
