"""Interpolation and grids against PyTorch, and where the answer is known."""

import numpy as np
import pytest

import onnxgrad as og
import onnxgrad.nn.functional as F
from onnxgrad.autograd import check_grads
from onnxgrad.ops.errors import OpError

from .layers import draw, same_error, same_function, same_layer
from .parity import both

SIZES = {1: (7,), 2: (6, 7), 3: (3, 4, 5)}
SMOOTH = {1: ["linear"], 2: ["bilinear", "bicubic"], 3: ["trilinear"]}


def settings():
    """Each mode for each rank, larger and smaller, by sizes and by factors."""
    for n in (1, 2, 3):
        more, less = (13, 9, 4)[:n], (3, 2, 4)[-n:]
        modes = [(m, None) for m in ("nearest", "nearest-exact", "area")]
        modes += [(m, corners) for m in SMOOTH[n] for corners in (False, True)]
        for mode, corners in modes:
            how = {"mode": mode, "align_corners": corners}
            for size in (more, less, 1, 10):
                yield n, {"size": size, **how}
            # Where a size stays, PyTorch's gradient of the nearest elements is not that of what it computes.
            for factor in (2, 1.5, 0.6, (1.4 if n == 3 and mode[:4] == "near" else 1.3, 2.7, 0.8)[:n]):
                yield n, {"scale_factor": factor, **how}
            yield n, {"scale_factor": 1.7, "recompute_scale_factor": True, **how}
    for mode in ("bilinear", "bicubic"):
        for corners in (False, True):
            for to in ({"size": (3, 2)}, {"size": (9, 5)}, {"scale_factor": 0.6}, {"scale_factor": (0.4, 1.6)}):
                yield 2, {"mode": mode, "align_corners": corners, "antialias": True, **to}


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n", "how"), list(settings()))
def test_interpolation_is_pytorchs(compared, n, how, dtype):
    same_function(compared, "interpolate", (), how, draw((2, 3, *SIZES[n])), dtype)


@pytest.mark.oracle
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_every_nearest_element_is_pytorchs(mode):
    import torch

    for n in (1, 2, 3, 7, 10, 33, 64, 100):
        x = np.arange(n, dtype=np.float32).reshape(1, 1, n)
        for out in range(1, 2 * n + 3):
            ours = F.interpolate(og.tensor(x), out, mode=mode)
            theirs = torch.nn.functional.interpolate(torch.tensor(x), out, mode=mode)
            assert ours.tolist() == theirs.tolist(), (n, out)
        for factor in (0.37, 1.1, 2.5, 3.0):
            if n * factor >= 1:
                ours = F.interpolate(og.tensor(x), scale_factor=factor, mode=mode)
                assert ours.tolist() == torch.nn.functional.interpolate(
                    torch.tensor(x), scale_factor=factor, mode=mode
                ).tolist(), (n, factor)  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("Upsample", (), {"scale_factor": 2}),
        ("Upsample", ((4, 9),), {}),
        ("Upsample", (), {"size": 5, "mode": "bilinear"}),
        ("Upsample", (), {"scale_factor": (2, 1.5), "mode": "bicubic", "align_corners": True}),
        ("Upsample", (None, 1.4, "bilinear", False, True), {}),
        ("UpsamplingNearest2d", (), {"scale_factor": 3}),
        ("UpsamplingNearest2d", ((4, 3),), {}),
        ("UpsamplingBilinear2d", (), {"scale_factor": 2}),
        ("UpsamplingBilinear2d", (8,), {}),
    ],
)
def test_layers_are_pytorchs(compared, name, args, kwargs, dtype):
    same_layer(compared, name, args, kwargs, draw((2, 3, 4, 5)), dtype)


