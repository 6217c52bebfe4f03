"""Updates move up to their gradients, not past readers of what they replace."""

from __future__ import annotations

import numpy as np

import onnxgrad as og
from onnxgrad import nn, optim
from onnxgrad.nn import functional as F
from onnxgrad.ops.op import OPS
from onnxgrad.runtime.passes.early_updates import early_updates


def test_each_update_stands_behind_its_gradient_and_other_readers():
    def step(m, o, x, y):
        o.zero_grad()
        F.cross_entropy(m(x), y).backward()
        o.step()

    m = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    o = optim.Adam(m.parameters())
    x, y = np.ones((2, 4), np.float32), np.zeros(2, np.int64)
    graph = og.compile(step).program(m, o, x, y).engine.graph
    graph.verify()
    places = [i for i, n in enumerate(graph.nodes) if n.op is OPS["adam_update"]]
    assert places[0] < len(graph.nodes) - len(places)
    for i in places:
        p, g = graph.nodes[i].args[:2]
        assert all(p not in n.inputs() for n in graph.nodes[i + 1 :])
        assert all(g not in n.outputs for n in graph.nodes[i:])
    assert early_updates(graph).changed == 0
