"""The CPUs that code is emitted for, as data.

`ONNXGRAD_CPU` forces one: `avx512`, `avx2`, `baseline` (SSE2) or `neon` where the machine has it; `off` leaves the
engine out. A lower target runs on a bigger machine, which is how it is tested.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import KernelError

VARIABLE = "ONNXGRAD_CPU"


@dataclass(frozen=True)
class Target:
    """A family of CPUs: how wide its vectors are and how many it holds in registers.

    Attributes:
        cpu: LLVM's name of the processor to schedule for.
        features: LLVM's features, each with + or -.
        vector_bits: the widest vector.
        registers: how many of them.
        masks: whether loads and stores can be masked at no cost.
        fma: whether a product and a sum are one instruction, with one rounding.
        bf16: whether it multiplies pairs of bfloat16 (`vdpbf16ps`).
        vnni: whether it multiplies groups of four int8 (`vpdpbusd`).
    """

    name: str
    cpu: str
    features: str
    vector_bits: int
    registers: int
    masks: bool
    fma: bool
    bf16: bool = False
    vnni: bool = False

    def lanes(self, dtype: Any) -> int:
        """Return how many elements of this type a vector holds; truth values go with the 32-bit types."""
        dtype = np.dtype(dtype)
        return self.vector_bits // (32 if dtype.kind == "b" else 8 * dtype.itemsize)


def available() -> bool:
    """Whether the engine can be used: llvmlite is installed and `ONNXGRAD_CPU` is not `off`."""
    return os.environ.get(VARIABLE, "") != "off" and importlib.util.find_spec("llvmlite") is not None


def host_target() -> Target:
    """Return the target of this process: the machine's best, or what `ONNXGRAD_CPU` says.

    Raises:
        KernelError: if the name is unknown or the machine lacks what it needs.
    """
    return _target(os.environ.get(VARIABLE, ""))


@functools.cache
def _target(forced: str) -> Target:
    import llvmlite.binding as llvm

    has = dict(llvm.get_host_cpu_features())
    cpu = llvm.get_host_cpu_name()
    known = _known(has, cpu)
    if not forced:
        return next(iter(known.values()))
    if forced not in known:
        raise KernelError(
            f"{VARIABLE}={forced}: this machine ({cpu}) runs {', '.join(known)}; `off` leaves the compiled engine out"
        )
    return known[forced]


def _known(has: dict[str, bool], cpu: str) -> dict[str, Target]:
    if platform.machine().lower() in ("aarch64", "arm64"):
        features = ",".join(f"{'+' if on else '-'}{name}" for name, on in has.items())
        return {"neon": Target("neon", cpu, features, 128, 32, masks=False, fma=True)}
    found: dict[str, Target] = {}
    if all(has.get(f) for f in ("avx512f", "avx512bw", "avx512dq", "avx512vl")):
        bf16, vnni = has.get("avx512bf16", False), has.get("avx512vnni", False)
        everything = ",".join(f"{'+' if on else '-'}{name}" for name, on in has.items())
        features = f"{everything},-prefer-256-bit"
        found["avx512"] = Target("avx512", cpu, features, 512, 32, masks=True, fma=True, bf16=bf16, vnni=vnni)
    if has.get("avx2") and has.get("fma"):
        found["avx2"] = Target("avx2", "haswell", "+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+popcnt", 256, 16, False, True)
    if platform.machine().lower() in ("x86_64", "amd64"):
        found["baseline"] = Target("baseline", "x86-64", "+sse2", 128, 16, masks=False, fma=False)
    if not found:
        raise KernelError(f"no code can be emitted for {platform.machine()}; set {VARIABLE}=off")
    return found
