"""One setting of a module or function here and in PyTorch: same weights and inputs; results and gradients compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import onnxgrad as og

RTOL = {"float32": 1e-5, "float64": 1e-10}
"""How far results and gradients may be apart, relative to the largest element of each."""


class Compared:
    """What was compared so far: the largest difference of each name in each element type."""

    def __init__(self) -> None:
        self.worst: dict[str, dict[str, float]] = {}
        self.settings = 0

    def note(self, name: str, dtype: str, difference: float) -> None:
        """Note one setting of what has this name."""
        self.settings += 1
        found = self.worst.setdefault(name, {})
        found[dtype] = max(found.get(dtype, 0.0), difference)

    def lines(self) -> list[str]:
        """Return the table."""
        rows = [
            f"parity with PyTorch: {self.settings} settings of {len(self.worst)} layers, losses, optimizers, schedulers"
        ]
        rows.append("  " + f"{'name':34}{'float32':>10}{'float64':>10}")
        for name in sorted(self.worst):
            shown = [f"{self.worst[name][d]:.1e}" if d in self.worst[name] else "-" for d in RTOL]
            rows.append(f"  {name:34}{shown[0]:>10}{shown[1]:>10}")
        return rows


def apart(ours: Any, theirs: Any) -> float:
    """Return the largest difference relative to the largest element; raise where shapes, types or NaNs differ."""
    a = np.asarray(ours.detach().numpy() if hasattr(ours, "detach") else ours)
    b = np.asarray(theirs.detach().numpy() if hasattr(theirs, "detach") else theirs)
    assert a.shape == b.shape, f"shape {a.shape}, PyTorch's {b.shape}"
    assert a.dtype == b.dtype, f"element type {a.dtype}, PyTorch's {b.dtype}"
    if not b.size:
        return 0.0
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    np.testing.assert_array_equal(np.isinf(a), np.isinf(b))
    finite = np.isfinite(b)
    if not finite.any():
        return 0.0
    a, b = a[finite].astype(np.float64), b[finite].astype(np.float64)
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) if np.abs(a - b).max() else 0.0


def flat(results: Any) -> list[Any]:
    """Return the Tensors of nested results, in order."""
    if isinstance(results, tuple | list):
        return [t for r in results for t in flat(r)]
    return [] if results is None or not hasattr(results, "detach") else [results]


def both(
    compared: Compared,
    name: str,
    make: Callable[[Any], Any],
    inputs: Sequence[Any],
    dtype: str,
    *,
    seed: int = 0,
    train: bool = True,
    call: Callable[..., Any] | None = None,
) -> None:
    """Compare results, gradients of inputs and parameters, and buffers afterwards.

    Args:
        compared: the session's table (the fixture `compared`).
        name: of the row.
        make: returns the module, given `onnxgrad` or `torch`; or a function of Tensors.
        inputs: arrays; floats are cast to the element type and require gradients. What is no array is passed on.
        dtype: float32 or float64.
        seed: of the parameters and cotangents.
        train: whether the module is in training mode.
        call: how the module is called on the inputs, given (lib, module, *inputs); plainly by default.
    """
    import torch

    rng = np.random.default_rng(seed)
    ours, theirs = make(og), make(torch)
    is_module = hasattr(theirs, "state_dict")
    if is_module:
        theirs = theirs.to(getattr(torch, dtype)).train(train)
        with torch.no_grad():
            for p in theirs.parameters():
                p.copy_(torch.from_numpy(np.asarray(rng.standard_normal(tuple(p.shape)) * 0.5)))
        ours = ours.to(dtype=dtype).train(train)
        ours.load_state_dict({k: v.numpy().copy() for k, v in theirs.state_dict().items()})
        assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]

    def given(lib: Any) -> list[Any]:
        made = []
        for x in inputs:
            if not isinstance(x, np.ndarray):
                made.append(x)
            elif x.dtype.kind == "f":
                made.append(lib.tensor(x.astype(dtype), requires_grad=True))
            else:
                made.append(lib.tensor(x))
        return made

    xs, txs = given(og), given(torch)
    run = call or (lambda lib, f, *args: f(*args))
    ys, tys = flat(run(og, ours, *xs)), flat(run(torch, theirs, *txs))
    assert len(ys) == len(tys) > 0
    pairs = [(f"output {i}", y, t) for i, (y, t) in enumerate(zip(ys, tys, strict=True))]
    roots = [(y, t) for y, t in zip(ys, tys, strict=True) if t.requires_grad]
    assert all(y.requires_grad for y, _ in roots)
    if roots:
        cotangents = [rng.standard_normal(tuple(t.shape)).astype(dtype) for _, t in roots]
        og.autograd.backward([y for y, _ in roots], [og.tensor(c) for c in cotangents])
        torch.autograd.backward([t for _, t in roots], [torch.tensor(c) for c in cotangents])
        for i, (x, t) in enumerate(zip(xs, txs, strict=True)):
            if getattr(t, "grad", None) is not None:
                assert x.grad is not None, f"input {i} has no gradient"
                pairs.append((f"gradient of input {i}", x.grad, t.grad))
    if is_module:
        pairs += [(f"gradient of {n}", p.grad, t.grad) for (n, p), (_, t) in zip(
            ours.named_parameters(), theirs.named_parameters(), strict=True) if t.grad is not None]  # fmt: skip
        pairs += [(n, b, t) for (n, b), (_, t) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True)]
    worst = 0.0
    for what, a, b in pairs:
        difference = apart(a, b)
        assert difference <= RTOL[dtype], f"{name}: {what} is {difference:.1e} apart in {dtype}"
        worst = max(worst, difference)
    compared.note(name, dtype, worst)
