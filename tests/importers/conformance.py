"""The standard's own tests as data: models with inputs, the outputs that they have to give, and how close.

The node tests are Python modules that make their cases when they are imported; so a module is imported when its cases
are asked for.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib
import json
import pkgutil
import sys
import tomllib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case import node as node_cases

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
WAIVERS = Path(__file__).with_name("waivers.toml")
HALF_RTOL = {"float16": 2.0**-9, "bfloat16": 2.0**-6}
"""Two units in the last place, as the standard's own runner allows bfloat16: an operator that rounds once differs
that much from steps that each round."""


@dataclass(frozen=True)
class Case:
    """A model with inputs and the outputs that it has to give."""

    suite: str
    name: str
    model: onnx.ModelProto
    data_sets: Sequence[tuple[Sequence[Any], Sequence[Any]]]
    rtol: float
    atol: float

    @property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        """The graph inputs that are fed."""
        weights = {t.name for t in self.model.graph.initializer}
        return [i for i in self.model.graph.input if i.name not in weights]


@functools.cache
def node_modules() -> tuple[str, ...]:
    """Return the modules of the standard's node tests, without importing them."""
    root, prefix = node_cases.__path__, f"{node_cases.__name__}."
    inner = [m for m in pkgutil.iter_modules(root, prefix) if m.ispkg]
    found = [m.name for m in pkgutil.iter_modules(root, prefix) if not m.ispkg]
    for package in inner:
        path = [str(Path(root[0]) / package.name.rpartition(".")[2])]
        found += [m.name for m in pkgutil.iter_modules(path, f"{package.name}.")]
    return tuple(m for m in found if not m.rpartition(".")[2].startswith("_"))


_OWNER: dict[str, str] = {}


@functools.cache
def node_tests(module: str) -> tuple[Case, ...]:
    """Return the cases that a module makes when it is run; one that others import too belongs to the first."""
    kept = node_cases._NodeTestCases, node_cases._existing_names
    node_cases._NodeTestCases, node_cases._existing_names = [], {}
    again = sys.modules.get(module)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if again:
                importlib.reload(again)
            else:
                importlib.import_module(module)
        made, names = node_cases._NodeTestCases, node_cases._existing_names
    finally:
        node_cases._NodeTestCases, node_cases._existing_names = kept
    if not again:
        node_cases._NodeTestCases.extend(made)
        node_cases._existing_names.update(names)
    return tuple(
        Case("node", c.name, c.model, [tuple(map(_values, s)) for s in c.data_sets], c.rtol, c.atol)
        for c in made
        if _OWNER.setdefault(c.name, module) == module
    )


def _values(values: Sequence[Any]) -> list[Any]:
    return [numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else v for v in values]


def stored_names(suite: str) -> list[str]:
    """Return the names of the cases that lie in a folder of the onnx package."""
    return sorted(p.name for p in (DATA / suite).iterdir() if p.is_dir() and p.name.startswith("test_"))


def stored_test(suite: str, name: str) -> Case:
    """Return a case that lies in a folder of the onnx package."""
    folder = DATA / suite / name
    facts = json.loads((folder / "data.json").read_text()) if (folder / "data.json").exists() else {}
    tolerances = facts.get("rtol", 1e-3), facts.get("atol", 1e-7)
    if "url" in facts:
        return _light(suite, name, DATA / "light" / Path(facts["url"]).name, *tolerances)
    model = onnx.load(folder / "model.onnx")
    case = Case(suite, name, model, [], *tolerances)
    sets = [
        (
            [_read(f / f"input_{k}.pb", i.type) for k, i in enumerate(case.inputs)],
            [_read(f / f"output_{k}.pb", o.type) for k, o in enumerate(model.graph.output)],
        )
        for f in sorted(folder.glob("test_data_set_*"))
    ]
    assert sets, folder
    return Case(suite, name, model, sets, *tolerances)


