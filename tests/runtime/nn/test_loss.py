"""Losses against PyTorch: settings, reductions, gradients of inputs and targets; closed forms; what is refused."""

import math

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn
from onnxgrad.autograd import check_grads
from onnxgrad.errors import AutogradError, DTypeError, OpError, ShapeError, TraceError
from onnxgrad.nn import functional as F

from .parity import apart, both

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape)


def unit(*shape):
    return RNG.uniform(0.05, 0.95, shape)


def signs(*shape):
    return np.where(RNG.random(shape) < 0.5, -1, 1)


def simplex(*shape, axis=1):
    p = unit(*shape)
    return p / p.sum(axis, keepdims=True)


def labels(classes, *shape):
    return RNG.integers(0, classes, shape)


X, Y, IMAGES = normal(4, 5), normal(4, 5), normal(2, 3, 4, 2)
LABELS, MAP = labels(5, 4), labels(3, 2, 4, 2)
WEIGHT5, WEIGHT3 = [0.5, 1.0, 2.0, 0.1, 1.5], [1.0, 0.3, 2.0]
HOLES = np.array([1, -100, 3, -100])
LOG_P, P = np.log(simplex(4, 5)), simplex(4, 5)

# name, arguments, inputs; `weight` and `pos_weight` are made Tensors
SETTINGS = [
    ("CrossEntropyLoss", {}, (X, LABELS)),
    ("CrossEntropyLoss", {"weight": WEIGHT5, "ignore_index": 2}, (X, LABELS)),
    ("CrossEntropyLoss", {"label_smoothing": 0.2}, (X, LABELS)),
    ("CrossEntropyLoss", {"label_smoothing": 0.2, "weight": WEIGHT5}, (X, HOLES)),
    ("CrossEntropyLoss", {}, (X, HOLES)),
    ("CrossEntropyLoss", {}, (X[0], np.array(LABELS[0]))),
    ("CrossEntropyLoss", {"weight": WEIGHT3, "ignore_index": 1}, (IMAGES, MAP)),
    ("CrossEntropyLoss", {"weight": WEIGHT3, "ignore_index": 1, "label_smoothing": 0.1}, (IMAGES, MAP)),
    ("CrossEntropyLoss", {}, (X, P)),
    ("CrossEntropyLoss", {"weight": WEIGHT5, "label_smoothing": 0.3}, (X, P)),
    ("CrossEntropyLoss", {"weight": WEIGHT5}, (X[0], P[0])),
    ("CrossEntropyLoss", {"weight": WEIGHT3}, (IMAGES, simplex(2, 3, 4, 2))),
    ("NLLLoss", {}, (LOG_P, LABELS)),
    ("NLLLoss", {"weight": WEIGHT5, "ignore_index": 2}, (LOG_P, LABELS)),
    ("NLLLoss", {}, (LOG_P[0], np.array(LABELS[0]))),
    ("NLLLoss", {"weight": WEIGHT3}, (IMAGES, MAP)),
    ("NLLLoss", {}, (normal(2, 3, 2), labels(3, 2, 2))),
    ("MSELoss", {}, (X, Y)),
    ("MSELoss", {}, (np.array(X[0, 0]), np.array(Y[0, 0]))),
    ("L1Loss", {}, (X, Y)),
    ("SmoothL1Loss", {}, (X, Y)),
    ("SmoothL1Loss", {"beta": 0.3}, (X, Y)),
    ("SmoothL1Loss", {"beta": 0}, (X, Y)),
    ("HuberLoss", {}, (X, Y)),
    ("HuberLoss", {"delta": 0.4}, (X, Y)),
    ("BCELoss", {}, (unit(4, 5), unit(4, 5))),
    ("BCELoss", {"weight": WEIGHT5}, (unit(4, 5), unit(4, 5))),
    ("BCEWithLogitsLoss", {}, (X * 20, unit(4, 5))),
    ("BCEWithLogitsLoss", {"weight": WEIGHT5, "pos_weight": WEIGHT5}, (X, unit(4, 5))),
    ("KLDivLoss", {}, (LOG_P, P)),
    ("KLDivLoss", {"log_target": True}, (LOG_P, np.log(P))),
    ("PoissonNLLLoss", {}, (X, unit(4, 5) * 4)),
    ("PoissonNLLLoss", {"full": True}, (X, unit(4, 5) * 4)),
    ("PoissonNLLLoss", {"log_input": False, "full": True, "eps": 1e-4}, (unit(4, 5), unit(4, 5) * 4)),
    ("GaussianNLLLoss", {}, (X, Y, unit(4, 5))),
    ("GaussianNLLLoss", {"full": True, "eps": 0.5}, (X, Y, unit(4, 1))),
    ("GaussianNLLLoss", {}, (X, Y, unit(4))),
    ("GaussianNLLLoss", {}, (X, Y, 0.3)),
    ("HingeEmbeddingLoss", {}, (X, signs(4, 5))),
    ("HingeEmbeddingLoss", {"margin": 0.2}, (X, signs(4, 5))),
    ("CosineEmbeddingLoss", {}, (X, Y, signs(4))),
    ("CosineEmbeddingLoss", {"margin": 0.3}, (X, Y, signs(4))),
    ("CosineEmbeddingLoss", {"margin": -0.5}, (X[0], Y[0], np.array(-1))),
    ("MarginRankingLoss", {}, (X, Y, signs(4, 5))),
    ("MarginRankingLoss", {"margin": 0.7}, (X, Y, signs(4, 5))),
    ("SoftMarginLoss", {}, (X, signs(4, 5))),
    ("MultiMarginLoss", {}, (X, LABELS)),
    ("MultiMarginLoss", {"p": 2, "margin": 0.6, "weight": WEIGHT5}, (X, LABELS)),
    ("MultiMarginLoss", {}, (X[0], np.array(LABELS[0]))),
    ("MultiLabelMarginLoss", {}, (X, np.array([[1, 3, -1, 2, 0], [-1] * 5, [0, 1, 2, 3, 4], [4, 4, 2, -1, 4]]))),
    ("MultiLabelMarginLoss", {}, (X[0], np.array([1, 3, -1, 2, 0]))),
    ("MultiLabelSoftMarginLoss", {}, (X, (unit(4, 5) > 0.5).astype(np.int64))),
    ("MultiLabelSoftMarginLoss", {"weight": WEIGHT5}, (X, unit(4, 5))),
    ("TripletMarginLoss", {}, (X, Y, normal(4, 5))),
    ("TripletMarginLoss", {"margin": 3.0, "p": 1, "swap": True, "eps": 1e-3}, (X, Y, normal(4, 5))),
    ("TripletMarginLoss", {"margin": 2.0, "p": 3.0}, (X[0], Y[0], normal(5))),
    ("TripletMarginWithDistanceLoss", {"margin": 2.0, "swap": True}, (X, Y, normal(4, 5))),
    (
        "TripletMarginWithDistanceLoss",
        {"distance_function": lambda a, b: (a - b).abs().sum(-1), "margin": 2.0},
        (X, Y, normal(4, 5)),
    ),
]


