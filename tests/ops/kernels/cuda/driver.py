"""A stand-in for the CUDA driver: libraries that are linked with it can be loaded and asked what needs no device.

cuDNN and cuBLASLt make and check their descriptors on the CPU. Work in them runs in a process of its own: cuDNN may end
it.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_NONE = (
    "cuCtxGetCurrent", "cuCtxGetLimit", "cuCtxPopCurrent", "cuCtxPushCurrent", "cuDeviceGet",
    "cuDeviceGetCount", "cuGetErrorName", "cuGetErrorString", "cuInit", "cuLaunchCooperativeKernel",
    "cuLaunchKernel", "cuLaunchKernelEx", "cuLibraryLoadFromFile", "cuLinkAddData", "cuLinkComplete",
    "cuLinkCreate", "cuLinkDestroy", "cuStreamGetCtx", "cuTensorMapEncodeIm2col", "cuTensorMapEncodeTiled",
)  # fmt: skip
"""What says that there is no device."""

_MADE = (
    "cuLibraryLoadData", "cuLibraryGetKernel", "cuKernelGetFunction", "cuModuleLoadData", "cuModuleGetFunction",
    "cuOccupancyMaxPotentialClusterSize",
)  # fmt: skip
"""What writes something to its first argument: code is compiled and taken apart, but never run."""

_DONE = (
    "cuKernelSetAttribute", "cuLibraryUnload", "cuModuleUnload",
)  # fmt: skip
"""What succeeds."""

H200 = json.dumps({
    "cudaDeviceId": 0, "deviceName": "NVIDIA H200", "deviceVer": 900, "driverVer": 13000, "multiProcessorCount": 132,
    "smCountOrigin": 0, "maxGridSize": [2147483647, 65535, 65535], "maxBlockSize": [1024, 1024, 64], "warpSize": 32,
    "regsPerBlock": 65536, "maxRegistersPerSM": 65536, "maxCtasPerSM": 32, "maxThreadsPerBlock": 1024,
    "maxThreadsPerSM": 2048, "maxSharedMemoryPerBlock": 49152, "maxSharedMemoryPerBlockOptin": 232448,
    "reservedSharedMemoryPerBlock": 1024, "oversizedSharedMemoryPerBlock": 0, "totalGlobalMem": 150000000000,
    "l2CacheSize": 62914560, "memoryBusWidth": 6144, "memClockRateKHz": 3201000, "smClockRateKHz": 1980000,
    "pciDeviceId": 0, "isTccDriver": 0, "supportCoopLaunch": 1,
})  # fmt: skip
"""What cuDNN asks of a device before it chooses plans for it, of an H200."""


@functools.cache
def folder() -> Path:
    """Return a folder with a `libcuda.so.1` that finds no device."""
    place = Path(tempfile.mkdtemp(prefix="onnxgrad-driver-"))
    text = "static char made[4096];\nint cuDriverGetVersion(int* version) { *version = 13000; return 0; }\n"
    text += "int cuKernelGetAttribute(int* value) { *value = 0; return 0; }\n"
    text += "".join(f"int {s}(void) {{ return 100; }}\n" for s in _NONE)
    text += "".join(f"int {s}(void) {{ return 0; }}\n" for s in _DONE)
    text += "".join(f"int {s}(void** p) {{ *p = made; return 0; }}\n" for s in _MADE)
    (place / "driver.c").write_text(text)
    command = ["cc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(place / "libcuda.so.1")]
    subprocess.run([*command, str(place / "driver.c")], check=True, capture_output=True)
    return place


def why_not(module: str) -> str | None:
    """Return why a library cannot be asked, or None."""
    if importlib.util.find_spec(module) is None:
        return f"{module} is not installed"
    try:
        folder()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no C compiler: {error}"
    return None


def ask(script: str, given: Any) -> list[Any]:
    """Run a script that unpickles `given` from its input in a process of its own, and return what it pickles."""
    environment = {**os.environ, "LD_LIBRARY_PATH": f"{folder()}:{os.environ.get('LD_LIBRARY_PATH', '')}"}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    head = "import pickle, sys\ngiven = pickle.load(sys.stdin.buffer)\nfound = []\n"
    tail = "\nsys.stdout.buffer.write(b'RESULT' + pickle.dumps(found))\n"
    done = subprocess.run(
        [sys.executable, "-c", head + script + tail], input=pickle.dumps(given), capture_output=True, env=environment,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise AssertionError(f"the process ended with {done.returncode}:\n{done.stderr.decode()[-3000:]}")
    found: list[Any] = pickle.loads(done.stdout.partition(b"RESULT")[2])
    return found
