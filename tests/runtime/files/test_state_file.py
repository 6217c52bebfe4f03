"""State in files: what comes back, and what is refused."""

import io
import json
import math
import pickle
from collections import Counter, OrderedDict, defaultdict
from enum import IntEnum

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, strategies as st

import onnxgrad as og
from onnxgrad import nn
from onnxgrad.ops.errors import InputError, LoadError, SaveError
from onnxgrad.runtime.files.state_file import (
    STRUCTURE,
    is_state,
    load_state,
    refuse_pickle,
    save_state,
)
from onnxgrad.runtime.files.structure import DEPTH
from onnxgrad.runtime.files.weights_file import CODES, to_bytes


def again(value, **how):
    file = io.BytesIO()
    save_state(value, file)
    assert is_state(file.getvalue()[:256])
    return load_state(file.getvalue(), "file", **how)


def same(a, b):
    """Whether two values are the same, Tensors and arrays bit by bit."""
    if isinstance(a, og.Tensor):
        return type(a) is type(b) and a.requires_grad == b.requires_grad and same(a._array, b._array)
    if isinstance(a, np.ndarray | np.generic):
        return type(a) is type(b) and (a.dtype, a.shape) == (b.dtype, b.shape) and a.tobytes() == b.tobytes()
    if isinstance(a, float):
        return type(a) is type(b) and (a == b or (math.isnan(a) and math.isnan(b)))
    if isinstance(a, dict):
        return type(a) is type(b) and same(list(a.items()), list(b.items()))
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


DTYPES = st.sampled_from([d for d in CODES if d.kind != "c"])


@st.composite
def arrays(draw):
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    raw = draw(st.binary(min_size=8 * math.prod(shape), max_size=8 * math.prod(shape)))
    dtype = draw(DTYPES)
    if dtype == np.bool_:
        return np.frombuffer(raw, np.uint8)[: math.prod(shape)].reshape(shape) % 2 == 1
    made = np.frombuffer(raw, dtype)[: math.prod(shape)].reshape(shape)
    return made.T if draw(st.booleans()) else made


ATOMS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(max_size=9),
    st.complex_numbers(allow_nan=False), arrays(), arrays().map(og.Tensor),
    st.sampled_from([og.float32, og.device("cpu")]),
    st.sampled_from([np.float32(1.5), np.int8(-3), np.bool_(True)]),
)  # fmt: skip
KEYS = st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.tuples(st.integers(), st.text()))
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(KEYS, inner, max_size=3),
        st.dictionaries(st.text(), inner, max_size=3).map(OrderedDict),
    ),
    max_leaves=12,
)


@given(VALUES)
def test_nested_values_come_back(value):
    assert same(again(value), value)


def test_a_state_dict_comes_back_with_its_order():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    state = net.state_dict()
    found = again(state)
    assert same(list(found.items()), list(state.items()))
    assert getattr(found, "_metadata", None) == getattr(state, "_metadata", None)
    other = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    assert str(other.load_state_dict(found)) == "<All keys matched successfully>"
    x = og.randn(5, 3)
    assert same(net(x).detach(), other(x).detach())


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_training_goes_on_as_if_it_had_not_stopped(name):
    def step(net, optimizer):
        optimizer.zero_grad()
        (net(og.ones(2, 3)) ** 2).sum().backward()
        optimizer.step()

    def made():
        og.manual_seed(1)
        net = nn.Linear(3, 2)
        settings = {"momentum": 0.9} if name == "SGD" else {}
        return net, getattr(og.optim, name)(net.parameters(), lr=0.1, **settings)

    net, optimizer = made()
    step(net, optimizer)
    checkpoint = {"epoch": 1, "model": net.state_dict(), "optimizer": optimizer.state_dict(), "best": float("inf")}
    checkpoint = again(checkpoint)
    assert checkpoint["epoch"] == 1 and checkpoint["best"] == math.inf
    other, resumed = made()
    other.load_state_dict(checkpoint["model"])
    resumed.load_state_dict(checkpoint["optimizer"])
    for _ in range(3):
        step(net, optimizer)
        step(other, resumed)
    assert same(list(net.state_dict().items()), list(other.state_dict().items()))


def test_tied_weights_stay_tied_and_are_stored_once():
    w = og.randn(50, 40)
    a, b, part = again([w, w.detach(), w[:25]])
    a[0, 0] = 7.0
    assert b[0, 0].item() == 7.0 and part[0, 0].item() != 7.0
    file = io.BytesIO()
    save_state([w, w.detach()], file)
    assert len(file.getvalue()) < 2 * w.nbytes


