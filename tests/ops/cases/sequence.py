"""Sequences and optionals: the rows of the op table."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxgrad.ops import pointwise as pw, sequence as s
from onnxgrad.ops.types import TensorType

from ..bodies import body
from ..case import OpCase, rand

A, B, C = rand(2, 3), rand(2, 3, seed=1), rand(4, 3)
SEQ = [A, B]
F32 = TensorType(np.dtype(np.float32), None)
product = body(lambda x, y: (pw.mul(x, y),), ("float64", 2, 3), ("float64", 2, 3))


def at(i: int) -> Any:
    return np.array(i)


def row(op: Any, args: tuple[Any, ...], wanted: Any, order: int = 0, **attrs: Any) -> OpCase:
    return OpCase(op, args, lambda *_: wanted, attrs, order=order, name=f"{op.name}-{len(args)}-{attrs}")


CASES = [
    row(s.sequence_empty, (), [], element=F32),
    row(s.sequence_construct, (A, B), SEQ, order=2),
    row(s.sequence_at, (SEQ, at(-1)), B),
    row(s.sequence_insert, (SEQ, C, at(1)), [A, C, B], order=2),
    row(s.sequence_insert, (SEQ, C, np.array([1])), [A, C, B], order=2),
    row(s.sequence_insert, (SEQ, C, at(-1)), [A, C, B], order=2),
    row(s.sequence_insert, (SEQ, C), [A, B, C], order=2),
    row(s.sequence_erase, (SEQ, at(0)), [B]),
    row(s.sequence_erase, (SEQ,), [A]),
    row(s.sequence_length, (SEQ,), np.array(2)),
    row(s.split_to_sequence, (C,), [C[i : i + 1] for i in range(4)], order=2, axis=0),
    row(s.split_to_sequence, (C,), list(C), order=2, axis=0, keepdims=False),
    row(s.split_to_sequence, (C, at(3)), [C[:3], C[3:]], order=2, axis=0),
    row(s.split_to_sequence, (C, np.array([1, 2])), [C[:, :1], C[:, 1:]], order=2, axis=-1),
    row(s.concat_from_sequence, (SEQ,), np.concatenate(SEQ, 1), axis=-1),
    row(s.concat_from_sequence, (SEQ,), np.stack(SEQ, 2), axis=-1, new_axis=True),
    row(s.sequence_map, (SEQ, B), ([A * B, B * B],), body=product, inputs=2),
    row(s.sequence_map, (SEQ, SEQ), ([A * A, B * B],), body=product, inputs=2),
    row(s.optional, (A,), A, order=2),
    row(s.optional_has_element, (A,), np.array(True)),
    row(s.optional_get_element, (A,), A, order=2),
]
