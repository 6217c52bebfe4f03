"""Finetuning: it learns, it keeps the best, it stops when told to or when the loss is no number, and it tidies up."""

import io

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file

import onnxgrad as og
from onnxgrad.importers.onnx.build import Layer
from onnxgrad.importers.onnx.save import to_bytes
from onnxgrad.nn import functional as F
from onnxgrad.ops.errors import InputError, NonFiniteLossError, SaveError, TrainingError
from onnxgrad.runtime.model.frozen_prefix import split
from onnxgrad.tools.finetune import FinetuneResult, evaluate, finetune
from onnxgrad.tools.finetune.examples import as_examples, divide
from onnxgrad.utils.data import DataLoader, IterableDataset, TensorDataset

from .small_models import bars, cnn, settings_of, state_of

DATA = bars(90)
FEW = (DATA[0][:24], DATA[1][:24])


def tune(model, data=DATA, **kwargs):
    given = {"epochs": 4, "batch_size": 16, "lr": 1e-2, "progress": False} | kwargs
    return finetune(model, data, **given)


def same(a, b):
    assert a.keys() == b.keys()
    return all(np.array_equal(a[n], b[n]) for n in a)


def test_the_plain_loop():
    model = cnn(Layer("softmax"))
    x, y = DATA
    model.train()
    opt = og.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(12):
        opt.zero_grad()
        loss = F.cross_entropy(model.logits(x), og.Tensor(y))
        loss.backward()
        opt.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", lambda ps: og.optim.SGD(ps, lr=0.05)])
def test_it_learns(optimizer):
    model = cnn()
    result = tune(model, optimizer=optimizer)
    assert isinstance(result, FinetuneResult)
    assert [r["epoch"] for r in result.history] == [0, 1, 2, 3, 4]
    assert result.history[-1]["loss"] < result.history[1]["loss"]
    assert result.best["val_accuracy"] > 0.9
    assert not result.stopped_early
    assert evaluate(model, bars(60, seed=1))["accuracy"] > 0.9


def test_it_is_reproducible():
    runs = []
    for _ in range(2):
        model = cnn(Layer("dropout"), Layer("gemm", 3))
        og.manual_seed(len(runs))
        drawn = og.rand(2).numpy()
        og.manual_seed(len(runs))
        tune(model, seed=7)
        np.testing.assert_array_equal(drawn, og.rand(2).numpy())
        runs.append(to_bytes(model))
    assert runs[0] == runs[1]


class Rows:
    def __len__(self):
        return len(DATA[1])

    def __getitem__(self, i):
        return DATA[0][i], DATA[1][i]


def in_batches():
    return [(DATA[0][i : i + 16], DATA[1][i : i + 16]) for i in range(0, 90, 16)]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(Rows()[i] for i in range(len(Rows())))

    def __len__(self):
        return len(Rows())


@pytest.mark.parametrize(
    "data",
    [
        (DATA[0], DATA[1].tolist()),
        (og.Tensor(DATA[0]), og.Tensor(DATA[1])),
        ({"input": DATA[0]}, DATA[1].astype(np.int32)),
        ((DATA[0],), DATA[1]),
        Rows(),
        in_batches(),
        iter(in_batches()),
        Stream(),
        DataLoader(Stream(), 16),
        DataLoader(Rows(), 16, shuffle=True, num_workers=2),
    ],
    ids=[
        "arrays",
        "tensors",
        "by name",
        "tuple",
        "data set",
        "batches",
        "iterator",
        "stream",
        "loaded stream",
        "workers",
    ],
)
def test_forms_of_data(data):
    model = cnn()
    assert tune(model, data).history[-1]["accuracy"] > 0.9


def test_a_data_loader():
    loader = DataLoader(TensorDataset(og.Tensor(DATA[0]), og.Tensor(DATA[1])), batch_size=16, shuffle=True)
    model = cnn()
    result = tune(model, loader, val_data=loader)
    assert result.best["val_accuracy"] > 0.9
    assert evaluate(model, loader)["examples"] == 90


def test_several_inputs_through_a_loader():
    rows = [((np.full(2, i, np.float32), np.ones(3, np.float32)), i) for i in range(5)]
    batches = list(as_examples(DataLoader(rows, 2)).batches(2))
    assert [[a.shape for a in x] for x, _ in batches] == [[(2, 2), (2, 3)]] * 2 + [[(1, 2), (1, 3)]]
    assert isinstance(batches[0][0], tuple) and batches[2][1].tolist() == [4]


