"""The main job, once: load, run, finetune, explain, save, on digits that ship with the package."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...importers.onnx.model import load
from ...importers.onnx.save import save
from ...ops.errors import MissingExtraError
from ..explain import integrated_gradients
from ..finetune import evaluate, finetune
from .digits import MODEL, Digits, load_digits, shifted
from .train_digits import nudged

if TYPE_CHECKING:
    from rich.console import Console

    from ...runtime.model.model import Model

EPOCHS = 12
EXPLAINED = 4
BLANK_PAPER = 1.0

YOURS = """\
import onnxgrad as og
model = og.load("model.onnx"); og.finetune(model, (x, y)); og.save(model, "tuned.onnx")"""


def demo(folder: Path, console: Console) -> bool:
    """Run the demo, write its files into a folder, and return whether the saved model gave the same outputs.

    Args:
        folder: where to write; made if need be.
        console: where to print.
    """
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    training, testing = load_digits()
    console.print("\n[bold]onnxgrad[/]: one model from file to file\n")

    model = load(MODEL)
    parameters = sum(p.numel() for p in model.parameters())
    _say(console, "load", f"{MODEL.name}: {model.inputs[0].type} -> {model.outputs[0].type}, {parameters:,} parameters")
    _say(console, "run", f"{_share(model, testing)} of {len(testing.labels)} real test digits are recognised")

    other = shifted(testing)
    _say(console, "shift", f"{_share(model, other)} of the same digits, inverted and turned by 90° (a synthetic shift)")

    _say(console, "finetune", f"on {len(training.labels)} shifted training digits")
    console.print()
    result = finetune(
        model, tuple(shifted(training)), epochs=EPOCHS, lr=3e-3, schedule="cosine", augment=nudged, progress=console
    )
    console.print()
    _say(
        console, "", f"{_share(model, other)} of the shifted test digits, with the weights of epoch {result.best_epoch}"
    )

    _say(console, "explain", _explained(model, other, folder))

    path = folder / "digits-tuned.onnx"
    save(model, path)
    feeds = {model.inputs[0].name: other.images}
    same = all(np.array_equal(a, b) for a, b in zip(model.run(feeds), load(path).run(feeds), strict=True))
    verdict = "[green]bit for bit the same[/]" if same else "[bold red]not the same[/]"
    _say(console, "save", f"{path}; loaded again, its outputs are {verdict}")

    console.print(f"\nWith your model ({time.perf_counter() - started:.1f} s for all this):\n")
    for line in YOURS.splitlines():
        console.print(f"    [cyan]{line}[/]", highlight=False, soft_wrap=True)
    console.print()
    return same


def _share(model: Model, digits: Digits) -> str:
    return f"[bold]{evaluate(model, tuple(digits))['accuracy']:.1%}[/]"


def _explained(model: Model, digits: Digits, folder: Path) -> str:
    """Explain the answer for one digit, write the picture, and say so."""
    explanation = integrated_gradients(model, digits.images[EXPLAINED : EXPLAINED + 1], baseline=BLANK_PAPER)
    answer, truth = explanation.target[0][0], int(digits.labels[EXPLAINED])
    said = f"a {truth} taken for a {answer}" if answer != truth else f"a {truth} recognised"
    path = folder / "explanation.png"
    try:
        explanation.save(path, title=f"What makes it a {answer}: {explanation.method}")
    except MissingExtraError as error:
        return f"{said}; no picture: {error}"
    return f"{said}; what speaks for it: {path}"


def _say(console: Console, step: str, text: str) -> None:
    console.print(f"  [bold cyan]{step:<9}[/] {text}", highlight=False, soft_wrap=True)
