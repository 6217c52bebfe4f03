"""Exact products and convolutions of small integers, `matmul_integer` and `conv_integer`, summed up in int32.

A block makes a tile of the result. Tiles of both factors go through shared memory, their zero points taken off; a
convolution gathers the places of its windows on the way, and finds 0 in the padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from ...types import TensorType
from ...window import Window
from .kernel import GRID_LIMIT, Ref, blocks
from .lowering import Site, every, lowers
from .operand import Sizes
from .signature import Signature, indented, is_wide, store

_TILE = 64
"""Rows and columns of a block's tile; a thread has 4 of each."""

_DEPTH = 16
_THREADS = 256
_TYPES = ("int8", "uint8", "int16", "uint16")


@dataclass(frozen=True)
class _Product:
    """What the text of a kernel is made of.

    Attributes:
        batches: how many products there are.
        sizes: rows, columns, and how many products an element is the sum of.
        begin: statements that say which product `group` is.
        of_row: statements that say where `row` lies.
        of_column: the same of `column`.
        of_depth: the same of `k`.
        inside: whether the second factor has an element there.
        left: an element of the first factor, its zero point taken off.
        right: the same of the second one.
        coordinates: of an element of the result.
    """

    batches: int
    sizes: tuple[int, int, int]
    begin: str
    of_row: str
    of_column: str
    of_depth: str
    inside: str
    left: str
    right: str
    coordinates: list[str]


@lowers("matmul_integer", fuses=every)
def _matmul_integer(site: Site) -> bool:
    a, b, out = site.types[0], site.types[1], site.results[0]
    if not _served(site) or a.ndim < 2 or b.ndim < 2:
        return False
    lead = tuple(int(n) for n in out.shape[:-2])
    sizes = int(out.shape[-2]), int(out.shape[-1]), int(a.shape[-1])
    if not _fits(prod(lead), sizes):
        return False
    names = [(f"b{i}", n) for i, n in enumerate(lead)]
    coordinates = [name for name, _ in names]
    s, factors = _signature(site, ("a", "b"))

    left = _element(s, factors["a"], [*coordinates, "row", "k"], lead)
    right = _element(s, factors["b"], [*coordinates, "k", "column"], lead)
    product = _Product(
        prod(lead), sizes, s.unravel("group", names), "", "", "", "true", left, right, [*coordinates, "row", "column"]
    )
    _launch(site, s, product)
    return True


@lowers("conv_integer", fuses=every)
def _conv_integer(site: Site) -> bool:
    x, w, out, win = site.types[0], site.types[1], site.results[0], site.attrs["win"]
    if not _served(site):
        return False
    group, channels = win.group, int(w.shape[1])
    filters, space = int(w.shape[0]) // group, [int(n) for n in out.shape[2:]]
    kernel = [int(n) for n in w.shape[2:]]
    sizes = filters, int(out.shape[0]) * prod(space), channels * prod(kernel)
    if not _fits(group, sizes):
        return False
    s, factors = _signature(site, ("x", "w"))
    outs, taps = ([f"{c}{i}" for i in range(len(space))] for c in ("o", "t"))
    s.size("filters", filters)
    s.size("channels", channels)
    inside = _inside(s, x, win, outs, taps)
    product = _Product(
        group, sizes, "", "const index filter = group * filters + row;",
        s.unravel("column", [("image", int(out.shape[0])), *zip(outs, space, strict=True)]),
        s.unravel("k", [("channel", channels), *zip(taps, kernel, strict=True)]), inside,
        _element(s, factors["w"], ["filter", "channel", *taps]),
        _element(s, factors["x"], ["image", "(group * channels + channel)", *(f"({i})" for i in _places(outs, taps))]),
        ["image", "filter", *outs],
    )  # fmt: skip
    _launch(site, s, product)
    return True


def _served(site: Site) -> bool:
    """Whether there is code for these types, and none of the tensors is empty."""
    given = [t for t in site.types if t is not None]
    if not all(isinstance(t, TensorType) and t.dtype.name in _TYPES for t in given):
        return False
    return 0 not in (n for t in (*given, *site.results) for n in t.shape)


def _fits(batches: int, sizes: tuple[int, int, int]) -> bool:
    """Whether a launch has so many blocks."""
    return batches <= GRID_LIMIT[2] and blocks(sizes[0], _TILE) <= GRID_LIMIT[1]


def _signature(site: Site, names: tuple[str, str]) -> tuple[Signature, dict[str, list[tuple[str, Ref]]]]:
    """Return a signature that declares both factors and their zero points, and what it declares of each."""
    found: dict[str, list[tuple[str, Ref]]] = {name: [] for name in names}
    for i, t in enumerate(site.types):
        if t is not None:
            name = names[i % 2]
            found[name].append((name if i < 2 else f"{name}_zero", site.read(i)))
    refs = [pair for pairs in found.values() for pair in pairs]
    shape = tuple(int(n) for n in site.results[0].shape)
    wide = is_wide(*(ref.operand for _, ref in refs)) or 4 * prod(shape) >= 2**31
    s = Signature(wide=wide)
    for name, ref in refs:
        s.reads(name, ref)
    return s, found


