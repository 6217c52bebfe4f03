"""The suite on CUDA: its cases, its report, and its calls on the CPU, where they are the same but for the device."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MEASURE = """
import json, sys
from benchmarks.cuda import Case, Settings, measure, render

case = Case(*json.loads(sys.argv[1]))
figures = measure(case, Settings(blocks=2, duration_s=0.01, pause_s=0, warmup=1), "cpu")
said = {"commit": "c", "time": "t", "versions": {"torch": "2"}, "quick": True}
gone = Case("matmul", "8", 8, "bfloat16", 0.98), {"not_measured": "no | room"}
report = render([(case, {"figures": figures}), gone], said, "d")
print(json.dumps([sorted(figures["engines"]), figures["failures"], report]))
"""


def python(*argv: str) -> str:
    done = subprocess.run([sys.executable, *argv], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_cases():
    listed = python("-m", "benchmarks.cuda", "--list").split()
    assert len(listed) == len(set(listed))
    for wanted in ("inference/resnet50/128/float16", "training/bert_base/32/bfloat16", "matmul/8192/8192/bfloat16"):
        assert wanted in listed


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("case", "engines"),
    [
        (["bandwidth", "softmax", 16, "float32", 1e-9], ["a copy", "onnxgrad"]),
        (["matmul", "16", 16, "bfloat16", 1e9], ["onnxgrad", "torch"]),
    ],
)
def test_figures_and_report(case, engines):
    found, failures, report = json.loads(python("-c", MEASURE, json.dumps(case)))
    assert found == engines and failures == {}
    assert ("| met |" in report) == (case[-1] < 1) and ("**missed**" in report) == (case[-1] > 1)
    assert "| matmul/8/8/bfloat16 | no   room |" in report and "- device: d" in report
