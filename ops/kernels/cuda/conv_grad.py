"""Gradients of convolutions through cuDNN: in the image, which is the transposed convolution, and in the filters.

Axes: N batch, C channel, F filter, S image sizes, K kernel, O output sizes.
"""

from __future__ import annotations

from ...window import Window
from .conv import aligned, convolve, is_product, pads_of, pixels, product_into, served, shape_of
from .cudnn_graphs import ConvInputGrad, Convolution, ConvWeightGrad
from .depthwise import depthwise_input_grad, depthwise_weight_grad
from .fusion import fuses
from .lowering import Site, lowers
from .operand import Operand


@lowers("conv_input_grad", fuses=fuses)
def _input_grad(site: Site) -> bool:
    g, w, out = site.types[0], site.types[1], site.results[0]
    win: Window = site.attrs["win"]
    if not served(g, w, out):
        return False
    if win.group > 1 and depthwise_input_grad(site):
        return True
    image, space, kernel = shape_of(out), shape_of(g)[2:], shape_of(w)[2:]
    pads = pads_of(win, image[2:], kernel, space)
    if pads is None:
        return False
    if is_product(win, image[2:], kernel, space):
        left, right = site.read(0, order="channels_last"), site.read(1, order="channels_last")
        product_into(site, pixels(left), pixels(right))
        return True
    output_ref, output = aligned(site, 0)
    filters_ref, filters = aligned(site, 1)
    y = site.write(0, order="channels_last")

    def described(result: Operand) -> Convolution:
        return ConvInputGrad(result, filters, output, pads, win.strides, win.dilations, site.tf32)

    convolve(site, described, (output_ref, filters_ref), y)
    return True


@lowers("conv_weight_grad", fuses=fuses)
def _weight_grad(site: Site) -> bool:
    """Lower a gradient in filters; what an epilogue makes of it lies as parameters do."""
    g, x, out = site.types[0], site.types[1], site.results[0]
    win: Window = site.attrs["win"]
    if not served(g, x, out):
        return False
    if win.group > 1 and depthwise_weight_grad(site):
        return True
    size, kernel, space = shape_of(x)[2:], shape_of(out)[2:], shape_of(g)[2:]
    pads = pads_of(win, size, kernel, space)
    if pads is None:
        return False
    if is_product(win, size, kernel, space):
        left, right = site.read(0, order="channels_last"), site.read(1, order="channels_last")
        product_into(site, pixels(left, turned=True), pixels(right))
        return True
    output_ref, output = aligned(site, 0)
    image_ref, image = aligned(site, 1)
    y = site.write(0, order="plain" if site.epilogue else "channels_last")

    def described(result: Operand) -> Convolution:
        return ConvWeightGrad(image, result, output, pads, win.strides, win.dilations, site.tf32)

    convolve(site, described, (output_ref, image_ref), y)
    return True
