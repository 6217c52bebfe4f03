"""Attention against PyTorch, against NumPy, and by its gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest

import onnxgrad as og
import onnxgrad.nn.functional as F
from onnxgrad import nn
from onnxgrad.autograd import gradcheck

from .parity import both

RNG = np.random.default_rng(0)


def rand(*shape):
    return RNG.standard_normal(shape)


SEEN = RNG.random((3, 5)) > 0.3
SEEN[1] = False
SHAPES = {
    "2": ((3, 4), (5, 4), (5, 6)),
    "3": ((2, 3, 4), (2, 5, 4), (2, 5, 6)),
    "4": ((2, 3, 3, 4), (2, 3, 5, 4), (2, 3, 5, 6)),
    "5": ((2, 2, 3, 3, 4), (2, 2, 3, 5, 4), (2, 2, 3, 5, 6)),
    "broadcast": ((7, 1, 3, 4), (1, 2, 5, 4), (7, 2, 5, 6)),
    "ranks": ((3, 4), (2, 5, 4), (2, 5, 6)),
}
MASKS = {
    "none": (None, {}),
    "bool": (SEEN, {}),
    "float": (rand(3, 5), {}),
    "causal": (None, {"is_causal": True}),
    "scale": (None, {"scale": 0.3}),
}


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("mask", MASKS)
def test_scaled_dot_product_attention_is_pytorchs(compared, shapes, mask, dtype):
    given, kwargs = MASKS[mask]
    both(
        compared, "scaled_dot_product_attention",
        lambda lib: lambda *args: lib.nn.functional.scaled_dot_product_attention(*args, **kwargs),
        (*(rand(*s) for s in SHAPES[shapes]), *([] if given is None else [given])), dtype,
    )  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mask", [SEEN, rand(2, 6, 3, 5), rand(2, 1, 3, 5), rand(1, 5)], ids=str)
def test_grouped_heads_and_masks_of_heads_are_pytorchs(compared, mask, dtype):
    for heads in (1, 2, 6):
        both(
            compared, "scaled_dot_product_attention",
            lambda lib: lambda *args: lib.nn.functional.scaled_dot_product_attention(*args, enable_gqa=True),
            (rand(2, 6, 3, 4), rand(2, heads, 5, 4), rand(2, heads, 5, 6), mask), dtype,
        )  # fmt: skip


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_attention_is_its_equation():
    q, k, v = rand(2, 3, 4), rand(2, 5, 4), rand(2, 5, 6)
    y = F.scaled_dot_product_attention(*map(og.tensor, (q, k, v)), is_causal=True)
    scores = np.where(np.tri(3, 5, dtype=bool), q @ k.swapaxes(1, 2) / 2, -np.inf)
    np.testing.assert_allclose(y.numpy(), softmax(scores) @ v, rtol=1e-12)
    hidden = F.scaled_dot_product_attention(*map(og.tensor, (q, k, v)), og.zeros(3, 5, dtype=og.bool))
    assert not hidden.numpy().any()


def test_gradients_of_grouped_heads_and_masks():
    args = [og.tensor(rand(*s), requires_grad=True) for s in ((1, 4, 3, 2), (1, 2, 3, 2), (1, 2, 3, 3), (4, 3, 3))]
    assert gradcheck(lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m[None], enable_gqa=True), args)


def test_dropped_weights():
    q, k = og.randn(2, 2, 300, 4), og.randn(2, 2, 50, 4)
    v = og.eye(50).expand(2, 2, 50, 50)
    kept = F.scaled_dot_product_attention(q, k, v)
    dropped = F.scaled_dot_product_attention(q, k, v, dropout_p=0.25)
    zero = dropped.numpy() == 0
    assert 0.23 < zero.mean() < 0.27
    np.testing.assert_allclose(dropped.numpy()[~zero], kept.numpy()[~zero] / 0.75, rtol=1e-5)


MISTAKES = [
    (((2, 4), (5, 4), (4,)), {}, "Expected query, key, and value to all be  at least 2 dimensional"),
    (
        ((2, 4), (5, 4), (5, 4)),
        {"attn_mask": np.ones((2, 5), np.int64)},
        "Expected attn_mask dtype to be bool or float",
    ),
    (
        ((2, 4), (5, 4), (5, 4)),
        {"attn_mask": np.ones((2, 5)), "is_causal": True},
        "Explicit attn_mask should not be set",
    ),
    (((2, 4), (5, 4), (5, 4)), {"dropout_p": 1.5}, "dropout probability has to be between 0 and 1, but got 1.5"),
    (((1, 6, 3, 4), (1, 4, 5, 4), (1, 4, 5, 4)), {"enable_gqa": True}, "6 query heads do not share 4 key heads evenly"),
]


@pytest.mark.parametrize(("shapes", "kwargs", "says"), MISTAKES, ids=[m[2][:30] for m in MISTAKES])
def test_arguments_that_do_not_fit(shapes, kwargs, says):
    given = {k: og.tensor(v) if isinstance(v, np.ndarray) else v for k, v in kwargs.items()}
    with pytest.raises(ValueError, match=says):
        F.scaled_dot_product_attention(*(og.zeros(*s) for s in shapes), **given)
    with pytest.raises(ValueError, match="Expected query, key, and value to have the same dtype"):
        F.scaled_dot_product_attention(og.zeros(2, 4), og.zeros(2, 4, dtype=og.float64), og.zeros(2, 4))


L, S, N, E, H = 3, 5, 2, 8, 2
HIDDEN = RNG.random((L, S)) > 0.7
PADDED = np.array([[False, False, False, True, True], [False, True, False, False, False]])
MODULES = [
    {},
    {"bias": False},
    {"add_bias_kv": True},
    {"add_zero_attn": True},
    {"kdim": 5, "vdim": 6},
    {"kdim": 5, "vdim": 6, "bias": False, "add_bias_kv": True, "add_zero_attn": True, "batch_first": True},
    {"batch_first": True},
]
CALLS = [
    {},
    {"need_weights": False},
    {"average_attn_weights": False},
    {"attn_mask": HIDDEN},
    {"attn_mask": rand(L, S), "need_weights": False},
    {"attn_mask": rand(N * H, L, S)},
    {"attn_mask": RNG.random((N * H, L, S)) > 0.7, "key_padding_mask": PADDED, "need_weights": False},
    {"key_padding_mask": PADDED},
    {"key_padding_mask": rand(N, S), "attn_mask": rand(L, S)},
    {"attn_mask": np.triu(np.ones((L, S), bool), 1), "is_causal": True, "need_weights": False},
    {"attn_mask": np.triu(np.ones((L, S), bool), 1), "is_causal": True, "key_padding_mask": PADDED},
]


def called(kwargs):
    """A call with arrays as Tensors of its library, numbers in the element type of the query."""

    def call(lib, f, q, *rest):
        given = {k: lib.tensor(v) if isinstance(v, np.ndarray) else v for k, v in kwargs.items()}
        given = {k: v.to(q.dtype) if isinstance(kwargs[k], np.ndarray) and kwargs[k].dtype.kind == "f" else v
                 for k, v in given.items()}  # fmt: skip
        return f(q, *rest, **given)

    return call


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("module", MODULES, ids=str)
@pytest.mark.parametrize("kwargs", CALLS, ids=lambda kwargs: "-".join(kwargs))
def test_multihead_attention_is_pytorchs(compared, module, kwargs, dtype):
    x = [rand(L, N, E), rand(S, N, module.get("kdim", E)), rand(S, N, module.get("vdim", E))]
    if module.get("batch_first"):
        x = [a.swapaxes(0, 1).copy() for a in x]
    both(
        compared,
        "MultiheadAttention",
        lambda lib: lib.nn.MultiheadAttention(E, H, **module),
        x,
        dtype,
        call=called(kwargs),
    )


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [(N,), ()])
def test_one_tensor_in_several_places(compared, batch, dtype):
    x, y = rand(L, *batch, E), rand(S, *batch, E)
    for form, args in (
        (lambda f, x, y: f(x, x, x), (x,)),
        (lambda f, x, y: f(x, y, y), (x, y)),
        (lambda f, x, y: f(x, x, y), (x, x)),
    ):
        both(
            compared, "MultiheadAttention", lambda lib: lib.nn.MultiheadAttention(E, H), args, dtype,
            call=lambda lib, f, x, y=None, form=form: form(f, x, y),
        )  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize(
    "kwargs", [{}, {"average_attn_weights": False}, {"attn_mask": rand(H, L, S)}, {"key_padding_mask": PADDED[0]}]
)
def test_without_a_batch(compared, kwargs):
    both(
        compared, "MultiheadAttention", lambda lib: lib.nn.MultiheadAttention(E, H, batch_first=True),
        (rand(L, E), rand(S, E), rand(S, E)), "float64", call=called(kwargs),
    )  # fmt: skip


@pytest.mark.oracle
def test_keys_and_values_that_are_projected_already(compared):
    def call(lib, _, q, k, v, w, b, o):
        return lib.nn.functional.multi_head_attention_forward(
            q, q, q, E, H, w, b, None, None, False, 0.0, o, None, static_k=k, static_v=v
        )

    given = rand(L, N, E), rand(N * H, S, E // H), rand(N * H, S, E // H), rand(3 * E, E), rand(3 * E), rand(E, E)
    both(compared, "multi_head_attention_forward", lambda lib: lib, given, "float64", call=call)


@pytest.mark.oracle
def test_a_query_that_sees_nothing(compared):
    def call(lib, f, x):
        hidden = lib.ones(N, L, dtype=lib.bool)
        return f(x, x, x, key_padding_mask=hidden, need_weights=False)

    both(
        compared,
        "MultiheadAttention",
        lambda lib: lib.nn.MultiheadAttention(E, H),
        (rand(L, N, E),),
        "float64",
        call=call,
    )


def test_heads_are_the_equation():
    layer = nn.MultiheadAttention(E, H, dtype=og.float64)
    q, kv = rand(L, E), rand(S, E)
    y, weights = layer(*map(og.tensor, (q, kv, kv)), average_attn_weights=False)
    w, b = layer.in_proj_weight.detach().numpy(), layer.in_proj_bias.detach().numpy()
    ps = [x @ w[i * E : (i + 1) * E].T + b[i * E : (i + 1) * E] for i, x in enumerate((q, kv, kv))]
    qs, ks, vs = (p.reshape(-1, H, E // H).swapaxes(0, 1) for p in ps)
    wanted = softmax(qs @ ks.swapaxes(1, 2) / math.sqrt(E // H))
    joined = (wanted @ vs).swapaxes(0, 1).reshape(L, E)
    out = joined @ layer.out_proj.weight.detach().numpy().T + layer.out_proj.bias.detach().numpy()
    np.testing.assert_allclose(weights.detach().numpy(), wanted, rtol=1e-12)
    np.testing.assert_allclose(y.detach().numpy(), out, rtol=1e-10)


def test_a_compiled_call_gives_the_same():
    layer = nn.MultiheadAttention(E, H).eval()
    x, mask = og.randn(L, N, E), nn.Transformer.generate_square_subsequent_mask(L)
    for kwargs in ({"need_weights": False}, {"attn_mask": mask}):
        y = layer(x, x, x, **kwargs)[0]
        found = og.compile(lambda x, kwargs=kwargs: layer(x, x, x, **kwargs)[0])(x)
        np.testing.assert_allclose(found.detach().numpy(), y.detach().numpy(), atol=1e-6)


def test_what_is_printed_and_drawn():
    layer = nn.MultiheadAttention(64, 4, add_bias_kv=True)
    assert "(out_proj): NonDynamicallyQuantizableLinear(in_features=64, out_features=64, bias=True)" in repr(layer)
    assert not layer.in_proj_bias.detach().numpy().any() and not layer.out_proj.bias.detach().numpy().any()
    assert abs(layer.in_proj_weight.detach().numpy()).max() <= math.sqrt(6 / (4 * 64))
    assert list(nn.MultiheadAttention(4, 2, kdim=3, bias=False).state_dict()) == [
        "q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight",
    ]  # fmt: skip


def test_masks_of_different_types_are_warned_about():
    layer, x = nn.MultiheadAttention(E, H), og.zeros(L, N, E)
    with pytest.warns(UserWarning, match="Support for mismatched key_padding_mask and attn_mask is deprecated"):
        layer(x, x, x, key_padding_mask=og.zeros(N, L, dtype=og.bool), attn_mask=og.zeros(L, L))


X = (L, N, E)
WRONG = [
    ((X, X, X), {"is_causal": True}, "Need attn_mask if specifying the is_causal hint"),
    ((X, X, X), {"attn_mask": (2, 2)}, r"The shape of the 2D attn_mask is \(2, 2\), but should be \(3, 3\)"),
    ((X, X, X), {"attn_mask": (2, 3, 3)}, r"The shape of the 3D attn_mask is \(2, 3, 3\), but should be \(4, 3, 3\)"),
    ((X, X, X), {"key_padding_mask": (1, 3)}, r"Expected key_padded_mask.shape\[0\] to be 2, but got 1"),
    (((L, N, 7), X, X), {}, "was expecting embedding dimension of 8, but got 7"),
    ((X, (2, N, E), X), {}, r"key shape \(2, 2, 8\) does not match value shape \(3, 2, 8\)"),
    (((E,), X, X), {}, "query should be unbatched 2D or batched 3D tensor but received 1-D query tensor"),
    (((L, E), X, X), {}, r"For unbatched \(2-D\) `query`, expected `key` and `value` to be 2-D but found 3-D and 3-D"),
]


@pytest.mark.parametrize(("shapes", "kwargs", "says"), WRONG, ids=[w[2][:40] for w in WRONG])
def test_calls_that_do_not_fit(shapes, kwargs, says):
    given = {k: og.zeros(*v) if isinstance(v, tuple) else v for k, v in kwargs.items()}
    with pytest.raises(ValueError, match=says):
        nn.MultiheadAttention(E, H)(*(og.zeros(*s) for s in shapes), **given)


def test_settings_that_do_not_fit():
    with pytest.raises(ValueError, match="embed_dim must be divisible by num_heads"):
        nn.MultiheadAttention(7, 2)
    with pytest.raises(ValueError, match="embed_dim and num_heads must be greater than 0, got embed_dim=0"):
        nn.MultiheadAttention(0, 2)
    x = og.zeros(L, N, E)
    with pytest.raises(ValueError, match="only bool and floating types of attn_mask are supported"):
        nn.MultiheadAttention(E, H)(x, x, x, attn_mask=og.zeros(L, L, dtype=og.int64))
