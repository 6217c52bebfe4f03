"""One row of a table of methods: how it is called, and what NumPy says of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.runtime.autograd.gradcheck import check_grads

from ...nn.parity import Compared, both

RNG = np.random.default_rng(8)


def normal(*shape: int) -> np.ndarray:
    """Return float64 draws from a normal distribution."""
    return np.asarray(RNG.standard_normal(shape))


def positive(*shape: int) -> np.ndarray:
    """Return float64 draws from [0.3, 2)."""
    return np.asarray(RNG.uniform(0.3, 2, shape))


def apart(*shape: int) -> np.ndarray:
    """Return float64 numbers no two of which are equal, in random order."""
    n = int(np.prod(shape))
    return (RNG.permutation(n) * 0.37 - n * 0.15).reshape(shape)


@dataclass(frozen=True)
class Row:
    """A call.

    Attributes:
        name: of the method, and whatever sets the row apart.
        call: takes `onnxgrad` or `torch` and the inputs.
        inputs: arrays; those of floats are differentiated by.
        reference: the same function of NumPy arrays; None where NumPy has none.
        order: to which order gradients are compared with differences; 0 where there are none.
        tol: how far they may be apart.
        dtypes: in which element types it is compared with PyTorch's.
    """

    name: str
    call: Callable[..., Any]
    inputs: Sequence[Any]
    reference: Callable[..., Any] | None = None
    order: int = 2
    tol: float = 1e-5
    dtypes: tuple[str, ...] = ("float32", "float64")

    def __str__(self) -> str:
        """Return the name."""
        return self.name


def tables(family: str, rows: Sequence[Row]) -> tuple[Any, Any, Any]:
    """Return the three tests of a table: against PyTorch, against NumPy, and gradients against differences."""

    @pytest.mark.oracle
    @pytest.mark.parametrize(("row", "dtype"), [(r, d) for r in rows for d in r.dtypes], ids=str)
    def test_it_is_pytorchs(compared: Compared, row: Row, dtype: str) -> None:
        both(compared, f"methods: {family}", lambda lib: lambda *xs: row.call(lib, *xs), row.inputs, dtype)

    @pytest.mark.parametrize("row", [r for r in rows if r.reference is not None], ids=str)
    def test_it_is_numpys(row: Row) -> None:
        assert row.reference is not None
        found = row.call(og, *(og.tensor(x) if isinstance(x, np.ndarray) else x for x in row.inputs))
        wanted = row.reference(*row.inputs)
        several = isinstance(wanted, tuple | list)
        for a, b in zip(found if several else [found], wanted if several else [wanted], strict=True):
            assert a.shape == np.shape(b)
            np.testing.assert_allclose(a.numpy(), b, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("row", [r for r in rows if r.order], ids=str)
    def test_gradients_are_those_of_differences(row: Row) -> None:
        check_grads(
            lambda *xs: row.call(og, *(og.tensor(x) if isinstance(x, np.ndarray) else x for x in xs)),
            row.inputs,
            order=row.order,
            tol=row.tol,
        )

    return test_it_is_pytorchs, test_it_is_numpys, test_gradients_are_those_of_differences