@pytest.mark.oracle
@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_grid_sampling_is_pytorchs(compared, mode, padding, corners):
    how = {"mode": mode, "padding_mode": padding, "align_corners": corners}
    given = draw((2, 3, 5, 4), (2, 6, 3, 2)), draw((2, 3, 3, 5, 4), (2, 2, 3, 2, 3))
    for x, grid in given[: 1 if mode == "bicubic" else 2]:
        for dtype, scale in (("float64", 1.2), ("float32", 0.5)):

            def sample(lib, f, x, t):
                grid = t if mode != "nearest" else t.detach()  # PyTorch's gradient is 0, ours None
                return lib.nn.functional.grid_sample(x, grid, **how)

            both(
                compared,
                "F.grid_sample",
                lambda lib: lib.nn.functional.grid_sample,
                [x, grid * scale],
                dtype,
                call=sample,
            )


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("corners", [False, True])
def test_affine_grids_are_pytorchs(compared, corners, dtype):
    for theta, size in zip(
        draw((2, 2, 3), (2, 3, 4), (1, 2, 3)), [(2, 3, 4, 5), (2, 1, 3, 4, 2), (1, 1, 5, 2)], strict=True
    ):
        same_function(compared, "affine_grid", (size,), {"align_corners": corners}, [theta], dtype)


def test_a_turned_image():
    x = og.tensor(draw((1, 2, 5, 5))[0], dtype=og.float64)
    turn = og.tensor([[[0.0, 1, 0], [-1, 0, 0]]], dtype=og.float64)
    y = F.grid_sample(x, F.affine_grid(turn, (1, 2, 5, 5), align_corners=False), align_corners=False)
    np.testing.assert_allclose(y.numpy(), np.rot90(x.numpy(), -1, (2, 3)), atol=1e-12)


def test_what_interpolation_gives():
    x = og.tensor([[[1.0, 2, 4]]])
    assert F.interpolate(x, 6).tolist() == [[[1, 1, 2, 2, 4, 4]]]
    assert F.interpolate(x, 5, mode="linear", align_corners=True).tolist() == [[[1, 1.5, 2, 3, 4]]]
    assert F.interpolate(x, scale_factor=2, mode="linear").tolist() == [[[1, 1.25, 1.75, 2.5, 3.5, 4]]]
    assert F.interpolate(og.tensor([[[1, 2]]]), 4).tolist() == [[[1, 1, 2, 2]]]
    ramp = np.arange(12.0)
    y = F.interpolate(og.tensor(ramp.reshape(1, 1, 3, 4), dtype=og.float64), (5, 7), mode="bicubic", align_corners=True)
    rows, columns = np.linspace(0, 2, 5), np.linspace(0, 3, 7)
    np.testing.assert_allclose(y.numpy()[0, 0, 2], 4 + F.interpolate(
        og.tensor(np.arange(4.0).reshape(1, 1, 1, 4), dtype=og.float64), (1, 7), mode="bicubic", align_corners=True
    ).numpy()[0, 0, 0], rtol=1e-12)  # fmt: skip
    linear = F.interpolate(
        og.tensor(ramp.reshape(1, 1, 3, 4), dtype=og.float64), (5, 7), mode="bilinear", align_corners=True
    )
    np.testing.assert_allclose(linear.numpy()[0, 0], 4 * rows[:, None] + columns, rtol=1e-12, atol=1e-12)


def test_second_derivatives():
    x, grid = draw((1, 2, 4, 3), (1, 2, 2, 2))
    for mode in ("nearest", "bilinear", "bicubic", "area"):
        check_grads(lambda x, mode=mode: F.interpolate(x, (5, 2), mode=mode), [x], order=2)
    check_grads(lambda x: F.interpolate(x, (2, 2), mode="bicubic", antialias=True), [x], order=2)
    check_grads(lambda x, g: F.grid_sample(x, g, align_corners=False), [x, grid * 0.4], order=2)
    check_grads(lambda t: F.affine_grid(t, (1, 1, 3, 2), align_corners=True), list(draw((1, 2, 3))), order=2)


def test_compiled():
    x = og.tensor(draw((1, 2, 4, 5))[0])
    f = lambda x: F.interpolate(F.interpolate(x, scale_factor=2), (5, 7), mode="bilinear")  # noqa: E731
    np.testing.assert_allclose(og.compile(f)(x).numpy(), f(x).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["upsample", "upsample_nearest", "upsample_bilinear"])
def test_names_that_are_given_up(name):
    x = og.tensor(draw((1, 2, 4, 5))[0])
    how = {"mode": "bilinear", "align_corners": True} if name == "upsample_bilinear" else {}
    with pytest.warns(UserWarning, match=f"`nn.functional.{name}` is deprecated"):
        assert og.equal(getattr(F, name)(x, scale_factor=2), F.interpolate(x, scale_factor=2, **how))


