"""Facts and arrays as bytes, and back."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnxgrad.runtime.files import archive

ARRAYS: list[Any] = [
    np.arange(6, dtype=np.int64).reshape(2, 3), np.zeros((0, 4), np.float32), np.array(3.5), np.array([True, False]),
    np.arange(4, dtype=np.float32).astype(ml_dtypes.bfloat16), np.array([-8, 7], ml_dtypes.int4),
    np.arange(12.0).reshape(3, 4).T, np.array([1 + 2j]),
]  # fmt: skip


def test_what_is_packed_is_unpacked() -> None:
    facts = {"a": [1, None, "ü", float("inf")], "b": {"c": True}}
    found, arrays = archive.unpack(archive.pack(facts, ARRAYS))
    assert found == facts
    for a, b in zip(arrays, ARRAYS, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and not a.flags.writeable
        np.testing.assert_array_equal(a, b)


def test_arrays_of_objects_are_refused() -> None:
    with pytest.raises(TypeError, match="objects"):
        archive.pack({}, [np.array(["text"], object)])


@pytest.mark.parametrize("cut", [0, 7, 30, -1])
def test_what_was_not_packed_is_refused(cut: int) -> None:
    data = archive.pack({"a": 1}, [np.arange(100)])
    with pytest.raises(ValueError, match=r"."):
        archive.unpack(data[:cut] if cut >= 0 else b"\xff" * 200)


def test_the_version_of_the_code_knows_its_files() -> None:
    version = archive.code_version()
    assert version is not None and "ops/matmul.py" in version and "runtime/compiled/program.py" in version
