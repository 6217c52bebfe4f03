"""Why a model answers as it does: gradients as pictures."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tools.explain import (
        Explanation as Explanation,
        grad_cam as grad_cam,
        integrated_gradients as integrated_gradients,
        last_convolution as last_convolution,
        saliency as saliency,
    )

__all__ = [
    "Explanation",
    "grad_cam",
    "integrated_gradients",
    "last_convolution",
    "saliency",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".tools.explain", __package__), name)


def __dir__() -> list[str]:
    return __all__
