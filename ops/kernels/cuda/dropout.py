"""Dropout in training: the mask is drawn in the kernel, the same as the array kernel draws on the host.

A thread makes the eight elements that one block of the generator decides about; the gradient is the same op, so no mask
is kept.
"""

from __future__ import annotations

import numpy as np

from ...types import is_float
from .lowering import Site, every, lowers
from .prelude import C_TYPES, c_type, computed
from .random import PHILOX, SINGLES, groups, vector_of
from .signature import Signature, indented, is_wide, lanes, store


@lowers("dropout_train", fuses=every)
def _dropout_train(site: Site) -> bool:
    x = site.types[0]
    if not is_float(x.dtype) or x.dtype.name not in C_TYPES:
        return False
    source, key, y = site.read(0, order="plain"), site.read(1, order="plain"), site.write(order="plain")
    o, number = y.operand, computed(x.dtype)
    if o.size == 0:
        return True
    ratio = site.attrs["ratio"]
    s = Signature(is_wide(o, source.operand))
    s.reads("x", source)
    s.reads("key", key)
    s.writes("y", y)
    s.size("count", o.size)
    s.real("ratio", float(np.float32(ratio)), "float")
    s.real("scale", 1 / (1 - ratio), number)
    stored = c_type(x.dtype)
    last = o.ndim - 1
    width = SINGLES
    whole = vector_of(SINGLES, source.operand) and o.size % SINGLES == 0 and o.offset % SINGLES == 0
    if site.epilogue is not None:
        whole = whole and o.ndim > 0 and lanes(last, o, most=SINGLES * o.dtype.itemsize) == SINGLES
    width = SINGLES if whole else 1
    keep = f"even(w, {{}}) >= ratio ? ({number})widen({{}}) * scale : ({number})0"
    coordinates = ""
    names = []
    if site.epilogue is not None:
        sizes = [(f"c{i}", n // width if i == last else n) for i, n in enumerate(o.shape)]
        coordinates = s.unravel("element", sizes)
        names = [f"(c{i} * {width})" if i == last else f"c{i}" for i in range(o.ndim)]
    if whole:
        pack = f"pack<{stored}, {SINGLES}>"
        head = f"""
const {pack} e = *(const {pack}*)(x + first);
{number} result[{SINGLES}];
#pragma unroll
for (int i = 0; i < {SINGLES}; ++i) result[i] = {keep.format("i", "e.at[i]")};
"""
        if site.epilogue is None:
            out = c_type(o.dtype)
            inner = f"""{head}
pack<{out}, {SINGLES}> out;
#pragma unroll
for (int i = 0; i < {SINGLES}; ++i) narrow(result[i], &out.at[i]);
*(pack<{out}, {SINGLES}>*)(y + first) = out;
"""
        else:
            end = store(site, s, y, number, names, along=last, width=SINGLES)
            inner = f"{head}\nconst index element = t;\n{coordinates}\n{end.prepare}\n{end.body}"
    else:
        if site.epilogue is None:
            end_text = "narrow(result[0], &y[first + i]);"
        else:
            end = store(site, s, y, number, names, along=last)
            end_text = f"const index element = first + i;\n{coordinates}\n{end.prepare}\n{end.body}"
        inner = f"""
#pragma unroll
for (int i = 0; i < {SINGLES}; ++i) {{
    if (first + i >= count) break;
    {number} result[1];
    result[0] = {keep.format("i", "x[first + i]")};
{indented(end_text)}
}}
"""
    body = f"const words w = philox((u64)t + 1, key[0], key[1]);\nconst index first = t * {SINGLES};\n{inner.strip()}"
    s.launch(site, "dropout_train", body, groups(o.size, SINGLES), before=PHILOX)
    return True


@lowers("dropout_mask")
def _dropout_mask(site: Site) -> bool:
    key, y = site.read(1, order="plain"), site.write(order="plain")
    o = y.operand
    if o.size == 0:
        return True
    s = Signature(is_wide(o))
    s.reads("key", key)
    s.writes("y", y)
    s.size("count", o.size)
    s.real("ratio", float(np.float32(site.attrs["ratio"])), "float")
    draw = "narrow((bool)(even(w, i) >= ratio), {});"
    if o.size % SINGLES == 0 and o.offset % SINGLES == 0:
        inner = f"""
pack<bool8, {SINGLES}> out;
#pragma unroll
for (int i = 0; i < {SINGLES}; ++i) {draw.format("&out.at[i]")}
*(pack<bool8, {SINGLES}>*)(y + first) = out;
"""
    else:
        inner = f"#pragma unroll\nfor (int i = 0; i < {SINGLES}; ++i) {{\n    if (first + i >= count) break;\n"
        inner += f"    {draw.format('&y[first + i]')}\n}}"
    body = f"const words w = philox((u64)t + 1, key[0], key[1]);\nconst index first = t * {SINGLES};\n{inner.strip()}"
    s.launch(site, "dropout_mask", body, groups(o.size, SINGLES), before=PHILOX)
    return True
