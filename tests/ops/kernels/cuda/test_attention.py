"""Attention: rules against the array kernels in float64, through what cuDNN and cuBLASLt are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.attention import attention, attention_grad, attention_weights
from onnxgrad.ops.kernels.cuda import attention as rules
from onnxgrad.ops.kernels.cuda.cudnn_graphs import Attention, AttentionBackward, AttentionForward
from onnxgrad.ops.kernels.cuda.kernel import LibraryCall
from onnxgrad.ops.types import BFLOAT16

from .site import lower, make_site, refuses, run_op

RNG = np.random.default_rng(9)
F32, F64, F16 = (np.dtype(t) for t in ("float32", "float64", "float16"))
TOLERANCE = {"float64": 1e-11, "float32": 2e-5, "float16": 1e-2, "bfloat16": 6e-2}


def draw(shape: tuple[int, ...], dtype: Any = F32) -> np.ndarray[Any, Any]:
    """Return numbers around 0."""
    return RNG.standard_normal(shape).astype(dtype)


def close(found: Any, wanted: Any) -> None:
    """Compare at the accuracy of the element type found."""
    assert found.shape == wanted.shape
    tolerance = TOLERANCE[found.dtype.name]
    np.testing.assert_allclose(found.astype(F64), wanted.astype(F64), rtol=tolerance, atol=tolerance)


def tensors(
    dtype: Any, n: int = 5, keys: int = 7, heads: int = 4, shared: int = 4, e: int = 8, v: int = 8
) -> list[Any]:
    """Return queries, keys and values of two entries."""
    return [draw((2, heads, n, e), dtype), draw((2, shared, keys, e), dtype), draw((2, shared, keys, v), dtype)]


def masked(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """Return a mask that hides some keys, of one query all if it has many."""
    found = RNG.random(shape) < 0.7
    if shape[-2] > 1:
        found[..., 1, :] = False
    if dtype is bool:
        return found
    return np.where(found, draw(shape, dtype), -np.inf).astype(dtype)


def attrs(**more: Any) -> dict[str, Any]:
    """Return attributes."""
    return {"scale": 0.35, **more}


INT = np.array([3, 6], np.int64)

FORMS: dict[str, tuple[dict[str, Any], list[Any], dict[str, Any]]] = {
    "plain": ({}, [], {}),
    "shared heads": ({"shared": 2}, [], {}),
    "one head of keys": ({"shared": 1, "v": 16}, [], {}),
    "causal": ({"n": 7}, [], {"right": 0}),
    "causal, fewer queries": ({}, [], {"right": 0}),
    "bottom": ({}, [], {"right": 0, "offset": 2}),
    "window": ({}, [], {"left": 1, "right": 1}),
    "left": ({}, [], {"left": 2, "offset": 2}),
    "blind": ({}, [], {"right": 0, "offset": -2}),
    "more queries": ({"n": 9}, [], {"right": 0}),
    "mask of truth": ({}, [masked((2, 4, 5, 7), bool)], {}),
    "mask of keys": ({}, [masked((2, 1, 1, 7), bool)], {}),
    "mask of two axes": ({"shared": 2}, [masked((5, 7), bool)], {"right": 2}),
    "mask of numbers": ({}, [masked((1, 4, 5, 7), F32)], {}),
    "numbers for keys": ({}, [masked((2, 1, 1, 7), F32)], {}),
    "lengths": ({}, [None, INT], {}),
    "starts": ({}, [None, None, INT.astype(np.int32)], {"right": 0, "left": 3}),
    "all": ({}, [masked((2, 1, 5, 7), bool), INT.astype(np.int32), INT], {"right": 1}),
    "sink": ({"shared": 2}, [None, None, None, np.array([0.5, -1, 2, 0], F32)], {}),
    "sink and mask": ({}, [masked((5, 7), bool), None, None, np.array([0.5, -1, 2, -np.inf], F32)], {}),
    "cap": ({}, [], {"softcap": 1.5, "right": 0, "offset": 2}),
    "one query": ({"n": 1}, [], {"right": 0, "offset": 6}),
    "one of each": ({"n": 1, "keys": 1}, [], {}),
}


def arguments(name: str, dtype: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return the inputs of attention and its attributes."""
    sizes, more, how = FORMS[name]
    floats = (F32, F64, F16, BFLOAT16)
    return [
        *tensors(dtype, **sizes),
        *(m.astype(dtype) if m is not None and m.dtype in floats else m for m in more),
    ], attrs(**how)


def wide(arrays: list[Any]) -> list[Any]:
    """Return the floats among arrays in float64."""
    return [a.astype(F64) if a is not None and a.dtype.kind not in "iub" else a for a in arrays]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(n, t) for n in FORMS for t in (F32, F16)] + [(n, t) for n in ("plain", "sink and mask") for t in (F64, BFLOAT16)],
    ids=str,
)
def test_forward(name: str, dtype: Any) -> None:
    """Every form; half precision is cuDNN's but for caps and sinks."""
    arrays, how = arguments(name, dtype)
    close(run_op("attention", arrays, how)[0], attention(*wide(arrays), **how))


