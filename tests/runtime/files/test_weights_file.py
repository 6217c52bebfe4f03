"""Weights in safetensors files."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from onnxgrad.ops.errors import LoadError, SaveError
from onnxgrad.runtime.files.weights_file import (
    CODES,
    from_bytes,
    load_weights,
    save_weights,
    to_bytes,
)

WEIGHTS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b/c.d": np.array(7, np.int64)}


def file_of(header, data=b""):
    """The bytes of a safetensors file with this header, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(1,), at=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(at)}


def test_they_come_back(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights({"a": WEIGHTS["a"].T, "b/c.d": WEIGHTS["b/c.d"]}, path, {"epoch": "3"})
    again = load_weights(path)
    np.testing.assert_array_equal(WEIGHTS["a"].T, again["a"])
    assert again["b/c.d"] == 7
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize("dtype", CODES, ids=str)
def test_every_element_type_comes_back_and_can_be_written_into(dtype):
    values = np.array([1, 2, 1, 4]).astype(dtype).reshape(2, 2)
    found = from_bytes(to_bytes({"x": values, "none": values[:0], "one": values[0, 0]}), "x")[0]
    assert {k: (v.dtype, v.shape) for k, v in found.items()} == {
        "x": (dtype, (2, 2)),
        "none": (dtype, (0, 2)),
        "one": (dtype, ()),
    }
    np.testing.assert_array_equal(found["x"], values)
    found["x"][0, 0] = 1


def test_the_library_reads_what_is_written_and_the_other_way_round():
    theirs = safetensors.numpy.load(to_bytes(WEIGHTS))
    assert theirs.keys() == WEIGHTS.keys()
    ours, metadata = from_bytes(safetensors.numpy.save(WEIGHTS, {"k": "v"}), "x")
    assert metadata == {"k": "v"}
    for name, array in WEIGHTS.items():
        np.testing.assert_array_equal(theirs[name], array)
        np.testing.assert_array_equal(ours[name], array)


def test_bytes_in_the_other_order_and_strides(tmp_path):
    values = np.arange(6, dtype=">f4").reshape(2, 3)[:, ::2]
    found = from_bytes(to_bytes({"x": values}), "x")[0]["x"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[0, 2], [3, 5]])


def test_what_the_format_does_not_have():
    for dtype in (np.complex128, ml_dtypes.int4, object, "U3"):
        with pytest.raises(SaveError, match="'x': safetensors has no element type"):
            to_bytes({"x": np.zeros(2, dtype)})


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


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(SaveError, match="does not exist"):
        save_weights(WEIGHTS, tmp_path / "none" / "w.safetensors")


def test_what_is_no_such_file(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(LoadError, match=r"w\.safetensors"):
        load_weights(path)
    with pytest.raises(FileNotFoundError):
        load_weights(tmp_path / "none")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "header too small"),
        (b"\x08\0\0\0\0\0\0\0{}", "header"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "header too large"),
        (file_of(b"[" * 100_000), "invalid JSON in header"),
        (file_of(b'{"a":'), "invalid JSON in header"),
        (file_of(b'{"\xff":1}'), "UTF-8|utf-8"),
        (file_of({"a": entry("F99")}, b"0000"), "F99"),
        (file_of({"a": entry()}, b"00"), "not fully covered"),
        (file_of({"a": entry()}, b"000000"), "not fully covered"),
        (file_of({"a": entry(at=(4, 8))}, b"0" * 8), "invalid offset for tensor `a`"),
        (file_of({"a": entry(), "b": entry(at=(2, 6))}, b"0" * 6), "invalid offset for tensor `b`"),
        (file_of({"a": entry(at=(-4, 0))}, b"0" * 4), "invalid value"),
        (file_of({"a": entry(shape=(2,))}, b"0" * 4), "invalid shape, data type, or offset"),
        (file_of({"a": entry(shape=(1 << 40, 1 << 40))}, b"0" * 4), "overflow"),
        (file_of({"a": entry(shape=(0, 1 << 62), at=(0, 0))}), "'a' has an impossible shape"),
        (file_of({"a": entry("F4", (8,))}, b"0" * 4), "'a' is of element type F4"),
        (file_of({"a": entry("BOOL", (4,))}, b"\0\1\2\0"), "'a' is of truth values"),
        (file_of(b'{"a":%b,"a":%b}' % ((json.dumps(entry()).encode(),) * 2), b"0000"), "the name 'a' comes twice"),
        (file_of({"__metadata__": {"a": 1}}), "expected a string"),
    ],
)
def test_damaged_and_hostile_files(data, message):
    with pytest.raises(LoadError, match=message) as caught:
        from_bytes(data, "here.pt")
    assert str(caught.value).startswith("here.pt: ")
