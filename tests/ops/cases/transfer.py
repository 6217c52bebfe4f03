"""Copies between devices; the CPU's own here, CUDA's in tests/runtime/test_device.py."""

from onnxgrad.ops.transfer import transfer

from ..case import OpCase, rand

CASES = [OpCase(transfer, (rand(2, 3),), lambda x: x, {"device": "cpu", "source": "cpu"})]
