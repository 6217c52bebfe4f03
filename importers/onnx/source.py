"""The file that a model came from: its own facts, and how new weights go back into it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...ops.errors import OnnxGradError, UnsupportedError
from ...ops.types import Array, TensorType, ValueType
from ...runtime.graph.graph import Graph
from ...runtime.model.batch import mixing_node
from ...runtime.model.built import Built, ValueInfo
from ...runtime.passes.convert_values import widen_half
from ...runtime.passes.pipelines import PORTABLE
from ...runtime.passes.rewriting import run_passes
from .read import Weights
from .tensors import dtype_of
from .translate import Imported, Translator
from .types import value_type

if TYPE_CHECKING:
    import onnx


class OnnxSource:
    """An ONNX file without its large weights, which live in the model.

    Attributes:
        proto: the ModelProto as it was read, large tensors left empty.
        path: where it was read, or None.
        external: whether weights came from a file beside it.
    """

    def __init__(self, weights: Weights | Callable[[], Weights], path: Path | None, *, widen: bool = True) -> None:
        """Keep what was read, or what reads it; `widen` computes half-precision models in float32."""
        self._weights, self.path, self.widen = weights, path, widen
        self.replaced: dict[str, Array] = {}
        self._places: dict[str, Any] | None = None

    @property
    def weights(self) -> Weights:
        """The tensors of the file."""
        if not isinstance(self._weights, Weights):
            self._weights = self._weights()
        return self._weights

    @property
    def places(self) -> dict[str, Any]:
        """The TensorProtos that the tensors of the model came from, by name."""
        if self._places is None:
            self.build()
        assert self._places is not None
        return self._places

    @property
    def proto(self) -> onnx.ModelProto:
        """The ModelProto, large tensors left empty."""
        return self.weights.proto

    @property
    def external(self) -> bool:
        """Whether weights came from a file beside the model."""
        return self.weights.external

    @property
    def producer_name(self) -> str:
        """What wrote the file."""
        return str(self.proto.producer_name)

    @property
    def producer_version(self) -> str:
        """The version of what wrote the file."""
        return str(self.proto.producer_version)

    @property
    def ir_version(self) -> int:
        """The version of the file format."""
        return int(self.proto.ir_version)

    @property
    def doc(self) -> str:
        """The model's documentation."""
        return str(self.proto.doc_string or self.proto.graph.doc_string)

    @property
    def opset_imports(self) -> dict[str, int]:
        """The operator sets that the file imports, by domain; the standard one is `ai.onnx`."""
        return {(o.domain or "ai.onnx"): int(o.version) for o in self.proto.opset_import}

    @property
    def metadata(self) -> dict[str, str]:
        """The file's own key-value metadata."""
        return {p.key: p.value for p in self.proto.metadata_props}

    @property
    def operators(self) -> dict[str, int]:
        """How often each operator is used, in subgraphs too."""
        counts: Counter[str] = Counter()

        def visit(nodes: Iterable[onnx.NodeProto]) -> None:
            for n in nodes:
                counts[f"{n.domain}::{n.op_type}" if n.domain not in ("", "ai.onnx") else n.op_type] += 1
                for a in n.attribute:
                    for g in ([a.g] if a.HasField("g") else []) + list(a.graphs):
                        visit(g.node)

        visit(self.proto.graph.node)
        return dict(counts.most_common())

    def build(self) -> Built:
        """Translate the file.

        A leading input size of 1 becomes the symbol `batch`; where that cannot be translated, or would mix examples, it
        stays 1 and the reason is kept.
        """
        try:
            imported = Translator(self.weights, replaced=self.replaced).run()
        except UnsupportedError:
            raise
        except OnnxGradError as error:
            try:
                imported = Translator(self.weights, free_batch=False, replaced=self.replaced).run()
            except OnnxGradError:
                raise error from None
            return self._finish(imported, fixed=str(error))
        mixing = None if imported.batch is None else mixing_node(imported.graph, imported.batch)
        if mixing is None:
            return self._finish(imported)
        imported = Translator(self.weights, free_batch=False, replaced=self.replaced).run()
        return self._finish(imported, fixed=f"{mixing.source} works along the axis that counts the examples")

    def rebuild(self, arrays: dict[str, Array]) -> Built:
        """Translate the file again with these tensors, in its element types, for its own, and keep them for saving."""
        for name, array in arrays.items():
            if (place := self.places.get(name)) is not None:
                self.replaced[name] = array.astype(dtype_of(place.data_type), copy=False)
        return self.build()

    def _finish(self, imported: Imported, fixed: str | None = None) -> Built:
        self._places = imported.places
        graph: Graph = run_passes(imported.graph, [*PORTABLE, *([widen_half] if self.widen else [])]).graph
        initializers = {t.name for t in self.proto.graph.initializer}
        initializers |= {t.values.name for t in self.proto.graph.sparse_initializer}
        declared = [value_type(i.type, i.name) for i in self.proto.graph.input if i.name not in initializers]
        inputs = tuple(
            ValueInfo(v.name, _declared(v.type, said)) for v, said in zip(graph.inputs, declared, strict=True)
        )
        outputs = []
        for proto, value in zip(self.proto.graph.output, graph.outputs, strict=True):
            type_ = value.type
            if proto.type.WhichOneof("value") is not None:
                said = value_type(proto.type, proto.name)
                if isinstance(said, TensorType) and isinstance(type_, TensorType):
                    shape = said.known_shape if type_.known_shape is None else type_.known_shape
                    type_ = TensorType(said.dtype, shape)
            outputs.append(ValueInfo(proto.name, type_))
        freed = imported.batch is not None
        batch = f"fixed at 1: {fixed}" if fixed else ("dynamic: the file fixes 1" if freed else "as in the file")
        return Built(
            graph, imported.arrays, imported.roles, inputs, tuple(outputs), batch,
            batch_was_fixed=freed,
        )  # fmt: skip


def _declared(known: ValueType, said: ValueType) -> ValueType:
    """Return the type with the file's own element type, which widening has changed, and the shape that is used."""
    if isinstance(known, TensorType) and isinstance(said, TensorType):
        return TensorType(said.dtype, known.known_shape)
    return known
