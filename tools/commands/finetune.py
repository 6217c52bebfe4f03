"""`onnxgrad finetune`: train a model on a folder of photos or on arrays."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .image_options import add_image_options, preparation_of

if TYPE_CHECKING:
    from ...runtime.model.model import Model
    from ..datasets import Labelled

EPILOG = """\
DATA is one of
  a folder with a folder of photos a class:  cat/1.jpg cat/2.jpg dog/1.jpg ...
  a folder with two such folders:            train/cat/1.jpg ... val/cat/9.jpg ...
  an .npz file with arrays x and y, and x_val and y_val if you like

examples:
  onnxgrad finetune resnet.onnx photos --out tuned.onnx --imagenet
  onnxgrad finetune resnet.onnx photos --out tuned.onnx --imagenet --train all --lr 1e-4 --epochs 5
  onnxgrad finetune model.onnx data.npz --out tuned.onnx --freeze 'conv1*'"""

HEAD_GAIN = 0.01
"""New heads start near zero, so that little of their random draw is left after a few examples."""


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "finetune",
        help="train a model on your own examples",
        description="Train a model on your own examples and write it back as .onnx. If your data has another number "
        "of classes than the model, its head is replaced.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="an .onnx file")
    parser.add_argument("data", metavar="DATA", type=Path, help="a folder or an .npz file, see below")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="where to write the tuned model")
    parser.add_argument("--epochs", type=int, default=5, help="(default: 5)")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate (default: 0.001)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="(default: 16)")
    parser.add_argument("--optimizer", choices=("adamw", "adam", "sgd"), default="adamw", help="(default: adamw)")
    parser.add_argument("--weight-decay", type=float, default=0.01, metavar="D", help="(default: 0.01)")
    parser.add_argument(
        "--schedule", choices=("constant", "cosine"), default="constant", help="of the rate (default: constant)"
    )
    parser.add_argument("--clip-norm", type=float, metavar="N", help="the largest norm of gradients")
    parser.add_argument(
        "--train",
        metavar="WHAT",
        action="append",
        help="all, head, or a pattern of parameter or layer names; may be repeated (default: head if it was "
        "replaced, else all)",
    )
    parser.add_argument(
        "--freeze", metavar="PATTERN", action="append", default=[], help="what not to train; may be repeated"
    )
    parser.add_argument(
        "--val-split", type=float, default=0.2, metavar="PART", help="kept for validation without val/ (default: 0.2)"
    )
    parser.add_argument(
        "--views",
        type=int,
        default=8,
        metavar="N",
        help="train on N random parts, mirrored by chance, of each photo; 0 for the whole photo (default: 8)",
    )
    parser.add_argument(
        "--patience", type=int, metavar="N", help="stop after N epochs without a better validation loss"
    )
    parser.add_argument("--checkpoint", metavar="FILE", help="keep the best weights here meanwhile (.safetensors)")
    parser.add_argument(
        "--size", type=int, metavar="N", help="side of the photos where the model leaves it open (default: 224)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split, the order and the new head (default: 0)")
    parser.add_argument("--quiet", action="store_true", help="print only the result")
    add_image_options(parser)


def run(args: argparse.Namespace) -> int:
    """Train, write the model and the names of its classes, and print what came of it."""
    from rich.console import Console

    from ...importers.onnx.model import load
    from ...importers.onnx.save import save
    from ...ops.errors import InputError
    from ..finetune import finetune

    if not args.out.absolute().parent.is_dir():
        raise InputError(f"--out {args.out}: the folder {args.out.parent} does not exist")
    console = Console(quiet=args.quiet)
    model = load(args.model)
    training, validation = _data(args, model)
    replaced = _fit_head(model, training, args.seed, console)
    train = args.train or (["head"] if replaced else ["all"])
    console.print(
        f"training {' and '.join(train)}{_counted(training, validation, args)}", highlight=False, soft_wrap=True
    )
    result = finetune(
        model,
        training.examples,
        val_data=None if validation is None else validation.examples,
        val_split=0 if training.classes else args.val_split,
        optimizer=args.optimizer,
        lr=args.lr,
        weight_decay=args.weight_decay,
        schedule=args.schedule,
        clip_norm=args.clip_norm,
        epochs=args.epochs,
        batch_size=args.batch_size,
        train=train[0] if train[0] in ("all", "head") else train,
        freeze=args.freeze,
        patience=args.patience,
        checkpoint_path=args.checkpoint,
        seed=args.seed,
        progress=console,
    )
    save(model, args.out)
    print(f"{result.reason}; the best was epoch {result.best_epoch}: {_figures(result.best)}")
    print(f"wrote {args.out}")
    if training.classes:
        labels = args.out.with_suffix(".labels.txt")
        labels.write_text("".join(f"{name}\n" for name in training.classes), "utf-8")
        print(f"wrote {labels}")
    return 0


def _data(args: argparse.Namespace, model: Model) -> tuple[Labelled, Labelled | None]:
    from ...ops.errors import InputError
    from ..datasets import from_arrays, from_folder

    if not args.data.exists():
        raise InputError(
            f"{args.data}: no such file or folder; wanted a folder with a folder of pictures for each class, or "
            "an .npz with arrays x and y"
        )
    if args.data.is_dir():
        return from_folder(
            args.data,
            model.inputs,
            preparation_of(args),
            side=args.size or 224,
            val_split=args.val_split,
            views=args.views,
            seed=args.seed,
        )
    if args.data.suffix == ".npz":
        return from_arrays(args.data)
    if not args.data.exists():
        raise FileNotFoundError(2, "No such file or directory", str(args.data))
    raise InputError(f"{args.data}: neither a folder nor an .npz file")


def _fit_head(model: Model, training: Labelled, seed: int, console: Any) -> bool:
    """Replace the head if the data has another number of classes, and return whether it was."""
    if not training.count:
        return False
    head = model.head()
    if head.classes == training.count or (not training.classes and training.count < head.classes):
        return False
    console.print(
        f"new head: {head.layer} had {head.classes} classes, the data has {training.count}",
        highlight=False,
        soft_wrap=True,
    )
    model.replace_head(training.count, seed=seed, gain=HEAD_GAIN)
    return True


def _counted(training: Labelled, validation: Labelled | None, args: argparse.Namespace) -> str:
    """Return how many examples there are, in words."""
    views = args.views if training.classes else 0
    counted = f" on {len(training) // max(1, views)} examples" + (f" in {views} views each" if views else "")
    if validation is not None:
        return f"{counted}, validating on {len(validation)} others"
    return (
        counted if training.classes or not args.val_split else f"{counted}, {args.val_split:.0%} of them for validation"
    )


def _figures(record: dict[str, Any]) -> str:
    parts = []
    for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
        if (value := record.get(key)) is not None:
            name = key.replace("val_", "validation ")
            parts.append(f"{name} {value:.1%}" if "accuracy" in key else f"{name} {value:.4f}")
    return ", ".join(parts)
