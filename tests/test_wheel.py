"""What is built holds exactly the files of the face and the floors."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FACE = "onnxgrad"
FLOORS = ("ops", "runtime", "importers", "tools")


def is_source(path: Path) -> bool:
    return not any(part == "__pycache__" or part.startswith(".") for part in path.parts)


def files_below(folder: Path) -> set[str]:
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {path.as_posix() for path in found if is_source(path)}


@pytest.fixture
def tree(tmp_path) -> Path:
    """A copy of what is packaged: setuptools builds beside its sources and keeps what it built before."""
    copy = tmp_path / "tree"
    copy.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in (FACE, *FLOORS):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    return copy


def build_sdist(tree: Path) -> Path:
    code = "from setuptools import build_meta; build_meta.build_sdist('dist')"
    subprocess.run([sys.executable, "-c", code], cwd=tree, check=True, capture_output=True)
    (sdist,) = (tree / "dist").glob("*.tar.gz")
    return sdist


@pytest.mark.parametrize("source", ["tree", "sdist"])
def test_the_wheel_holds_the_tree(tree, tmp_path, source):
    expected = {f"{FACE}/{name}" for name in files_below(tree / FACE)}
    expected |= {f"{FACE}/{floor}/{name}" for floor in FLOORS for name in files_below(tree / floor)}

    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    build_from = tree if source == "tree" else build_sdist(tree)
    subprocess.run([*pip, "--wheel-dir", tmp_path / "out", build_from], check=True, capture_output=True)
    (wheel,) = (tmp_path / "out").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}

    assert packed == expected
