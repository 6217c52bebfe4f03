"""Saving: the same nodes, names, opset and metadata, with new weights; onnxruntime computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from onnxgrad.importers.onnx.model import load, load_bytes
from onnxgrad.importers.onnx.save import save, to_bytes
from onnxgrad.ops.errors import SaveError

from .models import attention_model, cnn, model, tensor

CPU = ["CPUExecutionProvider"]


def changed(m: Any, seed: int = 0) -> Any:
    """Return the model with every parameter moved."""
    rng = np.random.default_rng(seed)
    for p in m.parameters():
        p.data = (p.detach().numpy() + 0.1 * rng.standard_normal(p.shape)).astype(p.dtype)
    return m


FEEDS = {
    "cnn": (cnn, {"x": np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)}),
    "attention": (attention_model, {"ids": np.array([[1, 2, 3, 4], [10, 0, 5, 5]])}),
}


@pytest.mark.parametrize("name", list(FEEDS))
def test_saved_model_is_the_imported_one_with_new_weights(name: str, tmp_path: Path) -> None:
    make, feeds = FEEDS[name]
    original = make()
    m = changed(load_bytes(original.SerializeToString()))
    path = tmp_path / "tuned.onnx"
    save(m, path)
    onnx.checker.check_model(path, full_check=True)
    written = onnx.load(path)
    assert [n for n in written.graph.node if n.op_type != "Constant"] == [
        n for n in original.graph.node if n.op_type != "Constant"
    ]
    assert [t.name for t in written.graph.initializer] == [t.name for t in original.graph.initializer]
    for part in ("opset_import", "metadata_props", "producer_name", "doc_string", "ir_version"):
        assert getattr(written, part) == getattr(original, part)
    (theirs,) = ort.InferenceSession(path, providers=CPU).run(None, feeds)
    (ours,) = m.run(feeds)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(load(path).run(feeds)[0], ours)


def test_an_unchanged_model_is_saved_as_it_was(tmp_path: Path) -> None:
    original = cnn()
    save(load_bytes(original.SerializeToString()), tmp_path / "same.onnx")
    assert onnx.load(tmp_path / "same.onnx") == original


def test_new_head_is_saved(tmp_path: Path) -> None:
    m = load_bytes(cnn().SerializeToString()).replace_head(9, seed=1)
    save(m, tmp_path / "head.onnx")
    onnx.checker.check_model(tmp_path / "head.onnx", full_check=True)
    _, feeds = FEEDS["cnn"]
    (theirs,) = ort.InferenceSession(tmp_path / "head.onnx", providers=CPU).run(None, feeds)
    assert theirs.shape == (3, 9)
    np.testing.assert_allclose(m.run(feeds)[0], theirs, rtol=1e-5, atol=1e-6)


def test_half_precision_is_saved_as_half(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    proto = model([node], {"x": ["N", 40]}, {"y": ["N", 30]}, [tensor("w", 40, 30, dtype=np.float16)])
    for info in (proto.graph.input[0], proto.graph.output[0]):
        info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    m = changed(load_bytes(proto.SerializeToString()))
    save(m, tmp_path / "half.onnx")
    again = load(tmp_path / "half.onnx")
    assert onnx.load(tmp_path / "half.onnx").graph.initializer[0].data_type == onnx.TensorProto.FLOAT16
    w = dict(m.named_parameters())["w"].detach().numpy()
    np.testing.assert_array_equal(
        dict(again.named_parameters())["w"].detach().numpy(), w.astype(np.float16).astype(np.float32)
    )


def test_external_data_stays_beside_the_file(tmp_path: Path) -> None:
    m = changed(load_bytes(model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 40]}, {"y": ["N", 30]}, [tensor("w", 40, 30)]
    ).SerializeToString()))  # fmt: skip
    save(m, tmp_path / "a.onnx", external_data=True)
    assert (tmp_path / "a.onnx.data").stat().st_size == 40 * 30 * 4
    x = np.ones((2, 40), np.float32)
    np.testing.assert_array_equal(load(tmp_path / "a.onnx").run({"x": x})[0], m.run({"x": x})[0])
    np.testing.assert_allclose(
        ort.InferenceSession(tmp_path / "a.onnx", providers=CPU).run(None, {"x": x})[0],
        m.run({"x": x})[0],
        rtol=1e-5,
    )
    save(load(tmp_path / "a.onnx"), tmp_path / "b.onnx")
    assert (tmp_path / "b.onnx.data").exists()


def test_saving_over_a_file_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(cnn().SerializeToString())
    before = path.read_bytes()
    m = changed(load(path))

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(SaveError, match="No space left"):
        save(m, path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx"]
    monkeypatch.undo()
    save(m, path)
    assert path.read_bytes() != before


def test_wrong_targets(tmp_path: Path) -> None:
    m = load_bytes(cnn().SerializeToString())
    with pytest.raises(SaveError, match="does not exist"):
        save(m, tmp_path / "nowhere" / "m.onnx")
    with pytest.raises(SaveError, match="wants a model from"):
        save(object(), tmp_path / "m.onnx")  # type: ignore[arg-type]
    assert load_bytes(to_bytes(m)).inputs == m.inputs
