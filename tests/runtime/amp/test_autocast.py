"""Autocast against torch.autocast on the CPU, and what it leaves alone."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref

import numpy as np
import pytest

import onnxgrad as og
import onnxgrad.nn as nn
import onnxgrad.nn.functional as F
from onnxgrad.errors import InputError
from onnxgrad.runtime.amp.autocast import _state
from onnxgrad.runtime.autograd.grad_mode import MODE
from onnxgrad.runtime.autograd.saved import Late

HALVES = ("bfloat16", "float16")


def array(*shape, seed=0):
    return np.random.default_rng([*shape, seed]).standard_normal(shape).astype(np.float32)


@pytest.fixture(autouse=True)
def nothing_stays():
    yield
    assert MODE.autocast is None and Late.autocasts == 0
    assert og.is_autocast_cache_enabled()


# what PyTorch computes -----------------------------------------------------------------------------------------------


def block(lib):
    """Return what most networks consist of, in our modules or PyTorch's."""

    class Block(lib.Module):
        def __init__(self):
            super().__init__()
            self.conv = lib.Conv2d(3, 8, 3, padding=1)
            self.norm = lib.BatchNorm2d(8)
            self.attention = lib.MultiheadAttention(8, 2, batch_first=True)
            self.layer_norm = lib.LayerNorm(8)
            self.lstm = lib.LSTM(8, 6, batch_first=True)
            self.head = lib.Linear(6, 5)

        def forward(self, x):
            x = self.norm(self.conv(x)).relu()
            x = x.flatten(2).transpose(1, 2)
            x = x + self.attention(x, x, x, need_weights=False)[0]
            x = self.lstm(self.layer_norm(x))[0]
            return self.head(x[:, -1])

    return Block()


