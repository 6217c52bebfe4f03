"""Pruning: masks, names, hooks and removal, against PyTorch where nothing is drawn."""

import copy
import importlib

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn
from onnxgrad.nn.utils import prune
from onnxgrad.ops.errors import OpError, ShapeError

from .parity import apart

RNG = np.random.default_rng(0)
W, B = RNG.standard_normal((4, 6)), RNG.standard_normal(4)
SCORES = RNG.standard_normal((4, 6))


def linear(lib, dtype="float64"):
    m = lib.nn.Linear(6, 4)
    m = m.to(getattr(lib, dtype))
    m.load_state_dict({"weight": lib.tensor(W.astype(dtype)), "bias": lib.tensor(B.astype(dtype))})
    return m


def by_two(lib, m):
    p = lib.nn.utils.prune
    p.l1_unstructured(m, "weight", 3)
    p.ln_structured(m, "weight", 0.4, n=2, dim=1)
    p.l1_unstructured(m, "weight", 0.5)
    p.identity(m, "weight")


WAYS = {
    "l1": lambda lib, m: lib.nn.utils.prune.l1_unstructured(m, "weight", 0.3),
    "l1 of a number": lambda lib, m: lib.nn.utils.prune.l1_unstructured(m, "weight", 5),
    "l1 of nothing": lambda lib, m: lib.nn.utils.prune.l1_unstructured(m, "weight", 0),
    "l1 of everything": lambda lib, m: lib.nn.utils.prune.l1_unstructured(m, "weight", 1.0),
    "l1 by scores": lambda lib, m: lib.nn.utils.prune.l1_unstructured(
        m, "weight", 0.3, importance_scores=lib.tensor(SCORES)
    ),
    "l2 of rows": lambda lib, m: lib.nn.utils.prune.ln_structured(m, "weight", 1, n=2, dim=0),
    "l1 of columns": lambda lib, m: lib.nn.utils.prune.ln_structured(m, "weight", 0.5, n=1, dim=-1),
    "largest of columns": lambda lib, m: lib.nn.utils.prune.ln_structured(m, "weight", 2, n=float("inf"), dim=1),
    "smallest of columns": lambda lib, m: lib.nn.utils.prune.ln_structured(m, "weight", 2, n=float("-inf"), dim=1),
    "ln by scores": lambda lib, m: lib.nn.utils.prune.ln_structured(
        m, "weight", 2, n=2, dim=1, importance_scores=lib.tensor(SCORES)
    ),
    "mask": lambda lib, m: lib.nn.utils.prune.custom_from_mask(m, "weight", lib.tensor(SCORES > 0)),
    "identity": lambda lib, m: lib.nn.utils.prune.identity(m, "weight"),
    "one after the other": by_two,
}


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("way", WAYS)
def test_it_is_pytorchs(compared, way, dtype):
    torch = pytest.importorskip("torch")
    importlib.import_module("torch.nn.utils.prune")
    found = []
    for lib in (og, torch):
        m = linear(lib, dtype)
        WAYS[way](lib, m)
        m(lib.ones(2, 6, dtype=getattr(lib, dtype))).sum().backward()
        assert [n for n, _ in m.named_parameters()] == ["bias", "weight_orig"]
        assert lib.nn.utils.prune.is_pruned(lib.nn.Sequential(m))
        state = {k: v.numpy() for k, v in m.state_dict().items()}
        weight, grad = m.weight, m.weight_orig.grad
        copied = lib.nn.utils.prune.remove(m, "weight")
        assert list(copied.state_dict()) == ["bias", "weight"] and not m._forward_pre_hooks
        found.append((state, weight, grad, m.weight))
    ours, theirs = found
    assert list(ours[0]) == list(theirs[0])
    worst = max(
        apart(a, b) for a, b in zip((*ours[0].values(), *ours[1:]), (*theirs[0].values(), *theirs[1:]), strict=True)
    )
    assert worst <= 1e-12
    compared.note("utils.prune", dtype, worst)


@pytest.mark.oracle
def test_global_pruning_is_pytorchs():
    torch = pytest.importorskip("torch")
    importlib.import_module("torch.nn.utils.prune")
    masks = []
    for lib in (og, torch):
        net = lib.nn.Sequential(linear(lib), lib.nn.ReLU(), lib.nn.Linear(4, 2).double())
        net[2].load_state_dict({"weight": lib.tensor(W[:2, :4] * 2), "bias": lib.tensor(B[:2])})
        p = lib.nn.utils.prune
        p.l1_unstructured(net[0], "bias", 1)
        parameters = ((net[0], "weight"), (net[2], "weight"), (net[0], "bias"))
        p.global_unstructured(parameters, pruning_method=p.L1Unstructured, amount=0.3)
        p.global_unstructured(parameters, p.L1Unstructured, {(net[0], "weight"): lib.tensor(SCORES * 100)}, amount=5)
        masks.append([b.numpy() for _, b in net.named_buffers()])
        net(lib.ones(1, 6, dtype=lib.float64))
    for a, b in zip(*masks, strict=True):
        np.testing.assert_array_equal(a, b)


