"""What a process remembers of a model for the next: it runs without being built, and is in all else as if it were."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxgrad as og
from onnxgrad.importers.onnx import read, recall, registry
from onnxgrad.importers.onnx.model import load, load_bytes
from onnxgrad.importers.onnx.save import save
from onnxgrad.ops import dims
from onnxgrad.ops.errors import InputError, OnnxGradError
from onnxgrad.ops.kernels.cpu import cache, jit
from onnxgrad.ops.kernels.cpu.spmd import pool
from onnxgrad.ops.kernels.cpu.target import available
from onnxgrad.ops.types import TensorType
from onnxgrad.runtime.files import archive
from onnxgrad.runtime.model import running
from onnxgrad.runtime.tensor.stored import SUPPORTED, StoredTensor

from .models import attention, cnn, model, tensor

pytestmark = pytest.mark.skipif(not available(), reason="the compiled engine is off")

X = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "cache"
    pool()  # the executor's own object is made before
    monkeypatch.setenv(cache.VARIABLE, str(place))
    monkeypatch.setattr(cache, "_warned", set())
    monkeypatch.setattr(cache, "_unusable", set())
    return place


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path, cnn("N"))


@pytest.fixture
def unbuilt(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuse to translate and to compile."""

    def refuse(*args: Any, **how: Any) -> None:
        raise AssertionError("the model is built")

    with monkeypatch.context() as m:
        m.setattr(running, "compile_program", refuse)
        m.setattr("onnxgrad.importers.onnx.source.Translator", refuse)
        yield


def write(place: Path, proto: onnx.ModelProto, name: str = "model.onnx") -> Path:
    path = place / name
    path.write_bytes(proto.SerializeToString())
    return path