def test_floats_are_regressed():
    x, y = DATA
    targets = np.eye(3, dtype=np.float64)[y]
    model = cnn()
    before = evaluate(model, (x, targets))
    assert "accuracy" not in before
    tune(model, (x, targets))
    assert evaluate(model, (x, targets))["loss"] < 0.3 * before["loss"]
    np.testing.assert_allclose(
        evaluate(model, (x, targets))["loss"], np.mean((model(x).detach().numpy() - targets) ** 2), rtol=1e-5
    )


@pytest.mark.parametrize("loss", ["mse", "l1", "smooth_l1", "bce_with_logits", lambda out, y: ((out - y) ** 2).mean()])
def test_named_losses(loss):
    x, y = FEW
    targets = np.eye(3, dtype=np.float32)[y]
    result = tune(cnn(), (x, targets), loss=loss, epochs=5)
    assert result.history[-1]["loss"] < result.history[1]["loss"]


def test_cross_entropy_is_taken_before_a_softmax():
    for data in (DATA, in_batches()):
        plain, behind = cnn(), cnn(Layer("softmax"))
        tune(plain, data), tune(behind, data)
        assert same(state_of(plain), state_of(behind))


def test_the_best_weights_are_kept_and_restored(tmp_path):
    model, seen = cnn(), {}
    path = tmp_path / "best.safetensors"

    def on_epoch(record):
        seen[record["epoch"]] = state_of(model)
        if record["epoch"] == 2:  # from here on it can only become worse
            for group in optimizer.param_groups:
                group["lr"] = 5.0

    def make(ps):
        nonlocal optimizer
        optimizer = og.optim.SGD(ps, lr=0.05)
        return optimizer

    optimizer = None
    result = tune(model, epochs=5, on_epoch=on_epoch, optimizer=make, checkpoint_path=path)
    losses = [r["val_loss"] for r in result.history]
    assert result.best_epoch == int(np.argmin(losses))
    assert same(seen[result.best_epoch], state_of(model))
    assert same(load_file(path), state_of(model))
    assert [p.name for p in tmp_path.iterdir()] == ["best.safetensors"]

    model = cnn()
    result = tune(model, epochs=5, on_epoch=on_epoch, optimizer=make, best_checkpoint=False)
    assert result.best_epoch == 5
    assert same(seen[5], state_of(model))


def test_patience():
    result = tune(cnn(), epochs=50, lr=0.1, patience=2)
    assert result.stopped_early
    assert len(result.history) - 1 == result.best_epoch + 2
    assert "2 epochs" in result.reason


def test_on_epoch_may_stop():
    result = tune(cnn(), epochs=50, on_epoch=lambda record: record["val_accuracy"] > 0.8)
    assert result.stopped_early
    assert result.history[-1]["val_accuracy"] > 0.8
    assert "on_epoch" in result.reason


def test_a_loss_that_is_no_number_stops_and_keeps_the_best():
    model, seen = cnn(), {}

    def loss(out, target):
        steps[0] += 1
        value = F.cross_entropy(out, target)
        return value * float("nan") if steps[0] > 13 else value

    steps = [0]
    before = settings_of(model)
    with pytest.raises(NonFiniteLossError, match="nan") as caught:
        tune(model, epochs=9, loss=loss, on_epoch=lambda r: seen.update({r["epoch"]: state_of(model)}))
    result = caught.value.result
    assert result.stopped_early and "nan" in result.reason
    assert result.best_epoch == len(result.history) - 1 == 1
    assert same(seen[1], state_of(model))
    assert settings_of(model) == before
    assert np.isfinite(model(DATA[0]).detach().numpy()).all()


def test_a_learning_rate_that_is_far_too_high():
    model = cnn()
    with pytest.raises(NonFiniteLossError, match="smaller lr"), np.errstate(all="ignore"):
        tune(model, optimizer="sgd", lr=1e18, epochs=9)
    assert all(np.isfinite(a).all() for a in state_of(model).values())


def test_infinite_examples():
    model, (x, y) = cnn(), DATA
    bad = x.copy()
    bad[5] = np.inf
    before = state_of(model)
    with pytest.raises(NonFiniteLossError), np.errstate(all="ignore"):
        tune(model, (bad, y))
    assert same(before, state_of(model))


