"""The test site: what it hands a rule, and that it catches what a rule or a kernel does wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnxgrad.ops.errors import KernelError
from onnxgrad.ops.expr import Call, Var
from onnxgrad.ops.kernels.cuda.kernel import Kernel, blocks
from onnxgrad.ops.kernels.cuda.lowering import LOWERINGS, Epilogue, Lowering, every
from onnxgrad.ops.kernels.cuda.operand import Operand, packed
from onnxgrad.ops.types import TensorType

from . import host, site as site_module
from .site import RefusedError, refuses, run_op

pytestmark = pytest.mark.skipif(host.why_not() is not None, reason=str(host.why_not()))

X = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)


@pytest.fixture
def rule(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Register a rule for the op `probe`."""

    def register(f: Callable[[Any], bool], fuses: Any = None) -> None:
        monkeypatch.setitem(LOWERINGS, "probe", Lowering(f, fuses))

    return register


def _kernel(body: str, parameters: str = "const float* x, float* y, i64 n", registers: int = 64) -> Kernel:
    code = f'extern "C" __global__ void __launch_bounds__(64) probe({parameters}) {{\n{body}\n}}\n'
    kinds = tuple("pointer" if "*" in p else "i64" for p in parameters.split(","))
    return Kernel("probe", code, kinds, 64, registers)  # type: ignore[arg-type]


INDEX = "i64 i = (i64)blockIdx.x * 64 + threadIdx.x;\n"


def _doubles(site: Any, body: str = "if (i < n) y[i] = x[i] * 2.0f;", writes: tuple[int, ...] = (1,)) -> bool:
    x = site.read(0, order="plain")
    y = site.write(0, order="plain")
    site.launch(
        _kernel(INDEX + body), (blocks(x.operand.size, 64), 1, 1), (64, 1, 1), (x, y, x.operand.size), writes=writes
    )
    return True


def _run(arrays: list[Any], **how: Any) -> np.ndarray[Any, Any]:
    results = how.pop("results", None) or [TensorType(arrays[0].dtype, arrays[0].shape)]
    (y,) = run_op("probe", arrays, {}, results=results, **how)
    return y


def test_a_rule_runs(rule: Callable[..., None]) -> None:
    rule(_doubles)
    assert np.array_equal(_run([X]), X * 2)
    assert np.array_equal(_run([X[:, :0]]), X[:, :0])


