"""What an exported file keeps of training: batch norm's statistics, and the rows that do not train."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from onnxgrad.importers.onnx.model import load_bytes  # noqa: E402
from onnxgrad.runtime.model.model import Model  # noqa: E402

from .agreement import Placed, compare  # noqa: E402
from .network import Network, export, rand  # noqa: E402

nn = torch.nn
TRAINING, EVAL = torch.onnx.TrainingMode.TRAINING, torch.onnx.TrainingMode.EVAL


def normalized() -> Any:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.0), nn.Flatten(), nn.Linear(64, 5),
        nn.BatchNorm1d(5, momentum=0.3),
    )  # fmt: skip


NET = Network("normalized", normalized, lambda n=6: (rand(n, 3, 6, 6),), ({0: "n"},), folded=False)


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("exporter", "opset", "how"),
    [
        ("legacy", 12, {"training": TRAINING}),
        ("legacy", 17, {"training": TRAINING}),
        ("legacy", 17, {"training": EVAL}),
        ("dynamo", 18, {}),
    ],
)
def test_train_is_that_of_pytorch(exporter: str, opset: int, how: dict[str, Any]) -> None:
    module = NET.build()
    model = load_bytes(export(NET, exporter, opset, module=module, **how))
    before = {n: b.clone() for n, b in module.named_buffers()}
    model.train()
    module.train()
    compare(NET, module, NET.inputs({"n": 6}), model, Placed(module, model))
    buffers = dict(model.named_buffers())
    for layer, count, momentum in (("1", 6 * 16, 0.1), ("6", 6, 0.3)):
        for kind in ("mean", "var"):
            name = f"{layer}.running_{kind}"
            old, new = before[name], module.get_buffer(name)
            moved = new - (1 - momentum) * old
            if kind == "var":  # ONNX keeps the population's variance, PyTorch the unbiased one
                moved = moved * (count - 1) / count
            wanted = (1 - momentum) * old + moved
            np.testing.assert_allclose(buffers[name].numpy(), wanted.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.oracle
def test_running_statistics_serve_evaluation() -> None:
    module = NET.build()
    model = load_bytes(export(NET, "legacy", 17, module=module, training=EVAL))
    x = NET.inputs({"n": 6})[0]
    model.train()
    model(x.numpy())
    model.eval()
    for name, b in model.named_buffers():
        module.get_buffer(name).copy_(torch.from_numpy(b.numpy().copy()))
    np.testing.assert_allclose(model(x.numpy()).detach().numpy(), module(x).detach().numpy(), atol=1e-5)


def padded() -> Any:
    return nn.Embedding(6, 4, padding_idx=2)


@pytest.mark.oracle
@pytest.mark.parametrize(("exporter", "opset"), [("legacy", 13), ("dynamo", 18)])
def test_padding_row_trains_since_the_file_does_not_name_it(exporter: str, opset: int) -> None:
    net = Network("padded", padded, lambda: (torch.tensor([[0, 2, 2, 5]]),))
    model: Model = load_bytes(export(net, exporter, opset))
    module = net.build()
    module.padding_idx = None
    compare(net, module, net.inputs({}), model, Placed(module, model))
