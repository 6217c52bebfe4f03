"""What is measured: every case of the suite, and the goals that the cases are held to.

A ratio is the peer's time divided by ours, the median of alternating blocks of one run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .networks import NETWORKS

KINDS = ("inference", "exact", "bf16", "int8", "tiny", "training", "eager", "contention")


@dataclass(frozen=True, order=True)
class Case:
    """One measurement, in a process of its own.

    Args:
        kind: one of `KINDS`.
        name: of the network or model.
        batch: examples a run.
        threads: of every engine.
    """

    kind: str
    name: str
    batch: int
    threads: int

    @property
    def key(self) -> str:
        """What names it in files and on the screen."""
        return f"{self.kind}/{self.name}/batch{self.batch}/threads{self.threads}"


@dataclass(frozen=True)
class RealModel:
    """A model of `../shared/models` with reference inputs beside it.

    Args:
        axes: input -> the axis that is the batch, for batches that the reference inputs do not have; without any, the
            file fixes its batch.
    """

    axes: Mapping[str, int] | None = None


REAL = {
    "yolox-nano": RealModel(),
    "silero-vad": RealModel({"input": 0, "state": 1}),
    "crepe-tiny": RealModel({"input": 0}),
    "ppocrv3-det": RealModel({"x": 0}),
}
INT8 = ("kws-micro-qdq", "mnist-int8-qop", "resnet18-int8")
TINY = ("rl-g1-mjx", "rl-ships-godot", "mnist8-cntk", "mnist-rten", "mnist-burn")
BF16 = tuple(name for name in NETWORKS if name != "unet")
CONTENTION = ("resnet18", "resnet50", "mobilenetv2", "bert_base")


def all_cases() -> Iterator[Case]:
    """Yield the cases, in the order in which they are measured."""
    for name in NETWORKS:
        for batch in (1, 8):
            for threads in (1, 2):
                yield Case("inference", name, batch, threads)
    for name, real in REAL.items():
        for batch in (1, 8) if real.axes else (1,):
            for threads in (1, 2):
                yield Case("inference", name, batch, threads)
    yield Case("exact", "resnet50", 1, 1)
    for kind, names in (("int8", INT8), ("tiny", TINY), ("bf16", BF16)):
        for name in names:
            for threads in (1, 2):
                yield Case(kind, name, 1, threads)
    for name in NETWORKS:
        yield Case("training", name, 8, 2)
    yield Case("eager", "chain", 1, 1)
    for name in CONTENTION:
        yield Case("contention", name, 1, 2)


@dataclass(frozen=True)
class Goal:
    """A line of the table of goals.

    Args:
        title: what it says.
        kind: of the cases that it looks at.
        figure: of `FIGURES` in `report`.
        geomean: what the cases' geometric mean should reach.
        worst: what no single case should fall below.
        names: of these cases only.
        unit: behind the numbers.
    """

    title: str
    kind: str
    figure: str
    geomean: float
    worst: float | None = None
    names: tuple[str, ...] = ()
    unit: str = "x"


GOALS = (
    Goal("inference, float32: onnxruntime", "inference", "onnxruntime", 1.4, 0.95),
    Goal("inference, float32: the faster of onnxruntime and OpenVINO", "inference", "faster", 1.25, 0.95),
    Goal("ResNet-18 and VGG-11: onnxruntime", "inference", "onnxruntime", 1.8, names=("resnet18", "vgg11")),
    Goal("ResNet-50: onnxruntime", "inference", "onnxruntime", 1.3, names=("resnet50",)),
    Goal("training step, batch 8: the fastest PyTorch", "training", "faster", 2.0, 1.2),
    Goal("chain of 1,000 eager ops, forward and backward: PyTorch", "eager", "faster", 0.5, 0.5),
    Goal("inference, bfloat16: OpenVINO in bfloat16", "bf16", "openvino", 0.9, 0.7),
    Goal("int8: onnxruntime", "int8", "onnxruntime", 1.0, 0.8),
    Goal("tiny models, a whole run: onnxruntime", "tiny", "onnxruntime", 1.0, 0.8),
    Goal("load to first result: onnxruntime", "inference", "first_result", 1.0, 0.6),
    Goal("resident memory, files over 20 MB: onnxruntime", "inference", "memory", 1.0, 1 / 1.3),
    Goal("ResNet-50 without Winograd, 1 thread: share of the FMA peak", "exact", "share_of_peak", 85, unit=" %"),
    Goal("2 threads beside a busy process: time on 1 thread", "contention", "one_thread", 1 / 1.3, 1 / 1.3),
)


def options_of(kind: str) -> dict[str, Any]:
    """Return what `onnxgrad.load` is told for a kind of case."""
    return {"exact": {"accuracy": "exact"}, "bf16": {"precision": "bf16"}}.get(kind, {})
