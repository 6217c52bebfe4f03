"""CuPy where it is installed and a driver answers; where not, what exactly is missing and how to get it."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ...ops.errors import DeviceError, MissingExtraError
from .guard import begin

DRIVERS = {13: "580", 12: "525"}
"""The oldest driver for each major version of CUDA, and so for each extra."""


@dataclass(frozen=True)
class Found:
    """What there is of CUDA.

    Attributes:
        cupy: the module, None where it cannot be used.
        devices: how many devices there are.
        why: why there are none; an error to raise, None where there are some.
    """

    cupy: Any
    devices: int
    why: Exception | None


@functools.cache
def look() -> Found:
    """Look for CuPy, a driver and devices, once; never an error."""
    if find_spec("cupy") is None:
        return Found(None, 0, MissingExtraError(_not_installed()))
    try:
        import cupy
    except Exception as error:  # a broken installation: whatever is wrong, there is no CUDA here
        why = f"CuPy is installed but cannot be imported: {error}. Install it anew: {_install(driver_version())}"
        return Found(None, 0, MissingExtraError(why))
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:  # no driver, no device, a library that is missing
        return Found(cupy, 0, DeviceError(_no_device(cupy, error)))
    if count == 0:
        return Found(cupy, 0, DeviceError(_no_device(cupy, None)))
    begin(cupy)
    return Found(cupy, count, None)


def cupy() -> Any:
    """Return CuPy.

    Raises:
        MissingExtraError: if it is not installed, saying what to install.
        DeviceError: if there is no driver, one that is too old, or no device.
    """
    found = look()
    if found.why is not None:
        raise type(found.why)(*found.why.args)
    return found.cupy


def device_count() -> int:
    """Return the number of CUDA devices; 0 without CuPy or without a driver."""
    return look().devices


def is_available() -> bool:
    """Whether there is a CUDA device; never an error."""
    return look().devices > 0


def why_unavailable() -> str | None:
    """Return why CUDA cannot be used here and what to do about it, None where it can."""
    why = look().why
    return None if why is None else str(why)


def driver_version() -> int | None:
    """Return the newest CUDA version that the installed driver runs, as 13000 for 13.0; None without a driver."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    version = ctypes.c_int(0)
    try:
        answer = ctypes.CDLL(name).cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return version.value if answer == 0 and version.value else None


def _named(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _install(driver: int | None) -> str:
    """Return the command that fits a driver, or those to choose from."""
    if driver is None or driver < 12000:
        return (
            f"pip install 'onnxgrad[cuda13]' (drivers from {DRIVERS[13]} on) or "
            f"pip install 'onnxgrad[cuda12]' (drivers from {DRIVERS[12]} on)"
        )
    return f"pip install 'onnxgrad[cuda{13 if driver >= 13000 else 12}]'"


def _not_installed() -> str:
    driver = driver_version()
    if driver is None:
        return f"CUDA needs CuPy and an NVIDIA driver, and neither is installed here: {_install(None)}"
    return f"CUDA needs CuPy, which is not installed; the driver here runs CUDA {_named(driver)}: {_install(driver)}"


def _no_device(cupy: Any, error: Exception | None) -> str:
    """Return what keeps an installed CuPy from working."""
    driver = driver_version()
    built = int(getattr(cupy.cuda.runtime, "runtimeGetVersion", lambda: 0)())
    if driver is None:
        return (
            "CuPy is installed, but there is no NVIDIA driver: install one "
            f"(from {DRIVERS.get(built // 1000, DRIVERS[13])} on for CUDA {_named(built)}), so that nvidia-smi lists "
            "the GPU; in a container, run it with --gpus all"
        )
    if driver // 1000 < built // 1000:
        return (
            f"the NVIDIA driver is too old: it runs CUDA {_named(driver)}, CuPy is built for {_named(built)}. Update "
            f"the driver ({DRIVERS.get(built // 1000, DRIVERS[13])} or newer), or install what fits it: "
            f"pip uninstall cupy-cuda{built // 1000}x; {_install(driver)}"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    shown = "" if visible is None else f" that CUDA_VISIBLE_DEVICES={visible!r} leaves"
    return f"there is no CUDA device{shown}" + ("" if error is None else f": {error}")
