"""The short way through a program for one set of shapes: what the first run has checked is not checked again.

It is taken where the inputs are plain arrays of the same shapes and types as before, no weight has changed, and the
whole program is one piece of native code. Small models spend most of their time on the way in and out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops.kernels.cpu.spmd import alone_function, own_scratch, pool
from ..tensor.exposed import any_exposed
from ..tensor.tensor import changes
from .binding import address

if TYPE_CHECKING:
    from .binding import Bound, Frame
    from .running import Running


class Shortcut:
    """A program bound to shapes, with its frames."""

    def __init__(
        self, program: Running, bound: Bound, names: Sequence[str], feeds: Sequence[Any], since: int,
        asked: Collection[int] = (),
    ) -> None:  # fmt: skip
        """Prepare; `shortcut` says whether it may.

        Args:
            program: what to run.
            bound: its sizes.
            names: of the inputs.
            feeds: arrays of the shapes and types that it is for.
            since: the count of changes of any Tensor, read before the weights were looked at.
            asked: the places of the inputs whose elements have chosen the program.
        """
        self.program, self.bound, self.since = program, bound, since
        self.inputs = [
            (n, f.shape, f.dtype, f.tobytes() if i in asked else None)
            for i, (n, f) in enumerate(zip(names, feeds, strict=True))
        ]
        self.feeds = [_words(bound.patches.get(("feed", i))) for i in range(len(names))]
        self.outputs = [
            (*o, _words(bound.patches.get(("output", i))), None if kind == "output" else what)
            for i, (o, (kind, what)) in enumerate(zip(bound.outputs, program.results, strict=True))
        ]
        self.end = program.length
        self.threads = program.threads_for(bound)
        self.generation = program.weights.generation
        self._alone = alone_function()
        self._frames: list[Frame] = []

    def run(self, feeds: Mapping[str, Any]) -> list[Any] | None:
        """Return the outputs, or None where the long way has to be taken."""
        program = self.program
        weights = program.weights
        if changes[0] != self.since or any_exposed(weights.owners) or weights.generation != self.generation:
            return None
        arrays = []
        for name, shape, dtype, content in self.inputs:
            a = feeds.get(name)
            if type(a) is not np.ndarray or a.shape != shape or a.dtype != dtype or not a.flags.c_contiguous:
                return None
            if content is not None and a.tobytes() != content:
                return None
            arrays.append(a)
        if len(arrays) != len(feeds):
            return None
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = program.frame(self.bound)
        try:
            words = frame.words
            for a, places in zip(arrays, self.feeds, strict=True):
                place = address(a)
                for at, offset in places:
                    words[at] = place + offset
            outs = []
            for shape, dtype, places, constant in self.outputs:
                out = np.empty(shape, dtype) if constant is None else constant.copy()
                outs.append(out)
                place = address(out)
                for at, offset in places:
                    words[at] = place + offset
            if self.threads == 1:
                self._alone(frame.address, 0, self.end, own_scratch(self.bound.scratch))
            else:
                pool().run(frame.address, 0, self.end, self.bound.scratch, self.threads)
        finally:
            self._frames.append(frame)
        return outs


def shortcut(program: Running, names: Sequence[str], feeds: Sequence[Any], since: int) -> Shortcut | None:
    """Return the shortcut for feeds like these, which have just run; None where there is none."""
    chosen, asked = program.chosen(feeds)
    if chosen is None:
        return None
    program = chosen
    whole = len(program.segments) < 2 and all(host is None for *_, host in program.segments)
    plain = all(kind in ("output", "constant") for kind, _ in program.results) and not program.updates
    if not whole or not plain or program.flags or program.guard is not None or len(names) != len(feeds):
        return None
    if any(type(f) is not np.ndarray or not f.flags.c_contiguous or not f.flags.aligned for f in feeds):
        return None
    bound = program.bound_for(feeds)
    return None if bound is None else Shortcut(program, bound, names, feeds, since, asked)


def _words(patch: Any) -> list[tuple[int, int]]:
    return [] if patch is None else list(zip(patch.words.tolist(), patch.offsets.tolist(), strict=True))
