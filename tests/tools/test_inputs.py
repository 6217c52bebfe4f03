"""Model inputs from files, photos and at random."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from onnxgrad.ops.errors import InputError
from onnxgrad.ops.types import STRING, SequenceType, TensorType
from onnxgrad.tools.images import IMAGENET, Preparation, layout_of, read_image
from onnxgrad.tools.inputs import collect

from .serving import port

F32 = np.dtype(np.float32)


@dataclass(frozen=True)
class Files:
    folder: object

    def npy(self, name, array):
        np.save(self.folder / name, array)
        return str(self.folder / name)

    def npz(self, name, **arrays):
        np.savez(self.folder / name, **arrays)
        return str(self.folder / name)

    def text(self, name, text):
        (self.folder / name).write_text(text)
        return str(self.folder / name)

    def image(self, name, pixels):
        Image.fromarray(np.asarray(pixels, np.uint8)).save(self.folder / name)
        return self.folder / name


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


X = port("x", np.float32, "n", 2)
IDS = port("ids", np.int64, "n", "m")
WORDS = port("words", STRING, "n")


def test_npy_with_and_without_a_name(files):
    x = np.ones((3, 2), np.float32)
    path = files.npy("x=1.npy", x)
    for source in (path, f"x={path}"):
        np.testing.assert_array_equal(collect([X], [source])["x"], x)
    with pytest.raises(InputError, match="which input"):
        collect([X, IDS], [path])


def test_npz_by_names(files):
    x, ids = np.ones((1, 2), np.float32), np.zeros((1, 4), np.int64)
    for path in (
        files.npz("plain.npz", x=x, ids=ids),
        files.npz("prefixed.npz", **{"in:x": x, "in:ids": ids, "out:y": x}),
    ):
        assert set(collect([X, IDS], [path])) == {"x", "ids"}
    one = files.npz("one.npz", arr_0=x)
    np.testing.assert_array_equal(collect([X], [one])["x"], x)
    np.testing.assert_array_equal(collect([X, IDS], [f"x={one}"])["x"], x)
    with pytest.raises(InputError, match=r"holds \['q', 'r'\]"):
        collect([X], [files.npz("other.npz", q=x, r=x)])


def test_json(files):
    path = files.text("all.json", json.dumps({"in": {"ids": [[1, 2]], "words": ["a", "b"]}}))
    feeds = collect([IDS, WORDS], [path])
    assert feeds["ids"].dtype == np.int64 and feeds["ids"].tolist() == [[1, 2]]
    assert feeds["words"].dtype == STRING and feeds["words"].tolist() == ["a", "b"]
    assert collect([X], [files.text("x.json", "[[1, 2]]")])["x"].dtype == np.float32
    with pytest.raises(InputError, match="'ids'"):
        collect([IDS], [files.text("bad.json", '[[1, "x"]]')])
    with pytest.raises(InputError, match="'x'"):
        collect([X], [files.text("ragged.json", "[[1, 2], [3]]")])


def test_random_inputs_are_reproducible():
    inputs = [X, IDS, WORDS, port("flag", np.bool_), port("size", np.float32, "n", 3)]
    feeds, again = (collect(inputs, ["ids=random"], fill=True, sizes={"n": 4}, seed=1) for _ in range(2))
    assert [feeds[v.name].shape for v in inputs] == [(4, 2), (4, 1), (4,), (), (4, 3)]
    assert [feeds[v.name].dtype for v in inputs] == [v.type.dtype for v in inputs]
    np.testing.assert_array_equal(feeds["x"], again["x"])
    sequence = type(X)("s", SequenceType(TensorType(F32, ())))
    with pytest.raises(InputError, match="give it a file"):
        collect([sequence], [], fill=True)


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.json", "x.png"])
def test_damaged_files_are_named(files, name):
    path = files.text(name, "{not this")
    shape = port("x", np.float32, 1, 3, 4, 4)
    with pytest.raises(InputError, match=name):
        collect([shape], [path])


def test_pickles_and_unknown_files_are_refused(files):
    with pytest.raises(InputError, match="pickle"):
        collect([X], [files.npy("evil.npy", np.array([{}], object))])
    with pytest.raises(InputError, match=r"not a \.npy, \.npz, \.json or image file"):
        collect([X], [files.text("x.csv", "1,2")])
    with pytest.raises(FileNotFoundError):
        collect([X], ["missing.npy"])
    with pytest.raises(InputError, match="no input is named 'y'"):
        collect([X], ["y=random"])
    with pytest.raises(InputError, match="twice"):
        collect([X], ["x=random", "x=random"])


def test_layouts():
    assert layout_of((1, 3, 8, 9)) == layout_of((X.type.shape[0], 3, 8, 9))
    assert (layout_of((1, 8, 9, 3)).channel_axis, layout_of((1, 8, 9, 3)).width) == (3, 9)
    assert (layout_of((3, 8, 9)).channel_axis, layout_of((8, 9)).channels) == (0, 1)
    for shape in ((1, 2, 8, 9), (5,), (1, 1, 3, 8, 9)):
        with pytest.raises(InputError, match="not an image's"):
            layout_of(shape)


PIXELS = np.arange(2 * 2 * 3).reshape(2, 2, 3) * 20


@pytest.mark.parametrize(
    ("dtype", "shape", "preparation", "wanted"),
    [
        ("float32", (1, 3, 2, 2), Preparation(), PIXELS.transpose(2, 0, 1)[None] / 255),
        ("float32", (3, 2, 2), Preparation(scale=1), PIXELS.transpose(2, 0, 1)),
        (
            "float32",
            (1, 2, 2, 3),
            Preparation(scale=1, mean=(1, 2, 3), std=(2,)),
            (PIXELS[None] - [1, 2, 3]) / 2,
        ),
        ("uint8", (1, 2, 2, 3), Preparation(), PIXELS[None]),
        ("float32", (1, 2, 2, 3), Preparation(scale=1, bgr=True), PIXELS[None, ..., ::-1]),
        ("float32", ("n", 3, "h", "w"), IMAGENET, None),
    ],
)
def test_photos(files, dtype, shape, preparation, wanted):
    value = port("x", dtype, *shape)
    found = read_image(files.image("p.png", PIXELS), value.type.dtype, value.type.known_shape, preparation)
    assert found.dtype == dtype
    if wanted is None:
        scaled = PIXELS / 255
        wanted = ((scaled - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)[None]
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


def test_photos_are_resized_squeezed_or_cropped(files):
    wide = np.zeros((10, 30, 3))
    wide[:, 10:20] = 255
    path = files.image("wide.png", wide)
    squeezed = read_image(path, F32, (1, 1, 6, 6), Preparation())
    cropped = read_image(path, F32, (1, 1, 6, 6), Preparation(crop=True))
    assert squeezed.shape == cropped.shape == (1, 1, 6, 6)
    assert cropped.mean() > 0.95 and 0.2 < squeezed.mean() < 0.5
    with pytest.raises(InputError, match="mean has 2 values, the input has 3 channels"):
        read_image(path, F32, (1, 3, 6, 6), Preparation(mean=(1, 2)))
