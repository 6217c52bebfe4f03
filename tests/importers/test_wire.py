"""Weights that are not parsed: found in the bytes of a file, left there, and read when they are wanted."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxgrad.importers.onnx import read
from onnxgrad.importers.onnx.model import load, load_bytes
from onnxgrad.importers.onnx.read import read_bytes, read_model
from onnxgrad.importers.onnx.save import save
from onnxgrad.importers.onnx.wire import LARGE_BYTES, without_weights
from onnxgrad.ops.errors import LoadError, NotOnnxError
from onnxgrad.runtime.tensor.stored import SUPPORTED, StoredArray, StoredTensor

from .models import model

SIZE = 96
RNG = np.random.default_rng(0)
A, B = (RNG.standard_normal((SIZE, SIZE)).astype(np.float32) for _ in range(2))
X = RNG.standard_normal((3, SIZE)).astype(np.float32)

posix = pytest.mark.skipif(not SUPPORTED, reason="an open file can be replaced on POSIX only")


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "STORED_BYTES", 1)


def proto(*weights: onnx.TensorProto) -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("MatMul", ["h", "b"], ["y"])]
    given = weights or (numpy_helper.from_array(A, "a"), numpy_helper.from_array(B, "b"))
    return model(nodes, {"x": ["N", SIZE]}, {"y": None}, list(given))


def write(path: Path, *weights: onnx.TensorProto) -> Path:
    path.write_bytes(proto(*weights).SerializeToString())
    return path


def stored(m: Any) -> list[str]:
    return [n for n, t in m.named_parameters() if isinstance(t, StoredTensor)]


def varint(n: int) -> bytes:
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*out, n])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def test_light_bytes_are_the_model_without_its_data() -> None:
    whole = proto()
    written = whole.SerializeToString()
    found = without_weights(written)
    assert found is not None
    data, spans = found
    light = onnx.ModelProto.FromString(data)
    for i, t in enumerate(whole.graph.initializer):
        assert written[spans[i].start : spans[i].end] == t.raw_data
        t.ClearField("raw_data")
    assert light == whole


@pytest.mark.parametrize("offset", range(4))
def test_weights_at_any_offset(tmp_path: Path, offset: int) -> None:
    path = write(tmp_path / "m.onnx", numpy_helper.from_array(A, "a"), numpy_helper.from_array(B, "b"))
    whole = onnx.load(path)
    whole.doc_string = "d" * (offset + 1)
    whole.graph.initializer[0].doc_string = "e" * offset
    path.write_bytes(whole.SerializeToString())
    m = load(path)
    np.testing.assert_allclose(m.run({"x": X})[0], X @ A @ B, rtol=1e-4, atol=1e-3)
    for name, wanted in (("a", A), ("b", B)):
        np.testing.assert_array_equal(dict(m.named_parameters())[name].detach().numpy(), wanted)


def test_unpacked_values_and_small_tensors_are_parsed(tmp_path: Path) -> None:
    t = helper.make_tensor("a", onnx.TensorProto.FLOAT, A.shape, A.reshape(-1).tolist())
    m = load(write(tmp_path / "m.onnx", t, numpy_helper.from_array(B, "b")))
    assert stored(m) == (["b"] if SUPPORTED else [])
    np.testing.assert_array_equal(dict(m.named_parameters())["a"].detach().numpy(), A)
    assert (
        without_weights(proto(t, helper.make_tensor("b", 1, B.shape, B.reshape(-1).tolist())).SerializeToString())
        is None
    )


def test_a_graph_in_two_fields_is_merged_in_order() -> None:
    whole = proto()
    first, second = onnx.GraphProto(), onnx.GraphProto()
    first.CopyFrom(whole.graph)
    second.initializer.append(first.initializer[1])
    del first.initializer[1]
    whole.ClearField("graph")
    data = whole.SerializeToString() + field(7, first.SerializeToString()) + field(7, second.SerializeToString())
    weights = read_bytes(data, "m")
    for t, wanted in zip(weights.proto.graph.initializer, (A, B), strict=True):
        np.testing.assert_array_equal(weights.read(t), wanted)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t + field(9, A.tobytes()),  # two raw_data: the last one counts
        lambda t: t + varint(9 << 3) + varint(5),  # raw_data as a number: an unknown field
        lambda t: t + varint(50 << 3 | 3) + varint(50 << 3 | 4),  # a group
    ],
)
def test_unusual_tensors_are_left_to_protobuf(tmp_path: Path, spoil: Any) -> None:
    t = spoil(numpy_helper.from_array(B, "a").SerializeToString())
    whole = proto(numpy_helper.from_array(B, "b"))
    whole.graph.ClearField("initializer")
    graph = whole.graph.SerializeToString()
    graph += field(5, t) + field(5, numpy_helper.from_array(B, "b").SerializeToString())
    whole.ClearField("graph")
    data = whole.SerializeToString() + field(7, graph)
    assert without_weights(data) is None
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    wanted = numpy_helper.to_array(onnx.ModelProto.FromString(data).graph.initializer[0])
    weights = read_model(path)
    np.testing.assert_array_equal(weights.read(weights.proto.graph.initializer[0]), wanted)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint16", "int64", "bool", "bfloat16"])
def test_element_types(tmp_path: Path, dtype: str) -> None:
    kind = np.dtype(dtype) if dtype != "bfloat16" else helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)
    array = RNG.integers(0, 2, (SIZE, 400)).astype(kind)
    t = numpy_helper.from_array(array, "a")
    for weights in (read_model(write(tmp_path / "m.onnx", t)), read_bytes(proto(t).SerializeToString(), "m")):
        found = weights.read(weights.proto.graph.initializer[0])
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, numpy_helper.to_array(t))
        assert not weights.proto.graph.initializer[0].raw_data


def test_elements_of_four_bits_are_unpacked(tmp_path: Path) -> None:
    t = onnx.TensorProto(name="a", data_type=onnx.TensorProto.UINT4, dims=[400, SIZE], raw_data=RNG.bytes(200 * SIZE))
    weights = read_model(write(tmp_path / "m.onnx", t))
    np.testing.assert_array_equal(weights.read(weights.proto.graph.initializer[0]), numpy_helper.to_array(t))


@pytest.mark.parametrize("change", ["short", "long", "negative", "type"])
def test_data_that_do_not_fit_are_refused_as_ever(tmp_path: Path, change: str) -> None:
    t = numpy_helper.from_array(A, "a")
    if change in ("short", "long"):
        t.raw_data = t.raw_data[:-4] if change == "short" else t.raw_data + bytes(4)
    elif change == "negative":
        t.dims[0] = -SIZE
    else:
        t.data_type = 99
    with pytest.raises(NotOnnxError, match="'a'"):
        read_model(write(tmp_path / "m.onnx", t))
    with pytest.raises(NotOnnxError, match="'a'"):
        read_bytes(proto(t).SerializeToString(), "m")


@pytest.mark.parametrize("cut", [1, 9, LARGE_BYTES, SIZE * SIZE * 4 + 20])
def test_truncated_files_are_refused(tmp_path: Path, cut: int) -> None:
    data = proto().SerializeToString()[:-cut]
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(NotOnnxError):
        load(path)
    with pytest.raises(NotOnnxError):
        load_bytes(data)


@posix
def test_running_leaves_weights_in_the_file_and_looking_reads_them(tmp_path: Path) -> None:
    m = load(write(tmp_path / "m.onnx"))
    assert stored(m) == ["a", "b"]
    a = dict(m.named_parameters())["a"]
    assert (a.shape, str(a.dtype), a.ndim, a.nbytes, a.numel(), str(a.device)) == (
        A.shape,
        "float32",
        2,
        A.nbytes,
        A.size,
        "cpu",
    )
    m.report(), repr(m)
    assert stored(m) == ["a", "b"]
    np.testing.assert_array_equal(a.detach().numpy(), A)
    assert stored(m) == ["b"] and a.detach().numpy() is a.detach().numpy()


@pytest.mark.parametrize("offset", range(4))
def test_weights_are_packed_straight_from_odd_addresses(tmp_path: Path, offset: int) -> None:
    ort = pytest.importorskip("onnxruntime")
    n = helper.make_node
    shapes = {"c": (64, 32, 3, 3), "d": (24, 64, 1, 1), "e": (24, 1, 3, 3), "g": (90, 24 * 64), "m": (90, 200)}
    weights = [numpy_helper.from_array((RNG.standard_normal(s) / 8).astype(np.float32), k) for k, s in shapes.items()]
    made = model(
        [
            n("Conv", ["x", "c"], ["1"], pads=[1, 1, 1, 1]), n("Conv", ["1", "d"], ["2"]),
            n("Conv", ["2", "e"], ["3"], pads=[1, 1, 1, 1], group=24), n("Flatten", ["3"], ["4"]),
            n("Gemm", ["4", "g"], ["5"], transB=1), n("Slice", ["m", "from", "to", "axes"], ["6"]),
            n("MatMul", ["5", "6"], ["y"]),
        ],
        {"x": ["N", 32, 8, 8]}, {"y": None},
        [*weights, *(numpy_helper.from_array(np.array([v]), k) for k, v in (("from", 100), ("to", 200), ("axes", 1)))],
    )  # fmt: skip
    made.graph.initializer[0].doc_string = "d" * offset
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    x = RNG.standard_normal((2, 32, 8, 8)).astype(np.float32)
    (wanted,) = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    np.testing.assert_allclose(load(path).run({"x": x})[0], wanted, atol=5e-4 * np.abs(wanted).max())


@posix
@pytest.mark.parametrize("gone", ["replaced", "deleted"])
def test_the_file_may_be_replaced_or_deleted(tmp_path: Path, gone: str) -> None:
    path = write(tmp_path / "m.onnx")
    m = load(path)
    if gone == "replaced":
        other = write(tmp_path / "other.onnx", numpy_helper.from_array(B, "a"), numpy_helper.from_array(A, "b"))
        os.replace(other, path)
    else:
        path.unlink()
    np.testing.assert_allclose(m.run({"x": X})[0], X @ A @ B, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(dict(m.named_parameters())["a"].detach().numpy(), A)


@posix
@pytest.mark.parametrize("size", [100, None])
def test_a_file_that_was_written_into_is_noticed(tmp_path: Path, size: int | None) -> None:
    path = write(tmp_path / "m.onnx")
    m = load(path)
    with path.open("r+b") as f:
        f.write(b"\0" * 10) if size is None else f.truncate(size)
    os.utime(path, ns=(0, 0))
    with pytest.raises(LoadError, match="written into"):
        m.run({"x": X})
    with pytest.raises(LoadError, match="written into"):
        dict(m.named_parameters())["a"].detach().numpy()


def test_a_model_is_saved_over_the_file_it_came_from(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx")
    m = load(path)
    dict(m.named_parameters())["a"].data = B
    save(m, path)
    if SUPPORTED:
        assert stored(m) == ["b"]
    save(m, path)
    again = load(path)
    for other in (m, again):
        np.testing.assert_allclose(other.run({"x": X})[0], X @ B @ B, rtol=1e-4, atol=1e-3)
    assert [numpy_helper.to_array(t).tolist() for t in onnx.load(path).graph.initializer] == [B.tolist(), B.tolist()]


def test_changes_stay_in_memory_and_are_seen_by_the_next_run(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx")
    before = path.read_bytes()
    m = load(path)
    m.run({"x": X})
    a = dict(m.named_parameters())["a"]
    a.detach().numpy()[...] = B
    np.testing.assert_allclose(m.run({"x": X})[0], X @ B @ B, rtol=1e-4, atol=1e-3)
    dict(m.named_parameters())["b"].detach().mul_(2.0)
    np.testing.assert_allclose(m.run({"x": X})[0], 2 * (X @ B @ B), rtol=1e-4, atol=1e-3)
    assert path.read_bytes() == before


def test_half_precision_is_read_into_float32(tmp_path: Path) -> None:
    half = [numpy_helper.from_array(w.astype(np.float16), n) for n, w in (("a", A), ("b", B))]
    whole = proto(*half)
    for info in (*whole.graph.input, *whole.graph.output):
        info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    path = tmp_path / "m.onnx"
    path.write_bytes(whole.SerializeToString())
    m = load(path)
    a = dict(m.named_parameters())["a"]
    assert str(a.dtype) == "float32" and a.nbytes == A.nbytes
    np.testing.assert_array_equal(a.detach().numpy(), A.astype(np.float16).astype(np.float32))
    save(m, tmp_path / "again.onnx")
    for t, wanted in zip(onnx.load(tmp_path / "again.onnx").graph.initializer, half, strict=True):
        assert t.raw_data == wanted.raw_data


@posix
def test_external_data_stay_in_their_file(tmp_path: Path) -> None:
    whole = proto()
    onnx.save(whole, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    m = load(tmp_path / "m.onnx")
    assert stored(m) == ["a", "b"]
    np.testing.assert_allclose(m.run({"x": X})[0], X @ A @ B, rtol=1e-4, atol=1e-3)
    save(m, tmp_path / "m.onnx")
    np.testing.assert_array_equal(dict(load(tmp_path / "m.onnx").named_parameters())["b"].detach().numpy(), B)


@posix
def test_stored_weights_are_copied_and_pickled_as_arrays(tmp_path: Path) -> None:
    m = load(write(tmp_path / "m.onnx"))
    a, b = (t for _, t in m.named_parameters())
    twin = copy.deepcopy(a)
    assert type(twin) is type(a) and not isinstance(twin, StoredTensor) and twin.requires_grad
    twin.detach().numpy()[...] = 0
    np.testing.assert_array_equal(a.detach().numpy(), A)
    assert isinstance(b, StoredTensor)
    assert isinstance(b.stored, StoredArray)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(b.stored)), B)


@posix
def test_the_file_is_closed_with_the_last_weight(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx")
    gc.collect()
    opened = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        m = load(path)
        m.run({"x": X})
        del m
        gc.collect()
    if opened:
        assert len(os.listdir("/proc/self/fd")) == opened