def test_what_is_frozen_stays_and_is_free_again():
    model = cnn()
    model.freeze("conv1*")
    before, settings = state_of(model), settings_of(model)
    tune(model, freeze=["gemm1.bias"])
    after = state_of(model)
    changed = {n for n in before if not np.array_equal(before[n], after[n])}
    assert {"conv2.weight", "gemm1.weight"} <= changed
    assert not changed & {"conv1.weight", "conv1.bias", "gemm1.bias"}
    assert {n: t for n, (t, _) in settings[1].items()} == {n: t for n, (t, _) in settings_of(model)[1].items()}
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("train", "names"), [("head", ["gemm1"]), ("conv2", ["conv2"]), (["conv2.*", "gemm1"], ["conv2", "gemm1"])]
)
def test_training_a_part(train, names):
    model = cnn()
    before = state_of(model)
    tune(model, train=train)
    after = state_of(model)
    changed = {n for n in before if not np.array_equal(before[n], after[n])}
    assert changed == {f"{name}.{part}" for name in names for part in ("weight", "bias")}
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("mode", [True, False])
def test_the_mode_is_kept_and_batch_norm_follows(mode):
    model = cnn()
    model.train(mode)
    before = state_of(model)
    tune(model)
    assert model.training is mode
    after = state_of(model)
    assert not np.array_equal(before["batch_norm1.mean"], after["batch_norm1.mean"])
    evaluate(model, DATA)
    assert model.training is mode and same(after, state_of(model))


def test_a_frozen_prefix_is_the_model():
    model = cnn(Layer("softmax"))
    x = DATA[0][:5]
    model.freeze()
    model.unfreeze("gemm1")
    for logits in (True, False):
        parts = split(model, logits=logits)
        whole = model.logits(x) if logits else model(x)
        np.testing.assert_array_equal(whole.detach().numpy(), parts(*parts.features(x)).detach().numpy())
        assert [v.shape[1] for v in parts.boundary] == [96]
    model.unfreeze()
    assert split(model, logits=True) is None


def test_a_dropout_before_the_head_drops():
    from onnxgrad.importers.onnx.build import sequential
    from onnxgrad.importers.onnx.model import load_bytes

    layers = [Layer("conv", 4), Layer("relu"), Layer("flatten"), Layer("dropout"), Layer("gemm", 3)]
    model = load_bytes(sequential(layers, (2, 8, 8)))
    model.freeze("conv1*")
    parts = split(model, logits=True)
    features = parts.features(DATA[0][:5])
    model.train()
    a, b = (parts(*features).detach().numpy() for _ in range(2))
    assert not np.array_equal(a, b)
    model.eval()
    np.testing.assert_array_equal(parts(*features).detach().numpy(), model(DATA[0][:5]).detach().numpy())


def test_training_on_kept_features_is_training_on_examples():
    """`augment` that changes nothing turns the keeping off; there is no batch norm behind the frozen layers."""
    kept, fresh = cnn(), cnn()
    a = tune(kept, freeze=["conv1*", "batch_norm1*"])
    b = tune(fresh, freeze=["conv1*", "batch_norm1*"], augment=lambda x, rng: x)
    assert same(state_of(kept), state_of(fresh))
    assert [r["loss"] for r in a.history[1:]] == [r["loss"] for r in b.history[1:]]


def test_augment_sees_training_batches_only():
    seen = []

    def augment(x, rng):
        seen.append(len(x))
        return x[..., ::-1].copy() if rng.random() < 0 else x

    tune(cnn(), epochs=2, augment=augment)
    training, held = divide(as_examples(DATA), 0.1, 0)
    assert sum(seen) == 2 * len(training) and held is not None


def test_the_split_takes_a_part_of_each_class():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    training, held = divide(as_examples((np.arange(100.0), labels)), 0.2, seed=3)
    assert np.bincount(held.targets).tolist() == [12, 6, 2]
    assert not set(training.inputs[0]) & set(held.inputs[0])
    assert divide(as_examples((np.arange(9.0), labels[:9])), 0.2, 0)[1] is None


def test_a_cosine_schedule_ends_at_nothing():
    rates = [r["lr"] for r in tune(cnn(), schedule="cosine").history]
    assert rates[0] == 0.01 and rates == sorted(rates, reverse=True) and rates[-1] < 1e-3


def test_clipping():
    result = tune(cnn(), optimizer=lambda ps: og.optim.SGD(ps, lr=1.0), clip_norm=1e-4, epochs=1, best_checkpoint=False)
    assert abs(result.history[1]["val_loss"] - result.history[0]["val_loss"]) < 0.5
    a, b = cnn(), cnn()
    tune(a, optimizer="sgd", epochs=1), tune(b, optimizer="sgd", epochs=1, clip_norm=1e9)
    assert same(state_of(a), state_of(b))