@pytest.mark.oracle
def test_corners_that_are_not_given():
    x, grid = draw((1, 1, 4, 4), (1, 2, 2, 2))
    with pytest.warns(UserWarning, match="align_corners=False since 1.3.0"):
        y = F.grid_sample(og.tensor(x), og.tensor(grid))
    assert og.equal(y, F.grid_sample(og.tensor(x), og.tensor(grid), align_corners=False))


z = lambda lib, *shape: lib.zeros(*shape)  # noqa: E731
WRONG = [
    lambda lib: lib.nn.functional.interpolate(z(lib, 1, 1, 4, 4)),
    lambda lib: lib.nn.functional.interpolate(z(lib, 1, 1, 4, 4), size=2, scale_factor=2),
    lambda lib: lib.nn.functional.interpolate(z(lib, 1, 1, 4, 4), size=(2, 2, 2)),
    lambda lib: lib.nn.functional.interpolate(z(lib, 1, 1, 4, 4), scale_factor=(2, 2, 2)),
    lambda lib: lib.nn.functional.interpolate(z(lib, 1, 1, 4, 4), size=(2.5, 2)),
    lambda lib: lib.nn.functional.interpolate(z(lib, 1, 1, 4, 4), size=2, align_corners=True),
    lambda lib: lib.nn.functional.interpolate(z(lib, 1, 1, 4, 4), size=2, mode="linear"),
    lambda lib: lib.nn.functional.interpolate(z(lib, 1, 1, 4), size=2, mode="bicubic"),
    lambda lib: lib.nn.functional.interpolate(z(lib, 1, 1, 4, 4), size=2, mode="cubic"),
    lambda lib: lib.nn.functional.interpolate(z(lib, 4, 4), size=2),
    lambda lib: lib.nn.functional.interpolate(z(lib, 1, 1, 4, 4), size=0),
    lambda lib: lib.nn.functional.interpolate(z(lib, 1, 1, 4, 4), scale_factor=0.1),
    lambda lib: lib.nn.functional.interpolate(z(lib, 1, 1, 4, 4), size=2, antialias=True),
    lambda lib: lib.nn.functional.interpolate(z(lib, 1, 1, 4, 4), size=2, recompute_scale_factor=True),
    lambda lib: lib.nn.functional.grid_sample(z(lib, 1, 1, 4, 4), z(lib, 1, 2, 2, 3), align_corners=False),
    lambda lib: lib.nn.functional.grid_sample(z(lib, 1, 1, 4, 4), z(lib, 2, 2, 2, 2), align_corners=False),
    lambda lib: lib.nn.functional.grid_sample(z(lib, 1, 1, 4, 4), z(lib, 1, 2, 2), align_corners=False),
    lambda lib: lib.nn.functional.grid_sample(z(lib, 1, 1, 4, 4), z(lib, 1, 2, 2, 2), mode="cubic"),
    lambda lib: lib.nn.functional.grid_sample(z(lib, 1, 1, 4, 4), z(lib, 1, 2, 2, 2), padding_mode="edge"),
    lambda lib: lib.nn.functional.grid_sample(z(lib, 1, 1, 4, 4, 4), z(lib, 1, 2, 2, 2, 3), "bicubic", "zeros", False),
    lambda lib: lib.nn.functional.affine_grid(z(lib, 1, 2, 3), (1, 1, 4), align_corners=False),
    lambda lib: lib.nn.functional.affine_grid(z(lib, 1, 2, 3), (1, 1, 0, 4), align_corners=False),
]


@pytest.mark.oracle
@pytest.mark.parametrize("call", WRONG)
def test_wrong_use_is_reported_as_pytorch_does(call):
    same_error(call)


def test_wrong_use_says_what_is_wrong():
    with pytest.raises(OpError, match="either size or scale_factor should be defined"):
        F.interpolate(og.zeros(1, 1, 4))
    with pytest.raises(OpError, match="not implemented for int64"):
        F.interpolate(og.zeros(1, 1, 4, dtype=og.int64), 2, mode="linear")
    with pytest.raises(OpError, match="expected scalar type Float but found Double"):
        F.grid_sample(og.zeros(1, 1, 4, 4), og.zeros(1, 2, 2, 2).double(), align_corners=False)
