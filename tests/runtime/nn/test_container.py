"""Containers: the same steps here and in PyTorch give the same names, reprs, values and errors."""

from collections import OrderedDict

import pytest

import onnxgrad as og
from onnxgrad import nn


def caught(f):
    """Return what a call raises, as text."""
    try:
        f()
    except Exception as error:
        text = str(error).replace("onnxgrad.runtime.nn.module.", "torch.nn.modules.module.")
        kind = next(k.__name__ for k in type(error).__mro__ if k.__module__ == "builtins")
        return kind, text.replace("onnxgrad.runtime.nn.modules.", "torch.nn.modules.")
    return None


def names(m):
    return [(n, type(x).__name__) for n, x in m.named_children()], repr(m)


def sequential(lib):
    nn = lib.nn
    m = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1, bias=False))
    yield names(m), len(m), [type(x).__name__ for x in m], list(m.state_dict())
    yield names(m[:2]), names(m[-1:]), type(m[-1]).__name__, m[0] is next(iter(m))
    m.append(nn.Tanh()).extend([nn.Sigmoid(), nn.ReLU()])
    m.insert(1, nn.Identity())
    m.insert(-1, nn.ReLU6())
    yield names(m)
    m[1] = nn.ELU()
    del m[0]
    del m[3:5]
    yield names(m), names(m.pop(1)), names(m)
    both = nn.Sequential(nn.ReLU()) + nn.Sequential(nn.Tanh(), nn.Tanh())
    both += nn.Sequential(nn.ELU())
    yield names(both), names(nn.Sequential(nn.ReLU(), nn.Tanh()) * 2), names(2 * nn.Sequential(nn.ELU()))
    both *= 2
    yield names(both), both[0] is both[4], len(list(both.modules()))
    named = nn.Sequential(OrderedDict([("first", nn.Linear(1, 2)), ("then", nn.Sequential(nn.ReLU()))]))
    yield names(named), names(named[:1]), list(named.state_dict()), "first" in dir(named), "0" in dir(m)
    yield [
        caught(f)
        for f in (
            lambda: m[10], lambda: m.insert(20, nn.ReLU()), lambda: m * 0, lambda: m * 1.5,
            lambda: m.__add__([nn.ReLU()]),
            lambda: m.insert(0, 3), lambda: nn.Sequential(3), lambda: m.append(None) and None,
        )
    ]  # fmt: skip


def module_list(lib):
    nn = lib.nn
    m = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)] + [nn.ReLU()] + [nn.Sequential(nn.Tanh())] * 2)
    yield names(m), len(m), list(m.state_dict()), names(m[1:]), m[-1] is m[4]
    m.append(nn.ReLU())
    m.insert(0, nn.ELU())
    m.extend([nn.GELU()])
    m += [nn.SiLU()]
    yield names(m), names(m.__add__([nn.ReLU()])), names(nn.ModuleList()), len(m)
    m[2] = nn.Identity()
    del m[-1]
    del m[:2]
    yield names(m), names(m.pop(0)), names(m), "0" in dir(m)
    yield [
        caught(f) for f in (lambda: m[50], lambda: m.extend(3), lambda: m.append(3), lambda: m(lib.ones(1)))
    ]  # fmt: skip


def module_dict(lib):
    nn = lib.nn
    m = nn.ModuleDict({"conv": nn.Conv2d(1, 1, 1), "pool": nn.MaxPool2d(3)})
    yield names(m), list(m), list(m.keys()), "conv" in m, len(m), list(m.state_dict())
    m["act"] = nn.ReLU()
    m.update({"conv": nn.Identity(), "more": nn.Tanh()})
    m.update([["pair", nn.ELU()]])
    m.update(nn.ModuleDict({"other": nn.SiLU()}))
    yield names(m), [(k, type(v).__name__) for k, v in m.items()], [type(v).__name__ for v in m.values()]
    del m["act"]
    yield names(m.pop("pair")), names(m)
    m.clear()
    yield (
        names(m),
        [
            caught(f)
            for f in (lambda: m["x"], lambda: m.update(3), lambda: m.update([3]), lambda: m.update([[1, 2, 3]]))
        ],
    )


