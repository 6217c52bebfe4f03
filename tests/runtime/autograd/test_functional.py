"""`autograd.functional` and `func` against PyTorch: structures, numbers, messages; and closed forms without it."""

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.autograd import gradcheck, gradgradcheck
from onnxgrad.errors import AutogradError, OpError

RNG = np.random.default_rng(0)
A, B, V = RNG.standard_normal((2, 3)), RNG.standard_normal((3, 2)), RNG.standard_normal(3)


def power(lib, x):
    return (x**3).sum()


def product(lib, a, b):
    return a @ b


def several(lib, a, b):
    return (a @ b).exp(), (a * a).sum()


def mixed(lib, a, b):
    return ((a @ b) ** 2).sum() + a.sin().sum()


CALLS = {
    "jacobian": lambda t, F, x: F.jacobian(lambda v: v**2, x(V)),
    "jacobian-scalar": lambda t, F, x: F.jacobian(lambda v: power(t, v), x(V)),
    "jacobian-inputs": lambda t, F, x: F.jacobian(lambda a, b: product(t, a, b), (x(A), x(B))),
    "jacobian-several": lambda t, F, x: F.jacobian(lambda a, b: several(t, a, b), (x(A), x(B))),
    "jacobian-tuple-of-one": lambda t, F, x: F.jacobian(lambda v: (v**2,), (x(V),)),
    "jacobian-unused": lambda t, F, x: F.jacobian(lambda a, b: a * 2, (x(A), x(B))),
    "jacobian-vectorize": lambda t, F, x: F.jacobian(lambda a, b: several(t, a, b), (x(A), x(B)), vectorize=True),
    "jacobian-forward": lambda t, F, x: F.jacobian(
        lambda v: v.cumsum(0) ** 2, x(V), vectorize=True, strategy="forward-mode"
    ),
    "hessian": lambda t, F, x: F.hessian(lambda v: power(t, v), x(V)),
    "hessian-inputs": lambda t, F, x: F.hessian(lambda a, b: mixed(t, a, b), (x(A), x(B))),
    "vjp": lambda t, F, x: F.vjp(lambda v: v**2, x(V), x(V + 1)),
    "vjp-scalar": lambda t, F, x: F.vjp(lambda a, b: mixed(t, a, b), (x(A), x(B))),
    "vjp-several": lambda t, F, x: F.vjp(
        lambda a, b: several(t, a, b), (x(A), x(B)), (x(RNG.standard_normal((2, 2)) * 0 + 1), x(np.array(2.0)))
    ),
    "jvp": lambda t, F, x: F.jvp(lambda v: v.exp().sum(), x(V), x(V + 1)),
    "jvp-several": lambda t, F, x: F.jvp(lambda a, b: several(t, a, b), (x(A), x(B)), (x(A + 1), x(B - 1))),
    "vhp": lambda t, F, x: F.vhp(lambda v: power(t, v), x(V), x(V + 1)),
    "vhp-inputs": lambda t, F, x: F.vhp(lambda a, b: mixed(t, a, b), (x(A), x(B)), (x(A + 1), x(B))),
    "hvp": lambda t, F, x: F.hvp(lambda v: power(t, v), x(V), x(V + 1)),
    "hvp-inputs": lambda t, F, x: F.hvp(lambda a, b: mixed(t, a, b), (x(A), x(B)), (x(A + 1), x(B))),
}
FUNCTIONS = {
    "grad": lambda t, x: t.func.grad(lambda v: power(t, v))(x(V)),
    "grad-argnums": lambda t, x: t.func.grad(lambda a, b: mixed(t, a, b), argnums=(0, 1))(x(A), x(B)),
    "grad-aux": lambda t, x: t.func.grad(lambda v: (power(t, v), v * 2), has_aux=True)(x(V)),
    "grad-tree": lambda t, x: t.func.grad(lambda p, v: ((p["w"] @ v) * p["b"]).sum())({"w": x(A), "b": x(V[:2])}, x(V)),
    "grad-of-grad": lambda t, x: t.func.grad(t.func.grad(lambda v: (v**3).sum()))(x(np.array(2.0))),
    "vjp": lambda t, x: t.func.vjp(lambda v: v**2, x(V))[1](x(V + 1)),
    "jvp": lambda t, x: t.func.jvp(lambda v: v**2, (x(V),), (x(V + 1),)),
    "jacrev": lambda t, x: t.func.jacrev(lambda v: v**2)(x(V)),
    "jacrev-argnums": lambda t, x: t.func.jacrev(lambda a, b: product(t, a, b), argnums=(0, 1))(x(A), x(B)),
    "jacfwd": lambda t, x: t.func.jacfwd(lambda v: v.cumsum(0) ** 2)(x(V)),
    "hessian": lambda t, x: t.func.hessian(lambda v: power(t, v))(x(V)),
}


