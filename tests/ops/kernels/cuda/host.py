"""Runs kernels on the CPU: g++ compiles the text that NVRTC gets, and a small runtime runs its blocks.

Threads of a block are fibers that wait for each other where the text says so; blocks run one after the other, in an
order that `seed` decides. What a GPU would do wrong in silence is an error here: an index outside of an array, an
address that is no multiple of what is read there, memory that nobody gave, a barrier that some threads never reach, a
shuffle that reads a lane which takes no part, a block that waits for another. Shared memory holds NaN when a block
begins. Rounding differs from a GPU's where the text leaves it open (fused multiply-adds, functions of libm).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxgrad.ops.kernels.cuda.kernel import Grid, Kernel

COMPILER = os.environ.get("CXX", "g++")
_HERE = Path(__file__).parent
_FLAGS = (
    "-std=c++17", "-O1", "-w", "-fPIC", "-fno-math-errno", "-ffp-contract=off", "-fno-strict-aliasing", "-fwrapv",
    "-U_FORTIFY_SOURCE", "-fvisibility=hidden",
)  # fmt: skip
_CHECKS = "-fsanitize=bounds-strict,alignment,shift-exponent,integer-divide-by-zero"
_WAITS = re.compile(r"__syncthreads|__syncwarp|_sync\b|__shared__")
_DYNAMIC = re.compile(r"extern\s+__shared__\s+(?:(?:__align__|alignas)\s*\([^)]*\)\s*)?(.+?)\s*\b(\w+)\s*\[\s*\]\s*;")
_KINDS = {"pointer": "p", "i32": "i", "i64": "l", "f32": "f", "f64": "d"}
_SECONDS = 120


class HostError(AssertionError):
    """A kernel does what a GPU does not forgive.

    Attributes:
        address: that it touched, where it was one.
    """

    def __init__(self, message: str, address: int = 0) -> None:
        super().__init__(message)
        self.address = address


class _Result(ctypes.Structure):
    _fields_ = [("message", ctypes.c_char * 512), ("address", ctypes.c_uint64)]


@dataclass(frozen=True)
class Compiled:
    """A kernel for the CPU.

    Attributes:
        entry: the address of its function over an array of words.
        shared: where its static shared memory begins and ends.
        waits: whether threads of a block wait for each other.
    """

    entry: int
    shared: tuple[int, int]
    waits: bool


def why_not() -> str | None:
    """Return why kernels cannot run here, or None."""
    if not sys.platform.startswith("linux"):
        return "kernels run on the CPU on Linux alone"
    return None if shutil.which(COMPILER) else f"no {COMPILER} here"


def compile_kernels(kernels: Sequence[Kernel]) -> list[Compiled]:
    """Compile kernels, several at once, or take them from the folder of those that were compiled before.

    Where they cannot run (`why_not`), the test is skipped.

    Raises:
        HostError: with the compiler's words, if a text is wrong or takes other parameters than it declares.
    """
    if reason := why_not():
        pytest.skip(reason)
    distinct = {k.key: k for k in kernels}
    started = [(k, _start(k)) for k in distinct.values() if k.key not in _loaded]
    for kernel, process in started:
        _loaded[kernel.key] = _load(kernel, process)
    return [_loaded[k.key] for k in kernels]


def run(
    kernel: Kernel, grid: Grid, block: Grid, arguments: Sequence[Any], shared_bytes: int = 0, *, seed: int = 0
) -> None:
    """Run all blocks of a kernel.

    Args:
        kernel: which.
        grid: blocks.
        block: threads of each.
        arguments: addresses and numbers, as the kernel's parameters say.
        shared_bytes: of dynamic shared memory.
        seed: of the order in which blocks and warps run.

    Raises:
        HostError: if it does what a GPU does not forgive.
    """
    (compiled,) = compile_kernels([kernel])
    words = np.zeros(len(arguments) + 1, np.uint64)
    for i, (kind, a) in enumerate(zip(kernel.parameters, arguments, strict=True)):
        dtype = {"pointer": np.uint64, "i32": np.int32, "i64": np.int64, "f32": np.float32, "f64": np.float64}[kind]
        words[i : i + 1].view(dtype)[0] = a
    result = _Result()
    if _runtime().host_run(
        ctypes.c_void_p(compiled.entry), ctypes.c_void_p(words.ctypes.data), (ctypes.c_uint * 3)(*grid),
        (ctypes.c_uint * 3)(*block), ctypes.c_uint(shared_bytes), ctypes.c_void_p(compiled.shared[0]),
        ctypes.c_void_p(compiled.shared[1]), ctypes.c_uint64(seed ^ zlib.crc32(kernel.key.encode())),
        ctypes.c_int(compiled.waits), ctypes.c_uint(_SECONDS), ctypes.byref(result),
    ):  # fmt: skip
        raise HostError(f"{kernel.name} {_quote(kernel, result.message.decode(errors='replace'))}", result.address)


_loaded: dict[str, Compiled] = {}
_libraries: list[ctypes.CDLL] = []


def _quote(kernel: Kernel, message: str) -> str:
    """Append the line of the text that a message names."""
    found = re.match(r"line (\d+):", message)
    lines = kernel.text.splitlines()
    if found and 0 < int(found[1]) <= len(lines):
        message += f"\n    {lines[int(found[1]) - 1].strip()}"
    return message


@cache
def _folder() -> Path:
    place = Path(tempfile.gettempdir()) / f"onnxgrad-host-kernels-{os.getuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    if place.stat().st_uid != os.getuid() or place.stat().st_mode & 0o022:
        return Path(tempfile.mkdtemp(prefix="onnxgrad-host-kernels-"))
    return place


@cache
def _salt() -> bytes:
    said = subprocess.run([COMPILER, "--version"], capture_output=True, check=True).stdout
    sources = [(_HERE / name).read_bytes() for name in ("host_shim.h", "host_half.h", "host_runtime.cpp", "host.py")]
    return hashlib.sha256(b"\n".join((said, " ".join((COMPILER, *_FLAGS, _CHECKS)).encode(), *sources))).digest()


def _place(key: bytes) -> Path:
    return _folder() / f"{hashlib.sha256(_salt() + key).hexdigest()[:40]}.so"


@cache
def _runtime() -> ctypes.CDLL:
    place = _place(b"runtime")
    if not place.exists():
        made = Path(tempfile.mkdtemp(dir=_folder())) / "runtime.so"
        _finish("runtime", subprocess.Popen(
            [COMPILER, *_FLAGS, "-fvisibility=default", "-shared", "-o", made, _HERE / "host_runtime.cpp"],
            stderr=subprocess.PIPE, text=True,
        ))  # fmt: skip
        made.rename(place)
        made.parent.rmdir()
    return ctypes.CDLL(str(place), ctypes.RTLD_GLOBAL)


def _start(kernel: Kernel) -> tuple[Path, subprocess.Popen[str]] | None:
    if _place(kernel.key.encode()).exists():
        return None
    folder = Path(tempfile.mkdtemp(dir=_folder()))
    (folder / "kernel.cpp").write_text(_translation(kernel))
    process = subprocess.Popen(
        f"exec 2>&1; {COMPILER} {' '.join(_FLAGS)} {_CHECKS} -shared -nodefaultlibs -o kernel.so kernel.cpp -lm -lc",
        shell=True, cwd=folder, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return folder, process


def _translation(kernel: Kernel) -> str:
    """Return the text with the shim around it and half precision behind the types that the prelude declares."""
    head, end, rest = kernel.text.partition("\n#endif\n")
    if not end:
        raise HostError("the prelude has no part for CUDA alone")
    line = head.count("\n") + 3
    rest = _DYNAMIC.sub(r"\1*& \2 = (\1*&)host_dynamic;", rest).replace('extern "C"', "")
    return (
        f'#include "{_HERE}/host_shim.h"\n#line 1 "{kernel.name}.cu"\n{head}\n#endif\n#include "{_HERE}/host_half.h"\n'
        f'#line {line} "{kernel.name}.cu"\n{rest}\nHOST_ENTRY({kernel.name})\n'
    )


def _finish(name: str, process: subprocess.Popen[str]) -> None:
    out, err = process.communicate()
    if process.returncode:
        raise HostError(f"{name} does not compile for the CPU:\n{(out or err)[:4000]}")


def _load(kernel: Kernel, started: tuple[Path, subprocess.Popen[str]] | None) -> Compiled:
    place = _place(kernel.key.encode())
    if started is not None:
        folder, process = started
        try:
            _finish(kernel.name, process)
            (folder / "kernel.so").rename(place)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    _runtime()
    library = ctypes.CDLL(str(place))
    _libraries.append(library)
    kinds = ctypes.create_string_buffer(1024)
    begin, end = ctypes.c_void_p(), ctypes.c_void_p()
    library.host_describe(kinds, ctypes.byref(begin), ctypes.byref(end))
    wanted = "".join(_KINDS[p] for p in kernel.parameters)
    if kinds.value.decode() != wanted:
        raise HostError(f"{kernel.name} takes ({kinds.value.decode()}) in its text and declares ({wanted})")
    entry = ctypes.cast(library.host_entry, ctypes.c_void_p).value
    assert entry is not None
    code = re.sub(r"//[^\n]*|/\*.*?\*/", "", kernel.code, flags=re.S)
    return Compiled(entry, (begin.value or 0, end.value or 0), bool(_WAITS.search(code)))
