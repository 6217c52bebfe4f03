"""The command line: help, exit codes, errors, and the commands info, run and serve."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxgrad.tools import cli
from onnxgrad.tools.commands.run import class_scores, describe

COMMANDS = ("demo", "info", "run", "finetune", "explain", "draw", "serve", "bench")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A model of one linear layer: `probabilities = Softmax(x W + b)`."""
    W = np.eye(3, dtype=np.float32) * 2
    nodes = [
        helper.make_node("Gemm", ["x", "W", "b"], ["scores"], name="head"),
        helper.make_node("Softmax", ["scores"], ["probabilities"], name="soft", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(W, "W"), numpy_helper.from_array(np.zeros(3, np.float32), "b")],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
        producer_name="me",
        producer_version="[7]",
    )
    file = tmp_path_factory.mktemp("model") / "linear.onnx"
    onnx.save(model, file)
    return str(file)


@pytest.fixture
def call(capsys):
    def run(*argv):
        code = cli.main([str(a) for a in argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.parametrize("argv", [["--help"], *([c, "--help"] for c in COMMANDS)])
def test_help(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 0
    assert f"usage: onnxgrad {argv[0].replace('--help', '[-h]')}" in capsys.readouterr().out


def test_help_names_every_command_and_version_is_the_package_s(capsys):
    for argv in (["--help"], ["--version"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(argv)
        assert stop.value.code == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"^    {c} ", out, re.MULTILINE) for c in COMMANDS)
    assert re.search(r"^onnxgrad \d+\.\d+", out, re.MULTILINE)


def test_help_needs_neither_numpy_nor_extras(tmp_path):
    heavy = {"numpy", "onnx", "rich", "PIL", "matplotlib", "uvicorn", "starlette", "msgspec"}
    code = (
        "import sys\nfrom onnxgrad.tools import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print(*sorted({heavy!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr.split() == []


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nope"],
        ["info"],
        ["run", "m.onnx", "--wrong"],
        ["run", "m.onnx", "--mean", "a,b"],
        ["run", "m.onnx", "--scale", "1/0"],
        ["run", "m.onnx", "--std", "0"],
        ["run", "m.onnx", "--dim", "batch"],
        ["serve", "m.onnx", "--port", "70000"],
        ["serve", "m.onnx", "--workers", "0"],
        ["serve", "m.onnx", "--limit-bytes", "lots"],
        ["serve", "m.onnx", "--name", "a/b"],
        ["serve", "m.onnx", "--name", "a", "--name", "b"],
    ],
)
def test_usage_errors_exit_with_2(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert "usage: onnxgrad" in err and " value: " not in err


def fails(result, *words):
    code, _, err = result
    assert code == 1
    assert err.startswith("onnxgrad: error: ") and err.count("\n") == 1
    assert all(word in err for word in words), err
    return True


def test_errors_are_one_line_and_exit_with_1(call, path, tmp_path):
    text = tmp_path / "text.onnx"
    text.write_text("no model")
    for command in ("info", "run", "serve"):
        assert fails(call(command, tmp_path / "missing.onnx"), "missing.onnx")
        assert fails(call(command, text), "text.onnx")
    assert fails(call("run", path), "'x'", "missing")
    assert fails(call("run", path, "--input", "y=random"), "'y'", "'x'")
    assert fails(call("run", path, "--input", tmp_path / "missing.npy"), "missing.npy")
    np.save(tmp_path / "wrong.npy", np.zeros((2, 4), np.float32))
    assert fails(call("run", path, "--input", tmp_path / "wrong.npy"), "'x'", "(2, 4)", "3)")
    np.save(tmp_path / "double.npy", np.zeros((2, 3)))
    assert fails(call("run", path, "--input", tmp_path / "double.npy"), "'x'", "float64", "float32")
    assert fails(call("run", path, "--random", "--output", tmp_path / "y.csv"), "y.csv", ".npz")


def test_debug_shows_the_traceback_before_and_after_the_command(call, tmp_path):
    missing = tmp_path / "missing.onnx"
    for argv in (["--debug", "info", missing], ["info", missing, "--debug"]):
        code, _, err = call(*argv)
        assert code == 1 and "Traceback" in err


def test_ctrl_c_is_130_and_a_bug_says_so(call, path, monkeypatch):
    def interrupt(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("onnxgrad.tools.commands.info.run", interrupt)
    assert call("info", path)[0] == 130

    def bug(args):
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr("onnxgrad.tools.commands.info.run", bug)
    assert fails(call("info", path), "ZeroDivisionError: division by zero", "--debug")


def test_a_closed_pipe_is_no_traceback(path):
    code = "import sys; from onnxgrad.tools.cli import main; sys.exit(main())"
    argv = ["bash", "-c", '"$0" -c "$1" info "$2" --json | true', sys.executable, code, path]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_info(call, path):
    code, out, _ = call("info", path, "--parameters")
    assert code == 0
    for words in ("me [7]", "ai.onnx 17", "(batch, 3)", "probabilities", "Gemm", "Softmax", "float32(3, 3)"):
        assert words in out
    assert re.search(r"^parameters +2 +12 +12", out, re.MULTILINE)


def test_info_as_json(call, path):
    code, out, _ = call("info", path, "--json", "--parameters")
    facts = json.loads(out)
    assert code == 0
    assert facts["inputs"] == [{"name": "x", "type": "float32", "shape": ["batch", 3]}]
    assert facts["opsets"] == {"ai.onnx": 17} and facts["operators"] == {"Gemm": 1, "Softmax": 1}
    assert facts["tensors"]["parameter"] == {"tensors": 2, "elements": 12, "trainable": 12}
    assert {r["name"]: r["kind"] for r in facts["rows"]} == {"W": "parameter", "b": "parameter"}


def test_run(call, path, tmp_path):
    np.save(tmp_path / "x.npy", np.array([[0, 1, 0]], np.float32))
    (tmp_path / "labels.txt").write_text("cat\ndog\nowl\n")
    code, out, _ = call(
        "run",
        path,
        "--input",
        tmp_path / "x.npy",
        "--output",
        tmp_path / "y.npz",
        "--labels",
        tmp_path / "labels.txt",
    )
    wanted = np.exp([0, 2, 0]) / np.exp([0, 2, 0]).sum()
    assert code == 0
    assert "probabilities: float32(1, 3)  min 0.106507  mean 0.333333  max 0.786986" in out
    assert "  1. class 1: 0.786986  dog\n" in out
    assert "ran in" in out
    with np.load(tmp_path / "y.npz") as saved:
        np.testing.assert_allclose(saved["probabilities"], [wanted], rtol=1e-6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["labels.txt", "x.npy", "y.npz"]


def test_run_at_random(call, path, tmp_path):
    argv = [
        "run",
        path,
        "--random",
        "--dim",
        "batch=4",
        "--repeat",
        "3",
        "--print",
        "--output",
        tmp_path / "y.npy",
    ]
    code, out, _ = call(*argv)
    assert code == 0 and "float32(4, 3)" in out and "3 times" in out and "class" not in out
    assert np.load(tmp_path / "y.npy").shape == (4, 3)
    call(*argv[:-1], tmp_path / "again.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.load(tmp_path / "again.npy"))


def test_what_looks_like_class_scores():
    assert class_scores(np.array([[0.2, 0.8]])) is not None
    assert class_scores(np.log([[0.2, 0.8]])) is not None
    assert class_scores(np.arange(10.0).reshape(1, 10, 1, 1)) is not None
    assert class_scores(np.array([1.0, 2.0])) is None
    assert class_scores(np.array([1.0, 2.0]), ["a", "b"]) is not None
    assert class_scores(np.ones((2, 10))) is None
    assert class_scores(np.full(10, np.nan)) is None


def test_outputs_that_are_not_numbers_are_described():
    assert describe("y", [np.ones(2)] * 3) == ["y: list of 3"]
    assert describe("y", np.array(["a"], object)) == ["y: string(1,)"]
    assert describe("y", np.zeros((0, 2), np.float32)) == ["y: float32(0, 2)"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_serve_until_it_is_told_to_stop(path, stop):
    code = "import sys; from onnxgrad.tools.cli import main; sys.exit(main())"
    argv = [sys.executable, "-W", "error", "-c", code, "serve", path, "--port", "0", "--limit-bytes", "1M"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline()).group()
            body = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [0, 1, 0]}]}
            request = urllib.request.Request(f"{url}/v2/models/linear/infer", json.dumps(body).encode())
            with urllib.request.urlopen(request, timeout=20) as response:
                (output,) = json.load(response)["outputs"]
            np.testing.assert_allclose(output["data"], [0.106507, 0.786986, 0.106507], rtol=1e-5)
            process.send_signal(stop)
            started = time.monotonic()
            assert process.wait(20) == 0
            assert time.monotonic() - started < 5
            assert process.stderr.read() == ""
        finally:
            process.kill()


def test_serve_without_its_packages(call, path, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert fails(call("serve", path), "uvicorn", "pip install 'onnxgrad[serve]'")


def test_two_models_of_one_name(path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["serve", path, path])
    assert stop.value.code == 2
    assert "--name" in capsys.readouterr().err
