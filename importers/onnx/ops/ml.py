"""Bindings: linear models and preprocessing of ai.onnx.ml, as compositions of ordinary ops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ....ops import index, layout, matmul as matmul_ops, normalize, pointwise as pw, rank, reduce
from ....ops.errors import UnsupportedAttributeError
from ....ops.types import STRING, Array
from ....runtime.graph.graph import current_graph
from ..node import NodeView
from ..registry import binds

ML = "ai.onnx.ml"
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
F32 = np.dtype(np.float32)


def floats(x: Any) -> Any:
    """Return x in floating point, float32 unless it is double."""
    return x if x.dtype == np.float64 or x.dtype == F32 else pw.cast(x, dtype="float32")


def row(values: Any, dtype: Any = F32) -> Array:
    """Return a list of numbers as an array."""
    return np.asarray(values, dtype)


def constant(array: Array) -> Any:
    """Return an array as a value of the graph that is being built."""
    graph = current_graph()
    assert graph is not None
    return graph.constant(array)


def texts(values: Any) -> Array:
    """Return a list of strings as an array of text."""
    out = np.empty(len(values), object)
    out[:] = values
    return out


def matrix(x: Any) -> Any:
    """Return a single row as a matrix of one."""
    return layout.unsqueeze(x, axes=(0,)) if x.ndim == 1 else x


def transformed(scores: Any, how: str) -> Any:
    """Apply a `post_transform` along the last axis."""
    axis = scores.ndim - 1
    match how:
        case "SOFTMAX":
            return normalize.softmax(scores, axis=axis)
        case "LOGISTIC":
            return pw.sigmoid(scores)
        case "SOFTMAX_ZERO":
            zero = pw.less(pw.abs_(scores), 1e-7)
            top = reduce.max_(scores, axes=(axis,), keepdims=True)
            powers = pw.where(zero, 0.0, pw.exp(pw.sub(scores, top)))
            return pw.div(powers, reduce.sum_(powers, axes=(axis,), keepdims=True))
        case "PROBIT":
            return probit(scores)
    return scores


def probit(p: Any) -> Any:
    """Return the normal quantile, right to three digits: the closed form of Winitzki 2008."""
    a = 0.147
    x = pw.sub(pw.mul(p, 2.0), 1.0)
    log = pw.log(pw.mul(pw.sub(1.0, x), pw.add(1.0, x)))
    half = pw.add(pw.mul(log, 0.5), 2.0 / (math.pi * a))
    root = pw.sqrt(pw.sub(pw.mul(half, half), pw.mul(log, 1.0 / a)))
    return pw.mul(pw.mul(pw.sign(x), pw.sqrt(pw.sub(root, half))), math.sqrt(2.0))


def transform_of(node: NodeView) -> str:
    """Return a node's `post_transform`."""
    return node.one_of("post_transform", "NONE", TRANSFORMS)


def labels_of(node: NodeView, integers: str) -> Array:
    """Return a classifier's labels: text or integers."""
    strings, numbers = node.attr("classlabels_strings"), node.attr(integers)
    if strings:
        return texts(strings)
    return row(numbers or [], np.int64)


def labelled(labels: Array, places: Any) -> Any:
    """Return the label at each place."""
    return index.gather(constant(labels), places, axis=0)


def two_columns(score: Any, probability: bool, how: str) -> Any:
    """Return the two columns that one score of two classes stands for; only LOGISTIC transforms it."""
    if how == "LOGISTIC":
        return layout.concat(pw.sigmoid(pw.neg(score)), pw.sigmoid(score), axis=1)
    return layout.concat(pw.sub(1.0, score) if probability else pw.neg(score), score, axis=1)


@binds("LinearRegressor", 1, domain=ML)
def linear_regressor(node: NodeView, x: Any) -> Any:
    targets = int(node.attr("targets", 1))
    coefficients = row(node.attr("coefficients")).reshape(targets, -1)
    y = matmul_ops.matmul(matrix(floats(x)), constant(coefficients.T.copy()))
    intercepts = node.attr("intercepts")
    if intercepts:
        y = pw.add(y, constant(row(intercepts)))
    return transformed(y, transform_of(node))


