"""Which tensors of a file are parameters, which are buffers, which are constants, and why.

A float tensor is a parameter where it ends in a weight position: the weight of a Conv, an operand of a MatMul, a table
that is gathered from, a scale or bias that is multiplied or added. It may get there through wrappers (Transpose, Cast,
Slice ..., or arithmetic among constants). This is decided on the ONNX nodes, so that the names are the file's own.

Where the exporter says what a tensor is, that holds: `export` and PyTorch's newer one write it beside each weight, and
PyTorch's older one writes the module's tensors as initializers, under their names, and its own constants as Constant
nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...ops.types import Array, is_float
from ...runtime.model.report import Role
from ...runtime.tensor.stored import StoredArray, lying

if TYPE_CHECKING:
    import onnx

_ALL = frozenset(range(64))

PARAMETERS: dict[str, frozenset[int]] = {
    "Conv": frozenset({1, 2}), "ConvTranspose": frozenset({1, 2}), "DeformConv": frozenset({1, 3}),
    "FusedConv": frozenset({1, 2}), "Gemm": _ALL, "FusedGemm": _ALL, "MatMul": _ALL, "FusedMatMul": _ALL,
    "FusedMatMulActivation": _ALL, "NhwcFusedConv": frozenset({1, 2}), "MatMulNBits": frozenset({5}),
    "ConvTransposeWithDynamicPads": frozenset({1, 3}), "DynamicQuantizeLSTM": frozenset({3, 7}), "Einsum": _ALL,
    "TransposeMatMul": _ALL, "BatchNormalization": frozenset({1, 2}), "InstanceNormalization": frozenset({1, 2}),
    "LayerNormalization": frozenset({1, 2}), "GroupNormalization": frozenset({1, 2}),
    "RMSNormalization": frozenset({1}),
    "SimplifiedLayerNormalization": frozenset({1}), "SkipLayerNormalization": frozenset({2, 3, 4}),
    "SkipSimplifiedLayerNormalization": frozenset({2, 3}), "EmbedLayerNormalization": frozenset({2, 3, 4, 5, 6}),
    "AffineGrid": frozenset({0}), "GridSample": frozenset({0}),
    "Attention": frozenset({1, 2}), "MultiHeadAttention": frozenset({3}), "BiasGelu": frozenset({1}),
    "BiasSplitGelu": frozenset({1}), "FastGelu": frozenset({1}), "PRelu": frozenset({1}),
    "LSTM": frozenset({1, 2, 3, 7}), "GRU": frozenset({1, 2, 3}), "RNN": frozenset({1, 2, 3}),
}  # fmt: skip
"""The weight positions of operators that have some, by input index."""

BUFFERS: dict[str, frozenset[int]] = {
    "BatchNormalization": frozenset({3, 4}), "STFT": frozenset({2}), "MelWeightMatrix": _ALL,
    "QuantizeLinear": frozenset({1}), "DequantizeLinear": frozenset({1}), "QLinearConv": _ALL, "QLinearMatMul": _ALL,
    "MatMulNBits": frozenset({2, 3}), "GatherBlockQuantized": frozenset({2}),
    "DynamicQuantizeLSTM": frozenset({5, 6, 8, 10}),
    "LSTM": frozenset({5, 6}), "GRU": frozenset({5}), "RNN": frozenset({5}),
}  # fmt: skip
"""Positions of state that training does not change by gradient: running statistics, quantisation scales, windows."""

ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Sum"})
WRAPPERS = frozenset(
    {"Identity", "Transpose", "Cast", "CastLike", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Slice",
     "Split", "Concat", "Tile", "Pad", "SplitToSequence", "SequenceAt", "SequenceConstruct", "ConcatFromSequence",
     "DequantizeLinear", "ScatterND", "ScatterElements", "Resize"}
)  # fmt: skip
"""Operators that hand a weight on: what they make is a weight if what they take is."""
SCALED = frozenset({"QuantizeLinear", "DequantizeLinear"})
"""Operators that hand on their first input alone, among constants too: the others are scales and zero points."""

SAID = "pkg.torch.export.graph_signature.InputSpec.kind"
"""Under which PyTorch's newer exporter writes what a tensor of the module is."""
ROLE = "onnxgrad.role"
"""Under which `export` writes it: parameter, buffer or constant."""


@dataclass
class _Use:
    node: onnx.NodeProto
    index: int
    scope: _Scope


