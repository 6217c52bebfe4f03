"""Cubins on disk: what is there is not compiled, what is damaged is made again, what cannot be kept is done without."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from onnxgrad.ops.kernels.cpu import cache
from onnxgrad.ops.kernels.cuda import cubins, nvrtc
from onnxgrad.ops.kernels.cuda.kernel import Kernel

from .nvrtc import why_no_nvrtc

pytestmark = pytest.mark.skipif(why_no_nvrtc() is not None, reason=str(why_no_nvrtc()))

TARGET = "sm_90a"


def _kernel(number: int) -> Kernel:
    code = f'extern "C" __global__ void __launch_bounds__(32) k(float* y) {{ y[threadIdx.x] = {number}.0f; }}'
    return Kernel("k", code, ("pointer",), 32)


def _fresh(number: int) -> int:
    """Load a kernel as a new process would, and return how many texts were compiled for it."""
    cubins.forget()
    before = cubins.compiled()
    found = cubins.load(_kernel(number), TARGET)
    assert found.code.startswith(b"\x7fELF")
    assert found.registers > 0
    return cubins.compiled() - before


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "objects"
    monkeypatch.setenv(cache.VARIABLE, str(place))
    monkeypatch.setattr(cache, "_warned", set())
    monkeypatch.setattr(cache, "_unusable", set())
    monkeypatch.setattr(cubins, "_kept", {})
    return place


def test_the_second_time_nothing_is_compiled(folder: Path) -> None:
    assert [_fresh(1), _fresh(1), _fresh(2), _fresh(1)] == [1, 0, 1, 0]
    assert len(list(folder.glob("*.cubin"))) == 2
    assert folder.stat().st_mode & 0o077 == 0
    kept = cubins.load(_kernel(1), TARGET)
    assert cubins.load(_kernel(1), TARGET) is kept


def test_the_name_of_an_entry_knows_all_that_changes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {cubins.key_of(_kernel(1), TARGET), cubins.key_of(_kernel(2), TARGET), cubins.key_of(_kernel(1), "sm_80")}
    with monkeypatch.context() as m:
        m.setattr(nvrtc, "OPTIONS", (*nvrtc.OPTIONS, "--use_fast_math"))
        names.add(cubins.key_of(_kernel(1), TARGET))
    monkeypatch.setattr(nvrtc, "version", lambda: (99, 1))
    names.add(cubins.key_of(_kernel(1), TARGET))
    assert len(names) == 5


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
def test_a_damaged_entry_is_made_again(folder: Path, damage: str) -> None:
    assert _fresh(3) == 1
    (entry,) = folder.glob("*.cubin")
    data = bytearray(entry.read_bytes())
    if damage == "flipped":
        data[-5] ^= 0xFF
    entry.write_bytes(
        {"truncated": bytes(data[:100]), "empty": b"", "foreign": b"\x7fELF" * 40}.get(damage, bytes(data))
    )
    with pytest.warns(RuntimeWarning, match="made again"):
        assert _fresh(3) == 1
    assert _fresh(3) == 0


def test_an_intact_entry_that_is_no_cubin_is_made_again(folder: Path) -> None:
    assert _fresh(4) == 1
    cache.write(cubins.key_of(_kernel(4), TARGET), b"this is no machine code", cache.CUBIN)
    with pytest.warns(RuntimeWarning, match="cannot be used"):
        assert _fresh(4) == 1
    assert _fresh(4) == 0


def test_a_folder_that_cannot_be_made_is_done_without(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv(cache.VARIABLE, str(blocked / "objects"))
    with pytest.warns(RuntimeWarning, match="not kept") as seen:
        assert [_fresh(5), _fresh(5), _fresh(6)] == [1, 1, 1]
    assert len(seen) == 1


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners here")
def test_a_folder_that_others_may_write_to_is_not_trusted(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    folder.chmod(0o777)
    with pytest.warns(RuntimeWarning, match="writable by no other"):
        assert _fresh(7) == 1
    assert not list(folder.glob("*.cubin"))


def test_threads_compile_once(folder: Path) -> None:
    before = cubins.compiled()
    threads = [threading.Thread(target=cubins.load, args=(_kernel(8), TARGET)) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert cubins.compiled() == before + 1


def test_processes_that_write_the_same_entry_at_once_agree(folder: Path) -> None:
    code = "from tests.ops.kernels.cuda.test_cubins import _fresh; print(_fresh(9))"
    root = Path(__file__).parents[4]
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(3)
    ]
    assert all(p.communicate(timeout=120)[0].strip() in ("0", "1") for p in started)
    assert len(list(folder.glob("*.cubin"))) == 1
    assert not list(folder.glob("*.tmp"))
    assert _fresh(9) == 0


def test_cubins_are_trimmed_with_the_rest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, name in enumerate(("a", "b", "c")):
        cache.write(name, b"x" * 100, cache.CUBIN)
        os.utime(folder / f"{name}.cubin", (i, i))
    monkeypatch.setattr(cache, "LIMIT_BYTES", 350)
    monkeypatch.setattr(cache, "_written", 1 << 30)
    cache.write("d", b"x" * 100, cache.CUBIN)
    assert sorted(p.stem for p in folder.glob("*.cubin")) == ["c", "d"]
