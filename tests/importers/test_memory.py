"""Loading holds the weights about twice at its peak and once afterwards; running adds its activations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from .models import model

LAYERS, SIZE = 6, 2048

MEASURE = """
import sys, numpy as np, onnx
from onnxgrad.importers.onnx.model import load
def peak(): return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
m = load(sys.argv[1])
loaded = peak()
m.run({"x": np.ones((1, %d), np.float32)})
print(before, loaded, peak())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own account of memory")
def test_peak_stays_below_two_and_a_half_times_the_weights(tmp_path: Path) -> None:
    weights = [numpy_helper.from_array(np.full((SIZE, SIZE), 1e-3 * i, np.float32), f"w{i}") for i in range(LAYERS)]
    nodes = [helper.make_node("MatMul", [f"h{i}" if i else "x", f"w{i}"], [f"h{i + 1}"]) for i in range(LAYERS)]
    path = tmp_path / "large.onnx"
    made = model(nodes, {"x": ["N", SIZE]}, {f"h{LAYERS}": None}, weights)
    path.write_bytes(made.SerializeToString())
    done = subprocess.run([sys.executable, "-c", MEASURE % SIZE, path], capture_output=True, text=True, check=True)
    before, loaded, ran = map(int, done.stdout.split())
    size = LAYERS * SIZE * SIZE * 4
    assert loaded - before < 2.5 * size
    assert ran - before < 2.5 * size + 8 * SIZE * 4
