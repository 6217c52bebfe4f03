"""CUDA gradients of pooling against the array kernels and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.expr import Var
from onnxgrad.ops.kernels.cuda import index as _scatters, pool_grad as _rules
from onnxgrad.ops.kernels.cuda.lowering import Epilogue
from onnxgrad.ops.kernels.cuda.operand import packed
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import BFLOAT16
from onnxgrad.ops.window import Window

from .site import run_op
from .test_pool import CASES, ORDERS, drawn, wanted, window

assert _rules and _scatters
RNG = np.random.default_rng(1)
OVERLAPPING = {**CASES, "dense": ((1, 8, 9, 8), (3, 3), Window((1, 1), ((1, 1), (1, 1)), (1, 2)))}


def upstream(shape: tuple[int, ...], kernel: tuple[int, ...], win: Window, dtype: Any = np.float32) -> Any:
    """Return a gradient of the shape of the output."""
    return RNG.standard_normal((*shape[:2], *win.out(shape[2:], kernel))).astype(dtype)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", OVERLAPPING)
def test_gradients(case: str, order: str) -> None:
    shape, kernel, win = OVERLAPPING[case]
    x, g = drawn(shape, ties=True), upstream(shape, kernel, win)
    attrs: dict[str, Any] = {"kernel": kernel, "win": win}
    (y,) = run_op("max_pool_grad", [g, x], attrs, order=order)
    want = wanted("max_pool_grad", [g, x], **attrs)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    for counted in (None, tuple((0, 0) for _ in kernel)):
        more = {**attrs, "size": shape[2:], "counted": counted}
        (y,) = run_op("sum_pool_grad", [g], more, order=order)
        np.testing.assert_allclose(y, wanted("sum_pool_grad", [g], **more), rtol=1e-5, atol=1e-5)


def test_the_first_of_equal_maxima_gets_it_as_in_torch() -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(np.round(drawn((2, 8, 9, 9)))).requires_grad_()
    g = upstream((2, 8, 9, 9), (3, 3), window(2, 2, (1, 1)))
    torch.nn.functional.max_pool2d(x, 3, 2, 1).backward(torch.from_numpy(g))
    attrs = {"kernel": (3, 3), "win": window(2, 2, (1, 1))}
    (y,) = run_op("max_pool_grad", [g, x.detach().numpy()], attrs, order="channels_last")
    np.testing.assert_allclose(y, x.grad.numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float64])
@pytest.mark.parametrize("order", ORDERS)
def test_every_type(dtype: Any, order: str) -> None:
    shape, kernel, win = (2, 16, 7, 6), (3, 3), window(2, 2, (1, 1))
    x, g = drawn(shape, dtype), upstream(shape, kernel, win, dtype)
    tolerance = {2: 2e-2, 8: 1e-12}[np.dtype(dtype).itemsize]
    for op, arrays, more in (
        ("max_pool_grad", [g, x], {}),
        ("sum_pool_grad", [g], {"size": shape[2:], "counted": win.pads}),
    ):
        attrs: dict[str, Any] = {"kernel": kernel, "win": win, **more}
        (y,) = run_op(op, arrays, attrs, order=order)
        np.testing.assert_allclose(y.astype(float), wanted(op, arrays, **attrs), rtol=tolerance, atol=tolerance)


def test_an_epilogue_joins() -> None:
    shape, kernel, win = (1, 8, 6, 6), (2, 2), window(2)
    x, g, c = drawn(shape), upstream(shape, kernel, win), drawn(shape)
    epilogue = Epilogue(Var("x") * Var("a0"), (packed(c.dtype, c.shape),), np.dtype(np.float32))
    (y,) = run_op("max_pool_grad", [g, x], {"kernel": kernel, "win": win}, epilogue=epilogue, extra=[c])
    np.testing.assert_allclose(y, wanted("max_pool_grad", [g, x], kernel=kernel, win=win) * c, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [5, 300, 5000])
def test_scatter_and_gather_by_index(count: int) -> None:
    size = (6, 7)
    n = 2 * 3 * 42
    indices = RNG.integers(0, n, (2, 3, count)).astype(np.int64)
    g = RNG.standard_normal(indices.shape).astype(np.float32)
    (y,) = run_op("pool_scatter", [g, indices], {"size": size})
    np.testing.assert_allclose(y, wanted("pool_scatter", [g, indices], size=size), rtol=1e-4, atol=1e-4)
    x = drawn((2, 3, *size))
    (y,) = run_op("pool_gather", [x, indices])
    np.testing.assert_array_equal(y, OPS["pool_gather"].run(x, indices))
    (y,) = run_op("max_unpool", [g, indices], {"size": size})
    np.testing.assert_array_equal(y, OPS["max_unpool"].run(g, indices, size=size))
