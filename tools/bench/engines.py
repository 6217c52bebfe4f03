"""What is measured: this engine and its peers, each behind the same two calls.

Every engine gets the threads that it is told and otherwise its own defaults, as its users have them. onnxruntime's
pool keeps spinning for some time after a run (`session.intra_op.allow_spinning`), so whoever measures has to pause.
OpenVINO computes in float32 (its default is bfloat16 on CPUs that have it), reads inputs where they lie and returns
outputs that the caller may keep.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...ops.errors import InputError, MissingExtraError

OURS = "onnxgrad"
PEERS = ("onnxruntime", "openvino")
ON_CUDA = ("onnxruntime",)
"""The peers that can be measured on a CUDA device."""

Feeds = Mapping[str, Any]


@dataclass(frozen=True)
class Runner:
    """A model that is ready to run.

    Attributes:
        name: of the engine.
        run: from feeds to outputs, in the file's order.
        model: our `Model`, None for peers.
    """

    name: str
    run: Callable[[Feeds], list[Any]]
    model: Any = None


def check_peers(names: Iterable[str], device: str = "cpu") -> None:
    """Refuse peers that cannot be measured, before anything else takes time.

    Raises:
        InputError: if a name is unknown, is PyTorch, which runs no .onnx files, or does not run on the device.
        MissingExtraError: if a package is not installed.
    """
    for name in names:
        if name == "torch":
            raise InputError(
                "PyTorch runs no .onnx file, so it is no peer here. `python -m benchmarks` in a checkout measures its "
                "training step on networks that are defined in PyTorch"
            )
        if name not in PEERS:
            raise InputError(f"no peer is named {name!r}; there are {', '.join(PEERS)}")
        if device != "cpu" and name not in ON_CUDA:
            raise InputError(f"{name} is measured on the CPU only; on {device} there is {', '.join(ON_CUDA)}")
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(f"--peer {name}: the package is not installed: pip install {name}")


def import_engine(name: str) -> str:
    """Import what an engine is made of and return its version, so that loading a model is timed without it."""
    if name == "onnxruntime":
        import onnxruntime

        return str(onnxruntime.__version__)
    if name == "openvino":
        import openvino

        return str(openvino.__version__)
    from importlib.metadata import version

    from ...importers.onnx import tensors
    from ...importers.onnx.model import load as load
    from ...ops.kernels.cpu.target import available

    tensors.dtype_of(1)  # imports the onnx package
    if available():
        from ...ops.kernels.cpu import jit as jit, load_rules
        from ...runtime.compiled import kept as kept, program as program, shortcut as shortcut

        load_rules()
    return version("onnxgrad")


def open_model(name: str, path: Path, threads: int, **options: Any) -> Runner:
    """Load a model into an engine.

    Args:
        name: `onnxgrad` or a peer.
        path: of the .onnx file.
        threads: how many it may use.
        options: for `onnxgrad.load`; `device` for onnxruntime, `precision` for OpenVINO.

    Raises:
        InputError: if onnxruntime has no CUDA provider and the device is one.
    """
    if name == "onnxruntime":
        return _onnxruntime(path, threads, **options)
    if name == "openvino":
        return _openvino(path, threads, **options)
    from ...importers.onnx.model import load

    model = load(path, threads=threads, **options)
    return Runner(OURS, lambda feeds: model.run(dict(feeds)), model)


def _onnxruntime(path: Path, threads: int, device: str = "cpu") -> Runner:
    import onnxruntime as ort

    kind, _, number = device.partition(":")
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[kind]
    if provider not in ort.get_available_providers():
        raise InputError(f"this onnxruntime has no {provider}: pip install onnxruntime-gpu in its place")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(
        str(path), options, providers=[(provider, {"device_id": number or "0"} if kind == "cuda" else {})]
    )
    return Runner("onnxruntime", lambda feeds: session.run(None, feeds))


def _openvino(path: Path, threads: int, precision: str = "f32") -> Runner:
    import openvino

    compiled = openvino.Core().compile_model(
        str(path),
        "CPU",
        {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision},
    )
    request = compiled.create_infer_request()
    outputs = range(len(compiled.outputs))

    def run(feeds: Feeds) -> list[Any]:
        results = request.infer(dict(feeds), share_inputs=True, share_outputs=False)
        return [results[i] for i in outputs]

    return Runner("openvino", run)
