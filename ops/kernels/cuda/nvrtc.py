"""NVRTC: CUDA C++ text in, the machine code of one architecture (a cubin) out. Needs no device and no driver."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from functools import cache
from typing import Any

from ...errors import KernelError

OPTIONS = ("--std=c++17", "--diag-suppress=177", "--ptxas-options=-v")
"""Of every compilation. Functions of the prelude that a kernel leaves out are no mistake; the log tells registers."""

_HEAD = struct.Struct("<6I")
_FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")
_ERROR = re.compile(r"\((\d+)\): (?:catastrophic )?error")


@dataclass(frozen=True)
class Cubin:
    """What a text compiles to for one architecture.

    Attributes:
        code: the ELF image that the driver loads.
        registers: of a thread.
        spill_bytes: that a thread stores to memory and loads from it because registers do not suffice.
        stack_bytes: of a thread's local memory: arrays that are indexed with what is known only at run time.
        shared_bytes: of static shared memory.
    """

    code: bytes
    registers: int
    spill_bytes: int
    stack_bytes: int
    shared_bytes: int

    def pack(self) -> bytes:
        """Return it as bytes, for a file."""
        numbers = (self.registers, self.spill_bytes, self.stack_bytes, self.shared_bytes)
        return _HEAD.pack(1, len(self.code), *numbers) + self.code

    @classmethod
    def unpack(cls, data: bytes) -> Cubin:
        """Return what `pack` wrote.

        Raises:
            ValueError: if the bytes are something else.
        """
        if len(data) < _HEAD.size:
            raise ValueError("too short for a cubin")
        version, size, *numbers = _HEAD.unpack_from(data)
        code = data[_HEAD.size :]
        if version != 1 or size != len(code) or not code.startswith(b"\x7fELF"):
            raise ValueError("not a cubin")
        return cls(code, *numbers)


def bindings() -> Any:
    """Return `cuda.bindings.nvrtc`.

    Raises:
        KernelError: if it is not installed.
    """
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise KernelError(
            f"CUDA kernels need cuda-bindings and NVRTC (pip install onnxgrad[cuda13]): {error}"
        ) from None
    return nvrtc


@cache
def version() -> tuple[int, int]:
    """Return NVRTC's version.

    Raises:
        KernelError: if there is none.
    """
    major, minor = _call("nvrtcVersion")
    return major, minor


@cache
def supported() -> tuple[int, ...]:
    """Return the architectures that this NVRTC knows, as 80 for `sm_80`.

    Raises:
        KernelError: if there is no NVRTC.
    """
    return tuple(_call("nvrtcGetSupportedArchs")[0])


def architecture(capability: tuple[int, int]) -> str:
    """Return what to compile for a device of this compute capability.

    Code of one major capability runs on later minor ones, so a device newer than NVRTC gets the newest that it knows
    of that major. Capability 9.0 is `sm_90a`, which only Hopper runs.

    Raises:
        KernelError: if NVRTC knows no architecture whose code this device runs.
    """
    major, minor = capability
    known = [n for n in supported() if n // 10 == major and n % 10 <= minor]
    if not known:
        raise KernelError(
            f"NVRTC {'.'.join(map(str, version()))} has no code for a device of compute capability {major}.{minor}; "
            f"it knows {', '.join(f'{n // 10}.{n % 10}' for n in supported())}"
        )
    return "sm_90a" if (major, minor) == (9, 0) else f"sm_{max(known)}"


def compile_text(text: str, target: str, *, name: str = "kernel", options: tuple[str, ...] = OPTIONS) -> Cubin:
    """Compile a text of one kernel.

    Args:
        text: all of it.
        target: `sm_80`, `sm_90a`, ...: see `architecture`.
        name: what errors call it.
        options: NVRTC's.

    Raises:
        KernelError: with the compiler's words and the line, if the text is wrong; if there is no NVRTC.
    """
    nvrtc = bindings()
    (program,) = _call("nvrtcCreateProgram", text.encode(), f"{name}.cu".encode(), 0, [], [])
    try:
        flags = [flag.encode() for flag in (f"--gpu-architecture={target}", *options)]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(flags), flags)
        log = _bytes(program, "ProgramLog").decode(errors="replace").strip("\0\n ")
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise KernelError(_explain(name, target, text, log or status.name))
        return Cubin(_bytes(program, "CUBIN"), **_resources(log))
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _call(function: str, *args: Any) -> tuple[Any, ...]:
    nvrtc = bindings()
    try:
        status, *results = getattr(nvrtc, function)(*args)
    except RuntimeError as error:  # the bindings are there, the library is not
        raise KernelError(f"NVRTC cannot be loaded: {error}") from None
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise KernelError(f"{function}: {status.name}")
    return tuple(results)


def _bytes(program: Any, what: str) -> bytes:
    (size,) = _call(f"nvrtcGet{what}Size", program)
    data = b" " * int(size)
    _call(f"nvrtcGet{what}", program, data)
    return data


def _explain(name: str, target: str, text: str, log: str) -> str:
    """Return the log and, of the first error, the line of the text."""
    message = f"{name} does not compile for {target}:\n{log}"
    found = _ERROR.search(log)
    lines = text.splitlines()
    if found and 0 < int(found[1]) <= len(lines):
        message += f"\nline {found[1]}: {lines[int(found[1]) - 1].strip()}"
    return message


def _resources(log: str) -> dict[str, int]:
    """Read what ptxas says of the kernel; functions that are called and not inlined count their own frames."""
    frames = [tuple(map(int, f)) for f in _FRAME.findall(log)]
    return {
        "registers": max(map(int, _USED.findall(log)), default=0),
        "spill_bytes": sum(stores + loads for _, stores, loads in frames),
        "stack_bytes": sum(frame for frame, _, _ in frames),
        "shared_bytes": max(map(int, _SHARED.findall(log)), default=0),
    }
