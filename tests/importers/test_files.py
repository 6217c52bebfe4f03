"""`save` and `load`: models and state, told apart by what a file holds."""

import inspect
import io
import pickle

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn
from onnxgrad.importers.onnx import model as onnx_model
from onnxgrad.ops.errors import InputError, LoadError, MissingFileError, NotOnnxError, SaveError

from .models import cnn

X = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def model():
    return onnx_model.load_bytes(cnn().SerializeToString())


def test_models_go_there_and_back_whatever_the_name(model, tmp_path):
    for name in ("m.onnx", "m.pt", "m"):
        og.save(model, tmp_path / name)
        again = og.load(tmp_path / name, threads=1)
        assert isinstance(again, og.Model) and again.threads == 1
        np.testing.assert_array_equal(again(X).detach().numpy(), model(X).detach().numpy())
    og.save(model, tmp_path / "x.onnx", external_data=True)
    assert (tmp_path / "x.onnx.data").exists()


def test_models_in_open_files(model, tmp_path):
    file = io.BytesIO()
    og.save(model, file)
    file.seek(0)
    assert og.load(file).name == "the file"
    with open(tmp_path / "net.onnx", "wb") as out:
        og.save(model, out)
    with open(tmp_path / "net.onnx", "rb") as file:
        again = og.load(file, map_location="cpu")
    assert again.name == "net"
    np.testing.assert_array_equal(again(X).detach().numpy(), model(X).detach().numpy())


def test_other_modules_become_models(tmp_path):
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    x = og.randn(5, 3)
    og.save(net, tmp_path / "net.onnx", x, dynamic_axes={"input": {0: "n"}})
    again = og.load(tmp_path / "net.onnx")
    for rows in (x, x[:2]):
        np.testing.assert_allclose(again(rows).detach().numpy(), net(rows).detach().numpy(), rtol=1e-6, atol=1e-6)
    assert list(again.state_dict()) == list(net.state_dict())
    with pytest.raises(SaveError, match=r"Linear as \.onnx without example_inputs"):
        og.save(nn.Linear(1, 1), tmp_path / "none.onnx")
    assert not (tmp_path / "none.onnx").exists()


@pytest.mark.parametrize("name", ["net.pt", "net.onnx", "net.safetensors", "net"])
def test_state_as_in_a_lesson(name, tmp_path):
    path = str(tmp_path / name)
    net = nn.Linear(3, 2)
    og.save(net.state_dict(), path)
    for how in ({}, {"weights_only": True}, {"weights_only": False}, {"map_location": og.device("cpu"), "mmap": True}):
        other = nn.Linear(3, 2)
        other.load_state_dict(og.load(path, **how))
        np.testing.assert_array_equal(other.weight.detach().numpy(), net.weight.detach().numpy())
    file = io.BytesIO()
    og.save({"epoch": 3, "net": net.state_dict()}, file)
    file.seek(0)
    assert og.load(file, "cpu")["epoch"] == 3


def test_saving_replaces_the_file_in_one_step_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "net.pt"
    og.save([1], path)
    path.chmod(0o640)
    og.save([2], path)
    assert og.load(path) == [2] and path.stat().st_mode & 0o777 == 0o640
    with pytest.raises(SaveError, match="a object"):
        og.save([object()], path)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(SaveError, match="No space left"):
        og.save([3], path)
    assert og.load(path) == [2] and [p.name for p in tmp_path.iterdir()] == ["net.pt"]
    with pytest.raises(SaveError, match="does not exist"):
        og.save([1], tmp_path / "none" / "net.pt")


def test_a_file_that_finetune_kept_is_state(tmp_path):
    from onnxgrad.runtime.files.weights_file import save_weights

    save_weights({"w": np.ones(2)}, tmp_path / "best.safetensors", {"epoch": "3"})
    assert og.load(tmp_path / "best.safetensors")["w"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", NotOnnxError, "is empty"),
        (b"not a model", NotOnnxError, "not a complete ONNX file"),
        (b"\x50\0\0\0\0\0\0\0{", LoadError, "not a complete safetensors file"),
        (b"\0\0\0\0\0\1\0\0" + b'{"a":1}', LoadError, "header too large"),
        (pickle.dumps({"a": 1}), LoadError, r"x\.bin is a pickle"),
        (b"PK\x03\x04" + b"archive/data.pkl", LoadError, "as torch.save writes it"),
        (b"PK\x03\x04" + b"arr_0.npy", LoadError, "is an .npz file"),
    ],
)
def test_files_that_hold_neither(content, error, message, tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(content)
    with pytest.raises(error, match=message):
        og.load(path)
    with path.open("rb") as file, pytest.raises(error, match=message):
        og.load(file)


def test_a_header_as_long_as_a_pickle_starts(tmp_path):
    lengths = set()
    for n in range(400, 1600, 8):
        og.save("x" * n, tmp_path / "x.pt")
        lengths.add((tmp_path / "x.pt").read_bytes()[:2])
        assert og.load(tmp_path / "x.pt") == "x" * n
    assert {b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"} <= lengths


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(MissingFileError, match="No such file"):
        og.load(tmp_path / "none.pt")
    with pytest.raises(NotOnnxError, match="is a folder"):
        og.load(tmp_path)
    with pytest.raises(InputError, match="mode 'rb'"):
        og.load(io.StringIO("x"))


def test_settings_that_are_for_something_else(model, tmp_path):
    og.save({"a": 1}, tmp_path / "state.pt")
    og.save(model, tmp_path / "m.onnx")
    for call, message in (
        (lambda: og.load(tmp_path / "state.pt", threads=2), "holds state: threads is for models"),
        (lambda: og.load(tmp_path / "m.onnx", {"cuda": "cpu"}), "holds a model: map_location is a device"),
        (lambda: og.save({}, tmp_path / "x", og.ones(1)), "example_inputs: only a module takes that"),
        (lambda: og.save({}, tmp_path / "x", external_data=True), "external_data: only a module takes that"),
        (lambda: og.save(model, tmp_path / "x", opset_version=20), "opset_version cannot change it"),
        (lambda: og.save(model, io.BytesIO(), external_data=True), "keeps its weights in it"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_the_settings_of_models_are_those_of_the_importer():
    ours, theirs = (inspect.signature(f).parameters for f in (og.load, onnx_model.load))
    assert {name: ours[name].default for name in list(theirs)[1:]} == {
        name: p.default for name, p in list(theirs.items())[1:]
    }
