"""Which element type an op computes in under autocast: PyTorch's lists for CUDA, by the names of ops here.

An op on no list takes what it is given; where its floats differ in width it computes in the widest.
"""

from __future__ import annotations

LOWER = frozenset({
    "attention", "attention_weights", "conv", "conv_input_grad", "einsum", "gru", "lstm", "matmul", "prelu", "rnn",
})  # fmt: skip
"""Products: they compute in half precision. `conv_input_grad` is what a transposed convolution is."""

PRODUCTS = frozenset({"conv", "conv_input_grad", "matmul"})
"""Ops of `LOWER` to which a bias may be added, in the same precision."""

FLOAT32 = frozenset({
    # functions that half precision overflows or blurs
    "acos", "asin", "cosh", "erfinv", "exp", "exp2", "expm1", "lgamma", "log", "log10", "log1p", "log2", "logaddexp",
    "logaddexp2", "polygamma", "pow", "reciprocal", "sinh", "softplus", "tan",
    # sums and what divides by them
    "cumprod", "cumsum", "l2_norm", "logcumsumexp", "logsumexp", "log_softmax", "lp_norm", "prod", "softmax", "sum",
    # normalisations
    "group_norm", "instance_norm", "layer_norm", "lrn", "mean_variance_norm", "rms_norm", "standardize",
    # losses
    "binary_cross_entropy", "ctc_loss", "nll_loss", "softmax_cross_entropy",
    # linear algebra, spectra, interpolation
    "center_crop_pad", "cholesky", "det", "dft", "eigh", "frames", "inverse", "linear_scan", "matrix_exp",
    "overlap_add", "pinv", "qr", "resize", "slogdet", "solve", "svd",
})  # fmt: skip
"""Ops that compute, and answer, in float32."""

AS_GIVEN = frozenset({"batch_norm", "batch_norm_train"})
"""Ops that compute in float32 with statistics in float32, and whose first result is of the first input's type."""

UNTOUCHED = frozenset({
    "cast", "bitcast", "copy_slices", "sgd_update", "adam_update", "step_numbers", "gradient_norm",
})  # fmt: skip
"""Ops whose arguments are of different types by right."""
