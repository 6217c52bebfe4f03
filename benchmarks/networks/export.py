"""Networks as .onnx files, in a folder that git ignores.

Run: python -m benchmarks.networks.export [NAME ...]; `python -m benchmarks --check` checks them.
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import onnxgrad as og

from . import NETWORKS, Network

FOLDER = Path(__file__).resolve().parents[2] / "build" / "networks"


def path_of(name: str, *, training: bool = False) -> Path:
    """Return where the file of a network is: as users export it, or as it is trained."""
    return FOLDER / f"{name}{'-training' if training else ''}.onnx"


def export(network: Network, *, training: bool = False, again: bool = False) -> Path:
    """Write the file of a network if it is not there, and return its path.

    Args:
        network: what to export.
        training: keep every parameter as it is: batch normalisations apart, nothing folded, shared weights shared.
        again: write it even if it is there.
    """
    import torch

    path = path_of(network.name, training=training)
    if path.exists() and not again:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    module, example = network.build(), network.example(2)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter that writes what most files look like is the older one
            torch.onnx.export(
                module,
                tuple(torch.from_numpy(a) for a in example.values()),
                str(temporary),
                input_names=list(network.inputs),
                dynamic_axes=network.axes,
                opset_version=17,
                dynamo=False,
                do_constant_folding=not training,
                training=torch.onnx.TrainingMode.PRESERVE if training else torch.onnx.TrainingMode.EVAL,
            )
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def check(network: Network, path: Path) -> str:
    """Return what was compared: the number of parameters with the published one, outputs with onnxruntime's.

    Raises:
        AssertionError: if they differ.
    """
    import onnxruntime as ort
    import torch

    module = network.build()
    count = sum(p.numel() for p in module.parameters())
    assert abs(count / 1e6 - network.parameters) < 0.006, f"{network.name} has {count:,} parameters"
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    largest = 0.0
    for batch in (1, 3):
        feeds = network.example(batch, seed=1)
        with torch.no_grad():
            wanted: Any = module(*(torch.from_numpy(a) for a in feeds.values()))
        for w, found in zip(wanted if isinstance(wanted, tuple) else (wanted,), session.run(None, feeds), strict=True):
            scale = float(w.abs().max())
            assert np.isfinite(scale) and 1e-6 < scale < 1e6, f"{network.name}: outputs of {scale:g}"
            largest = max(largest, float(np.abs(w.numpy() - found).max()) / scale)
    parameters = sum(r.size for r in og.load(path).report() if r.kind == "parameter")
    if "training" in path.stem:
        assert parameters == count, f"{path.name} holds {parameters:,} parameters of {count:,}"
    assert largest < 1e-4, f"{network.name}: outputs differ by {largest:.1e} of the largest value"
    return f"{count:,} parameters, outputs agree within {largest:.1e} of the largest value"


def main() -> None:
    """Export networks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NETWORKS)} (default: all)")
    parser.add_argument("--again", action="store_true", help="write files that are there too")
    args = parser.parse_args()
    for name in args.names or NETWORKS:
        for training in (False, True):
            print(export(NETWORKS[name], training=training, again=args.again), flush=True)


if __name__ == "__main__":
    main()