def made(name, settings, dtype, reduction):
    def make(lib):
        tensors = {
            k: lib.tensor(v, dtype=getattr(lib, dtype)) if k.endswith("weight") else v for k, v in settings.items()
        }
        return getattr(lib.nn, name)(**tensors, reduction=reduction)

    return make


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("name", "settings", "inputs"), SETTINGS)
def test_it_is_pytorchs(compared, name, settings, inputs, reduction, dtype):
    both(compared, name, made(name, settings, dtype, reduction), inputs, dtype)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("log_target", [False, True])
def test_a_divergence_over_the_batch_is_pytorchs(compared, log_target, dtype):
    target = np.log(P) if log_target else P
    both(compared, "KLDivLoss", lambda lib: lib.nn.KLDivLoss(reduction="batchmean", log_target=log_target),
         (LOG_P, target), dtype)  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "huber_loss"])
def test_a_weight_an_element_is_pytorchs(compared, name, reduction, dtype):
    def make(lib):
        weight = lib.tensor(unit(4, 5) * 0 + np.arange(1, 6), dtype=getattr(lib, dtype))
        return lambda x, y: getattr(lib.nn.functional, name)(x, y, weight=weight, reduction=reduction)

    both(compared, name, make, (X, Y), dtype)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_certain_probabilities_are_pytorchs(compared, dtype):
    inputs = (np.array([0.0, 1.0, 0.0, 1.0, 0.25]), np.array([0.0, 1.0, 1.0, 0.0, 0.5]))
    both(compared, "BCELoss", lambda lib: lib.nn.BCELoss(reduction="none"), inputs, dtype)


