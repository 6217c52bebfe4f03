"""Products of vectors and matrices, and diagonals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ....ops import layout, linalg, matmul as mm_ops, pointwise as pw
from ....ops.errors import DTypeError, OpError, ShapeError
from ...amp.casting import alike_in_half, in_half
from .arithmetic import binary
from .axes import place

if TYPE_CHECKING:
    from ..tensor import Tensor


def _ranks(name: str, wanted: tuple[int, ...], *operands: Any) -> None:
    """Refuse operands of other ranks, or of several element types."""
    for t, n in zip(operands, wanted, strict=True):
        if t.ndim != n:
            shapes = ", ".join(str(tuple(o.shape)) for o in operands)
            raise ShapeError(f"{name}: expected {n}D tensors, but got {t.ndim}D: the operands have shapes {shapes}")
    if len({t.dtype for t in operands}) > 1 and not alike_in_half(*operands):
        raise DTypeError(
            f"{name}: expected m1 and m2 to have the same dtype, but got: {operands[0].dtype} != {operands[1].dtype}"
        )


def _plus(beta: float, base: Any, alpha: float, product: Any) -> Any:
    base, product = in_half(base, product)
    product = product if alpha == 1 else product * alpha
    if beta == 0:
        return product
    return (base if beta == 1 else base * beta) + product


class Matrices:
    """Products and diagonals."""

    _array: Any

    def mm(self, mat2: Tensor) -> Tensor:
        """Return the product of two matrices."""
        _ranks("mm", (2, 2), self, mat2)
        return mm_ops.matmul(self, mat2)  # type: ignore[no-any-return]

    def bmm(self, mat2: Tensor) -> Tensor:
        """Return the products of matrices, one a batch entry.

        Raises:
            ShapeError: unless both have three axes and the sizes agree.
        """
        _ranks("bmm", (3, 3), self, mat2)
        (b, _, k), (c, m, _) = self._array.shape, mat2.shape
        if isinstance(b, int) and isinstance(c, int) and (b, k) != (c, m):
            raise ShapeError(
                f"bmm: Expected size for first two dimensions of batch2 tensor to be: [{b}, {k}] but got: [{c}, {m}]."
            )
        return mm_ops.matmul(self, mat2)  # type: ignore[no-any-return]

    def mv(self, vec: Tensor) -> Tensor:
        """Return the product of a matrix and a vector."""
        _ranks("mv", (2, 1), self, vec)
        return mm_ops.matmul(self, vec)  # type: ignore[no-any-return]

    def dot(self, tensor: Tensor) -> Tensor:
        """Return the sum of the products of two vectors' elements.

        Raises:
            ShapeError: unless both have one axis, of one size.
        """
        a, b = self._array, tensor._array
        if a.ndim != 1 or b.ndim != 1:
            raise ShapeError(f"1D tensors expected, but got {a.ndim}D and {b.ndim}D tensors")
        if a.dtype != b.dtype and not alike_in_half(self, tensor):
            raise DTypeError(
                f"dot : expected both vectors to have same dtype, but found {self._array.dtype} and {tensor.dtype}"
            )
        if isinstance(a.shape[0], int) and isinstance(b.shape[0], int) and a.shape != b.shape:
            raise ShapeError(
                f"inconsistent tensor size, expected tensor [{a.shape[0]}] and src [{b.shape[0]}] to have the same "
                f"number of elements, but got {a.shape[0]} and {b.shape[0]} elements respectively"
            )
        return mm_ops.matmul(self, tensor)  # type: ignore[no-any-return]

    vdot = dot

    def inner(self, other: Tensor) -> Tensor:
        """Return the sums of products along both last axes.

        Raises:
            ShapeError: if their sizes differ.
        """
        me: Any = self
        if me.ndim == 0 or other.ndim == 0:
            return me * other  # type: ignore[no-any-return]
        if me.shape[-1] != other.shape[-1]:
            raise ShapeError(
                "inner() the last dimension must match on both input tensors but got shapes "
                f"{list(me.shape)} and {list(other.shape)}"
            )
        flat = me.reshape(-1, me.shape[-1]) @ other.reshape(-1, other.shape[-1]).T
        return flat.reshape(*me.shape[:-1], *other.shape[:-1])  # type: ignore[no-any-return]

    def outer(self, vec2: Tensor) -> Tensor:
        """Return the products of every element of one vector with every one of the other."""
        me: Any = self
        if me.ndim != 1 or vec2.ndim != 1:
            raise ShapeError(f"outer: Expected 1-D arguments self and vec2, but got {me.ndim}-D and {vec2.ndim}-D")
        return binary(pw.mul, me.unsqueeze(1), vec2)

    ger = outer

    def addmm(self, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
        """Return beta * self + alpha * mat1 @ mat2."""
        return _plus(beta, self, alpha, mat1.mm(mat2))  # type: ignore[no-any-return]

    def addmv(self, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
        """Return beta * self + alpha * mat @ vec."""
        return _plus(beta, self, alpha, mat.mv(vec))  # type: ignore[no-any-return]

    def addr(self, vec1: Tensor, vec2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
        """Return beta * self + alpha * the outer product of two vectors."""
        return _plus(beta, self, alpha, vec1.outer(vec2))  # type: ignore[no-any-return]

    def baddbmm(self, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
        """Return beta * self + alpha * batch1 @ batch2, a batch entry at a time."""
        return _plus(beta, self, alpha, batch1.bmm(batch2))  # type: ignore[no-any-return]

    def addbmm(self, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
        """Return beta * self + alpha * the sum of batch1 @ batch2 over the batch."""
        return _plus(beta, self, alpha, batch1.bmm(batch2).sum(0))  # type: ignore[no-any-return]

    def cross(self, other: Tensor, dim: int | None = None) -> Tensor:
        """Return the vector products along an axis of size 3; the first such axis by default.

        Raises:
            ShapeError: if the axis has another size.
        """
        me: Any = self
        if dim is None:
            fitting = [i for i, n in enumerate(me.shape) if n == 3]
            if not fitting:
                raise ShapeError(f"no dimension of size 3 in input: {list(me.shape)}")
            dim = fitting[0]
        at = place(dim, me.ndim)
        if me.shape[at] != 3 or other.shape[place(dim, other.ndim)] != 3:
            raise ShapeError(
                f"linalg.cross: inputs dimension {at} must have length 3. Got {me.shape[at]} and {other.shape[at]}"
            )
        a1, b1 = (v.roll(-1, dim) for v in (me, other))
        a2, b2 = (v.roll(-2, dim) for v in (me, other))
        return a1 * b2 - a2 * b1

    def kron(self, other: Tensor) -> Tensor:
        """Return the Kronecker product: every element of self times the whole other."""
        me: Any = self
        n = max(me.ndim, other.ndim)
        a = me.reshape((1,) * (n - me.ndim) + tuple(me.shape))
        b = other.reshape((1,) * (n - other.ndim) + tuple(other.shape))
        wide_a = a.reshape(tuple(s for m in a.shape for s in (m, 1)))
        wide_b = b.reshape(tuple(s for m in b.shape for s in (1, m)))
        return (wide_a * wide_b).reshape(tuple(p * q for p, q in zip(a.shape, b.shape, strict=True)))  # type: ignore[no-any-return]

    def matrix_power(self, n: int) -> Tensor:
        """Return the product of n copies of each matrix; of its inverse where n is negative."""
        me: Any = self
        if me.ndim < 2 or me.shape[-1] != me.shape[-2]:
            raise ShapeError(f"linalg.matrix_power: A must be batches of square matrices, but has shape {me.shape}")
        if n < 0:
            me, n = mm_ops.inverse(me), -n
        found: Any = None
        while n:
            if n & 1:
                found = me if found is None else found @ me
            n >>= 1
            me = me @ me if n else me
        if found is None:
            from ..creation import eye

            return eye(me.shape[-1], dtype=me.dtype, device=me.device).expand(tuple(me.shape)).clone()
        return found  # type: ignore[no-any-return]

    def matrix_exp(self) -> Tensor:
        """Return the exponential of each matrix."""
        from ..linalg import matrix_exp

        return matrix_exp(self)

    def det(self) -> Tensor:
        """Return the determinant of each matrix."""
        return mm_ops.det(self)  # type: ignore[no-any-return]

    def logdet(self) -> Tensor:
        """Return the logarithm of the determinant of each matrix; NaN where that is negative."""
        sign, found = linalg.slogdet(self)
        return pw.where(pw.less(sign, 0), float("nan"), found)  # type: ignore[no-any-return]

    def slogdet(self) -> Any:
        """Return the sign of the determinant of each matrix and the logarithm of its absolute value."""
        from .returned import LogDet

        return LogDet(*linalg.slogdet(self))

    def inverse(self) -> Tensor:
        """Return the inverse of each matrix."""
        from ..linalg import inv

        return inv(self)

    def pinverse(self, rcond: float = 1e-15) -> Tensor:
        """Return the Moore-Penrose inverse of each matrix."""
        return linalg.pinv(self, rcond=rcond)  # type: ignore[no-any-return]

    def cholesky(self, upper: bool = False) -> Tensor:
        """Return the triangular L with L L^T = self, or its transpose."""
        found = linalg.cholesky(self)
        return found.mT if upper else found  # type: ignore[no-any-return]

    def qr(self, some: bool = True) -> Any:
        """Return q with orthonormal columns, square unless `some`, and the upper triangular r with q r = self."""
        from ..linalg import qr

        return qr(self) if some else qr(self, "complete")

    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return u, s, v with u diag(s) v^T = self."""
        u, s, vh = linalg.svd(self)
        return u, s, vh.mT

    def trace(self) -> Tensor:
        """Return the sum of a matrix's diagonal."""
        me: Any = self
        if me.ndim != 2:
            raise ShapeError(f"trace: expected a matrix, but got tensor with dim {me.ndim}")
        return self.diagonal().sum()

    def diagonal(self, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
        """Return a diagonal of two axes as a new last axis, sharing memory.

        Args:
            offset: 0 the main one, 1 the one above, -1 the one below.
            dim1: the axis of the rows.
            dim2: the axis of the columns.

        Raises:
            OpError: if both axes are one.
        """
        me: Any = self
        rows, columns = place(dim1, me.ndim), place(dim2, me.ndim)
        if rows == columns:
            raise OpError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
        rest = [i for i in range(me.ndim) if i not in (rows, columns)]
        x = me.permute(*rest, rows, columns)
        m, n = x.shape[-2:]
        top, left = max(-offset, 0), max(offset, 0)
        k = max(min(m - top, n - left), 0)
        if (top, left, m, n) != (0, 0, k, k):
            x = layout.slice_(
                x, starts=(top, left), stops=(top + k, left + k), steps=(1, 1), axes=(x.ndim - 2, x.ndim - 1)
            )
        lead = "abcdefgh"[: x.ndim - 2]
        return mm_ops.einsum(x, equation=f"{lead}zz->{lead}z")  # type: ignore[no-any-return]

    def diag(self, diagonal: int = 0) -> Tensor:
        """Return the matrix with a vector on its diagonal, or the diagonal of a matrix."""
        me: Any = self
        if me.ndim == 1:
            return self.diag_embed(diagonal)
        if me.ndim != 2:
            raise ShapeError(f"diag(): Supports 1D or 2D tensors. Got {me.ndim}D")
        return self.diagonal(diagonal).clone()

    def diagflat(self, offset: int = 0) -> Tensor:
        """Return the matrix with all elements on its diagonal."""
        return self.reshape(-1).diag_embed(offset)  # type: ignore[attr-defined, no-any-return]

    def diag_embed(self, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
        """Return matrices with the last axis on a diagonal, zeros elsewhere.

        Args:
            offset: 0 the main one, 1 the one above, -1 the one below.
            dim1: where the axis of the rows is in the result.
            dim2: where the axis of the columns is.

        Raises:
            OpError: if both axes are one.
        """
        me: Any = self
        rank = me.ndim + 1
        rows, columns = place(dim1, rank), place(dim2, rank)
        if rows == columns:
            raise OpError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
        n = me.shape[-1] + abs(offset)
        wide = layout.pad(me, pads=((max(offset, 0), max(-offset, 0)),), axes=(me.ndim - 1,))
        from ..creation import eye

        mask = eye(n, dtype="bool", device=me.device)
        if offset:
            mask = mask.roll(offset, 1)
        # A row holds what is on the diagonal of its column; the corner that rolled in holds the padding.
        square = pw.where(mask, wide.unsqueeze(-2), 0)
        order = [i for i in range(rank) if i not in (rows, columns)]
        back = [0] * rank
        for place_in, axis in enumerate((*order, rows, columns)):
            back[axis] = place_in
        return square.permute(*back)  # type: ignore[no-any-return]
