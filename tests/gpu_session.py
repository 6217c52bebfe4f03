"""Runs the tests that need a GPU, then the benchmark, unattended: `python -m tests.gpu_session [pytest's arguments]`.

Kernels come first, then programs, models and training. A kernel that faults takes its process' device away, and one
that never ends takes its process: the tests that are left then run in a new one, and the one at fault is named. As a
plugin of pytest this module keeps the list of tests that were begun.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

BEGUN = "ONNXGRAD_GPU_BEGUN"
"""The environment variable with the file that lists the tests that were begun."""

LOST = 75
"""How pytest ends where the device is lost."""

SECONDS = 600
"""How long a test may take."""

RESTARTS = 40

TOOLS = ("pytest", "hypothesis")
DEVICE = {"cuda.bindings": "cuda-bindings", "cudnn": "nvidia-cudnn-frontend", "nvmath": "nvmath-python"}
"""What is needed beside CuPy, where that is installed."""

ORDER = (
    "tests/ops/kernels/cuda",
    "tests/runtime/tensor",
    "tests/runtime/cuda/test_program.py",
    "tests/runtime/cuda/test_gpu_ops.py",
    "tests/runtime/cuda/test_gpu_eager.py",
    "tests/runtime/cuda/test_gpu_training.py",
    "tests/runtime/cuda/test_on_gpu.py",
    "tests/runtime/cuda/test_gpu_models.py",
    "tests/runtime/cuda/test_gpu_memory.py",
    "tests/runtime",
    "tests",
)
"""What runs before what."""


def files() -> list[str]:
    """Return the test files with tests that need a GPU, in order."""
    found = [*(ROOT / "tests" / "ops" / "kernels" / "cuda").glob("test_*.py")]
    found += [p for p in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in p.read_text("utf-8")]
    names = {p.relative_to(ROOT).as_posix() for p in found}

    def rank(name: str) -> tuple[int, str]:
        return next(i for i, start in enumerate(ORDER) if name.startswith(start)), name

    return sorted(names, key=rank)


# what is installed ----------------------------------------------------------------------------------------------------


def missing() -> tuple[list[str], list[str]]:
    """Return what has to be installed first, and what is older than this project asks for."""
    said = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*said["dependencies"], *(w for w in said["optional-dependencies"]["test"] if _name(w) in TOOLS)]
    absent, old = [], []
    for requirement in wanted:
        name, least = _name(requirement), re.search(r">=([\d.]+)", requirement)
        try:
            found = version(name)
        except PackageNotFoundError:
            absent.append(requirement)
            continue
        if least and _numbers(found) < _numbers(least[1]):
            (absent if name in TOOLS else old).append(f"{requirement} ({found} is installed)")
    if find_spec("cupy"):
        absent += [name for module, name in DEVICE.items() if not _there(module)]
    return absent, old


def _name(requirement: str) -> str:
    found = re.match(r"[\w-]+", requirement)
    assert found is not None
    return found[0]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:3]))


def _there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


# running --------------------------------------------------------------------------------------------------------------


def run_tests(arguments: list[str]) -> int:
    """Run pytest until every test was begun; return 0 if all is well."""
    with tempfile.TemporaryDirectory() as folder:
        list_of = Path(folder) / "begun"
        environment = {**os.environ, BEGUN: str(list_of)}
        command = [
            sys.executable, "-m", "pytest", "-m", "gpu", "-p", "tests.gpu_session", "-p", "no:cacheprovider",
            "-W", "default", "-W", "error::RuntimeWarning", *files(), *arguments,
        ]  # fmt: skip
        worst, faults = 0, []
        for _ in range(RESTARTS):
            before = _begun(list_of)
            code = _watched(command, environment, list_of)
            begun = _begun(list_of)
            new = begun[len(before) :]
            if code == 5 and before:  # nothing is left
                code = 0
            worst = worst or code
            if (code != LOST and 0 <= code < 128) or not new:
                break
            faults.append(f"{new[-1]} ({'the device was lost' if code == LOST else f'the process ended with {code}'})")
        else:
            print(f"given up after {RESTARTS} processes", flush=True)
    if faults:
        print("\n".join(["", "tests at fault, behind which the others ran in a new process:", *faults]), flush=True)
    return worst


def _begun(list_of: Path) -> list[str]:
    return list_of.read_text("utf-8").splitlines() if list_of.exists() else []


def _watched(command: list[str], environment: dict[str, str], list_of: Path) -> int:
    """Run a process; end it where a test takes too long."""
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    since, count = time.monotonic(), 0
    while True:
        try:
            return process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            begun = list_of.stat().st_size if list_of.exists() else 0
            if begun != count:
                since, count = time.monotonic(), begun
            if time.monotonic() - since > SECONDS:
                print(f"\nno test ended for {SECONDS} s", flush=True)
                process.send_signal(signal.SIGKILL)
                return process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise


def main(arguments: list[str]) -> int:
    """Check what is installed, run the tests, then the benchmark; return 0 if all is well."""
    absent, old = missing()
    if absent:
        print(f"{sys.executable} lacks what the tests need: {', '.join(absent)}", file=sys.stderr)
        return 2
    if old:
        print(f"older than this project asks for: {', '.join(old)}", flush=True)
    tests = run_tests(arguments)
    benchmark = subprocess.call([sys.executable, "-m", "benchmarks.cuda"], cwd=ROOT)
    return tests or benchmark


# as a plugin of pytest ------------------------------------------------------------------------------------------------


_failed = False


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Leave out what was begun before."""
    begun = set(_begun(Path(os.environ[BEGUN])))
    left = [i for i in items if i.nodeid not in begun]
    if len(left) < len(items):
        config.hook.pytest_deselected(items=[i for i in items if i.nodeid in begun])
        items[:] = left


def pytest_runtest_logstart(nodeid: str) -> None:
    """Note that a test begins."""
    global _failed
    _failed = False
    with open(os.environ[BEGUN], "a", encoding="utf-8") as file:
        file.write(nodeid.replace("\n", " ") + "\n")


def pytest_runtest_logreport(report: Any) -> None:
    """Note that a test has failed."""
    global _failed
    _failed = _failed or report.failed


def pytest_runtest_logfinish(nodeid: str) -> None:
    """End this process where a failed test has taken the device with it."""
    if not _failed or "cupy" not in sys.modules:
        return
    import cupy
    import pytest

    try:
        if cupy.cuda.runtime.getDeviceCount():
            cupy.cuda.runtime.deviceSynchronize()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.exit(f"{nodeid} has lost the device: {error}", returncode=LOST)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
