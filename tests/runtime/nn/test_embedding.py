"""Embeddings and bags of them against PyTorch, and by their equations."""

from __future__ import annotations

import numpy as np
import pytest

import onnxgrad as og
import onnxgrad.nn.functional as F
from onnxgrad import nn

from .parity import both

RNG = np.random.default_rng(0)
TOKENS = np.array([[0, 2, 2, 5], [5, 5, 1, 2]])
SETTINGS = [
    {},
    {"padding_idx": 2},
    {"padding_idx": -1},
    {"max_norm": 0.8},
    {"max_norm": 0.5, "norm_type": 1.0, "padding_idx": 2},
    {"scale_grad_by_freq": True},
    {"scale_grad_by_freq": True, "padding_idx": 2},
]


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kwargs", SETTINGS, ids=str)
def test_embeddings_are_pytorchs(compared, kwargs, dtype):
    def call(lib, f, x):
        return f(x), f.weight.detach() if "max_norm" in kwargs else None

    both(compared, "Embedding", lambda lib: lib.nn.Embedding(6, 3, **kwargs), (TOKENS,), dtype, call=call)


OFFSETS = [np.array([0, 3, 3, 5]), np.array([0, 8]), np.array([0, 2, 8, 8])]
BAGS = [{}, {"padding_idx": 2}, {"padding_idx": 5}]


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("kwargs", BAGS, ids=str)
@pytest.mark.parametrize(("offsets", "last"), [(o, False) for o in OFFSETS] + [(o, True) for o in (None, *OFFSETS[1:])])
def test_bags_are_pytorchs(compared, mode, kwargs, offsets, last, dtype):
    def make(lib):
        return lib.nn.EmbeddingBag(6, 3, mode=mode, include_last_offset=last, **kwargs)

    inputs = (TOKENS,) if offsets is None else (TOKENS.reshape(-1), offsets)
    both(compared, "EmbeddingBag", make, inputs, dtype)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kwargs", [{}, {"padding_idx": 2}, {"max_norm": 0.8}], ids=str)
@pytest.mark.parametrize("offsets", [None, OFFSETS[0]], ids=str)
def test_weighted_bags_are_pytorchs(compared, kwargs, offsets, dtype):
    tokens = TOKENS if offsets is None else TOKENS.reshape(-1)

    def call(lib, f, tokens, offsets, weights):
        return f(tokens, offsets, weights)

    both(
        compared, "EmbeddingBag", lambda lib: lib.nn.EmbeddingBag(6, 3, mode="sum", **kwargs),
        (tokens, offsets, RNG.standard_normal(tokens.shape)), dtype, call=call,
    )  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_bags_with_gradients_by_frequency_are_pytorchs(compared, mode):
    def make(lib):
        return lib.nn.EmbeddingBag(6, 3, mode=mode, scale_grad_by_freq=True)

    both(compared, "EmbeddingBag", make, (TOKENS.reshape(-1), OFFSETS[0]), "float64")


def test_bags_are_sums_of_rows():
    table = og.tensor(RNG.standard_normal((6, 3)), requires_grad=True)
    y = F.embedding_bag(og.tensor(TOKENS.reshape(-1)), table, og.tensor([0, 3, 3]), mode="mean")
    rows = table.detach().numpy()[TOKENS.reshape(-1)]
    np.testing.assert_allclose(y.detach().numpy(), [rows[:3].mean(0), np.zeros(3), rows[3:].mean(0)], rtol=1e-12)
    y.sum().backward()
    counts = np.bincount([0, 2, 2], minlength=6) / 3 + np.bincount([5, 5, 5, 1, 2], minlength=6) / 5
    np.testing.assert_allclose(table.grad.numpy(), np.repeat(counts[:, None], 3, 1), rtol=1e-12)


def test_a_padding_row_is_zero_and_gets_no_gradient():
    layer = nn.Embedding(6, 3, padding_idx=-4)
    assert layer.padding_idx == 2 and not layer.weight[2].detach().numpy().any()
    layer(og.tensor(TOKENS)).sum().backward()
    assert layer.weight.grad.numpy()[:, 0].tolist() == [1, 1, 0, 0, 0, 3]


def test_a_long_row_is_shortened_in_place():
    layer = nn.Embedding(4, 3, max_norm=1.0, _weight=og.tensor(np.full((4, 3), 2.0)))
    layer(og.tensor([0, 0, 3]))
    lengths = np.linalg.norm(layer.weight.detach().numpy(), axis=1)
    np.testing.assert_allclose(lengths, [1, 12**0.5, 12**0.5, 1], rtol=1e-6)


