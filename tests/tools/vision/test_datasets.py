"""Data sets of pictures."""

import gzip
import struct

import numpy as np
import pytest
from PIL import Image

import onnxgrad as og
from onnxgrad.ops.errors import InputError, LoadError, MissingFileError
from onnxgrad.utils.data import DataLoader
from onnxgrad.vision import datasets, transforms as T

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    for name, files in {"dog": ["b.png", "a.JPG"], "cat": ["x/c.png", "notes.txt"]}.items():
        for i, file in enumerate(files):
            path = root / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".txt":
                path.write_text("none")
            else:
                Image.new("L" if i else "RGB", (6, 4 + i), 100 + i).save(path)
    (root / "readme.md").write_text("beside the classes")
    return root


def test_a_folder_of_photos(folder):
    data = datasets.ImageFolder(folder, T.ToTensor(), lambda label: label + 10)
    assert data.classes == ["cat", "dog"] and data.class_to_idx == {"cat": 0, "dog": 1}
    names = [(str(folder / "cat/x/c.png"), 0), (str(folder / "dog/a.JPG"), 1), (str(folder / "dog/b.png"), 1)]
    assert data.samples == data.imgs == names and data.targets == [0, 1, 1] and len(data) == 3
    x, y = data[1]
    assert x.shape == (3, 5, 6) and y == 11
    assert repr(data) == (
        f"Dataset ImageFolder\n    Number of datapoints: 3\n    Root location: {folder}\n"
        "    StandardTransform\nTransform: ToTensor()\n" + repr(data).split("ToTensor()\n")[1]
    )
    assert datasets.ImageFolder(folder)[0][0].mode == "RGB"
    assert repr(datasets.ImageFolder(folder)).splitlines()[-1] == f"    Root location: {folder}"


def test_other_files_and_loaders(folder):
    text = datasets.DatasetFolder(folder / "..", lambda p: p, extensions=(".txt",))
    assert [s[1] for s in text.samples] == [0]
    chosen = datasets.ImageFolder(folder, is_valid_file=lambda p: p.endswith("c.png"), allow_empty=True)
    assert chosen.targets == [0]
    with pytest.raises(MissingFileError, match=r"no valid file for the classes dog\. $"):
        datasets.ImageFolder(folder, is_valid_file=lambda p: p.endswith("c.png"))


