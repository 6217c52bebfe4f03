"""Train the demo's model from nothing: `python -m onnxgrad.tools.demo.train_digits [digits.onnx]`.

Seeded: on the same machine it writes the same file again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ...importers.onnx.build import Layer, sequential
from ...importers.onnx.model import load_bytes
from ...importers.onnx.save import save
from ...ops.types import Array
from ...runtime.model.model import Model
from ..finetune import evaluate, finetune
from .digits import MODEL, load_digits

LAYERS = (
    Layer("conv", 16),
    Layer("batch_norm"),
    Layer("relu"),
    Layer("conv", 32),
    Layer("batch_norm"),
    Layer("relu"),
    Layer("max_pool", kernel=2),
    Layer("flatten"),
    Layer("dropout", ratio=0.25),
    Layer("gemm", 10),
)

DOC = (
    "Handwritten digits, 8 x 8 pixels from 0 to 1. Trained by onnxgrad's tools/demo/train_digits.py on the UCI digits "
    "(Optical Recognition of Handwritten Digits, in scikit-learn's copy)."
)


def train(epochs: int = 30, seed: int = 0, *, progress: bool = True) -> Model:
    """Return a model trained on the training digits."""
    training, _ = load_digits()
    model = load_bytes(sequential(LAYERS, (1, 8, 8), name="digits", doc=DOC, seed=seed), name="digits")
    finetune(
        model, tuple(training), val_split=0, epochs=epochs, batch_size=32, lr=3e-3, schedule="cosine", seed=seed,
        augment=nudged, best_checkpoint=False, progress=progress,
    )  # fmt: skip
    return model


def nudged(images: Array, rng: np.random.Generator) -> Array:
    """Return the images moved by up to one pixel each way."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    down, right = rng.integers(0, 3, (2, len(images)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (8, 8), (2, 3))
    return np.ascontiguousarray(windows[np.arange(len(images)), :, down, right])


def main(path: str | None = None) -> None:
    """Train, print the accuracy on digits of the test part, and write the model."""
    model = train()
    _, testing = load_digits()
    found = evaluate(model, tuple(testing))
    print(f"accuracy on {found['examples']} test digits: {found['accuracy']:.1%}")
    save(model, Path(path) if path else MODEL)


if __name__ == "__main__":
    main(*sys.argv[1:])
