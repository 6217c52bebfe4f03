"""Calls with other parameters, folded batch norms, parameters as one vector."""

import copy

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn
from onnxgrad.func import functional_call
from onnxgrad.nn.utils import parametrize
from onnxgrad.ops.errors import InputError, ModuleError, OpError

from ...importers.models import cnn
from .parity import both

RNG = np.random.default_rng(0)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(
    ("name", "args", "shape"),
    [
        ("Conv2d", (2, 3, 2), (2, 2, 4, 5)),
        ("Conv1d", (2, 3, 2, 1, 0, 1, 1, False), (2, 2, 6)),
        ("ConvTranspose2d", (2, 3, 2), (2, 2, 4, 5)),
    ],
)
def test_folded_convolutions(compared, name, args, shape, affine, dtype):
    def call(lib, net, x):
        fused = lib.nn.utils.fuse_conv_bn_eval(net[0], net[1], transpose="Transpose" in name)
        y = fused(x)
        np.testing.assert_allclose(y.detach().numpy(), net(x).detach().numpy(), rtol=1e-4, atol=1e-4)
        return y

    def make(lib):
        bn = getattr(lib.nn, f"BatchNorm{name[-2]}d")(3, affine=affine)
        bn.running_mean += 0.5
        bn.running_var *= 3
        return lib.nn.Sequential(getattr(lib.nn, name)(*args), bn)

    both(compared, "fuse_conv_bn_eval", make, (RNG.standard_normal(shape),), dtype, train=False, call=call)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_folded_linear_layers(compared, dtype):
    def call(lib, net, x):
        return lib.nn.utils.fuse_linear_bn_eval(net[0], net[1])(x)

    def make(lib):
        return lib.nn.Sequential(lib.nn.Linear(4, 3), lib.nn.BatchNorm1d(3))

    both(compared, "fuse_linear_bn_eval", make, (RNG.standard_normal((5, 4)),), dtype, train=False, call=call)


def test_folding_wants_evaluation():
    conv, bn = nn.Conv1d(1, 2, 1), nn.BatchNorm1d(2)
    with pytest.raises(AssertionError, match="Fusion only for eval"):
        nn.utils.fuse_conv_bn_eval(conv, bn)
    with pytest.raises(AssertionError, match=r"linear.out_features=3 and bn.num_features=2"):
        nn.utils.fuse_linear_bn_eval(nn.Linear(1, 3).eval(), bn.eval())
    with pytest.raises(OpError, match="must not be None"):
        nn.utils.fuse_conv_bn_eval(conv.eval(), nn.BatchNorm1d(2, track_running_stats=False).eval())


def test_parameters_as_a_vector():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    vec = nn.utils.parameters_to_vector(net.parameters())
    assert vec.shape == (13,) and vec.grad_fn is not None
    vec.sum().backward()
    assert all((p.grad == 1).all() for p in net.parameters())
    other = copy.deepcopy(net)
    nn.utils.vector_to_parameters(vec * 2, other.parameters())
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        assert og.equal(b, a * 2) and isinstance(b, nn.Parameter) and b.is_leaf
    with pytest.raises(TypeError, match=r"expected torch.Tensor, but got: list"):
        nn.utils.vector_to_parameters([1.0], net.parameters())
    with pytest.raises(InputError, match="non-empty"):
        nn.utils.parameters_to_vector([])


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("count", og.zeros(1))

    def forward(self, x, scale=1.0):
        self.count.add_(1)
        return self.linear(x) * scale


class TestFunctionalCall:
    def test_gradients_flow_to_what_is_given(self):
        m, x = Scaled(), og.ones(1, 2)
        own = dict(m.named_parameters())
        w = (og.eye(2) * 3).requires_grad_()
        y = functional_call(m, {"linear.weight": w, "linear.bias": og.zeros(2)}, x, {"scale": 2.0})
        assert y.tolist() == [[6, 6]]
        y.sum().backward()
        assert w.grad.tolist() == [[2, 2], [2, 2]] and m.linear.weight.grad is None
        assert all(p is own[n] for n, p in m.named_parameters())

    def test_changes_in_place_reach_what_is_given(self):
        m, given = Scaled(), {"count": og.zeros(1)}
        count = given["count"]
        functional_call(m, (given, {"linear.bias": og.zeros(2)}), (og.ones(1, 2),))
        assert count.item() == 1 and m.count.item() == 0

    def test_errors_leave_the_module_as_it_was(self):
        m, x = Scaled(), og.ones(1, 2)
        own = dict(m.named_parameters())
        for call, error, message in [
            (lambda: functional_call(m, {"linear.weight": og.ones(5)}, x), ValueError, "."),
            (
                lambda: functional_call(m, {"linear.bias": og.ones(2), "nope": og.ones(1)}, x),
                KeyError,
                "no parameter or",
            ),
            (
                lambda: functional_call(m, {"nope": og.ones(1)}, x, strict=True),
                ModuleError,
                r"Unexpected key\(s\): 'nope'",
            ),
            (lambda: functional_call(m, ({"count": 1}, {"count": 2}), x), OpError, "appeared in multiple"),
            (lambda: functional_call(m, [3], x), OpError, "all elements of parameter_and_buffer_dicts"),
            (lambda: functional_call(m, 3, x), OpError, "Expected parameter_and_buffer_dicts to be a dict"),
        ]:
            with pytest.raises(error, match=message):
                call()
            assert all(p is own[n] for n, p in m.named_parameters())

    def test_tied(self):
        m = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
        m[1].weight = m[0].weight
        x, w = og.ones(1, 2), og.eye(2) * 2
        assert functional_call(m, {"0.weight": w}, x).tolist() == [[4, 4]]
        with og.no_grad():
            m[0].weight.copy_(og.eye(2))
        assert functional_call(m, {"0.weight": w}, x, tie_weights=False).tolist() == [[2, 2]]
        with pytest.raises(OpError, match="got multiple values for keys"):
            functional_call(m, {"0.weight": w, "1.weight": w * 2}, x)

    def test_parametrized(self):
        m = parametrize.register_parametrization(nn.Linear(2, 2, bias=False), "weight", nn.Tanh())
        x = og.ones(1, 2)
        assert functional_call(m, {"weight": og.eye(2)}, x).tolist() == [[1, 1]]
        y = functional_call(m, {"parametrizations.weight.original": og.zeros(2, 2)}, x)
        assert not y.any() and m.weight.any()

    def test_imported_models(self):
        from onnxgrad.importers.onnx.model import load_bytes

        m = load_bytes(cnn().SerializeToString())
        x = RNG.standard_normal((2, 3, 8, 8)).astype(np.float32)
        given = {n: (p.detach() * 0).requires_grad_() for n, p in m.named_parameters()}
        functional_call(nn.Sequential(m), {f"0.{n}": t for n, t in given.items()}, og.tensor(x))[:, 0].sum().backward()
        assert given["fc.bias"].grad is not None and m.get_parameter("fc.bias").grad is None

    def test_the_older_name_warns(self):
        with pytest.warns(FutureWarning, match="functional_call` is deprecated"):
            nn.utils.stateless.functional_call(nn.ReLU(), {}, og.ones(1))
