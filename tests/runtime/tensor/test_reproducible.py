"""Settings that lessons begin with: seeds, determinism, precision, devices, switches of libraries."""

import pytest

import onnxgrad as og
from onnxgrad.errors import DeviceError, MissingExtraError, OpError


def test_settings_can_be_read_again():
    og.use_deterministic_algorithms(True, warn_only=True)
    assert og.are_deterministic_algorithms_enabled() and og.is_deterministic_algorithms_warn_only_enabled()
    og.use_deterministic_algorithms(False)
    assert not og.are_deterministic_algorithms_enabled()
    og.set_float32_matmul_precision("high")
    assert og.get_float32_matmul_precision() == "high"
    og.set_float32_matmul_precision("highest")
    with pytest.raises(OpError, match="found 'low', wanted one of highest, high, medium"):
        og.set_float32_matmul_precision("low")


def test_switches():
    og.backends.cudnn.benchmark = True
    assert og.backends.cudnn.benchmark is True
    og.backends.cudnn.benchmark = False
    assert og.backends.cuda.matmul.allow_tf32 is False and not og.backends.mps.is_available()
    with pytest.raises(AttributeError, match=r"no switch .determinstic.; there are .*deterministic"):
        og.backends.cudnn.determinstic = True
    with pytest.raises(AttributeError, match="no switch 'nope'"):
        _ = og.backends.cudnn.nope


def test_states_of_the_generator():
    og.manual_seed(3)
    state = og.get_rng_state()
    a = og.rand(3)
    with og.random.fork_rng():
        b = og.rand(3)
    assert og.rand(3).equal(b)
    og.set_rng_state(state)
    assert og.rand(3).equal(a)
    assert og.seed() == og.initial_seed()
    assert og.default_generator.seed() == og.initial_seed()
    og.cuda.manual_seed_all(0)


def test_devices():
    og.set_default_device("cpu")
    assert og.get_default_device() == "cpu" and og.zeros(1).device == "cpu"
    if not og.cuda.is_available():
        assert not og.accelerator.is_available() and og.accelerator.current_accelerator() is None
        assert og.cuda.memory_allocated() == 0
        for use in (lambda: og.set_default_device("cuda"), og.cuda.get_device_name):
            with pytest.raises((DeviceError, MissingExtraError), match="CUDA"):
                use()


def test_modules_are_of_the_default_element_type():
    og.set_default_dtype(og.float64)
    try:
        net = og.nn.Sequential(og.nn.Linear(2, 3), og.nn.BatchNorm1d(3), og.nn.LayerNorm(3), og.nn.LSTM(3, 2))
        assert {p.dtype for p in net.parameters()} == {og.float64}
    finally:
        og.set_default_dtype(og.float32)


def test_numbers_by_name():
    assert og.pi == pytest.approx(3.14159265) and og.inf > 1e300 and og.nan != og.nan and og.e < 3
    assert og.ones(3)[:, og.newaxis].shape == (3, 1)
