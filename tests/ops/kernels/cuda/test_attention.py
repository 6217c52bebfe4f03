"""Attention: rules against the array kernels in float64, through what cuDNN and cuBLASLt are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.attention import attention, attention_grad, attention_weights
from onnxgrad.ops.kernels.cuda import attention as rules
from onnxgrad.ops.kernels.cuda.cudnn_graphs import Attention, AttentionBackward, AttentionForward
from onnxgrad.ops.kernels.cuda.kernel import Launch, LibraryCall
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
    dtype: Any, n: int = 5, keys: int = 7, heads: int = 4, shared: int = 4, e: int = 8, v: int = 8, b: int = 2
) -> list[Any]:
    """Return queries, keys and values."""
    return [draw((b, heads, n, e), dtype), draw((b, shared, keys, e), dtype), draw((b, shared, keys, v), dtype)]


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


@pytest.mark.parametrize(("b", "n", "shared"), [(1, 5, 4), (2, 5, 4), (5, 5, 4), (2, 5, 2), (5, 5, 1), (3, 1, 2)])
def test_projections_of_scores_kept(b: int, n: int, shared: int) -> None:
    """Heads inside of rows in and out, of few entries, which are products of their own, and of many."""
    q, k, v = (x.transpose(0, 2, 1, 3).copy().transpose(0, 2, 1, 3) for x in tensors(F32, n=n, shared=shared, b=b))
    y = attention(q, k, v, **attrs())
    close(run_op("attention", [q, k, v], attrs(), order="own", out_order="heads")[0], y)
    close_gradients([draw(y.shape), y, q, k, v], attrs(), [], order="own", out_order="heads")
    found = work("attention", [q, k, v], attrs(), order="own", out_order="heads")
    entries = {sum(len(d.places) for d in _descriptions(found))}
    assert entries == {2 * b if 1 < b <= 4 else 2} or shared < 4


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


def _kernels(found: list[Any]) -> list[str]:
    return [w.kernel.name for w in found if isinstance(w, Launch)]


def _grad_arguments(name: str, dtype: Any) -> tuple[list[Any], dict[str, Any]]:
    arrays, how = arguments(name, dtype)
    y = attention(*wide(arrays), **how).astype(dtype)
    return [draw(y.shape, dtype), y, *arrays], how


def close_gradients(arrays: list[Any], how: dict[str, Any], unread: list[int], **more: Any) -> None:
    """Compare the gradients that are read; nothing else is written."""
    wanted = [w for i, w in enumerate(attention_grad(*wide(arrays), **how)) if i not in unread]
    found = run_op("attention_grad", arrays, how, unread=unread, **more)
    tolerance = 4 * TOLERANCE[arrays[0].dtype.name]
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a.astype(F64), b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [F32, F16, BFLOAT16], ids=str)
@pytest.mark.parametrize("name", ["mask of numbers", "numbers for keys"])
def test_gradient_of_a_mask_unread(name: str, dtype: Any) -> None:
    """It is not computed; in half precision the others are cuDNN's."""
    arrays, how = _grad_arguments(name, dtype)
    close_gradients(arrays, how, [3])
    found = work("attention_grad", arrays, how, unread=[3])
    if dtype == F32:
        assert "attention_sums" not in _kernels(found) and "attention_slopes" in _kernels(found)
    else:
        assert [type(d) for d in _descriptions(found)] == [AttentionForward, AttentionBackward]
    assert "attention_slopes" in _kernels(work("attention_grad", arrays, how))


@pytest.mark.parametrize("dtype", [F32, F16], ids=str)
@pytest.mark.parametrize(
    ("name", "unread"), [("mask of truth", [0]), ("causal", [1, 2]), ("plain", [2]), ("sink", [0, 1, 3]), ("cap", [1])]
)
def test_gradients_unread(name: str, unread: list[int], dtype: Any) -> None:
    """What nobody reads costs no product where scores are kept, and is no output."""
    arrays, how = _grad_arguments(name, dtype)
    close_gradients(arrays, how, unread)