WRONG = {
    "writes an input": ("if (i < n) { y[i] = x[i]; const_cast<float*>(x)[i] = 1.0f; }", "changes argument 0"),
    "writes behind": ("if (i <= n) y[i] = 1.0f;", "writes behind argument 1|not its own"),
    "writes far behind": ("if (i < n) y[i + 500] = 1.0f;", r"(?s)not its own.*\d+ bytes behind argument \d"),
    "writes before": ("if (i < n) y[i - 64] = 1.0f;", r"(?s)not its own.*bytes before argument 1"),
    "depends on the order": ("if (i < n) y[i % 7] = (float)i;", "two runs differ"),
    "leaves an element": ("if (i < n - 1) y[i] = 1.0f;", "two runs differ, in 1 of"),
    "reads what nobody wrote": ("if (i < n) y[i] = y[n - 1 - i] + x[i];", None),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_kernels_are_caught(rule: Callable[..., None], wrong: str) -> None:
    body, message = WRONG[wrong]
    rule(lambda site: _doubles(site, body))
    if message is None:
        assert np.isnan(_run([X], same=False)).any()
    else:
        with pytest.raises(AssertionError, match=message):
            _run([X])


def test_truth_values_are_0_or_1(rule: Callable[..., None]) -> None:
    def f(site: Any) -> bool:
        kernel = _kernel("y[threadIdx.x].byte = threadIdx.x;", "bool8* y")
        site.launch(kernel, (1, 1, 1), (3, 1, 1), (site.write(0),), writes=(0,))
        return True

    rule(f)
    with pytest.raises(AssertionError, match="neither 0 nor 1"):
        _run([np.zeros(3, bool)])


def test_an_op_without_a_rule_says_so() -> None:
    with pytest.raises(AssertionError, match="import"):
        _run([X])


def test_an_input_may_not_be_declared_written(rule: Callable[..., None]) -> None:
    rule(lambda site: _doubles(site, "if (i < n) { y[i] = x[i]; const_cast<float*>(x)[i] = 1.0f; }", (0, 1)))
    with pytest.raises(AssertionError, match="changed one of its inputs"):
        _run([X])


@pytest.mark.parametrize("writes", [(1, 2), (1,)])
def test_flags_are_set_or_not_as_the_test_says(rule: Callable[..., None], writes: tuple[int, ...]) -> None:
    kernel = _kernel(
        INDEX + "if (i < n) { y[i] = x[i]; if (x[i] < 0.0f) *flag = 1; }", "const float* x, float* y, i32* flag, i64 n"
    )

    def f(site: Any) -> bool:
        x, y = site.read(0), site.write(0)
        site.launch(kernel, (1, 1, 1), (64, 1, 1), (x, y, site.flag("less than 0"), x.operand.size), writes=writes)
        return True

    rule(f)
    good, bad = np.ones(40, np.float32), -np.ones(40, np.float32)
    _run([good])
    if 2 in writes:
        _run([bad], flagged=True)
        for x, flagged in ((bad, False), (good, True)):
            with pytest.raises(AssertionError, match=r"flags are set .*'less than 0'"):
                _run([x], flagged=flagged)
    else:
        with pytest.raises(AssertionError, match="changes argument 2"):
            _run([bad], flagged=True)


def test_what_a_launch_may_not_be(rule: Callable[..., None]) -> None:
    def bad(**how: Any) -> Callable[[Any], bool]:
        def f(site: Any) -> bool:
            x, y = site.read(0), site.write(0)
            given = {"grid": (1, 1, 1), "block": (64, 1, 1), "arguments": (x, y, 1), **how}
            kernel = given.pop("kernel", _kernel(""))
            site.launch(kernel, *given.values(), writes=(1,))
            return True

        return f

    for how in ({"block": (65, 1, 1)}, {"grid": (0, 1, 1)}, {"arguments": (1, 1, 1)}, {"grid": (1, 1 << 16, 1)}):
        rule(bad(**how))
        with pytest.raises(KernelError):
            _run([X])
    rule(bad(kernel=Kernel("probe", "void __launch_bounds__(32) probe", ("pointer", "pointer", "i64"), 64)))
    with pytest.raises(AssertionError, match="__launch_bounds__"):
        _run([X])


def test_refusals(rule: Callable[..., None]) -> None:
    rule(lambda site: False)
    assert refuses("probe", [X], {}, results=[])
    with pytest.raises(RefusedError, match="float32"):
        _run([X])
    rule(lambda site: _doubles(site) and False)
    with pytest.raises(AssertionError, match="after it has launched"):
        refuses("probe", [X], {}, results=[TensorType(X.dtype, X.shape)])
    rule(_doubles)
    epilogue = Epilogue(Var("x"), (), X.dtype)
    assert refuses("probe", [X], {}, results=[TensorType(X.dtype, X.shape)], epilogue=epilogue)


LIES = {
    "plain": (X, "plain", (60, 20, 5, 1)),
    "channels_last": (X, "channels_last", (60, 1, 15, 3)),
    "transposed": (X, "transposed", (1, 2, 6, 24)),
    "own transposed": (X.transpose(3, 1, 0, 2), "own", (1, 20, 60, 5)),
    "own broadcast": (np.broadcast_to(X[:, :1, :1], X.shape), "own", (60, 0, 0, 1)),
    "own gaps": (X[:, ::2, :, 1:3], "own", (60, 40, 5, 1)),
    "own backwards": (X[..., ::-1], "own", (60, 20, 5, -1)),
    "short channels_last": (X[0, 0], "channels_last", (5, 1)),
}


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("lies", LIES)
def test_inputs_lie_as_asked(rule: Callable[..., None], lies: str, shift: int) -> None:
    x, order, strides = LIES[lies]
    seen: list[Operand] = []

    def copies(site: Any) -> bool:
        ref = site.read(0)
        seen.append(ref.operand)
        assert site.read(0) is ref
        assert site.read(0, order="plain").operand.contiguous
        o, y = ref.operand, site.write(0, order="plain")
        axes = zip(reversed(o.shape), reversed(o.strides), strict=True)
        index = "; ".join(f"at += rest % {n} * ({s}); rest /= {n}" for n, s in axes)
        kernel = _kernel(INDEX + f"if (i >= n) return;\ni64 rest = i, at = 0;\n{index};\ny[i] = x[at];")
        site.launch(kernel, (blocks(o.size, 64), 1, 1), (64, 1, 1), (ref, y, o.size), writes=(1,))
        return True

    rule(copies)
    assert np.array_equal(_run([x], order=order, shift=shift), x)
    assert seen[0].strides == strides
    assert seen[0].offset == shift + (4 if "backwards" in lies else 0)


def test_outputs_lie_as_asked(rule: Callable[..., None]) -> None:
    seen: list[Operand] = []

    def f(site: Any) -> bool:
        x, y = site.read(0), site.write(0)
        seen.append(y.operand)
        kernel = _kernel(INDEX + "if (i < n) y[i] = x[i];")
        site.launch(kernel, (blocks(x.operand.size, 64), 1, 1), (64, 1, 1), (x, y, x.operand.size), writes=(1,))
        return True

    rule(f)
    assert np.array_equal(_run([X], order="channels_last"), X)
    assert seen[-1].channels_last
    _run([X], out_order="channels_last")
    assert seen[-1].channels_last
    _run([X])
    assert seen[-1].contiguous


def test_scalars_lists_constants_and_temporaries(rule: Callable[..., None]) -> None:
    def f(site: Any) -> bool:
        assert site.known(0) is None
        assert site.known(1) == np.float32(3)
        assert np.array_equal(site.known(2), [7, 8])
        assert [t.shape for t in site.types[3]] == [(2,), (3,)]
        assert site.types[4] is None
        three, listed = site.read(1), site.read(3, item=1)
        assert three.operand == packed(np.dtype(np.float32), ())
        t, y, c = site.temporary(np.dtype(np.float32), (4,)), site.write(0), site.constant(np.array([5], np.float32))
        pointers = "const float* a, const float* b, const float* c, float* t"
        site.launch(
            _kernel("if (threadIdx.x == 0) t[0] = a[0] + b[2] + c[0];", pointers),
            (1, 1, 1), (32, 1, 1), (three, listed, c, t), writes=(3,),
        )  # fmt: skip
        site.launch(_kernel("y[threadIdx.x] = x[0] + n;"), (1, 1, 1), (3, 1, 1), (t, y, 1), writes=(1,))
        return True

    rule(f)
    lists = [np.zeros(2, np.float32), np.arange(3, dtype=np.float32)]
    y = _run([np.zeros(3, np.float32), 3, np.array([7, 8]), lists, None], constants=[2])
    assert y.tolist() == [11, 11, 11]


def test_epilogues_bring_their_operands(rule: Callable[..., None]) -> None:
    def f(site: Any) -> bool:
        (a,) = site.epilogue_refs
        assert a.operand == Operand(X.dtype, (2, 3), (0, 1))
        y = site.write(0)
        assert y.operand.dtype == ml_dtypes.bfloat16
        kernel = _kernel(
            "narrow(x[threadIdx.x] + a[threadIdx.x % 3], &y[threadIdx.x]);", "const float* x, const float* a, bf16* y"
        )
        site.launch(kernel, (1, 1, 1), (6, 1, 1), (site.read(0), a, y), writes=(2,))
        return True

    rule(f, every)
    x, a = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([10, 20, 30], np.float32)
    epilogue = Epilogue(
        Call("add", (Var("x"), Var("a0"))), (packed(a.dtype, (3,)).broadcast_to((2, 3)),), np.dtype(ml_dtypes.bfloat16)
    )
    y = _run([x], epilogue=epilogue, extra=[a])
    assert y.astype(np.float32).tolist() == (x + a).tolist()


def test_libraries_are_computed_by_their_references(rule: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Twice:
        library: str = "cublaslt"

        def prepare(self) -> Any:
            raise NotImplementedError

    def f(site: Any) -> bool:
        t = site.temporary(X.dtype, X.shape)
        site.call(Twice(), [site.read(0), t], writes=[1])
        site.launch(
            _kernel(INDEX + "if (i < n) y[i] = x[i] + 1.0f;"),
            (blocks(X.size, 64), 1, 1), (64, 1, 1), (t, site.write(0, order="plain"), X.size), writes=(1,),
        )  # fmt: skip
        return True

    rule(f)
    references = {Twice: lambda description, arrays: [arrays[0].astype(np.float64) * 2]}
    module = SimpleNamespace(REFERENCES=references)
    monkeypatch.setitem(sys.modules, f"{site_module.__package__}.references", module)  # type: ignore[arg-type]
    assert np.array_equal(_run([X], order="channels_last"), X * 2 + 1)
    references[Twice] = lambda description, arrays: [arrays[0][0]]
    with pytest.raises(AssertionError, match="returns"):
        _run([X])
