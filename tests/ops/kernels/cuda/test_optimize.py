"""Steps of optimizers on CUDA against their array kernels in float64 and torch.optim."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onnxgrad.ops.expr import Const, Var, where
from onnxgrad.ops.kernels.cuda import gradient_norm, optimize, step_numbers
from onnxgrad.ops.kernels.cuda.kernel import Launch
from onnxgrad.ops.kernels.cuda.operand import packed
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import BFLOAT16

from . import host, nvrtc
from .site import TestRef, lower, make_site, refuses, run_op

FLAGS = [(False, False), (True, False), (False, True), (True, True)]
SHAPES = [(), (1,), (7,), (3, 5), (33,), (2049,), (65536 + 21,), (0, 3)]
SGD = np.array([0.1, 0.01, 0.9, 0.7])
ADAM = np.array([0.9, 0.1, 0.99, 0.01, 0.3, 1e-8, 0.02])
TOLERANCE = {"float32": 2e-6, "float64": 1e-14, "float16": 1.5e-3, "bfloat16": 1e-2}


def arrays(shape, dtype, count, seed=1):
    rng = np.random.default_rng([*shape, seed])
    return [
        np.asarray(rng.uniform(0.1, 1, shape) * (1 if i > 1 else rng.choice([-1, 1]))).astype(dtype)
        for i in range(count)
    ]


def wide(a):
    return [*map(wide, a)] if isinstance(a, list) else None if a is None else a.astype(np.float64)


def agree(found, wanted, dtype):
    tol = TOLERANCE[np.dtype(dtype).name]
    for f, w in zip(found, wanted, strict=True):
        assert f.dtype == dtype
        np.testing.assert_allclose(wide(f), w, rtol=tol, atol=tol)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", BFLOAT16], ids=str)
def test_sgd(shape, dtype):
    p, g, b = arrays(shape, dtype, 3)
    numbers = SGD.astype(dtype)
    for decays, nesterov in FLAGS if np.dtype(dtype) == np.float32 and len(shape) < 2 else FLAGS[-1:]:
        attrs = {"decays": decays, "nesterov": nesterov}
        for buffer in (None, b):
            given = [p, g, buffer, numbers]
            agree(run_op("sgd_update", given, attrs), OPS["sgd_update"].run(*map(wide, given), **attrs), dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", BFLOAT16], ids=str)
def test_adam(shape, dtype):
    p, g, m, v, u = arrays(shape, dtype, 5)
    numbers = ADAM.astype(dtype)
    numbers[5] = max(numbers[5], 1e-6)
    for decays, decoupled in FLAGS if np.dtype(dtype) == np.float32 and len(shape) < 2 else FLAGS[-1:]:
        attrs = {"decays": decays, "decoupled": decoupled}
        for largest in (None, u):
            given = [p, g, m, v, largest, numbers]
            agree(run_op("adam_update", given, attrs), OPS["adam_update"].run(*map(wide, given), **attrs), dtype)


def test_nan_stays_where_it_is():
    p, g, m, v, u = arrays((5000,), "float32", 5)
    g[[0, 777, 4999]] = np.nan, np.inf, -np.inf
    u[3] = np.nan
    attrs = {"decays": True, "decoupled": True}
    found = run_op("adam_update", [p, g, m, v, u, ADAM.astype("float32")], attrs)
    with np.errstate(all="ignore"):
        wanted = OPS["adam_update"].run(p, g, m, v, u, ADAM.astype("float32"), **attrs)
    for f, w in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(np.isnan(f), np.isnan(w))
        assert 1 <= np.isnan(f).sum() <= 4


def test_several_steps_are_torchs():
    torch = pytest.importorskip("torch")
    from onnxgrad.runtime.optim.adam import AdamW
    from onnxgrad.runtime.tensor.tensor import Tensor

    p, *gs = arrays((40,), "float32", 4)
    theirs = torch.nn.Parameter(torch.tensor(p))
    optimizer = torch.optim.AdamW([theirs], lr=0.05, weight_decay=0.1)
    ours = AdamW([Tensor(p.copy(), requires_grad=True)], lr=0.05, weight_decay=0.1)
    m, v, state = np.zeros_like(p), np.zeros_like(p), {}
    for g in gs:
        theirs.grad = torch.tensor(g)
        optimizer.step()
        numbers = np.array(ours._numbers(state, ours.param_groups[0]), np.float32)
        p, m, v = run_op("adam_update", [p, g, m, v, None, numbers], {"decays": True, "decoupled": True})
        ours._advance(state, ours.param_groups[0])
    np.testing.assert_allclose(p, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_other_element_types_are_refused():
    p = np.arange(6).astype(object)
    numbers = np.zeros(4, object)
    results = [make_site("sgd_update", [np.ones(6, np.float32)] * 2 + [None, SGD.astype("float32")],
                         {"decays": False, "nesterov": False}).types[0]]  # fmt: skip
    results = [type(results[0])(np.dtype(object), (6,))]
    assert refuses("sgd_update", [p, p, None, numbers], {"decays": False, "nesterov": False}, results=results)


# factors and skipped steps -------------------------------------------------------------------------------------------


def single(*values):
    made = [np.array(v, np.float32) for v in values]
    return made if len(made) > 1 else made[0]


@pytest.mark.parametrize("op", ["sgd_update", "adam_update"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", BFLOAT16], ids=str)
@pytest.mark.parametrize("flag", [None, 0.0, 1.0])
def test_gradients_are_scaled_and_steps_skipped(op, dtype, flag):
    given = arrays((2049,), dtype, 3 if op == "sgd_update" else 5)
    given[1][[0, 1500]] = (np.nan, np.inf) if flag else (1e3, 1e4)
    numbers = (SGD if op == "sgd_update" else ADAM).astype(dtype)
    if op == "adam_update":
        numbers[5] = max(numbers[5], 1e-6)
    args = [*given, numbers, None if flag is None else single(flag), single(1 / 1024, 0.25)]
    attrs = {"decays": True, **({"nesterov": True} if op == "sgd_update" else {"decoupled": True})}
    found = run_op(op, args, attrs)
    if flag:
        for f, before in zip(found, [a for i, a in enumerate(given) if i != 1], strict=True):
            assert f.tobytes() == before.tobytes()
    agree(found, OPS[op].run(*map(wide, args), **attrs), dtype)


# many tensors in one launch ------------------------------------------------------------------------------------------


class Together:
    """Sites whose work is added behind the last."""

    def __init__(self, op, given, attrs):
        self.sites = [make_site(op, args, attrs) for args in given]
        assert len({optimize.together(s) for s in self.sites}) == 1
        assert optimize.multi_tensor(self.sites)
        assert sum(len(s.work) for s in self.sites) == 1

    def run(self, *, at_end=True, seed=0):
        for s in self.sites:
            for b in s.buffers:
                b.place(at_end=at_end)
        last = self.sites[-1]
        for made, refs in last.tables:
            made.view()[...] = [r.address for r in refs]
        (launch,) = last.work
        assert isinstance(launch, Launch)
        if nvrtc.why_no_nvrtc() is None:
            nvrtc.check(launch.kernel)
        last._launch(launch, seed)
        return [[s.outputs[i].view().copy() for i in range(len(s.results))] for s in self.sites]


SIZES = [(3,), (0,), (5, 7), (optimize.CHUNK,), (2 * optimize.CHUNK + 9,), (1,), (64, 3, 3, 3)]


def updates(op, dtype="float32", seed=3, sizes=SIZES, more=()):
    """Return arguments of the updates of several parameters, and their attributes."""
    count = 3 if op == "sgd_update" else 4
    numbers = (SGD if op == "sgd_update" else ADAM).astype(dtype)
    given = []
    for i, shape in enumerate(sizes):
        made = arrays(shape, dtype, count, seed + i)
        given.append([*made, *([None] if count == 4 else []), numbers, *more])
    attrs = {"decays": True, "nesterov": True} if op == "sgd_update" else {"decays": True, "decoupled": True}
    return given, attrs


@pytest.mark.parametrize("op", ["sgd_update", "adam_update"])
@pytest.mark.parametrize("dtype", ["float32", "float64", BFLOAT16], ids=str)
def test_one_launch_for_many(op, dtype):
    given, attrs = updates(op, dtype)
    group = Together(op, given, attrs)
    first, second = group.run(), group.run(at_end=False, seed=5)
    for args, found, again in zip(given, first, second, strict=True):
        agree(found, OPS[op].run(*map(wide, args), **attrs), dtype)
        assert all(a.tobytes() == b.tobytes() for a, b in zip(found, again, strict=True))


@pytest.mark.parametrize("op", ["sgd_update", "adam_update"])
@pytest.mark.parametrize("skip", [0.0, 1.0])
def test_scale_clip_and_skip_are_read_in_the_kernel(op, skip):
    given, attrs = updates(op, more=(single(skip), single(1 / 1024, 0.25)))
    if skip:
        given[2][1][0, 3] = np.nan
        given[4][1][77] = -np.inf
    for args, found in zip(given, Together(op, given, attrs).run(), strict=True):
        if skip:
            state = [a for a in args[2:-3] if a is not None]
            for f, before in zip(found, [args[0], *state], strict=True):
                np.testing.assert_array_equal(f, before)
        else:
            plain = [args[0], wide(args[1]) / 4096, *args[2:-2]]
            agree(found, OPS[op].run(*map(wide, plain), **attrs), "float32")


@pytest.mark.parametrize("op", ["sgd_update", "adam_update"])
def test_results_may_lie_where_their_inputs_do(op):
    given, attrs = updates(op)
    group = Together(op, given, attrs)
    ((_, refs),) = group.sites[-1].tables
    tensors = optimize.formula(group.sites[0]).tensors
    kept = []
    for i in range(0, len(refs), tensors):
        own = [refs[i], *refs[i + 2 : i + tensors // 2 + 1]]
        refs[i + len(own) + 1 : i + tensors] = own
        kept.append(own)
    group.run()
    for args, own in zip([a for a in given if a[0].size], kept, strict=True):
        agree([r.view() for r in own], OPS[op].run(*map(wide, args), **attrs), "float32")


def test_tensors_that_are_not_aligned_and_updates_that_differ():
    given, attrs = updates("sgd_update", sizes=[(4097,), (12,)])
    group = Together("sgd_update", given, attrs)
    ((_, refs),) = group.sites[-1].tables
    for i, (site, args) in enumerate(zip(group.sites, given, strict=True)):
        array = np.concatenate([[0], args[1]]).astype(np.float32)
        ref = site._hold(packed(array.dtype, array.shape), array)
        refs[5 * i + 1] = TestRef(packed(array.dtype, args[1].shape), ref.buffer)
        object.__setattr__(refs[5 * i + 1].operand, "offset", 1)
    for args, found in zip(given, group.run(), strict=True):
        agree(found, OPS["sgd_update"].run(*map(wide, args), **attrs), "float32")
    other = make_site("sgd_update", given[0], {"decays": False, "nesterov": True})
    assert not optimize.multi_tensor([group.sites[0], other])
    skipped = make_site("sgd_update", [*given[0], single(0.0)], attrs)
    assert optimize.together(skipped) != optimize.together(group.sites[0])


# norms ---------------------------------------------------------------------------------------------------------------


def norm_of(gradients, factors=(), p=2.0):
    """Return the norm and the flag of gradients as kernels find them: one launch for each type, and one."""
    args = [gradients, [np.array(f, np.float32) for f in factors]]
    site = make_site("gradient_norm", args, {"p": p})
    assert lower(site) and len(site.work) == len({g.dtype for g in gradients if g.size}) + 1
    return [r.item() for r in run_op("gradient_norm", args, {"p": p})]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", BFLOAT16], ids=str)
@pytest.mark.parametrize("p", [2.0, math.inf])
def test_norm_of_all_gradients(dtype, p):
    gradients = [args[1] for args in updates("sgd_update", dtype)[0]]
    norm, found = norm_of(gradients, (0.125, 0.3), p)
    wanted = np.linalg.norm(np.concatenate([wide(g).reshape(-1) for g in gradients]), p) * 0.125 * np.float32(0.3)
    np.testing.assert_allclose(norm, wanted, rtol=1e-6)
    assert found == 0


def test_gradients_of_several_types():
    dtypes = ["float32", "float16", BFLOAT16, "float32", "float16", BFLOAT16, "float64"]
    gradients = [args[1].astype(d) for args, d in zip(updates("sgd_update")[0], dtypes, strict=True)]
    norm, found = norm_of(gradients)
    wanted = np.linalg.norm(np.concatenate([wide(g).reshape(-1) for g in gradients]))
    np.testing.assert_allclose(norm, wanted, rtol=1e-6)
    assert found == 0


@pytest.mark.parametrize(("bad", "found", "norm"), [
    (np.nan, 1, np.nan), (np.inf, 1, np.inf), (-np.inf, 1, np.inf), (3e38, 0, np.inf), (-0.0, 0, 0.0),
])  # fmt: skip
@pytest.mark.parametrize("at", [0, 5, optimize.CHUNK + 2])
def test_gradients_that_are_not_finite_are_found(bad, found, norm, at):
    g = np.zeros(optimize.CHUNK + 3, np.float32)
    g[at] = bad
    gradients = [np.ones(3, np.float32) * (norm != 0), g]
    np.testing.assert_array_equal(norm_of(gradients), [norm, found])
    largest = abs(bad) if norm else 0.0
    np.testing.assert_array_equal(norm_of(gradients, p=math.inf), [np.float32(largest), found])


def test_a_factor_comes_before_the_squares_and_behind_the_check():
    big = np.full(40, 1e30, np.float32)
    norm, found = norm_of([big], (1e-30,))
    np.testing.assert_allclose(norm, math.sqrt(40), rtol=1e-6)
    assert found == 0
    assert norm_of([np.array([np.inf], np.float32)], (0.0,))[1] == 1


def test_gradients_of_no_elements_have_no_length():
    assert norm_of([np.zeros((0, 3), np.float32)]) == [0, 0]


# numbers of a step ---------------------------------------------------------------------------------------------------

LR, B2, EPS, STEP, PRODUCT = (*(Var(f"s{i}") for i in range(3)), Var("c0"), Var("c1"))


@pytest.mark.parametrize("dtype", ["float32", "float64", BFLOAT16], ids=str)
@pytest.mark.parametrize("flag", [0.0, 1.0, 3.0])
def test_numbers_of_a_step(dtype, flag):
    numbers = (
        LR, 1 - B2, (1 - B2 ** (STEP + 1)) ** 0.5, EPS, where(STEP < 3, 1.0, LR), Const(2.5), LR / (1 - PRODUCT),
    )  # fmt: skip
    counted = (STEP + 1, PRODUCT * (1 - 0.5 * 0.96 ** (STEP * B2)))
    settings = np.array([0.05, 0.999, 1e-8])
    for step in (0, 2, 7, 50_000):
        args = [settings, single(flag), [np.array(step, np.float32), np.array(0.75, np.float32)]]
        found = run_op("step_numbers", args, {"numbers": numbers, "counted": counted, "dtype": str(np.dtype(dtype))})
        wanted = [
            0.05, 1 - 0.999, math.sqrt(1 - 0.999 ** (step + 1)), 1e-8, 1.0 if step < 3 else 0.05, 2.5, 0.05 / 0.25,
        ]  # fmt: skip
        behind = [step, 0.75] if flag else [step + 1, 0.75 * (1 - 0.5 * 0.96 ** (step * 0.999))]
        tol = 1e-15 if dtype == "float64" else 4e-3 if dtype == BFLOAT16 else 6e-8
        assert found[0].dtype == dtype
        np.testing.assert_allclose(wide(found[0]), wanted, rtol=tol)
        np.testing.assert_array_equal(found[1:], np.array(behind, np.float32))


def test_texts_are_the_same_in_every_process():
    f = optimize.Formula(True, np.dtype(np.float32), 2, True, False, True)
    assert optimize.single(f).key == optimize.single(f).key
    assert "#include" not in optimize.several(f).text
    site = make_site("step_numbers", [np.ones(1), single(0.0), []], {"numbers": (Var("s0"),), "counted": (),
                                                                     "dtype": "float32"})  # fmt: skip
    kernels = [
        optimize.several(f), step_numbers.numbers_kernel(site, 1),
        gradient_norm.chunks_kernel(np.dtype(np.float32), np.dtype(np.float32), 2.0, 1),
    ]  # fmt: skip
    assert all("#include" not in k.text for k in kernels)
    host.compile_kernels(kernels)
