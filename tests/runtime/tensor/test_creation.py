"""Making Tensors: shapes, element types and numbers against PyTorch; casts; random draws by their laws."""

import math

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.errors import InputError, OpError, ShapeError

MADE = [
    lambda t: t.tensor([1, 2]),
    lambda t: t.tensor([1.5, 2]),
    lambda t: t.tensor([True, False]),
    lambda t: t.tensor([[1, 2.0], [3, 4]], dtype=t.float64),
    lambda t: t.tensor(np.arange(3.0)),
    lambda t: t.tensor([np.float64(1), np.float64(2)]),
    lambda t: t.tensor([np.float32(1), np.float32(2)]),
    lambda t: t.tensor([t.tensor(1.0), t.tensor(2.0)]),
    lambda t: t.tensor([]),
    lambda t: t.tensor([[], []]),
    lambda t: t.tensor(3),
    lambda t: t.tensor(True),
    lambda t: t.as_tensor([1.5]),
    lambda t: t.as_tensor(np.arange(3.0), dtype=t.float32),
    lambda t: t.asarray([1.0, 2.0]),
    lambda t: t.scalar_tensor(3),
    lambda t: t.zeros(2, 3),
    lambda t: t.zeros((2, 3), dtype=t.int32),
    lambda t: t.zeros(size=(2,)),
    lambda t: t.zeros(()),
    lambda t: t.ones([2, 0]),
    lambda t: t.full((2,), 3),
    lambda t: t.full((2,), 3.0),
    lambda t: t.full((2,), True),
    lambda t: t.full(size=(2,), fill_value=t.tensor(4.0)),
    lambda t: t.full((2,), 3, dtype=t.float16),
    lambda t: t.zeros_like(t.ones(2, dtype=t.int64)),
    lambda t: t.ones_like(t.ones(2), dtype=t.float64),
    lambda t: t.full_like(t.ones(2, dtype=t.int64), 7),
    lambda t: t.full_like(t.ones(2), fill_value=7),
    lambda t: t.empty_like(t.ones(2, 3)).zero_(),
    lambda t: t.arange(5),
    lambda t: t.arange(1, 6, 2),
    lambda t: t.arange(0.0, 1, 0.25),
    lambda t: t.arange(3, 0, -1),
    lambda t: t.arange(3, dtype=t.float32),
    lambda t: t.arange(t.tensor(4)),
    lambda t: t.linspace(0, 1, 5),
    lambda t: t.linspace(0, 10, 3, dtype=t.int64),
    lambda t: t.logspace(0, 3, 4),
    lambda t: t.logspace(0, 3, 4, base=2),
    lambda t: t.eye(3),
    lambda t: t.eye(2, 3, dtype=t.bool),
    lambda t: t.tril_indices(3, 4, 1),
    lambda t: t.triu_indices(3, 3, -1),
    lambda t: t.ones(2).new_tensor([1, 2]),
    lambda t: t.ones(2, dtype=t.float64).new_tensor([1, 2]),
    lambda t: t.ones(2, dtype=t.float64).new_zeros(2, 3),
    lambda t: t.ones(2, dtype=t.int64).new_ones((2,), dtype=t.float32),
    lambda t: t.ones(2).new_full((2, 2), 7),
    lambda t: t.ones(2).new_empty(3).shape and t.ones(1),
    lambda t: t.FloatTensor([1, 2]),
    lambda t: t.LongTensor([[1], [2]]),
    lambda t: t.ones(2).long(),
    lambda t: t.tensor([1.7, -1.7]).int(),
    lambda t: t.tensor([0.0, 2.0]).bool(),
    lambda t: t.tensor([300.0]).short(),
    lambda t: t.tensor([3.0]).char(),
    lambda t: t.tensor([3.0]).byte(),
    lambda t: t.ones(2).to(t.float16),
    lambda t: t.ones(2).to("cpu", t.float64),
    lambda t: t.ones(2).to(device="cpu", dtype=t.int32, non_blocking=True),
    lambda t: t.ones(2).to(t.ones(1, dtype=t.float64)),
    lambda t: t.ones(2).type(t.int32),
    lambda t: t.ones(2).type("torch.LongTensor"),
    lambda t: t.ones(2).type_as(t.ones(2, dtype=t.float64)),
    lambda t: t.randperm(4, dtype=t.int32) * 0,
    lambda t: t.randint(5, (2, 3)) * 0,
    lambda t: t.randint(2, 5, size=(2,), dtype=t.float32) * 0,
    lambda t: t.randint_like(t.ones(2), 5) * 0,
    lambda t: t.rand(2, 3, dtype=t.float64) * 0,
    lambda t: t.rand_like(t.ones(2), dtype=t.float64) * 0,
    lambda t: t.normal(t.zeros(2, 1), t.ones(3)).abs() * 0,
    lambda t: t.normal(0, 1, size=(2,)).abs() * 0,
    lambda t: t.bernoulli(t.ones(2)),
    lambda t: t.poisson(t.zeros(2)),
]