def _light(suite: str, name: str, file: Path, rtol: float, atol: float) -> Case:
    """Return a real network with made-up weights, fed with a ramp as the standard's runner does."""
    model = onnx.load(file)
    case = Case(suite, name, model, [], rtol, atol)
    shapes = [[d.dim_value or 1 for d in i.type.tensor_type.shape.dim] for i in case.inputs]
    ramps = [(np.arange(np.prod(s)).reshape(s) / np.prod(s)).astype(np.float32) for s in shapes]
    wanted = [_read(file.with_name(f"{file.stem}_output_{k}.pb"), o.type) for k, o in enumerate(model.graph.output)]
    return Case(suite, name, model, [(ramps, wanted)], rtol, atol)


def _read(file: Path, type_: onnx.TypeProto) -> Any:
    data = file.read_bytes()
    match type_.WhichOneof("value"):
        case "sequence_type":
            return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
        case "optional_type":
            return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    return numpy_helper.to_array(onnx.TensorProto.FromString(data))


def compare(found: Any, wanted: Any, case: Case) -> None:
    """Check a value against the file's: its kind, element type, shape and numbers."""
    if wanted is None:
        assert found is None or not np.size(found), f"found {found!r}, wanted nothing"
    elif isinstance(wanted, dict):
        assert dict(found).keys() == wanted.keys()
        for key, value in wanted.items():
            compare(np.asarray(found[key]), np.asarray(value, np.asarray(found[key]).dtype), case)
    elif isinstance(wanted, list | tuple):
        assert isinstance(found, list | tuple), f"found {type(found).__name__}, wanted a sequence"
        assert len(found) == len(wanted), f"found {len(found)} values, wanted {len(wanted)}"
        for f, w in zip(found, wanted, strict=True):
            compare(f, w, case)
    else:
        _compare_arrays(found, np.asarray(wanted), case)


def _compare_arrays(found: Any, wanted: np.ndarray, case: Case) -> None:
    assert isinstance(found, np.ndarray), f"found {type(found).__name__}, wanted an array"
    assert found.shape == wanted.shape, f"found shape {found.shape}, wanted {wanted.shape}"
    if wanted.dtype.kind in "OSU":
        assert found.dtype == object
        assert list(map(_text, found.flat)) == list(map(_text, wanted.flat))
        return
    assert found.dtype == wanted.dtype, f"found {found.dtype}, wanted {wanted.dtype}"
    if wanted.dtype.kind in "fcV":
        rtol = max(case.rtol, HALF_RTOL.get(wanted.dtype.name, 0))
        exact = wanted.dtype.itemsize == 1
        if wanted.dtype.kind == "V":  # ml_dtypes' types, which NumPy does not compare with a tolerance
            found, wanted = found.astype(np.float32), wanted.astype(np.float32)
        np.testing.assert_allclose(found, wanted, rtol=0 if exact else rtol, atol=0 if exact else case.atol)
    else:
        np.testing.assert_array_equal(found, wanted)


def _text(s: Any) -> str:
    return s.decode() if isinstance(s, bytes) else str(s)


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph, those of its subgraphs too."""
    for node in graph.node:
        yield node
        for a in node.attribute:
            for g in ([a.g] if a.HasField("g") else []) + list(a.graphs):
                yield from nodes_of(g)


@functools.cache
def _waivers() -> tuple[tuple[str, str, str], ...]:
    rows = tomllib.loads(WAIVERS.read_text()).get("waiver", [])
    return tuple((row["suite"], pattern, row["reason"]) for row in rows for pattern in row["names"])


def waiver(case: Case) -> str | None:
    """Return why a case is known to fail, or None."""
    for suite, pattern, reason in _waivers():
        if suite == case.suite and fnmatch.fnmatchcase(case.name, pattern):
            return reason
    return None


def unused_waivers(suite: str, names: Sequence[str]) -> list[str]:
    """Return the patterns of a suite that match none of these names."""
    return [p for s, p, _ in _waivers() if s == suite and not fnmatch.filter(names, p)]
