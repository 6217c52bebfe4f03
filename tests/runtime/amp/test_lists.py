"""Which element type functions answer in, against the lists that PyTorch's headers hold for CUDA."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

import onnxgrad as og
import onnxgrad.nn.functional as F
from onnxgrad.ops.op import OPS
from onnxgrad.runtime.amp import lists
from onnxgrad.runtime.nn import functional  # noqa: F401 - all ops


def torch_lists():
    """Return PyTorch's lists: names of functions by the macro that names them; empty where PyTorch is not installed."""
    found = importlib.util.find_spec("torch")
    if found is None or not found.submodule_search_locations:
        return {}
    header = Path(found.submodule_search_locations[0]) / "include/ATen/autocast_mode.h"
    if not header.exists():
        return {}
    text = header.read_text()
    names = {}
    for macro in ("LOWER_PRECISION_FP", "FP32", "FP32_SET_OPT_DTYPE", "PROMOTE"):
        body = re.search(rf"#define AT_FORALL_{macro}\(_\)(.*?)\n\n", text, re.S)
        names[macro] = set(re.findall(r"_\((\w+)", body[1]))
    return names


TORCH = torch_lists()


def t(*shape, dtype="bfloat16", seed=0):
    values = np.random.default_rng([*shape, seed]).uniform(0.1, 0.9, shape)
    return og.tensor(values.astype(np.float32)).to(dtype=dtype)


A, W = t(4, 4), t(4, 4, seed=1)
V, X = t(4), t(2, 3, 8)
F32 = t(4, 4, dtype="float32", seed=2)
LABELS, SIGNS = og.tensor([0, 1, 2, 3]), og.tensor([1.0, -1.0, 1.0, -1.0])

CALLS = {
    "conv1d": lambda: F.conv1d(X, t(5, 3, 3, dtype="float32"), t(5, dtype="float32")),
    "conv2d": lambda: F.conv2d(t(1, 2, 5, 5, dtype="float32"), t(3, 2, 3, 3, dtype="float32")),
    "conv3d": lambda: F.conv3d(t(1, 2, 4, 4, 4), t(3, 2, 3, 3, 3, dtype="float32")),
    "conv_transpose1d": lambda: F.conv_transpose1d(X, t(3, 5, 3, dtype="float32"), t(5, dtype="float32")),
    "conv_transpose2d": lambda: F.conv_transpose2d(t(1, 2, 5, 5), t(2, 3, 3, 3, dtype="float32")),
    "conv_transpose3d": lambda: F.conv_transpose3d(t(1, 2, 4, 4, 4), t(2, 3, 3, 3, 3, dtype="float32")),
    "prelu": lambda: F.prelu(F32, t(1, dtype="float32")),
    "addmm": lambda: og.addmm(F32, A, F32),
    "addmv": lambda: og.addmv(t(4, dtype="float32"), F32, V),
    "matmul": lambda: F32 @ A,
    "einsum": lambda: og.einsum("ij,jk->ik", F32, A),
    "mm": lambda: og.mm(F32, F32),
    "mv": lambda: og.mv(F32, V),
    "linear": lambda: F.linear(F32, F32, t(4, dtype="float32")),
    "bmm": lambda: og.bmm(t(2, 3, 4), t(2, 4, 3, dtype="float32")),
    "baddbmm": lambda: og.baddbmm(t(2, 3, 3), t(2, 3, 4), t(2, 4, 3, dtype="float32")),
    "addbmm": lambda: og.addbmm(t(3, 3), t(2, 3, 4), t(2, 4, 3, dtype="float32")),
    "chain_matmul": lambda: og.chain_matmul(F32, A, F32),
    "lstm_cell": lambda: og.nn.LSTMCell(4, 3)(F32, (t(4, 3, dtype="float32"), t(4, 3, dtype="float32")))[1],
    "gru_cell": lambda: og.nn.GRUCell(4, 3)(A, t(4, 3, dtype="float32")),
    "rnn_tanh_cell": lambda: og.nn.RNNCell(4, 3)(F32, t(4, 3)),
    "scaled_dot_product_attention": lambda: F.scaled_dot_product_attention(X, X.float(), X),
    "acos": lambda: A.acos(), "asin": lambda: A.asin(), "cosh": lambda: A.cosh(), "erfinv": lambda: A.erfinv(),
    "exp": lambda: A.exp(), "expm1": lambda: A.expm1(), "log": lambda: A.log(), "log10": lambda: A.log10(),
    "log2": lambda: A.log2(), "log1p": lambda: A.log1p(), "reciprocal": lambda: A.reciprocal(),
    "sinh": lambda: A.sinh(), "tan": lambda: A.tan(), "pow": lambda: A.pow(2.5), "softplus": lambda: F.softplus(A),
    "layer_norm": lambda: F.layer_norm(A, (4,), t(4, dtype="float32"), t(4, dtype="float32")),
    "rms_norm": lambda: F.rms_norm(A, (4,), t(4, dtype="float32")),
    "group_norm": lambda: F.group_norm(t(2, 4, 3), 2, t(4, dtype="float32"), t(4, dtype="float32")),
    "cosine_similarity": lambda: F.cosine_similarity(A, W),
    "poisson_nll_loss": lambda: F.poisson_nll_loss(A, W),
    "cosine_embedding_loss": lambda: F.cosine_embedding_loss(A, W, SIGNS),
    "nll_loss": lambda: F.nll_loss(A, LABELS),
    "hinge_embedding_loss": lambda: F.hinge_embedding_loss(V, SIGNS),
    "kl_div": lambda: F.kl_div(A, W, reduction="batchmean"),
    "l1_loss": lambda: F.l1_loss(A, W), "mse_loss": lambda: F.mse_loss(A, F32),
    "smooth_l1_loss": lambda: F.smooth_l1_loss(A, W), "huber_loss": lambda: F.huber_loss(A, W),
    "margin_ranking_loss": lambda: F.margin_ranking_loss(V, V, SIGNS),
    "multilabel_margin_loss": lambda: F.multilabel_margin_loss(A, og.tensor([[0, -1, 1, 2]] * 4)),
    "soft_margin_loss": lambda: F.soft_margin_loss(V, SIGNS),
    "triplet_margin_loss": lambda: F.triplet_margin_loss(A, W, W),
    "multi_margin_loss": lambda: F.multi_margin_loss(A, LABELS),
    "binary_cross_entropy_with_logits": lambda: F.binary_cross_entropy_with_logits(A, F32),
    "pdist": lambda: F.pdist(A), "logsumexp": lambda: A.logsumexp(1),
    "upsample_nearest2d": lambda: F.interpolate(t(1, 2, 3, 3), (6, 6), mode="nearest"),
    "upsample_bilinear2d": lambda: F.interpolate(t(1, 2, 3, 3), (6, 6), mode="bilinear"),
    "upsample_bicubic2d": lambda: F.interpolate(t(1, 2, 3, 3), (6, 6), mode="bicubic"),
    "prod": lambda: A.prod(), "softmax": lambda: F.softmax(A, -1), "log_softmax": lambda: F.log_softmax(A, -1),
    "cumprod": lambda: A.cumprod(0), "cumsum": lambda: A.cumsum(0), "sum": lambda: A.sum(),
    "linalg_vector_norm": lambda: og.linalg.vector_norm(A),
    "addcdiv": lambda: og.addcdiv(A, F32, W), "addcmul": lambda: og.addcmul(A, F32, W),
    "atan2": lambda: og.atan2(A, F32),
    "grid_sampler": lambda: F.grid_sample(t(1, 2, 3, 3), t(1, 2, 2, 2, dtype="float32"), align_corners=False),
    "index_put": lambda: A.index_put((LABELS,), F32),
    "scatter_add": lambda: A.scatter_add(0, og.tensor([[0, 1, 2, 3]]), F32),
}  # fmt: skip

