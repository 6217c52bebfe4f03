"""The rule of fused pointwise expressions: every op's expression, shapes, layouts, memory that is shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

pytest.importorskip("llvmlite")

from onnxgrad.ops import pointwise as ops
from onnxgrad.ops.dims import Dim, broadcast, evaluate
from onnxgrad.ops.expr import Call, Expr, Var, call, exp, maximum, pow_, substitute, tanh, variables, where
from onnxgrad.ops.kernels.cpu import pointwise as rule
from onnxgrad.ops.kernels.cpu.jit import assembly
from onnxgrad.ops.kernels.cpu.operand import Operand, packed
from onnxgrad.ops.kernels.cpu.target import host_target
from onnxgrad.ops.primitives import compile_array
from onnxgrad.ops.types import TensorType

from .site import TestRef, TestSite

Array = np.ndarray[Any, Any]
a0, a1, a2 = Var("a0"), Var("a1"), Var("a2")


def make_site(
    expression: Expr, arrays: list[Array], result: Any, shapes: list[tuple[Any, ...]] | None = None, **options: Any
) -> TestSite:
    """Return a site of the op over these arrays; sizes in `shapes` may be symbols."""
    types = [TensorType(a.dtype, s) for a, s in zip(arrays, shapes or [a.shape for a in arrays], strict=True)]
    env = {
        d.name: n
        for t, a in zip(types, arrays, strict=True)
        for d, n in zip(t.shape, a.shape, strict=True)
        if isinstance(d, Dim) and d.name
    }
    to = TensorType(np.dtype(result), broadcast(*(t.shape for t in types)))
    return TestSite("pointwise", arrays, {"expression": expression}, types, [to], env, **options)


def run(expression: Expr, arrays: list[Array], result: Any, *, threads: int = 1, **options: Any) -> Any:
    """Return the rule's result; None where it refuses."""
    site = make_site(expression, arrays, result, **options)
    if not rule.pointwise(site):
        return None
    site.run(threads)
    return site.outputs[0].view(site.env).copy()


def numbers(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> Array:
    """Return normal numbers, integers or truth values, with special values among the floats."""
    g = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "b":
        return g.integers(0, 2, shape).astype(bool)
    if np.dtype(dtype).kind in "iu":
        return g.integers(-9, 10, shape).astype(dtype)
    return (g.normal(size=shape) * 2).astype(dtype)


SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-41, -1e-41, 1, -1, 50, -50, 3e38, -3e38], np.float32)

WITH_EXPRESSION = sorted(n for n, o in vars(ops).items() if isinstance(o, ops.Pointwise) and o.expression is not None)
WITHOUT_CODE = {
    "mod", "fmod",  # of floats: exact remainders take loops
    "atan2", "copysign", "erfc", "erfinv", "exp2", "hypot", "lgamma", "logaddexp", "logaddexp2", "polygamma",
}  # fmt: skip


def _renamed(expression: Expr, names: tuple[str, ...]) -> Expr:
    return substitute(expression, {n: Var(f"a{i}") for i, n in enumerate(names)})


@dataclass(frozen=True)
class _Case:
    name: str
    expression: Expr
    names: tuple[str, ...]


def _cases() -> list[_Case]:
    out = []
    for name in WITH_EXPRESSION:
        op = getattr(ops, name)
        out.append(_Case(name, op.expression, op.names))
        if op.result == "bool" or name in WITHOUT_CODE:
            continue
        for by in op.names:
            found = op.gradient(by) if name != "where" or by != "c" else None
            if found is not None:
                out.append(_Case(f"{name} by {by}", found[0].expression, found[0].names))
    return out


CASES = _cases()


