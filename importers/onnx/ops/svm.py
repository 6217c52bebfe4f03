"""Bindings: support vector machines of ai.onnx.ml, as compositions of ordinary ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ....ops import matmul as matmul_ops, pairwise, pointwise as pw, rank, reduce
from ....ops.errors import UnsupportedAttributeError
from ....ops.types import Array
from ..node import NodeView
from ..registry import binds
from .ml import ML, constant, labelled, labels_of, matrix, row, transform_of, transformed, two_columns

KERNELS = ("LINEAR", "POLY", "RBF", "SIGMOID")
LEAST = 1e-7
"""Probabilities of pairs are kept so far from 0 and 1."""


def _kernel(node: NodeView) -> Callable[[Any, Array], Any]:
    """Return the function of examples and support vectors that a node names."""
    kind = node.one_of("kernel_type", "LINEAR", KERNELS)
    gamma, offset, degree = node.attr("kernel_params") or [0.0, 0.0, 0.0]

    def dot(x: Any, vectors: Array) -> Any:
        return matmul_ops.matmul(x, constant(vectors.T.copy()))

    def rbf(x: Any, vectors: Array) -> Any:
        wide, others = pw.cast(x, dtype="float64"), vectors.astype(np.float64)
        square = reduce.sum_(pw.mul(wide, wide), axes=(1,), keepdims=True)
        lengths = constant((others * others).sum(axis=1))
        distance = pw.add(pw.sub(square, pw.mul(dot(wide, others), 2.0)), lengths)
        return pw.cast(pw.exp(pw.mul(distance, -gamma)), dtype="float32")

    def scaled(x: Any, vectors: Array) -> Any:
        return pw.add(pw.mul(dot(x, vectors), gamma), offset)

    match kind:
        case "POLY":
            return lambda x, v: pw.pow_(scaled(x, v), degree)
        case "SIGMOID":
            return lambda x, v: pw.tanh(scaled(x, v))
        case "RBF":
            return rbf
    return dot


def _rows(node: NodeView, name: str, count: int) -> Array:
    """Return a list of numbers as so many rows of equal length."""
    values = row(node.attr(name) or [])
    if not count or len(values) % count:
        raise UnsupportedAttributeError(f"{node}: {name} has {len(values)} elements, wanted {count} rows")
    return values.reshape(count, -1)


def _listed(node: NodeView, name: str, count: int) -> Array:
    """Return the first so many of a list of numbers."""
    values = row(node.attr(name) or [])
    if len(values) < count:
        raise UnsupportedAttributeError(f"{node}: {name} has {len(values)} elements, wanted {count}")
    return values[:count]


@binds("SVMRegressor", 1, domain=ML)
def svm_regressor(node: NodeView, x: Any) -> Any:
    """SVMRegressor: without support vectors the coefficients are those of a linear model."""
    kernel, count, how = _kernel(node), int(node.attr("n_supports", 0)), transform_of(node)
    x = matrix(pw.cast(x, dtype="float32"))
    if count > 0:
        features = kernel(x, _rows(node, "support_vectors", count))
        weights = _listed(node, "coefficients", count)
    else:
        node.ignore("support_vectors")
        features, weights = x, row(node.attr("coefficients"))
    y = pw.add(matmul_ops.matmul(features, constant(weights[:, None].copy())), constant(_listed(node, "rho", 1)))
    if node.attr("one_class", 0):
        return pw.sub(pw.mul(pw.cast(pw.greater(y, 0.0), dtype="float32"), 2.0), 1.0)
    return transformed(y, how)


@binds("SVMClassifier", 1, domain=ML)
def svm_classifier(node: NodeView, x: Any) -> Any:
    """SVMClassifier: one score for each pair of classes or, without support vectors, for each class."""
    labels, kernel, how = labels_of(node, "classlabels_ints"), _kernel(node), transform_of(node)
    counts = node.attr("vectors_per_class") or []
    x = matrix(pw.cast(x, dtype="float32"))
    if not sum(counts):
        node.ignore("support_vectors", "prob_a", "prob_b")
        return _linear(node, x, labels, how)
    classes = len(counts)
    if classes != len(labels) or classes < 2:
        raise UnsupportedAttributeError(f"{node}: vectors_per_class has {classes} elements for {len(labels)} labels")
    first, second = pairwise.pairs(classes)
    features = kernel(x, _rows(node, "support_vectors", sum(counts)))
    weights = _pair_weights(_rows(node, "coefficients", classes - 1), counts, first, second)
    scores = pw.add(matmul_ops.matmul(features, constant(weights)), constant(_listed(node, "rho", len(first))))
    wins = pw.cast(pw.greater(scores, 0.0), dtype="float32")
    one, other = (np.eye(classes, dtype=np.float32)[side] for side in (first, second))
    votes = pw.add(matmul_ops.matmul(wins, constant(one)), matmul_ops.matmul(pw.sub(1.0, wins), constant(other)))
    label = labelled(labels, rank.argmax(votes, axis=1))
    if node.attr("prob_a"):
        slope, offset = (constant(_listed(node, f"prob_{k}", len(first))) for k in "ab")
        chance = pw.sigmoid(pw.neg(pw.add(pw.mul(scores, slope), offset)))
        chance = pw.minimum(pw.maximum(chance, LEAST), 1 - LEAST)
        return label, transformed(pairwise.pairwise_coupling(chance, classes=classes), how)
    node.ignore("prob_b")
    if classes == 2:
        return label, two_columns(scores, how != "NONE", how)
    return label, transformed(scores, how)


def _pair_weights(coefficients: Array, counts: list[int], first: Array, second: Array) -> Array:
    """Return the weight of each support vector in the score of each pair; vectors come class by class.

    A vector of class i has row j - 1 against a later class j, one of class j has row i against an earlier class i.
    """
    owner = np.repeat(np.arange(len(counts)), counts)
    weights = np.zeros((len(owner), len(first)), np.float32)
    for k, (i, j) in enumerate(zip(first, second, strict=True)):
        weights[:, k] = np.where(owner == i, coefficients[j - 1], np.where(owner == j, coefficients[i], 0))
    return weights


def _linear(node: NodeView, x: Any, labels: Array, how: str) -> tuple[Any, Any]:
    """Return label and scores of a linear model; of two classes the second wins where a score is positive.

    That is onnxruntime's rule: above 1/2 where no coefficient is negative, else above 0.
    """
    weights = _rows(node, "coefficients", len(labels))
    scores = pw.add(matmul_ops.matmul(x, constant(weights.T.copy())), constant(_listed(node, "rho", 1)))
    places = rank.argmax(scores, axis=1)
    if len(labels) == 2:
        top = reduce.max_(scores, axes=(1,))
        above = pw.greater_equal(top, 0.5) if (weights >= 0).all() else pw.greater(top, 0.0)
        places = pw.where(above, 1, places)
    return labelled(labels, places), transformed(scores, how)
