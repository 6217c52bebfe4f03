"""Linear maps, embeddings and changes of shape against PyTorch."""

import numpy as np
import pytest

from .parity import both

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 4))
TOKENS = RNG.integers(0, 7, (3, 4))

SETTINGS = [
    ("Linear", (4, 3), {}, (X,)),
    ("Linear", (4, 3), {"bias": False}, (X,)),
    ("Linear", (4, 3), {}, (X[0],)),
    ("Linear", (4, 3), {}, (X.reshape(1, 5, 4),)),
    ("Bilinear", (4, 2, 3), {}, (X, RNG.standard_normal((5, 2)))),
    ("Bilinear", (4, 2, 3), {"bias": False}, (X, RNG.standard_normal((5, 2)))),
    ("Embedding", (7, 3), {}, (TOKENS,)),
    ("Embedding", (7, 3), {"padding_idx": 2}, (TOKENS,)),
    ("Flatten", (), {}, (X.reshape(1, 5, 2, 2),)),
    ("Flatten", (2, 3), {}, (X.reshape(1, 5, 2, 2),)),
    ("Unflatten", (1, (2, 2)), {}, (X,)),
    ("Identity", (1,), {"unused": 2}, (X,)),
]


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "args", "kwargs", "inputs"), SETTINGS)
def test_it_is_pytorchs(compared, name, args, kwargs, inputs, dtype):
    both(compared, name, lambda lib: getattr(lib.nn, name)(*args, **kwargs), inputs, dtype)
