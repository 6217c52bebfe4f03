"""Steps of optimizers on CUDA against their array kernels in float64 and torch.optim."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from onnxgrad.ops.kernels.cuda import optimize
from onnxgrad.ops.kernels.cuda.kernel import Launch
from onnxgrad.ops.kernels.cuda.operand import packed
from onnxgrad.ops.op import OPS
from onnxgrad.ops.types import BFLOAT16

from . import host, nvrtc
from .site import TestRef, TestSite, make_site, refuses, run_op

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
    return None if a is None else a.astype(np.float64)


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


# many tensors in one launch ------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Together:
    """Sites whose work is added behind the last, with tables of addresses, and memory of which some may be shared."""

    sites: list[TestSite]
    tables: list[tuple[TestRef, list[TestRef]]] = field(default_factory=list)

    def table(self, refs, *, writes=()):
        made = self.sites[-1].temporary(np.int64, (len(refs),))
        self.tables.append((made, list(refs)))
        assert all(0 <= i < len(refs) for i in writes)
        self.written = [refs[i] for i in writes]
        return made

    def run(self, *, at_end=True, seed=0):
        launches = [w for s in self.sites for w in s.work]
        assert all(isinstance(w, Launch) for w in launches)
        for s in self.sites:
            for b in s.buffers:
                b.place(at_end=at_end)
        for made, refs in self.tables:
            made.view()[...] = [r.address for r in refs]
        for w in launches:
            if nvrtc.why_no_nvrtc() is None:
                nvrtc.check(w.kernel)
            self.sites[-1]._launch(w, seed)
        return [[s.outputs[i].view().copy() for i in range(len(s.results))] for s in self.sites]


def factor(site, value):
    return site._hold(packed(np.dtype(np.float32), (1,)), np.array([value], np.float32))


SIZES = [(3,), (0,), (5, 7), (optimize.CHUNK,), (2 * optimize.CHUNK + 9,), (1,), (64, 3, 3, 3)]


def updates(op, dtype="float32", seed=3, sizes=SIZES):
    """Return arguments of the updates of several parameters, and their attributes."""
    count = 3 if op == "sgd_update" else 4
    numbers = (SGD if op == "sgd_update" else ADAM).astype(dtype)
    given = []
    for i, shape in enumerate(sizes):
        made = arrays(shape, dtype, count, seed + i)
        given.append([*made, *([None] if count == 4 else []), numbers])
    attrs = {"decays": True, "nesterov": True} if op == "sgd_update" else {"decays": True, "decoupled": True}
    return given, attrs


@pytest.mark.parametrize("op", ["sgd_update", "adam_update"])
@pytest.mark.parametrize("dtype", ["float32", "float64", BFLOAT16], ids=str)
def test_one_launch_for_many(op, dtype):
    given, attrs = updates(op, dtype)
    group = Together([make_site(op, args, attrs) for args in given])
    assert len({optimize.together(s) for s in group.sites}) == 1
    assert optimize.multi_tensor(group.sites, group)
    assert sum(len(s.work) for s in group.sites) == 1
    first, second = group.run(), group.run(at_end=False, seed=5)
    for args, found, again in zip(given, first, second, strict=True):
        agree(found, OPS[op].run(*map(wide, args), **attrs), dtype)
        assert all(a.tobytes() == b.tobytes() for a, b in zip(found, again, strict=True))


@pytest.mark.parametrize("op", ["sgd_update", "adam_update"])
@pytest.mark.parametrize("skip", [0.0, 1.0])
def test_scale_clip_and_skip_are_read_in_the_kernel(op, skip):
    given, attrs = updates(op)
    if skip:
        given[2][1][0, 3] = np.nan
        given[4][1][77] = -np.inf
    group = Together([make_site(op, args, attrs) for args in given])
    last = group.sites[-1]
    assert optimize.multi_tensor(
        group.sites, group, inverse=factor(last, 1 / 1024), clip=factor(last, 0.25), skip=factor(last, skip)
    )
    for args, found in zip(given, group.run(), strict=True):
        if skip:
            state = [a for a in args[2:-1] if a is not None]
            for f, before in zip(found, [args[0], *state], strict=True):
                np.testing.assert_array_equal(f, before)
        else:
            args = [args[0], wide(args[1]) / 4096, *args[2:]]
            agree(found, OPS[op].run(*map(wide, args), **attrs), "float32")


@pytest.mark.parametrize("op", ["sgd_update", "adam_update"])
def test_results_may_lie_where_their_inputs_do(op):
    given, attrs = updates(op)
    group = Together([make_site(op, args, attrs) for args in given])
    assert optimize.multi_tensor(group.sites, group)
    ((_, refs),) = group.tables
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
    group = Together([make_site("sgd_update", args, attrs) for args in given])
    shifted = []
    for s, args in zip(group.sites, given, strict=True):
        array = np.concatenate([[0], args[1]]).astype(np.float32)
        ref = s._hold(packed(array.dtype, array.shape), array)
        shifted.append(TestRef(packed(array.dtype, args[1].shape), ref.buffer))
        object.__setattr__(shifted[-1].operand, "offset", 1)
    assert optimize.multi_tensor(group.sites, group, gradients=shifted)
    for args, found in zip(given, group.run(), strict=True):
        agree(found, OPS["sgd_update"].run(*map(wide, args), **attrs), "float32")
    other = make_site("sgd_update", given[0], {"decays": False, "nesterov": True})
    assert not optimize.multi_tensor([group.sites[0], other], group)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("largest", [0.5, 1e9])
def test_norm_of_all_gradients(dtype, largest):
    given, attrs = updates("sgd_update", dtype)
    site = make_site("sgd_update", given[0], attrs)
    group = Together([site])
    gradients = [site._hold(packed(a[1].dtype, a[1].shape), a[1]) for a in given]
    made = optimize.gradient_norm(site, group, gradients, inverse=factor(site, 0.125), max_norm=largest)
    results = []
    for at_end, seed in ((True, 0), (False, 9)):
        group.sites[0].outputs, group.sites[0].results = {}, []
        group.run(at_end=at_end, seed=seed)
        results.append([float(r.view()[0]) for r in (made.norm, made.clip, made.found)])
    assert results[0] == results[1]
    norm = np.sqrt(sum((wide(a[1]) ** 2).sum() for a in given)) / 8
    np.testing.assert_allclose(results[0][0], norm, rtol=1e-6)
    np.testing.assert_allclose(results[0][1], min(1, largest / (norm + 1e-6)), rtol=1e-6)
    assert results[0][2] == 0


@pytest.mark.parametrize(("bad", "found", "norm"), [
    (np.nan, 1, np.nan), (np.inf, 1, np.nan), (-np.inf, 1, np.nan), (3e38, 0, np.inf), (-0.0, 0, 0.0),
])  # fmt: skip
def test_gradients_that_are_not_finite_are_found(bad, found, norm):
    site = make_site("sgd_update", updates("sgd_update")[0][0], {"decays": True, "nesterov": True})
    group = Together([site])
    g = np.zeros(optimize.CHUNK + 3, np.float32)
    g[-1] = bad
    made = optimize.gradient_norm(site, group, [site._hold(packed(g.dtype, g.shape), g)], max_norm=1.0)
    site.results = []
    group.run()
    assert made.found.view()[0] == found
    np.testing.assert_array_equal(made.norm.view()[0], np.float32(norm))


def test_no_gradients_have_no_length():
    site = make_site("sgd_update", updates("sgd_update")[0][0], {"decays": True, "nesterov": True})
    group = Together([site])
    made = optimize.gradient_norm(site, group, [], max_norm=1.0)
    site.results = []
    group.run()
    assert [float(r.view()[0]) for r in (made.norm, made.clip, made.found)] == [0, 1, 0]


def test_texts_are_the_same_in_every_process():
    f = optimize.Formula(True, np.dtype(np.float32), 2, True, False, True)
    assert optimize.single(f).key == optimize.single(f).key
    assert "#include" not in optimize.several(f).text
    host.compile_kernels([optimize.several(f)])
