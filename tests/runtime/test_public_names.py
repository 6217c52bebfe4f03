"""The face: every public name is the object of the floor that defines it, and nothing is imported before it is used."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import onnxgrad as og

FACE = Path(__file__).resolve().parents[2] / "onnxgrad"
MODULES = sorted(
    ".".join(("onnxgrad", *p.relative_to(FACE).with_suffix("").parts)).removesuffix(".__init__")
    for p in FACE.rglob("*.py")
    if p.parent.name not in {"ops", "runtime", "importers", "tools"} and "__pycache__" not in p.parts
)


def homes(module):
    """Names that a module of the face hands on, and the module that it takes them from."""
    tree = ast.parse(Path(module.__file__).read_text())
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            source = importlib.import_module("." * node.level + node.module, module.__package__)
            found.update({alias.name: source for alias in node.names})
    return found


@pytest.mark.parametrize("name", MODULES)
def test_names_are_the_floors_own(name):
    module = importlib.import_module(name)
    taken = homes(module) if name not in ("onnxgrad", "onnxgrad.explain") else {}
    for public in module.__all__:
        found = getattr(module, public)
        if public in taken:
            assert found is getattr(taken[public], public)
    assert set(module.__all__) <= set(dir(module))


def test_the_root_hands_on_lazily_what_type_checkers_see():
    tree = ast.parse((FACE / "__init__.py").read_text())
    seen = {}
    for node in tree.body:
        if isinstance(node, ast.If):
            for statement in node.body:
                seen.update({a.name: statement.module or "" for a in statement.names})
    assert set(seen) == set(og.__all__)
    for public, home in seen.items():
        if home:
            assert og._HOME[public] == home
            assert getattr(og, public) is getattr(importlib.import_module(f"onnxgrad.{home}"), public)
        else:
            assert getattr(og, public) is importlib.import_module(f"onnxgrad.{public}")


def test_unknown_names():
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = og.nope
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = og.explain.nope
    assert og.__version__.count(".") == 2 and "load" in dir(og)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_import_is_quick():
    code = "import time; t = time.perf_counter(); import onnxgrad; print(time.perf_counter() - t)"
    assert min(float(run(code)[0]) for _ in range(3)) < 0.25


def test_tensors_need_neither_onnx_nor_pictures_nor_servers():
    code = "import onnxgrad as og, sys; og.nn.Linear(2, 2)(og.ones(1, 2)).sum().backward(); print(*sys.modules)"
    assert not {"onnx", "google", "matplotlib", "PIL", "rich", "starlette", "uvicorn", "safetensors"} & set(run(code))


def test_errors_are_all_there():
    from onnxgrad.ops import errors

    assert {n for n, v in vars(errors).items() if isinstance(v, type)} == set(og.errors.__all__)
