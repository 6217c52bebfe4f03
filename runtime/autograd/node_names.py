"""Names of the tape's nodes, as PyTorch gives them to the same computation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Naming = Callable[[int, Sequence[Any], dict[str, Any]], str]


def node_name(op: str, rank: int, args: Sequence[Any], attrs: dict[str, Any]) -> str:
    """Return the name of a recorded op: `MulBackward0`.

    Args:
        op: its name.
        rank: of its result.
        args: what is left of its arguments, with shapes; empty after they were freed.
        attrs: its attributes.
    """
    named = NAMES.get(op)
    if named is None and "_grad_" in op:
        named = "Mul"  # the gradient of a pointwise op is what arrives times a factor
    if callable(named):
        named = named(rank, args, attrs)
    if named is None:
        named = "".join(p.capitalize() for p in op.split("_"))
    return named if "Backward" in named or named == "CopySlices" else f"{named}Backward0"


def _product(rank: int, args: Sequence[Any], attrs: dict[str, Any]) -> str:
    return ("Dot", "Mv", "Mm", "Bmm")[rank] if rank < 4 else "Matmul"


def _reduced(name: str) -> Naming:
    def named(rank: int, args: Sequence[Any], attrs: dict[str, Any]) -> str:
        return f"{name}Backward{0 if attrs.get('axes') is None else 1}"

    return named


def _spatial(before: str, after: str = "") -> Naming:
    def named(rank: int, args: Sequence[Any], attrs: dict[str, Any]) -> str:
        return f"{before}{max(rank - 2, 1)}D{after}"

    return named


def _powered(rank: int, args: Sequence[Any], attrs: dict[str, Any]) -> str:
    numbers = [isinstance(a, int | float) for a in args]
    return f"PowBackward{2 if numbers[:1] == [True] else 0 if numbers[1:] == [True] else 1}"


def _turned(rank: int, args: Sequence[Any], attrs: dict[str, Any]) -> str:
    moved = sum(i != p for i, p in enumerate(attrs.get("perm") or ()))
    return "Transpose" if moved <= 2 else "Permute"


NAMES: dict[str, str | Naming] = {
    "copy_slices": "CopySlices",
    "identity": "Clone",
    "cast": "ToCopy",
    "slice": "Slice",
    "matmul": _product,
    "sum": _reduced("Sum"),
    "mean": _reduced("Mean"),
    "max": lambda rank, args, attrs: "MaxBackward1" if attrs.get("axes") is None else "Amax",
    "min": lambda rank, args, attrs: "MinBackward1" if attrs.get("axes") is None else "Amin",
    "pow": _powered,
    "clip": "ClampBackward1",
    "reshape": "View",
    "squeeze": "SqueezeBackward1",
    "transpose": _turned,
    "broadcast_to": "Expand",
    "concat": "Cat",
    "l2_norm": "LinalgVectorNorm",
    "gather": "IndexSelect",
    "gather_elements": "Gather",
    "tile": "Repeat",
    "trilu": lambda rank, args, attrs: "Triu" if attrs.get("upper", True) else "Tril",
    "pad": "ConstantPadNd",
    "conv": "Convolution",
    "conv_transpose": "Convolution",
    "conv_input_grad": "Convolution",
    "max_pool": _spatial("MaxPool", "WithIndices"),
    "sum_pool": _spatial("AvgPool"),
    "batch_norm_train": "NativeBatchNorm",
    "standardize": "NativeLayerNorm",
    "layer_norm": "NativeLayerNorm",
    "group_norm": "NativeGroupNorm",
    "softmax_cross_entropy": "NllLoss",
    "dropout_train": "NativeDropout",
    "resize": _spatial("Upsample"),
    "prelu": "PreluKernel",
    "log1p": "Log1P",
    "lstm_train": "Lstm",
    "gru_train": "Gru",
}


def labelled(result: Any, name: str) -> Any:
    """Return a Tensor whose node is called `nameBackward0`: PyTorch has one function for what several ops compute."""
    edge = getattr(result, "_edge", None)
    if edge is not None and hasattr(edge[0], "label"):
        edge[0].label = f"{name}Backward0"
    return result
