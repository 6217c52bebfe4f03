"""Transforms: Pillow's results on pictures, PyTorch's and closed forms on Tensors."""

import math

import numpy as np
import pytest
from PIL import Image

import onnxgrad as og
from onnxgrad.ops.errors import DTypeError, InputError, ShapeError
from onnxgrad.vision import transforms as T
from onnxgrad.vision.transforms import functional as TF

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (11, 17, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)
TENSOR = og.Tensor(np.ascontiguousarray(PIXELS.transpose(2, 0, 1)))
BOTH = pytest.mark.parametrize("image", [PICTURE, TENSOR], ids=["picture", "tensor"])


def array(image):
    """Channels, height and width of a picture or a Tensor."""
    if isinstance(image, og.Tensor):
        return image.numpy()
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def test_pictures_become_tensors():
    x = TF.to_tensor(PICTURE)
    assert x.dtype == og.float32 and x.shape == (3, 11, 17)
    np.testing.assert_array_equal(x.numpy(), PIXELS.transpose(2, 0, 1).astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(TF.pil_to_tensor(PICTURE).numpy(), PIXELS.transpose(2, 0, 1))
    np.testing.assert_array_equal(TF.to_tensor(PIXELS).numpy(), x.numpy())
    assert TF.to_tensor(PIXELS.astype(np.float64)[..., 0]).dtype == og.float64
    x += 1.0


@pytest.mark.parametrize(
    ("mode", "dtype", "shape"),
    [
        ("L", og.float32, (1, 2, 3)),
        ("1", og.float32, (1, 2, 3)),
        ("RGBA", og.float32, (4, 2, 3)),
        ("LA", og.float32, (2, 2, 3)),
        ("I", og.int32, (1, 2, 3)),
        ("F", og.float32, (1, 2, 3)),
        ("I;16", og.uint16, (1, 2, 3)),
    ],
)
def test_modes(mode, dtype, shape):
    picture = Image.new(mode, (3, 2), 1) if mode not in ("RGBA", "LA") else Image.new(mode, (3, 2))
    x = TF.to_tensor(picture)
    assert (x.dtype, x.shape) == (dtype, shape)
    if mode in ("1", "I", "F", "I;16"):
        assert x[0, 0, 0].item() == 1
        assert mode == "1" or TF.to_pil_image(x, mode).mode == mode
    else:
        assert TF.to_pil_image(x).mode == mode


def test_there_and_back():
    np.testing.assert_array_equal(np.asarray(TF.to_pil_image(TF.to_tensor(PICTURE))), PIXELS)
    np.testing.assert_array_equal(np.asarray(TF.to_pil_image(TENSOR)), PIXELS)
    np.testing.assert_array_equal(np.asarray(TF.to_pil_image(PIXELS, "HSV")), PIXELS)
    assert TF.to_pil_image(og.full((2, 2), 0.999)).getpixel((0, 0)) == int(0.999 * 255)
    assert TF.to_pil_image(np.full((2, 2), 3, np.int32)).mode == "I"


def test_normalize():
    x = TF.to_tensor(PICTURE)
    mean, std = (0.5, 0.4, 0.3), (0.1, 0.2, 0.3)
    expected = (x.numpy() - np.float32(mean)[:, None, None]) / np.float32(std)[:, None, None]
    np.testing.assert_array_equal(TF.normalize(x, mean, std).numpy(), expected)
    np.testing.assert_array_equal(TF.normalize(og.stack([x, x]), mean, std)[1].numpy(), expected)
    assert T.Normalize(mean, std, inplace=True)(x) is x
    np.testing.assert_array_equal(x.numpy(), expected)
    np.testing.assert_array_equal(TF.normalize(TENSOR.double(), [0.0], [2.0]).numpy(), TENSOR.numpy() / 2)


@pytest.mark.parametrize(
    ("size", "max_size", "expected"),
    [
        (5, None, (5, 7)),
        ([5], None, (5, 7)),
        (22, None, (22, 34)),
        (5, 6, (4, 6)),
        ((3, 4), None, (3, 4)),
        (11, None, (11, 17)),
    ],
)
@BOTH
def test_sizes(image, size, max_size, expected):
    assert array(TF.resize(image, size, max_size=max_size)).shape[1:] == expected
    turned = image.transpose(Image.Transpose.ROTATE_90) if image is PICTURE else image.transpose(1, 2)
    if not isinstance(size, tuple):
        assert array(TF.resize(turned, size, max_size=max_size)).shape[:0:-1] == expected


@pytest.mark.parametrize("mode", list(T.InterpolationMode))
def test_pictures_are_resized_by_pillow(mode):
    name = "nearest" if mode.value.startswith("nearest") else mode.value
    resample = Image.Resampling[name.upper()]
    made = T.Resize((5, 7), mode)(PICTURE)
    np.testing.assert_array_equal(np.asarray(made), np.asarray(PICTURE.resize((7, 5), resample)))
    if mode.value != "nearest-exact":
        assert T.Resize(3, int(resample)).interpolation is mode


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(5, 7), (20, 30)])
def test_tensors_are_resized_as_pictures_are(mode, size):
    pixels = PIXELS // 4 + 90  # far from 0 and 255, to which Pillow clips after each axis
    made = TF.resize(og.Tensor(np.ascontiguousarray(pixels.transpose(2, 0, 1))), size, T.InterpolationMode(mode))
    assert made.dtype == og.uint8
    picture = TF.resize(Image.fromarray(pixels), size, T.InterpolationMode(mode))
    difference = array(made).astype(int) - array(picture)
    assert np.abs(difference).max() <= 1