def test_a_folder_that_is_none(folder, tmp_path):
    (folder / "empty").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"for the classes empty\. Supported extensions are: \.jpg, \.jpeg, \.png"
    ):
        datasets.ImageFolder(folder)
    assert len(datasets.ImageFolder(folder, allow_empty=True)) == 3
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="Couldn't find any class folder in"):
        datasets.ImageFolder(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        datasets.ImageFolder(tmp_path / "missing")
    with pytest.raises(InputError, match="Only transforms or transform/target_transform"):
        datasets.VisionDataset(folder, transforms=print, transform=print)


def test_photos_through_a_loader_with_workers(folder):
    data = datasets.ImageFolder(folder, T.Compose([T.Resize((4, 4)), T.RandomHorizontalFlip(), T.ToTensor()]))
    for workers in (0, 2):
        ((x, y),) = DataLoader(data, batch_size=3, num_workers=workers)
        assert x.shape == (3, 3, 4, 4) and x.dtype == og.float32 and y.tolist() == [0, 1, 1]
    with pytest.raises(TypeError, match=r"found <class 'PIL\.Image\.Image'>"):
        next(iter(DataLoader(datasets.ImageFolder(folder))))


def test_real_photos(shared):
    data = datasets.ImageFolder(
        shared / "data/images/animals", T.Compose([T.Resize(40), T.CenterCrop(32), T.ToTensor()])
    )
    assert data.classes == ["cat", "cow", "dog", "elephant"] and len(data) == 80
    part = og.utils.data.Subset(data, range(0, 80, 10))
    one, several = (list(DataLoader(part, 3, num_workers=n)) for n in (0, 2))
    assert [y.tolist() for _, y in one] == [[0, 0, 1], [1, 2, 2], [3, 3]]
    for (a, _), (b, _) in zip(one, several, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def cifar(root, fine=False, rows=4):
    """The binary version with a few pictures a file; returns the pixels and labels of the first."""
    folder = root / ("cifar-100-binary" if fine else "cifar-10-batches-bin")
    folder.mkdir(parents=True)
    names = ["train.bin", "test.bin"] if fine else [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    made = []
    for name in names:
        labels = RNG.integers(0, 100 if fine else 10, rows, dtype=np.uint8)
        pixels = RNG.integers(0, 256, (rows, 3, 32, 32), dtype=np.uint8)
        head = np.stack([labels // 5, labels], 1) if fine else labels[:, None]
        (folder / name).write_bytes(np.concatenate([head, pixels.reshape(rows, -1)], 1).tobytes())
        made.append((pixels, labels))
    meta = [f"class {i}" for i in range(100)] if fine else list("abcdefghij")
    (folder / ("fine_label_names.txt" if fine else "batches.meta.txt")).write_text("\n".join(meta) + "\n\n")
    return made


@pytest.mark.parametrize("fine", [False, True])
def test_cifar(tmp_path, fine):
    made = cifar(tmp_path, fine)
    kind = datasets.CIFAR100 if fine else datasets.CIFAR10
    data, tests = kind(tmp_path, transform=T.ToTensor(), download=True), kind(str(tmp_path), train=False)
    assert len(data) == (4 if fine else 20) and len(tests) == 4
    assert data.data.shape == (len(data), 32, 32, 3) and data.data.dtype == np.uint8
    x, y = data[1]
    np.testing.assert_array_equal(x.numpy(), made[0][0][1].astype(np.float32) / np.float32(255))
    assert y == made[0][1][1] and isinstance(y, int)
    np.testing.assert_array_equal(np.asarray(tests[2][0]), made[-1][0][2].transpose(1, 2, 0))
    assert data.targets[:4] == made[0][1].tolist() and len(data.classes) == (100 if fine else 10)
    assert data.class_to_idx[data.classes[3]] == 3
    assert repr(tests).splitlines() == [
        f"Dataset {kind.__name__}", "    Number of datapoints: 4", f"    Root location: {tmp_path}", "    Split: Test",
    ]  # fmt: skip


def test_cifar_that_is_not_there(tmp_path):
    with pytest.raises(
        MissingFileError, match=r"has no data_batch_1\.bin.*download https://\S+cifar-10-binary\.tar\.gz"
    ):
        datasets.CIFAR10(tmp_path, download=True)
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(LoadError, match=r"python version, whose files are pickles.*cifar-10-binary"):
        datasets.CIFAR10(tmp_path)
    cifar(tmp_path)
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LoadError, match="damaged: it has 12291 bytes, wanted a multiple of 3073"):
        datasets.CIFAR10(tmp_path, train=False)
    path.write_bytes(b"\x0b" + bytes(3072))
    with pytest.raises(LoadError, match="a picture of class 11 of 10"):
        datasets.CIFAR10(tmp_path, train=False)


def idx(array):
    return struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


IMAGES = RNG.integers(0, 256, (3, 28, 28), dtype=np.uint8)
LABELS = np.array([7, 0, 9], np.uint8)


def mnist(folder, start="train", pack=bytes, end="", images=IMAGES, labels=LABELS):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{start}-images-idx3-ubyte{end}").write_bytes(pack(idx(images)))
    (folder / f"{start}-labels-idx1-ubyte{end}").write_bytes(pack(idx(labels)))


@pytest.mark.parametrize("kind", [datasets.MNIST, datasets.FashionMNIST])
@pytest.mark.parametrize("packed", [True, False])
def test_mnist(tmp_path, kind, packed):
    how = {"pack": gzip.compress, "end": ".gz"} if packed else {}
    mnist(tmp_path / kind.__name__ / "raw", "train", **how)
    mnist(tmp_path, "t10k", **how)
    for train in (True, False):
        data = kind(tmp_path, train, T.ToTensor(), download=True)
        assert data.data.shape == (3, 28, 28) and data.targets.tolist() == [7, 0, 9] and len(data) == 3
        x, y = data[1]
        np.testing.assert_array_equal(x.numpy()[0], IMAGES[1].astype(np.float32) / np.float32(255))
        assert y == 0 and isinstance(y, int)
    assert data.class_to_idx[data.classes[9]] == 9 and kind(tmp_path)[0][0].mode == "L"
    assert "Split: Test" in repr(data)


def test_mnist_that_is_not_there_or_damaged(tmp_path):
    with pytest.raises(
        MissingFileError, match=r"MNIST/raw has no train-images-idx3-ubyte.*download https://\S+\.gz and put"
    ):
        datasets.MNIST(tmp_path, download=True)
    raw = tmp_path / "MNIST" / "raw"
    damages = {
        "not an IDX file": lambda b: b"\x80\4" + b,
        "it starts with b''": lambda b: b"",
        "its sizes are": lambda b: b[:6],
        "found 100": lambda b: b[:116],
        "found more": lambda b: b + b"x",
        "its sizes are (4294967295": lambda b: b[:4] + b"\xff" * 12 + b[16:],
    }
    for message, damage in damages.items():
        mnist(raw)
        path = raw / "train-images-idx3-ubyte"
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(LoadError) as caught:
            datasets.MNIST(tmp_path)
        assert message in str(caught.value)
    mnist(raw, labels=LABELS[:2])
    with pytest.raises(LoadError, match="are no pair"):
        datasets.MNIST(tmp_path)
    for damage in (lambda b: gzip.compress(b)[:-20], lambda b: b"\x1f\x8b" + b):
        mnist(raw, "t10k", damage, ".gz")
        with pytest.raises(LoadError, match="cannot be read"):
            datasets.MNIST(tmp_path, train=False)


def test_the_real_mnist(shared):
    data = datasets.MNIST(shared / "data" / "mnist", train=False)
    assert len(data) == 10_000 and data.targets[:5].tolist() == [7, 2, 1, 0, 4]