@pytest.mark.parametrize(
    ("case", "dtype"),
    [pytest.param(c, t, id=f"{c.name}-{t.__name__}") for c in CASES for t in (np.float32, np.float64)
     if t is np.float32 or " by " not in c.name],
)  # fmt: skip
def test_every_op_is_its_array_kernel(case: _Case, dtype: Any) -> None:
    names = tuple(n for n in case.names if n in variables(case.expression))
    expression = _renamed(case.expression, names)
    result = bool if case.name in ("less", "less_equal", "greater", "greater_equal", "equal") else dtype
    arrays = [numbers((6, 53), bool if n == "c" else dtype, i) for i, n in enumerate(names)]
    if case.name.startswith("pow"):
        arrays[0 if " by " not in case.name else names.index("a")] = np.abs(arrays[0])
    if case.name.split()[0] in ("asin", "acos", "atanh"):  # their derivatives have poles at 1
        arrays[names.index("x")] = np.clip(arrays[names.index("x")], -0.9, 0.9)
    found = run(expression, arrays, result)
    if case.name in WITHOUT_CODE:
        assert found is None
        return
    wider = np.longdouble if dtype is np.float64 else np.float64
    with np.errstate(all="ignore"):
        array = compile_array(case.expression, names)(*arrays)
        precise = compile_array(case.expression, names)(*(a if a.dtype == bool else a.astype(wider) for a in arrays))
        precise = np.asarray(precise).astype(np.float64)
    # what cancels within an expression leaves an error of the size of its parts
    rtol, atol = (4e-6, 1e-5) if dtype is np.float32 else (1e-13, 3e-14)
    known = np.isfinite(precise) & (np.abs(precise) < 1e30)
    np.testing.assert_allclose(found[known], precise[known], rtol=rtol, atol=atol)
    np.testing.assert_allclose(found, array.astype(result), rtol=2 * rtol, atol=2 * atol)


@pytest.mark.parametrize(
    "name",
    [
        "relu",
        "sigmoid",
        "tanh",
        "exp",
        "erf",
        "softplus",
        "clip",
        "abs_",
        "sign",
        "floor",
        "ceil",
        "round_",
        "sqrt",
        "neg",
    ],
)
def test_special_values(name: str) -> None:
    op = getattr(ops, name)
    x = np.resize(SPECIAL, 200)
    arrays = [x, *(np.full((), v, np.float32) for v in (-2, 3)[: len(op.names) - 1])]
    found = run(_renamed(op.expression, op.names), arrays, np.float32)
    with np.errstate(all="ignore"):
        expected = op(*arrays)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-37)
    if name not in ("relu", "clip"):  # where zeros of both signs meet, either may win
        np.testing.assert_array_equal(np.signbit(found[~np.isnan(x)]), np.signbit(expected[~np.isnan(x)]))


@given(st.data())
@settings(max_examples=25)
def test_broadcasts(data: st.DataObject) -> None:
    rank = data.draw(st.integers(0, 4))
    shape = tuple(data.draw(st.sampled_from([0, 1, 2, 3, 5, 16, 17, 35])) for _ in range(rank))
    others = [
        tuple(1 if data.draw(st.booleans()) else d for d in shape[data.draw(st.integers(0, rank)) :]) for _ in range(2)
    ]
    arrays = [numbers(s, seed=i) for i, s in enumerate([shape, *others])]
    at_end, order = data.draw(st.booleans()), data.draw(st.sampled_from(["plain", "channels_last"]))
    multiple = data.draw(st.sampled_from([1, 4, 16]))
    x, y, z = arrays
    found = run(a0 * a1 + a2 * 3, arrays, np.float32, order=order, multiple=multiple, at_end=at_end)
    np.testing.assert_allclose(found, x * y + z * 3, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("width", [1, 3, 15, 16, 17, 31, 64, 65, 127, 129, 1000])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bool"])
def test_widths(width: int, dtype: str) -> None:
    x, y = numbers((3, width), dtype), numbers((3, 1), dtype, 1)
    for at_end in (True, False):
        np.testing.assert_array_equal(run(maximum(a0, a1), [x, y], dtype, at_end=at_end), np.maximum(x, y))


@pytest.mark.parametrize("costly", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 16, 20])
def test_channels_last_with_halo_and_slack(channels: int, costly: bool) -> None:
    """The halo around the output stays zero; slack may be written."""
    shape = (2, channels, 5, 7)
    halo = ((0, 0), (0, 0), (1, 1), (2, 1))
    x = numbers(shape)
    for other in (shape, (channels, 1, 1), (2, 1, 5, 7), ()):
        y = numbers(other, seed=1)
        expression = (tanh(a0) if costly else a0) + a1
        site = make_site(expression, [x, y], np.float32, order="channels_last", multiple=8, out_halo=halo)
        assert rule.pointwise(site)
        site.run()
        whole = site._with_halo(site.outputs[0])
        expected = (np.tanh(x) if costly else x) + y
        np.testing.assert_allclose(whole[:, :, 1:-1, 2:-1], expected, rtol=1e-6, atol=1e-6)
        outside = np.ones(whole.shape, bool)
        outside[:, :, 1:-1, 2:-1] = False
        assert not whole[outside].any()