FRAMES, BATCH, CLASSES = 12, 3, 5
LOG_PROBS = np.log(simplex(FRAMES, BATCH, CLASSES, axis=2))
TARGETS, LENGTHS = np.array([[1, 1, 2, 3], [4, 2, 0, 0], [3, 3, 3, 0]]), (4, 2, 3)
SPOKEN = (12, 9, 5)
CTC = {
    "padded": ((LOG_PROBS, TARGETS, SPOKEN, LENGTHS), {}),
    "joined": ((LOG_PROBS, np.array([1, 1, 2, 3, 4, 2, 3, 3, 3]), np.array(SPOKEN), np.array(LENGTHS)), {}),
    "last blank": ((LOG_PROBS, np.array([[0, 1], [2, 2], [3, 0]]), SPOKEN, (2, 2, 1)), {"blank": 4}),
    "nothing said": ((LOG_PROBS, TARGETS, SPOKEN, (0, 2, 1)), {}),
    "too few frames": ((LOG_PROBS, TARGETS, (4, 9, 5), LENGTHS), {"zero_infinity": True}),
    "too few frames, infinite": ((LOG_PROBS, TARGETS, (4, 9, 5), LENGTHS), {}),
    "one": ((LOG_PROBS[:, 0], TARGETS[0], np.array(12), np.array(4)), {}),
    "one of a tuple": ((LOG_PROBS[:, 0], TARGETS[0, :3], (11,), (3,)), {}),
}


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", CTC)
def test_ctc_is_pytorchs(compared, name, reduction, dtype):
    inputs, settings = CTC[name]
    both(compared, "CTCLoss", lambda lib: lib.nn.CTCLoss(**settings, reduction=reduction), inputs, dtype)


LONG = (normal(100, 4, 20), labels(19, 4, 30) + 1, (100, 90, 100, 80), (30, 25, 10, 30))


@pytest.mark.oracle
def test_ctc_of_long_sequences_is_pytorchs(compared):
    # PyTorch's own error in float32 is 1e-4 here
    both(compared, "CTCLoss", lambda lib: lib.nn.CTCLoss(), LONG, "float64",
         call=lambda lib, f, x, *rest: f(x.log_softmax(2), *rest))  # fmt: skip


def test_ctc_of_long_sequences_is_exact_in_float32_too():
    def gradient(dtype):
        x = og.tensor(LONG[0], dtype=dtype, requires_grad=True)
        F.ctc_loss(x.log_softmax(2), og.tensor(LONG[1]), *LONG[2:]).backward()
        return x.grad.numpy().astype(np.float64)

    assert apart(gradient(og.float32), gradient(og.float64)) < 1e-6


def test_ctc_of_one_label_is_the_sum_over_its_places():
    p = np.array([[0.2, 0.8], [0.6, 0.4]])  # blank, label
    loss = F.ctc_loss(og.tensor(np.log(p)), og.tensor([1]), og.tensor(2), og.tensor(1), reduction="sum")
    assert loss.item() == pytest.approx(-math.log(0.8 * 0.6 + 0.2 * 0.4 + 0.8 * 0.4))


def test_ctc_gradients_behind_a_softmax_are_differences():
    def loss(x):
        return F.ctc_loss(x.log_softmax(2), og.tensor([[1, 1], [2, 3]]), (5, 4), (2, 2), reduction="sum")

    check_grads(loss, (normal(5, 2, 4),), order=1)


def test_ctc_has_first_derivatives_only():
    x = og.tensor(LOG_PROBS, requires_grad=True)
    loss = F.ctc_loss(x, og.tensor(TARGETS), SPOKEN, LENGTHS)
    with pytest.raises(AutogradError, match="ctc_loss has first derivatives only"):
        loss.backward(create_graph=True)


# PyTorch's gradient does not see that variances are kept above eps
DIFFERENTIABLE = [s for s in SETTINGS if s[1] != {"full": True, "eps": 0.5}]


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize(("name", "settings", "inputs"), DIFFERENTIABLE)
def test_gradients_are_differences(name, settings, inputs):
    loss = made(name, settings, "float64", "mean")(og)
    check_grads(loss, tuple(np.asarray(x) if isinstance(x, np.ndarray) else x for x in inputs), order=2)


def mean(f, *args):
    return math.fsum(f(*map(float, a)) for a in zip(*(np.ravel(a) for a in args), strict=True)) / args[0].size


