"""Orthogonal, weight-normalised and spectrally normalised parameters."""

from ...runtime.nn.parametrizations import orthogonal, spectral_norm, weight_norm

__all__ = [
    "orthogonal",
    "spectral_norm",
    "weight_norm",
]
