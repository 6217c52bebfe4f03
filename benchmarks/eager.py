"""What eager ops cost beside their arithmetic: a chain of 1,000 small ones with gradients, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxgrad as og

LENGTH = 1000


def chain(library: Any) -> Callable[[], Any]:
    """Return one pass through `y = y * w + x`, over and over, and back, in our Tensors or PyTorch's."""
    x = library.tensor([0.5, 0.25, 0.125], requires_grad=True)
    w = library.tensor([0.9, 0.8, 0.7], requires_grad=True)

    def run() -> None:
        y = x
        for _ in range(LENGTH // 2):
            y = y * w + x
        y.sum().backward()
        x.grad = w.grad = None

    return run


def eager_calls(threads: int) -> dict[str, Callable[[], Any]]:
    """Return our chain and PyTorch's."""
    import torch

    torch.set_num_threads(threads)
    return {"onnxgrad": chain(og), "torch eager": chain(torch)}