FORMULAS = [
    ("MSELoss", {}, lambda x, t: (x - t) ** 2, (X, Y)),
    ("L1Loss", {}, lambda x, t: abs(x - t), (X, Y)),
    ("HuberLoss", {}, lambda x, t: (x - t) ** 2 / 2 if abs(x - t) < 1 else abs(x - t) - 0.5, (X, Y)),
    ("BCEWithLogitsLoss", {}, lambda x, t: math.log1p(math.exp(x)) - t * x, (X, P)),
    ("BCELoss", {}, lambda x, t: -t * math.log(x) - (1 - t) * math.log(1 - x), (P, P[::-1])),
    ("SoftMarginLoss", {}, lambda x, t: math.log1p(math.exp(-t * x)), (X, signs(4, 5).astype(float))),
    ("PoissonNLLLoss", {}, lambda x, t: math.exp(x) - t * x, (X, P * 3)),
    ("GaussianNLLLoss", {}, lambda x, t, v: (math.log(v) + (x - t) ** 2 / v) / 2, (X, Y, P)),
    ("MarginRankingLoss", {"margin": 0.5}, lambda a, b, t: max(0.0, -t * (a - b) + 0.5), (X, Y, np.sign(X))),
]


@pytest.mark.parametrize(("name", "settings", "formula", "inputs"), FORMULAS)
def test_it_is_its_formula(name, settings, formula, inputs):
    found = getattr(nn, name)(**settings)(*(og.tensor(a, dtype=og.float64) for a in inputs))
    assert found.item() == pytest.approx(mean(formula, *inputs), rel=1e-12)


def test_cross_entropy_is_its_formula():
    found = F.cross_entropy(og.tensor(X, dtype=og.float64), og.tensor(LABELS))
    logp = X - np.log(np.exp(X).sum(1, keepdims=True))
    assert found.item() == pytest.approx(-logp[range(4), LABELS].mean(), rel=1e-12)
    assert math.isnan(F.cross_entropy(og.tensor(X), og.tensor([-100] * 4)).item())


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize(("name", "settings", "inputs"), SETTINGS)
def test_it_compiles(name, settings, inputs):
    loss = made(name, settings, "float32", "mean")(og)
    xs = [
        og.tensor(x.astype(np.float32) if x.dtype.kind == "f" else x) if isinstance(x, np.ndarray) else x
        for x in inputs
    ]
    assert og.compile(loss)(*xs).item() == pytest.approx(loss(*xs).item(), rel=1e-5)


def test_ctc_compiles_with_padded_targets():
    loss = nn.CTCLoss()
    x, targets = og.tensor(LOG_PROBS), og.tensor(TARGETS)
    frames, lengths = og.tensor(SPOKEN), og.tensor(LENGTHS)
    found = og.compile(loss)(x, targets, frames, lengths)
    assert found.item() == pytest.approx(loss(x, targets, frames, lengths).item(), rel=1e-6)
    with pytest.raises(TraceError, match="pass them padded"):
        og.compile(loss)(x, targets.reshape(-1)[:9], frames, lengths)


def zeros(*shape):
    return og.zeros(*shape)


