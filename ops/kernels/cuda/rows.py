"""How threads walk over rows: what is reduced together is a row, whatever axes it has and however it lies.

A *pack* of `width` elements is read at once. Where the axis without gaps is reduced, packs lie along rows, and a group
of threads (part of a warp, or a block) has a row. Where it is kept, a pack is of as many rows (*columns*), and
neighbouring threads have neighbouring packs. A thread that keeps what it has read, `held` packs, reads a row once. Few
long rows are cut into pieces, one a block along y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from .kernel import GRID_LIMIT, Ref, blocks
from .operand import Operand, Sizes

PROCESSORS = 132
"""How many multiprocessors there are to fill. Results depend on it, so it is not asked of the device."""

KEPT = 32
"""At most so many values of a row does a thread hold in registers."""

_HELD = (1, 2, 3, 4, 6, 8, 12, 16)


@dataclass(frozen=True)
class Along:
    """A tensor that is read or written along rows.

    Attributes:
        name: in the kernel's text.
        ref: it.
        strides: along each axis of the walk, in elements; 0 where it does not vary.
    """

    name: str
    ref: Ref
    strides: Sizes

    @property
    def size(self) -> int:
        """The bytes of an element."""
        return self.ref.operand.dtype.itemsize


def whole(name: str, ref: Ref) -> Along:
    """Return a tensor that has all axes of the walk."""
    return Along(name, ref, ref.operand.strides)


def spread(name: str, ref: Ref, where: Sequence[int], ndim: int) -> Along:
    """Return a tensor whose axes are those axes of the walk."""
    return Along(name, ref, spread_strides(ref.operand, where, ndim))


def spread_strides(o: Operand, where: Sequence[int], ndim: int) -> Sizes:
    """Return the strides of a tensor along `ndim` axes, of which its own are `where`; 0 where its size is 1."""
    strides = [0] * ndim
    for size, stride, axis in zip(o.shape, o.strides, where, strict=True):
        strides[axis] = 0 if size == 1 else stride
    return tuple(strides)


def statistic_strides(like: Operand, kept: Sequence[int]) -> Sizes:
    """Return the strides of a tensor without gaps that has these axes of another, in the order that they have there."""
    strides, step = [0] * like.ndim, 1
    for axis in sorted(kept, key=lambda a: (abs(like.strides[a]), -a)):
        if like.shape[axis] != 1:
            strides[axis] = step
            step *= like.shape[axis]
    return tuple(strides)


@dataclass(frozen=True)
class Lie:
    """How a tensor lies along a walk, in elements.

    Attributes:
        kept: from row to row, or from pack of rows to pack of rows, along each kept axis.
        inner: from pack to pack along each reduced axis.
        step: between the elements of a pack: 1 where it is read at once.
    """

    kept: Sizes
    inner: Sizes
    step: int


@dataclass(frozen=True)
class Walk:
    """How threads walk over rows.

    Attributes:
        columns: whether a pack is of several rows.
        kept: sizes of the kept axes, the last of which counts packs where `columns`.
        inner: sizes of the reduced axes, the last of which counts packs where not.
        width: elements of a pack.
        lanes: threads side by side along kept packs.
        members: threads of a group, which has a row (or a pack of rows).
        threads: of a block.
        held: packs of a row that a thread holds; 0: it reads them as often as it needs them.
        piece: packs of a row that a block walks over.
        pieces: into how many a row is cut.
        lies: of the tensors.
    """

    columns: bool
    kept: Sizes
    inner: Sizes
    width: int
    lanes: int
    members: int
    threads: int
    held: int
    piece: int
    pieces: int
    lies: tuple[Lie, ...]

    @property
    def units(self) -> int:
        """Rows, or packs of rows."""
        return prod(self.kept)

    @property
    def packs(self) -> int:
        """Packs of a row."""
        return prod(self.inner)

    @property
    def rows_each(self) -> int:
        """Rows of a thread."""
        return self.width if self.columns else 1

    @property
    def groups(self) -> int:
        """Groups of a block."""
        return self.threads // (self.lanes * self.members)

    @property
    def units_each(self) -> int:
        """Units of a block."""
        return self.groups * self.lanes

    @property
    def far(self) -> bool:
        """Whether places in a row do not fit 32 bits."""
        reach = [sum((n - 1) * abs(s) for n, s in zip(self.inner, y.inner, strict=True)) for y in self.lies]
        return max(*reach, self.packs * (1 if self.columns else self.width)) >= 2**31 - 2**20


@dataclass(frozen=True)
class _Axis:
    size: int
    strides: Sizes


def _merged(axes: Sequence[_Axis]) -> list[_Axis]:
    """Join neighbouring axes, the outer of which goes on where the inner ends in every tensor."""
    joined: list[_Axis] = []
    for a in sorted(axes, key=lambda a: -abs(a.strides[0]) if a.strides[0] else -(2**62)):
        last = joined[-1] if joined else None
        if last is not None and all(s == t * a.size for s, t in zip(last.strides, a.strides, strict=True)):
            joined[-1] = _Axis(last.size * a.size, a.strides)
        else:
            joined.append(a)
    return joined


def power_above(n: int) -> int:
    """Return the least power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()


