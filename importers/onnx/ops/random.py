"""Bindings: random draws. A `seed` fixes them; without one each run draws anew."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ops import create, random as ops
from ....ops.types import dtype_name
from ....runtime.graph.graph import current_graph
from ..node import NodeView
from ..registry import binds
from ..tensors import dtype_of


def key_of(node: NodeView) -> Any:
    """Return the key of a node's draws: of its seed, else one that follows from the key of the run."""
    graph = current_graph()
    assert graph is not None
    seed = node.attr("seed")
    if seed is None:
        return graph.random_key()
    bits = int(np.float32(seed).view(np.uint32))
    return graph.constant(np.random.SeedSequence(bits).generate_state(2, np.uint64))


def _dtype(node: NodeView, otherwise: Any) -> str:
    given = node.attr("dtype")
    return dtype_name(otherwise if given is None else dtype_of(given))


def _shape(node: NodeView) -> Any:
    graph = current_graph()
    assert graph is not None
    return graph.constant(np.asarray(node.attr("shape"), np.int64))


def _normal(node: NodeView, shape: Any, dtype: str) -> Any:
    mean, std = node.attr("mean", 0.0), node.attr("scale", 1.0)
    return ops.random_normal(key_of(node), shape, mean=mean, std=std, dtype=dtype)


def _uniform(node: NodeView, shape: Any, dtype: str) -> Any:
    low, high = node.attr("low", 0.0), node.attr("high", 1.0)
    return ops.random_uniform(key_of(node), shape, low=low, high=high, dtype=dtype)


@binds("RandomNormal", 1, 22)
def random_normal(node: NodeView) -> Any:
    return _normal(node, _shape(node), _dtype(node, np.dtype(np.float32)))


@binds("RandomNormalLike", 1, 22)
def random_normal_like(node: NodeView, x: Any) -> Any:
    return _normal(node, create.shape_of(x), _dtype(node, x.dtype))


@binds("RandomUniform", 1, 22)
def random_uniform(node: NodeView) -> Any:
    return _uniform(node, _shape(node), _dtype(node, np.dtype(np.float32)))


@binds("RandomUniformLike", 1, 22)
def random_uniform_like(node: NodeView, x: Any) -> Any:
    return _uniform(node, create.shape_of(x), _dtype(node, x.dtype))


@binds("Bernoulli", 15, 22)
def bernoulli(node: NodeView, p: Any) -> Any:
    return ops.bernoulli(p, key_of(node), dtype=_dtype(node, p.dtype))


@binds("Multinomial", 7, 22)
def multinomial(node: NodeView, scores: Any) -> Any:
    count = int(node.attr("sample_size", 1))
    return ops.multinomial(scores, key_of(node), count=count, dtype=_dtype(node, np.dtype(np.int32)))