def plans(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.plan"), key=lambda p: p.stat().st_size)


def recalled(m: Any) -> bool:
    return m._graph is None and m._recall is not None and m._recall.program is not None


def fresh(path: Path, **how: Any) -> Any:
    """Return the model as it is where nothing is remembered."""
    return load_bytes(path.read_bytes(), **how)


def test_the_second_time_nothing_is_built(path: Path, request: pytest.FixtureRequest) -> None:
    first = load(path).run({"x": X})
    request.getfixturevalue("unbuilt")
    before = jit.compiled_modules()
    m = load(path)
    for _ in range(3):
        np.testing.assert_array_equal(m.run({"x": X})[0], first[0])
    assert recalled(m) and jit.compiled_modules() == before
    with pytest.raises(InputError, match="wanted float32"):
        m.run({"x": X[0]})


def test_it_describes_itself_as_the_built_one(path: Path) -> None:
    built = load(path)
    built.run({"x": X})
    m = load(path)
    assert repr(m) == repr(built)
    assert [(n, tuple(t.shape), t.requires_grad) for n, t in m.named_parameters()] == [
        (n, tuple(t.shape), t.requires_grad) for n, t in built.named_parameters()
    ]
    assert m._graph is None
    assert str(m.report()) == str(built.report()) and str(m.graph) != ""
    assert [n.op.name for n in m.graph.nodes] == [n.op.name for n in built.graph.nodes]


@pytest.mark.parametrize("when", ["before", "after"])
def test_weights_that_change_are_packed_again(path: Path, when: str) -> None:
    load(path).run({"x": X})
    m, other = load(path), fresh(path)
    if when == "after":
        m.run({"x": X})
    for each in (m, other):
        for n, t in each.named_parameters():
            t.data = t.detach() * 1.5 if n != "conv.bias" else t.detach() + 1
    np.testing.assert_array_equal(m.run({"x": X})[0], other.run({"x": X})[0])
    assert recalled(m)
    with og.no_grad():
        for each in (m, other):
            dict(each.named_parameters())["fc.bias"].add_(2.0)
            dict(each.named_parameters())["conv.weight"].mul_(0.5)
    np.testing.assert_array_equal(m.run({"x": X})[0], other.run({"x": X})[0])


def test_other_shapes_are_compiled_and_then_kept_too(path: Path, folder: Path) -> None:
    load(path).run({"x": X})
    more = np.concatenate([X, X + 1])
    m = load(path)
    m.run({"x": X})
    wanted = fresh(path).run({"x": more})[0]
    np.testing.assert_array_equal(m.run({"x": more})[0], wanted)
    np.testing.assert_array_equal(m.run({"x": X})[0], fresh(path).run({"x": X})[0])
    assert len(plans(folder)) == 3
    m = load(path)
    np.testing.assert_array_equal(m.run({"x": more})[0], wanted)
    assert recalled(m)


def test_gradients_heads_and_copies_are_those_of_the_built_one(path: Path) -> None:
    built = load(path)
    built.run({"x": X})
    for use in ("before the first run", "after it"):
        m = load(path)
        if use == "after it":
            m.run({"x": X})
        twin = copy.deepcopy(m)
        for each in (m, built):
            each.zero_grad()
            each(og.tensor(X)).sum().backward()
        for (n, a), (_, b) in zip(m.named_parameters(), built.named_parameters(), strict=True):
            np.testing.assert_array_equal(a.grad.numpy(), b.grad.numpy(), err_msg=n)
        np.testing.assert_array_equal(twin.run({"x": X})[0], built.run({"x": X})[0])
        m.replace_head(7, seed=1)
        assert m.run({"x": X})[0].shape == (1, 7)
        m = load(path).double()
        assert m.run({"x": X.astype(np.float64)})[0].dtype == np.float64


def test_it_is_saved_as_the_built_one(path: Path, tmp_path: Path) -> None:
    built = load(path)
    built.run({"x": X})
    m = load(path)
    m.run({"x": X})
    path.unlink()
    for each, name in ((m, "a.onnx"), (built, "b.onnx")):
        dict(each.named_parameters())["fc.bias"].data = np.arange(5, dtype=np.float32)
        save(each, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_hooks_are_called(path: Path) -> None:
    load(path).run({"x": X})
    m, seen = load(path), []
    m.run({"x": X})
    m.get_submodule("relu").register_forward_hook(lambda *a: seen.append(a))
    m.run({"x": X})
    assert len(seen) == 1


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign", "nonsense", "gone"])
@pytest.mark.parametrize("which", ["model", "program", "object"])
def test_a_damaged_entry_is_made_again(path: Path, folder: Path, which: str, damage: str) -> None:
    first = load(path).run({"x": X})
    small, large = plans(folder)
    model_, program = (small, large) if b'"digest"' in small.read_bytes() else (large, small)
    entry = {"model": model_, "program": program, "object": next(folder.glob("*.o"))}[which]
    data = bytearray(entry.read_bytes())
    if damage == "gone":
        entry.unlink()
    elif damage == "nonsense":
        cache.write(entry.stem, archive.pack({"digest": 1, "object": "0"}, []), entry.suffix)
    else:
        data[-70] ^= 0xFF
        changed = {"truncated": bytes(data[:100]), "empty": b"", "foreign": b"\x7fELF" * 40}
        entry.write_bytes(changed.get(damage, bytes(data)))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(load(path).run({"x": X})[0], first[0])
    assert bool(said) == (damage != "gone") and all("made again" in str(w.message) for w in said)
    m = load(path)
    np.testing.assert_array_equal(m.run({"x": X})[0], first[0])
    assert recalled(m)


def test_a_folder_that_is_read_only_serves(path: Path, folder: Path, unbuilt_later: Callable[[], None]) -> None:
    first = load(path).run({"x": X})
    folder.chmod(0o500)
    try:
        unbuilt_later()
        m = load(path)
        np.testing.assert_array_equal(m.run({"x": X})[0], first[0])
        assert recalled(m)
    finally:
        folder.chmod(0o700)


@pytest.fixture
def unbuilt_later(request: pytest.FixtureRequest) -> Callable[[], None]:
    return lambda: request.getfixturevalue("unbuilt")


def test_without_a_folder_models_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(path).run({"x": X})
    monkeypatch.setenv(cache.VARIABLE, str(path / "no folder"))
    with pytest.warns(RuntimeWarning, match="not kept") as said:
        for _ in range(2):
            np.testing.assert_array_equal(load(path).run({"x": X})[0], first[0])
    assert len(said) == 1


FOLDERS = """
import sys
import numpy as np
from onnxgrad.importers.onnx.model import load
load(sys.argv[1]).run({"x": np.zeros((1, 3, 8, 8), np.float32)})
print(*{m.__file__ for n, m in sys.modules.items() if n.startswith("onnxgrad.") and getattr(m, "__file__", None)})
"""


def test_the_version_of_the_code_is_that_of_all_that_loads_and_compiles(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FOLDERS, path], capture_output=True, text=True, check=True)
    files = [Path(f).resolve().relative_to(archive._ROOT) for f in done.stdout.split()]
    holds_tensors = ("runtime/tensor", "runtime/autograd", "runtime/nn", "runtime/amp", "runtime/cuda")
    missing = [f for f in files if str(f.parent) not in archive.FOLDERS and not str(f).startswith(holds_tensors)]
    assert not missing and len(files) > 100


CODE = """
import sys, numpy as np
from onnxgrad.importers.onnx.model import load
m = load(sys.argv[1])
y = m.run({"x": np.load(sys.argv[2])})[0]
print(m._graph is None, y.tobytes().hex())
"""


def test_processes_agree(path: Path, tmp_path: Path, folder: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    command = [sys.executable, "-c", CODE, str(path), str(tmp_path / "x.npy")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [p.communicate(timeout=120)[0].split() for p in started]
    said.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert said[-1][0] == "True" and len({y for _, y in said}) == 1
    assert not list(folder.glob("*.tmp"))


def test_a_file_with_other_weights_is_another(path: Path) -> None:
    load(path).run({"x": X})
    proto = cnn("N")
    proto.graph.initializer[6].CopyFrom(tensor("fc.weight", 5, 4, seed=9))
    size = path.stat().st_size
    path.write_bytes(proto.SerializeToString())
    assert path.stat().st_size == size
    np.testing.assert_array_equal(load(path).run({"x": X})[0], fresh(path).run({"x": X})[0])


def large(weight: Any, order: Any) -> onnx.ModelProto:
    """Return a product with a weight, its columns in an order that is a constant."""
    n = helper.make_node
    nodes = [n("MatMul", ["x", "w"], ["h"]), n("Gather", ["h", "order"], ["y"], axis=1)]
    given = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(order, "order")]
    return model(nodes, {"x": ["N", 8]}, {"y": None}, given)


@pytest.mark.skipif(not SUPPORTED, reason="weights stay in files on POSIX only")
def test_weights_that_stay_in_the_file_may_differ_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(read, "STORED_BYTES", 1)
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((8, 4096)).astype(np.float32) for _ in range(2))
    order = rng.permutation(4096)
    x = rng.standard_normal((3, 8)).astype(np.float32)
    load(write(tmp_path, large(a, order))).run({"x": x})
    count = len(plans(folder))
    path = write(tmp_path, large(b, order))
    m = load(path)
    assert any(isinstance(t, StoredTensor) for _, t in m.named_parameters())
    second = m.run({"x": x})[0]
    np.testing.assert_array_equal(second, fresh(path).run({"x": x})[0])
    assert recalled(m) and len(plans(folder)) == count
    m = load(write(tmp_path, large(b, order[::-1].copy())))
    np.testing.assert_array_equal(m.run({"x": x})[0], second[:, ::-1])
    assert not recalled(m)


def test_settings_and_targets_are_kept_apart(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(path).run({"x": X})
    for how in ({"accuracy": "exact"}, {"threads": 1}):
        m = load(path, **how)
        np.testing.assert_array_equal(m.run({"x": X})[0], fresh(path, **how).run({"x": X})[0])
        assert not recalled(m)
        m = load(path, **how)
        m.run({"x": X})
        assert recalled(m)
    m = load(path)
    m.threads = 1
    m.run({"x": X})
    assert recalled(m)
    monkeypatch.setenv("ONNXGRAD_CPU", "baseline")
    m = load(path)
    m.run({"x": X})
    assert not recalled(m)
    monkeypatch.setenv("ONNXGRAD_CPU", "off")
    m = load(path)
    assert m._graph is None or m._built.note is None
    np.testing.assert_allclose(m.run({"x": X})[0], fresh(path).run({"x": X})[0])


def test_other_code_makes_other_entries(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(path).run({"x": X})
    version = archive.code_version()
    for module in (recall, sys.modules["onnxgrad.runtime.compiled.kept"]):
        monkeypatch.setattr(module, "code_version", lambda: f"{version} and more")
    m = load(path)
    m.run({"x": X})
    assert not recalled(m)
    for module in (recall, sys.modules["onnxgrad.runtime.compiled.kept"]):
        monkeypatch.setattr(module, "code_version", lambda: None)
    m = load(path)
    m.run({"x": X})
    assert not recalled(m)


def test_bindings_of_others_are_not_remembered(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BINDINGS, ("mine", "Op", 1), lambda node, x: x)
    load(path).run({"x": X})
    assert not plans(folder)


def test_half_precision(tmp_path: Path) -> None:
    n = helper.make_node
    proto = model([n("MatMul", ["x", "w"], ["h"]), n("Relu", ["h"], ["y"])], {"x": ["N", 6]}, {"y": None})
    proto.graph.initializer.append(tensor("w", 6, 5, dtype=np.float16))
    for info in (proto.graph.input[0], proto.graph.output[0]):
        info.type.tensor_type.elem_type = TensorProto.FLOAT16
    path = write(tmp_path, proto)
    x = np.random.default_rng(1).standard_normal((3, 6)).astype(np.float16)
    first = load(path).run({"x": x})[0]
    m = load(path)
    again = m.run({"x": x})[0]
    assert recalled(m) and again.dtype == first.dtype == np.float16
    np.testing.assert_array_equal(again, first)


def test_bad_indices_are_said_by_the_array_kernels(tmp_path: Path) -> None:
    proto = attention()
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    path = write(tmp_path, proto)
    good, bad = np.zeros((1, 4), np.int64), np.full((1, 4), 99)
    first = load(path).run({"ids": good})[0]
    m = load(path)
    np.testing.assert_array_equal(m.run({"ids": good})[0], first)
    assert recalled(m)
    with pytest.raises(OnnxGradError, match="embed"):
        m.run({"ids": bad})
    np.testing.assert_array_equal(m.run({"ids": good})[0], first)


def test_an_input_that_chooses_a_branch_chooses_the_program(tmp_path: Path) -> None:
    n = helper.make_node

    def branch(name: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, None)
        return helper.make_graph([n("MatMul", ["x", name], [f"{name}.y"])], name, [], [out], [tensor(name, 4, 5)])

    nodes = [
        n("Equal", ["k", "one"], ["is_one"]),
        n("If", ["is_one"], ["y"], then_branch=branch("a"), else_branch=branch("b")),
    ]
    one = numpy_helper.from_array(np.array(1), "one")
    proto = model(nodes, {"x": ["N", 4], "k": []}, {"y": None}, [one])
    proto.graph.input[1].type.tensor_type.elem_type = TensorProto.INT64
    path = write(tmp_path, proto)
    x = np.random.default_rng(2).standard_normal((3, 4)).astype(np.float32)
    first, second = ({"x": x, "k": np.array(k)} for k in (1, 2))
    wanted = [load(path).run(feeds)[0] for feeds in (first, second)]
    for feeds, y in zip((first, second), wanted, strict=True):
        load(path).run(feeds)
        m = load(path)
        np.testing.assert_array_equal(m.run(feeds)[0], y)
        assert recalled(m)
        other = second if feeds is first else first
        np.testing.assert_array_equal(m.run(other)[0], wanted[feeds is first])
        np.testing.assert_array_equal(m.run(feeds)[0], y)


def test_a_model_that_draws_is_not_remembered(tmp_path: Path, folder: Path) -> None:
    n = helper.make_node
    nodes = [n("RandomNormalLike", ["x"], ["r"]), n("Add", ["x", "r"], ["y"])]
    path = write(tmp_path, model(nodes, {"x": ["N", 4]}, {"y": None}))
    x = np.zeros((2, 4), np.float32)
    draws = [load(path).run({"x": x})[0] for _ in range(2)]
    assert not np.array_equal(*draws) and not plans(folder)


def test_state_that_does_not_lie_as_arrays_do(tmp_path: Path) -> None:
    w = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3, 2], float_data=[1, 2, 3, 4, 5, 6])
    path = write(tmp_path, model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 3]}, {"y": None}, [w]))
    x = np.eye(3, dtype=np.float32)
    load(path).run({"x": x})
    m = load(path)
    np.testing.assert_array_equal(m.run({"x": x})[0], [[1, 2], [3, 4], [5, 6]])
    assert recalled(m)
    dict(m.named_parameters())["w"].data = np.full((3, 2), 9, np.float32)
    assert m.run({"x": x})[0][0, 0] == 9


N, K = dims.Dim.symbol("n"), dims.Dim.symbol("k")


@pytest.mark.parametrize("d", [3, N, N * K + 2, (N + 1) // 2, (N * N) % 3 + K, dims.at_least(N - 3, 1) * 2 - K])
def test_sizes_are_said_and_heard(d: Any) -> None:
    t = TensorType(np.dtype(np.float32), (d, 4))
    said = recall._said(t)
    heard = recall._type(archive.unpack(archive.pack(said, []))[0])
    assert heard == t and hash(heard) == hash(t)
