"""What a network of the oracle suite is, and how it is exported."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Axes = dict[int, str]


@dataclass(frozen=True)
class Network:
    """A network, example inputs of any size, and the exporters that it goes through.

    Attributes:
        name: of the network.
        make: a new module.
        example: its inputs; the keyword arguments are its sizes, with those that it is exported at as defaults.
        dynamic: for each input, the name of the size that each free axis has.
        legacy, dynamo: the opsets that each exporter writes.
        folded: whether the exporters fold constants, and norms into what comes before them.
        script: whether the legacy exporter compiles the module, with its control flow.
        resized: sizes to run at too; one more than the exported ones by default.
        frozen: for each exporter, the parameters that are not in its file as they are, with the reason.
        extra: for each exporter, how many values are trained that are no parameters of the module, with the reason.
        tolerance: of a difference, relative to the largest value.
    """

    name: str
    make: Callable[[], nn.Module]
    example: Callable[..., tuple[Tensor, ...]]
    dynamic: tuple[Axes, ...] = ()
    legacy: tuple[int, ...] = (17,)
    dynamo: tuple[int, ...] = ()
    folded: bool = True
    script: bool = False
    resized: dict[str, int] | None = None
    frozen: dict[str, dict[str, str]] = field(default_factory=dict)
    extra: dict[str, tuple[int, str]] = field(default_factory=dict)
    tolerance: float = 1e-4

    def sizes(self) -> list[dict[str, int]]:
        """Return the sizes to run at: those of the export, and other ones for each free axis."""
        given = {n: p.default for n, p in inspect.signature(self.example).parameters.items()}
        free = {name for axes in self.dynamic for name in axes.values()}
        other = {n: (self.resized or {}).get(n, size + 1) if n in free else size for n, size in given.items()}
        return [given, other] if free else [given]

    def build(self, seed: int = 0) -> nn.Module:
        """Return the module with weights that are all different, so that a value tells which weight it is."""
        torch.manual_seed(seed)
        module = self.make()
        fill(module)
        return module.eval()

    def inputs(self, sizes: dict[str, int], seed: int = 1) -> tuple[Tensor, ...]:
        """Return example inputs of these sizes."""
        torch.manual_seed(seed)
        return self.example(**sizes)


NETWORKS: list[Network] = []


def network(example: Callable[..., tuple[Tensor, ...]], *dynamic: Axes, **how: Any) -> Callable[[Any], Any]:
    """Return a decorator that enters a module class, or a function that makes a module, under its own name."""

    def enter(make: Any) -> Any:
        name = how.pop("name", make.__name__)
        NETWORKS.append(Network(name, make, example, tuple(dynamic), **how))
        return make

    return enter


def fill(module: nn.Module) -> None:
    """Give every parameter values that occur nowhere else, and running statistics values that matter."""
    parameters = list(module.parameters())
    total = sum(p.numel() for p in parameters)
    values = torch.linspace(-0.5, 0.5, total + 2, dtype=torch.float64)[1:-1]
    values = values[torch.randperm(total)]
    with torch.no_grad():
        for p in parameters:
            taken, values = values[: p.numel()], values[p.numel() :]
            p.copy_(taken.reshape(p.shape).to(p.dtype))
        for name, b in module.named_buffers():
            if name.endswith("running_mean"):
                b.uniform_(-0.3, 0.3)
            if name.endswith("running_var"):
                b.uniform_(0.5, 1.5)


def export(net: Network, exporter: str, opset: int, **how: Any) -> bytes:
    """Return the bytes that PyTorch's exporter writes for the network at its own sizes."""
    module = how.pop("module", None) or net.build()
    args = net.inputs(net.sizes()[0])
    names = [f"x{i}" for i in range(len(args))]
    if exporter == "dynamo":
        how["dynamic_shapes"] = _dynamic_shapes(net, len(args))
        how["optimize"] = net.folded
    else:
        how["dynamic_axes"] = {n: axes for n, axes in zip(names, net.dynamic, strict=False) if axes}
        how["do_constant_folding"] = net.folded
        if net.script:
            module = _quietly(lambda: torch.jit.script(module))
    target = io.BytesIO()
    _quietly(
        lambda: torch.onnx.export(
            module, args, target, input_names=names, opset_version=opset, dynamo=exporter == "dynamo", verbose=False,
            **how,
        )
    )  # fmt: skip
    return target.getvalue()


def _dynamic_shapes(net: Network, count: int) -> tuple[Any, ...] | None:
    if not net.dynamic:
        return None
    dims = {name: torch.export.Dim(name, min=1, max=4096) for axes in net.dynamic for name in axes.values()}
    axes = [*net.dynamic, *([{}] * (count - len(net.dynamic)))]
    return tuple({axis: dims[name] for axis, name in a.items()} for a in axes)


def _quietly(work: Callable[[], Any]) -> Any:
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return work()
    finally:
        logging.disable(disabled)


def rand(*shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Return uniform values."""
    return torch.rand(shape) * (high - low) + low


def ids(high: int, shape: Sequence[int]) -> Tensor:
    """Return integers below `high`."""
    return torch.randint(0, high, tuple(shape))