def test_tensors_keep_what_they_are():
    p, frozen, leaf = again([nn.Parameter(og.ones(2)), nn.Parameter(og.ones(2), False), og.ones(2, requires_grad=True)])
    assert isinstance(p, nn.Parameter) and p.requires_grad and p.is_leaf
    assert isinstance(frozen, nn.Parameter) and not frozen.requires_grad
    assert type(leaf) is og.Tensor and leaf.requires_grad
    computed = again((leaf * 2).sum())
    assert computed.requires_grad and computed.is_leaf and computed.item() == 4


def test_other_containers():
    class Colour(IntEnum):
        RED = 3

    counts = defaultdict(list, a=[1])
    found = again([Counter("aab"), counts, Colour.RED, np.str_("x"), og.zeros(2, 3).shape, {1, 2}, frozenset("a")])
    assert found == [Counter("aab"), {"a": [1]}, 3, "x", (2, 3), {1, 2}, frozenset("a")]
    assert list(map(type, found)) == [Counter, dict, int, str, tuple, set, frozenset]


def test_names_in_the_file_are_the_paths():
    file = io.BytesIO()
    save_state(
        {"model": {"w": og.ones(1)}, "model.w": og.zeros(1), "__metadata__": og.ones(2), "list": [og.ones(3)]}, file
    )
    length = int.from_bytes(file.getvalue()[:8], "little")
    header = json.loads(file.getvalue()[8 : 8 + length])
    assert sorted(header) == ["__metadata__", "__metadata__#2", "list.0", "model.w", "model.w#2"]


def test_a_file_without_a_structure_is_a_dict_of_tensors():
    found = load_state(to_bytes({"b": np.ones(2, np.float16), "a": np.zeros((), np.int64)}), "x")
    assert {k: (type(v), v.dtype, v.shape) for k, v in found.items()} == {
        "b": (og.Tensor, np.float16, (2,)),
        "a": (og.Tensor, np.int64, ()),
    }


@pytest.mark.parametrize(
    "location", ["cpu", og.device("cpu"), {"cuda:0": "cpu"}, lambda t, where: t, lambda t, where: None]
)
def test_map_location(location):
    assert same(again({"a": og.ones(2)}, map_location=location), {"a": og.ones(2)})


def test_map_location_decides_where_tensors_of_a_gpu_go():
    text = json.dumps({"version": 1, "value": {"tensor": "w", "device": "cuda:1"}})
    data = to_bytes({"w": np.ones(2)}, {STRUCTURE: text})
    asked = []
    for location in ("cpu", {"cuda:1": "cpu"}, lambda t, where: asked.append(where) or t):
        assert load_state(data, "x", location).device == "cpu"
    assert asked == ["cuda:1"]
    with pytest.raises(InputError, match="map_location returned a int"):
        load_state(data, "x", lambda t, where: 1)
    with pytest.raises(InputError, match="map_location is a device"):
        load_state(data, "x", 3)


def loop():
    made = []
    made.append(made)
    return made


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, object()]}, r"obj\['a'\]\[1\], a object"),
        ({"net": nn.Linear(1, 1)}, r"obj\['net'\], a Linear; save its state_dict\(\)"),
        (loop(), "nested more than"),
        ({og.ones(1): 1}, "a key or element is a Tensor"),
        ({"f": len}, "builtin_function"),
        ([10**5000], "Exceeds the limit"),
        ({"x": np.zeros(2, ml_dtypes.int4)}, "'x': safetensors has no element type int4"),
        (np.array(["a"]), "no element type"),
    ],
)
def test_what_cannot_be_saved_is_named(value, message, tmp_path):
    with pytest.raises(SaveError, match=message):
        save_state(value, tmp_path / "x.pt")
    assert not list(tmp_path.iterdir())


def with_structure(value, arrays=None):
    text = value if isinstance(value, str) else json.dumps({"version": 1, "value": value})
    return to_bytes({"w": np.ones((2, 2), np.float32)} if arrays is None else arrays, {STRUCTURE: text})


def nested(depth):
    return '{"version":1,"value":' + "[" * depth + "]" * depth + "}"