@dataclass
class _Scope:
    """The nodes of one graph or function body, with who reads each name."""

    uses: dict[str, list[_Use]] = field(default_factory=dict)
    made_by: dict[str, onnx.NodeProto] = field(default_factory=dict)
    inputs: frozenset[str] = frozenset()


class Roles:
    """Decides the role of every tensor of a model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Index who reads what, in subgraphs and model-local functions too."""
        self._functions = {(f.domain, f.name): f for f in model.functions}
        initializers = {t.name for t in model.graph.initializer}
        self._said = {v.name: p.value for v in model.graph.value_info for p in v.metadata_props if p.key == SAID}
        self._own = {v.name: p.value for v in model.graph.value_info for p in v.metadata_props if p.key == ROLE}
        self._named_by_module = _named_by_module(model)
        self.main = self._index(model.graph.node, [i.name for i in model.graph.input if i.name not in initializers])
        self._mark(model.graph)

    def _index(self, nodes: Iterable[onnx.NodeProto], inputs: Iterable[str], scope: _Scope | None = None) -> _Scope:
        scope = scope or _Scope(inputs=frozenset(inputs))
        for node in nodes:
            for name in node.output:
                scope.made_by.setdefault(name, node)
            for index, name in enumerate(node.input):
                scope.uses.setdefault(name, []).append(_Use(node, index, scope))
            for a in node.attribute:
                for g in ([a.g] if a.HasField("g") else []) + list(a.graphs):
                    self._index(g.node, (), scope)
        return scope

    def _mark(self, graph: onnx.GraphProto) -> None:
        """Mark the names that depend on constants alone."""
        names = self._constants = {t.name for t in graph.initializer}

        def visit(g: onnx.GraphProto) -> None:
            names.update(t.name for t in g.initializer)
            for node in g.node:
                if node.op_type == "Constant" or (node.input and all(n in names or not n for n in node.input)):
                    names.update(node.output)
                for a in node.attribute:
                    for sub in ([a.g] if a.HasField("g") else []) + list(a.graphs):
                        visit(sub)

        visit(graph)

    def role(self, name: str, array: Array | StoredArray) -> Role:
        """Return the role of a tensor, and the reason."""
        if not is_float(array.dtype):
            return Role("constant", f"{array.dtype} values have no gradient")
        if (own := self._own.get(name)) in ("parameter", "buffer", "constant"):
            return Role(own, "the file says so")
        found: list[Role] = []
        maker = self.main.made_by.get(name)
        if self._named_by_module and maker is not None and maker.op_type == "Constant":
            return Role("constant", "a constant of the exporter's, not a tensor of the module")
        for use, via in self._ends(name, self.main, set(), ()):
            found.append(self._judge(use, via, array, name))
        said = self._said.get(name)
        if said == "PARAMETER" and found:
            return Role("parameter", f"the file says so, {found[0].reason}")
        if said is not None and any(role.kind != "constant" for role in found):
            return Role("buffer", f"the file says so, {found[0].reason}")
        if self._said and said is None and array.size > 1 and not varies(array):
            return Role("constant", "filler that the exporter made")
        for kind in ("parameter", "buffer"):
            for role in found:
                if role.kind == kind:
                    return role
        return found[0] if found else Role("constant", "nothing that runs reads it")

    def _ends(
        self, name: str, scope: _Scope, seen: set[tuple[int, str]], via: tuple[str, ...]
    ) -> Iterator[tuple[_Use, tuple[str, ...]]]:
        """Yield the uses that a name ends in, through wrappers, and the wrappers' operators."""
        if (id(scope), name) in seen:
            return
        seen.add((id(scope), name))
        for use in scope.uses.get(name, ()):
            node = use.node
            function = self._functions.get((node.domain, node.op_type))
            if function is not None:
                if use.index < len(function.input) and len(via) < 64:
                    inner = self._index(function.node, function.input)
                    yield from self._ends(function.input[use.index], inner, seen, (*via, node.op_type))
                continue
            arithmetic_on_constants = scope is self.main and all(o in self._constants for o in node.output if o)
            if use.index in PARAMETERS.get(node.op_type, ()):
                yield use, via
                continue
            hands_on = node.op_type in WRAPPERS and use.index == 0
            if hands_on or node.op_type in ("Concat", "SequenceConstruct") or (
                arithmetic_on_constants and not (node.op_type in SCALED and use.index > 0)
            ):  # fmt: skip
                for out in node.output:
                    yield from self._ends(out, scope, seen, (*via, node.op_type))
                if node.op_type == "Concat" and not arithmetic_on_constants:
                    yield use, via
                continue
            yield use, via

    def _judge(self, use: _Use, via: tuple[str, ...], array: Array | StoredArray, name: str) -> Role:
        op, where = use.node.op_type, f"{use.node.op_type} {use.node.name!r}".replace(" ''", "")
        through = f" through {', '.join(dict.fromkeys(via))}" if via else ""
        if array.size == 1 and name not in self._named_by_module and ("Expand" in via or not WRAPPERS.issuperset(via)):
            return Role("constant", f"scalar that {where} takes{through}")
        if use.index in PARAMETERS.get(op, ()):
            return Role("parameter", f"input {use.index} of {where}{through}")
        if use.index in BUFFERS.get(op, ()):
            return Role("buffer", f"input {use.index} of {where}{through}")
        if op == "Gather" and use.index == 0:
            if array.ndim >= 2:
                return Role("parameter", f"table that {where} gathers from{through}")
            return Role("constant", f"a list that {where} picks from{through}")
        if op in ("GatherND", "GatherElements") and use.index == 0:
            return Role("parameter", f"table that {where} gathers from{through}")
        if op in ("Concat", "Where") and looks_counted(array):
            return Role("constant", f"whole numbers that {where} takes{through}")
        varied = varies(array)
        if op == "Where" and use.index > 0 and varied and not looks_like_mask(array):
            return Role("parameter", f"learned values that {where} picks{through}")
        if op == "Concat":
            if array.ndim >= 2 and varied:
                return Role("parameter", f"learned values joined by {where}{through}")
            return Role("constant", f"filler joined by {where}{through}")
        if op == "Pow" and use.index == 1 and name in self._named_by_module:
            return Role("parameter", f"exponent of {where}{through}")
        if op in ARITHMETIC:
            return self._operand(use, where, through, array, name)
        return Role("constant", f"input {use.index} of {where}{through}, not a weight position")

    def _operand(self, use: _Use, where: str, through: str, array: Array | StoredArray, name: str) -> Role:
        others = [n for i, n in enumerate(use.node.input) if i != use.index]
        other_ops = {use.scope.made_by[n].op_type for n in others if n in use.scope.made_by}
        if array.size == 1:
            after_product = use.node.op_type == "Add" and other_ops & {
                "MatMul",
                "Conv",
                "ConvTranspose",
                "Gemm",
            }
            if after_product and array.ndim >= 1:
                return Role("parameter", f"bias added by {where}{through}")
            if name in self._named_by_module:
                return Role("parameter", f"scalar of the module in {where}{through}")
            return Role("constant", f"scalar operand of {where}{through}")
        if looks_like_mask(array):
            return Role("constant", f"mask applied by {where}{through}")
        if looks_counted(array):
            return Role("constant", f"whole numbers in {where}{through}")
        if use.node.op_type in ("Sub", "Div", "Mul") and any(n in use.scope.inputs for n in others):
            return Role("buffer", f"normalises the model's input in {where}{through}")
        return Role("parameter", f"operand of {where}{through}")


