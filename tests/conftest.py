"""Fixtures and marks that every test folder shares."""

import os
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from .shared_data import find_shared

if TYPE_CHECKING:
    from .runtime.nn.parity import Compared

# The tests' objects lie in a folder of their own, kept between runs as a user's are.
os.environ.setdefault("ONNXGRAD_CACHE", str(Path(tempfile.gettempdir()) / f"onnxgrad-tests-{os.getuid()}"))

settings.register_profile(
    "onnxgrad",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "onnxgrad"))


def why_no_gpu() -> str | None:
    if find_spec("cupy") is None:
        return "CuPy is not installed"
    import cupy

    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"no CUDA device: {error}"
    return None if count else "no CUDA device"


def why_no_oracle() -> str | None:
    missing = [name for name in ("torch", "captum") if find_spec(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


def pytest_collection_modifyitems(config, items):
    for mark, reason_to_skip in (("gpu", why_no_gpu), ("oracle", why_no_oracle)):
        marked = [item for item in items if item.get_closest_marker(mark)]
        if not marked or not (reason := reason_to_skip()):
            continue
        if mark == "gpu" and "gpu" not in config.option.markexpr:  # thousands of lines would say the same
            config.hook.pytest_deselected(items=marked)
            items[:] = [item for item in items if not item.get_closest_marker(mark)]
            continue
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=reason))


SUMMARY = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def summary(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """A function that adds a line to what is printed after the tests."""
    lines = request.config.stash.setdefault(SUMMARY, [])
    return lines.append


@pytest.fixture(scope="session")
def compared(summary: Callable[[str], None]) -> Iterator["Compared"]:
    """The table of what was compared with PyTorch, printed after the tests."""
    from .runtime.nn.parity import Compared

    table = Compared()
    yield table
    for line in table.lines():
        summary(line)


def pytest_terminal_summary(terminalreporter, config):
    lines = config.stash.get(SUMMARY, [])
    if lines:
        terminalreporter.section("totals")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and data; the test is skipped where it is absent."""
    folder = find_shared()
    if folder is None:
        pytest.skip("no shared test data: set ONNXGRAD_SHARED")
    return folder
