"""What loading has found out about a file, kept for the next process that loads it.

An entry of the cache says how the inputs and outputs are declared, which tensors are state, and where in the file they
lie. With it a model is there at once; the file is parsed and translated when somebody asks for its graph. The entry is
for files that are equal in every byte that translation has looked at: all of a small file; of a large one all but the
weights that stay in it, which may differ. It is written together with the first program that is kept of the model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops.dims import Dim, DimLike, Larger, Quotient
from ...ops.kernels.cpu.target import available
from ...ops.types import Array, TensorType, ValueType
from ...runtime.files.archive import code_version, element_type, pack, unpack
from ...runtime.model.built import Built, Note, Recalled, ValueInfo
from ...runtime.model.report import Role
from ...runtime.tensor.stored import StoredArray, StoredFile
from .registry import BINDINGS
from .wire import without_weights

if TYPE_CHECKING:
    from .source import OnnxSource

_PACKAGE = __package__.removesuffix("importers.onnx")

LIMIT_BYTES = 4 << 20
"""State that does not lie in the file as arrays do is kept in the entry, up to this much."""


def recall(opened: StoredFile | bytes, source: OnnxSource) -> Recalled | None:
    """Return what is remembered of a file, or None."""
    content = _bytes(opened)
    hint = _hint(opened, source.widen)
    if hint is None:
        return None
    from ...ops.kernels.cpu import cache

    data = cache.read(hint, cache.PLAN)
    if data is None:
        return None
    try:
        facts, arrays = unpack(data)
        if isinstance(opened, StoredFile) and _digest(content, facts["unseen"]) != facts["digest"]:
            return None
        state = {
            n: (_lying(opened, content, place, arrays), element_type(wanted)) for n, wanted, place in facts["state"]
        }
        reasons = facts["reasons"]
        return Recalled(
            Note(f"{hint} {facts['digest']}", _nothing), state, [_type(t) for t in facts["fed"]],
            {n: Role(kind, reasons[why]) for n, kind, why in facts["roles"]},
            tuple(ValueInfo(n, _type(t)) for n, t in facts["inputs"]),
            tuple(ValueInfo(n, _type(t)) for n, t in facts["outputs"]), facts["batch"], facts["fixed"], source.build,
        )  # fmt: skip
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        cache.warn_once(f"a plan in {cache.folder()} cannot be used ({error}); it is made again")
        return None


def noted(opened: StoredFile | bytes, source: OnnxSource, built: Built) -> Note | None:
    """Return what is to be remembered of a file that was just translated; None where that would not be enough."""
    content = _bytes(opened)
    hint = _hint(opened, source.widen)
    declared = [*(i.type for i in (*built.inputs, *built.outputs)), *built.fed]
    if hint is None or source.external or built.graph.key is not None or not all(map(_is_plain, declared)):
        return None
    if not all(f.__module__.startswith(_PACKAGE) for f in BINDINGS.values()):
        return None
    arrays: list[Array] = []
    places = _places(content, source)
    reasons: dict[str, int] = {}
    unseen = sorted(
        (a.offset, a.offset + a.size * a.stored.itemsize) for a in source.weights.arrays.values()
        if isinstance(a, StoredArray) and a.file is opened and not a.seen
    )  # fmt: skip
    facts = {
        "digest": _digest(content, unseen) if isinstance(opened, StoredFile) else hint,
        "unseen": unseen,
        "state": [[n, w.name, _place(content, a, places.get(n), arrays)] for n, (a, w) in built.state.items()],
        "roles": [[n, r.kind, reasons.setdefault(r.reason, len(reasons))] for n, r in built.roles.items()],
        "fed": [_said(t) for t in built.fed],
        "inputs": [[i.name, _said(i.type)] for i in built.inputs],
        "outputs": [[o.name, _said(o.type)] for o in built.outputs],
        "batch": built.batch,
        "fixed": built.batch_was_fixed,
        "reasons": list(reasons),
    }
    if sum(a.nbytes for a in arrays) > LIMIT_BYTES:
        return None
    return Note(f"{hint} {facts['digest']}", partial(_write, hint, facts, arrays))


def _write(hint: str, facts: dict[str, Any], arrays: Sequence[Array]) -> None:
    from ...ops.kernels.cpu import cache

    cache.write(hint, pack(facts, arrays), cache.PLAN)


def _nothing() -> None:
    """Write nothing: it is there."""


def _bytes(opened: StoredFile | bytes) -> Any:
    return opened.mapped() if isinstance(opened, StoredFile) else opened


def _hint(opened: StoredFile | bytes, widen: bool) -> str | None:
    """Return the key of the entry that may be for a file: a small one's content, a large one's place."""
    if not available() or (version := code_version()) is None:
        return None
    where = f"{opened.path.resolve()} {opened.size}" if isinstance(opened, StoredFile) else _digest(opened, ())
    return hashlib.sha256(f"{version}\n{widen} {where}".encode()).hexdigest()


def _digest(data: Any, unseen: Sequence[Sequence[int]]) -> str:
    """Return the hash of a file but for some of its bytes."""
    digest, at = hashlib.sha256(repr([[*span] for span in unseen]).encode()), 0
    with memoryview(data) as view:
        for start, end in unseen:
            digest.update(view[at:start])
            at = end
        digest.update(view[at:])
    return digest.hexdigest()


# where tensors lie ---------------------------------------------------------------------------------------------------


def _places(data: Any, source: OnnxSource) -> dict[str, int]:
    """Return where in the bytes of a file the data of each initializer begins."""
    found = without_weights(data, least=1)
    if found is None:
        return {}
    return {t.name: found[1][i].start for i, t in enumerate(source.proto.graph.initializer) if i in found[1]}


def _place(data: Any, array: Array | StoredArray, start: int | None, arrays: list[Array]) -> Any:
    """Return where an array lies in the file, whether it stays there, and how; its number where it is kept apart."""
    if isinstance(array, StoredArray):
        return [array.offset, True, array.stored.name, array.shape]
    if start is not None and data[start : start + array.nbytes] == array.tobytes():
        return [start, False, array.dtype.name, array.shape]
    arrays.append(array)
    return len(arrays) - 1


def _lying(opened: StoredFile | bytes, data: Any, place: Any, arrays: Sequence[Array]) -> Array | StoredArray:
    if isinstance(place, int):
        return arrays[place].copy()
    start, stays, name, shape = place
    if stays and isinstance(opened, StoredFile):
        return StoredArray(opened, start, element_type(name), shape)
    return np.ndarray(shape, element_type(name), buffer=data, offset=start).copy()


# types ---------------------------------------------------------------------------------------------------------------


def _is_plain(t: ValueType) -> bool:
    return isinstance(t, TensorType) and t.contents is None and not t.dtype.hasobject


def _said(t: Any) -> Any:
    return [t.dtype.name, None if t.known_shape is None else [_dim_said(d) for d in t.known_shape]]


def _type(said: Any) -> TensorType:
    name, shape = said
    return TensorType(element_type(name), None if shape is None else tuple(map(_dim, shape)))


def _dim_said(d: DimLike) -> Any:
    if not isinstance(d, Dim):
        return int(d)
    return [[[_atom_said(a) for a in monomial], factor] for monomial, factor in d.terms]


def _dim(said: Any) -> DimLike:
    return said if isinstance(said, int) else Dim([(tuple(map(_atom, monomial)), factor) for monomial, factor in said])


def _atom_said(a: Any) -> Any:
    if isinstance(a, Quotient):
        return {"num": _dim_said(a.num), "den": _dim_said(a.den), "mod": a.mod}
    return {"a": _dim_said(a.a), "b": _dim_said(a.b)} if isinstance(a, Larger) else a


def _atom(said: Any) -> Any:
    if isinstance(said, str):
        return said
    return (
        Quotient(_dim(said["num"]), _dim(said["den"]), said["mod"])
        if "num" in said
        else Larger(_dim(said["a"]), _dim(said["b"]))
    )
