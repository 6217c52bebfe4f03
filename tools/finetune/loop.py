"""`finetune` and `evaluate`: the training loop."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops.errors import InputError, NonFiniteLossError, TrainingError
from ...ops.op import namespace
from ...ops.types import Array
from ...runtime import optim
from ...runtime.autograd.grad_mode import no_grad
from ...runtime.files.weights_file import save_weights
from ...runtime.model.model import Model
from ...runtime.nn.clip_grad import clip_grad_norm_
from ...runtime.nn.module import Module
from .examples import Batch, Examples, Inputs, as_examples, divide
from .network import CACHE_BYTES, Network
from .objective import Objective, finite
from .progress import Progress, Tally
from .result import FinetuneResult
from .scopes import kept_mode, only, seeded
from .step import CompiledStep

if TYPE_CHECKING:
    from rich.console import Console


OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "adamw": lambda ps, lr, decay: optim.AdamW(ps, lr=lr, weight_decay=decay),
    "adam": lambda ps, lr, decay: optim.Adam(ps, lr=lr, weight_decay=decay),
    "sgd": lambda ps, lr, decay: optim.SGD(ps, lr=lr, momentum=0.9, weight_decay=decay),
}


def finetune(
    model: Module,
    data: Any,
    *,
    val_data: Any = None,
    val_split: float = 0.1,
    loss: str | Callable[..., Any] = "auto",
    optimizer: str | Callable[[list[Any]], Any] = "adamw",
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    schedule: str = "constant",
    clip_norm: float | None = None,
    epochs: int = 10,
    batch_size: int = 32,
    train: str | Sequence[str] = "all",
    freeze: str | Sequence[str] = (),
    patience: int | None = None,
    augment: Callable[[Any, np.random.Generator], Any] | None = None,
    seed: int | None = 0,
    best_checkpoint: bool = True,
    checkpoint_path: str | os.PathLike[str] | None = None,
    on_epoch: Callable[[dict[str, Any]], Any] | None = None,
    progress: bool | Console = True,
    compile: bool | None = None,
) -> FinetuneResult:
    """Train a model on examples, watch it on others, and leave it with the best weights.

    Layers before everything that trains are computed once an example and kept (so `train="head"` takes seconds), unless
    `augment` changes the examples. The model's mode and what is frozen in it are afterwards as they were.

    Args:
        model: what to train, in place.
        data: a pair `(x, y)` of arrays, a data set, a `DataLoader`, or an iterable of batches `(x, y)`; `y` holds
            classes as integers, or floats.
        val_data: validation data, in any of these forms.
        val_split: the part of `data` that is kept for validation where `val_data` is not given; 0 for none.
        loss: `auto` (cross-entropy for classes, mean squares for floats), a name, or a function of output and targets;
            see `objective.Objective`.
        optimizer: `adamw`, `adam`, `sgd` (with momentum 0.9), or a function from the parameters to an optimizer.
        lr: learning rate.
        weight_decay: of the named optimizers.
        schedule: `constant`, or `cosine`, down to 0 at the end.
        clip_norm: gradients are scaled down to at most this norm.
        epochs: how often to go through the data, at most.
        batch_size: examples in a step.
        train: `all` that is not frozen, `head`, or patterns of names (see `Model.freeze`).
        freeze: patterns of what not to train.
        patience: stop after this many epochs without a better validation loss.
        augment: changes the first input of training batches: called with it and a generator.
        seed: of the split, the order, and dropout; None draws anew.
        best_checkpoint: end with the weights of the best epoch (by validation loss, or training loss without
            validation) rather than the last.
        checkpoint_path: where to keep the best weights meanwhile, as safetensors.
        on_epoch: called with each epoch's record; returning True ends the training.
        progress: show it if stderr is a terminal; or the console to show it on.
        compile: run steps as one compiled program, from the second on; where that cannot be, a warning says why. By
            default an imported model with a loss given by its name is compiled: a function or module of one's own may
            hold Python that is not to be frozen, and is compiled on request.

    Raises:
        InputError: if data and model do not fit.
        TrainingError: if nothing is there to train.
        NonFiniteLossError: if the loss becomes NaN or infinite; the model then has the best weights so far, and the
            error's `result` is the result so far.
    """
    _positive(epochs=epochs, batch_size=batch_size, lr=lr)
    if schedule not in ("constant", "cosine"):
        raise InputError(f"schedule is 'constant' or 'cosine', found {schedule!r}")
    examples = as_examples(data)
    held = None if val_data is None else as_examples(val_data)
    if held is None:
        examples, held = divide(examples, val_split, 0 if seed is None else seed)
    observer = _observer(progress, epochs)
    with ExitStack() as stack:
        stack.enter_context(kept_mode(model))
        stack.enter_context(only(model, train, freeze))
        stack.enter_context(seeded(seed))
        stack.enter_context(observer.shown())
        loop = _Loop(model, examples, held, loss, batch_size, observer, augment)
        loop.rng = np.random.default_rng(seed)
        loop.lr, loop.cosine, loop.clip_norm = lr, schedule == "cosine", clip_norm
        loop.checkpoint_path = checkpoint_path
        make = OPTIMIZERS.get(optimizer) if isinstance(optimizer, str) else None
        if isinstance(optimizer, str) and make is None:
            raise InputError(f"optimizer is {', '.join(map(repr, OPTIMIZERS))} or a function; found {optimizer!r}")
        ps = loop.parameters
        if not ps:
            raise TrainingError("no parameter trains: all are frozen, or the file has none (see `model.report()`)")
        loop.optimizer = make(ps, lr, weight_decay) if make is not None else optimizer(ps)  # type: ignore[operator]
        if compile or (compile is None and loop.objective.named and isinstance(model, Model)):
            loop.compiled = CompiledStep(loop.network, loop.objective, loop.optimizer, clip_norm)
        return loop.run(epochs, patience, best_checkpoint, on_epoch)


def evaluate(
    model: Module, data: Any, *, loss: str | Callable[..., Any] = "auto", batch_size: int = 32
) -> dict[str, Any]:
    """Return how well a model does: `loss`, `accuracy` (for classes), `examples`.

    Args:
        model: it is used in evaluation mode, and left as it was.
        data: in any form that `finetune` takes.
        loss: as in `finetune`.
        batch_size: examples at once.
    """
    with kept_mode(model):
        return _Loop(model, as_examples(data), None, loss, batch_size).validate("")


class _Loop:
    """One finetuning: what it trains, on what, and the best weights so far."""

    def __init__(
        self,
        model: Module,
        examples: Examples,
        held: Examples | None,
        loss: str | Callable[..., Any],
        batch_size: int,
        progress: Progress | None = None,
        augment: Callable[[Any, np.random.Generator], Any] | None = None,
    ) -> None:
        self.model, self.examples, self.held = model, examples, held
        self.batch_size, self.progress, self.augment = batch_size, progress or Progress(), augment
        _, y = next(iter(examples.batches(2)))
        self.objective = Objective(loss, y)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.network = Network(model, self.objective)
        self.rng = np.random.default_rng(0)
        self.optimizer: Any = None
        self.lr, self.cosine, self.done, self.planned = 1e-3, False, 0, 0
        self.clip_norm: float | None = None
        self.compiled: CompiledStep | None = None
        self.checkpoint_path: str | os.PathLike[str] | None = None
        self.result = FinetuneResult()
        self.best_loss = math.inf
        self.best_weights: dict[str, Array] = {}

    def run(
        self, epochs: int, patience: int | None, best_checkpoint: bool, on_epoch: Callable[[dict[str, Any]], Any] | None
    ) -> FinetuneResult:
        result = self.result
        result.reason = f"{epochs} epochs done"
        self._remember()
        try:
            self._keep_features()
            self.progress.head(accuracy=self.objective.classes, validation=self.held is not None)
            self.planned = epochs * (self.examples.count(self.batch_size) or 0)
            before: dict[str, Any] = {"epoch": 0, "lr": self.lr, "seconds": 0.0}
            if self.held is not None:
                before |= self._validated("before training")
            self._end(before)
            for epoch in range(1, epochs + 1):
                started = time.perf_counter()
                record: dict[str, Any] = {"epoch": epoch, **self._epoch(f"epoch {epoch}/{epochs}")}
                if self.held is not None:
                    record |= self._validated(f"epoch {epoch}/{epochs}")
                record |= {"lr": self._rate(), "seconds": time.perf_counter() - started}
                self._end(record)
                asked = None if on_epoch is None else on_epoch(record)
                if isinstance(asked, bool | np.bool) and asked:
                    result.reason = f"on_epoch asked to stop after epoch {epoch}"
                    result.stopped_early = epoch < epochs
                    break
                if patience is not None and epoch - result.best_epoch >= patience:
                    result.reason = f"no better loss for {patience} epochs"
                    result.stopped_early = epoch < epochs
                    break
        except NonFiniteLossError as error:
            self._restore()
            result.stopped_early = True
            result.reason = str(error)
            error.result = result
            raise
        except BaseException:
            self._restore()
            raise
        if best_checkpoint:
            self._restore()
        else:
            result.best_epoch = result.history[-1]["epoch"]
        return result

    def _keep_features(self) -> None:
        """Compute the frozen layers once, and go on with what they make of the examples, where that is possible."""
        sets = [e for e in (self.examples, self.held) if e is not None]
        if not self.network.split_off(self.examples) or self.augment is not None or not all(map(len, sets)):
            return
        if sum(map(self.network.kept_bytes, sets)) > CACHE_BYTES:
            return
        self.examples, *rest = [self.network.featured(e, self.batch_size, self.progress) for e in sets]
        self.held = rest[0] if rest else None
        self.network.cached = True

    def _epoch(self, name: str) -> dict[str, Any]:
        self.model.train()
        self.progress.begin(name, self.examples.count(self.batch_size))
        tally = Tally()
        for x, y in self.examples.batches(self.batch_size, self.rng):
            x = self._augmented(x)
            if self.cosine and self.planned:
                for group in self.optimizer.param_groups:
                    group["lr"] = self.lr * 0.5 * (1 + math.cos(math.pi * self.done / self.planned))
            made = self.compiled(x, y) if self.compiled is not None and self.done else None
            if made is None:
                self._step((x, y), tally, name)
            else:
                self._count(tally, name, made[0], made[1], y)
            self.done += 1
            self.progress.step(tally)
        self.optimizer.zero_grad()
        return tally.record()

    def _step(self, batch: Batch, tally: Tally, name: str) -> None:
        """Take a step, op by op."""
        self.optimizer.zero_grad()
        for out, loss, targets, weight in self.network.parts(batch):
            self._count(tally, name, out, loss, targets)
            loss.backward(namespace(loss.array).full(loss.shape, weight, loss.dtype))
            if self.compiled is not None:
                self.compiled.seen(out)
        if self.clip_norm is not None:
            clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()

    def _count(self, tally: Tally, name: str, out: Any, loss: Any, targets: Array) -> None:
        value = loss.item()
        if not finite(value):
            raise NonFiniteLossError(
                f"the loss became {value} in {name} (learning rate {self._rate():g}): the best weights so far "
                "are kept; try a smaller lr or clip_norm=1"
            )
        tally.add(value, targets, self.objective.correct(out, targets) if self.objective.classes else None)

    def _augmented(self, x: Inputs) -> Inputs:
        if self.augment is None:
            return x
        if isinstance(x, dict):
            first = next(iter(x))
            return {**x, first: self.augment(x[first], self.rng)}
        return (self.augment(x[0], self.rng), *x[1:])

    def validate(self, name: str) -> dict[str, Any]:
        """Return loss and accuracy on the examples, in evaluation mode."""
        return self._measured(self.examples, name)

    def _validated(self, name: str) -> dict[str, Any]:
        assert self.held is not None
        found = self._measured(self.held, name)
        if not finite(found["loss"]):
            raise NonFiniteLossError(
                f"the validation loss became {found['loss']} in {name}: the best weights so far are kept"
            )
        return {f"val_{k}": v for k, v in found.items() if k != "examples"}

    def _measured(self, examples: Examples, name: str) -> dict[str, Any]:
        self.model.eval()
        tally = Tally()
        with no_grad():
            for batch in examples.batches(self.batch_size):
                for out, loss, targets, _ in self.network.parts(batch):
                    right = self.objective.correct(out, targets) if self.objective.classes else None
                    tally.add(loss.item(), targets, right)
        return {**tally.record(), "examples": tally.examples}

    def _end(self, record: dict[str, Any]) -> None:
        self.result.history.append(record)
        watched = record.get("val_loss", record.get("loss", math.inf))
        best = watched < self.best_loss
        if best:
            self.best_loss, self.result.best_epoch = watched, record["epoch"]
            self._remember()
            if self.checkpoint_path is not None:
                state = {n: t.array for n, t in (*self.model.named_parameters(), *self.model.named_buffers())}
                save_weights(state, self.checkpoint_path, {"epoch": str(record["epoch"]), "loss": repr(watched)})
        if record["epoch"] or self.held is not None:
            self.progress.done(record, best and record["epoch"] > 0)

    def _remember(self) -> None:
        changing = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        self.best_weights = {n: t.array.copy() for n, t in (*changing, *self.model.named_buffers())}

    def _restore(self) -> None:
        for name, t in (*self.model.named_parameters(), *self.model.named_buffers()):
            if name in self.best_weights:
                t.data = self.best_weights[name].copy()

    def _rate(self) -> float:
        groups = getattr(self.optimizer, "param_groups", None)
        return float(groups[0]["lr"]) if groups else self.lr


def _observer(progress: bool | Console, epochs: int) -> Progress:
    if progress is False:
        return Progress()
    from rich.console import Console

    from .terminal import Terminal

    if progress is True:
        console = Console(stderr=True)
        return Terminal(console, epochs) if console.is_terminal else Progress()
    return Terminal(progress, epochs)


def _positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not value > 0:
            raise InputError(f"{name} is more than 0, found {value}")