def looks_like_mask(array: Array | StoredArray) -> bool:
    """Whether an array holds a few values of which one is 0 and one is huge, or only 0 and 1."""
    sample = lying(array).reshape(-1)[:65536]
    values = np.unique(sample.astype(np.float64))
    if values.size > 2 or values.size == 0:
        return False
    huge = bool(np.any(values <= -1e4) or np.any(np.isinf(values)))
    return huge or (values.size == 2 and values.tolist() == [0.0, 1.0])


def varies(array: Array | StoredArray) -> bool:
    """Whether an array holds different values."""
    flat = lying(array).reshape(-1)
    return bool(flat.size > 1 and ((flat[:4096] != flat[0]).any() or (flat != flat[0]).any()))


def looks_counted(array: Array | StoredArray) -> bool:
    """Whether an array holds whole numbers, three different ones or more: positions, a grid, sizes of anchors."""
    values = lying(array).reshape(-1)[:65536].astype(np.float64)
    return bool(np.isfinite(values).all() and np.array_equal(values, np.round(values)) and np.unique(values).size > 2)


def _named_by_module(model: onnx.ModelProto) -> frozenset[str]:
    """Return the initializers that carry the names of a module's tensors, in a file of PyTorch's older exporter."""
    nodes = model.graph.node
    if model.producer_name != "pytorch" or any(n.name.startswith("node_") for n in nodes):
        return frozenset()
    names = (t.name for t in model.graph.initializer)
    return frozenset(n for n in names if not (n.startswith(("onnx::", "/")) or n.isdigit()))
