"""Which operators there are, at which versions, with which gradient.

`python -m onnxgrad.tools.operators > docs/operators.md` writes the page. Run it in a checkout: how far a gradient is
checked is read from the op table of the tests.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import pkgutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from ..ops.op import OPS, Op

HEAD = """\
# Operators

Written by `python -m onnxgrad.tools.operators > docs/operators.md`; a test keeps it true.

Every operator runs on NumPy arrays (CPU) and on CuPy arrays (CUDA) through the same kernels. The columns:

- **versions**: the since-versions that are bound; each is compared with another implementation in `tests/importers`.
- **types**: element types of the first input, as the newest of these versions allows them; each number type is run by
  `tests/importers/test_types.py`. float16 and bfloat16 compute in float32.
- **ops**: what it is made of, all cases of all versions together.
- **gradient**: `order n` is the highest derivative that the op table checks against central differences, for the least
  checked of the ops (a lower one has no derivative beyond); `none` is declared, with the reason: asking for it is an
  error.
"""

BESIDE = frozenset(
    {"shape_of", "size_of", "fill", "full_like", "range", "eye_like", "less", "less_equal", "greater", "greater_equal",
     "equal", "logical_and", "logical_or", "logical_not", "isnan", "first_rows", "taps_at", "fold_key", "hidden_keys",
     "unpack_bits", "one_hot", "dropout_mask"}
)  # fmt: skip
"""Ops that stand beside a computation: sizes, masks and keys, through which no gradient is asked for."""

LAYOUT = frozenset(
    {"cast", "identity", "reshape", "reshape_to", "squeeze", "unsqueeze", "transpose", "slice", "concat", "gather",
     "broadcast_to", "expand", "where", "split", "pad", "tile", "stop_gradient", "sum_to"}
)  # fmt: skip
"""Ops that prepare what another computes; they count where there is no other."""

REASONS = {
    "argmax argmin nonzero non_max_suppression max_roi_places": "its results are positions",
    "less less_equal greater greater_equal equal logical_and logical_or logical_xor logical_not isnan": "truth values",
    "bitwise_and bitwise_or bitwise_xor bitwise_not shift_left shift_right bitcast unpack_bits": "it works on bits",
    "random_uniform random_normal bernoulli multinomial": "it draws",
    "hardmax one_hot label_encode one_hot_encode": "it is constant almost everywhere",
    "matmul_integer conv_integer requantize dynamic_quantize_linear": "its results are integers",
    "string_normalize string_split string_concat regex_full_match tfidf_vectorize": "it works on text",
    "forest_scores pairwise_coupling": "it is constant almost everywhere",
    "shape_of size_of fill full_like eye_like": "its result depends on sizes alone",
    "cosine_window mel_weights": "it is a table that depends on sizes alone",
    "decode_image": "it reads a file's bytes",
    "quantize_linear": "its results are rounded",
    "sequence_length optional_has_element": "its result is a count or a truth value",
    "beam_search greedy_search": "its results are positions",
    "cast_map dict_vectorize zip_map": "it works on dictionaries",
}
"""Why ops have no gradient, by their names."""

SPECIAL = {
    "Gradient": "every order: it differentiates the graph around it",
    "Constant": "none: its result is fixed in the file",
}
"""What the ops that a binding calls do not say."""


def bindings() -> Mapping[tuple[str, str, int], Callable[..., Any]]:
    """Return every binding by (domain, operator, version)."""
    importlib.import_module("..importers.onnx.translate", __package__)
    found: Any = importlib.import_module("..importers.onnx.registry", __package__).BINDINGS
    return found  # type: ignore[no-any-return]


def ops_of(f: Any, op_type: str) -> set[str]:
    """Return the names of the ops that a binding may call: a walk through its source and that of what it calls."""
    found: set[str] = set()
    seen: set[int] = set()

    def visit(value: Any) -> None:
        if id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, Op):
            found.add(value.name)
        elif isinstance(value, functools.partial):
            visit(value.func)
        elif isinstance(value, dict):
            for v in [value[op_type]] if op_type in value else value.values():
                visit(v)
        elif isinstance(value, list | tuple):
            for v in value:
                visit(v)
        elif isinstance(value, FunctionType) and _computes(value.__module__):
            for v in _mentioned(value):
                visit(v)

    visit(inspect.unwrap(f))
    return found


def _computes(module: str) -> bool:
    """Whether a module holds bindings or ops, rather than what registers them."""
    house = __package__.partition(".")[0]
    return module.startswith((f"{house}.importers.onnx.ops.", f"{house}.ops.")) and module != f"{house}.ops.op"


def _mentioned(f: FunctionType) -> Iterator[Any]:
    """Yield the global and enclosing values that a function's source names."""
    inside = inspect.getclosurevars(f)
    scope = {**f.__globals__, **inside.nonlocals}
    tree = ast.parse(textwrap.dedent(inspect.getsource(f)))
    head = tree.body[0]
    parts = head.body if isinstance(head, ast.FunctionDef) else [head]  # without decorators and annotations
    for node in (n for part in parts for n in ast.walk(part)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = scope.get(node.value.id)
            if isinstance(owner, ModuleType):
                yield getattr(owner, node.attr, None)
        elif isinstance(node, ast.Name) and not isinstance(scope.get(node.id), ModuleType):
            value = scope.get(node.id)
            if isinstance(value, Op | FunctionType | dict | tuple | list | functools.partial):
                yield value


def gradient(names: set[str], orders: Mapping[str, int]) -> str:
    """Return what the page says of the gradient of an operator that is made of these ops."""
    has = {n for n in names if _differentiable(n, orders)}
    core = has - LAYOUT - BESIDE
    if not core and "gather" in has:
        names = names - {"nonzero"}  # it says where to gather
    without = names - has - BESIDE
    if core or (has and not without):
        checked = [orders[n] for n in core or has if orders.get(n)]
        order = f"order {min(checked)}" if checked else "through what its bodies and elements compute"
        return order + (f"; none through {', '.join(sorted(without))}" if without else "")
    reasons = {r for n in without or names for group, r in REASONS.items() if n in group.split()}
    return f"none: {'; '.join(sorted(reasons)) or 'its results are no floats'}"


def _differentiable(name: str, orders: Mapping[str, int]) -> bool:
    op, declared = OPS[name], any(name in group.split() for group in REASONS)
    none = orders.get(name) == 0 and not op.structural  # a row of order 0 checks that nothing is differentiated
    return not declared and not none and (op.vjp is not None or op.composition is not None)


def kinds_of(domain: str, op_type: str, version: int) -> str:
    """Return the element types of an operator's first input, whole families by their name."""
    schemas: Any = importlib.import_module("..importers.onnx.schemas", __package__)
    found = list(schemas.element_types(domain, op_type, version))
    for name, family in (("integers", schemas.INTEGERS), ("floats", schemas.FLOATS)):
        if set(family) <= set(found):
            found = [name, *(t for t in found if t not in family)]
    return ", ".join(found) or "-"


def page(orders: Mapping[str, int]) -> str:
    """Return the page.

    Args:
        orders: the highest derivative that is checked, by op.
    """
    by_operator: dict[tuple[str, str], dict[int, Any]] = {}
    for (domain, op_type, version), f in bindings().items():
        by_operator.setdefault((domain, op_type), {})[version] = f
    lines = [HEAD]
    total = sum(map(len, by_operator.values()))
    lines.append(f"{len(by_operator)} operators, {total} versions.")
    for domain in sorted({d for d, _ in by_operator}):
        lines += [
            f"\n## {domain or 'ai.onnx'}\n",
            "| operator | versions | types | ops | gradient |",
            "|---|---|---|---|---|",
        ]
        for d, op_type in sorted(by_operator):
            if d != domain:
                continue
            versions = by_operator[d, op_type]
            names = set().union(*(ops_of(f, op_type) for f in versions.values()))
            said = SPECIAL.get(op_type) or gradient(names, orders)
            shown = ", ".join(sorted(names - BESIDE - LAYOUT) or sorted(names)) or "-"
            numbers = " ".join(map(str, sorted(versions)))
            types = kinds_of(d, op_type, max(versions))
            lines.append(f"| {op_type} | {numbers} | {types} | {shown} | {said} |")
    return "\n".join(lines) + "\n"


def orders_checked(root: Path) -> dict[str, int]:
    """Return the highest derivative that the op table checks, by op; 0 where it is declared non-differentiable."""
    before = list(sys.path)
    sys.path.insert(0, str(root))
    try:
        cases = importlib.import_module("tests.ops.cases")
        names = [f"{cases.__name__}.{m.name}" for m in pkgutil.iter_modules(cases.__path__)]
        found: dict[str, int] = {}
        for case in (case for name in names for case in importlib.import_module(name).CASES):
            found[case.op.name] = max(found.get(case.op.name, 0), case.order or 0)
        return found
    finally:
        sys.path[:] = before


def main() -> int:
    """Print the page."""
    sys.stdout.write(page(orders_checked(Path.cwd())))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