def test_by_hand():
    m = linear(og)
    prune.l1_unstructured(m, "weight", 6)
    kept = np.abs(W) > np.sort(np.abs(W).ravel())[5]
    np.testing.assert_array_equal(m.weight_mask.numpy(), kept)
    np.testing.assert_array_equal(m.weight.detach().numpy(), W * kept)
    m(og.ones(1, 6, dtype=og.float64)).sum().backward()
    np.testing.assert_array_equal(m.weight_orig.grad.numpy(), kept)
    with og.no_grad():
        m.weight_orig.mul_(2)
    m(og.ones(1, 6, dtype=og.float64))
    np.testing.assert_array_equal(m.weight.detach().numpy(), 2 * W * kept)
    other = linear(og)
    prune.identity(other, "weight")
    other.load_state_dict(m.state_dict())
    x = og.tensor(RNG.standard_normal((2, 6)))
    assert og.equal(other(x), m(x))


@pytest.mark.parametrize("amount", [0.25, 5, 0, 1.0])
def test_random_elements(amount):
    m = linear(og)
    count = round(amount * 24) if isinstance(amount, float) else amount
    prune.random_unstructured(m, "weight", amount)
    assert (m.weight_mask == 0).sum().item() == count
    prune.random_unstructured(m, "weight", 0.5)
    assert (m.weight_mask == 0).sum().item() == count + round((24 - count) / 2)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_random_slices(dim):
    m = linear(og)
    prune.random_structured(m, "weight", 2, dim)
    gone = (m.weight_mask.numpy() == 0).all(1 if dim == 0 else 0)
    assert gone.sum() == 2 and (m.weight_mask == 0).sum().item() == 2 * (6 if dim == 0 else 4)


def test_containers_know_their_history():
    m = linear(og)
    prune.l1_unstructured(m, "weight", 3)
    (method,) = m._forward_pre_hooks.values()
    assert isinstance(method, prune.L1Unstructured)
    prune.ln_structured(m, "weight", 1, n=2, dim=0)
    (container,) = m._forward_pre_hooks.values()
    assert isinstance(container, prune.PruningContainer) and len(container) == 2 and container[0] is method
    assert [type(x).__name__ for x in container] == ["L1Unstructured", "LnStructured"]
    other = prune.Identity()
    other._tensor_name = "bias"
    with pytest.raises(OpError, match="Can only add pruning methods acting on the parameter named 'weight'"):
        container.add_pruning_method(other)
    with pytest.raises(TypeError, match="is not a BasePruningMethod subclass"):
        container.add_pruning_method(3)


def test_a_way_of_ones_own():
    class EveryOther(prune.BasePruningMethod):
        PRUNING_TYPE = "unstructured"

        def compute_mask(self, t, default_mask):
            mask = default_mask.clone()
            mask.view(-1)[::2] = 0
            return mask

    m = linear(og)
    EveryOther.apply(m, "bias")
    np.testing.assert_array_equal(m.bias_mask.numpy(), [0, 1, 0, 1])
    np.testing.assert_array_equal(EveryOther().prune(og.tensor([1.0, 2.0, 3.0])).numpy(), [0, 2, 0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: prune.l1_unstructured(m, "weight", "many"), TypeError, "Invalid type for amount: many"),
        (lambda m: prune.l1_unstructured(m, "weight", 1.5), OpError, r"be a float in the range \[0, 1\]"),
        (lambda m: prune.l1_unstructured(m, "weight", -1), OpError, "or a non-negative integer"),
        (lambda m: prune.l1_unstructured(m, "weight", 25), OpError, "number of parameters to prune=24"),
        (lambda m: prune.random_structured(m, "bias", 1, 0), OpError, "only be applied to multidimensional tensors"),
        (lambda m: prune.ln_structured(m, "weight", 1, 2, 2), IndexError, "Invalid index 2"),
        (lambda m: prune.custom_from_mask(m, "weight", og.ones(2)), ShapeError, "must match self.mask shape"),
        (lambda m: prune.l1_unstructured(m, "weight", 1, og.ones(2)), ShapeError, "importance_scores should have the"),
        (lambda m: prune.remove(m, "weight"), OpError, "has to be pruned before pruning can be removed"),
        (lambda m: prune.global_unstructured([(m, "weight")], prune.LnStructured, amount=1, n=2), TypeError, "Only"),
        (lambda m: prune.global_unstructured(3, prune.L1Unstructured, amount=1), TypeError, "not an Iterable"),
    ],
)  # fmt: skip
def test_wrong_use_leaves_the_module_as_it_was(call, error, message):
    m = linear(og)
    with pytest.raises(error, match=message):
        call(m)
    assert {*m.state_dict()} == {"weight", "bias"} and isinstance(m.weight, nn.Parameter)
    assert not m._forward_pre_hooks
    assert not prune.is_pruned(m)


def test_training_a_pruned_net_eagerly_and_compiled():
    results = []
    for compiled in (False, True):
        m = linear(og)
        prune.l1_unstructured(m, "weight", 0.5)
        optimizer = og.optim.SGD(m.parameters(), 0.1)

        def step(x, m=m, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (m(x) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        run = og.compile(step) if compiled else step
        x = og.tensor(np.random.default_rng(0).standard_normal((5, 6)))
        losses = [run(x).item() for _ in range(3)]
        prune.remove(m, "weight")
        results.append([*losses, m.weight.detach().numpy()])
        assert (m.weight == 0).sum().item() == 12
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_copies_without_a_past():
    m = linear(og).requires_grad_(False)
    prune.l1_unstructured(m, "weight", 4)
    other = copy.deepcopy(m)
    prune.remove(other, "weight")
    assert prune.is_pruned(m) and not prune.is_pruned(other) and og.equal(other.weight, m.weight)
