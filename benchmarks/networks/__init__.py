"""The networks of the suite: each defined once in PyTorch, with random weights, and exported.

Nothing in them drops values at random, so that the exported file and the PyTorch module train alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True)
class Network:
    """A network and what it takes.

    Args:
        name: of the function that builds it, and of its file.
        module: of this package that has the function.
        parameters: how many it has, as published, in millions.
        side: of the images it takes; 0 for words.
        inputs: their names.
        words: how many words it knows.
        optimizer: that trains it.
        target: what a training step fits: classes, the next word, a mask in [0, 1], or classes from a pooled vector.
    """

    name: str
    module: str
    parameters: float
    side: int = 224
    inputs: tuple[str, ...] = ("x",)
    words: int = 0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    target: Literal["class", "next", "mask", "pooled"] = "class"

    def build(self, seed: int = 0) -> Any:
        """Return the module, in evaluation mode, with seeded weights and statistics of seeded images.

        Without such statistics the values of a deep network vanish, and time goes into denormal numbers.
        """
        import importlib

        import torch

        torch.manual_seed(seed)
        function: Callable[[], Any] = getattr(importlib.import_module(f"{__name__}.{self.module}"), self.name)
        module = function()
        with torch.no_grad():
            for p in module.parameters():
                if bool((p == p.flatten()[0]).all()):  # equal weights become one in an exported file
                    p.add_(0.02 * torch.randn_like(p))
        norms = [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        if norms:
            for norm in norms:
                norm.momentum = 1.0
            with torch.no_grad():
                module.train()(torch.randn(4, 3, 128, 128))
            for norm in norms:
                norm.momentum = 0.1
        return module.eval()

    def example(self, batch: int, *, seed: int = 0, length: int = 128) -> dict[str, Any]:
        """Return seeded inputs by name."""
        rng = np.random.default_rng(seed)
        if self.side:
            return {"x": rng.standard_normal((batch, 3, self.side, self.side)).astype(np.float32)}
        ids = rng.integers(0, self.words, (batch, length))
        known = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        return {n: known[n] for n in self.inputs}

    @property
    def axes(self) -> dict[str, dict[int, str]]:
        """The sizes that the file leaves open."""
        return {n: {0: "batch"} if self.side else {0: "batch", 1: "sequence"} for n in self.inputs}


BERT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")

NETWORKS = {
    network.name: network
    for network in (
        Network("resnet18", "resnet", 11.69),
        Network("resnet50", "resnet", 25.56),
        Network("vgg11", "vgg", 132.86),
        Network("mobilenetv2", "mobilenet", 3.50),
        Network("squeezenet", "squeezenet", 1.24),
        Network("efficientnet_b0", "mobilenet", 5.29),
        Network("densenet121", "densenet", 7.98),
        Network("convnext_tiny", "convnext", 28.59),
        Network("vit_b16", "transformer", 86.57, optimizer="adamw"),
        Network("bert_base", "transformer", 109.48, 0, BERT_INPUTS, 30522, "adamw", "pooled"),
        Network("gpt2", "transformer", 124.44, 0, ("input_ids",), 50257, "adamw", "next"),
        Network("unet", "unet", 7.76, 256, target="mask"),
    )
}
