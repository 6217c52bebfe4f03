"""Transfer on real photos: an ImageNet model learns four animals from 15 photos each."""

import time

import numpy as np
import pytest

from onnxgrad.importers.onnx.model import load
from onnxgrad.importers.onnx.save import save
from onnxgrad.tools.datasets import Photos
from onnxgrad.tools.finetune import evaluate, finetune
from onnxgrad.tools.images import Preparation

CAFFE = Preparation(scale=1, mean=(103.94, 116.78, 123.68), bgr=True)
"""What SqueezeNet was trained with: bytes, blue first, without the mean colour."""


def animals(folder, shape):
    """Of each class's photos in the order of their names, every fourth tests and the others train, in 8 views each."""
    parts = ([], [])
    for label, kind in enumerate(sorted(p for p in folder.iterdir() if p.is_dir())):
        for i, path in enumerate(sorted(kind.iterdir())):
            parts[i % 4 == 3].append((path, label))
    assert [len(p) for p in parts] == [60, 20]
    return tuple(
        Photos(p, np.dtype(np.float32), shape, CAFFE, views).kept() for p, views in zip(parts, (8, 0), strict=True)
    )


@pytest.mark.slow
def test_squeezenet_learns_four_animals(shared, tmp_path):
    model = load(shared / "models" / "squeezenet-fp16" / "model.onnx")
    training, testing = animals(shared / "data" / "images" / "animals", model.inputs[0].shape)
    model.replace_head(4, seed=0, gain=0.01)
    before = evaluate(model, testing, batch_size=5)["accuracy"]

    started = time.perf_counter()
    finetune(
        model, training, val_split=0, train="head", epochs=5, batch_size=16, schedule="cosine", progress=False
    )  # fmt: skip
    seconds = time.perf_counter() - started

    found = evaluate(model, testing, batch_size=5)
    print(f"{before:.0%} -> {found['accuracy']:.0%} in {seconds:.0f} s")
    assert before <= 0.5
    assert found["accuracy"] >= 0.9

    path = tmp_path / "animals.onnx"
    save(model, path)
    again = load(path)
    half = {model.inputs[0].name: testing[0][:5].astype(np.float16)}
    # The file holds float16: the float32 masters were rounded when it was written.
    np.testing.assert_allclose(model.run(half)[0], again.run(half)[0], atol=2e-3)
    save(again, tmp_path / "twice.onnx")
    assert path.read_bytes() == (tmp_path / "twice.onnx").read_bytes()
    np.testing.assert_array_equal(again.run(half)[0], load(tmp_path / "twice.onnx").run(half)[0])
    assert evaluate(again, testing, batch_size=5)["accuracy"] == found["accuracy"]