@pytest.mark.oracle
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest", "nearest-exact"])
def test_tensors_are_resized_as_by_torch(mode, antialias, compared):
    import torch
    import torch.nn.functional as F

    for dtype in ("float32", "float64"):
        x = TF.to_tensor(PICTURE).to(dtype=dtype)
        smooth = mode.startswith("bi")
        how = {"align_corners": False, "antialias": antialias} if smooth else {}
        for size in ((5, 7), (20, 9)):
            theirs = F.interpolate(torch.from_numpy(x.numpy())[None], size=size, mode=mode, **how)[0].numpy()
            ours = TF.resize(x, size, T.InterpolationMode(mode), antialias=antialias).numpy()
            difference = float(np.abs(ours - theirs).max())
            assert difference <= {"float32": 1e-5, "float64": 1e-10}[dtype]
            compared.note("vision resize", dtype, difference)


@pytest.mark.parametrize("place", [(2, 3, 5, 6), (-2, -3, 5, 6), (8, 12, 9, 9), (-1, -1, 20, 30), (20, 3, 4, 4)])
def test_crops_of_tensors_are_those_of_pictures(place):
    top, left, height, width = place
    picture = PICTURE.crop((left, top, left + width, top + height))
    np.testing.assert_array_equal(np.asarray(TF.crop(PICTURE, *place)), np.asarray(picture))
    np.testing.assert_array_equal(array(TF.crop(TENSOR, *place)), array(picture))


@BOTH
def test_the_middle(image):
    middle = TF.center_crop(image, 5)
    np.testing.assert_array_equal(array(middle), PIXELS.transpose(2, 0, 1)[:, 3:8, 6:11])
    large = array(T.CenterCrop((14, 10))(image))
    assert large.shape == (3, 14, 10) and not large[:, 0].any() and not large[:, -2:].any()
    np.testing.assert_array_equal(large[:, 1:12], PIXELS.transpose(2, 0, 1)[:, :, 4:14])


@pytest.mark.parametrize("padding", [2, (1, 2), [1, 2, 3, 4], [3]])
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
@BOTH
def test_borders(image, padding, mode):
    left, top, right, bottom = {1: lambda p: (p[0],) * 4, 2: lambda p: (*p, *p), 4: lambda p: p}[
        1 if isinstance(padding, int) else len(padding)
    ]([padding] if isinstance(padding, int) else padding)
    fill = {"constant_values": 9} if mode == "constant" else {}
    expected = np.pad(PIXELS.transpose(2, 0, 1), ((0, 0), (top, bottom), (left, right)), mode=mode, **fill)
    np.testing.assert_array_equal(array(T.Pad(padding, 9, mode)(image)), expected)


@BOTH
def test_a_border_may_have_a_colour_and_be_negative(image):
    made = array(TF.pad(image, 1, (1, 2, 3)))
    assert made[:, 0, 0].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(made[:, 1:-1, 1:-1], PIXELS.transpose(2, 0, 1))
    np.testing.assert_array_equal(
        array(TF.pad(image, -2, padding_mode="edge")), PIXELS.transpose(2, 0, 1)[:, 2:-2, 2:-2]
    )