@pytest.mark.parametrize("dtype", [F32, F16], ids=str)
@pytest.mark.parametrize("name", FORMS)
def test_gradients(name: str, dtype: Any) -> None:
    """Of queries, keys, values, masks and sinks."""
    arrays, how = arguments(name, dtype)
    exact = wide(arrays)
    y = attention(*exact, **how)
    g = draw(y.shape, dtype)
    wanted = attention_grad(g.astype(F64), y, *exact, **how)
    found = run_op("attention_grad", [g, y.astype(dtype), *arrays], how)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a.astype(F64), b, rtol=4 * TOLERANCE[dtype.name], atol=4 * TOLERANCE[dtype.name])


@pytest.mark.parametrize("name", ["shared heads", "window", "mask of numbers", "sink and mask", "cap"])
def test_weights(name: str) -> None:
    """What the values are weighed with."""
    arrays, how = arguments(name, F32)
    del arrays[2]
    close(run_op("attention_weights", arrays, how)[0], attention_weights(*wide(arrays), **how))


def test_long_rows() -> None:
    """More keys than threads hold, hidden ones in front."""
    arrays = [draw((1, 1, 2, 4)), draw((1, 1, 40000, 4)), draw((1, 1, 40000, 3))]
    mask = np.zeros((2, 40000), bool)
    mask[0, 30000:] = True
    close(run_op("attention", [*arrays, mask], attrs())[0], attention(*wide(arrays), mask, **attrs()))


@pytest.mark.parametrize("dtype", [F32, F16], ids=str)
def test_lying(dtype: Any) -> None:
    """Heads cut from projections (B, L, H, E), which nothing copies, and reversed ones, which are."""
    q, k, v = (x.transpose(0, 2, 1, 3).copy().transpose(0, 2, 1, 3) for x in tensors(dtype))
    wanted = attention(*wide([q, k, v]), **attrs())
    close(run_op("attention", [q, k, v], attrs(), order="own")[0], wanted)
    close(run_op("attention", [q, k, v], attrs(), order="transposed")[0], wanted)
    close(run_op("attention", [q, k, v], attrs(), order="own", shift=1)[0], wanted)
    q, k, v = tensors(dtype, n=1, shared=2)
    q = draw((2, 4, 3, 8), dtype)[:, :, 1:2]
    close(run_op("attention", [q, k, v], attrs(), order="own")[0], attention(*wide([q, k, v]), **attrs()))
    q, k, v = (x.transpose(0, 2, 1, 3).copy().transpose(0, 2, 1, 3) for x in tensors(dtype))
    if dtype == F16:
        (call,) = work("attention", [q, k, v], attrs(), order="own")
        assert call.description.q.strides == (160, 8, 32, 1)


def work(op: str, arrays: list[Any], how: dict[str, Any], **more: Any) -> list[Any]:
    """Return the work of a rule."""
    site = make_site(op, arrays, how, **more)
    assert lower(site)
    return site.work


def test_chosen() -> None:
    """Which forms are one call of cuDNN, and how it is told which keys are seen."""
    for name, told in (
        ("plain", (-1, -1, False)),
        ("causal", (-1, 0, False)),
        ("bottom", (-1, 0, True)),
        ("window", (1, 1, False)),
        ("left", (2, -1, True)),
    ):
        (call,) = work("attention", *arguments(name, F16))
        d = call.description
        assert isinstance(d, AttentionForward) and (d.left, d.right, d.bottom) == told
    calls = work("attention_grad", *_grad_arguments("causal", F16))
    assert [type(c.description) for c in calls] == [AttentionForward, AttentionBackward]
    for name in ("cap", "sink"):
        assert not any(isinstance(d, Attention) for d in _descriptions(work("attention", *arguments(name, F16))))
    for name in ("mask of truth", "lengths", "blind", "more queries"):
        assert any(isinstance(d, Attention) and d.bias for d in _descriptions(work("attention", *arguments(name, F16))))


def _descriptions(found: list[Any]) -> list[Any]:
    return [w.description for w in found if isinstance(w, LibraryCall)]


def _grad_arguments(name: str, dtype: Any) -> tuple[list[Any], dict[str, Any]]:
    arrays, how = arguments(name, dtype)
    y = attention(*wide(arrays), **how).astype(dtype)
    return [draw(y.shape, dtype), y, *arrays], how


def test_lowest_numbers() -> None:
    """A mask that holds the lowest number everywhere hides nothing; -inf does."""
    q, k, v = tensors(F16)
    lowest = np.full((5, 7), np.finfo(F16).min, F16)
    lowest[2, 3:] = -np.inf
    lowest[4] = -np.inf
    shallow = np.where(np.isinf(lowest), -np.inf, 0.0)
    close(run_op("attention", [q, k, v, lowest], attrs())[0], attention(*wide([q, k, v]), shallow, **attrs()))


def test_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Integers, empty tensors, and scores that are too many."""
    q, k, v = tensors(F32)
    assert refuses("attention", [q.astype(np.int32), k.astype(np.int32), v.astype(np.int32)], attrs())
    assert refuses("attention", [q, k[:, :, :0], v[:, :, :0]], attrs())
    monkeypatch.setattr(rules, "LIMIT_BYTES", 100)
    assert refuses("attention", [q, k, v], attrs())
