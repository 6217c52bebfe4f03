"""How one kernel walks over a recurrent layer, and whether that is faster than launches for each step.

What is said of a device are estimates: they compare kernels that differ by several times, and lean to launches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .indexing import NARROW
from .kernel import blocks
from .recurrent_cells import Layer
from .rows import PROCESSORS
from .signature import REGISTERS

MOST_THREADS = 512
"""Of a block: more leave too few registers for each."""

_TILES = (1, 2, 4, 8)
"""How many entries of the batch a block may have."""

_MOST_READING = 4
"""How many a block may have that reads the weights in every step: more leave no registers for reading ahead."""

_SHARED_BYTES = 48 << 10

_OTHER_REGISTERS = 56
"""Of a thread, beside its weights and what it has of each entry."""

_ENTRY_REGISTERS = 8

_LAUNCH_CLOCKS = 3400
"""How long a small product or launch keeps a device in a recorded graph: about 2 us, at 1.7 GHz."""

_FMAS = 64
"""Products that a processor adds up in a clock: half of what it could."""

_READ_BYTES = 48
"""That a processor reads from the second cache in a clock: three quarters of what it could."""


@dataclass(frozen=True)
class Arrangement:
    """How a layer is walked: a block multiplies vectors of some entries of the batch by the recurrent weights.

    Attributes:
        tile: entries of the batch of a block.
        parts: threads that share what one number of the result is the sum of.
        each: weights that a thread holds; 0 where it reads them in every step.
        threads: of a block.
    """

    tile: int
    parts: int
    each: int
    threads: int

    def depth(self, length: int) -> int:
        """Return how many numbers a vector of this length takes in shared memory, zeros behind it counted."""
        return self.each * self.parts if self.each else -(-length // 4) * 4

    @property
    def registers(self) -> int:
        """The most that a thread can have: warps share those of a quarter of a processor."""
        return min(255, REGISTERS // (-(-self.threads // 128) * 128) // 8 * 8)


def tile_of(layer: Layer) -> int:
    """Return how many entries of the batch a block has: as few as leave no processor two blocks."""
    return next((t for t in _TILES if blocks(layer.batch, t) * layer.directions <= PROCESSORS), _TILES[-1])


def holding(tile: int, results: int, length: int, *, warps: bool = False) -> Arrangement | None:
    """Return how the weights are held in registers, by as many threads as can be used; None where they do not fit.

    Args:
        tile: entries of the batch.
        results: how many numbers the product has for an entry.
        length: how many products each of these is the sum of.
        warps: whether the parts of a sum are in warps of their own.
    """
    for parts in (16, 8, 4, 2, 1) if warps else (8, 4, 2, 1):
        threads = -(-results // 32) * 32 * parts if warps else -(-results * parts // 32) * 32
        made = Arrangement(tile, parts, -(-length // (parts * 8)) * 8, threads)
        if parts > 1 and (threads > (MOST_THREADS if tile < 4 else MOST_THREADS // 2) or length < 8 * parts):
            continue
        if threads <= MOST_THREADS and made.each + _ENTRY_REGISTERS * tile + _OTHER_REGISTERS <= made.registers:
            return made
    return None


def faster(layer: Layer, a: Arrangement, shared_bytes: int, step_clocks: int, *, products: int = 1) -> bool:
    """Return whether one kernel can walk over a layer and is not slower than launches for each step.

    Args:
        layer: which.
        a: how it is walked.
        shared_bytes: of a block.
        step_clocks: how long a step takes that has nothing to multiply.
        products: how often it multiplies by all weights in a step.
    """
    weights = layer.gates * layer.hidden**2
    if layer.exact != np.float32 or layer.steps * layer.batch * layer.directions * layer.gates * layer.hidden >= _MOST:
        return False
    if shared_bytes > _SHARED_BYTES or (a.tile > _MOST_READING and not a.each):
        return False
    launches = 4 if layer.cell == "gru" else 2
    read = 0 if a.each else weights * layer.dtype.itemsize // _READ_BYTES
    step = max(weights * a.tile // _FMAS, read) * products + step_clocks * launches // 2
    waves = blocks(blocks(layer.batch, a.tile) * layer.directions, PROCESSORS)
    turning = 0 if a.each else _LAUNCH_CLOCKS
    return waves * step * layer.steps + turning <= launches * _LAUNCH_CLOCKS * layer.steps


_MOST = (NARROW - 2**24) // 2
"""Numbers of all steps: what is kept has at most twice as many as there are gates, and offsets are narrow."""