def test_a_model_that_takes_one_example_at_a_time():
    from .test_explain import fixed_at_one

    model = fixed_at_one()
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 40)
    x = (rng.normal(size=(40, 2, 4, 4)) + y[:, None, None, None]).astype(np.float32)
    result = tune(model, (x, y), epochs=8)
    assert result.history[-1]["loss"] < 0.7 * result.history[1]["loss"]
    assert evaluate(model, (x, y))["examples"] == 40


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m: tune(m, (DATA[0], DATA[1][:-1])), "differ in length"),
        (lambda m: tune(m, (DATA[0][:0], DATA[1][:0])), "no examples"),
        (lambda m: tune(m, []), "no examples"),
        (lambda m: tune(m, DATA[0]), "wanted"),
        (lambda m: tune(m, (DATA[0], DATA[1] + 1)), r"target 3.*3 classes.*replace_head\(4\)"),
        (lambda m: tune(m, (DATA[0], DATA[1] - 1)), "target -1"),
        (lambda m: tune(m, (DATA[0], np.zeros((90, 2)))), "the targets"),
        (lambda m: tune(m, (DATA[0][:, :1], DATA[1])), "'input'"),
        (lambda m: tune(m, (DATA[0], np.array(["a"] * 90))), "classes"),
        (lambda m: tune(m, loss="hinge"), "cross_entropy"),
        (lambda m: tune(m, loss=lambda out, y: out), "wanted one number"),
        (lambda m: tune(m, optimizer="lion"), "'adamw'"),
        (lambda m: tune(m, schedule="linear"), "'cosine'"),
        (lambda m: tune(m, epochs=0), "epochs"),
        (lambda m: tune(m, lr=float("nan")), "lr"),
        (lambda m: tune(m, val_split=1), "val_split"),
        (lambda m: tune(m, train="nothing*"), "nothing"),
    ],
)
def test_what_errors_say(call, said):
    model = cnn()
    before, settings = state_of(model), settings_of(model)
    with pytest.raises(InputError, match=said):
        call(model)
    assert same(before, state_of(model)) and settings_of(model) == settings


def test_nothing_to_train():
    model = cnn()
    model.freeze()
    with pytest.raises(TrainingError, match="no parameter trains"):
        tune(model)


def test_an_error_in_the_middle_leaves_the_best_weights():
    model, seen = cnn(), {}

    def on_epoch(record):
        seen[record["epoch"]] = state_of(model)
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(model, on_epoch=on_epoch)
    assert same(seen[2], state_of(model)) and not model.training


def test_a_checkpoint_that_cannot_be_written(tmp_path):
    with pytest.raises(SaveError, match="nowhere"):
        tune(cnn(), checkpoint_path=tmp_path / "nowhere" / "best.safetensors")


def test_progress_on_a_terminal_and_elsewhere():
    for terminal in (True, False):
        text = io.StringIO()
        tune(cnn(), epochs=2, progress=Console(file=text, force_terminal=terminal, width=100))
        assert "2/2" in text.getvalue() and "best" in text.getvalue()
        assert ("epoch 1/2" in text.getvalue()) == terminal


def test_it_is_quiet_where_nobody_looks(capfd):
    tune(cnn(), epochs=1, progress=True)
    assert capfd.readouterr() == ("", "")


def test_a_result_prints_as_a_table():
    result = tune(cnn(), epochs=2)
    lines = str(result).splitlines()
    assert len(lines) == 5 and "val_accuracy" in lines[0] and "*" in lines[1 + result.best_epoch]


def test_a_single_number_is_an_example():
    """Some models answer with a number a run, not with one row an example."""
    from onnx import helper

    from .small_models import from_nodes

    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="dot")
    model = from_nodes([node], [("x", [3])], [("y", [])], {"w": np.zeros(3)})
    rng = np.random.default_rng(0)
    batches = [(x, x.sum()) for x in rng.normal(size=(8, 3)).astype(np.float32)]
    history = tune(model, batches, lr=0.1, epochs=20).history
    assert history[-1]["loss"] < 0.1 * history[1]["loss"]


def test_a_half_precision_model_trains_in_single_precision():
    from onnxgrad.importers.onnx.model import load_bytes

    from .small_models import half

    model = half(cnn())
    for head in (3, 4):
        if head == 4:
            model.replace_head(4, seed=0)
        result = tune(model, train="head" if head == 4 else "all")
        assert all(t.dtype == np.float32 for t in model.parameters())
        assert result.best["val_accuracy"] > 0.8
    masters = state_of(model)
    assert any(np.any(a != a.astype(np.float16)) for a in masters.values())
    model.replace_head(4, seed=1)
    kept = [n for n in masters if not n.startswith("gemm1")]
    for name in kept:
        np.testing.assert_array_equal(masters[name], state_of(model)[name])
    again = load_bytes(to_bytes(model))
    x = DATA[0][:3].astype(np.float16)
    np.testing.assert_allclose(model.run({"input": x})[0], again.run({"input": x})[0], atol=0.02)
