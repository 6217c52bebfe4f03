"""The disk cache: what is damaged is made again, what cannot be written is done without, with one warning."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.kernels.cpu import cache, jit
from onnxgrad.ops.kernels.cpu.emitter import Emitter
from onnxgrad.ops.kernels.cpu.kernel import kernel
from onnxgrad.ops.kernels.cpu.spmd import check_chunks, pool
from onnxgrad.ops.kernels.cpu.target import host_target


def _set(e: Emitter, params: Any) -> None:
    e.store(e.index(params[0]), e.pointer(0), "int64")


def _run(number: int) -> int:
    k = kernel("set", _set, (number,), operands=1)
    address = jit.compile_kernels([k])[k.key]
    y = np.zeros(1, np.int64)
    args = np.array([y.ctypes.data], np.int64)
    entries = np.array([[address, args.ctypes.data, 1]], np.int64)
    stages = np.array([[0, 1, *check_chunks(1)]], np.int64)
    words = np.array([stages.ctypes.data, entries.ctypes.data], np.int64)
    pool().run(words.ctypes.data, 0, 1, 64, 1)
    return int(y[0])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    _run(0)  # the executor itself is an object too
    place = tmp_path / "objects"
    monkeypatch.setenv(cache.VARIABLE, str(place))
    monkeypatch.setattr(cache, "_warned", set())
    monkeypatch.setattr(cache, "_unusable", set())
    return place


def test_the_second_time_nothing_is_compiled(folder: Path) -> None:
    before = jit.compiled_modules()
    assert _run(41) == 41
    assert jit.compiled_modules() == before + 1
    assert _run(41) == 41
    assert jit.compiled_modules() == before + 1
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
def test_a_damaged_entry_is_made_again(folder: Path, damage: str) -> None:
    assert _run(42) == 42
    (entry,) = folder.glob("*.o")
    data = bytearray(entry.read_bytes())
    if damage == "flipped":
        data[-5] ^= 0xFF
    entry.write_bytes(
        {"truncated": bytes(data[:100]), "empty": b"", "foreign": b"\x7fELF" * 40}.get(damage, bytes(data))
    )
    before = jit.compiled_modules()
    with pytest.warns(RuntimeWarning, match="made again"):
        assert _run(42) == 42
    assert jit.compiled_modules() == before + 1
    assert _run(42) == 42
    assert jit.compiled_modules() == before + 1


def test_an_intact_entry_that_is_no_object_is_made_again(folder: Path) -> None:
    assert _run(43) == 43
    (entry,) = folder.glob("*.o")
    cache.write(entry.stem, b"this is no object code")
    with pytest.warns(RuntimeWarning, match="cannot be loaded"):
        assert _run(43) == 43


def test_a_folder_that_cannot_be_made_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv(cache.VARIABLE, str(blocked / "objects"))
    with pytest.warns(RuntimeWarning, match="not kept") as seen:
        assert _run(44) == 44
        assert _run(45) == 45
    assert len(seen) == 1


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners here")
def test_a_folder_that_others_may_write_to_is_not_trusted(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    folder.chmod(0o777)
    with pytest.warns(RuntimeWarning, match="writable by no other"):
        assert _run(46) == 46
    assert not list(folder.glob("*.o"))


def test_the_key_knows_the_cpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _run(47) == 47
    monkeypatch.setenv("ONNXGRAD_CPU", "baseline" if host_target().name != "baseline" else "avx2")
    try:
        assert _run(47) == 47
    except Exception as error:
        pytest.skip(f"one target only here: {error}")
    assert len(list(folder.glob("*.o"))) >= 2


def test_processes_that_write_the_same_entry_at_once_agree(folder: Path) -> None:
    code = "from tests.ops.kernels.cpu.test_cache import _run; print(_run(48))"
    root = Path(__file__).parents[4]
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(4)
    ]
    assert [p.communicate(timeout=60)[0].strip() for p in started] == ["48"] * 4
    assert len(list(folder.glob("*.o"))) >= 1
    assert not list(folder.glob("*.tmp"))


def test_the_oldest_entries_go_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, name in enumerate(("a", "b", "c")):
        cache.write(name, b"x" * 100)
        os.utime(folder / f"{name}.o", (i, i))
    monkeypatch.setattr(cache, "LIMIT_BYTES", 350)
    monkeypatch.setattr(cache, "_written", 1 << 30)
    cache.write("d", b"x" * 100)
    assert sorted(p.stem for p in folder.glob("*.o")) == ["c", "d"]
