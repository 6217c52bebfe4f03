"""`onnxgrad bench`: figures, JSON, tables, inputs, peers and errors. No test looks at how long things took."""

import importlib.util
import json
import math
import re
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxgrad.errors import InputError, MissingExtraError, OnnxGradError
from onnxgrad.importers.onnx.model import load
from onnxgrad.tools import cli
from onnxgrad.tools.bench import Settings, bench, engines, measure, peak, timing
from onnxgrad.tools.bench.feeds import batch_of, make_feeds
from onnxgrad.tools.bench.fresh import fresh

SHORT = ["--blocks", "2", "--duration-s", "0.005", "--pause-s", "0", "--warmup", "1", "--threads", "1"]
QUICK = Settings(warmup=1, blocks=2, duration_s=0.005, pause_s=0, fresh_times=0, peak=False)


def save(path, nodes, inputs, outputs, weights=()):
    infos = [
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in values]
        for values in (inputs, outputs)
    ]
    tensors = [numpy_helper.from_array(a, n) for n, a in dict(weights).items()]
    graph = helper.make_graph(nodes, "g", *infos, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return str(path)


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    """`y = x W` of a batch."""
    x, y = (("x", TensorProto.FLOAT, ["batch", 3]), ("y", TensorProto.FLOAT, ["batch", 2]))
    W = np.arange(6, dtype=np.float32).reshape(3, 2)
    path = tmp_path_factory.mktemp("bench") / "linear.onnx"
    return save(path, [helper.make_node("MatMul", ["x", "W"], ["y"])], [x], [y], {"W": W})


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Two inputs of (batch, length), and one of a fixed size."""
    inputs = [
        ("ids", TensorProto.INT64, ["batch", "length"]),
        ("mask", TensorProto.INT64, ["batch", "length"]),
        ("one", TensorProto.INT64, [1]),
    ]
    nodes = [helper.make_node("Mul", ["ids", "mask"], ["z"]), helper.make_node("Add", ["z", "one"], ["y"])]
    outputs = [("y", TensorProto.INT64, ["batch", "length"])]
    return save(tmp_path_factory.mktemp("bench") / "words.onnx", nodes, inputs, outputs)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    x, y = (("x", TensorProto.FLOAT, [2, 3]), ("y", TensorProto.FLOAT, [2, 3]))
    return save(tmp_path_factory.mktemp("bench") / "fixed.onnx", [helper.make_node("Relu", ["x"], ["y"])], [x], [y])


@pytest.fixture
def no_processes(monkeypatch):
    """Figures of fresh processes without the processes."""
    figures = {"load_s": 0.25, "first_result_s": 0.5, "resident_bytes": 1_500_000, "peak_bytes": None}
    monkeypatch.setattr(measure, "fresh", lambda *args, **kwargs: figures)


@pytest.fixture
def call(capsys):
    def run(*argv):
        code = cli.main(["bench", *map(str, argv)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_json_has_what_the_module_says(call, linear, tmp_path):
    code, out, err = call(linear, "--batch", 4, *SHORT, "--json", "-")
    figures = json.loads(out)
    assert (code, err) == (0, "")
    assert set(figures) == {
        *("model", "batch", "threads", "inputs", "machine", "settings", "engines", "ratios", "flops", "profile"),
        *("no_profile", "failures"),
    }
    assert all(f"`{name}" in measure.__doc__ for name in figures)
    assert figures["batch"] == 4 and figures["threads"] == 1
    assert figures["inputs"] == {"x": {"type": "float32", "shape": [4, 3]}}
    assert figures["settings"] == {"warmup": 1, "blocks": 2, "duration_s": 0.005, "pause_s": 0}
    assert figures["ratios"] == {} and figures["failures"] == {}
    (ours,) = figures["engines"].values()
    assert set(ours) == {
        *("version", "latency_s", "throughput_per_s", "flops_per_s", "share_of_peak"),
        *("load_s", "first_result_s", "resident_bytes", "peak_bytes"),
    }
    latency = ours["latency_s"]
    assert 0 < latency["p10"] <= latency["median"] <= latency["p90"] and latency["calls"] >= 6
    assert ours["throughput_per_s"] == pytest.approx(4 / latency["median"])
    assert 0 < ours["load_s"] < ours["first_result_s"]
    if sys.platform == "linux":
        assert ours["resident_bytes"] >= 0


def test_tables_and_a_file(call, linear, tmp_path, no_processes):
    code, out, _ = call(linear, *SHORT, "--profile", "--json", tmp_path / "figures.json")
    assert code == 0
    for text in ("float32(1, 3)", "1 thread", "latency, median"):
        assert text in out
    for label, figure in (("load to first result", "500.00 ms"), ("memory added, MB", "1.5"), ("peak memory", "-")):
        assert re.search(rf"^{label}.* {re.escape(figure)}$", out, re.MULTILINE)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (f"no profile: {figures['no_profile']}" in out) == (figures["profile"] is None)
    assert figures["inputs"]["x"]["shape"] == [1, 3]


def test_an_input_from_a_file(call, linear, tmp_path, no_processes):
    np.save(tmp_path / "x.npy", np.ones((5, 3), np.float32))
    code, out, _ = call(linear, "--input", tmp_path / "x.npy", *SHORT, "--json", "-")
    assert code == 0 and json.loads(out)["batch"] == 5


@pytest.mark.parametrize("peer", engines.PEERS)
def test_a_peer_beside_ours(linear, peer):
    pytest.importorskip(peer)
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    figures = bench(linear, {"x": x}, threads=1, peers=[peer, peer], settings=QUICK)
    assert list(figures["engines"]) == ["onnxgrad", peer] and figures["failures"] == {}
    ratio = figures["ratios"][peer]
    assert len(ratio["blocks"]) == 2 and 0 < ratio["min"] <= ratio["median"] <= ratio["max"]
    assert figures["engines"][peer]["difference"] < 1e-5


def test_a_peer_that_cannot_run_it_is_told_and_the_rest_measured(call, linear, monkeypatch, no_processes):
    pytest.importorskip("onnxruntime")

    def refuse(path, threads):
        raise RuntimeError("no\nsuch op")

    monkeypatch.setattr(engines, "_onnxruntime", refuse)
    code, out, err = call(linear, *SHORT, "--peer", "onnxruntime", "--json", "-")
    figures = json.loads(out)
    assert code == 1 and list(figures["engines"]) == ["onnxgrad"]
    assert figures["failures"] == {"onnxruntime": "RuntimeError: no such op"} and "no such op" in err


def test_peers_that_cannot_be(monkeypatch):
    with pytest.raises(InputError, match=r"torch|PyTorch.*python -m benchmarks"):
        engines.check_peers(["torch"])
    with pytest.raises(InputError, match="onnxruntime, openvino"):
        engines.check_peers(["tensorflow"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install openvino"):
        engines.check_peers(["openvino"])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--peer", "torch"], ["PyTorch", "python -m benchmarks"]),
        (["--shape", "z=1x3"], ["--shape z", "['x']"]),
        (["--shape", "x=2x4"], ["--shape x=2x4", "(batch, 3)"]),
        (["--json", "nowhere/figures.json"], ["nowhere", "does not exist"]),
        (["--input", "x=missing.npy"], ["missing.npy"]),
        (["--quick"], ["--suite", "--blocks"]),
        (["--suite"], ["its own models"]),
        (["--device", "gpu"], ["'gpu'", "cuda:N"]),
        (["--device", "cuda:1", "--peer", "openvino"], ["openvino", "cuda:1"]),
    ],
)
def test_errors_are_one_line_that_says_what_to_do(call, linear, argv, words):
    code, _, err = call(linear, *argv)
    assert code == 1 and err.startswith("onnxgrad: error: ") and err.count("\n") == 1
    assert all(word in err for word in words), err


@pytest.mark.parametrize(
    "argv",
    [
        ["--batch", "0"],
        ["--threads", "x"],
        ["--shape", "1x3"],
        ["--shape", "x=1,3"],
        ["--duration-s", "-1"],
        ["--peer", "other"],
    ],
)
def test_usage_errors_exit_with_2(argv, linear, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["bench", linear, *argv])
    assert stop.value.code == 2
    assert "usage: onnxgrad bench" in capsys.readouterr().err


def test_neither_a_model_nor_the_suite(call):
    code, _, err = call()
    assert code == 1 and "which model" in err and "--suite" in err


def test_random_feeds(words):
    inputs = load(words).inputs
    feeds = make_feeds(inputs, shapes={"ids": (2, 7)})
    assert {n: a.shape for n, a in feeds.items()} == {"ids": (2, 7), "mask": (2, 7), "one": (1,)}
    assert list(feeds) == ["ids", "mask", "one"] and feeds["ids"].dtype == np.int64
    assert batch_of(feeds) == 2
    with pytest.raises(InputError, match=r"--shape ids=3xN"):
        make_feeds(inputs, batch=3)


def test_a_file_s_shape_holds_for_the_other_inputs(words, tmp_path):
    np.save(tmp_path / "ids.npy", np.ones((2, 5), np.int64))
    feeds = make_feeds(load(words).inputs, [f"ids={tmp_path / 'ids.npy'}", "mask=random"])
    assert feeds["mask"].shape == (2, 5)
    with pytest.raises(InputError, match="both"):
        make_feeds(load(words).inputs, [f"ids={tmp_path / 'ids.npy'}"], {"ids": (2, 5)})


def test_a_batch_that_the_file_fixes(fixed):
    with pytest.raises(InputError, match="--batch 8: the file fixes the batch"):
        make_feeds(load(fixed).inputs, batch=8)
    assert make_feeds(load(fixed).inputs, batch=1)["x"].shape == (2, 3)


def test_turns_alternate_and_the_order_turns_around():
    order = []
    calls = {name: (lambda n=name: order.append(n)) for name in "ab"}
    times = timing.alternate(calls, timing.Turns(warmup=0, blocks=2, duration_s=0, pause_s=0))
    runs = [name for name, before in zip(order, [None, *order], strict=False) if name != before]
    assert runs == ["a", "b", "a"]  # a b | b a
    assert all(len(blocks) == 2 for blocks in times.values())


def test_figures_of_blocks():
    assert timing.latency([[1.0, 2.0], [3.0, 4.0, 5.0]]) == pytest.approx(
        {"median": 3.0, "p10": 1.4, "p90": 4.6, "calls": 5}
    )
    ratio = timing.ratio([[2.0, 2.0, 9.0], [3.0]], [[1.0], [1.0]])
    assert ratio == {"median": 2.5, "min": 2.0, "max": 3.0, "blocks": [2.0, 3.0]}


@pytest.mark.parametrize(
    ("ours", "theirs", "wanted"),
    [
        ([np.ones(2)], [np.array([1.0, 2.0])], 0.5),
        ([np.ones(2)], [np.ones((1, 2))], math.inf),
        ([np.array([np.nan, 1])], [np.array([np.nan, 1])], 0.0),
        ([np.array([np.nan, 1])], [np.ones(2)], math.inf),
        ([np.zeros(0)], [np.zeros(0)], 0.0),
        ([np.array(["a"], object)], [np.array(["a"], object)], None),
        ([np.array([True])], [np.array([False])], 1.0),
    ],
)
def test_difference(ours, theirs, wanted):
    assert measure.difference(ours, theirs) == wanted


def test_profile_rows():
    class Row:
        name, kernel, time_s, flops, bytes = "conv1", "conv", 1e-3, 2e6, 1e3

    class Profiled:
        def profile(self, feeds, runs):
            assert runs == 2 and list(feeds) == ["x"]
            return [Row(), Row()]

    row = {"name": "conv1", "kernel": "conv", "time_s": 1e-3, "flops": 2e6, "bytes": 1e3}
    assert measure.profile(Profiled(), {"x": None}, 2) == ([row, row], None)


def test_no_profile_says_why(linear, monkeypatch):
    monkeypatch.setenv("ONNXGRAD_CPU", "off")
    rows, why = measure.profile(load(linear), {"x": np.ones((1, 3), np.float32)}, 1)
    assert rows is None and "compiled engine" in why


def test_a_fresh_process_that_fails_says_why(tmp_path):
    with pytest.raises(OnnxGradError, match=r"process of its own.*missing\.onnx"):
        fresh("onnxgrad", tmp_path / "missing.onnx", {}, 1)


def test_the_peak_is_a_speed():
    pytest.importorskip("llvmlite")
    for threads in (1, 2):
        found = peak.peak_flops(threads, rounds=1)
        assert found is not None and 1e8 < found < 1e14


def test_no_peak_without_the_engine(monkeypatch):
    monkeypatch.setenv("ONNXGRAD_CPU", "off")
    assert peak.peak_flops() is None