def parameter_list(lib):
    nn = lib.nn
    m = nn.ParameterList([nn.Parameter(lib.zeros(2, 3)), lib.ones(1), "text"])
    yield repr(m), len(m), [n for n, _ in m.named_parameters()], isinstance(m[1], nn.Parameter), list(m.state_dict())
    m.append(lib.zeros(4, dtype=lib.float64)).extend([3])
    m += [lib.ones(1)]
    m[0] = lib.ones(5)
    yield repr(m), repr(m[1:3]), m[-2], [type(x).__name__ for x in m], "0" in dir(m)
    yield [caught(f) for f in (lambda: m[9], lambda: m.extend(3), lambda: m.extend(lib.ones(2)), lambda: m(1))]


def parameter_dict(lib):
    nn = lib.nn
    m = nn.ParameterDict({"b": lib.zeros(2, 3), "a": nn.Parameter(lib.ones(1)), "n": 5})
    yield repr(m), list(m), len(m), "a" in m, [n for n, _ in m.named_parameters()], list(m.state_dict())
    m["c"] = lib.zeros(1, dtype=lib.float64)
    m.update(OrderedDict([("z", lib.ones(1)), ("y", lib.ones(1))]))
    yield repr(m), list(m.keys()), list(reversed(m)), m.get("q", 7), m.setdefault("n", 6), m.setdefault("s", 6)
    yield list(m | {"or": 1}), list(m.copy()), list(m.fromkeys(["k", "l"], 3).items())
    m |= {"in": 2}
    del m["a"]
    yield m.pop("in"), m.popitem(), repr(m), [k for k, _ in m.items()], len(list(m.values()))
    m.clear()
    yield len(m), [caught(f) for f in (lambda: m[3], lambda: m.update(3), lambda: m.update([3]), lambda: m(1))]


SCENES = [sequential, module_list, module_dict, parameter_list, parameter_dict]


@pytest.mark.oracle
@pytest.mark.parametrize("scene", SCENES, ids=lambda s: s.__name__)
def test_containers_are_pytorchs(scene):
    torch = pytest.importorskip("torch")
    for ours, theirs in zip(scene(og), scene(torch), strict=True):
        assert ours == theirs


def test_sequential_runs_in_order():
    m = nn.Sequential({"first": nn.Linear(2, 2), "then": nn.ReLU()})
    x = og.ones(1, 2)
    assert og.equal(m(x), m.then(m.first(x)))
    m.insert(0, nn.Flatten(0))
    assert [n for n, _ in m.named_children()] == ["0", "1", "2"] and og.equal(m(x), m[2](m[1](x[0])))


def test_module_list_repr_folds_what_is_equal():
    m = nn.ModuleList([nn.ReLU(), nn.ReLU(), nn.Sequential(nn.Tanh()), nn.ReLU()])
    assert repr(m) == ("ModuleList(\n  (0-1): 2 x ReLU()\n  (2): Sequential(\n    (0): Tanh()\n  )\n  (3): ReLU()\n)")


def test_parameters_in_containers_are_trained():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.ws = nn.ParameterList([og.ones(2) for _ in range(2)])
            self.named = nn.ParameterDict({"shift": og.zeros(2)})

        def forward(self, x):
            for w in self.ws:
                x = x * w
            return x + self.named["shift"]

    net = Net()
    net(og.tensor([1.0, 2.0])).sum().backward()
    assert [p.grad.tolist() for p in net.parameters()] == [[1, 2], [1, 2], [1, 1]]
    assert [n for n, _ in net.named_parameters()] == ["ws.0", "ws.1", "named.shift"]