@pytest.mark.parametrize("name", ["plain", "shared heads", "mask of truth", "window"])
def test_permuted(name: str) -> None:
    """Results and gradients lie as projections (B, L, H, E) where those read them, without a copy."""
    arrays, how = _grad_arguments(name, F16)
    close(run_op("attention", arrays[2:], how, out_order="heads")[0], attention(*wide(arrays[2:]), **how))
    close_gradients(arrays, how, [], out_order="heads")
    found = work("attention", arrays[2:], how, out_order="heads")
    assert _descriptions(found)[0].y.strides == (160, 8, 32, 1)
    back = _descriptions(work("attention_grad", arrays, how, out_order="heads"))[-1]
    assert back.dq.strides == (160, 8, 32, 1) and back.dk.strides[1] == 8


@pytest.mark.parametrize("name", ["plain", "mask of truth", "blind"])
@pytest.mark.parametrize("refused", [AttentionForward, AttentionBackward])
def test_refused(name: str, refused: type) -> None:
    """What cuDNN has no plan for keeps its scores, and nothing of the attempt stays."""
    arrays, how = _grad_arguments(name, F16)
    close(run_op("attention", arrays[2:], how, refused=[refused])[0], attention(*wide(arrays[2:]), **how))
    close_gradients(arrays, how, [], refused=[refused])
    found = work("attention_grad", arrays, how, refused=[refused])
    assert not any(isinstance(d, Attention) for d in _descriptions(found)) and "attention_clear" not in _kernels(found)


@pytest.mark.parametrize("name", FORMS)
def test_stats(name: str) -> None:
    """A result whose gradient is asked for comes with its stats; those of blind queries make their weights 0."""
    arrays, how = arguments(name, F16)
    site = make_site("attention", arrays, how, read_by=["attention_grad", "transpose"])
    assert lower(site)
    calls = [w for w in site.work if isinstance(w, LibraryCall) and isinstance(w.description, AttentionForward)]
    (y,) = site.run(at_end=True, seed=0)
    close(y, attention(*wide(arrays), **how))
    for call in calls:
        assert call.description.with_stats
        stats = call.arguments[-1].view()
        assert (np.isfinite(stats)).all()
        np.testing.assert_array_equal(stats[..., 0] == np.float32(rules.HIGH), (y == 0).all(axis=3))


@pytest.mark.parametrize("dtype", [F32, F16], ids=str)
def test_constant_masks(dtype: Any) -> None:
    """One that is a window is told to cuDNN so; in a gradient too, but for one that the gradient is asked of."""
    arrays = tensors(dtype)
    hidden = np.where(np.tri(5, 7, k=2, dtype=bool), 0, -np.inf).astype(dtype)
    arrays.append(hidden)
    y = attention(*wide(arrays), **attrs())
    close(run_op("attention", arrays, attrs(), constants=[3])[0], y)
    given = [draw(y.shape, dtype), y.astype(dtype), *arrays]
    close_gradients(given, attrs(), [], constants=[5])
    close_gradients(given, attrs(), [3], constants=[5])
    if dtype == F16:
        (call,) = work("attention", arrays, attrs(), constants=[3])
        assert (call.description.right, call.description.bottom, call.description.bias) == (0, True, None)
        forward, backward = work("attention_grad", given, attrs(), constants=[5], unread=[3])
        assert forward.description.right == backward.description.right == 0


@pytest.mark.parametrize("n", [1, 3, 6])
def test_seeing(n: int) -> None:
    """Where windows alone decide, it is known whether a query may see no key."""
    keys = 4
    for left in (-1, 0, 2):
        for right in (-1, 0, 1):
            for offset in range(-4, 6):
                how = attrs(left=left, right=right, offset=offset)
                p = rules.given(make_site("attention", tensors(F16, n=n, keys=keys), how), 0)
                place, key = np.arange(n)[:, None] + offset, np.arange(keys)
                seen = (key >= place - left if left >= 0 else True) & (key <= place + right if right >= 0 else True)
                assert p is not None and p.seeing == np.broadcast_to(seen, (n, keys)).any(axis=1).all()
    assert not rules.given(make_site("attention", *arguments("lengths", F16)), 0).seeing  # type: ignore[union-attr]


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
    y = attention(q, k, v, **attrs())
    assert refuses("attention_grad", [draw(y.shape), y, q, k, v], attrs())