@BOTH
def test_mirrors(image):
    planes = PIXELS.transpose(2, 0, 1)
    np.testing.assert_array_equal(array(TF.hflip(image)), planes[:, :, ::-1])
    np.testing.assert_array_equal(array(TF.vflip(image)), planes[:, ::-1])


def test_greys():
    np.testing.assert_array_equal(np.asarray(TF.rgb_to_grayscale(PICTURE)), np.asarray(PICTURE.convert("L")))
    three = np.asarray(T.Grayscale(3)(PICTURE))
    assert three.shape == (11, 17, 3) and (three == np.asarray(PICTURE.convert("L"))[..., None]).all()
    x = TF.to_tensor(PICTURE)
    expected = 0.2989 * x.numpy()[0] + 0.587 * x.numpy()[1] + 0.114 * x.numpy()[2]
    np.testing.assert_allclose(TF.rgb_to_grayscale(x).numpy()[0], expected, rtol=1e-6)
    assert TF.rgb_to_grayscale(TENSOR, 3).shape == (3, 11, 17) and TF.rgb_to_grayscale(TENSOR).dtype == og.uint8


@pytest.mark.parametrize(
    ("value", "dtype", "expected", "found"),
    [
        (og.tensor([0.0, 0.5, 1.0]), og.uint8, [0, 127, 255], og.uint8),
        (og.tensor([0, 128, 255], dtype=og.uint8), og.float32, [0, 128 / 255, 1], og.float32),
        (og.tensor([0, 255], dtype=og.uint8), og.int16, [0, 255 * 128], og.int16),
        (og.tensor([0, 32767], dtype=og.int16), og.uint8, [0, 255], og.uint8),
        (og.tensor([0.5]), og.float64, [0.5], og.float64),
    ],
)
def test_element_types(value, dtype, expected, found):
    made = T.ConvertImageDtype(dtype)(value)
    assert made.dtype == found
    np.testing.assert_allclose(made.numpy(), expected, rtol=1e-6)


COLOURS = {
    "brightness": (TF.adjust_brightness, (0.0, 0.6, 1.0, 1.7)),
    "contrast": (TF.adjust_contrast, (0.0, 0.6, 1.0, 1.7)),
    "saturation": (TF.adjust_saturation, (0.0, 0.6, 1.0, 1.7)),
    "hue": (TF.adjust_hue, (-0.5, -0.2, 0.0, 0.3)),
}


@pytest.mark.parametrize("name", COLOURS)
def test_colours_of_tensors_are_those_of_pictures(name):
    change, factors = COLOURS[name]
    for factor in factors:
        picture = array(change(PICTURE, factor)).astype(int)
        tensor = array(change(TENSOR, factor)).astype(int)
        floats = change(TF.to_tensor(PICTURE), factor)
        assert floats.dtype == og.float32 and floats.min() >= 0 and floats.max() <= 1
        # Pillow keeps hue and saturation in a byte each.
        assert np.abs(picture - tensor).max() <= (15 if name == "hue" else 3)
        assert np.abs(floats.numpy() * 255 - tensor).max() < 2
    assert name == "hue" or change(PICTURE, 1.0).tobytes() == PICTURE.tobytes()


