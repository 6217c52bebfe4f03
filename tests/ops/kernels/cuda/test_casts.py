"""Casts of many tensors in one launch."""

import numpy as np
import pytest

from onnxgrad.ops.kernels.cuda import casts, optimize
from onnxgrad.ops.kernels.cuda.operand import Operand
from onnxgrad.ops.types import BFLOAT16

from . import host, nvrtc
from .memory import TestRef
from .site import make_site

pytestmark = pytest.mark.skipif(host.why_not() is not None, reason=str(host.why_not()))

SIZES = [(3,), (5, 7), (optimize.CHUNK,), (2 * optimize.CHUNK + 9,), (1,), (64, 3, 3, 3)]


def turned(ref):
    """Return a tensor with its axes in the other order."""
    return TestRef(ref.operand.transposed(range(ref.operand.ndim)[::-1]), ref.buffer)


@pytest.mark.parametrize(("source", "target"), [("float32", BFLOAT16), ("float32", "float16"), ("float16", "float64"),
                                                ("float64", "float32")])  # fmt: skip
@pytest.mark.parametrize("shift", [0, 1])
def test_casts(source, target, shift):
    """Each element once, rounded to nearest; tensors that begin at odd addresses, and transposed ones, too."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(source) for s in SIZES]
    site = make_site("cast", [arrays[0]], {"dtype": np.dtype(target).name})
    sources, targets = [], []
    for a in arrays:
        o = Operand(a.dtype, a.shape, tuple(s // a.itemsize for s in a.strides), shift)
        sources.append(turned(site._hold(o, a)))
        targets.append(turned(site.temporary(target, a.shape)))
    casts.cast_several(site, sources, targets)
    (launch,) = site.work
    if nvrtc.why_no_nvrtc() is None:
        nvrtc.check(launch.kernel)
    for at_end in (True, False):
        for b in site.buffers:
            b.place(at_end=at_end)
        ((table, refs),) = site.tables
        table.view()[...] = [r.address for r in refs]
        site._launch(launch, seed=int(at_end))
        for a, y in zip(arrays, targets, strict=True):
            np.testing.assert_array_equal(y.view(), a.T.astype(target))