@pytest.mark.parametrize("dtype", HALVES)
def test_a_network_and_its_gradients_are_torchs(dtype):
    torch = pytest.importorskip("torch")

    torch.manual_seed(0)
    theirs, ours = block(torch.nn), block(nn)
    ours.load_state_dict({k: og.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    x, t = array(4, 3, 4, 4), np.array([0, 1, 2, 3])
    with torch.autocast("cpu", dtype=getattr(torch, dtype)):
        y = theirs(torch.tensor(x))
        loss = torch.nn.functional.cross_entropy(y, torch.tensor(t))
    loss.backward()
    with og.amp.autocast("cpu", dtype=getattr(og, dtype)):
        z = ours(og.tensor(x))
        cost = F.cross_entropy(z, og.tensor(t))
    cost.backward()
    assert str(z.dtype) == dtype == str(y.dtype).removeprefix("torch.")
    assert cost.dtype == "float32"
    tol = {"bfloat16": 4e-2, "float16": 5e-3}[dtype]
    close(z.detach().float().numpy(), y.detach().float().numpy(), tol)
    wanted = {n: p.grad.numpy() for n, p in theirs.named_parameters()}
    largest = max(np.abs(g).max() for g in wanted.values())
    for name, p in ours.named_parameters():
        assert p.dtype == p.grad.dtype == "float32"
        assert np.abs(p.grad.numpy() - wanted[name]).max() < tol * largest, name
    for name in ("norm.running_mean", "norm.running_var"):
        close(dict(ours.named_buffers())[name].numpy(), dict(theirs.named_buffers())[name].numpy(), tol)


def close(found, wanted, tol):
    assert np.abs(found - wanted).max() <= tol * np.abs(wanted).max()


@pytest.mark.parametrize("dtype", HALVES)
def test_a_product_is_torchs_to_the_last_bit_but_one(dtype):
    torch = pytest.importorskip("torch")
    a, b = array(5, 33), array(33, 7)
    with torch.autocast("cpu", dtype=getattr(torch, dtype)):
        wanted = (torch.tensor(a) @ torch.tensor(b)).float().numpy()
    with og.amp.autocast(dtype):
        found = (og.tensor(a) @ og.tensor(b)).float().numpy()
    ulp = {"bfloat16": 2**-8, "float16": 2**-11}[dtype]
    np.testing.assert_allclose(found, wanted, rtol=2 * ulp, atol=1e-6)
    exact = a.astype(np.float64) @ b
    assert 0 < np.abs(found - exact).max() < 8 * ulp * np.abs(exact).max()


@pytest.mark.parametrize("dtype", HALVES)
def test_training_converges_as_in_float32(dtype):
    x = array(64, 10)
    t = og.tensor((x[:, :4].argmax(1)).astype(np.int64))
    x = og.tensor(x)
    ends = {}
    for half in (False, True):
        og.manual_seed(1)
        model = nn.Sequential(nn.Linear(10, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 4))
        optimizer = og.optim.AdamW(model.parameters(), lr=1e-2)
        scaler = og.amp.GradScaler(enabled=half and dtype == "float16", init_scale=2.0**8)
        for _ in range(60):
            optimizer.zero_grad()
            with og.amp.autocast(dtype, enabled=half):
                loss = F.cross_entropy(model(x), t)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        ends[half] = loss.item()
    assert ends[False] < 0.2
    assert abs(ends[True] - ends[False]) < 0.03


# the context ---------------------------------------------------------------------------------------------------------


def dtype_now():
    return str((og.ones(2, 2) @ og.ones(2, 2)).dtype)


def test_forms_of_the_context():
    assert dtype_now() == "float32"
    with og.amp.autocast("cpu"):
        assert dtype_now() == "bfloat16"
        with og.amp.autocast("cpu", dtype=og.float16):
            assert dtype_now() == "float16"
            with og.amp.autocast("cpu", enabled=False):
                assert dtype_now() == "float32"
            assert dtype_now() == "float16"
        assert dtype_now() == "bfloat16"
        with og.amp.autocast("cuda"):
            assert dtype_now() == "bfloat16"
            assert og.is_autocast_enabled("cuda") and og.get_autocast_dtype("cuda") == "float16"
    with og.amp.autocast("cuda", dtype=og.bfloat16):
        assert dtype_now() == "float32"
    with og.cuda.amp.autocast(enabled=True, dtype=og.bfloat16):
        assert dtype_now() == "float32"

    @og.amp.autocast("float16")
    def decorated():
        return dtype_now()

    @og.amp.autocast("cpu", enabled=False)
    def off():
        return dtype_now()

    with og.amp.autocast("bfloat16"):
        assert decorated() == "float16"
        assert off() == "float32"
        assert dtype_now() == "bfloat16"
    again = og.amp.autocast("float16")
    with again, again:
        assert dtype_now() == "float16"


def test_settings_are_read_and_set():
    assert not og.is_autocast_enabled() and not og.is_autocast_enabled("cpu")
    assert og.get_autocast_dtype("cpu") == "bfloat16" and og.get_autocast_dtype("cuda") == "float16"
    with og.amp.autocast("float16", cache_enabled=False):
        assert og.is_autocast_enabled("cpu") and og.get_autocast_dtype("cpu") == "float16"
        assert not og.is_autocast_cache_enabled()
    og.set_autocast_dtype("cpu", og.float16)
    try:
        with og.amp.autocast("cpu"):
            assert dtype_now() == "float16"
        og.set_autocast_enabled("cpu", True)
        assert dtype_now() == "float16"
        og.set_autocast_dtype("cpu", og.bfloat16)
        assert dtype_now() == "bfloat16"
    finally:
        og.set_autocast_enabled("cpu", False)
        og.set_autocast_dtype("cpu", og.bfloat16)
    assert dtype_now() == "float32"
    assert og.amp.is_autocast_available("cpu") and not og.amp.is_autocast_available("abacus")


def test_what_is_wrong_is_said():
    with pytest.raises(InputError, match="no device type 'abacus'"):
        og.amp.autocast("abacus")
    with pytest.raises(InputError, match="given twice"):
        og.amp.autocast("float16", dtype=og.bfloat16)
    with pytest.raises(InputError, match="wanted bfloat16 or float16"):
        og.set_autocast_dtype("cpu", og.float32)
    with pytest.raises(InputError, match="no device type"):
        og.is_autocast_enabled("abacus")
    with pytest.warns(UserWarning, match="Disabling autocast"):
        context = og.amp.autocast("cpu", dtype=og.float32)
    with context:
        assert dtype_now() == "float32"


def test_an_error_leaves_nothing_switched_on():
    with contextlib.suppress(og.errors.ShapeError), og.amp.autocast("bfloat16"):
        og.ones(2, 3) @ og.ones(2, 3)
    assert dtype_now() == "float32"


def test_other_threads_are_left_alone():
    found = []
    with og.amp.autocast("bfloat16"):
        thread = threading.Thread(target=lambda: found.append((dtype_now(), (og.ones(2) + 1).dtype)))
        thread.start()
        thread.join()
    assert found == [("float32", "float32")]


def test_weights_are_cast_once(monkeypatch):
    from onnxgrad.runtime.amp import casting

    casts = []
    real = casting.cast
    monkeypatch.setattr(casting, "cast", lambda x, **how: casts.append(tuple(x.shape)) or real(x, **how))
    layer, x = nn.Linear(6, 3), og.tensor(array(2, 6))

    def count(**how):
        casts.clear()
        with og.amp.autocast("bfloat16", **how):
            (layer(x).sum() + layer(x).sum()).backward()
        return casts.count((3, 6)), casts.count((3,))

    assert count() == (1, 1)
    assert count(cache_enabled=False) == (2, 2)
    with og.amp.autocast("bfloat16"):
        first = layer(x)
        with og.no_grad():
            layer.weight.mul_(2.0)
        assert not np.array_equal(layer(x).detach().float().numpy(), first.detach().float().numpy())
    grads = {}
    for how in (True, False):
        layer.zero_grad()
        count(cache_enabled=how)
        grads[how] = layer.weight.grad.numpy().copy()
    np.testing.assert_array_equal(grads[True], grads[False])


def test_a_cast_without_gradient_is_not_used_where_one_is_wanted():
    layer, x = nn.Linear(6, 3), og.tensor(array(2, 6))
    with og.amp.autocast("bfloat16"):
        with og.no_grad():
            layer(x)
        layer(x).sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.dtype == "float32"


def test_the_cache_keeps_nothing_alive():
    layer = nn.Linear(6, 3)
    with og.amp.autocast("bfloat16"):
        layer(og.tensor(array(2, 6)))
    gone = weakref.ref(layer.weight)
    del layer
    gc.collect()
    assert gone() is None


def test_casts_of_weights_that_are_gone_go_too():
    with og.amp.autocast("bfloat16"), og.no_grad():
        for _ in range(3):
            nn.Linear(6, 3)(og.tensor(array(2, 6)))
            gc.collect()
            assert not _state.cache
        layer = nn.Linear(6, 3)
        layer(og.tensor(array(2, 6)))
        assert len(_state.cache) == 2


# gradients -----------------------------------------------------------------------------------------------------------


def test_gradients_of_gradients_flow_through_casts():
    w = og.tensor(array(4, 4), requires_grad=True)
    x = og.tensor(array(3, 4))
    with og.amp.autocast("bfloat16"):
        y = (x @ w).tanh().float().sum()
    (g,) = og.autograd.grad(y, w, create_graph=True)
    assert g.dtype == "float32" and g.requires_grad
    (g * g).sum().backward()
    once = w.grad.numpy().copy()
    w.grad = None
    (g,) = og.autograd.grad((x @ w).tanh().sum(), w, create_graph=True)
    (g * g).sum().backward()
    close(once, w.grad.numpy(), 3e-2)


def test_a_checkpoint_computes_again_as_the_first_time():
    layer = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 8))
    x = og.tensor(array(4, 8), requires_grad=True)
    grads = []
    for again in (False, True):
        with og.amp.autocast("bfloat16"):
            y = og.utils.checkpoint.checkpoint(layer, x) if again else layer(x)
        assert y.dtype == "bfloat16"
        y.float().sum().backward()
        grads.append(x.grad.numpy().copy())
        x.grad = None
    np.testing.assert_array_equal(*grads)


