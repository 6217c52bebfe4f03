"""What is made of weights and constants: which of it is the same."""

import numpy as np

from onnxgrad.ops.types import type_of
from onnxgrad.runtime.cuda.weights import Hoisted
from onnxgrad.runtime.graph.graph import Graph, Value


def test_keys_tell_constants_apart_that_do_not_live_on() -> None:
    graph = Graph("g")
    part = Hoisted(graph, [])
    arrays = [np.full(2, n) for n in range(100)]
    keys = [part.key(Value(graph, type_of(a), "constant", array=a)) for a in arrays]
    assert len(set(keys)) == len(arrays)
    assert part.key(Value(graph, type_of(arrays[3]), "again", array=arrays[3])) == keys[3]
