"""Transformers against PyTorch, with its parameters' names."""

from __future__ import annotations

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn

from .parity import both

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")  # PyTorch's own

RNG = np.random.default_rng(0)
S, T, N, E, H = 4, 3, 2, 8, 2
SRC, TGT = RNG.standard_normal((S, N, E)), RNG.standard_normal((T, N, E))
SRC_PADDED = np.array([[False, False, False, True], [False, False, True, True]])
TGT_PADDED = np.array([[False, False, True], [False, False, False]])
LAYERS = [
    {},
    {"norm_first": True},
    {"activation": "gelu", "bias": False},
    {"batch_first": True, "layer_norm_eps": 1e-2},
]


def causal(size, kind):
    """The causal mask, as truth values or numbers."""
    return np.triu(np.ones((size, size), bool), 1) if kind == "bool" else np.triu(np.full((size, size), -np.inf), 1)


ENCODED = [
    {},
    {"mask": causal(S, "float")},
    {"mask": causal(S, "bool"), "is_causal": True},
    {"src_key_padding_mask": SRC_PADDED},
    {"mask": RNG.standard_normal((S, S)), "src_key_padding_mask": RNG.standard_normal((N, S))},
]
DECODED = [
    {},
    {"tgt_mask": causal(T, "bool"), "memory_mask": RNG.random((T, S)) > 0.7},
    {"tgt_mask": causal(T, "float"), "tgt_is_causal": True},
    {"tgt_key_padding_mask": TGT_PADDED, "memory_key_padding_mask": SRC_PADDED},
    {"tgt_mask": causal(T, "bool"), "tgt_key_padding_mask": TGT_PADDED},
]


def paired(masks):
    """Every setting of the layer and all masks, each at least once."""
    return [(LAYERS[i % len(LAYERS)], masks[i % len(masks)]) for i in range(max(len(LAYERS), len(masks)) + 1)]


def swapped(x, kwargs):
    return x.swapaxes(0, 1).copy() if kwargs.get("batch_first") else x


def called(masks):
    """A call with masks as Tensors of its library, numbers in the element type of the source."""

    def call(lib, f, x, *rest):
        given = {k: lib.tensor(v) if isinstance(v, np.ndarray) else v for k, v in masks.items()}
        given = {k: v.to(x.dtype) if getattr(masks[k], "dtype", None) == np.float64 else v for k, v in given.items()}
        return f(x, *rest, **given)

    return call


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("kwargs", "masks"), paired(ENCODED))
def test_encoders_are_pytorchs(compared, kwargs, masks, dtype):
    x = (swapped(SRC, kwargs),)
    single = {"src_mask" if k == "mask" else k: v for k, v in masks.items()}

    def layer(lib):
        return lib.nn.TransformerEncoderLayer(E, H, 16, 0.0, **kwargs)

    both(compared, "TransformerEncoderLayer", layer, x, dtype, call=called(single))
    both(
        compared, "TransformerEncoder",
        lambda lib: lib.nn.TransformerEncoder(layer(lib), 2, lib.nn.LayerNorm(E), enable_nested_tensor=False),
        x, dtype, call=called(masks),
    )  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("kwargs", "masks"), paired(DECODED))
def test_decoders_are_pytorchs(compared, kwargs, masks, dtype):
    x = swapped(TGT, kwargs), swapped(SRC, kwargs)

    def layer(lib):
        return lib.nn.TransformerDecoderLayer(E, H, 16, 0.0, **kwargs)

    both(compared, "TransformerDecoderLayer", layer, x, dtype, call=called(masks))
    both(
        compared,
        "TransformerDecoder",
        lambda lib: lib.nn.TransformerDecoder(layer(lib), 2),
        x,
        dtype,
        call=called(masks),
    )


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("kwargs", "train"), [(kwargs, i % 2 == 0) for i, kwargs in enumerate(LAYERS)])
def test_transformers_are_pytorchs(compared, kwargs, train, dtype):
    masks = {"src_mask": causal(S, "float"), "tgt_mask": causal(T, "float")}
    both(
        compared, "Transformer", lambda lib: lib.nn.Transformer(E, H, 1, 1, 16, 0.0, **kwargs),
        (swapped(SRC, kwargs), swapped(TGT, kwargs)), dtype, train=train, call=called(masks),
    )  # fmt: skip


