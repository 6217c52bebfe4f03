"""Where there is a GPU, every test that runs kernels runs twice: on the host's emulator, and, marked `gpu`, there."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from ....conftest import why_no_gpu
from . import host
from .device import run_there

HERE = Path(__file__).parent

HOST_ALONE = {
    "test_cubins", "test_cublaslt", "test_cudnn", "test_host", "test_nvrtc", "test_site",
}  # fmt: skip
"""About texts, descriptions and the emulator."""


@cache
def has_gpu() -> bool:
    return why_no_gpu() is None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2] not in HOST_ALONE and has_gpu():
        places = ["host", pytest.param("gpu", marks=pytest.mark.gpu)]
        metafunc.parametrize("place", places, indirect=True)


@pytest.fixture(autouse=True)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the kernels run that a test launches."""
    found = str(getattr(request, "param", "host"))
    if found == "gpu":
        from onnxgrad.runtime.cuda.choice import runner_of

        run_there(monkeypatch, runner_of(0))
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let a GPU do without a compiler for the host: only what runs on the host is skipped for the lack of one."""
    reason = host.why_not()
    if reason is None or not has_gpu():
        return
    ours = [i for i in items if i.path.parent == HERE and i.path.stem not in HOST_ALONE]
    for module in {i.getparent(pytest.Module) for i in ours} - {None}:
        kept = [m for m in module.own_markers if m.name != "skipif" or m.kwargs.get("reason") != reason]
        if len(kept) == len(module.own_markers):
            continue
        module.own_markers[:] = kept
        for item in ours:
            if item.getparent(pytest.Module) is module and not item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=reason))
