"""The same network in PyTorch and in onnxgrad: outputs, input gradients, and the gradient of every weight.

Exporters rename, transpose, slice and join weights. All weights of a network are different, so each is found in the
file by its value, wherever it went; a gradient is the sum over the places that it went to.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import nn

from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.runtime.model.model import Model
from onnxgrad.runtime.tensor.tensor import Tensor

from .network import Network

HALF = (torch.float16, torch.bfloat16)
ROUNDING = {torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Of the gradient of a half-precision input, which is handed back in its own type."""


def agree(net: Network, exporter: str, data: bytes) -> Model:
    """Check a file against the network that it was exported from, at every size."""
    model = load_bytes(data)
    for sizes in net.sizes():
        module = net.build()
        placed = _placed(net, exporter, module, model)
        module = module.float() if any(p.dtype in HALF for p in module.parameters()) else module
        args = net.inputs(sizes)
        compare(net, module, args, model, placed)
    return model


def compare(net: Network, module: nn.Module, args: tuple[torch.Tensor, ...], model: Model, placed: Placed) -> None:
    """Check outputs and all gradients for these inputs."""
    leaves = [_leaf(a) for a in args]
    wanted = _flat(module(*leaves))
    feeds = [Tensor(array_of(a), requires_grad=a.is_floating_point()) for a in args]
    found = _flat(model(*feeds[: len(model.inputs)]))
    assert len(found) == len(wanted)
    for i, (f, w) in enumerate(zip(found, wanted, strict=True)):
        same(f.detach().numpy(), array_of(w), net.tolerance, f"output {i}")
    rng = np.random.default_rng(0)
    ours, theirs = [], []
    for f, w in zip(found, wanted, strict=True):
        if w.requires_grad:
            v = rng.standard_normal(tuple(w.shape))
            theirs.append((w * torch.from_numpy(v).to(w.dtype)).sum())
            ours.append((f * Tensor(v.astype(f.detach().numpy().dtype))).sum())
    if not theirs:
        return
    sum(theirs[1:], theirs[0]).backward()
    model.zero_grad()
    sum(ours[1:], ours[0]).backward()
    overall = max(float(g.abs().max()) for g in _gradients(module, leaves))
    for i, (a, f) in enumerate(zip(leaves, feeds, strict=True)):
        if a.grad is not None and a.grad.numel():
            gradient = np.zeros(a.shape) if f.grad is None else f.grad.numpy()
            tolerance = max(net.tolerance, ROUNDING.get(args[i].dtype, 0))
            same(gradient, array_of(a.grad), tolerance, f"gradient of input {i}", overall)
    placed.check_gradients(module, model, net, overall)


class Placed:
    """Where each weight of a module is among the parameters of a model."""

    def __init__(self, module: nn.Module, model: Model) -> None:
        self.names = [n for n, _ in model.named_parameters()]
        arrays = {n: p.detach().numpy() for n, p in model.named_parameters()}
        self.in_file = [v for n in self.names for v in _keys(arrays[n])]
        self.at: dict[float, list[int]] = {}
        for i, v in enumerate(self.in_file):
            self.at.setdefault(v, []).append(i)
        self.of_module = {n: _keys(array_of(p)) for n, p in module.named_parameters()}

    def missing(self) -> set[str]:
        """Return the module's parameters that are not trained as they are."""
        return {n for n, values in self.of_module.items() if any(v not in self.at for v in values)}

    def extra(self) -> int:
        """Return how many trained values are no parameters of the module."""
        known = {v for values in self.of_module.values() for v in values}
        return sum(v not in known for v in self.in_file)

    def check_gradients(self, module: nn.Module, model: Model, net: Network, overall: float) -> None:
        """Check the gradient of every weight."""
        parameters = dict(model.named_parameters())
        flat = np.concatenate([_gradient(parameters[n]).reshape(-1) for n in self.names] or [np.zeros(0)])
        for name, p in module.named_parameters():
            if name in self.missing() or p.grad is None:
                continue
            found = np.array([sum(flat[i] for i in self.at[v]) for v in self.of_module[name]])
            same(found.reshape(tuple(p.shape)), array_of(p.grad), net.tolerance, f"gradient of {name}", overall)


def _placed(net: Network, exporter: str, module: nn.Module, model: Model) -> Placed:
    placed = Placed(module, model)
    report = "\n".join(map(str, model.report()))
    assert placed.missing() == set(net.frozen.get(exporter, ())), report
    assert placed.extra() == net.extra.get(exporter, (0,))[0], report
    return placed


def same(found: np.ndarray, wanted: np.ndarray, tolerance: float, what: str, overall: float = 0.0) -> None:
    """Check an array against another, relative to its largest value, or a hundredth of the largest of all.

    A gradient that cancels to nothing, as of a bias before a norm, is rounding error beside the others.
    """
    assert found.shape == wanted.shape, what
    if wanted.size == 0:
        return
    if wanted.dtype.kind not in "fV":
        np.testing.assert_array_equal(found, wanted, err_msg=what)
        return
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    largest = np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * max(largest, 1e-2 * overall, 1e-6), err_msg=what)


def array_of(t: torch.Tensor) -> np.ndarray:
    """Return a tensor's array."""
    t = t.detach().contiguous()
    if t.dtype == torch.bfloat16:
        return t.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return t.numpy().copy()


def _keys(array: np.ndarray) -> list[float]:
    return [float(v) for v in array.astype(np.float64).reshape(-1)]


def _gradient(p: Tensor) -> np.ndarray:
    return np.zeros(p.shape) if p.grad is None else p.grad.numpy().astype(np.float64)


def _gradients(module: nn.Module, leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    found = [t.grad for t in (*module.parameters(), *leaves) if t.grad is not None and t.grad.numel()]
    return found or [torch.zeros(1)]


def _leaf(a: torch.Tensor) -> torch.Tensor:
    if not a.is_floating_point():
        return a
    a = a.float() if a.dtype in HALF else a
    return a.detach().clone().requires_grad_()


def _flat(out: Any) -> list[Any]:
    if isinstance(out, list | tuple):
        return [v for o in out for v in _flat(o)]
    if isinstance(out, dict):
        return [v for o in out.values() for v in _flat(o)]
    return [out]
