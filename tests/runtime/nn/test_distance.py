"""Norms, distances and angles against PyTorch, also where they are 0."""

import numpy as np
import pytest

import onnxgrad as og
import onnxgrad.nn.functional as F
from onnxgrad.autograd import check_grads
from onnxgrad.ops.errors import ShapeError

from .layers import draw, same_error, same_function, same_layer

A, B = draw((4, 5, 3), (4, 5, 3))
SETTINGS = [
    ("CosineSimilarity", (), {}, (A, B)),
    ("CosineSimilarity", (2,), {}, (A, B)),
    ("CosineSimilarity", (-1, 10.0), {}, (A, B)),
    ("CosineSimilarity", (1,), {}, (A, B[:1])),
    ("CosineSimilarity", (-1,), {}, (A, B[0, 0])),
    ("CosineSimilarity", (0,), {}, (A[0, 0], B[0, 0])),
    ("PairwiseDistance", (), {}, (A, B)),
    ("PairwiseDistance", (1,), {"keepdim": True}, (A, B)),
    ("PairwiseDistance", (3.5, 0.1), {}, (A[0], B[0])),
    ("PairwiseDistance", (float("inf"),), {}, (A, B[0])),
    ("PairwiseDistance", (0.5,), {"eps": 0.0}, (A, B)),
    ("PairwiseDistance", (2.0,), {"eps": 0.0}, (A, A)),
]


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "args", "kwargs", "inputs"), SETTINGS)
def test_layers_are_pytorchs(compared, name, args, kwargs, inputs, dtype):
    same_layer(compared, name, args, kwargs, inputs, dtype)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("p", [0, 1, 1.5, 2, 3, float("inf")])
def test_functions_are_pytorchs(compared, p, dtype):
    same_function(compared, "pdist", (p,), {}, [A[0]], dtype)
    same_function(compared, "normalize", (), {"p": p or 2.0, "dim": -1}, [A], dtype)
    same_function(compared, "pairwise_distance", (p,), {}, [A, B], dtype)


@pytest.mark.oracle
def test_more_functions_are_pytorchs(compared):
    same_function(compared, "normalize", (), {}, [A], "float64")
    same_function(compared, "normalize", (2.0, (1, 2), 100.0), {}, [A], "float64")
    same_function(compared, "cosine_similarity", (0,), {}, [A, B], "float64")
    same_function(compared, "pdist", (), {}, [np.concatenate([A[0], A[0][:2]])], "float64")
    same_function(compared, "normalize", (), {}, [A * 0], "float64")


def test_by_hand():
    a, b = og.tensor([[3.0, 4.0]]), og.tensor([[4.0, 3.0]])
    assert F.cosine_similarity(a, b).item() == pytest.approx(24 / 25)
    assert F.pairwise_distance(a, b, eps=0.0).item() == pytest.approx(2**0.5)
    assert F.pdist(og.tensor([[0.0, 0], [3, 4], [0, 4]])).tolist() == [5, 4, 3]
    assert F.normalize(a).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]]
    out = og.zeros(1, 2)
    assert F.normalize(a, out=out) is out and out[0, 0].item() == pytest.approx(0.6)
    assert F.pdist(og.zeros(1, 3)).shape == (0,)


def test_second_derivatives():
    a, b = draw((3, 2), (3, 2))
    for p in (1.5, 2.0, 3.0):
        check_grads(lambda a, b, p=p: F.pairwise_distance(a, b, p), [a, b], order=2)
    check_grads(lambda a, b: F.cosine_similarity(a, b), [a, b], order=2)
    check_grads(lambda a: F.normalize(a), [a], order=2)


WRONG = [
    lambda lib: lib.nn.CosineSimilarity()(lib.zeros(3, 4), lib.zeros(2, 4)),
    lambda lib: lib.nn.PairwiseDistance()(lib.zeros(3, 4), lib.zeros(2, 4)),
    lambda lib: lib.nn.functional.pdist(lib.zeros(3)),
    lambda lib: lib.nn.functional.pdist(lib.zeros(3, 4), -1.0),
]


@pytest.mark.oracle
@pytest.mark.parametrize("call", WRONG)
def test_wrong_use_is_reported_as_pytorch_does(call):
    same_error(call)


def test_wrong_use_says_what_is_wrong():
    with pytest.raises(ShapeError, match="must match the size of tensor b"):
        F.cosine_similarity(og.zeros(3, 4), og.zeros(2, 4))