def alike(ours, theirs, tol=1e-12):
    """Whether two nested results have one structure and the same numbers."""
    if isinstance(theirs, tuple):
        assert type(ours) is tuple and len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            alike(a, b, tol)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for k in theirs:
            alike(ours[k], theirs[k], tol)
    else:
        assert ours.shape == tuple(theirs.shape) and ours.requires_grad == theirs.requires_grad
        np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=tol, atol=tol)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # PyTorch's own, in forward mode
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("recorded", [False, True])
def test_functional_is_pytorchs(name, recorded):
    import torch

    call = CALLS[name]
    alike(*(call(t, t.autograd.functional, lambda a, t=t: t.tensor(a, requires_grad=recorded)) for t in (og, torch)))


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # PyTorch's own, in forward mode
@pytest.mark.parametrize("name", FUNCTIONS)
def test_func_is_pytorchs(name):
    import torch

    alike(*(FUNCTIONS[name](t, lambda a, t=t: t.tensor(a)) for t in (og, torch)))


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["jacobian", "hessian", "vjp", "jvp", "vhp", "hvp"])
def test_results_can_be_differentiated_on(name):
    import torch

    def run(t):
        x = t.tensor(V, requires_grad=True)
        f = (lambda v: v**3) if name in ("jacobian", "vjp", "jvp") else (lambda v: (v**4).sum())
        args = () if name in ("jacobian", "hessian") else (t.ones(3, dtype=t.float64),)
        found = getattr(t.autograd.functional, name)(f, x, *args, create_graph=True)
        (found if not args else found[1]).sum().backward()
        return x.grad

    alike(run(og), run(torch))


WRONG = [
    lambda t, F, x: F.jacobian(lambda v: v, 1.0),
    lambda t, F, x: F.jacobian(lambda v: v, (x, 1.0)),
    lambda t, F, x: F.jacobian(lambda v: 1.0, x),
    lambda t, F, x: F.vjp(lambda v: v * 2, x),
    lambda t, F, x: F.vjp(lambda v: v * 2, x, x[:1]),
    lambda t, F, x: F.vjp(lambda v: v * 2, x, (x, x)),
    lambda t, F, x: F.vjp(lambda v: (v * 2, v), x, (x,)),
    lambda t, F, x: F.jvp(lambda v: v * 2, x),
    lambda t, F, x: F.hvp(lambda v: (v * 2).sum(), x),
    lambda t, F, x: F.hessian(lambda v: v * 2, x),
    lambda t, F, x: F.hessian(lambda v: (v.sum(), v.sum()), x),
    lambda t, F, x: F.vhp(lambda v: v * 2, x, x),
    lambda t, F, x: F.jacobian(lambda v: t.ones(2), x, strict=True),
    lambda t, F, x: F.jacobian(lambda a, b: a * 2, (x, x), strict=True),
    lambda t, F, x: F.jacobian(lambda a: a * 2, x, strict=True, create_graph=True),
    lambda t, F, x: F.hessian(lambda a: a.sum(), x, strict=True),
    lambda t, F, x: F.vjp(lambda a, b: a.sum(), (x, x), strict=True),
    lambda t, F, x: F.hvp(lambda a: a.sum(), x, x, strict=True),
    lambda t, F, x: F.jacobian(lambda v: v, x, strict=True, vectorize=True),
    lambda t, F, x: F.jacobian(lambda v: v, x, strategy="sideways"),
]


