"""The methods of a Tensor that are ops, by PyTorch's names; NumPy's arguments (`axis`, `keepdims`) work too."""

from __future__ import annotations

from .arithmetic import Arithmetic
from .casting import Casting
from .counting import Counting
from .cumulative import Cumulative
from .describing import Describing
from .drawing import Drawing
from .exchanging import Exchanging
from .inplace import InPlace, add_in_place
from .making import Making
from .matrices import Matrices
from .pointwise import Pointwise
from .rearranging import Rearranging
from .reductions import Reductions
from .reshaping import Reshaping
from .scatters import Scatters
from .shapes import Shapes
from .sorting import Sorting
from .taking import Taking


class Methods(
    Arithmetic,
    Pointwise,
    Reductions,
    Cumulative,
    Sorting,
    Matrices,
    Shapes,
    Rearranging,
    Taking,
    Scatters,
    Casting,
    Describing,
    Making,
    InPlace,
    Reshaping,
    Drawing,
    Counting,
    Exchanging,
):
    """All of them."""


add_in_place(Methods)

__all__ = ["Methods"]