W = {"tensor": "w"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "keys version and value"),
        ('{"version":2,"value":1}', "of version 2"),
        ('{"version":1,"value":NaN}', "NaN is no JSON"),
        ('{"version":1,"value":[-Infinity]}', "-Infinity is no JSON"),
        ('{"version":1,"value":1e999}', "1e999 is not finite"),
        ('{"version":1,"value":1,"value":2}', "a key comes twice"),
        ('{"version":1,"value":{"tensor":"w","tensor":"w"}}', "a key comes twice"),
        ('{"version":1,"value":' + "9" * 5000 + "}", "cannot be read"),
        (nested(DEPTH + 3), "nested"),
        (nested(200_000), "nested"),
        (1, "no part of its structure names 'w'"),
        ({"tensor": "v"}, "names 'v', which the file does not hold"),
        ({"tensor": ["w"]}, "which the file does not hold"),
        ({"tensor": "w", "requires_grad": 1}, "is described as"),
        ({"tensor": "w", "code": "os.system"}, "is described as"),
        ({"tensor": "w", "device": "tpu"}, "no device"),
        ({"scalar": "w"}, "the number 'w' has the shape"),
        ({"bytes": "w"}, "the bytes 'w' are"),
        ({"class": "os.system", "w": W}, "keys class, w"),
        ({"os.system": "ls"}, "no value is"),
        ({}, "without a kind"),
        ({"dict": {"a": 1}}, "a dict without a list"),
        ({"dict": [["a"]]}, "without pairs"),
        ({"dict": [["a", 1], ["a", W]]}, "the key 'a' comes twice"),
        ({"dict": [[[1], W]]}, "a key or element is a list"),
        ({"set": [W]}, "a key or element is a Tensor"),
        ({"tuple": 3}, "a tuple without a list"),
        ({"float": "1"}, "no value is"),
        ({"complex": [1, 2]}, "no value is"),
        ({"dtype": "object"}, "no value is"),
        ({"device": "disk"}, "no device"),
        ({"ordered_dict": [["a", W]], "versions": [1]}, "the versions of a state dict"),
    ],
)
def test_a_hostile_structure(value, message):
    with pytest.raises(LoadError, match=message) as caught:
        load_state(with_structure(value), "here.pt")
    assert str(caught.value).startswith("here.pt: ")


def test_integers_require_no_gradient():
    data = with_structure({"tensor": "w", "requires_grad": True}, {"w": np.ones(2, np.int64)})
    with pytest.raises(LoadError, match="requires a gradient"):
        load_state(data, "x")


@given(st.data())
def test_a_damaged_file_is_an_error_or_a_value(data):
    file = io.BytesIO()
    save_state({"a": og.ones(2), "b": [1, (2.5, None)], "c": np.arange(3)}, file)
    bytes_ = bytearray(file.getvalue())
    if data.draw(st.booleans()):
        del bytes_[data.draw(st.integers(0, len(bytes_) - 1)) :]
    else:
        bytes_[data.draw(st.integers(0, len(bytes_) - 1))] = data.draw(st.integers(0, 255))
    try:
        load_state(bytes(bytes_), "x")
    except LoadError as error:
        assert str(error)


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was run')",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_refused_and_not_run(protocol):
    with pytest.raises(LoadError, match=r"(?s)net\.pt is a pickle.*torch\.load\('net\.pt'.*'net\.safetensors'"):
        refuse_pickle(pickle.dumps(Evil(), protocol), "net.pt")


@pytest.mark.oracle
def test_what_torch_save_writes_is_refused_and_the_snippet_converts_it(tmp_path, monkeypatch):
    import torch

    monkeypatch.chdir(tmp_path)
    net = torch.nn.Linear(3, 2)
    for new in (True, False):
        torch.save(net.state_dict(), "net.pt", _use_new_zipfile_serialization=new)
        with pytest.raises(LoadError, match="convert it") as caught:
            og.load("net.pt")
        lines = str(caught.value).split("convert it:\n")[1].splitlines()
        exec("\n".join(line.strip() for line in lines), {})
        found = og.load("net.safetensors")
        for name, value in net.state_dict().items():
            np.testing.assert_array_equal(found[name].numpy(), value.numpy())


@pytest.mark.oracle
def test_torch_reads_the_tensors_of_a_state_file(tmp_path):
    import torch
    from safetensors.torch import load_file

    values = {"a": og.randn(2, 3), "b": og.randn(4).to(dtype=og.bfloat16), "c": og.arange(3)}
    og.save(values, tmp_path / "x.pt")
    found = load_file(tmp_path / "x.pt")
    assert found["b"].dtype == torch.bfloat16
    for name, value in values.items():
        np.testing.assert_array_equal(found[name].double().numpy(), value.to(dtype=og.float64).numpy())