def arrange(
    shape: Sequence[int],
    reduced: Sequence[bool],
    tensors: Sequence[Along],
    *,
    hold: int = 0,
    cut: bool = False,
    each: bool = False,
    widest: int = 8,
) -> Walk:
    """Return how to walk over the rows of tensors; the first says which axes have no gaps.

    Args:
        shape: of the walk.
        reduced: which axes are in a row.
        tensors: that are read and written.
        hold: how many values an element leaves in registers where rows are walked over several times.
        cut: whether rows may be cut into pieces, whose results a second kernel joins.
        each: whether rows may be cut freely, because nothing is folded.
        widest: elements of a pack at most.
    """
    axes = [(_Axis(n, tuple(t.strides[a] for t in tensors)), reduced[a]) for a, n in enumerate(shape) if n != 1]
    kept, inner = (_merged([a for a, r in axes if r is side]) for side in (False, True))
    nothing = _Axis(1, (0,) * len(tensors))
    columns = not inner or (bool(kept) and _nearer(kept[-1], inner[-1]))
    kept, inner = kept or [nothing], inner or [nothing]
    lists = kept if columns else inner
    width = _width(lists[-1], [*kept[: len(kept) - columns], *inner[: len(inner) - (not columns)]], tensors, widest)
    steps = lists[-1].strides
    lists[-1] = _Axis(lists[-1].size // width, tuple(s * width for s in steps))
    units, packs = prod(a.size for a in kept), prod(a.size for a in inner)
    lanes, members, threads, held = (
        _columns(units, packs, width, hold, cut or each) if columns else _rows(packs, width, hold)
    )
    count = -(-units // (threads // members))
    pieces = 1
    if each and not held:
        pieces = blocks(packs, members * 8)
    elif cut and not held and count < 2 * PROCESSORS and packs >= members * 16:
        pieces = min(blocks(4 * PROCESSORS, count), packs // (members * (8 if columns else 4)))
    piece = blocks(packs, min(pieces, GRID_LIMIT[1]))
    lies = tuple(
        Lie(tuple(a.strides[i] for a in kept), tuple(a.strides[i] for a in inner), step) for i, step in enumerate(steps)
    )
    return Walk(
        columns, tuple(a.size for a in kept), tuple(a.size for a in inner), width, lanes, members, threads, held, piece,
        blocks(packs, piece), lies,
    )  # fmt: skip


def _nearer(a: _Axis, b: _Axis) -> bool:
    """Whether the elements along one axis are nearer to each other than along another."""
    return a.strides[0] != 0 and (b.strides[0] == 0 or abs(a.strides[0]) < abs(b.strides[0]))


def _width(along: _Axis, others: Sequence[_Axis], tensors: Sequence[Along], widest: int) -> int:
    width = min(widest, max(1, 16 // tensors[0].size))
    while width > 1:
        fits = along.size % width == 0 and all(
            all(a.strides[i] % width == 0 for a in others) and t.ref.operand.offset % width == 0
            for i, t in enumerate(tensors)
            if along.strides[i] == 1
        )
        if fits:
            break
        width //= 2
    return width


def _rows(packs: int, width: int, hold: int) -> tuple[int, int, int, int]:
    """Return lanes, members, threads and held packs, where packs lie along rows."""
    if hold:
        most = min(16, max(1, KEPT // (width * hold)))
        if packs <= 32 * most:
            members = min(32, power_above(packs))
            return 1, members, 128, _held(packs, members, most)
        for threads in (128, 256, 512):
            if packs <= threads * max(1, most // 2):
                return 1, threads, threads, _held(packs, threads, most)
        if packs <= 512 * most:
            return 1, 512, 512, _held(packs, 512, most)
        return 1, 512, 512, 0
    if packs <= 512:
        return 1, min(32, power_above(-(-packs // 2))), 128, 0
    threads = 128 if packs <= 2048 else 256
    return 1, threads, threads, 0


def _columns(units: int, packs: int, width: int, hold: int, cut: bool) -> tuple[int, int, int, int]:
    """Return the same, where packs are of several rows; those that are not cut need more members."""
    if hold:
        most = min(16, max(1, KEPT // (width * hold)))
        members = power_above(-(-packs // most))
        if members <= 32:
            lanes = max(min(256 // members, power_above(units)), -(-32 // members))
            return lanes, members, lanes * members, _held(packs, members, most)
    members = min(8, max(1, power_above(packs // 8)))
    lanes = min(256 // members, power_above(units))
    if lanes < 256 // members:
        members = min(256 // lanes, power_above(max(1, packs // 4)))
    while not cut and lanes > 8 and packs >= 4 * members and -(-units // lanes) < PROCESSORS:
        lanes, members = lanes // 2, members * 2
    lanes = max(lanes, -(-32 // members))
    return lanes, members, lanes * members, 0


def _held(packs: int, members: int, most: int) -> int:
    wanted = blocks(packs, members)
    return next(h for h in (*_HELD, most) if h >= wanted and (h <= most or h == wanted))
