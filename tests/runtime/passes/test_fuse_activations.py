"""Exported activations become the ops; their definitions and PyTorch's exports are the oracles."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnxgrad.importers.onnx.model import load_bytes
from onnxgrad.ops import pointwise as pw
from onnxgrad.runtime.graph.graph import Value
from onnxgrad.runtime.passes.fuse_activations import fuse_activations

from .graphs import Built, built, checked, normal, op_names, unchanged

X = normal(3, 5) * 3


def erf(x: Value) -> Any:
    return pw.add(pw.erf(pw.div(x, math.sqrt(2))), 1.0)


def tanh(x: Value, cube: Any) -> Any:
    return pw.add(1.0, pw.tanh(pw.mul(pw.add(x, pw.mul(cube, 0.044715)), math.sqrt(2 / math.pi))))


FORMS: dict[str, tuple[Callable[[Value], Any], str]] = {
    "torch": (lambda x: pw.mul(pw.mul(x, erf(x)), 0.5), "gelu"),
    "half first": (lambda x: pw.mul(pw.mul(0.5, x), erf(x)), "gelu"),
    "halved": (lambda x: pw.div(pw.mul(erf(x), x), 2.0), "gelu"),
    "root multiplied": (lambda x: pw.mul(pw.mul(x, 0.5), pw.add(pw.erf(pw.mul(x, math.sqrt(0.5))), 1.0)), "gelu"),
    "tanh of a power": (lambda x: pw.mul(pw.mul(0.5, x), tanh(x, pw.pow_(x, 3.0))), "gelu_tanh"),
    "tanh of a product": (lambda x: pw.mul(pw.mul(0.5, x), tanh(x, pw.mul(x, pw.mul(x, x)))), "gelu_tanh"),
    "silu": (lambda x: pw.mul(x, pw.sigmoid(x)), "swish"),
    "silu turned": (lambda x: pw.mul(pw.sigmoid(x), x), "swish"),
    "relu6": (lambda x: pw.clip(x, 0.0, 6.0), "relu6"),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    make, op = FORMS[form]
    b = built(lambda b: make(b.input(X)))
    assert op_names(checked(b, fuse_activations)) == [op]


OTHERS: dict[str, Callable[[Built, Value], Any]] = {
    "another factor": lambda b, x: pw.mul(pw.mul(x, erf(x)), 0.4),
    "another root": lambda b, x: pw.mul(pw.mul(x, pw.add(pw.erf(x), 1.0)), 0.5),
    "another value": lambda b, x: pw.mul(pw.mul(pw.exp(x), erf(x)), 0.5),
    "gate": lambda b, x: pw.mul(x, pw.sigmoid(b.input(X))),
    "bounds": lambda b, x: pw.clip(x, 0.0, 5.0),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_left(name: str) -> None:
    unchanged(built(lambda b: OTHERS[name](b, b.input(X))), fuse_activations)


def test_what_something_else_reads_is_left() -> None:
    def make(b: Built) -> Any:
        x = b.input(X)
        s = pw.sigmoid(x)
        return pw.mul(x, s), s

    unchanged(built(make), fuse_activations)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["GELU", "SiLU", "ReLU6"])
def test_exports_of_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    module, file = getattr(torch.nn, name)(), io.BytesIO()
    x = torch.from_numpy(X.astype(np.float32))
    torch.onnx.export(module, (x,), file, opset_version=17, dynamo=False)
    found = fuse_activations(load_bytes(file.getvalue()).graph)
    assert found.changed
    b = {"GELU": "gelu", "SiLU": "swish", "ReLU6": "relu6"}[name]
    assert b in op_names(found.graph)