WANTED = {"LOWER_PRECISION_FP": "bfloat16", "FP32": "float32", "FP32_SET_OPT_DTYPE": "float32", "PROMOTE": "float32"}


@pytest.mark.skipif(not TORCH, reason="the header of PyTorch's lists is not here")
@pytest.mark.parametrize("name", CALLS)
def test_a_function_answers_as_pytorchs_list_says(name):
    (wanted,) = {WANTED[macro] for macro, names in TORCH.items() if name in names}
    with og.amp.autocast("bfloat16"):
        assert CALLS[name]().dtype == wanted


@pytest.mark.skipif(not TORCH, reason="the header of PyTorch's lists is not here")
@pytest.mark.parametrize("name", ["tanh", "sigmoid", "gelu", "relu", "silu", "mean", "max", "abs", "sqrt", "sin"])
def test_what_is_on_no_list_answers_as_it_is_given(name):
    assert not any(name in names for names in TORCH.values())
    function = getattr(F, name, None) or getattr(og, name)
    with og.amp.autocast("bfloat16"):
        assert function(A).dtype == "bfloat16"
        assert function(F32).dtype == "float32"


def test_the_widest_type_wins_and_numbers_do_not_count():
    zero = og.tensor(2.0)
    with og.amp.autocast("float16"):
        half = F32 @ F32
        assert (half + F32).dtype == "float32"
        assert (half * 2.5).dtype == "float16"
        assert (half * zero).dtype == "float16"
        assert (half + A).dtype == "float32"
        assert og.cat([half, F32]).dtype == "float32"
        assert og.where(half > 0, half, F32).dtype == "float32"
        assert (half.double() + half).dtype == "float64"
        assert (F32.double() @ F32.double()).dtype == "float64"
        assert (og.tensor([1, 2]) + og.tensor([3, 4])).dtype == "int64"


def test_lists_name_ops_that_there_are_and_none_twice():
    every = [*lists.LOWER, *lists.FLOAT32, *lists.AS_GIVEN, *lists.UNTOUCHED]
    assert set(every) <= set(OPS)
    assert len(every) == len(set(every))
    assert lists.PRODUCTS <= lists.LOWER