def _element(s: Signature, factor: Sequence[tuple[str, Ref]], coordinates: Sequence[str], lead: Sizes = ()) -> str:
    """Return an element of a factor without its zero point; `lead` are the sizes of batch axes that it may lack."""
    shape, found = factor[0][1].operand.shape, []
    whole = (*lead, *shape[-2:]) if lead else shape
    for name, ref in factor:
        o = ref.operand.broadcast_to(shape).broadcast_to(whole)
        at = s.offset(f"{name}_at", list(zip(coordinates, o.strides, strict=True)))
        found.append(f"(i32){name}[{at}]")
    return " - ".join(found)


def _places(outs: Sequence[str], taps: Sequence[str]) -> list[str]:
    """Return where a window's tap lies along each axis of the image."""
    return [f"{o} * step_{o} + {t} * dilation_{t} - pad_{o}" for o, t in zip(outs, taps, strict=True)]


def _inside(s: Signature, x: TensorType, win: Window, outs: Sequence[str], taps: Sequence[str]) -> str:
    """Declare how a window moves and return whether a tap lies in the image."""
    conditions = []
    for i, (o, t, place) in enumerate(zip(outs, taps, _places(outs, taps), strict=True)):
        s.size(f"step_{o}", win.strides[i])
        s.size(f"dilation_{t}", win.dilations[i])
        s.size(f"pad_{o}", int(win.pads[i][0]))
        s.size(f"size_{o}", int(x.shape[2 + i]))
        conditions.append(f"({place}) >= 0 && ({place}) < size_{o}")
    return " && ".join(conditions) or "true"


_TEXT = """
__shared__ pack<i32, 4> left[DEPTH][TILE / 4 + 1], right[DEPTH][TILE / 4 + 1];
const int tid = threadIdx.x, tx = tid % 16, ty = tid / 16;
const index group = blockIdx.z, row0 = (index)blockIdx.y * TILE, column0 = (index)blockIdx.x * TILE;
{begin}
u32 total[4][4];
#pragma unroll
for (int i = 0; i < 4; ++i) {{
    #pragma unroll
    for (int j = 0; j < 4; ++j) total[i][j] = 0;
}}
for (index k0 = 0; k0 < depth; k0 += DEPTH) {{
    {{
        const index k = k0 + tid % DEPTH;
{of_depth}
        #pragma unroll
        for (int i = 0; i < 4; ++i) {{
            const index row = row0 + tid / DEPTH + i * 16;
            i32 element = 0;
            if (row < rows && k < depth) {{
{of_row}
                element = {left};
            }}
            left[tid % DEPTH][(tid / DEPTH + i * 16) / 4].at[tid / DEPTH % 4] = element;
        }}
    }}
    {{
        const index column = column0 + tid % TILE;
{of_column}
        #pragma unroll
        for (int i = 0; i < 4; ++i) {{
            const index k = k0 + tid / TILE + i * 4;
            i32 element = 0;
            if (column < columns && k < depth) {{
{of_depth_inside}
                if ({inside}) element = {right};
            }}
            right[tid / TILE + i * 4][tid % TILE / 4].at[tid % 4] = element;
        }}
    }}
    __syncthreads();
    #pragma unroll
    for (int k = 0; k < DEPTH; ++k) {{
        const pack<i32, 4> a4 = left[k][ty];
        const pack<i32, 4> b4 = right[k][tx];
        #pragma unroll
        for (int i = 0; i < 4; ++i) {{
            #pragma unroll
            for (int j = 0; j < 4; ++j) total[i][j] += (u32)a4.at[i] * (u32)b4.at[j];
        }}
    }}
    __syncthreads();
}}
#pragma unroll
for (int j = 0; j < 4; ++j) {{
    const index column = column0 + tx * 4 + j;
    if (column < columns) {{
{of_column_stored}
        #pragma unroll
        for (int i = 0; i < 4; ++i) {{
            const index row = row0 + ty * 4 + i;
            if (row < rows) {{
{of_row}
                const i32 result[1] = {{(i32)total[i][j]}};
{stored}
            }}
        }}
    }}
}}
"""


def _launch(site: Site, s: Signature, p: _Product) -> None:
    """Add the launch of a product, its epilogue applied."""
    y = site.write(0)
    for name, size in zip(("rows", "columns", "depth"), p.sizes, strict=True):
        s.size(name, size)
    s.writes("y", y)
    end = store(site, s, y, "i32", p.coordinates)
    body = _TEXT.format(
        begin=p.begin, of_depth=indented(p.of_depth, 2), of_depth_inside=indented(p.of_depth, 4),
        of_row=indented(p.of_row, 4), of_column=indented(p.of_column, 2), of_column_stored=indented(p.of_column, 2),
        inside=p.inside, left=p.left, right=p.right, stored=indented(f"{end.prepare}\n{end.body}", 4),
    )  # fmt: skip
    before = f"enum {{ TILE = {_TILE}, DEPTH = {_DEPTH} }};\n"
    kernel = s.kernel(site.op, body, threads=_THREADS, registers=128, before=before)
    grid = (blocks(p.sizes[1], _TILE), blocks(p.sizes[0], _TILE), p.batches)
    site.launch(kernel, grid, (_THREADS, 1, 1), s.arguments, writes=s.written)