@pytest.mark.oracle
@pytest.mark.parametrize("make", MADE)
def test_made_as_in_pytorch(make):
    import torch

    ours, theirs = make(og), make(torch)
    assert repr(ours) == repr(theirs).replace("torch.", "")
    assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.oracle
def test_types_describe_themselves_as_in_pytorch():
    import torch

    for name in ("float64", "float32", "float16", "bfloat16"):
        ours, theirs = og.finfo(getattr(og, name)), torch.finfo(getattr(torch, name))
        for field in ("bits", "eps", "max", "min", "tiny", "smallest_normal", "resolution", "dtype"):
            assert getattr(ours, field) == getattr(theirs, field), (name, field)
        assert repr(ours) == repr(theirs)
    for name in ("int64", "int32", "int16", "int8", "uint8"):
        ours, theirs = og.iinfo(getattr(og, name)), torch.iinfo(getattr(torch, name))
        assert (ours.bits, ours.max, ours.min, ours.dtype) == (theirs.bits, theirs.max, theirs.min, theirs.dtype)
        assert repr(ours) == repr(theirs)
    for dtype in ("float32", "float64", "int64", "uint8", "bool", "float16", "int32", "bfloat16"):
        assert og.ones(1, dtype=getattr(og, dtype)).type() == torch.ones(1, dtype=getattr(torch, dtype)).type()
    assert og.finfo().dtype == "float32" and og.typename(og.ones(1)) == "torch.FloatTensor"


def test_types_compare_and_devices_print():
    x = og.ones(2)
    assert x.dtype == og.float32 == og.float and og.ones(1).double().dtype == og.float64 != og.float32
    assert isinstance(x.dtype, og.dtype) and isinstance(og.int64, og.dtype)
    assert x.device == og.device("cpu") == "cpu" and repr(x.device) == "device(type='cpu')" and str(x.device) == "cpu"
    assert og.device("cuda:1") == og.device("cuda", 1) != x.device
    assert repr(og.device("cuda", 1)) == "device(type='cuda', index=1)" and og.device("cuda:1").index == 1
    assert x.is_floating_point() and og.is_floating_point(x) and not og.is_complex(x) and og.is_tensor(x)


@pytest.mark.parametrize("convert", [lambda t: og.ones(2).to(t), lambda t: og.nn.Linear(2, 2).to(t)])
@pytest.mark.parametrize("target", ["gpu", "float33"])
def test_what_is_neither_a_type_nor_a_device(convert, target) -> None:
    with pytest.raises(InputError, match=f"'{target}' is no element type and no device"):
        convert(target)


def test_memory_is_shared_or_copied():
    array = np.zeros(3, np.float32)
    shared, copied = og.from_numpy(array), og.tensor(array)
    array[0] = 5
    assert shared[0] == 5 and copied[0] == 0 and og.as_tensor(array)[0] == 5
    x = og.ones(2)
    assert og.as_tensor(x) is x and x.to(og.float32) is x and x.to("cpu") is x and x.float() is x
    assert x.to(og.float32, copy=True) is not x and x.to("cpu", og.float32, False, True) is not x


def test_default_type():
    try:
        og.set_default_dtype(og.float64)
        assert og.tensor([1.0]).dtype == og.zeros(1).dtype == og.rand(1).dtype == og.float64
        assert (og.tensor([1]) / 2).dtype == og.tensor([1]).exp().dtype == (og.tensor([1]) * 1.5).dtype == og.float64
        assert repr(og.tensor([1.0])) == "tensor([1.])" and repr(og.ones(1).float()) == "tensor([1.], dtype=float32)"
    finally:
        og.set_default_dtype(og.float32)
    assert og.get_default_dtype() == og.float32
    with pytest.raises(TypeError, match="only floating-point"):
        og.set_default_dtype(og.int64)


