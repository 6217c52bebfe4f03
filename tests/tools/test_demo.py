"""The demo: its data, its model, and the story that it tells."""

import hashlib
import io

import numpy as np
import pytest
from rich.console import Console

from onnxgrad.importers.onnx.model import load
from onnxgrad.importers.onnx.save import to_bytes
from onnxgrad.tools.cli import main
from onnxgrad.tools.demo.demo import demo
from onnxgrad.tools.demo.digits import DATA, MODEL, load_digits, shifted
from onnxgrad.tools.demo.make_digits import main as make_digits
from onnxgrad.tools.demo.train_digits import train
from onnxgrad.tools.finetune import evaluate


def test_the_digits():
    training, testing = load_digits()
    assert (len(training.images), len(testing.images)) == (1297, 500)
    for images, labels in (training, testing):
        assert images.dtype == np.float32 and images.shape[1:] == (1, 8, 8)
        assert images.min() == 0 and images.max() == 1
        assert np.unique(labels).tolist() == list(range(10))


def test_the_shift():
    _, testing = load_digits()
    other = shifted(testing)
    np.testing.assert_array_equal(other.images[:, 0, 0, 0], 1 - testing.images[:, 0, 0, -1])
    np.testing.assert_array_equal(testing.labels, other.labels)


@pytest.mark.oracle
def test_the_digits_are_those_of_scikit_learn(tmp_path, monkeypatch):
    from pathlib import Path

    sklearn = pytest.importorskip("sklearn")
    monkeypatch.setattr("onnxgrad.tools.demo.make_digits.DATA", tmp_path / "digits.npz")
    make_digits(str(Path(sklearn.__file__).parent / "datasets" / "data" / "digits.csv.gz"))
    assert (tmp_path / "digits.npz").read_bytes() == DATA.read_bytes()


def test_the_model_that_ships():
    model = load(MODEL)
    assert sum(p.numel() for p in model.parameters()) < 12_000
    _, testing = load_digits()
    assert evaluate(model, tuple(testing))["accuracy"] >= 0.97
    assert evaluate(model, tuple(shifted(testing)))["accuracy"] < 0.3


def test_training_it_twice_gives_the_same_file():
    files = {hashlib.sha256(to_bytes(train(epochs=1, progress=False))).hexdigest() for _ in range(2)}
    assert len(files) == 1


@pytest.mark.slow
def test_anyone_can_train_it_again():
    model = train(progress=False)
    _, testing = load_digits()
    assert evaluate(model, tuple(testing))["accuracy"] >= 0.97
    ours, shipped = ({n: t.array for n, t in m.named_parameters()} for m in (model, load(MODEL)))
    assert {n: a.shape for n, a in ours.items()} == {n: a.shape for n, a in shipped.items()}


def test_the_story(tmp_path):
    text = io.StringIO()
    assert demo(tmp_path / "new", Console(file=text, width=100))
    said = text.getvalue()
    shares = [float(word.rstrip("%")) for word in said.split() if word.endswith("%")]
    assert shares[0] >= 97 and shares[1] < 30 and shares[-1] >= 95
    assert "bit for bit the same" in said and "og.load" in said
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["digits-tuned.onnx", "explanation.png"]
    assert load(tmp_path / "new" / "digits-tuned.onnx").inputs[0].name == "input"


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("onnxgrad.tools.demo.demo.EPOCHS", 1)
    assert main(["demo", "--out", str(tmp_path)]) == 0
    assert str(tmp_path / "explanation.png") in capsys.readouterr().out.replace("\n", "")


def test_a_model_that_comes_back_different_is_a_failure(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("onnxgrad.tools.demo.demo.EPOCHS", 1)
    monkeypatch.setattr("onnxgrad.tools.demo.demo.save", lambda model, path: path.write_bytes(MODEL.read_bytes()))
    assert main(["demo", "--out", str(tmp_path)]) == 1
    assert "not the same" in capsys.readouterr().out