def test_functions_of_ones_own():
    class Scaled(og.autograd.Function):
        @staticmethod
        @og.amp.custom_fwd(device_type="cpu", cast_inputs=og.float32)
        def forward(ctx, x, w):
            seen.append((str(x.dtype), str((x @ w).dtype)))
            ctx.save_for_backward(x, w)
            return x @ w

        @staticmethod
        @og.amp.custom_bwd(device_type="cpu")
        def backward(ctx, g):
            x, w = ctx.saved_tensors
            seen.append((str(g.dtype), str((g @ w.t()).dtype)))
            return g @ w.t(), x.t() @ g

    seen = []
    x, w = og.tensor(array(3, 4), requires_grad=True), og.tensor(array(4, 4), requires_grad=True)
    with og.amp.autocast("bfloat16"):
        Scaled.apply(x @ w, w).sum().backward()
    assert seen == [("float32", "float32"), ("float32", "float32")]


def test_changes_in_place_keep_their_type():
    with og.amp.autocast("bfloat16"):
        h = og.ones(2, 2) @ og.ones(2, 2)
        h += og.full((2, 2), 0.5)
        h.exp_()
        h[0] = og.ones(2)
        assert h.dtype == "bfloat16"
    np.testing.assert_allclose(h.float().numpy(), [[1, 1], [12.1825] * 2], rtol=1e-2)