def test_tables_that_are_given():
    table = og.tensor(RNG.standard_normal((4, 3)))
    frozen, free = nn.Embedding.from_pretrained(table), nn.Embedding.from_pretrained(table, freeze=False, padding_idx=1)
    assert not frozen.weight.requires_grad and free.weight.requires_grad and free.padding_idx == 1
    assert og.equal(frozen(og.tensor([2])), table[2:3]) and free.weight[1].detach().numpy().any()
    bag = nn.EmbeddingBag.from_pretrained(table, mode="sum")
    assert not bag.weight.requires_grad and bag.mode == "sum"
    with pytest.raises(ValueError, match="Embeddings parameter is expected to be 2-dimensional"):
        nn.Embedding.from_pretrained(table[0])


def test_what_is_printed():
    assert repr(nn.Embedding(4, 3, 1, 2.0, scale_grad_by_freq=True)) == (
        "Embedding(4, 3, padding_idx=1, max_norm=2.0, scale_grad_by_freq=True)"
    )
    assert repr(nn.EmbeddingBag(4, 3)) == "EmbeddingBag(4, 3, mode='mean')"
    assert repr(nn.EmbeddingBag(4, 3, 1, mode="sum", padding_idx=1)) == (
        "EmbeddingBag(4, 3, max_norm=1, mode='sum', padding_idx=1)"
    )


def test_compiled_lookups_give_the_same():
    table, tokens = og.randn(6, 3), og.tensor(TOKENS)
    for mode in ("sum", "mean", "max"):
        wanted = F.embedding_bag(tokens.flatten(), table, og.tensor([0, 3, 3]), mode=mode, padding_idx=5)
        found = og.compile(lambda t, x, o, mode=mode: F.embedding_bag(x.flatten(), t, o, mode=mode, padding_idx=5))
        np.testing.assert_allclose(found(table, tokens, og.tensor([0, 3, 3])).numpy(), wanted.numpy(), atol=1e-6)


W = og.ones(4, 3)
WRONG = [
    (lambda: nn.Embedding(4, 3, padding_idx=4), "Padding_idx must be within num_embeddings"),
    (lambda: nn.Embedding(4, 3, sparse=True), "sparse=True is not supported: gradients are dense"),
    (lambda: nn.Embedding(4, 3, _weight=og.zeros(2, 2)), "Shape of weight does not match num_embeddings"),
    (
        lambda: F.embedding(og.ones(2), W),
        "Expected tensor for argument #1 'indices' to have one of the following scalar",
    ),
    (lambda: F.embedding_bag(og.tensor([0, 1]), W), "offsets has to be a 1D Tensor but got None"),
    (lambda: F.embedding_bag(og.tensor([[0, 1]]), W, og.tensor([0])), "if input is 2D, then offsets has to be None"),
    (lambda: F.embedding_bag(og.tensor([0, 1]), W, og.tensor([1])), r"offsets\[0\] has to be 0"),
    (
        lambda: F.embedding_bag(og.tensor([0, 1]), W, og.tensor([0, 3])),
        r"offsets\[-1\] can not be greater than input's",
    ),
    (lambda: F.embedding_bag(og.tensor([0, 1]), W, og.tensor([0, 2, 1])), "offsets have to grow"),
    (lambda: F.embedding_bag(og.tensor([0, 1]), W, og.tensor([0.0])), "wanted integers"),
    (lambda: F.embedding_bag(og.tensor([0, 1]), W, og.tensor([0]), mode="x"), "mode has to be one of sum, mean or max"),
    (
        lambda: F.embedding_bag(og.tensor([0, 1]), W, og.tensor([0]), per_sample_weights=og.ones(2)),
        "per_sample_weights is only supported for mode='sum'",
    ),
    (
        lambda: F.embedding_bag(og.tensor([0, 1]), W, og.tensor([0]), mode="sum", per_sample_weights=og.ones(3)),
        "must have the same shape as the input",
    ),
    (lambda: F.one_hot(og.tensor([0, 3]), 2), "Class values must be smaller than num_classes."),
    (lambda: F.one_hot(og.tensor([0, -1])), "Class values must be non-negative."),
    (lambda: F.one_hot(og.ones(2)), "one_hot is only applicable to index tensor of type LongTensor."),
]


@pytest.mark.parametrize(("call", "says"), WRONG, ids=[says[:40] for _, says in WRONG])
def test_errors_say_what_is_wrong(call, says):
    with pytest.raises(ValueError, match=says):
        call()
