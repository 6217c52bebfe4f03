"""Many pictures in one."""

import io

import numpy as np
import pytest
from PIL import Image

import onnxgrad as og
from onnxgrad.ops.errors import ShapeError
from onnxgrad.vision.utils import make_grid, save_image

IMAGES = np.random.default_rng(0).random((5, 3, 4, 6)).astype(np.float32)


def test_side_by_side():
    grid = make_grid(og.Tensor(IMAGES), nrow=3, padding=1, pad_value=0.5).numpy()
    assert grid.shape == (3, 2 * 5 + 1, 3 * 7 + 1) and grid.dtype == np.float32
    for i, image in enumerate(IMAGES):
        top, left = 5 * (i // 3) + 1, 7 * (i % 3) + 1
        np.testing.assert_array_equal(grid[:, top : top + 4, left : left + 6], image)
    assert (grid[:, 0] == 0.5).all() and (grid[:, 6:, 15:] == 0.5).all()
    np.testing.assert_array_equal(make_grid([og.Tensor(i) for i in IMAGES], 3, 1, pad_value=0.5).numpy(), grid)


def test_one_picture_and_grey_ones():
    np.testing.assert_array_equal(make_grid(og.Tensor(IMAGES[0])).numpy(), IMAGES[0])
    np.testing.assert_array_equal(make_grid(og.Tensor(IMAGES[0, 0])).numpy(), IMAGES[0, :1].repeat(3, 0))
    assert make_grid(og.Tensor(IMAGES[:, :1])).shape == (3, 8, 42)


def test_scaled():
    x = og.Tensor(IMAGES * 7 - 3)
    whole = make_grid(x, padding=0, normalize=True).numpy()
    np.testing.assert_allclose([whole.min(), whole.max()], [0, 1], atol=1e-6)
    np.testing.assert_allclose(
        make_grid(x, nrow=5, padding=0, normalize=True, value_range=(0, 2)).numpy()[:, :, :6],
        np.clip(x.numpy()[0], 0, 2) / 2,
        rtol=1e-6,
    )
    each = make_grid(x, nrow=5, padding=0, normalize=True, scale_each=True).numpy()
    assert all(each[..., 6 * i : 6 * i + 6].max() == pytest.approx(1) for i in range(5))
    np.testing.assert_array_equal(x.numpy(), IMAGES * 7 - 3)


def test_saved(tmp_path):
    save_image(og.Tensor(IMAGES), tmp_path / "x.png", nrow=2)
    expected = np.clip(make_grid(og.Tensor(IMAGES), nrow=2).numpy() * 255 + 0.5, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "x.png")), expected.transpose(1, 2, 0))
    file = io.BytesIO()
    save_image(og.ones(1, 2, 2, requires_grad=True), file, format="bmp")
    assert Image.open(file).getpixel((0, 0)) == (255, 255, 255)


def test_wrong_use_says_what_is_wrong():
    with pytest.raises(TypeError, match="tensor or list of tensors expected"):
        make_grid(IMAGES)
    with pytest.raises(ShapeError, match="make_grid takes"):
        make_grid(og.ones(2))
