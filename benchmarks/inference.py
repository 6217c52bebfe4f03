"""Latency against onnxruntime: both in one process, in alternating blocks, medians and their ratio.

Run: python benchmarks/inference.py [MODEL ...] writes benchmarks/RESULTS.md. Without models it takes the ResNet-50-size
graph that ships in the onnx package, and the shared real models where they lie beside the checkout.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

import onnxgrad as og

HERE = Path(__file__).parent
BLOCKS, BLOCK_S = 7, 0.4
REAL = (
    "squeezenet-fp16",
    "yolox-nano",
    "crepe-tiny",
    "tinybert-tribuo",
    "gtcrn",
    "kws-micro-fp32",
    "ultraface-rfb-320",
)


def default_models() -> list[Path]:
    """Return the models that are there."""
    light = Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx"
    shared = Path(os.environ.get("ONNXGRAD_SHARED", HERE.parents[1] / "shared")) / "models"
    return [light, *(p for n in REAL if (p := shared / n / "model.onnx").exists())]


def feeds_of(session: ort.InferenceSession, path: Path) -> dict[str, Any]:
    """Return the reference inputs beside a model, or seeded random ones."""
    if (path.parent / "io.npz").exists():
        with np.load(path.parent / "io.npz") as io:
            return {k[3:]: io[k] for k in io.files if k.startswith("in:")}
    rng = np.random.default_rng(0)
    return {
        i.name: rng.standard_normal([d if isinstance(d, int) else 1 for d in i.shape]).astype(np.float32)
        for i in session.get_inputs()
    }


def block(call: Any) -> float:
    """Return the median time of a call over a block, in seconds."""
    times, end = [], time.perf_counter() + BLOCK_S
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(path: Path, threads: int) -> tuple[float, float, float, float]:
    """Return our median, onnxruntime's, the median of the blocks' ratios, and their spread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # idle threads would take our blocks' cores
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = feeds_of(session, path)
    model = og.load(path)
    model.run(feeds)
    session.run(None, feeds)
    ours, theirs = [], []
    for _ in range(BLOCKS):
        ours.append(block(lambda: model.run(feeds)))
        theirs.append(block(lambda: session.run(None, feeds)))
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    return statistics.median(ours), statistics.median(theirs), statistics.median(ratios), ratios[-1] - ratios[0]


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    rows = []
    for path in args.models or default_models():
        name = path.parent.name if path.stem == "model" else path.stem
        ours, theirs, ratio, spread = measure(path, args.threads)
        rows.append(f"| {name} | {ours * 1e3:.2f} | {theirs * 1e3:.2f} | {ratio:.1f} | {spread:.1f} |")
        print(rows[-1], flush=True)
    text = [
        "# Inference, batch 1",
        "",
        f"`python benchmarks/inference.py`; {platform.machine()}, {args.threads} threads, NumPy {np.__version__}, "
        f"onnxruntime {ort.__version__}; medians of {BLOCKS} alternating blocks. Shared machine: read the ratios.",
        "",
        "| model | onnxgrad, ms | onnxruntime, ms | ratio | spread |",
        "|---|---|---|---|---|",
        *rows,
    ]
    (HERE / "RESULTS.md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