@binds("LinearClassifier", 1, domain=ML)
def linear_classifier(node: NodeView, x: Any) -> Any:
    """LinearClassifier: one score a class, or one for a binary one."""
    node.ignore("multi_class")
    labels, how = labels_of(node, "classlabels_ints"), transform_of(node)
    intercepts = row(node.attr("intercepts") or [])
    coefficients = row(node.attr("coefficients"))
    classes = len(intercepts) or len(labels)
    scores = matmul_ops.matmul(matrix(floats(x)), constant(coefficients.reshape(classes, -1).T.copy()))
    if len(intercepts):
        scores = pw.add(scores, constant(intercepts))
    if classes > 1:
        return labelled(labels, rank.argmax(scores, axis=1)), transformed(scores, how)
    places = pw.cast(pw.greater(layout.reshape(scores, shape=(-1,)), 0.0), dtype="int64")
    if len(labels) == 2:
        return labelled(labels, places), two_columns(scores, True, how)
    labels = texts(["0", "1"]) if labels.dtype == STRING else row([0, 1], np.int64)
    return labelled(labels, places), transformed(scores, how)


@binds("Normalizer", 1, domain=ML)
def normalizer(node: NodeView, x: Any) -> Any:
    """Normalizer: each row by its largest element, its sum of magnitudes or its length; a zero row stays."""
    norm = node.one_of("norm", "MAX", ("MAX", "L1", "L2"))
    x = pw.cast(x, dtype="float32")
    axes = (x.ndim - 1,)
    if norm == "MAX":
        size = reduce.max_(x, axes=axes, keepdims=True)
    elif norm == "L1":
        size = reduce.sum_(pw.abs_(x), axes=axes, keepdims=True)
    else:
        size = reduce.l2_norm(x, axes=axes, keepdims=True)
    return pw.div(x, pw.where(pw.equal(size, 0.0), 1.0, size))


@binds("Scaler", 1, domain=ML)
def scaler(node: NodeView, x: Any) -> Any:
    offset, scale = row(node.attr("offset", [0.0])), row(node.attr("scale", [1.0]))
    return pw.mul(pw.sub(pw.cast(x, dtype="float32"), constant(offset)), constant(scale))


@binds("Imputer", 1, domain=ML)
def imputer(node: NodeView, x: Any) -> Any:
    """Imputer: NaN is a value that can be replaced."""
    if x.dtype.kind == "f":
        node.ignore("imputed_value_int64s", "replaced_value_int64")
        values, old = (
            row(node.attr("imputed_value_floats"), x.dtype),
            float(node.attr("replaced_value_float", 0.0)),
        )
        hit = pw.isnan(x) if math.isnan(old) else pw.equal(x, constant(row([old], x.dtype)))
    else:
        node.ignore("imputed_value_floats", "replaced_value_float")
        values = row(node.attr("imputed_value_int64s"), x.dtype)
        hit = pw.equal(x, constant(row([node.attr("replaced_value_int64", 0)], x.dtype)))
    return pw.where(hit, constant(values), x)


@binds("Binarizer", 1, domain=ML)
def binarizer(node: NodeView, x: Any) -> Any:
    return pw.cast(pw.greater(x, float(node.attr("threshold", 0.0))), dtype=str(x.dtype))


@binds("FeatureVectorizer", 1, domain=ML)
def feature_vectorizer(node: NodeView, *xs: Any) -> Any:
    sizes = node.attr("inputdimensions")
    parts = [pw.cast(matrix(x), dtype="float32") for x in xs]
    if sizes is not None and len(sizes) != len(parts):
        raise UnsupportedAttributeError(f"{node}: {len(sizes)} inputdimensions for {len(parts)} inputs")
    return layout.concat(*parts, axis=1)


@binds("ArrayFeatureExtractor", 1, domain=ML)
def array_feature_extractor(node: NodeView, x: Any, places: Any) -> Any:
    found = index.gather(matrix(x), layout.reshape(places, shape=(-1,)), axis=max(1, x.ndim - 1))
    return found
