"""`onnxgrad explain`: what in a photo speaks for a model's answer."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .image_options import add_image_options, preparation_of

EPILOG = """\
examples:
  onnxgrad explain resnet.onnx cat.jpg --imagenet
  onnxgrad explain resnet.onnx cat.jpg --imagenet --target 281 --labels imagenet.txt
  onnxgrad explain model.onnx scan.png --method integrated-gradients --steps 200
  onnxgrad explain model.onnx photo.jpg --layer /layer3/conv2/Conv    (`onnxgrad info` lists the layers)"""

METHODS = ("grad-cam", "integrated-gradients", "saliency")


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "explain",
        help="show what in a photo speaks for an answer",
        description="Explain a model's answer for a photo: a picture of the photo, a heat map, and both in one.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="an .onnx file")
    parser.add_argument("image", metavar="IMAGE", help="a photo")
    parser.add_argument("--method", choices=METHODS, default="grad-cam", help="how (default: grad-cam)")
    parser.add_argument(
        "--target", type=int, metavar="CLASS", help="the class to explain (default: the model's answer)"
    )
    parser.add_argument("--layer", metavar="NAME", help="for grad-cam (default: the last convolution)")
    parser.add_argument("--steps", type=int, default=50, help="for integrated-gradients (default: 50)")
    parser.add_argument(
        "--probability",
        action="store_true",
        help="explain what the model returns, not what comes before a final softmax",
    )
    parser.add_argument("--labels", metavar="FILE", help="names of the classes, one a line")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, default=Path("explanation.png"), help="(default: explanation.png)"
    )
    add_image_options(parser)


def run(args: argparse.Namespace) -> int:
    """Explain, and write the picture."""
    from ...importers.onnx.model import load
    from ...ops.errors import InputError
    from ...ops.types import TensorType
    from .. import explain
    from ..images import layout_of, read_image

    if args.layer is not None and args.method != "grad-cam":
        raise InputError(f"--layer is for grad-cam; {args.method} looks at the input")
    labels = Path(args.labels).read_text("utf-8").splitlines() if args.labels else []
    model = load(args.model)
    declared = model.inputs[0]
    if len(model.inputs) != 1 or not isinstance(declared.type, TensorType) or declared.type.known_shape is None:
        raise InputError(f"explain wants a model of one image; this one takes {', '.join(map(str, model.inputs))}")
    preparation = preparation_of(args)
    x = read_image(Path(args.image), declared.dtype, declared.type.known_shape, preparation)
    output = "output" if args.probability else "logits"
    if args.method == "grad-cam":
        found = explain.grad_cam(model, x, args.target, layer=args.layer, output=output)
    elif args.method == "saliency":
        found = explain.saliency(model, x, args.target, output=output)
    else:
        found = explain.integrated_gradients(model, x, args.target, steps=args.steps, output=output)
    index = found.target[0][0] if found.target[0] else 0
    label = labels[index] if index < len(labels) else ""
    layout = layout_of(x.shape)
    size = (layout.width or 0, layout.height or 0)
    found.save(args.out, _as_seen(args.image, size, preparation.crop), label=label)
    print(f"class {index}{f' ({label})' if label else ''}: score {float(found.score[0]):.6g}")
    if found.layer is not None:
        print(f"layer {found.layer}")
    if found.delta is not None:
        print(f"the values add up to the difference of scores within {abs(float(found.delta[0])):.3g}")
    print(f"wrote {args.out}")
    return 0


def _as_seen(path: str, size: tuple[int, int], crop: bool) -> Any:
    """Return the photo in the proportions that the model sees, in its own resolution if that is higher."""
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        photo = ImageOps.exif_transpose(opened).convert("RGB")
    if not crop:
        factor = max(1.0, max(photo.size) / max(size))
        return photo.resize((round(size[0] * factor), round(size[1] * factor)), Image.Resampling.BICUBIC)
    return photo
