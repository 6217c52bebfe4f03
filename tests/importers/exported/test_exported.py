"""Small networks of every kind, exported by both of PyTorch's exporters, against PyTorch."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from . import attending, control_flow, convolutional, elementwise, indexing, precise, recurrent, vision  # noqa: F401
from .agreement import agree
from .network import NETWORKS, Network, export

EXPORTS = [
    pytest.param(net, exporter, opset, id=f"{net.name}-{exporter}-{opset}")
    for net in NETWORKS
    for exporter, opsets in (("legacy", net.legacy), ("dynamo", net.dynamo))
    for opset in opsets
]


@pytest.mark.oracle
@pytest.mark.parametrize(("net", "exporter", "opset"), EXPORTS)
def test_agrees_with_pytorch(net: Network, exporter: str, opset: int) -> None:
    agree(net, exporter, export(net, exporter, opset))
