"""InferenceSession answers as onnxruntime's does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from onnxgrad.importers.onnx.session import InferenceSession
from onnxgrad.ops.errors import InputError, OnnxGradError

from .models import cnn

X = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)


def test_same_answers_and_descriptions(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(cnn().SerializeToString())
    ours, theirs = InferenceSession(path), ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for a, b in zip(ours.get_inputs() + ours.get_outputs(), theirs.get_inputs() + theirs.get_outputs(), strict=True):
        assert (a.name, a.type, a.shape) == (b.name, b.type, b.shape)
    np.testing.assert_allclose(ours.run(None, {"x": X})[0], theirs.run(None, {"x": X})[0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(ours.run(["y"], {"x": X})[0], theirs.run(["y"], {"x": X})[0], rtol=1e-5, atol=1e-7)
    assert ours.get_providers() == theirs.get_providers()


@pytest.mark.parametrize(
    ("names", "feeds"),
    [
        (None, {}),
        (None, {"x": X.astype(np.float64)}),
        (None, {"x": X[0]}),
        (None, {"z": X}),
        (["nope"], {"x": X}),
        (None, {"x": X[:, :2]}),
    ],
)
def test_both_refuse(names: list[str] | None, feeds: dict[str, np.ndarray]) -> None:
    data = cnn().SerializeToString()
    with pytest.raises(Exception):  # noqa: B017 - onnxruntime's classes are its own; that it refuses is what counts
        ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(names, feeds)
    with pytest.raises(InputError):
        InferenceSession(data).run(names, feeds)


def test_bytes_and_nonsense() -> None:
    with pytest.raises(OnnxGradError):
        InferenceSession(b"nonsense")
    with pytest.raises(InputError, match="dictionary"):
        InferenceSession(cnn().SerializeToString()).run(None, [X])  # type: ignore[arg-type]
