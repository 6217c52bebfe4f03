"""How Tensors print: every text is PyTorch's, but that element types have no `torch.` before them."""

import itertools
import math
import re

import numpy as np
import pytest

import onnxgrad as og

RNG = np.random.default_rng(0)
SHAPES = [
    (),
    (1,),
    (7,),
    (50,),
    (2, 3),
    (3, 50),
    (2, 2, 3),
    (2, 1, 2, 2),
    (0,),
    (0, 3),
    (2, 0),
    (1001,),
    (40, 30),
    (3, 40, 10),
    (1, 1, 1),
]
NUMBERS = {
    "normal": lambda s: RNG.standard_normal(s),
    "whole": lambda s: RNG.integers(-5, 50, s).astype(float),
    "large": lambda s: RNG.standard_normal(s) * 1e6,
    "larger": lambda s: RNG.standard_normal(s) * 1e9,
    "small": lambda s: RNG.standard_normal(s) * 1e-6,
    "wide": lambda s: 10.0 ** RNG.integers(-6, 6, s),
    "holes": lambda s: np.where(
        RNG.random(s) < 0.4, np.nan, np.where(RNG.random(s) < 0.4, -np.inf, RNG.standard_normal(s))
    ),
    "no-number": lambda s: np.full(s, np.inf),
    "zeros": lambda s: np.zeros(s) * -1,
}
ODD = [
    [0.0, -0.0, 1e-5], [1e-5, 2.0], [1e10, 1.0], [1e8, 1.0], [1.0, 1000.0], [1.5, 1500.0], [1.5, 1501.0], [-1.5, 0.25],
    [math.nan, 1e6], [math.inf, 2], [1e-45], [3.4e38], [123456789.0], [0.1, 0.12345678], 1e-4, 0.00001,
    16777216.0, -0.0,
]  # fmt: skip


def same(ours, theirs):
    """Whether two texts are equal; where a type is named, the line may break elsewhere, for its name is shorter."""
    a, b = repr(ours), repr(theirs).replace("torch.", "")
    if "dtype=" in a:
        a, b = (re.sub(r",\s+(\w+=)", r", \1", t) for t in (a, b))
    assert a == b


@pytest.mark.oracle
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_numbers_of_any_kind(shape):
    import torch

    for make in NUMBERS.values():
        for dtype in ("float32", "float64", "float16", "bfloat16"):
            with np.errstate(over="ignore"):
                array = np.asarray(make(shape))
            a = og.tensor(array).to(getattr(og, dtype))
            b = torch.tensor(array).to(getattr(torch, dtype))
            same(a, b)


@pytest.mark.oracle
def test_odd_numbers():
    import torch

    for data, dtype in itertools.product(ODD, ("float32", "float64")):
        a, b = og.tensor(data, dtype=getattr(og, dtype)), torch.tensor(data, dtype=getattr(torch, dtype))
        same(a, b)
        assert str(a) == repr(a)


@pytest.mark.oracle
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_whole_numbers_and_truth(shape):
    import torch

    array = RNG.integers(-1000, 1000, shape)
    for dtype in ("int64", "int32", "int16", "int8", "uint8", "bool"):
        a, b = og.tensor(array % 100).to(getattr(og, dtype)), torch.tensor(array % 100).to(getattr(torch, dtype))
        same(a, b)
    same(og.tensor(array), torch.tensor(array))


@pytest.mark.oracle
def test_what_follows_the_numbers():
    import torch

    def texts(t):
        x = t.arange(6.0).reshape(2, 3).requires_grad_()
        row = t.arange(9.0, dtype=t.float64, requires_grad=True)
        yield from (x, x * 2, row, row * 1.5, x.sum(), t.zeros(2, 0, requires_grad=True), x.detach())
        yield t.nn.Parameter(t.ones(2, 2)), [t.ones(1), t.zeros(2, dtype=t.int32)]

    for a, b in zip(texts(og), texts(torch), strict=True):
        same(a, b)


@pytest.mark.oracle
@pytest.mark.parametrize(
    "options",
    [
        {"precision": 2},
        {"sci_mode": True},
        {"sci_mode": False},
        {"linewidth": 40},
        {"threshold": 10, "edgeitems": 2},
        {"profile": "short"},
        {"profile": "full"},
    ],
    ids=str,
)
def test_options(options):
    import torch

    try:
        og.set_printoptions(**options)
        torch.set_printoptions(**options)
        for shape, make in itertools.product([(), (3,), (30,), (4, 12), (2, 3, 7)], NUMBERS.values()):
            array = np.asarray(make(shape))
            same(og.tensor(array), torch.tensor(array))
    finally:
        og.set_printoptions(profile="default")
        torch.set_printoptions(profile="default")


def test_without_pytorch():
    x = og.tensor([[1.0, -2.5], [900.25, math.inf]], requires_grad=True)
    assert repr(x) == "tensor([[  1.0000,  -2.5000],\n        [900.2500,      inf]], requires_grad=True)"
    assert repr(og.arange(2000)) == "tensor([   0,    1,    2,  ..., 1997, 1998, 1999])"
    assert (
        repr(og.zeros(2, 0)) == "tensor([], size=(2, 0))" and repr(og.ones(1).half()) == "tensor([1.], dtype=float16)"
    )
    assert f"{og.tensor(3.14159):.2f}" == "3.14"
