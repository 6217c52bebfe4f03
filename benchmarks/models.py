"""The files that are measured, and inputs for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from .cases import REAL, Case
from .networks import NETWORKS
from .networks.export import FOLDER, export

ROOT = Path(__file__).resolve().parents[1]


class NotMeasured(Exception):  # noqa: N818 (a result, not a fault)
    """A case that cannot be measured here; the message is the reason."""


def model_of(case: Case) -> tuple[Path, dict[str, Any]]:
    """Return a case's file, made if need be, and its inputs.

    Raises:
        NotMeasured: if the file is not here.
    """
    if case.name in NETWORKS:
        return export(NETWORKS[case.name]), NETWORKS[case.name].example(case.batch)
    if case.name == "resnet18-int8":
        return quantised("resnet18"), NETWORKS["resnet18"].example(case.batch)
    folder = Path(os.environ.get("ONNXGRAD_SHARED", ROOT.parent / "shared")) / "models" / case.name
    if not (folder / "model.onnx").exists():
        raise NotMeasured(f"{folder / 'model.onnx'} is not there; ONNXGRAD_SHARED names another folder")
    with np.load(folder / "io.npz") as io:
        feeds = {k.removeprefix("in:"): io[k] for k in io.files if k.startswith("in:")}
    for name, axis in (REAL[case.name].axes or {}).items() if case.name in REAL else ():
        feeds[name] = np.repeat(feeds[name], case.batch, axis)
    return folder / "model.onnx", feeds


def quantised(name: str) -> Path:
    """Return a network's file with QuantizeLinear and DequantizeLinear around int8, calibrated on seeded images."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [NETWORKS[name].example(4, seed=seed) for seed in range(1, 5)]

        def get_next(self) -> dict[str, Any] | None:
            return self.left.pop() if self.left else None

    path = FOLDER / f"{name}-int8.onnx"
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            quantize_static(
                export(NETWORKS[name]),
                temporary,
                Images(),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
            )
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return path
