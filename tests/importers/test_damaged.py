"""Damaged files: whatever is wrong, the error is one of our tree, soon and in little memory."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings, strategies as st

from onnxgrad.errors import OnnxGradError
from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.ops import budget

from .damaged import MODELS, fields, replace

SECONDS = 20
EXAMPLES = settings(max_examples=400)
names = st.sampled_from(sorted(MODELS))
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # weights may become inf and NaN


@pytest.fixture(scope="module", autouse=True)
def small_budget() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "BYTES", 1 << 26)
        yield


@contextmanager
def in_time() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt(f"took more than {SECONDS} s")  # which nothing catches on the way

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def load_and_run(data: bytes) -> None:
    """Load a file, and run it where its inputs are small; only an error of our tree may come out."""
    with in_time():
        try:
            model = load_bytes(data)
            feeds = {}
            for i in model.inputs:
                shape = [d if isinstance(d, int) else 2 for d in i.shape or ()]
                if i.shape is None or i.dtype == object or np.prod(shape, dtype=float) > 1e5:
                    return
                feeds[i.name] = np.ones(shape, i.dtype)
            model.run(feeds)
        except OnnxGradError:
            pass


@pytest.mark.parametrize("name", sorted(MODELS))
def test_they_run_undamaged(name: str) -> None:
    model = load_bytes(MODELS[name])
    shape = [d if isinstance(d, int) else 2 for d in model.inputs[0].shape or ()]
    assert all(np.isfinite(y).all() for y in model.run({"x": np.ones(shape, np.float32)}))


@EXAMPLES
@given(names, st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=4))
def test_other_bytes(name: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(MODELS[name])
    for place, value in changes:
        data[place % len(data)] = value
    load_and_run(bytes(data))


@EXAMPLES
@given(names, st.integers(0, 4000), st.integers(0, 40))
def test_missing_bytes(name: str, place: int, count: int) -> None:
    data = MODELS[name]
    at = place % len(data)
    load_and_run(data[:at] if count == 0 else data[:at] + data[at + count :])


@EXAMPLES
@given(names, st.lists(st.tuples(*(st.integers(0, 10**6),) * 3), min_size=1, max_size=3))
def test_other_fields(name: str, changes: list[tuple[int, int, int]]) -> None:
    proto = onnx.ModelProto.FromString(MODELS[name])
    for which, place, choice in changes:
        found = fields(proto)
        message, field = found[which % len(found)]
        replace(message, field, place, choice)
    load_and_run(proto.SerializeToString())


@EXAMPLES
@given(names, st.integers(0, 200), st.integers(0, 200), st.sampled_from(("drop", "double", "swap")))
def test_other_nodes(name: str, i: int, j: int, how: str) -> None:
    proto = onnx.ModelProto.FromString(MODELS[name])
    nodes = proto.graph.node
    i, j = i % len(nodes), j % len(nodes)
    if how == "drop":
        del nodes[i]
    elif how == "double":
        nodes.add().CopyFrom(nodes[i])
    else:
        a, b = list(nodes[i].input), list(nodes[j].input)
        nodes[i].ClearField("input")
        nodes[i].input.extend(b)
        nodes[j].ClearField("input")
        nodes[j].input.extend(a)
    load_and_run(proto.SerializeToString())
