"""The standard's node tests, run backward: their gradients hold to second order against central differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.ops.errors import AutogradError, DTypeError
from onnxgrad.runtime.autograd.gradcheck import check_grads
from onnxgrad.runtime.model.model import Model
from onnxgrad.runtime.tensor.tensor import Tensor

from .conformance import Case, node_modules, node_tests
from .double import in_double

HELD = {"Resize": {1, 2}, "Upsample": {1}, "Dropout": {1}}
"""Float inputs by which nothing is differentiated: scales, regions of interest and ratios set sizes and draws."""

TOTALS: Counter[str] = Counter()


@pytest.fixture(scope="module", autouse=True)
def totals(summary: Callable[[str], None]) -> Iterator[None]:
    """Print how many were checked, and why the others were not."""
    yield
    checked = TOTALS.pop("checked", 0)
    rest = ", ".join(f"{n} {why}" for why, n in TOTALS.most_common())
    summary(f"gradients: {checked} node tests hold to order 2; not differentiated: {rest}")


def held(case: Case) -> set[str]:
    """Return the names of the inputs that are not differentiated by."""
    return {n.input[i] for n in case.model.graph.node for i in HELD.get(n.op_type, ()) if i < len(n.input)}


def point(case: Case, feeds: list[Any]) -> list[Any]:
    """Return the inputs in float64, a little off ties and kinks, which tests like to stand on."""
    rng = np.random.default_rng(0)
    fixed = held(case)

    def moved(name: str, v: Any) -> Any:
        v = np.asarray(v) if isinstance(v, np.generic | int | float) else v
        if not isinstance(v, np.ndarray) or v.dtype != np.float32:
            return v
        return v.astype(np.float64) + (0 if name in fixed else 1e-3 * rng.standard_normal(v.shape))

    return [moved(i.name, v) for i, v in zip(case.inputs, feeds, strict=True)]


def outputs(model: Model, args: list[Any]) -> tuple[Tensor, ...]:
    out = model(*args)
    outs = out if isinstance(out, tuple) else (out,)
    return tuple(t for t in outs if isinstance(t, Tensor) and t.dtype == np.float64)


def why_not(case: Case, model: Model, args: list[Any]) -> str | None:
    """Return why there is nothing to check, or None."""
    floats = [a for a in args if isinstance(a, np.ndarray) and a.dtype == np.float64]
    if not all(np.isfinite(a).all() for a in floats):
        return "have infinite inputs"
    marked = [Tensor(a, requires_grad=True) if any(a is f for f in floats) else a for a in args]
    outs = outputs(model, marked)
    if not any(t.requires_grad for t in outs):
        return "have no gradient"
    if not all(np.isfinite(t.detach().numpy()).all() for t in outs):
        return "have infinite outputs"
    return None


def check(case: Case) -> str:
    """Check one case; return `checked`, or why it was not."""
    feeds = case.data_sets[0][0]
    if not any(isinstance(v, np.ndarray | np.generic) and v.dtype == np.float32 for v in feeds):
        return "have no float32 inputs"
    try:
        model = load_bytes(in_double(case.model).SerializeToString())
    except DTypeError:
        return "exist in float32 only"
    args = point(case, list(feeds))
    reason = why_not(case, model, args)
    if reason is not None:
        return reason
    fixed = {i for i, info in enumerate(case.inputs) if info.name in held(case)}
    free = [i for i in range(len(args)) if i not in fixed]

    def f(*xs: Any) -> tuple[Tensor, ...]:
        every = list(args)
        for i, x in zip(free, xs, strict=True):
            every[i] = x
        return outputs(model, every)

    if not any(isinstance(args[i], np.ndarray) and args[i].dtype == np.float64 for i in free):
        return "have no gradient"
    for attempt, eps in enumerate((1e-6, 1e-7, 1e-5)):
        try:
            check_grads(f, [args[i] for i in free], order=2, eps=eps, tol=1e-4 * 10 ** (attempt > 0), seed=attempt)
        except AutogradError:
            if attempt == 2:
                raise
        else:
            break
    return "checked"


@pytest.mark.parametrize("module", node_modules(), ids=lambda m: m.rpartition(".")[2])
def test_node_gradients(module: str, subtests: pytest.Subtests) -> None:
    for case in node_tests(module):
        if case.name.endswith("_expanded"):
            continue
        with subtests.test(case.name):
            TOTALS[check(case)] += 1
