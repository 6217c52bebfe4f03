"""Kernels that compute on the host wherever their arrays lie.

CuPy's decompositions and Fourier transforms need cuSOLVER and cuFFT, which the extras `cuda12` and `cuda13` leave out
(0.6 GB); draws, text and pictures are the host's on every device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ...op import namespace
from ...places import to_numpy

Kernel = Callable[..., Any]

_WAITING = (
    "beam_search bernoulli cast cosine_window ctc_loss ctc_visits decode_image dropout_in_mode dropout_mask "
    "dropout_train fill fold_key greedy_search if key_sequence label_encode linear_attention loop max_roi_places "
    "mel_weights multinomial non_max_suppression nonzero one_hot_encode pairwise_coupling pow random_normal "
    "random_uniform range reshape_to resize roi_align scan_batch scatter_elements scatter_nd sequence_at "
    "sequence_erase sequence_insert split_to_sequence tfidf_vectorize transfer unique zip_map "
)

WAITING = frozenset(_WAITING.split())
"""The other ops whose array kernels may wait for the device: a shape, or the host's part, hangs on values.

Neither these nor `HOST_KERNELS` can be captured in a CUDA graph.
"""

HOST_KERNELS: set[str] = set()
"""The kernels that copy their arrays to the host, by name."""


def on_host(f: Kernel) -> Kernel:
    """Compute a kernel with NumPy: arrays of a device are copied to the host, the results back to that device."""
    HOST_KERNELS.add(f.__name__.strip("_"))

    @functools.wraps(f)
    def kernel(*args: Any, **attrs: Any) -> Any:
        xp = namespace(*(a for a in args if a is not None))
        if xp is np:
            return f(*args, **attrs)
        found = f(*map(to_numpy, args), **attrs)
        with next(a for a in args if isinstance(a, xp.ndarray)).device:
            return tuple(map(xp.asarray, found)) if isinstance(found, tuple) else xp.asarray(found)

    return kernel
