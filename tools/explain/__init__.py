"""Explanations: what in the input speaks for a model's answer, as numbers and as pictures.

Three methods: `saliency` (the gradient), `integrated_gradients` and `grad_cam`.
"""

from .explanation import Explanation
from .grad_cam import grad_cam, last_convolution
from .integrated_gradients import integrated_gradients
from .saliency import saliency

__all__ = ["Explanation", "grad_cam", "integrated_gradients", "last_convolution", "saliency"]
