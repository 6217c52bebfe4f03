"""`onnxgrad finetune` and `onnxgrad explain`."""

import numpy as np
import pytest

pytest.importorskip("PIL")
from PIL import Image

from onnxgrad.importers.onnx.build import Layer, sequential
from onnxgrad.importers.onnx.model import load
from onnxgrad.tools.cli import main

from .small_models import CNN, bars


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(sequential((*CNN, Layer("softmax")), (3, 8, 8)))
    return path


def photos(folder, colours, n=12):
    rng = np.random.default_rng(0)
    for name, colour in colours.items():
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = np.clip(np.array(colour) + rng.normal(0, 20, (20, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:02}.png")


RED, GREEN = (200, 40, 40), (40, 200, 40)


def test_a_folder_of_photos(tmp_path, model, capsys):
    photos(tmp_path / "data", {"red": RED, "green": GREEN})
    out = tmp_path / "tuned.onnx"
    command = ["finetune", str(model), str(tmp_path / "data"), "--out", str(out), "--lr", "0.01", "--epochs", "4"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "new head: gemm1 had 3 classes, the data has 2" in said
    assert "validation accuracy 100.0%" in said
    assert (tmp_path / "tuned.labels.txt").read_text() == "green\nred\n"
    assert load(out).head().classes == 2


def test_folders_for_training_and_validation(tmp_path, model, capsys):
    photos(tmp_path / "data" / "train", {"red": RED, "green": GREEN})
    photos(tmp_path / "data" / "val", {"red": RED, "green": GREEN}, n=3)
    command = ["finetune", str(model), str(tmp_path / "data"), "--out", str(tmp_path / "t.onnx"), "--epochs", "1"]
    assert main([*command, "--train", "conv2*", "--train", "gemm1*"]) == 0
    assert "24 examples in 8 views each, validating on 6 others" in capsys.readouterr().out


def test_views_are_parts_of_photos_and_no_photo_is_on_both_sides(tmp_path):
    from onnxgrad.importers.onnx.model import load_bytes
    from onnxgrad.tools.datasets import from_folder
    from onnxgrad.tools.images import Preparation

    photos(tmp_path, {"red": RED, "green": GREEN})
    inputs = load_bytes(sequential(CNN, (3, 8, 8))).inputs
    once, again = (from_folder(tmp_path, inputs, Preparation(), views=3, val_split=0.25, seed=s) for s in (0, 0))
    (x, y), (held, labels) = once[0].examples, once[1].examples
    assert x.shape == (54, 3, 8, 8) and np.bincount(y).tolist() == [27, 27]
    assert held.shape == (6, 3, 8, 8) and np.bincount(labels).tolist() == [3, 3]
    np.testing.assert_array_equal(x, again[0].examples[0])
    assert len({view.tobytes() for view in x}) == 54
    whole = from_folder(tmp_path, inputs, Preparation(), val_split=0)
    assert len(whole[0]) == 24 and whole[1] is None
    seen = {a.tobytes() for a in whole[0].examples[0]}
    assert {a.tobytes() for a in held} < seen


def test_arrays(tmp_path, capsys):
    model = tmp_path / "model.onnx"
    model.write_bytes(sequential(CNN, (2, 8, 8)))
    x, y = bars(60)
    np.savez(tmp_path / "data.npz", x=x, y=y, x_val=x[:9], y_val=y[:9])
    command = ["finetune", str(model), str(tmp_path / "data.npz"), "--out", str(tmp_path / "t.onnx"), "--lr", "0.01"]
    assert main([*command, "--epochs", "3", "--quiet", "--checkpoint", str(tmp_path / "best.safetensors")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("3 epochs done") and "new head" not in said
    assert (tmp_path / "best.safetensors").exists() and not (tmp_path / "t.labels.txt").exists()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda d: None, "no such file or folder"),
        (lambda d: d.mkdir(), "two or more classes"),
        (lambda d: photos(d, {"red": RED}), "two or more classes"),
        (lambda d: (photos(d, {"red": RED}), (d / "green").mkdir()), "no photos of green"),
        (lambda d: (photos(d, {"a": RED, "b": RED}), (d / "a" / "x.png").write_bytes(b"?")), "x.png"),
        (lambda d: (photos(d / "train", {"a": RED, "b": RED}), photos(d / "val", {"c": RED})), "lack: c"),
        (lambda d: d.write_text("?"), "neither a folder nor an .npz file"),
    ],
)
def test_data_that_is_none(tmp_path, model, capsys, make, said):
    make(tmp_path / "data")
    assert main(["finetune", str(model), str(tmp_path / "data"), "--out", str(tmp_path / "t.onnx")]) == 1
    error = capsys.readouterr().err
    assert said in error and error.startswith("onnxgrad: error: ") and error.count("\n") == 1
    assert not (tmp_path / "t.onnx").exists()


def test_npz_files_that_are_none(tmp_path, model, capsys):
    np.savez(tmp_path / "data.npz", a=np.zeros(3))
    assert main(["finetune", str(model), str(tmp_path / "data.npz"), "--out", str(tmp_path / "t.onnx")]) == 1
    (tmp_path / "data.npz").write_bytes(b"PK")
    assert main(["finetune", str(model), str(tmp_path / "data.npz"), "--out", str(tmp_path / "t.onnx")]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert "arrays x and y, found a" in first and "can be read" in second


def test_a_folder_that_is_not_there(tmp_path, model, capsys):
    assert main(["finetune", str(model), str(tmp_path / "nowhere"), "--out", str(tmp_path / "out.onnx")]) == 1
    assert "no such file or folder; wanted a folder with a folder of pictures" in capsys.readouterr().err


def test_a_place_that_does_not_exist_is_found_before_training(tmp_path, model, capsys):
    photos(tmp_path / "data", {"red": RED, "green": GREEN})
    assert main(["finetune", str(model), str(tmp_path / "data"), "--out", str(tmp_path / "no" / "t.onnx")]) == 1
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["grad-cam", "integrated-gradients", "saliency"])
def test_explain(tmp_path, model, capsys, method):
    Image.new("RGB", (40, 30), RED).save(tmp_path / "photo.jpg")
    (tmp_path / "labels.txt").write_text("left\nmiddle\nright\n")
    out = tmp_path / "why.png"
    command = ["explain", str(model), str(tmp_path / "photo.jpg"), "--method", method, "--out", str(out)]
    assert main([*command, "--target", "1", "--labels", str(tmp_path / "labels.txt"), "--crop"]) == 0
    said = capsys.readouterr().out
    assert "class 1 (middle): score" in said and f"wrote {out}" in said
    with Image.open(out) as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--target", "7"], "target 7 does not exist"),
        (["--layer", "conv7"], "no layer or value is named 'conv7'"),
        (["--layer", "conv1", "--method", "saliency"], "--layer is for grad-cam"),
    ],
)
def test_explain_says_what_is_wrong(tmp_path, model, capsys, options, said):
    Image.new("RGB", (8, 8), RED).save(tmp_path / "photo.png")
    assert main(["explain", str(model), str(tmp_path / "photo.png"), "--out", str(tmp_path / "o.png"), *options]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "o.png").exists()