@pytest.mark.oracle
def test_a_single_sequence_needs_no_batch(compared):
    def make(lib):
        return lib.nn.Transformer(E, H, 1, 1, 16, 0.0, batch_first=True)

    both(compared, "Transformer", make, (SRC[:, 0], TGT[:, 0]), "float64")


@pytest.mark.oracle
def test_any_function_may_be_the_activation(compared):
    def make(lib):
        return lib.nn.TransformerEncoderLayer(E, H, 16, 0.0, activation=lib.tanh)

    both(compared, "TransformerEncoderLayer", make, (SRC,), "float64")


@pytest.mark.oracle
def test_names_and_what_is_printed():
    import torch

    for kwargs in ({}, {"bias": False, "norm_first": True}):
        ours, theirs = (lib.nn.Transformer(E, H, 1, 2, 16, **kwargs) for lib in (og, torch))
        assert repr(ours) == repr(theirs)
        assert {k: tuple(v.shape) for k, v in ours.state_dict().items()} == {
            k: tuple(v.shape) for k, v in theirs.state_dict().items()
        }
        assert list(ours.state_dict()) == list(theirs.state_dict())


def test_layers_of_a_stack_are_copies():
    layer = nn.TransformerEncoderLayer(E, H, 16)
    stack = nn.TransformerEncoder(layer, 2)
    first, second = (m.linear1.weight for m in stack.layers)
    assert og.equal(first, second) and first is not second and layer not in list(stack.layers)
    with og.no_grad():
        first.add_(1)
    assert not og.equal(first, second) and not og.equal(first, layer.linear1.weight)


def test_a_causal_mask_hides_what_comes_later():
    mask = nn.Transformer.generate_square_subsequent_mask(S)
    np.testing.assert_array_equal(mask.numpy(), causal(S, "float").astype(np.float32))
    layer = nn.TransformerEncoder(nn.TransformerEncoderLayer(E, H, 16, 0.0), 2)
    x = og.randn(S, N, E)
    y = layer(x, mask).detach().numpy()
    x[S - 1] = 0
    z = layer(x, mask).detach().numpy()
    np.testing.assert_allclose(y[:-1], z[:-1], atol=1e-6)
    assert abs(y[-1] - z[-1]).max() > 1e-3


def test_a_norm_that_comes_first_is_the_equation():
    layer = nn.TransformerEncoderLayer(E, H, 16, 0.0, norm_first=True)
    x = og.randn(S, N, E)
    a = x + layer.self_attn(*[layer.norm1(x)] * 3)[0]
    wanted = a + layer.linear2(layer.linear1(layer.norm2(a)).relu())
    np.testing.assert_allclose(layer(x).detach().numpy(), wanted.detach().numpy(), atol=1e-6)


def test_a_compiled_step_gives_the_same():
    layer = nn.TransformerEncoder(nn.TransformerEncoderLayer(E, H, 16, 0.0), 2)
    x, mask = og.randn(S, N, E), nn.Transformer.generate_square_subsequent_mask(S)

    def step(x):
        layer.zero_grad()
        loss = (layer(x, mask) ** 2).sum()
        loss.backward()
        return loss, [p.grad for p in layer.parameters()]

    (loss, grads), (again, others) = step(x), og.compile(step)(x)
    np.testing.assert_allclose(again.detach().numpy(), loss.detach().numpy(), rtol=1e-5)
    for a, b in zip(others, grads, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-4)


def test_dropout_while_training():
    layer = nn.TransformerDecoderLayer(E, H, 16, 0.5)
    x, memory = og.randn(T, N, E), og.randn(S, N, E)
    assert not og.equal(layer(x, memory), layer(x, memory))
    layer.eval()
    assert og.equal(layer(x, memory), layer(x, memory))


def test_errors_say_what_is_wrong():
    model = nn.Transformer(E, H, 1, 1, 16)
    with pytest.raises(ValueError, match="the batch number of src and tgt must be equal"):
        model(og.zeros(S, N, E), og.zeros(T, 1, E))
    with pytest.raises(ValueError, match="the feature number of src and tgt must be equal to d_model"):
        model(og.zeros(S, N, E), og.zeros(T, N, 4))
    with pytest.raises(ValueError, match="activation should be relu/gelu, not x"):
        nn.TransformerEncoderLayer(E, H, activation="x")
