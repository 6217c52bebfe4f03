"""Methods that make new Tensors of the element type and on the device of another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .axes import sizes

if TYPE_CHECKING:
    from ..tensor import Tensor


class Making:
    """New Tensors like this one."""

    _array: Any

    def new_tensor(self, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        """Return a Tensor of a copy of the data."""
        from ..creation import tensor

        me: Any = self
        return tensor(
            data,
            dtype=me.dtype if dtype is None and not hasattr(data, "dtype") else dtype,
            device=me.device if device is None else device,
            requires_grad=requires_grad,
        )

    def new_full(
        self, size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
    ) -> Tensor:
        """Return a Tensor of a shape, every element the value."""
        from ..creation import full

        me: Any = self
        return full(
            size,
            fill_value,
            dtype=me.dtype if dtype is None else dtype,
            device=me.device if device is None else device,
            requires_grad=requires_grad,
        )

    def new_zeros(self, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        """Return zeros of a shape."""
        return self.new_full(sizes(size), 0, dtype=dtype, device=device, requires_grad=requires_grad)

    def new_ones(self, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        """Return ones of a shape."""
        return self.new_full(sizes(size), 1, dtype=dtype, device=device, requires_grad=requires_grad)

    def new_empty(self, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        """Return a Tensor of a shape, with whatever is in memory."""
        from ..creation import empty

        me: Any = self
        return empty(
            sizes(size),
            dtype=me.dtype if dtype is None else dtype,
            device=me.device if device is None else device,
            requires_grad=requires_grad,
        )

    def bernoulli(self, p: Any = None, *, generator: Any = None) -> Tensor:
        """Return 1 with the probability that each element is, or p, else 0."""
        from ..sampling import bernoulli

        return bernoulli(self, p, generator=generator)  # type: ignore[arg-type]

    def multinomial(self, num_samples: int, replacement: bool = False, *, generator: Any = None) -> Tensor:
        """Return places drawn with the probabilities that the elements of each row are in proportion to."""
        from ..sampling import multinomial

        return multinomial(self, num_samples, replacement, generator=generator)  # type: ignore[arg-type]