def test_nothing_runs_for_it_where_it_is_off():
    a = og.ones(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onnxgrad.runtime.amp.casting.Casts.record", None)
        assert (a + a).dtype == "float32" and (og.ones(2, 2) @ og.ones(2, 2)).dtype == "float32"


@pytest.mark.oracle
def test_contexts_inside_keep_the_element_type() -> None:
    import torch

    def seen(lib: object) -> list[str]:
        found = []
        with lib.amp.autocast("cpu", dtype=lib.float16):
            with lib.amp.autocast("cpu"):
                found.append(lib.get_autocast_dtype("cpu"))
            with lib.amp.autocast("cpu", enabled=False), lib.amp.autocast("cpu"):
                found.append(lib.get_autocast_dtype("cpu"))
            lib.set_autocast_dtype("cpu", lib.bfloat16)
        return [str(d).removeprefix("torch.") for d in (*found, lib.get_autocast_dtype("cpu"))]

    assert seen(og) == seen(torch) == ["float16", "float16", "bfloat16"]


def test_recomputing_leaves_no_casts_of_weights() -> None:
    layer, x = nn.Linear(3, 3), og.tensor(array(2, 3), requires_grad=True)
    with og.amp.autocast("bfloat16"):
        y = og.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
    y.sum().backward()
    assert layer.weight.grad is not None and not _state.cache


def test_by_the_names_that_take_no_device() -> None:
    assert og.cuda.amp.GradScaler(1024.0).get_scale() == 1024.0
    with pytest.raises(InputError, match=r"1024\.0"):
        og.amp.GradScaler(1024.0)
    with pytest.raises(InputError, match="None"):
        og.amp.autocast(None)


def test_switched_off_it_lets_its_casts_go():
    layer = nn.Linear(4, 4)
    og.set_autocast_enabled("cpu", True)
    layer(og.tensor(array(2, 4)))
    assert _state.cache
    og.set_autocast_enabled("cpu", False)
    assert not _state.cache
