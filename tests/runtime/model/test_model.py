"""The imported model: calls, inputs, modes, freezing, heads and batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.ops.errors import InputError
from onnxgrad.runtime.autograd.tape import grad, no_grad
from onnxgrad.runtime.model.model import Model
from onnxgrad.runtime.tensor.tensor import Tensor

from ...importers.models import cnn, ints, model, tensor

NODE = helper.make_node


def loaded(m: onnx.ModelProto) -> Model:
    return load_bytes(m.SerializeToString())


def image(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, n]).standard_normal((n, 3, 8, 8)).astype(np.float32)


def two_inputs() -> onnx.ModelProto:
    return model(
        [NODE("Add", ["input.a", "b"], ["sum"]), NODE("Mul", ["input.a", "b"], ["product"])],
        {"input.a": ["N", 2], "b": ["N", 2]}, {"sum": None, "product": None},
    )  # fmt: skip


def test_call_by_position_and_by_name() -> None:
    m = loaded(two_inputs())
    a, b = np.ones((1, 2), np.float32), np.full((1, 2), 3, np.float32)
    for out in (m(a, b), m(a, b=Tensor(b)), m(input_a=a, b=b), m(**{"input.a": a, "b": b})):
        assert isinstance(out, tuple)
        np.testing.assert_array_equal(out[0].numpy(), a + b)
        np.testing.assert_array_equal(out[1].numpy(), a * b)
    assert isinstance(loaded(cnn())(image(2)), Tensor)


@pytest.mark.parametrize(
    ("feeds", "says"),
    [
        ({"b": np.ones((1, 2), np.float32)}, "'input.a' is missing"),
        (
            {"input.a": np.ones((1, 3), np.float32), "b": np.ones((1, 2), np.float32)},
            r"'input.a': found shape \(1, 3\).*axis 1 is 3, not 2",
        ),
        ({"input.a": np.ones(2, np.float32), "b": np.ones((1, 2), np.float32)}, "found rank 1"),
        (
            {"input.a": np.ones((1, 2)), "b": np.ones((1, 2), np.float32)},
            "found element type float64, wanted float32",
        ),
        (
            {"input.a": np.ones((2, 2), np.float32), "b": np.ones((1, 2), np.float32)},
            "N is 1 here and 2 in input 'input.a'",
        ),
        ({"input.a": 1, "b": 1, "c": 1}, "no input is named 'c'"),
    ],
)
def test_wrong_inputs_say_input_found_and_wanted(feeds: dict[str, Any], says: str) -> None:
    m = loaded(two_inputs())
    with pytest.raises(InputError, match=says):
        m.run(feeds)
    with pytest.raises(InputError, match=says):
        m(**feeds)


def test_wrong_calls() -> None:
    m = loaded(two_inputs())
    x = np.ones((1, 2), np.float32)
    with pytest.raises(InputError, match="takes 2 inputs"):
        m(x, x, x)
    with pytest.raises(InputError, match="given twice"):
        m(x, x, b=x)
    with pytest.raises(InputError, match="no output is named"):
        m.run({"input.a": x, "b": x}, ["nope"])


def test_plan_and_tape_agree() -> None:
    m = loaded(cnn())
    x = image(3)
    np.testing.assert_allclose(m(x).detach().numpy(), m.run({"x": x})[0], rtol=1e-5, atol=1e-7)
    with no_grad():
        assert m(x).grad_fn is None


def test_training_uses_batch_statistics_and_updates_the_running_ones() -> None:
    m = loaded(cnn())
    x = image(6)
    before = {n: b.numpy().copy() for n, b in m.named_buffers()}
    evaluated = m(x).detach().numpy()
    m.train()
    trained = m(x).detach().numpy()
    assert not np.allclose(evaluated, trained)
    weight, bias = (dict(m.named_parameters())[n].detach().numpy() for n in ("conv.weight", "conv.bias"))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    y = np.einsum("ncijkl,fckl->nfij", windows, weight) + bias[:, None, None]
    mean = dict(m.named_buffers())["bn.mean"].numpy()
    np.testing.assert_allclose(mean, 0.9 * before["bn.mean"] + 0.1 * y.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    m.eval()
    assert not m.training
    np.testing.assert_array_equal(m(x).shape, evaluated.shape)


def test_dropout_draws_from_the_seeded_generator() -> None:
    from onnxgrad.runtime.tensor.random import manual_seed

    m = loaded(cnn()).train()
    x = image(4)
    manual_seed(3)
    a, b = m(x).detach().numpy(), m(x).detach().numpy()
    manual_seed(3)
    again = m(x).detach().numpy()
    assert not np.array_equal(a, b)
    np.testing.assert_allclose(a, again, rtol=1e-6)


def test_freeze_by_parameter_or_layer_name() -> None:
    m = loaded(cnn())
    m.freeze("conv*")
    assert [n for n, p in m.named_parameters() if not p.requires_grad] == ["conv.weight", "conv.bias"]
    m.unfreeze()
    m.freeze("fc")
    assert [n for n, p in m.named_parameters() if not p.requires_grad] == ["fc.weight", "fc.bias"]
    with pytest.raises(InputError, match="no parameter matches 'layer9"):
        m.freeze("layer9.*")
    m.unfreeze()
    m.freeze("conv.weight")
    m.logits(image(2)).sum().backward()
    parameters = dict(m.named_parameters())
    assert parameters["conv.weight"].grad is None
    assert parameters["conv.bias"].grad is not None


def test_intermediates_and_logits() -> None:
    m = loaded(cnn())
    x = image(2)
    out, found = m.intermediates(["relu", "g"], x)
    assert found["relu"].shape == (2, 4, 8, 8)
    e = np.exp(found["g"].detach().numpy())
    np.testing.assert_allclose(out.detach().numpy(), e / e.sum(-1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(m.logits(x).detach().numpy(), found["g"].detach().numpy(), rtol=1e-6)
    (g,) = grad(found["g"].sum(), [found["relu"]])
    assert g.shape == (2, 4, 8, 8)
    with pytest.raises(InputError, match=r"did you mean \['relu'"):
        m.intermediates(["relo"], x)


def test_input_gradient_agrees_with_differences() -> None:
    m = loaded(cnn())
    x = image(1)
    t = Tensor(x, requires_grad=True)
    m(t)[0, 2].backward()
    d = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    eps = 1e-2
    up, down = (m.run({"x": x + s * eps * d})[0][0, 2] for s in (1, -1))
    assert t.grad is not None
    np.testing.assert_allclose((t.grad.numpy() * d).sum(), (up - down) / (2 * eps), rtol=2e-2, atol=1e-5)


def squeeze_head() -> onnx.ModelProto:
    return model(
        [
            NODE("Conv", ["x", "w", "b"], ["c"], "conv10"), NODE("Relu", ["c"], ["r"]),
            NODE("GlobalAveragePool", ["r"], ["p"]),
            NODE("Softmax", ["p"], ["y"], axis=1),
        ],
        {"x": ["N", 3, 8, 8]}, {"y": ["N", 7, 1, 1]}, [tensor("w", 7, 3, 1, 1), tensor("b", 7)],
    )  # fmt: skip


def matmul_head() -> onnx.ModelProto:
    return model(
        [
            NODE("Flatten", ["x"], ["f"]), NODE("MatMul", ["f", "w"], ["m"], "head"), NODE("Add", ["m", "b"], ["a"]),
            NODE("Reshape", ["a", "shape"], ["y"]),
        ],
        {"x": ["N", 3, 8, 8]}, {"y": ["N", 7]}, [tensor("w", 192, 7), tensor("b", 7), ints("shape", [-1, 7])],
    )  # fmt: skip


@pytest.mark.parametrize(("make", "layer"), [(cnn, "fc"), (squeeze_head, "conv10"), (matmul_head, "head")])
def test_replace_head(make: Any, layer: str) -> None:
    m = loaded(make())
    assert m.head().layer == layer
    m.replace_head(3, seed=0)
    x = image(2)
    assert m(x).shape[:2] == (2, 3)
    assert m.outputs[0].shape[1] == 3
    m.logits(x).sum().backward()
    again = loaded(make()).replace_head(3, seed=0)
    np.testing.assert_array_equal(again(x).detach().numpy(), m(x).detach().numpy())


def test_replace_head_refuses_what_it_cannot_replace() -> None:
    m = loaded(model([NODE("Relu", ["x"], ["y"], "only")], {"x": ["N", 4]}, {"y": None}))
    with pytest.raises(InputError, match="replace_head: output 'y' leads back"):
        m.replace_head(3)
    with pytest.raises(InputError, match="at least 1"):
        loaded(cnn()).replace_head(0)


@pytest.mark.parametrize("shape", [[1, 48], [1, -1], [1, 4, 12], [-1, 48], [0, 48]])
def test_batch_of_one_in_reshape_constants_becomes_dynamic(shape: list[int]) -> None:
    m = loaded(
        model(
            [NODE("Relu", ["x"], ["r"]), NODE("Reshape", ["r", "s"], ["y"])],
            {"x": [1, 3, 4, 4]},
            {"y": None},
            [ints("s", shape)],
        )
    )
    x = image(5)[:, :, :4, :4]
    assert m(x).shape[0] == 5
    single = np.concatenate([m.run({"x": x[i : i + 1]})[0] for i in range(5)])
    np.testing.assert_array_equal(m.run({"x": x})[0], single)
    assert "dynamic" in m.report().batch


def test_batch_of_one_that_cannot_be_made_dynamic_is_explained() -> None:
    m = loaded(
        model(
            [NODE("Reshape", ["x", "s"], ["y"], "flat")],
            {"x": [1, 3, 4, 4]},
            {"y": None},
            [ints("s", [6, 8])],
        )
    )
    x = image(2)[:, :, :4, :4]
    assert m(x[:1]).shape == (6, 8)
    with pytest.raises(InputError, match=r"Reshape-14 'flat'(.|\n)*fixes a batch size of 1"):
        m(x)


def test_a_file_with_a_batch_symbol_keeps_its_sizes_of_one() -> None:
    m = loaded(model([NODE("Add", ["x", "table"], ["y"])], {"x": ["batch", 3], "table": [1, 3]}, {"y": None}))
    x, table = np.ones((4, 3), np.float32), np.full((1, 3), 2, np.float32)
    np.testing.assert_array_equal(m(x, table).numpy(), x + table)
    assert m.report().batch == "as in the file"
    mixed = loaded(model([NODE("ReduceMean", ["x"], ["y"], keepdims=0)], {"x": ["batch", 3]}, {"y": None}))
    assert mixed(x).item() == 1
    assert mixed.report().batch == "as in the file"


@pytest.mark.parametrize(
    ("node", "tensors"),
    [
        (NODE("ReduceMean", ["x"], ["y"], "whole"), []),
        (NODE("Softmax", ["x"], ["y"], "whole", axis=0), []),
        (NODE("Gather", ["x", "first"], ["y"], "whole", axis=0), [ints("first", [0])]),
        (NODE("Slice", ["x", "zero", "one"], ["y"], "whole"), [ints("zero", [0]), ints("one", [1])]),
    ],
)
def test_batch_of_one_that_would_mix_examples_stays_fixed(node: onnx.NodeProto, tensors: list[Any]) -> None:
    m = loaded(model([node], {"x": [1, 3]}, {"y": None}, tensors))
    x = np.ones((2, 3), np.float32)
    assert m.run({"x": x[:1]})[0] is not None
    with pytest.raises(InputError, match=r"axis 0 is 2, not 1\nThe batch size is fixed at 1.*whole"):
        m(x)


def test_float16_computes_in_float32_and_answers_in_float16() -> None:
    m = model(
        [NODE("MatMul", ["x", "w"], ["y"])],
        {"x": ["N", 4]},
        {"y": ["N", 3]},
        [tensor("w", 4, 3, dtype=np.float16)],
    )
    for info in (m.graph.input[0], m.graph.output[0]):
        info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    half = loaded(m)
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float16)
    w = numpy_helper.to_array(m.graph.initializer[0])
    (y,) = half.run({"x": x})
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y, (x.astype(np.float32) @ w.astype(np.float32)).astype(np.float16))
    assert half(x).dtype == np.float32
    assert dict(half.named_parameters())["w"].dtype == np.float32


def test_state_dict_round_trip() -> None:
    a, b = loaded(cnn()), loaded(cnn())
    for p in a.parameters():
        p.data = p.detach().numpy() * 2
    b.load_state_dict(a.state_dict())
    x = image(2)
    np.testing.assert_array_equal(a.run({"x": x})[0], b.run({"x": x})[0])
    text = repr(a)
    assert "parameters" in text
    assert "x: float32(N, 3, 8, 8)" in text


def test_double_converts_state_constants_and_declared_types() -> None:
    m = loaded(cnn())
    x = image(2)
    wanted = m.run({"x": x})[0]
    m.double()
    found = m.run({"x": x.astype(np.float64)})[0]
    assert found.dtype == np.float64
    assert {p.dtype for p in m.parameters()} == {np.dtype(np.float64)}
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    with pytest.raises(InputError, match="found element type float32, wanted float64"):
        m(x)
