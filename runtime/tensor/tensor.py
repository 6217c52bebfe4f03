"""The Tensor: an array that remembers how it was computed.

Calling an op with Tensors computes on their arrays and, where a gradient may be asked for, records a node. The methods
that are ops stand in `runtime/tensor/methods.py`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...ops.errors import AutogradError, DTypeError, ShapeError
from ...ops.op import Op
from ...ops.types import Array, is_float
from ..autograd import record as _record
from ..autograd.grad_mode import MODE
from ..autograd.hooks import Hooks, RemovableHandle
from ..autograd.node import AccumulateGrad
from ..autograd.saved import STALE, Late, introduce
from ..compiled import eager_calls as _eager
from ..cuda.guard import placed
from .device import adopted, device, device_of
from .exposed import expose, share
from .methods import Methods
from .size import Size

if TYPE_CHECKING:
    from ..autograd.node import Node
    from ..autograd.saved import Edge


changes = [0]
"""How often any Tensor has been changed in place or given another array."""


class Tensor(Methods):
    """An n-dimensional array with a gradient.

    Args:
        data: a NumPy or CuPy array, which is shared, or a number, or nested lists of numbers.
        requires_grad: record what is computed from it.
    """

    interpret_priority = 1
    __array_priority__ = 100.0
    __hash__ = object.__hash__

    default_dtype: ClassVar[Any] = np.dtype(np.float32)

    _array: Array
    _edge: Edge | None = None
    _accumulator: weakref.ref[AccumulateGrad] | None = None
    _counter: list[int] | None = None
    _cut: str | None = None
    _hooks: Hooks | None = None
    _post_hooks: Hooks | None = None
    _base: Tensor | None = None
    _views: set[weakref.ref[Tensor]] | None = None
    requires_grad: bool = False
    retains_grad: bool = False
    grad: Tensor | None = None
    name: str | None = None

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        """Wrap an array; see the class for the arguments."""
        if isinstance(data, Tensor):
            data = data._array
        elif not hasattr(data, "__array_interface__") and not hasattr(data, "__cuda_array_interface__"):
            if not hasattr(data, "interpret_priority"):
                data = np.asarray(data)
                if data.dtype == np.float64:
                    data = data.astype(Tensor.default_dtype)
        elif isinstance(data, np.generic):
            data = np.asarray(data)
        elif not isinstance(data, np.ndarray) and not hasattr(data, "__array_interface__"):
            data = adopted(data)
        if requires_grad:
            if not is_float(data.dtype):
                raise DTypeError(f"only floating point Tensors can require gradients, found {data.dtype}")
            self.requires_grad = True
        self._array = data
        if MODE.trace is not None:
            MODE.trace.made(self)

    @staticmethod
    def __interpret__(op: Op, args: Sequence[Any], attrs: dict[str, Any]) -> Any:
        """Compute an op on Tensors, and record it where a gradient may be asked for."""
        return _record.record(op, args, attrs)

    @property
    def array(self) -> Array:
        """The array itself, not a copy."""
        return self._array

    @property
    def data(self) -> Tensor:
        """A Tensor that shares the array and nothing else; assigning replaces the array and counts as a change."""
        if MODE.trace is not None:
            return MODE.trace.alias(self)  # type: ignore[no-any-return]
        expose(self._array)
        return Tensor(self._array)

    @data.setter
    def data(self, value: Any) -> None:
        if MODE.trace is not None:
            MODE.trace.replace(self, value)
        elif isinstance(value, Tensor):
            self._array = value._array
        elif not hasattr(value, "dtype"):
            raise TypeError(f"Variable data has to be a tensor, but got {type(value).__name__}")
        else:
            share(value)
            self._array = adopted(value) if hasattr(value, "__cuda_array_interface__") else np.asarray(value)
        self._bump()

    @property
    def shape(self) -> Size:
        """The sizes."""
        return Size(self._array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type."""
        return self._array.dtype  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        """The rank."""
        return self._array.ndim  # type: ignore[no-any-return]

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        return self._array.nbytes  # type: ignore[no-any-return]

    @property
    def device(self) -> device:
        """Where it lies: `cpu` or `cuda:N`."""
        return device_of(self._array)

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by hand rather than computed from Tensors that require gradients."""
        return self._edge is None

    @property
    def grad_fn(self) -> Node | None:
        """The node that computed it, None for a leaf."""
        edge = self._past()
        return None if edge is None else edge[0]  # type: ignore[return-value]

    @property
    def output_nr(self) -> int:
        """Which output of `grad_fn` it is."""
        edge = self._past()
        return 0 if edge is None else edge[1]

    @property
    def _version(self) -> int:
        """How often it was changed in place, through itself or through what shares its memory."""
        return 0 if self._counter is None else self._counter[0]

    @_version.setter
    def _version(self, value: int) -> None:
        self._shared_counter()[0] = value
        changes[0] += 1

    def _shared_counter(self) -> list[int]:
        if self._counter is None:
            self._counter = [0]
        return self._counter

    def _bump(self) -> None:
        self._shared_counter()[0] += 1
        changes[0] += 1

    def _past(self) -> Edge | None:
        """Return where it comes from, None for a leaf; that of a view whose base was changed is found anew."""
        if self._edge is STALE:
            from ..autograd.rebase import refresh

            refresh(self)
        return self._edge

    def _is_view(self) -> bool:
        """Return whether it shows the memory of another Tensor, `_base`."""
        return self._base is not None

    def _grad_edge(self) -> Edge:
        """Return where its gradient goes; a leaf's end is made when first asked for and lives with the graph."""
        edge = self._edge
        if edge is not None:
            return edge if edge is not STALE else self._past()  # type: ignore[return-value]
        end = self._accumulator() if self._accumulator is not None else None
        if end is None:
            end = AccumulateGrad(self)
            self._accumulator = weakref.ref(end)
        return end, 0

    def numel(self) -> int:
        """Return the number of elements."""
        return self._array.size  # type: ignore[no-any-return]

    def size(self, dim: int | None = None) -> Any:
        """Return the shape, or one size of it."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """Return the rank."""
        return self.ndim

    def element_size(self) -> int:
        """Return the bytes of an element."""
        return self.dtype.itemsize

    def is_floating_point(self) -> bool:
        """Return whether the elements are floats."""
        return is_float(self.dtype)

    def is_contiguous(self) -> bool:
        """Return whether the elements lie in row-major order."""
        return self._array.flags.c_contiguous  # type: ignore[no-any-return]

    def data_ptr(self) -> int:
        """Return the address of the first element."""
        a = self._array
        return a.data.ptr if hasattr(a.data, "ptr") else a.ctypes.data  # type: ignore[no-any-return]

    def item(self) -> Any:
        """Return the only element as a Python number."""
        self._readable("item()")
        return self._only()

    def _only(self) -> Any:
        """Return the only element."""
        if self._array.size != 1:
            raise ShapeError(
                f"a Tensor with {self._array.size} elements cannot be converted to Scalar: its shape is "
                f"{list(self._array.shape)}"
            )
        return self._array.item()

    def _readable(self, what: str) -> None:
        if MODE.trace is not None:
            MODE.trace.read(self, what)
        if Late.guard is not None:
            Late.guard.reads(self._array, what)

    def tolist(self) -> Any:
        """Return nested lists of numbers."""
        self._readable("tolist()")
        return self._array.tolist()

    def numpy(self) -> Array:
        """Return the NumPy array, sharing memory where it is on the CPU.

        Raises:
            AutogradError: if it requires a gradient and computations are recorded; `detach()` first.
        """
        if self.requires_grad and MODE.enabled:
            raise AutogradError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        self._readable("numpy()")
        if hasattr(self._array, "get"):
            return self._array.get()
        expose(self._array)
        return self._array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return the NumPy array, for functions that take one."""
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def detach(self) -> Tensor:
        """Return a Tensor that shares the array and forgets where it came from."""
        out = wrap(self._array) if MODE.trace is None else MODE.trace.alias(self)
        out._counter = self._shared_counter()
        return out

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set whether gradients are recorded, and return the Tensor.

        Raises:
            AutogradError: on a Tensor that was computed.
            DTypeError: on integers.
        """
        if not self.is_leaf:
            if requires_grad:
                return self
            raise AutogradError(
                "you can only change requires_grad flags of leaf variables. If you want to use a computed variable in "
                "a subgraph that doesn't require differentiation use var_no_grad = var.detach()."
            )
        if requires_grad and not is_float(self.dtype):
            raise DTypeError(f"only floating point Tensors can require gradients, found {self.dtype}")
        self.requires_grad = requires_grad
        return self

    def retain_grad(self) -> None:
        """Keep `.grad` for this computed Tensor too.

        Raises:
            AutogradError: if it does not require a gradient.
        """
        if not self.requires_grad:
            raise AutogradError("can't retain_grad on Tensor that has requires_grad=False")
        if (node := self.grad_fn) is not None and not self.retains_grad:
            node.hooked().retained.append((self.output_nr, weakref.ref(self)))
            self.retains_grad = True

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Call a function with the gradient of this Tensor each time it is computed.

        Args:
            hook: gets the gradient, which it must not change; returns another one to put in its place, or None.

        Returns:
            A handle whose `remove()` takes the hook away; also a context manager.

        Raises:
            AutogradError: if it does not require a gradient.
        """
        if not self.requires_grad:
            raise AutogradError("cannot register a hook on a tensor that doesn't require gradient")
        node = self.grad_fn
        if node is None:
            if self._hooks is None:
                self._hooks = Hooks()
            hooks = self._hooks
        else:
            hooks = node.hooked().of_output(self.output_nr)
        handle = RemovableHandle(hooks)
        hooks[handle.id] = hook
        return handle

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> RemovableHandle:
        """Call a function with this leaf after a gradient was added to its `.grad`.

        Raises:
            AutogradError: if it is no leaf, or does not require a gradient.
        """
        if not self.requires_grad:
            raise AutogradError("cannot register a hook on a tensor that doesn't require gradient")
        if not self.is_leaf:
            raise AutogradError("post accumulate grad hooks cannot be registered on non-leaf tensors")
        if self._post_hooks is None:
            self._post_hooks = Hooks()
        handle = RemovableHandle(self._post_hooks)
        self._post_hooks[handle.id] = hook
        return handle

    def backward(
        self,
        gradient: Tensor | Array | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Tensor | Sequence[Tensor] | None = None,
    ) -> None:
        """Add the gradient of this Tensor to `.grad` of every leaf that it was computed from.

        Args:
            gradient: the cotangent; 1 for a scalar.
            retain_graph: keep what was saved, for a second backward; `create_graph` by default.
            create_graph: record the gradient computation, for higher orders.
            inputs: add only to `.grad` of these.
        """
        from ..autograd.tape import backward

        backward(self, gradient, retain_graph, create_graph, inputs)

    def __len__(self) -> int:
        """Return the first size."""
        if not self.shape:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __bool__(self) -> bool:
        """Return the truth of the only element."""
        if self.numel() != 1:
            raise AutogradError(f"Boolean value of Tensor with {self.numel()} values is ambiguous")
        self._readable("bool()")
        return bool(self._array.item())

    def __float__(self) -> float:
        """Return the only element as a float."""
        self._readable("float()")
        return float(self._only())

    def __int__(self) -> int:
        """Return the only element as an integer."""
        self._readable("int()")
        return int(self._only())

    def __index__(self) -> int:
        """Return the only element of an integer Tensor, for indexing."""
        if self.dtype.kind not in "iu":
            raise TypeError("only integer tensors of a single element can be converted to an index")
        self._readable("an index")
        return self._array.item()  # type: ignore[no-any-return]

    def __format__(self, spec: str) -> str:
        """Format a scalar as its number, anything else as its repr."""
        return format(self.item(), spec) if self.ndim == 0 else format(repr(self), spec)

    def __copy__(self) -> Tensor:
        """Return a Tensor that shares the array."""
        return self.detach().requires_grad_(self.requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        """Return a leaf of the same class with a copy of the array and of the gradient.

        Raises:
            AutogradError: on a computed Tensor.
        """
        if not self.is_leaf:
            raise AutogradError("only Tensors created explicitly by the user (graph leaves) support deepcopy")
        out = object.__new__(type(self))
        out.__dict__.update(
            {
                k: v
                for k, v in self.__dict__.items()
                if k not in ("_accumulator", "_base", "_counter", "_hooks", "_post_hooks", "_views", "grad")
            }
        )
        with placed(self._array):
            out._array = self._array.copy()
        if self.grad is not None:
            out.grad = self.grad.__deepcopy__(memo)
        memo[id(self)] = out
        return out

    def __repr__(self) -> str:
        """Return it as PyTorch prints it."""
        from .printing import show

        return show(self)


def wrap(array: Any) -> Tensor:
    """Return a Tensor of an array as it is."""
    t = object.__new__(Tensor)
    t._array = array if type(array) is np.ndarray or not isinstance(array, np.generic) else np.asarray(array)
    return t


introduce(Tensor, wrap)
_eager.accelerate()