@pytest.mark.oracle
@pytest.mark.parametrize("call", WRONG)
def test_messages_are_pytorchs(call):
    import torch

    said = []
    for t in (og, torch):
        with pytest.raises((RuntimeError, TypeError, AssertionError, NotImplementedError)) as error:
            call(t, t.autograd.functional, t.tensor(V))
        said.append(str(error.value).replace("torch.Size([3])", "(3,)").replace("torch.Size([1])", "(1,)"))
    assert said[0] == said[1]


def test_forward_mode_wants_vectorize():
    with pytest.raises(NotImplementedError, match="only implemented for `vectorize=True`"):
        og.autograd.functional.jacobian(lambda v: v, og.tensor(V), strategy="forward-mode")


def test_closed_forms():
    x = og.tensor(V)
    np.testing.assert_allclose(og.autograd.functional.hessian(lambda v: (v**3).sum(), x).numpy(), np.diag(6 * V))
    np.testing.assert_allclose(og.autograd.functional.jacobian(lambda v: og.tensor(A) @ v, x).numpy(), A)
    _, product = og.autograd.functional.jvp(lambda v: og.tensor(A) @ v, x, x)
    np.testing.assert_allclose(product.numpy(), A @ V)
    np.testing.assert_allclose(og.func.grad(lambda v: v @ v)(x).numpy(), 2 * V)
    grads, value = og.func.value_and_grad(lambda v: v @ v)(x)
    np.testing.assert_allclose(grads.numpy(), 2 * V)
    assert value.item() == pytest.approx(V @ V) and not value.requires_grad
    assert og.autograd.functional.jacobian(lambda v: v[:0], x).shape == (0, 3)


def test_func_of_a_module():
    model = og.nn.Linear(3, 1)
    params = {k: p.detach() for k, p in model.named_parameters()}
    data = og.tensor(A, dtype=og.float32)
    found = og.func.grad(lambda p: og.func.functional_call(model, p, (data,)).sum())(params)
    np.testing.assert_allclose(found["weight"].numpy(), A.sum(0, keepdims=True), rtol=1e-6)
    assert found["bias"].tolist() == [2.0] and not hasattr(og, "vmap")


@pytest.mark.oracle
def test_gradcheck_decides_as_pytorch():
    import torch

    def cases(t):
        x = t.tensor(V, requires_grad=True)
        y = t.tensor(V + 1)
        yield t, lambda v: v**3, (x,), True
        yield t, lambda v: v * v.detach(), (x,), False
        yield t, lambda v, w: (v * w, v.sum()), (x, y), True
        yield t, lambda v: t.ones(2, dtype=t.float64), (x,), True
        yield t, lambda v: v.detach() ** 2, (x,), False

    for (t, f, args, holds), (_, g, more, _) in zip(cases(og), cases(torch), strict=True):
        assert t.autograd.gradcheck(f, args, raise_exception=False) == holds
        try:
            theirs = torch.autograd.gradcheck(g, more, raise_exception=False)
        except ValueError:  # PyTorch refuses functions without a differentiable output here
            continue
        assert theirs == holds


def test_gradcheck_says_what_differs():
    x = og.tensor([1.0, 2.0], dtype=og.float64, requires_grad=True)
    with pytest.raises(
        AutogradError, match=r"Jacobian mismatch for output 0 with respect to input 0,\nnumerical:tensor"
    ):
        gradcheck(lambda v: v * v.detach(), x)
    assert gradcheck(lambda v: v**2, x, fast_mode=True) and not gradcheck(
        lambda v: v * v.detach(), x, fast_mode=True, raise_exception=False
    )
    assert gradgradcheck(lambda v: v**3, x) and gradgradcheck(
        lambda v: (v**3, v.sin()), x, gen_non_contig_grad_outputs=True
    )
    assert not gradgradcheck(lambda v: v**2 * v.detach(), x, raise_exception=False)
    assert gradcheck(lambda v: v * v.detach(), x, atol=10.0)
    with pytest.raises(OpError, match="at least one input tensor"):
        gradcheck(lambda v: v, x.detach())
    with pytest.warns(UserWarning, match="not a double precision"):
        assert not gradcheck(lambda v: v**2, x.detach().float().requires_grad_(), raise_exception=False)
