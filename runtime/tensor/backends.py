"""PyTorch's switches of the libraries below it. Reading and setting them works; nothing here listens to them.

Results do not hang on the number of threads, convolutions pick no algorithm by trial, and products of float32 are
computed in float32: what the switches ask for in reproducible training is so anyway.
"""

from __future__ import annotations

from .device import is_available


class Switches:
    """Settings of one library."""

    def __init__(self, **settings: bool) -> None:
        """Set them."""
        self.__dict__.update(settings)

    def __setattr__(self, name: str, value: bool) -> None:
        """Set one that there is.

        Raises:
            AttributeError: for another name, which would be a slip of the pen.
        """
        if name not in self.__dict__:
            raise AttributeError(f"no switch {name!r}; there are {', '.join(sorted(self.__dict__))}")
        self.__dict__[name] = value

    def __getattr__(self, name: str) -> bool:
        """Refuse: set ones are found without this."""
        raise AttributeError(f"no switch {name!r}; there are {', '.join(sorted(self.__dict__))}")


class Absent:
    """A library that is not used."""

    def is_available(self) -> bool:
        """Return False."""
        return False

    def is_built(self) -> bool:
        """Return False."""
        return False


class CuDNN(Switches):
    """cuDNN."""

    def is_available(self) -> bool:
        """Return whether there is a CUDA device."""
        return is_available()


class CUDA:
    """CUDA, and its products of matrices."""

    def __init__(self) -> None:
        """Start with PyTorch's defaults."""
        self.matmul = Switches(allow_tf32=False, allow_fp16_reduced_precision_reduction=True)

    def is_built(self) -> bool:
        """Return whether there is a CUDA device."""
        return is_available()


cuda = CUDA()
cudnn = CuDNN(allow_tf32=True, benchmark=False, deterministic=False, enabled=True)
mkl = Absent()
mkldnn = Absent()
mps = Absent()
openmp = Absent()
