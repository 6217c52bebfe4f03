"""The house stands: imports point down, libraries stay on their floor, the face defines nothing."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOORS = ("ops", "runtime", "importers", "tools")  # each may import itself and those before it
FACE = "onnxgrad"
ORDER = (*FLOORS, FACE)

MODULE_LEVEL = {  # libraries besides the standard library that a floor may import when it is imported
    "ops": {"numpy", "ml_dtypes"},
    "runtime": {"numpy", "ml_dtypes", "safetensors"},
    "importers": {"numpy", "ml_dtypes", "onnx", "google"},
    "tools": {"numpy", "ml_dtypes", "rich", "matplotlib", "PIL", "uvicorn", "starlette", "msgspec"},
    FACE: set(),
}
ON_USE = {  # libraries that may be imported inside a function only
    "ops": {"cupy", "cupyx", "cupy_backends", "cudnn", "nvmath", "cuda", "llvmlite", "PIL"},  # PIL: ImageDecoder
    "runtime": {"cupy", "cupyx", "cupy_backends", "cudnn", "nvmath", "cuda", "llvmlite", "mpi4py"},
    "importers": set(),
    "tools": {"cupy", "cupyx", "mpi4py"},
    FACE: set(),
}
COMPILERS = Path("ops", "kernels", "cpu"), Path("runtime", "compiled")  # imported where something is compiled only
BENCHMARK_PEERS = {"torch", "onnxruntime", "openvino"}  # inside functions of tools/bench

VAGUE_NAMES = {"util", "utils", "helper", "helpers", "common", "misc", "manager"}


class Import(NamedTuple):
    line: int
    target: tuple[str, ...]  # ("onnxgrad", "ops", "conv"); a level too many leaves ("..",)
    relative: bool
    on_use: bool  # inside a function, or for the type checker only


def python_files(root: Path, part: str) -> list[Path]:
    return sorted((root / part).rglob("*.py"))


def package_of(path: Path, root: Path) -> tuple[str, ...]:
    folders = path.relative_to(root).parent.parts
    return folders if folders[0] == FACE else (FACE, *folders)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(tree: ast.AST, package: tuple[str, ...], on_use: bool = False) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, tuple(alias.name.split(".")), False, on_use)
        elif isinstance(node, ast.ImportFrom):
            module = tuple(node.module.split(".")) if node.module else ()
            if not node.level:
                base = ()
            elif node.level > len(package):
                base = ("..",)
            else:
                base = package[: len(package) - node.level + 1]
            for alias in node.names:
                yield Import(node.lineno, (*base, *module, alias.name), node.level > 0, on_use)
        else:
            deferred = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or is_type_checking(node)
            yield from imports(node, package, on_use or deferred)


def complaint(found: Import, part: str, path: Path, root: Path) -> str | None:
    top = found.target[0]
    name = ".".join(found.target)
    if top == "..":
        return "imports from above the package"
    if top in FLOORS:
        return f"imports {name} absolutely: that is a second copy of onnxgrad.{top}"
    if top == FACE:
        if not found.relative:
            return f"imports {name} absolutely: within the house imports are relative"
        target = found.target[1] if len(found.target) > 1 and found.target[1] in FLOORS else FACE
        points_up = ORDER.index(target) > ORDER.index(part)
        return f"imports {name}: {part} stands below {target}" if points_up else None
    if top in sys.stdlib_module_names or top in MODULE_LEVEL[part]:
        return None
    on_use = ON_USE[part] | (BENCHMARK_PEERS if (root / "tools" / "bench") in path.parents else set())
    if top == "llvmlite" and any(root / folder in path.parents for folder in COMPILERS):
        return None
    if top in on_use:
        return None if found.on_use else f"imports {top} when it is imported: import it where it is used"
    return f"imports {top}, which {part} must not know"


def import_violations(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)}:{found.line} {wrong}"
        for part in ORDER
        for path in python_files(root, part)
        for found in imports(ast.parse(path.read_bytes()), package_of(path, root))
        if (wrong := complaint(found, part, path, root))
    ]


def vague_names(root: Path) -> list[str]:
    found = []
    for part in ORDER:
        for path in python_files(root, part):
            inside = path.relative_to(root / part)
            names = inside.with_suffix("").parts
            if part == FACE:  # PyTorch's public namespaces: og.utils, og.nn.utils, og.optim.swa_utils
                names = tuple(name for name in names if name not in ("utils", "swa_utils"))
            if any(VAGUE_NAMES & set(name.split("_")) for name in names):
                found.append(str(path.relative_to(root)))
    return found


def hands_on(node: ast.stmt) -> bool:
    """Whether a statement of the face re-exports rather than defines."""
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Delete():
            return True
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.FunctionDef(name="__getattr__" | "__dir__"):
            return True
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name.startswith("_") and not isinstance(node.value, ast.Lambda)
        case ast.If():
            return is_type_checking(node) and all(map(hands_on, node.body)) and not node.orelse
    return False


def definitions_in_face(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)}:{node.lineno} {ast.unparse(node).splitlines()[0]}"
        for path in python_files(root, FACE)
        for node in ast.parse(path.read_bytes()).body
        if not hands_on(node)
    ]


def test_imports_point_down_and_libraries_stay_on_their_floor():
    assert import_violations(ROOT) == []


def test_the_tests_import_the_floors_through_onnxgrad():
    assert [
        f"{path.relative_to(ROOT)}:{found.line}"
        for path in python_files(ROOT, "tests")
        for found in imports(ast.parse(path.read_bytes()), path.relative_to(ROOT).parent.parts)
        if found.target[0] in FLOORS
    ] == []


def test_no_file_has_a_vague_name():
    assert vague_names(ROOT) == []


def test_the_face_only_hands_on():
    assert definitions_in_face(ROOT) == []


def test_every_folder_with_code_is_a_package():
    folders = {path.parent for part in ORDER for path in python_files(ROOT, part)}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_the_root_is_no_package():
    assert not (ROOT / "__init__.py").exists()


def test_import_onnxgrad_is_light(tmp_path):
    heavy = {
        "cupy",
        "google.protobuf",
        "llvmlite",
        "matplotlib",
        "msgspec",
        "onnx",
        "PIL",
        "rich",
        "starlette",
        "uvicorn",
    }
    code = f"import onnxgrad, sys; print(*sorted({heavy!r} & set(sys.modules)))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("path", "source", "wrong"),
    [
        ("ops/conv.py", "from ..runtime import tape", "ops stands below runtime"),
        ("ops/conv.py", "from .. import runtime", "ops stands below runtime"),
        ("ops/kernels/array/conv.py", "from ....importers import x", "ops stands below importers"),
        ("ops/kernels/array/conv.py", "from ..... import x", "above the package"),
        ("runtime/nn/linear.py", "from ... import load", "runtime stands below onnxgrad"),
        ("runtime/autograd/tape.py", "if TYPE_CHECKING:\n    from ...tools import cli", "runtime stands below tools"),
        ("runtime/autograd/tape.py", "from ops import conv", "second copy"),
        ("runtime/autograd/tape.py", "import onnxgrad.ops", "relative"),
        ("runtime/autograd/tape.py", "def f():\n    import onnx", "must not know"),
        ("ops/conv.py", "import scipy.special", "must not know"),
        ("ops/conv.py", "try:\n    import cupy\nexcept ImportError:\n    pass", "where it is used"),
        ("importers/onnx/model.py", "import rich", "must not know"),
        ("tools/bench/conv.py", "import torch", "where it is used"),
        ("tools/cli.py", "def f():\n    import torch", "must not know"),
        ("onnxgrad/nn/functional.py", "import numpy", "must not know"),
    ],
)
def test_a_wrong_import_is_found(tmp_path, path, source, wrong):
    write(tmp_path / path, source)
    (found,) = import_violations(tmp_path)
    assert found.startswith(f"{path}:") and wrong in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("ops/__init__.py", "from . import conv\nfrom .kernels import array"),
        ("ops/kernels/cuda/conv.py", "def f():\n    import cupy\n    from ...types import T"),
        ("runtime/passes/fuse.py", "import numpy as np\nfrom ...ops import conv"),
        (
            "importers/onnx/model.py",
            "import onnx\nfrom google.protobuf import message\nfrom ...runtime import graph",
        ),
        ("tools/bench/conv.py", "def f():\n    import torch"),
        ("onnxgrad/__init__.py", "from .runtime.tensor import Tensor\nfrom . import nn"),
        ("onnxgrad/nn/functional.py", "from ..runtime.nn.functional import relu"),
    ],
)
def test_a_right_import_passes(tmp_path, path, source):
    write(tmp_path / path, source)
    assert import_violations(tmp_path) == []


def test_a_definition_in_the_face_is_found(tmp_path):
    write(tmp_path / "onnxgrad/nn.py", "_LAZY = {}\ndef __getattr__(name): ...\nclass Linear: ...\nF = 1\n")
    assert definitions_in_face(tmp_path) == ["onnxgrad/nn.py:3 class Linear:", "onnxgrad/nn.py:4 F = 1"]


def test_a_vague_name_is_found(tmp_path):
    for name in ("ops/conv_utils.py", "runtime/common/x.py", "onnxgrad/utils/data.py", "ops/reduce.py"):
        write(tmp_path / name, "")
    assert vague_names(tmp_path) == ["ops/conv_utils.py", "runtime/common/x.py"]


def write(path: Path, source: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
