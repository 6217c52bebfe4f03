"""Bad files: each gives an error of the tree that says what is wrong, and nothing is lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxgrad.importers.onnx.model import load, load_bytes
from onnxgrad.ops.errors import (
    ExternalDataError,
    InvalidGraphError,
    LoadError,
    NotOnnxError,
    ShapeError,
    UnsupportedAttributeError,
    UnsupportedOperatorError,
)

from .models import cnn, model, tensor

NODE = helper.make_node


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"this is text, not a protobuf", "onnx|ONNX"),
        (b"\x08\x07", "no ONNX graph"),
        (b"PK\x03\x04" * 50, "ONNX"),
    ],
)
def test_not_onnx(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(NotOnnxError, match=says):
        load(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.onnx") as caught:
        load(tmp_path / "nothing.onnx")
    assert isinstance(caught.value, LoadError)
    with pytest.raises(NotOnnxError, match="folder"):
        load(tmp_path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated(tmp_path: Path, share: float) -> None:
    data = cnn().SerializeToString()
    path = tmp_path / "m.onnx"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(LoadError):
        load(path)


def external(folder: Path, location: str = "weights.bin", **info: Any) -> Path:
    """Write a MatMul whose weight lies beside the file."""
    m = model([NODE("MatMul", ["x", "w"], ["y"], "mm")], {"x": ["N", 3]}, {"y": ["N", 2]}, [tensor("w", 3, 2)])
    w = m.graph.initializer[0]
    data = w.raw_data
    w.ClearField("raw_data")
    w.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "4", "length": str(len(data)), **info}.items():
        entry = w.external_data.add()
        entry.key, entry.value = key, value
    path = folder / "m.onnx"
    path.write_bytes(m.SerializeToString())
    if not Path(location).is_absolute() and ".." not in location:
        (folder / location).write_bytes(b"\0\0\0\0" + data)
    return path


def test_external_data(tmp_path: Path) -> None:
    loaded = load(external(tmp_path))
    x = np.eye(3, dtype=np.float32)
    wanted = np.random.default_rng([0, 3, 2]).standard_normal((3, 2)).astype(np.float32)
    np.testing.assert_array_equal(loaded.run({"x": x})[0], wanted)


@pytest.mark.parametrize(
    ("location", "info", "says"),
    [
        ("/etc/passwd", {}, "relative"),
        ("../weights.bin", {}, "leaves"),
        ("a/../../weights.bin", {}, "leaves"),
        ("weights.bin", {"offset": "8"}, "short"),
        ("weights.bin", {"length": "8"}, "wanted 24"),
        ("weights.bin", {"offset": "-4"}, "short"),
        ("weights.bin", {"offset": "x"}, "integers"),
        ("", {}, "relative"),
    ],
)
def test_bad_external_data(tmp_path: Path, location: str, info: dict[str, str], says: str) -> None:
    path = external(tmp_path, location or "weights.bin")
    m = onnx.load(path, load_external_data=False)
    for entry in m.graph.initializer[0].external_data:
        entry.value = {"location": location, **info}.get(entry.key, entry.value)
    path.write_bytes(m.SerializeToString())
    with pytest.raises(ExternalDataError, match=says):
        load(path)


def test_missing_external_data(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ExternalDataError, match="missing"):
        load(path)


def test_external_data_that_links_out_of_the_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    path = external(inside)
    os.rename(inside / "weights.bin", outside / "secret.bin")
    (inside / "weights.bin").symlink_to(outside / "secret.bin")
    with pytest.raises(ExternalDataError, match="link"):
        load(path)


def test_hugging_face_cache_layout(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    path = external(snapshot)
    for name, blob in (("m.onnx", "0123"), ("weights.bin", "4567")):
        os.rename(snapshot / name, blobs / blob)
        (snapshot / name).symlink_to(Path("../../blobs") / blob)
    assert load(path).inputs[0].name == "x"


def bad_graphs() -> dict[str, tuple[onnx.ModelProto, type[Exception], str]]:
    """Return models that contradict themselves or ask for what is not there."""
    x, y = {"x": ["N", 2]}, {"y": ["N", 2]}

    def of(*nodes: onnx.NodeProto, tensors: Any = (), **how: Any) -> onnx.ModelProto:
        return model(nodes, x, y, tensors, **how)

    elsewhere = [helper.make_opsetid("my.domain", 3)]
    return {
        "cycle": (
            of(
                NODE("Add", ["x", "b"], ["a"], "first"),
                NODE("Relu", ["a"], ["b"], "second"),
                NODE("Relu", ["b"], ["y"]),
            ),
            InvalidGraphError,
            "cycle through Add 'first', Relu 'second'",
        ),
        "dangling": (of(NODE("Add", ["x", "nowhere"], ["y"], "sum")), InvalidGraphError, "'nowhere'"),
        "undefined output": (of(NODE("Relu", ["x"], ["z"])), InvalidGraphError, "'y'"),
        "duplicate output": (
            of(NODE("Relu", ["x"], ["y"], "a"), NODE("Tanh", ["x"], ["y"], "b")),
            InvalidGraphError,
            "defined twice",
        ),
        "duplicate initializer": (
            of(NODE("Add", ["x", "w"], ["y"]), tensors=[tensor("w", 2), tensor("w", 2)]),
            InvalidGraphError,
            "two initializers",
        ),
        "unknown operator": (
            of(NODE("Frobnicate", ["x"], ["y"], "strange")),
            UnsupportedOperatorError,
            "Frobnicate-1 at node 'strange'",
        ),
        "unknown domain": (
            of(NODE("Foo", ["x"], ["y"], "foo", domain="my.domain"), extra_opsets=elsewhere),
            UnsupportedOperatorError,
            "my.domain::Foo-1",
        ),
        "unknown attribute": (
            of(NODE("Relu", ["x"], ["y"], "odd", slope=0.1)),
            UnsupportedAttributeError,
            r"Relu-14 'odd'.*slope",
        ),
        "wrong shape": (
            of(NODE("MatMul", ["x", "w"], ["y"], "mm"), tensors=[tensor("w", 3, 2)]),
            ShapeError,
            "MatMul-13 'mm'",
        ),
    }


@pytest.mark.parametrize("name", list(bad_graphs()))
def test_bad_graph(name: str) -> None:
    m, error, says = bad_graphs()[name]
    with pytest.raises(error, match=says):
        load_bytes(m.SerializeToString())


@pytest.mark.parametrize("opset", [0, 999])
def test_unknown_operator_set(opset: int) -> None:
    m = model([NODE("Relu", ["x"], ["y"])], {"x": ["N", 2]}, {"y": ["N", 2]})
    m.opset_import[0].version = opset
    with pytest.raises(UnsupportedOperatorError, match=f"operator set {opset} of ai.onnx; known are 1 to"):
        load_bytes(m.SerializeToString())


def test_all_unsupported_operators_are_named_at_once() -> None:
    m = model(
        [NODE("Frob", ["x"], ["a"], "one"), NODE("Frob", ["a"], ["b"], "two"), NODE("Quux", ["b"], ["y"], "three")],
        {"x": ["N", 2]}, {"y": ["N", 2]},
    )  # fmt: skip
    with pytest.raises(UnsupportedOperatorError) as caught:
        load_bytes(m.SerializeToString())
    assert "Frob-1 at node 'one' and 1 more" in str(caught.value)
    assert "Quux-1" in str(caught.value)


def test_a_graph_out_of_order_is_sorted() -> None:
    m = model([NODE("Relu", ["a"], ["y"]), NODE("Neg", ["x"], ["a"])], {"x": ["N", 2]}, {"y": ["N", 2]})
    x = np.array([[-1, 2]], np.float32)
    np.testing.assert_array_equal(load_bytes(m.SerializeToString()).run({"x": x})[0], [[1, 0]])
