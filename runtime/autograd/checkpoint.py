"""Memory for time: what a function would keep for backward is computed again when backward wants it.

While the function runs, the nodes of the tape are given notes in place of the values that they keep. The first note
that backward reads runs the function again, and what its nodes keep this time, in the same order, is what the notes
stand for. So everything holds that holds without: every order of derivative, gradients of what the function takes from
around it, hooks. A function that does not compute the same again is an error where shapes or element types tell.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from ...ops.errors import AutogradError
from ...ops.types import Array
from ..tensor.random import default_generator
from ..tensor.tensor import Tensor, wrap
from .grad_mode import MODE, enable_grad
from .node import Node
from .saved import Saved, SavedOutput, count_special, switch_autocast


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """Return `function(*args, **kwargs)`, and compute it again in backward instead of keeping what is inside.

    Args:
        function: computes the same each time; what it changes around it (running statistics) it changes twice.
        args: for the function; Tensors, also in lists, tuples and dictionaries, are kept.
        use_reentrant: accepted for PyTorch's sake; there is one way here, that of `use_reentrant=False`.
        preserve_rng_state: draw the same random numbers again from the process's generator.
        kwargs: for the function.
    """
    if not MODE.enabled or MODE.trace is not None:  # a compiled function has its own way: memory_limit_bytes
        return function(*args, **kwargs)
    region = Region(function, args, kwargs, preserve_rng_state)
    with _set("keeper", region):
        return function(*args, **kwargs)


def checkpoint_sequential(
    functions: Any,
    segments: int,
    input: Any,
    use_reentrant: bool | None = None,
    **kwargs: Any,
) -> Any:
    """Return a chain of functions at an input, every segment of it but the last as a checkpoint.

    Args:
        functions: a `Sequential`, or functions in their order.
        segments: how many.
        input: of the first function.
        use_reentrant: as for `checkpoint`.
        kwargs: `preserve_rng_state`, as for `checkpoint`.
    """
    chain = list(functions.children()) if hasattr(functions, "children") else list(functions)
    if not 0 < segments <= len(chain):
        raise AutogradError(f"checkpoint_sequential: {segments} segments of {len(chain)} functions")

    def part(begin: int, end: int) -> Callable[[Any], Any]:
        def run(x: Any) -> Any:
            for f in chain[begin:end]:
                x = f(x)
            return x

        return run

    size, begin = len(chain) // segments, 0
    for _ in range(segments - 1):
        input = checkpoint(part(begin, begin + size), input, use_reentrant=use_reentrant, **kwargs)
        begin += size
    return part(begin, len(chain))(input)


@contextlib.contextmanager
def recompute_loops() -> Iterator[None]:
    """Run the bodies of Loop, Scan and If so that each iteration keeps its inputs alone, as `checkpoint` does.

    It is the forward computation that has to stand inside; backward may be anywhere.
    """
    with _set("recompute_loops", True):
        yield


class _Enough(BaseException):
    """All that the notes stand for is there: the rest of the function need not run."""


class Region:
    """One call of a function whose inside is not kept.

    Attributes:
        count: how many values its nodes would have kept.
    """

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], preserve_rng_state: bool
    ) -> None:
        """Keep the arguments; in a region around this one they are notes too."""
        self.function, self.count = function, 0
        self._own: dict[int, Saved] = {}
        self._arguments = _mapped((args, kwargs), self._keep)
        self._state = default_generator.get_state() if preserve_rng_state else None
        self._loops, self._autocast = MODE.recompute_loops, MODE.autocast
        self._again: list[Saved | SavedOutput] | None = None
        self._taken: set[int] = set()

    def _keep(self, tensor: Tensor) -> Any:
        outer = MODE.keeper
        kept: Saved = Saved(tensor) if outer is None else outer.save(tensor)
        self._own[id(tensor)] = kept
        return _Argument(kept, tensor.requires_grad)

    def save(self, tensor: Tensor) -> Saved:
        """Return what a node keeps of an argument: leaves and the region's arguments are there anyway."""
        own = self._own.get(id(tensor))
        if own is not None:
            return own
        if tensor.requires_grad and tensor.is_leaf:
            return Saved(tensor)
        self.count += 1
        return Note(self, self.count - 1, tensor)

    def save_output(self, tensor: Tensor, index: int) -> SavedOutput:
        """Return what a node keeps of an output."""
        self.count += 1
        return OutputNote(self, self.count - 1, tensor, index)

    def take(self, place: int, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return the array that a note stands for; the function runs again for the first of them.

        Raises:
            AutogradError: if it is another than the one of the first run.
        """
        if self._again is None or place >= len(self._again):
            self._again = self._run()
        if place >= len(self._again):
            raise AutogradError(
                f"checkpoint: {len(self._again)} values were kept when the function ran again, {self.count} the first "
                "time; it has to compute the same each time"
            )
        array: Array = self._again[place].unpack(None, False)
        if (array.shape, array.dtype) != (shape, dtype):
            raise AutogradError(
                f"checkpoint: value {place} is {array.dtype}{list(array.shape)} when the function runs again, and was "
                f"{dtype}{list(shape)} the first time; it has to compute the same each time"
            )
        self._taken.add(place)
        if len(self._taken) == self.count:
            self._again = None
            self._taken.clear()
        return array

    def _run(self) -> list[Saved | SavedOutput]:
        collector = _Collector(self.count)

        def given(argument: _Argument) -> Tensor:
            tensor = wrap(argument.kept.unpack(None, False))
            tensor.requires_grad = argument.requires_grad
            collector.own[id(tensor)] = tensor
            return tensor

        args, kwargs = _mapped(self._arguments, given, _Argument)
        now = default_generator.get_state() if self._state is not None else None
        try:
            if self._state is not None:
                default_generator.set_state(self._state)
            loops, casts = _set("recompute_loops", self._loops), _recast(self._autocast)
            with enable_grad(), loops, casts, _set("keeper", collector), contextlib.suppress(_Enough):
                self.function(*args, **kwargs)
        finally:
            if now is not None:
                default_generator.set_state(now)
        return collector.found


class _Argument:
    __slots__ = ("kept", "requires_grad")

    def __init__(self, kept: Saved, requires_grad: bool) -> None:
        self.kept, self.requires_grad = kept, requires_grad


class _Collector:
    """Collects what the nodes of the second run keep."""

    def __init__(self, count: int) -> None:
        self.count, self.found = count, list[Saved | SavedOutput]()
        self.own: dict[int, Tensor] = {}

    def save(self, tensor: Tensor) -> Saved:
        saved = Saved(tensor)
        if not (tensor.requires_grad and tensor.is_leaf) and id(tensor) not in self.own:
            self._add(saved)
        return saved

    def save_output(self, tensor: Tensor, index: int) -> SavedOutput:
        saved = SavedOutput(tensor, index)
        self._add(saved)
        return saved

    def _add(self, saved: Saved | SavedOutput) -> None:
        self.found.append(saved)
        if len(self.found) >= self.count:
            raise _Enough


class Note(Saved):
    """Stands for an argument that was computed inside a region."""

    __slots__ = ("dtype", "edge", "place", "region", "requires_grad", "shape")

    def __init__(self, region: Region, place: int, tensor: Tensor) -> None:
        """Remember where a Tensor came from and which of the region's values it is."""
        self.region, self.place, self.edge = region, place, tensor._edge
        self.shape, self.dtype, self.requires_grad = tensor.shape, tensor.dtype, tensor.requires_grad

    def unpack(self, node: Node | None, recorded: bool) -> Any:
        """Return the Tensor, tied to its place in the first run, where what follows is recorded, else its array."""
        array = self.region.take(self.place, self.shape, self.dtype)
        if not recorded:
            return array
        tensor = wrap(array)
        tensor.requires_grad, tensor._edge = self.requires_grad, self.edge
        return tensor


class OutputNote(SavedOutput):
    """Stands for an output that was computed inside a region."""

    __slots__ = ("dtype", "place", "region", "shape")

    def __init__(self, region: Region, place: int, tensor: Tensor, index: int) -> None:
        """Remember which of the region's values an output is."""
        self.region, self.place, self.index = region, place, index
        self.shape, self.dtype = tensor.shape, tensor.dtype

    def unpack(self, node: Node | None, recorded: bool) -> Any:
        """Return the output, tied to its node again where what follows is recorded, else its array."""
        array = self.region.take(self.place, self.shape, self.dtype)
        return array if not recorded else self.tied(wrap(array), node)


@contextlib.contextmanager
def _set(name: str, value: Any) -> Iterator[None]:
    """Change a setting of this thread for a while."""
    before = getattr(MODE, name)
    setattr(MODE, name, value)
    count_special(1)
    try:
        yield
    finally:
        setattr(MODE, name, before)
        count_special(-1)


@contextlib.contextmanager
def _recast(casts: Any) -> Iterator[None]:
    """Compute under the autocast of the first run for a while."""
    before = MODE.autocast
    switch_autocast(None if casts is None else casts.again())
    try:
        yield
    finally:
        switch_autocast(before)


def _mapped(value: Any, f: Callable[[Any], Any], kind: type = Tensor) -> Any:
    """Return a value with everything of a kind in it, in lists, tuples and dictionaries, replaced."""
    if isinstance(value, kind):
        return f(value)
    if type(value) in (list, tuple):
        return type(value)(_mapped(v, f, kind) for v in value)
    return {k: _mapped(v, f, kind) for k, v in value.items()} if type(value) is dict else value
