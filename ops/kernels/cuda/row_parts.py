"""Numbers that rows have, in memory: of whole rows, and of the pieces that rows are cut into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from ...types import DType
from .expression import NUMPY
from .lowering import Site
from .operand import Operand, packed
from .rows import Along, arrange, statistic_strides


def stored_as(ctype: str) -> DType:
    """Return the element type of tensors of what is calculated with."""
    return np.dtype(NUMPY[ctype])


@dataclass(frozen=True)
class _Planned:
    """A tensor that has no memory yet."""

    operand: Operand


def parts_of(
    site: Site, like: Along, shape: Sequence[int], reduced: Sequence[bool], names: Mapping[str, DType],
    others: Sequence[Along] = (), *, widest: int = 8, always: bool = False,
) -> tuple[int, list[Along]]:  # fmt: skip
    """Return into how many pieces rows are cut, and tensors for what pieces give; none where rows stay whole.

    Args:
        site: where.
        like: the tensor that says how to walk.
        shape: of the walk.
        reduced: which of its axes are in a row.
        names: of the tensors, with their element types.
        others: that are read, too.
        widest: elements of a pack at most.
        always: whether to return tensors for a single piece, too.
    """
    kept = [a for a, r in enumerate(reduced) if not r]
    lying = Operand(like.ref.operand.dtype, tuple(shape), like.strides)
    strides = statistic_strides(lying, kept)
    size = prod(shape[a] for a in kept)
    planned = [Along(name, _Planned(packed(t, (1, size))), strides) for name, t in names.items()]
    pieces = arrange(shape, reduced, [like, *others, *planned], cut=True, widest=widest).pieces
    if pieces == 1 and not always:
        return 1, []
    return pieces, [Along(name, site.temporary(t, (pieces, size)), strides) for name, t in names.items()]


def statistic(
    site: Site, name: str, ctype: str, like: Along, shape: Sequence[int], reduced: Sequence[bool]
) -> Along:  # fmt: skip
    """Return a new tensor of one number a row, lying as the rows of another do."""
    kept = [a for a, r in enumerate(reduced) if not r]
    strides = statistic_strides(Operand(like.ref.operand.dtype, tuple(shape), like.strides), kept)
    return Along(name, site.temporary(stored_as(ctype), (prod(shape[a] for a in kept),)), strides)


def joined(parts: Sequence[Along], shape: Sequence[int], reduced: Sequence[bool]) -> list[Along]:
    """Return what pieces gave, `x` as `x_part`, along a walk with an axis of pieces in front."""
    size = prod(n for n, r in zip(shape, reduced, strict=True) if not r)
    return [Along(f"{p.name}_part", p.ref, (size, *p.strides)) for p in parts]
