"""Options that say how photos become inputs, shared by the commands that read them."""

from __future__ import annotations

import argparse
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..images import Preparation


def add_image_options(parser: Any) -> None:
    """Declare them."""
    images = parser.add_argument_group("images", "bytes 0..255 become (bytes * SCALE - MEAN) / STD")
    images.add_argument("--scale", type=_number, help="a number or a fraction (default: 1/255)")
    images.add_argument("--mean", type=_numbers, metavar="M[,M,M]", help="for all channels or for each (default: 0)")
    images.add_argument("--std", type=_spread, metavar="S[,S,S]", help="for all channels or for each (default: 1)")
    images.add_argument("--imagenet", action="store_true", help="mean and std of ImageNet, and --crop")
    images.add_argument("--crop", action="store_true", help="keep the proportions and cut out the middle")
    images.add_argument("--bgr", action="store_true", help="channels in the order blue, green, red")


def preparation_of(args: argparse.Namespace) -> Preparation:
    """Return what they say."""
    from dataclasses import replace

    from ..images import IMAGENET, Preparation

    given = {name: getattr(args, name) for name in ("scale", "mean", "std") if getattr(args, name) is not None}
    if args.crop:
        given["crop"] = True
    return replace(IMAGENET if args.imagenet else Preparation(), bgr=args.bgr, **given)


def _number(text: str) -> float:
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number or a fraction") from None


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(_number, text.split(",")))


def _spread(text: str) -> tuple[float, ...]:
    numbers = _numbers(text)
    if 0 in numbers:
        raise argparse.ArgumentTypeError(f"{text!r}: nothing can be divided by 0")
    return numbers