def ints(*values):
    return og.tensor(list(values))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.cross_entropy(zeros(3, 2), ints(0, 0, 0, 0)), ShapeError, r"input batch_size \(3\) to match"),
        (lambda: F.cross_entropy(zeros(1, 4), ints(5)), IndexError, "Target 5 is out of bounds."),
        (lambda: F.cross_entropy(zeros(2, 4), ints(-1, -100)), IndexError, "Target -1 is out of bounds."),
        (lambda: F.cross_entropy(zeros(2, 4), zeros(2)), DTypeError, "to be Long or Byte, but got Float"),
        (lambda: F.cross_entropy(zeros(2, 2), ints([1, 0], [0, 1])), DTypeError, "class probabilities, got Long"),
        (lambda: F.cross_entropy(zeros(2, 4), ints([1], [0])), ShapeError, "multi-target not supported"),
        (lambda: F.cross_entropy(zeros(2, 4, 3), ints([1], [0])), ShapeError, r"target size \[2, 3\], got \[2, 1\]"),
        (lambda: F.cross_entropy(zeros(2, 4), zeros(2, 4), ignore_index=1), OpError, "ignore_index is not supported"),
        (lambda: F.cross_entropy(zeros(2, 4), ints(1, 1), zeros(3)), ShapeError, r"all 4 classes .* shape: \[3\]"),
        (lambda: F.cross_entropy(zeros(1, 2), ints(0), label_smoothing=2), OpError, "label_smoothing must be between"),
        (lambda: F.mse_loss(zeros(2), zeros(2), reduction="avg"), OpError, "avg is not a valid value for reduction"),
        (lambda: F.cross_entropy(zeros(1, 2), ints(0), reduction="avg"), OpError, "avg is not a valid value"),
        (lambda: F.mse_loss(zeros(2), zeros(2), weight=zeros(3)), ShapeError, "Weights and input must have the same"),
        (lambda: F.smooth_l1_loss(zeros(2), zeros(2), beta=-1), OpError, "does not support negative values for beta"),
        (lambda: F.huber_loss(zeros(2), zeros(2), delta=0), OpError, "does not support non-positive values for delta"),
        (lambda: nn.HuberLoss(delta="1"), TypeError, "delta must be a float or int"),
        (lambda: F.binary_cross_entropy(zeros(2), zeros(3)), ShapeError, "Please ensure they have the same size"),
        (lambda: F.binary_cross_entropy(zeros(2) + 2, zeros(2)), OpError, "should be between 0 and 1"),
        (lambda: F.binary_cross_entropy_with_logits(zeros(2), zeros(3)), ShapeError, "must be the same as input size"),
        (lambda: F.gaussian_nll_loss(zeros(2), zeros(2), zeros(2) - 1), OpError, "var has negative entry/entries"),
        (lambda: F.gaussian_nll_loss(zeros(2, 3), zeros(2, 3), zeros(4)), ShapeError, "var is of incorrect size"),
        (lambda: F.margin_ranking_loss(zeros(2), zeros(2), zeros(2, 1)), ShapeError, "should have same dimension"),
        (lambda: F.cosine_embedding_loss(zeros(2), zeros(2), zeros(2)), ShapeError, "1D target tensor expects 2D"),
        (lambda: F.multi_margin_loss(zeros(2, 3), ints(0, 3)), OpError, "target out of range"),
        (lambda: F.multi_margin_loss(zeros(2, 3), ints(0)), ShapeError, "target tensor should be 1-D with size"),
        (lambda: nn.MultiMarginLoss(p=3), OpError, "only p == 1 and p == 2 supported"),
        (lambda: F.multilabel_margin_loss(zeros(3), ints(0, 3, 1)), OpError, "is out of range"),
        (lambda: F.multilabel_margin_loss(zeros(3), ints(0)), ShapeError, "inconsistent target size"),
        (lambda: F.triplet_margin_loss(zeros(2), zeros(2, 2), zeros(2)), ShapeError, "same number of dimensions"),
        (lambda: nn.TripletMarginLoss(margin=0), OpError, "expected margin to be greater than 0, got 0 instead"),
        (lambda: F.ctc_loss(zeros(3, 1, 2), ints([1]), (4,), (1,)), ShapeError, "value at most 3, but got value 4"),
        (lambda: F.ctc_loss(zeros(3, 1, 2), ints([1]), (3, 3), (1,)), ShapeError, "input_lengths must be of size"),
        (lambda: F.ctc_loss(zeros(3, 1, 2), ints([1]), (3,), (1,), blank=2), OpError, "blank must be in label range"),
        (lambda: F.ctc_loss(zeros(3, 1, 2), ints(1, 1), (3,), (1,)), ShapeError, "at dimension 0, but got size 2"),
        (lambda: F.ctc_loss(zeros(3, 1, 2), ints([5]), (3,), (1,)), OpError, "a target is no class"),
        (lambda: F.ctc_loss(zeros(3, 1, 2), ints([1]), (3,), (2,)), OpError, "targets are 1 long"),
    ],
)  # fmt: skip
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])
def test_sizes_that_differ_are_warned_of(name):
    with pytest.warns(UserWarning, match="Using a target size .* that is different to the input size"):
        getattr(F, name)(zeros(2, 3), zeros(3))


def test_the_mean_of_a_divergence_is_warned_of():
    with pytest.warns(UserWarning, match="'batchmean' divides only by the batch size"):
        nn.KLDivLoss()(zeros(2, 3), zeros(2, 3) + 1 / 3)


@pytest.mark.parametrize("name", sorted({name for name, _, _ in SETTINGS} | {"CTCLoss"}))
def test_it_is_printed_as_pytorchs(name):
    wanted = f"{name}()"
    if name == "TripletMarginWithDistanceLoss":
        wanted = f"{name}(\n  (distance_function): PairwiseDistance()\n)"
    assert repr(getattr(nn, name)()) == wanted