def test_draws_follow_their_laws():
    og.manual_seed(0)
    n = 20000
    assert abs(og.randn(n).mean().item()) < 0.03 and abs(og.rand(n).mean().item() - 0.5) < 0.01
    x = og.normal(og.tensor([0.0, 10.0]).expand(n, 2), og.tensor([1.0, 3.0]))
    np.testing.assert_allclose(x.mean(0).tolist(), [0, 10], atol=0.1)
    np.testing.assert_allclose(x.std(0).tolist(), [1, 3], rtol=0.05)
    assert abs(og.bernoulli(og.full((n,), 0.3)).mean().item() - 0.3) < 0.02
    assert abs(og.poisson(og.full((n,), 4.0)).mean().item() - 4) < 0.1
    assert set(og.randint(2, 5, (n,)).unique().tolist()) == {2, 3, 4}
    assert og.randperm(9).sort().values.tolist() == list(range(9))
    weights = og.tensor([[0.0, 1.0, 3.0], [1.0, 1.0, 0.0]])
    drawn = weights.multinomial(n, replacement=True)
    assert drawn.shape == (2, n) and drawn.dtype == og.int64
    np.testing.assert_allclose(og.bincount(drawn[0], minlength=3) / n, [0, 0.25, 0.75], atol=0.02)
    np.testing.assert_allclose(og.bincount(drawn[1], minlength=3) / n, [0.5, 0.5, 0], atol=0.02)
    once = og.stack([og.multinomial(og.tensor([1.0, 2.0, 1.0]), 2) for _ in range(2000)])
    assert (once[:, 0] != once[:, 1]).all()
    np.testing.assert_allclose(og.bincount(once[:, 0]) / 2000, [0.25, 0.5, 0.25], atol=0.05)


def test_draws_repeat_from_a_generator():
    def draws():
        g = og.Generator().manual_seed(3)
        made = (
            og.rand(2, generator=g),
            og.randn(2, generator=g),
            og.randint(9, (2,), generator=g),
            og.randperm(5, generator=g),
        )
        return [*made, og.normal(0.0, 1.0, (2,), generator=g), og.multinomial(og.ones(5), 3, generator=g)]

    assert all(og.equal(a, b) for a, b in zip(draws(), draws(), strict=True))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: og.tensor([[1, 2], [3]]), ValueError, r"expected sequence of length 2 at dim 1 \(got 1\)"),
        (lambda: og.tensor("text"), TypeError, "invalid data type 'str'"),
        (lambda: og.tensor([None]), TypeError, "invalid data type"),
        (lambda: og.from_numpy([1]), TypeError, r"expected np.ndarray \(got list\)"),
        (lambda: og.zeros(-1), ShapeError, "negative dimension -1"),
        (lambda: og.zeros(2, out=og.ones(2)), TypeError, "out"),
        (lambda: og.arange(0, 5, -1), ShapeError, "inconsistent with step sign"),
        (lambda: og.arange(0, 5, 0), ShapeError, "step must be nonzero"),
        (lambda: og.randint(3, 3, (1,)), OpError, "from=3 >= to=3"),
        (lambda: og.normal(0.0, -1.0, (1,)), OpError, "std >= 0.0, but found std -1"),
        (lambda: og.bernoulli(og.tensor([2.0])), OpError, "0 && p_in <= 1"),
        (lambda: og.multinomial(og.tensor([1.0, 0.0]), 2), OpError, "without replacement"),
        (lambda: og.multinomial(og.tensor([-1.0, 2.0]), 1), OpError, "element < 0"),
        (lambda: og.iinfo(og.float32), TypeError, "Use torch.finfo"),
        (lambda: og.finfo(og.int8), TypeError, "Use torch.iinfo"),
        (lambda: og.ones(1).type("torch.NopeTensor"), InputError, "NopeTensor"),
        (lambda: og.ones(2).is_nonzero(), RuntimeError, "more than one value"),
    ],
)
def test_wrong_use_says_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_numbers_that_are_almost_nothing():
    assert og.logspace(0, 1, 1).tolist() == [1.0] and og.linspace(1, 2, 0).shape == (0,)
    assert og.tensor(math.nan).isnan().item() and og.tensor(5.0).is_nonzero()
