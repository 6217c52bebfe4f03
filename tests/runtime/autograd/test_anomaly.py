"""Anomaly detection names the line of forward that backward stumbles over."""

import pytest

import onnxgrad as og
from onnxgrad.autograd import detect_anomaly, is_anomaly_enabled, set_detect_anomaly
from onnxgrad.ops.errors import AutogradError


def faulty(x):
    y = x.sqrt()  # the faulty line
    return (y * 0).sum()


def test_a_nan_names_the_function_and_the_line():
    x = og.tensor([0.0, 1.0], requires_grad=True)
    with detect_anomaly(), pytest.raises(AutogradError) as caught:
        faulty(x).backward()
    message = str(caught.value)
    assert "Function 'SqrtBackward0' returned nan values in its 0th output" in message
    assert "y = x.sqrt()  # the faulty line" in message and "test_anomaly.py" in message
    assert "record.py" not in message, "only the user's lines"
    faulty(x).backward()
    assert not is_anomaly_enabled()


def test_nan_may_be_let_through():
    x = og.tensor([0.0], requires_grad=True)
    with detect_anomaly(check_nan=False):
        faulty(x).backward()
    assert x.grad.isnan().all()


def test_an_error_names_the_line_too():
    class Fails(og.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            raise ValueError("mine")

    x = og.tensor([1.0], requires_grad=True)
    with detect_anomaly(), pytest.raises(AutogradError, match=r"(?s)FailsBackward: mine.*Fails\.apply\(x\)"):
        Fails.apply(x).backward()


def test_what_was_computed_before_says_so():
    y = faulty(og.tensor([0.0], requires_grad=True))
    with detect_anomaly(), pytest.raises(AutogradError, match="put the forward part inside"):
        y.backward()


def test_the_setting_is_put_back():
    with set_detect_anomaly(True):
        assert is_anomaly_enabled()
        with set_detect_anomaly(False):
            assert not is_anomaly_enabled()
        assert is_anomaly_enabled()
    assert not is_anomaly_enabled()
    with pytest.raises(ZeroDivisionError), detect_anomaly():
        raise ZeroDivisionError
    assert not is_anomaly_enabled()
