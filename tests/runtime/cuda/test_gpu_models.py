"""Real models on a GPU against the outputs that onnxruntime gave, with inputs that change, replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.runtime.cuda.capture import WARM_UPS
from onnxgrad.runtime.cuda.steps import ArrayCall

from ...importers.test_real_models import HALF, INACCURATE_REFERENCE, difference, reference
from ...shared_data import find_shared

pytestmark = pytest.mark.gpu

SHARED = find_shared()
NAMES = (
    "mnist8-cntk", "mnist-burn", "mnist-rten", "mnist-int8-qop", "imageclassifier-cifar10-winml", "squeezenet-fp16",
    "kws-micro-fp32", "kws-micro-qdq", "yolox-nano", "fastestdet", "ultraface-rfb-320", "yunet-n-dynamic", "mtcnn-onet",
    "sinet-portrait", "ppocrv3-det", "ppocr-cls", "person-reid-0248", "fsanet-var", "espcn-bsd300-nnresize",
    "cct2-32-opset20-deeploy", "tinyvit-demo-deeploy", "tinybert-tribuo", "bert-toy-optimized-ort", "gpt2-past-ort",
    "vespa-random-decoder", "byte-sb-bidi-lstm", "gtcrn", "dtln-1", "crepe-tiny", "swift-f0", "silero-vad",
    "ort-test-rnn-bidirectional-one-layer-relu", "ort-scan-1", "ort-loop-sub-one", "voicevox-intonation", "rl-g1-mjx",
    "rl-ships-godot",
)  # fmt: skip
"""Less than 40 MB together: each kind of network, and bodies that run node by node."""

QUANTISED = ("kws-micro-qdq", "mnist-int8-qop")


@pytest.fixture(scope="module", autouse=True)
def table(summary: Callable[[str], None]) -> Iterator[list[str]]:
    """Lines of what ran how, printed after the tests."""
    rows: list[str] = []
    yield rows
    for row in rows:
        summary(row)


def told(model: Any) -> str:
    """Return how a model runs, in a line."""
    plan = model.plan()
    if not plan.programs:
        return f"node by node: {', '.join(dict.fromkeys(plan.refused.values()))}"
    (program, *_) = plan.programs
    arrays = [s.ops[0] if s.ops else "" for s in program.steps if isinstance(s.work, ArrayCall)]
    shown = f" ({', '.join(dict.fromkeys(arrays))})" if arrays else ""
    return f"{len(program.steps)} steps, {len(arrays)} of array kernels{shown}, {program.capture.graphs} CUDA graphs"


@pytest.mark.parametrize("name", NAMES)
def test_outputs(name: str, table: list[str]) -> None:
    if SHARED is None or not (SHARED / "models" / name).is_dir():
        pytest.skip(f"no {name} in shared/models")
    folder = SHARED / "models" / name
    model = og.load(folder / "model.onnx", device="cuda")
    wanted = reference(folder, model)
    assert wanted is not None
    names = [o.name for o in model.outputs]
    if name in INACCURATE_REFERENCE:
        exact = og.load(folder / "model.onnx", accuracy="exact").run(wanted.feeds)
        wanted.outputs = dict(zip(names, exact, strict=True))
    tolerance = 5e-3 if name in HALF else 5e-4
    for _ in range(WARM_UPS + 2):
        found = dict(zip(names, model.run(wanted.feeds), strict=True))
        for key, w in wanted.outputs.items():
            if name in QUANTISED:
                f = np.asarray(found[key])
                assert f.argmax() == w.argmax()
                assert np.abs(f.astype(float) - w.astype(float)).max() <= max(1 / 256, float(np.ptp(w)) / 50)
            else:
                assert difference(found[key], w) <= tolerance
    table.append(f"  {name:42} {told(model)}")


@pytest.mark.parametrize("name", ["mnist8-cntk", "cct2-32-opset20-deeploy", "person-reid-0248", "tinybert-tribuo"])
def test_recorded_programs_read_what_they_are_given(name: str) -> None:
    """Replays with other inputs, and with other weights, answer as the CPU does."""
    if SHARED is None or not (SHARED / "models" / name).is_dir():
        pytest.skip(f"no {name} in shared/models")
    folder = SHARED / "models" / name
    here, there = (og.load(folder / "model.onnx", device=d, accuracy="exact") for d in ("cpu", "cuda"))
    wanted = reference(folder, here)
    assert wanted is not None
    rng = np.random.default_rng(0)
    for run in range(WARM_UPS + 4):
        feeds = {
            k: (v * rng.uniform(0.5, 1.5, v.shape)).astype(v.dtype) if v.dtype.kind == "f" else v
            for k, v in wanted.feeds.items()
        }
        if run == WARM_UPS + 2:
            for model in (here, there):
                first = next(iter(model.parameters()))
                first.data = first.data * 0.5
        for f, w in zip(there.run(feeds), here.run(feeds), strict=True):
            assert difference(f, w) <= 5e-4
    assert there.plan().programs[-1].capture.graphs
