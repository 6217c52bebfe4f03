"""The model as the training loop sees it: frozen layers apart, and one example at a time where it takes no more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...ops.errors import InputError, OnnxGradError
from ...ops.op import namespace
from ...ops.places import to_numpy
from ...ops.types import Array
from ...runtime.autograd.grad_mode import no_grad
from ...runtime.model.frozen_prefix import FrozenPrefix, split
from ...runtime.model.model import Model
from ...runtime.nn.module import Module
from ...runtime.tensor.device import to_device
from .examples import Batch, Examples, Inputs, arrays_of, call, mapped, rows_of
from .objective import Objective
from .progress import Progress

CACHE_BYTES = 1 << 30
"""What the frozen layers make of all examples is kept if it fits into this."""


class Network:
    """A model and what is wanted of it.

    Attributes:
        cached: whether the examples have been replaced by what the frozen layers make of them.
    """

    def __init__(self, model: Module, objective: Objective) -> None:
        """Take the model as a whole; `split_off` separates its frozen layers."""
        self.model, self.objective = model, objective
        self.device = next((p.device for p in model.parameters()), "cpu")
        self.prefix: FrozenPrefix | None = None
        self.cached = self.one_by_one = False

    def split_off(self, some: Examples) -> bool:
        """Separate the frozen layers, and return whether what they make of examples may be kept."""
        if not isinstance(self.model, Model):
            return False
        prefix = split(self.model, logits=self.objective.logits)
        if prefix is None:
            return False
        x, _ = next(iter(some.batches(1)))
        self.model.eval()
        try:
            with no_grad():
                ours, whole = prefix(*call(prefix.features, x)), self._whole(x)
        except InputError:
            raise
        except OnnxGradError:  # sizes that only the frozen layers know; the model runs as a whole
            return False
        pairs = zip(_listed(ours), _listed(whole), strict=True)
        if not all(a.shape == b.shape and np.array_equal(_host(a), _host(b), equal_nan=True) for a, b in pairs):
            return False
        self.prefix = prefix
        return prefix.per_example

    def kept_bytes(self, examples: Examples) -> int:
        """Return the size of what the frozen layers make of all examples."""
        assert self.prefix is not None
        x, _ = next(iter(examples.batches(1)))
        return int(sum(f.nbytes for f in call(self.prefix.features, x)) * len(examples))

    def featured(self, examples: Examples, batch_size: int, progress: Progress) -> Examples:
        """Return the examples as what the frozen layers make of them."""
        assert self.prefix is not None
        progress.begin("frozen layers", examples.count(batch_size))
        columns: list[list[Any]] = [[] for _ in self.prefix.boundary]
        targets = []
        for x, y in examples.batches(batch_size):
            for column, feature in zip(columns, self._features(x, rows_of(y)), strict=True):
                column.append(feature)
            targets.append(y)
            progress.step()
        joined = tuple(namespace(c[0]).concatenate(c) for c in columns)
        return Examples(joined, np.concatenate([_host(t) for t in targets]))

    def parts(self, batch: Batch) -> Iterator[tuple[Any, Any, Array, float]]:
        """Yield output, loss, targets and weight of a batch: at once, or of each example where the model takes one."""
        x, y = batch
        y = to_device(y, self.device)
        if not self.one_by_one:
            try:
                out = self._forward(x)
                found = self.objective(out, y)
            except InputError:
                if rows_of(y) == 1:
                    raise
            else:
                yield out, found, y, 1.0
                return
        for i in range(len(y)):
            out = self._forward(_row(x, i))
            found = self.objective(out, y[i : i + 1])
            self.one_by_one = True
            yield out, found, y[i : i + 1], 1 / len(y)

    def features_of(self, x: Inputs) -> Inputs:
        """Return what the frozen layers make of a batch, or the batch where nothing is split off."""
        if self.prefix is None:
            return mapped(x, lambda a: to_device(a, self.device))
        return tuple(arrays_of(x) if self.cached else self._features(x, max(map(rows_of, arrays_of(x)))))

    def of_features(self, features: Inputs) -> Any:
        """Return the output for what `features_of` gives."""
        return self._whole(features) if self.prefix is None else self.prefix(*arrays_of(features))

    def _forward(self, x: Inputs) -> Any:
        return self.of_features(self.features_of(x))

    def _whole(self, x: Inputs) -> Any:
        if self.objective.logits and isinstance(self.model, Model):
            return call(self.model.logits, x)
        return call(self.model, x)

    def _features(self, x: Inputs, n: int) -> list[Any]:
        """Return the features of a batch; one example at a time where the model takes no more."""
        assert self.prefix is not None
        if not self.one_by_one:
            try:
                return list(call(self.prefix.features, x))
            except InputError:
                if n == 1:
                    raise
                self.one_by_one = True
        parts = [call(self.prefix.features, _row(x, i)) for i in range(n)]
        return [namespace(c[0]).concatenate(c) for c in zip(*parts, strict=True)]


def _row(x: Inputs, i: int) -> Inputs:
    return mapped(x, lambda a: a[i : i + 1])


def _listed(out: Any) -> list[Any]:
    return [t.array for t in (out if isinstance(out, tuple) else (out,))]


def _host(array: Any) -> Array:
    return np.asarray(to_numpy(array))