@pytest.mark.parametrize("order", ["plain", "channels_last"])
@pytest.mark.parametrize("expression", [a0 * call("sigmoid", a1) + a2, where(a1 < a2, a0, exp(a1) + a2 * a2)])
def test_small_parts_are_computed_once(expression: Expr, order: str) -> None:
    """A gate of each channel: on its own, or once a row."""
    arrays = [numbers((2, 24, 9, 8)), numbers((2, 24, 1, 1), seed=1), numbers((1, 24, 1, 1), seed=2)]
    site = make_site(expression, arrays, np.float32, order=order, multiple=16)
    assert rule.pointwise(site)
    assert len(site.calls) == (1 if order == "plain" else 2)
    site.run()
    expected = compile_array(expression, ("a0", "a1", "a2"))(*(a.astype(np.float64) for a in arrays))
    np.testing.assert_allclose(site.outputs[0].view({}), expected, rtol=1e-5, atol=1e-6)


def test_slack_merges_axes() -> None:
    """A full tensor with slack is one row; with a bias that has none, a row is a pixel."""
    x, bias = numbers((2, 20, 5, 7)), numbers((20, 1, 1))
    for arrays, axes in (([x, x], 1), ([x, bias], 2)):
        site = make_site(a0 + a1, arrays, np.float32, order="channels_last", multiple=16)
        assert rule.pointwise(site)
        assert len(site.calls[0][0].params.axes) == axes


def test_symbolic_sizes_compile_once() -> None:
    n, t = Dim.symbol("n"), Dim.symbol("t")
    keys = set()
    for sizes in ((1, 1), (2, 37), (5, 128), (0, 4), (40, 700)):
        x, y = numbers((*sizes, 24)), numbers((24,), seed=1)
        z = numbers((sizes[0], 1, 1), seed=2)
        site = make_site(a0 * a1 + a2, [x, y, z], np.float32, [(n, t, 24), (24,), (n, 1, 1)])
        assert rule.pointwise(site)
        keys.add(site.calls[0][0].key)
        site.run(2)
        np.testing.assert_allclose(site.outputs[0].view(site.env), x * y + z, rtol=1e-5, atol=1e-5)
    assert len(keys) == 1


def test_symbols_that_may_broadcast_are_refused() -> None:
    x, y = numbers((4, 3)), numbers((1, 3))
    assert run(a0 + a1, [x, y], np.float32, shapes=[(Dim.symbol("n"), 3), (Dim.symbol("m"), 3)]) is None


def test_chunks_cover_everything_on_any_number_of_threads() -> None:
    x = numbers((8, 61, 1013))
    y = numbers((61, 1), seed=1)
    outs = [run(exp(a0) * a1, [x, y], np.float32, threads=k) for k in (1, 2, 3)]
    np.testing.assert_allclose(outs[0], np.exp(x) * y, rtol=1e-6)
    for out in outs[1:]:
        np.testing.assert_array_equal(out, outs[0])
    site = make_site(exp(a0), [x], np.float32)
    assert rule.pointwise(site)
    assert 8 <= evaluate(site.calls[0][0].chunks, {}) <= 256


