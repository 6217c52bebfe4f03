"""What an explanation differentiates: one score an example, and where it comes from."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ...ops.errors import AutogradError, InputError
from ...ops.op import namespace
from ...ops.places import to_numpy
from ...ops.types import HALF, Array, TensorType, is_float
from ...runtime.autograd.grad_mode import enable_grad, no_grad
from ...runtime.autograd.tape import grad
from ...runtime.model.model import Model
from ...runtime.nn.module import Module
from ...runtime.tensor.device import to_device
from ...runtime.tensor.tensor import Tensor

Index: TypeAlias = tuple[int, ...]
Target: TypeAlias = int | Sequence[int] | Sequence[Sequence[int]] | None

BUDGET_BYTES = 256 << 20
"""Activations that are held at once while many rows are differentiated."""

STEPS = frozenset({"ceil", "floor", "round", "sign", "trunc"})
"""Operators whose gradient is zero."""


class Scores:
    """The scores of a model, as a function of one of its inputs.

    Rows are examples, or one example several times; a model whose batch size is 1 gets them one by one.

    Args:
        model: an imported model, or any module that is called with arrays.
        x: the input to explain, or all inputs by name.
        wrt: the input's name, when `x` has several; the first float one by default.
        output: `logits`, what comes before a final softmax, or `output`, what the model returns.
        output_index: which output, of several.
        rows: how many rows to compute at once; by default as many as fit a budget of memory.

    Raises:
        InputError: if the inputs do not say what is to be explained.
    """

    def __init__(
        self,
        model: Any,
        x: Any,
        *,
        wrt: str | None = None,
        output: str = "logits",
        output_index: int = 0,
        rows: int | None = None,
    ) -> None:
        if output not in ("logits", "output"):
            raise InputError(f"output is 'logits' or 'output', found {output!r}")
        if rows is not None and rows < 1:
            raise InputError(f"internal_batch_size is at least 1, found {rows}")
        self.model, self.output, self.output_index = model, output, output_index
        given = dict(x) if isinstance(x, Mapping) else {_first_name(model): x}
        device = next((p.device for p in model.parameters()), "cpu") if isinstance(model, Module) else "cpu"
        inputs = {k: to_device(_array(v), device) for k, v in given.items()}
        self.name = wrt if wrt is not None else _first_float(inputs)
        if self.name not in inputs:
            raise InputError(f"no input {self.name!r} to explain; found {list(inputs)}")
        self.x = inputs.pop(self.name)
        self.others = inputs
        if self.x.ndim == 0 or not len(self.x):
            raise InputError(f"input {self.name!r}: found shape {self.x.shape}, wanted at least one example")
        self.rows = rows or _rows_at_once(model)

    @property
    def examples(self) -> int:
        """How many examples there are."""
        return len(self.x)

    def floats(self) -> Array:
        """Return the input as floats, to differentiate by.

        Raises:
            InputError: if it is not of floats.
        """
        if not is_float(self.x.dtype):
            raise InputError(
                f"input {self.name!r} is {self.x.dtype}: a gradient by it does not exist; explain a layer with grad_cam"
            )
        return self.x.astype(np.float32) if self.x.dtype in HALF else self.x

    def values(self, x: Array, examples: Array) -> Array:
        """Return the scores of rows without recording anything."""
        with no_grad():
            return self._scores(Tensor(x), examples).array

    def gradient(self, x: Array, examples: Array, targets: Sequence[Index]) -> Array:
        """Return the gradient of each row's target score by the row."""
        with enable_grad():
            leaf = Tensor(x, requires_grad=True)
            scores = self._scores(leaf, examples)
            cotangent = Tensor(one_hot(scores.array, targets))
            found = grad(scores, leaf, grad_outputs=cotangent, allow_unused=True) if scores.requires_grad else (None,)
        return self._reached(found[0], f"input {self.name!r}").array

    def _reached(self, g: Tensor | None, what: str) -> Tensor:
        if g is None or (self._has_steps() and not g.array.any()):
            raise AutogradError(
                f"no gradient leads from the score back to {what}: an operator on the way has none (rounding to "
                "integers, tree ensembles, comparisons), or the score does not depend on it"
            )
        return g

    def _has_steps(self) -> bool:
        """Whether the model has operators that are flat nearly everywhere, through which zeros say nothing."""
        return isinstance(self.model, Model) and any(n.op.name in STEPS for n in self.model.graph.nodes)

    def layer_gradient(
        self, layer: str, examples: Array, targets: Sequence[Any]
    ) -> tuple[Array, Array, Array, list[Index]]:
        """Return a layer's output, the gradient of the target scores by it, all scores, and the targets."""
        model = self.model
        if not isinstance(model, Model):
            raise InputError(f"a layer inside needs a model from og.load, found {type(model).__name__}")
        direct = self.output == "output" or self.output_index
        score = model.outputs[self.output_index].name if direct else model._logits_value().name
        with enable_grad():
            out, found = model.intermediates([layer, score], **self._feeds(Tensor(self.x[examples]), examples))
            scores = found.get(score, out)
            inside = found.get(layer, scores)
            self._check(scores, len(examples))
            mine = chosen(scores.array, targets)
            if not isinstance(inside, Tensor) or not inside.requires_grad:
                raise InputError(f"layer {layer!r} has no gradient: its output is not a tensor of floats")
            cotangent = Tensor(one_hot(scores.array, mine))
            flowed = (
                grad(scores, inside, grad_outputs=cotangent, allow_unused=True) if scores.requires_grad else (None,)
            )
        return inside.array, self._reached(flowed[0], f"layer {layer!r}").array, scores.array, mine

    def in_rows(self, total: int, compute: Callable[[Array], None]) -> None:
        """Call `compute` with the numbers of rows, as many at once as the model and the memory take."""
        size, start = min(self.rows, total), 0
        while start < total:
            try:
                compute(np.arange(start, min(start + size, total)))
            except InputError:
                if size == 1 or start:
                    raise
                size = 1
                continue
            start += size

    def _feeds(self, x: Tensor, examples: Array) -> dict[str, Any]:
        n = self.examples
        feeds: dict[str, Any] = {self.name: x}
        for name, value in self.others.items():
            feeds[name] = value[examples] if value.ndim and len(value) == n else value
        return feeds

    def _scores(self, x: Tensor, examples: Array) -> Tensor:
        model, feeds = self.model, self._feeds(x, examples)
        if not isinstance(model, Model):
            out = model(*feeds.values())
        elif self.output == "logits" and not self.output_index:
            out = model.logits(**feeds)
        else:
            out = model(**feeds)
        if isinstance(out, tuple | list):
            if self.output_index >= len(out):
                raise InputError(f"output_index {self.output_index}: the model has {len(out)} outputs")
            out = out[self.output_index]
        self._check(out, len(examples))
        return out  # type: ignore[no-any-return]

    def _check(self, scores: Any, rows: int) -> None:
        if not isinstance(scores, Tensor) or not is_float(scores.dtype):
            raise InputError(
                "the model's output is not a tensor of floats: it has no gradient; choose another output_index"
            )
        if scores.ndim == 0 or scores.shape[0] != rows:
            raise InputError(f"the output has shape {scores.shape} for {rows} examples: wanted one row an example")


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put a model into evaluation mode and give it its mode back, whatever happens."""
    training = bool(getattr(model, "training", False))
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()


def spread(target: Target, examples: int) -> list[Any]:
    """Return one target an example: a class, an index of several numbers, or None for the highest score.

    Args:
        target: an integer or a tuple for all examples, or a list of one for each.
        examples: how many there are.

    Raises:
        InputError: if there are not as many targets as examples.
    """
    if target is None or isinstance(target, tuple) or _is_int(target):
        return [target] * examples
    listed = list(_array(target).tolist()) if hasattr(target, "reshape") else list(target)  # type: ignore[arg-type]
    if len(listed) != examples:
        raise InputError(f"found {len(listed)} targets for {examples} examples")
    return listed


def chosen(scores: Array, targets: Sequence[Any]) -> list[Index]:
    """Return the index of one score in each row.

    Raises:
        InputError: if a target does not exist.
    """
    shape = scores.shape[1:]
    return [_best(row, shape) if t is None else _index(t, shape) for row, t in zip(scores, targets, strict=True)]


def _best(row: Array, shape: tuple[int, ...]) -> Index:
    return tuple(int(i) for i in np.unravel_index(int(row.argmax()), shape)) if shape else ()


def _index(target: Any, shape: tuple[int, ...]) -> Index:
    index = tuple(int(i) for i in target) if isinstance(target, list | tuple) else (int(target),)
    if len(index) < len(shape) and math.prod(shape[len(index) :]) == 1:
        index += (0,) * (len(shape) - len(index))
    if not shape and index == (0,):
        return ()
    if len(index) != len(shape):
        raise InputError(f"target {target}: a row of scores has shape {shape}; give one number an axis")
    for i, size in zip(index, shape, strict=True):
        if not -size <= i < size:
            raise InputError(f"target {target} does not exist: a row of scores has shape {shape}")
    return tuple(i % size for i, size in zip(index, shape, strict=True))


def one_hot(scores: Array, targets: Sequence[Index]) -> Array:
    """Return 1 at each row's target and 0 elsewhere."""
    marks = np.zeros(scores.shape, scores.dtype)
    for row, index in enumerate(targets):
        marks[row, *index] = 1
    return namespace(scores).asarray(marks)