def test_hues_turn_all_the_way():
    red = og.tensor([1.0, 0.0, 0.0]).reshape(3, 1, 1)
    np.testing.assert_allclose(TF.adjust_hue(red, 1 / 3).flatten().numpy(), [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(TF.adjust_hue(red, -1 / 3).flatten().numpy(), [0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(TF.adjust_hue(red, 0.5).flatten().numpy(), [0, 1, 1], atol=1e-6)


def test_the_negative():
    np.testing.assert_array_equal(array(TF.invert(PICTURE)), 255 - PIXELS.transpose(2, 0, 1))
    np.testing.assert_array_equal(array(TF.invert(TENSOR)), 255 - PIXELS.transpose(2, 0, 1))


def test_a_rotation_is_pillows():
    assert (
        TF.rotate(PICTURE, 30, expand=True, fill=3).tobytes()
        == PICTURE.rotate(30, expand=True, fillcolor=(3,) * 3).tobytes()
    )
    with pytest.raises(TypeError, match="before ToTensor"):
        TF.rotate(TENSOR, 3)


@BOTH
def test_random_parts(image):
    og.manual_seed(0)
    planes = PIXELS.transpose(2, 0, 1)
    seen = set()
    for _ in range(40):
        part = array(T.RandomCrop((9, 15))(image))
        (place,) = [(i, j) for i in range(3) for j in range(3) if (planes[:, i : i + 9, j : j + 15] == part).all()]
        seen.add(place)
    assert len(seen) == 9
    assert array(T.RandomCrop(11, padding=(2, 4), padding_mode="reflect")(image)).shape == (3, 11, 11)
    assert array(T.RandomCrop((20, 30), pad_if_needed=True)(image)).shape == (3, 20, 30)
    np.testing.assert_array_equal(array(T.RandomCrop((11, 17))(image)), planes)


@BOTH
def test_random_mirrors(image):
    og.manual_seed(0)
    planes = PIXELS.transpose(2, 0, 1)
    for transform, mirrored in ((T.RandomHorizontalFlip, planes[..., ::-1]), (T.RandomVerticalFlip, planes[:, ::-1])):
        assert (array(transform(p=1.0)(image)) == mirrored).all()
        assert (array(transform(p=0)(image)) == planes).all()
        flipped = sum(bool((array(transform()(image)) == mirrored).all()) for _ in range(200))
        assert 70 < flipped < 130


def test_random_parts_of_random_size():
    og.manual_seed(0)
    picture = Image.new("L", (60, 40))
    found = [T.RandomResizedCrop.get_params(picture, (0.2, 0.5), (0.75, 4 / 3)) for _ in range(300)]
    for top, left, h, w in found:
        assert 0 <= top <= 40 - h and 0 <= left <= 60 - w
        assert 0.18 < h * w / 2400 < 0.53 and 0.7 < w / h < 1.4
    assert np.mean([h * w / 2400 for _, _, h, w in found]) == pytest.approx(0.35, abs=0.02)
    assert np.mean([math.log(w / h) for _, _, h, w in found]) == pytest.approx(0, abs=0.03)
    narrow = Image.new("L", (4, 100))
    assert T.RandomResizedCrop.get_params(narrow, (1.0, 1.0), (0.75, 4 / 3)) == (47, 0, 5, 4)
    for image in (PICTURE, TENSOR):
        assert array(T.RandomResizedCrop(6)(image)).shape == (3, 6, 6)


def test_random_changes_are_seeded():
    change = T.Compose(
        [
            T.RandomResizedCrop(8),
            T.RandomApply([T.RandomRotation(20), T.ColorJitter(0.3, (0.5, 2), 0.1, 0.2)], p=0.7),
            T.RandomChoice([T.RandomHorizontalFlip(), T.RandomGrayscale(0.5)], p=[1, 3]),
            T.ToTensor(),
        ]
    )

    def made(seed):
        og.manual_seed(seed)
        return [change(PICTURE).numpy() for _ in range(5)]

    first, again, other = made(0), made(0), made(1)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert made(2)[0].shape == (3, 8, 8)


def test_perhaps():
    og.manual_seed(0)
    applied = sum(T.RandomApply([lambda x: x + 1, lambda x: x * 2], p=0.3)(0) for _ in range(500))
    assert 240 < applied < 360
    chosen = [T.RandomChoice([lambda _: "a", lambda _: "b"], p=[3, 1])(0) for _ in range(400)]
    assert 260 < chosen.count("a") < 340


def test_reprs():
    composed = T.Compose([T.Resize(256), T.CenterCrop(224), T.ToTensor(), T.Normalize([0.5], [0.5])])
    assert repr(composed) == (
        "Compose(\n    Resize(size=256, interpolation=bilinear, max_size=None, antialias=True)\n"
        "    CenterCrop(size=(224, 224))\n    ToTensor()\n    Normalize(mean=[0.5], std=[0.5])\n)"
    )
    shown = {
        T.RandomCrop(32, padding=4): "RandomCrop(size=(32, 32), padding=4)",
        T.RandomHorizontalFlip(): "RandomHorizontalFlip(p=0.5)",
        T.RandomResizedCrop(224): "RandomResizedCrop(size=(224, 224), scale=(0.08, 1.0), ratio=(0.75, 1.3333), "
        "interpolation=bilinear, antialias=True)",
        T.RandomRotation(15): "RandomRotation(degrees=[-15.0, 15.0], interpolation=nearest, expand=False, fill=0)",
        T.ColorJitter(
            0.5, hue=0.1
        ): "ColorJitter(brightness=(0.5, 1.5), contrast=None, saturation=None, hue=(-0.1, 0.1))",
        T.Pad(2): "Pad(padding=2, fill=0, padding_mode=constant)",
        T.Grayscale(): "Grayscale(num_output_channels=1)",
        T.Lambda(abs): "Lambda()",
        T.ToPILImage(): "ToPILImage()",
        T.ToPILImage("L"): "ToPILImage(mode=L)",
        T.ConvertImageDtype(og.float32): "ConvertImageDtype()",
        T.RandomApply([T.ToTensor()], 0.3): "RandomApply(\n    p=0.3\n    ToTensor()\n)",
    }
    assert {t: repr(t) for t in shown} == shown


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: TF.to_tensor("x"), TypeError, "pic should be PIL Image or ndarray. Got <class 'str'>"),
        (lambda: TF.to_tensor(np.ones(3)), InputError, "pic should be 2/3 dimensional. Got 1 dimensions."),
        (lambda: TF.pil_to_tensor(PIXELS), TypeError, "pic should be PIL Image"),
        (lambda: TF.to_pil_image(PICTURE), TypeError, "pic should be Tensor or ndarray"),
        (lambda: TF.to_pil_image(og.ones(5, 2, 2)), InputError, "pic should not have > 4 channels. Got 5 channels."),
        (lambda: TF.to_pil_image(PIXELS, "L"), InputError, r"Incorrect mode \(L\) supplied for input type uint8"),
        (lambda: TF.to_pil_image(np.ones((2, 2), np.int64)), TypeError, "Input type int64 is not supported"),
        (lambda: TF.normalize(PICTURE, [0], [1]), TypeError, "img should be Tensor Image"),
        (lambda: TF.normalize(TENSOR, [0], [1]), DTypeError, "should be a float tensor. Got"),
        (lambda: TF.normalize(og.ones(2, 2), [0], [1]), ShapeError, r"\(\.\.\., C, H, W\)"),
        (lambda: TF.normalize(og.ones(1, 2, 2), [0], [0]), InputError, "std evaluated to zero"),
        (lambda: TF.resize(PICTURE, (1, 2, 3)), InputError, "1 or 2 element"),
        (lambda: TF.resize(PICTURE, 5, max_size=5), InputError, "max_size = 5 must be strictly greater"),
        (lambda: TF.resize(TENSOR, 5, T.InterpolationMode.BOX), InputError, "found box"),
        (lambda: TF.resize(PICTURE, 5, "bilinear"), TypeError, "should be a InterpolationMode"),
        (lambda: TF.resize("x", 5), TypeError, "img should be PIL Image or Tensor Image"),
        (lambda: T.Resize(0.5), TypeError, "Size should be int or sequence"),
        (lambda: T.CenterCrop((1, 2, 3)), InputError, "two dimensions"),
        (lambda: TF.pad(PICTURE, "x"), TypeError, "inappropriate padding"),
        (lambda: TF.pad(PICTURE, (1, 2, 3)), InputError, "not a 3 element tuple"),
        (lambda: TF.pad(PICTURE, 1, (1, 2)), InputError, r"number of channels of the image \(2 != 3\)"),
        (lambda: TF.pad(PICTURE, 1, padding_mode="wrap"), InputError, "should be either constant, edge"),
        (
            lambda: T.RandomCrop(30)(PICTURE),
            InputError,
            r"crop size \(30, 30\) is larger than input image size \(11, 17\)",
        ),
        (lambda: T.RandomRotation(-3), InputError, "it must be positive"),
        (lambda: T.ColorJitter(-1), InputError, "brightness is a single number, it must be non negative"),
        (lambda: T.ColorJitter(hue=0.7), InputError, "hue values should be between"),
        (lambda: T.ColorJitter("a"), TypeError, "single number or a list/tuple"),
        (lambda: TF.adjust_hue(PICTURE, 0.6), InputError, r"hue_factor \(0.6\) is not in"),
        (lambda: TF.adjust_contrast(PICTURE, -1), InputError, "is not non-negative"),
        (lambda: TF.rgb_to_grayscale(PICTURE, 2), InputError, "either 1 or 3"),
        (lambda: TF.convert_image_dtype(og.ones(2), og.int32), DTypeError, "cannot be performed safely"),
        (lambda: T.Lambda(3), TypeError, "should be callable"),
    ],
)
def test_wrong_use_says_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_they_are_modules():
    net = og.nn.Sequential(T.CenterCrop(8), T.ConvertImageDtype(og.float32), T.Normalize([0.5], [0.5]))
    assert net(TENSOR).shape == (3, 8, 8)