@pytest.mark.parametrize("shape", [(5, 7, 33), (100003,)])
def test_output_in_the_memory_of_an_input(shape: tuple[int, ...]) -> None:
    x, y = numbers(shape), numbers(shape[-1:], seed=1)
    site = make_site(tanh(a0) + a1, [x, y], np.float32)
    places: dict[int, TestRef] = {}
    read = site.read

    def kept(i: int, **options: Any) -> TestRef:
        places[i] = read(i, **options)
        return places[i]

    site.read = kept  # type: ignore[method-assign]
    site.write = lambda i=0, **_: site.outputs.setdefault(0, places[0])  # type: ignore[method-assign, misc]
    assert rule.pointwise(site)
    site.run()
    np.testing.assert_allclose(site.outputs[0].view({}), np.tanh(x) + y, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("out_order", ["plain", "transposed", "spread"])
def test_strides_of_any_kind(out_order: str) -> None:
    """An input that lies otherwise than the output is gathered; an output without stride 1 is scattered."""
    target = host_target()
    shape = (6, 35)
    plain, turned = packed(np.dtype(np.float32), shape), Operand(np.dtype(np.float32), shape, (1, 6))
    spread = Operand(np.dtype(np.float32), shape, (70, 2))
    output = {"plain": plain, "transposed": turned, "spread": spread}[out_order]
    x, y = numbers(shape), numbers(shape, seed=1)
    made = rule.make_kernel(target, a0 - a1, [plain, turned], output)
    site = make_site(a0 - a1, [x, y], np.float32)
    buffer = np.full(4 * 70 * 6, 0xFF, np.uint8)
    refs = [
        TestRef(plain, x.view(np.uint8).ravel()),
        TestRef(turned, np.ascontiguousarray(y.T).view(np.uint8).ravel()),
        TestRef(output, buffer),
    ]
    site.call(made, refs)
    site.run()
    np.testing.assert_array_equal(refs[-1].view({}), x - y)


def test_small_types_through_casts() -> None:
    x, mask = numbers((4, 77)), numbers((4, 77), bool, 1)
    u = np.random.default_rng(2).integers(0, 256, (77,)).astype(np.uint8)
    expression = call("cast:uint8:float32", a1) / 255 * where(a2, a0, 0)
    found = run(expression, [x, u, mask], np.float32)
    np.testing.assert_allclose(found, u.astype(np.float32) / 255 * np.where(mask, x, 0), rtol=1e-6)
    half = x.astype(np.float16)
    found = run(call("cast:float32:float16", call("cast:float16:float32", a0) * 2), [half], np.float16)
    np.testing.assert_array_equal(found, (half.astype(np.float32) * 2).astype(np.float16))
    found = run(call("cast:float32:uint8", call("abs", a0) * 20), [x], np.uint8)
    np.testing.assert_array_equal(found, (np.abs(x) * 20).astype(np.uint8))


def test_supports() -> None:
    assert rule.supports(exp(a0) + a1, ["float32", "float32"])
    assert rule.supports(exp(Var("x")), {"x": np.float64})
    assert rule.supports(a0 < a1, ["int64", "int64"], np.bool_)
    assert not rule.supports(a0 + a1, ["uint8", "uint8"])
    assert rule.supports(call("cast:uint8:float32", a0) + a1, ["uint8", "float32"])
    assert not rule.supports(exp(a0), ["int32"])
    assert not rule.supports(pow_(a0, a1), ["int32", "int32"])
    assert not rule.supports(a0 + 1, ["complex64"])
    assert not rule.supports(Call("gamma", (a0,)), ["float32"])


def test_refuses_before_it_reads() -> None:
    assert run(call("fmod", a0, a1), [numbers((3,)), numbers((3,))], np.float32) is None


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_calls_no_library(dtype: str) -> None:
    x = numbers((3, 21), dtype)
    wide = a0 if dtype == "float32" else call("cast:float16:float32", a0)
    e = tanh(wide)
    site = make_site(e if dtype == "float32" else call("cast:float32:float16", e), [x], dtype)
    assert rule.pointwise(site)
    assert not [line for line in assembly([site.calls[0][0]]).splitlines() if line.strip().startswith(("call", "bl "))]
