"""One training step of a network, ours and PyTorch's: forward, loss, backward, update.

Both sides compute the same: the same network and batch, batch normalisations in training mode, nothing dropped at
random. PyTorch runs eagerly, eagerly with channels last, and through torch.compile; what does not work is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import onnxgrad as og

from .models import NotMeasured
from .networks import Network
from .networks.export import export

MOMENTUM_RATE, ADAM_RATE = 0.01, 1e-4
Step = Callable[[], Any]


def targets(network: Network, feeds: dict[str, Any]) -> Any:
    """Return what a step fits: class numbers, the words themselves, or a mask."""
    rng = np.random.default_rng(1)
    first = next(iter(feeds.values()))
    if network.target == "next":
        return first
    if network.target == "mask":
        return (rng.random((first.shape[0], 1, *first.shape[2:])) < 0.5).astype(np.float32)
    return rng.integers(0, 768, first.shape[0])


def loss_of(network: Network, functional: Any, output: Any, y: Any) -> Any:
    """Return the loss, with the functions of PyTorch or of ours."""
    if network.target == "mask":
        return functional.binary_cross_entropy(output, y)
    if network.target == "next":
        return functional.cross_entropy(output.reshape(-1, network.words), y.reshape(-1))
    return functional.cross_entropy(output[1] if network.target == "pooled" else output, y)


def our_step(network: Network, batch: int, threads: int) -> Step:
    """Return our compiled step.

    Raises:
        NotMeasured: if steps cannot be compiled.
    """
    if not hasattr(og, "compile"):
        raise NotMeasured("onnxgrad.compile does not exist")
    feeds = network.example(batch)
    model = og.load(export(network, training=True), threads=threads)
    model.train()
    if network.optimizer == "adamw":
        optimizer: Any = og.optim.AdamW(model.parameters(), lr=ADAM_RATE)
    else:
        optimizer = og.optim.SGD(model.parameters(), lr=MOMENTUM_RATE, momentum=0.9)

    def train_step(model: Any, optimizer: Any, x: dict[str, Any], y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(network, og.nn.functional, model(**x), y)
        loss.backward()
        optimizer.step()
        return loss

    step = og.compile(train_step)
    y = targets(network, feeds)
    return lambda: step(model, optimizer, feeds, y)


def torch_steps(network: Network, batch: int, threads: int) -> dict[str, Callable[[], Step]]:
    """Return what makes each way of PyTorch's step; making it runs it once."""
    import torch

    torch.set_num_threads(threads)
    ways: dict[str, Callable[[], Step]] = {"eager": lambda: _torch_step(network, batch)}
    if network.side:
        ways["channels_last"] = lambda: _torch_step(network, batch, channels_last=True)
    ways["compile"] = lambda: _torch_step(network, batch, compiled=True)
    return ways


def _torch_step(network: Network, batch: int, *, channels_last: bool = False, compiled: bool = False) -> Step:
    import torch

    example = network.example(batch)
    module = network.build().train()
    feeds = [torch.from_numpy(a) for a in example.values()]
    y = torch.from_numpy(targets(network, example))
    if channels_last:
        module = module.to(memory_format=torch.channels_last)
        feeds = [f.to(memory_format=torch.channels_last) for f in feeds]
    if network.optimizer == "adamw":
        optimizer: Any = torch.optim.AdamW(module.parameters(), lr=ADAM_RATE)
    else:
        optimizer = torch.optim.SGD(module.parameters(), lr=MOMENTUM_RATE, momentum=0.9)
    forward = torch.compile(module) if compiled else module

    def step() -> float:
        optimizer.zero_grad()
        loss = loss_of(network, torch.nn.functional, forward(*feeds), y)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    step()
    return step