def picked(scores: Array, targets: Sequence[Index]) -> Array:
    """Return each row's target score."""
    host = on_host(scores)
    return np.array([host[row, *index] for row, index in enumerate(targets)], host.dtype)


def on_host(array: Any) -> Array:
    """Return an array in the memory of the CPU."""
    return np.asarray(to_numpy(array))


def _is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _array(value: Any) -> Array:
    if isinstance(value, Tensor):
        return value.array
    return value if hasattr(value, "dtype") and hasattr(value, "reshape") else np.asarray(value, np.float32)


def _first_name(model: Any) -> str:
    return model.inputs[0].name if isinstance(model, Model) else "x"


def _first_float(inputs: Mapping[str, Array]) -> str:
    return next((n for n, v in inputs.items() if is_float(v.dtype)), next(iter(inputs), ""))


def _rows_at_once(model: Any) -> int:
    """Return how many examples fit the budget, from the sizes of all values in the graph."""
    if not isinstance(model, Model):
        return 16
    declared = model.inputs[0].shape
    if declared and isinstance(declared[0], int):
        return declared[0]
    types = [v.type for node in model.graph.nodes for v in node.outputs]
    elements = sum(
        math.prod(d if isinstance(d, int) else 1 for d in t.known_shape or ())
        for t in types
        if isinstance(t, TensorType)
    )
    return max(1, min(64, BUDGET_BYTES // (4 * max(1, elements))))
