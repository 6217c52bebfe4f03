"""Bindings: encoders of ai.onnx.ml. The three kinds of keys, values and defaults become one table here."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ops import encode as encode_ops
from ....ops.encode import Table
from ....ops.errors import UnsupportedAttributeError
from ....ops.types import STRING, Array
from ..node import NodeView
from ..registry import binds
from .ml import ML, texts

DEFAULTS: dict[str, Any] = {"strings": "_Unused", "int64s": -1, "floats": -0.0}
SINGULAR = {"strings": "string", "int64s": "int64", "floats": "float"}
DTYPES = {"int64s": np.int64, "floats": np.float32}


def _array(values: Any, kind: str) -> Array:
    return texts(values) if kind == "strings" else np.asarray(values, DTYPES[kind])


def _listed(node: NodeView, name: str) -> tuple[Array, str]:
    """Return the keys or values of a node, from the list or tensor that it carries, and their kind."""
    lists = {kind: node.attr(f"{name}_{kind}") for kind in DEFAULTS}
    found = [(kind, v) for kind, v in lists.items() if v]
    tensor = node.attr(f"{name}_tensor") if node.since_version >= 4 else None
    if len(found) + (tensor is not None) != 1:
        raise UnsupportedAttributeError(f"{node}: wants one of {name}_strings, _int64s, _floats (or _tensor)")
    if tensor is not None:
        array = np.asarray(tensor).reshape(-1)
        return (
            array,
            "strings" if array.dtype == STRING else "floats" if array.dtype.kind == "f" else "int64s",
        )
    kind, values = found[0]
    return _array(values, kind), kind


@binds("LabelEncoder", 2, 4, domain=ML)
def label_encoder(node: NodeView, x: Any) -> Any:
    keys, _ = _listed(node, "keys")
    values, kind = _listed(node, "values")
    if len(keys) != len(values):
        raise UnsupportedAttributeError(f"{node}: {len(keys)} keys for {len(values)} values")
    defaults = {k: node.attr(f"default_{SINGULAR[k]}", d) for k, d in DEFAULTS.items()}
    default = defaults[kind]
    tensor = node.attr("default_tensor") if node.since_version >= 4 else None
    if tensor is not None:
        default = np.asarray(tensor).reshape(-1)[0]
    return encode_ops.label_encode(x, table=Table(keys, values, default))


@binds("LabelEncoder", 1, domain=ML)
def label_encoder_1(node: NodeView, x: Any) -> Any:
    """LabelEncoder-1: text to its place in a list, or back."""
    names = texts(node.attr("classes_strings") or [])
    places = np.arange(len(names))
    text, number = node.attr("default_string", "_Unused"), node.attr("default_int64", -1)
    table = Table(names, places, number) if x.dtype == STRING else Table(places, names, text)
    return encode_ops.label_encode(x, table=table)


@binds("CategoryMapper", 1, domain=ML)
def category_mapper(node: NodeView, x: Any) -> Any:
    names, numbers = (
        texts(node.attr("cats_strings") or []),
        np.asarray(node.attr("cats_int64s") or [], np.int64),
    )
    text, number = node.attr("default_string", "_Unused"), node.attr("default_int64", -1)
    table = Table(names, numbers, number) if x.dtype == STRING else Table(numbers, names, text)
    return encode_ops.label_encode(x, table=table)


@binds("OneHotEncoder", 1, domain=ML)
def one_hot_encoder(node: NodeView, x: Any) -> Any:
    strings, integers = node.attr("cats_strings") or [], node.attr("cats_int64s") or []
    categories = tuple(strings if x.dtype == STRING else integers)
    return encode_ops.one_hot_encode(x, categories=categories, zeros=bool(node.attr("zeros", 1)))


@binds("DictVectorizer", 1, domain=ML)
def dict_vectorizer(node: NodeView, x: Any) -> Any:
    vocabulary = (node.attr("string_vocabulary") or []) + (node.attr("int64_vocabulary") or [])
    return encode_ops.dict_vectorize(x, vocabulary=tuple(vocabulary))


@binds("CastMap", 1, domain=ML)
def cast_map(node: NodeView, x: Any) -> Any:
    to = {"TO_FLOAT": "float32", "TO_STRING": "object", "TO_INT64": "int64"}
    dtype = to[node.one_of("cast_to", "TO_FLOAT", tuple(to))]
    sparse = node.one_of("map_form", "DENSE", ("DENSE", "SPARSE")) == "SPARSE"
    size = int(node.attr("max_map", 1))
    return encode_ops.cast_map(x, dtype=dtype, size=size if sparse else None)


@binds("ZipMap", 1, domain=ML)
def zip_map(node: NodeView, x: Any) -> Any:
    keys = (node.attr("classlabels_strings") or []) + (node.attr("classlabels_int64s") or [])
    return encode_ops.zip_map(x, keys=tuple(keys))
