"""Random numbers: one generator for the process, reproducible from `manual_seed`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...ops.errors import TraceError
from ...ops.op import namespace
from ...ops.types import Array
from ..autograd.grad_mode import MODE
from ..cuda.guard import placed


class Generator:
    """A source of random numbers: Philox 4x64, counter-based, so that a state is a few integers.

    Args:
        seed: where it starts; drawn from the system by default.
    """

    def __init__(self, seed: int | None = None) -> None:
        """Start it; see the class for the arguments."""
        self._lock = threading.Lock()
        self.manual_seed(int(np.random.SeedSequence().generate_state(1, np.uint64)[0]) if seed is None else seed)

    def manual_seed(self, seed: int) -> Generator:
        """Start again from a seed, and return the generator."""
        self._seed = int(seed)
        self.numpy = np.random.Generator(np.random.Philox(np.random.SeedSequence(self._seed % 2**64)))
        return self

    def initial_seed(self) -> int:
        """Return the seed that it started from."""
        return self._seed

    def seed(self) -> int:
        """Start again from a seed that the system draws, and return that."""
        return self.manual_seed(Generator().initial_seed()).initial_seed()

    def get_state(self) -> dict[str, Any]:
        """Return the state: nested dictionaries of integers and small arrays."""
        return {"seed": self._seed, "philox": self.numpy.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._seed = state["seed"]
        self.numpy.bit_generator.state = state["philox"]

    def next_key(self) -> Array:
        """Return two fresh uint64: the key of one random op."""
        with self._lock:
            return self.numpy.integers(0, 2**64, 2, dtype=np.uint64)


default_generator = Generator()


class _Here(threading.local):
    generator: Generator | None = None
    undrawn = False


_HERE = _Here()


def current_generator() -> Generator:
    """Return what draws where no generator is given: the process's, or the own one of a data loader's worker."""
    return _HERE.generator or default_generator


@contextmanager
def drawing_from(generator: Generator) -> Iterator[None]:
    """Give this thread a generator of its own for the time of a `with` block."""
    before, _HERE.generator = _HERE.generator, generator
    try:
        yield
    finally:
        _HERE.generator = before


@contextmanager
def undrawn() -> Iterator[None]:
    """Draw nothing in this thread for the time of a `with` block: all numbers are alike."""
    before, _HERE.undrawn = _HERE.undrawn, True
    try:
        yield
    finally:
        _HERE.undrawn = before


def manual_seed(seed: int) -> Generator:
    """Start the process's generator again from a seed, and return it; in a data loader's worker, the worker's."""
    return current_generator().manual_seed(seed)


def initial_seed() -> int:
    """Return the seed that the process's generator started from; in a data loader's worker, the worker's."""
    return current_generator().initial_seed()


def seed() -> int:
    """Start the process's generator again from a seed that the system draws, and return that."""
    return manual_seed(Generator().initial_seed()).initial_seed()


def get_rng_state() -> dict[str, Any]:
    """Return the state of the process's generator, for `set_rng_state`."""
    return current_generator().get_state()


def set_rng_state(new_state: dict[str, Any]) -> None:
    """Go on from a state that `get_rng_state` has returned."""
    current_generator().set_state(new_state)


@contextmanager
def fork_rng(devices: Any = None, enabled: bool = True) -> Iterator[None]:
    """Put the process's generator back behind a `with` block to where it was before.

    Args:
        devices: taken and ignored: one generator serves all devices.
        enabled: False leaves the generator alone.
    """
    state = get_rng_state()
    try:
        yield
    finally:
        if enabled:
            set_rng_state(state)


def next_key(generator: Generator | None = None) -> Array:
    """Return two fresh uint64: the key of one random op; under a trace a Tensor that each run makes anew."""
    g = generator or current_generator()
    return g.next_key() if MODE.trace is None else MODE.trace.key(g)


def uniform(like: Array, low: float, high: float, generator: Generator | None = None) -> Array:
    """Return draws from [low, high), of the shape and element type and on the device of an array."""
    if _HERE.undrawn:
        with placed(like):
            return namespace(like).full_like(like, low)
    g = _drawing(generator)
    with g._lock:
        drawn: Array = g.numpy.random(like.shape, dtype=np.float64 if like.dtype == np.float64 else np.float32)
    with placed(like):
        return namespace(like).asarray((low + (high - low) * drawn).astype(like.dtype))


def normal(like: Array, mean: float, std: float, generator: Generator | None = None) -> Array:
    """Return draws from a normal distribution, of the shape and element type and on the device of an array."""
    if _HERE.undrawn:
        with placed(like):
            return namespace(like).full_like(like, mean)
    g = _drawing(generator)
    with g._lock:
        drawn: Array = g.numpy.standard_normal(like.shape, dtype=np.float64 if like.dtype == np.float64 else np.float32)
    with placed(like):
        return namespace(like).asarray((mean + std * drawn).astype(like.dtype))


def integers(low: int, high: int, shape: tuple[int, ...], generator: Generator | None = None) -> Array:
    """Return int64 draws from [low, high)."""
    g = _drawing(generator)
    with g._lock:
        return g.numpy.integers(low, high, shape)


def permutation(n: int, generator: Generator | None = None) -> Array:
    """Return the numbers below n in random order."""
    g = _drawing(generator)
    with g._lock:
        return g.numpy.permutation(n)


def poisson(rates: Array, generator: Generator | None = None) -> Array:
    """Return draws from Poisson distributions with these rates."""
    g = _drawing(generator)
    with g._lock:
        return g.numpy.poisson(rates)


def _drawing(generator: Generator | None) -> Generator:
    """Return the generator that draws.

    Raises:
        TraceError: under a trace, which would freeze the numbers.
    """
    if MODE.trace is not None:
        raise TraceError(
            "random numbers drawn inside a compiled function would be the same in each run: draw them outside and pass "
            "them as an argument (dropout is drawn anew in each run)"
        )
    return generator or current_generator()
