"""Transfer on real photos: an ImageNet model learns four animals from 15 photos each."""

import time

import numpy as np
import pytest

from onnxgrad.importers.onnx.model import load
from onnxgrad.importers.onnx.save import save
from onnxgrad.tools.finetune import evaluate, finetune
from onnxgrad.tools.images import Preparation, read_image

CAFFE = Preparation(scale=1, mean=(103.94, 116.78, 123.68), bgr=True, crop=True)
"""What SqueezeNet was trained with: bytes, blue first, without the mean colour."""


def animals(folder, shape):
    """The first 15 photos of each class in the order of their names, and the last 5."""
    parts = ([], [])
    for label, kind in enumerate(sorted(p for p in folder.iterdir() if p.is_dir())):
        files = sorted(kind.iterdir())
        assert len(files) == 20
        for i, path in enumerate(files):
            image = read_image(path, np.dtype(np.float32), shape, CAFFE)[0]
            parts[i >= 15].append((image, label))
    return tuple((np.stack([x for x, _ in p]), np.array([y for _, y in p])) for p in parts)


@pytest.mark.slow
def test_squeezenet_learns_four_animals(shared, tmp_path):
    model = load(shared / "models" / "squeezenet-fp16" / "model.onnx")
    training, testing = animals(shared / "data" / "images" / "animals", model.inputs[0].shape)
    model.replace_head(4, seed=0)
    before = evaluate(model, testing, batch_size=5)["accuracy"]

    started = time.perf_counter()
    finetune(model, training, val_split=0, train="head", epochs=20, batch_size=15, progress=False)
    seconds = time.perf_counter() - started

    found = evaluate(model, testing, batch_size=5)
    assert before <= 0.5
    assert found["accuracy"] >= 0.9
    assert seconds < 300

    path = tmp_path / "animals.onnx"
    save(model, path)
    again = load(path)
    (name,) = (i.name for i in model.inputs)
    half = {name: testing[0][:5].astype(np.float16)}
    # The file holds float16: the float32 masters were rounded when it was written.
    np.testing.assert_allclose(model.run(half)[0], again.run(half)[0], atol=2e-3)
    save(again, tmp_path / "twice.onnx")
    assert path.read_bytes() == (tmp_path / "twice.onnx").read_bytes()
    np.testing.assert_array_equal(again.run(half)[0], load(tmp_path / "twice.onnx").run(half)[0])
    assert evaluate(again, testing, batch_size=5)["accuracy"] == found["accuracy"]
