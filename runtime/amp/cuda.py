"""`autocast` and `GradScaler` by the names under `cuda.amp`, which take no device."""

from __future__ import annotations

from typing import Any

from . import autocast as _autocast, grad_scaler as _grad_scaler
from .autocast import custom_bwd as custom_bwd, custom_fwd as custom_fwd


class autocast(_autocast.autocast):  # noqa: N801 - PyTorch's name
    """`amp.autocast` for CUDA.

    Args:
        enabled: False to switch it off inside another context.
        dtype: `bfloat16` or `float16`.
        cache_enabled: whether a weight is cast once inside the outermost context.
    """

    def __init__(self, enabled: bool = True, dtype: Any = "float16", cache_enabled: bool = True) -> None:
        """Make the context; see the class."""
        super().__init__("cuda", dtype, enabled, cache_enabled)


class GradScaler(_grad_scaler.GradScaler):
    """`amp.GradScaler` for CUDA.

    Args:
        init_scale: see there, as the others.
    """

    def __init__(
        self, init_scale: float = 2.0**16, growth_factor: float = 2.0, backoff_factor: float = 0.5,
        growth_interval: int = 2000, enabled: bool = True,
    ) -> None:  # fmt: skip
        """Keep the settings; see the class."""
        super().__init__("cuda", init_scale, growth_factor, backoff_factor, growth_interval, enabled)
