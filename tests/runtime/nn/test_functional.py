"""Functions against PyTorch, with gradients."""

import numpy as np
import pytest

import onnxgrad as og
import onnxgrad.nn.functional as F

FUNCTIONS = [
    ("linear", lambda F, x, w, b: F.linear(x, w, b), [(5, 4), (3, 4), (3,)]),
    ("attention", lambda F, q, k, v: F.scaled_dot_product_attention(q, k, v), [(2, 3, 4), (2, 5, 4), (2, 5, 6)]),
    ("causal", lambda F, q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), [(2, 3, 4)] * 3),
]  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "f", "shapes"), FUNCTIONS, ids=[f[0] for f in FUNCTIONS])
def test_functions_equal_pytorch(name, f, shapes):
    torch = pytest.importorskip("torch")
    arrays = [np.random.default_rng(i).standard_normal(s) for i, s in enumerate(shapes)]
    xs = [og.tensor(a, dtype=og.float64, requires_grad=True) for a in arrays]
    ts = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, want = f(F, *xs), f(torch.nn.functional, *ts)
    assert y.shape == tuple(want.shape)
    np.testing.assert_allclose(y.detach().numpy(), want.detach().numpy(), rtol=1e-9, atol=1e-11)
    (y * y).sum().backward()
    (want * want).sum().backward()
    for a, b in zip(xs, ts, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-8, atol=1e-9)


@pytest.mark.oracle
def test_one_hot_and_masks_equal_pytorch():
    torch = pytest.importorskip("torch")
    assert F.one_hot(og.tensor([0, 2, 1])).tolist() == torch.nn.functional.one_hot(torch.tensor([0, 2, 1])).tolist()
    q = np.random.default_rng(0).standard_normal((2, 3, 4))
    mask = np.array([[True, False, True], [True, True, True], [False, False, True]])
    ours = F.scaled_dot_product_attention(*[og.tensor(q)] * 3, attn_mask=og.tensor(mask))
    theirs = torch.nn.functional.scaled_dot_product_attention(*[torch.tensor(q)] * 3, attn_mask=torch.tensor(mask))
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)
