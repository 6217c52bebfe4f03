"""The two pipelines, by promise.

PORTABLE keeps every parameter and is safe to train and save. DEVICE may fold, fuse, relayout and prepack, for running
only; it starts where PORTABLE ends.
"""

from __future__ import annotations

from collections.abc import Sequence

from .drop_dead import drop_dead
from .fold_constants import fold_constants
from .rewriting import Pass

PORTABLE: Sequence[Pass] = (fold_constants, drop_dead)
DEVICE: Sequence[Pass] = (drop_dead,)
