"""Weights in safetensors files."""

import numpy as np
import pytest

from onnxgrad.ops.errors import LoadError, SaveError
from onnxgrad.runtime.weights_file import load_weights, save_weights

WEIGHTS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b/c.d": np.array(7, np.int64)}


def test_they_come_back(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights({"a": WEIGHTS["a"].T, "b/c.d": WEIGHTS["b/c.d"]}, path, {"epoch": "3"})
    again = load_weights(path)
    np.testing.assert_array_equal(WEIGHTS["a"].T, again["a"])
    assert again["b/c.d"] == 7
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_weights(WEIGHTS, path)
    before = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SaveError, match="No space"):
        save_weights({"a": np.zeros(3)}, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_what_is_no_such_file(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(LoadError, match=r"w\.safetensors"):
        load_weights(path)
    with pytest.raises(FileNotFoundError):
        load_weights(tmp_path / "none")
