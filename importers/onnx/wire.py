"""Where the weights lie in the bytes of an ONNX file, so that they are neither parsed nor copied.

A protobuf is a list of fields, each a tag and a value. The walk goes through ModelProto.graph and
GraphProto.initializer down to TensorProto.raw_data; it takes notes of nothing else. Whatever is not as writers of ONNX
files write it (groups, fields that end behind their message, two `raw_data` in one tensor) is left to the protobuf
library.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9
"""The numbers of ModelProto.graph, GraphProto.initializer and TensorProto.raw_data."""

LARGE_BYTES = 1 << 14
"""Data of at least this many bytes are left out."""

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5


@dataclass(frozen=True)
class Span:
    """Bytes `[start, end)` of a file."""

    start: int
    end: int


class _UnusualError(Exception):
    """The bytes are not as writers of ONNX files write them."""


@dataclass(frozen=True)
class _Field:
    number: int
    kind: int
    start: int
    body: int
    end: int


def without_weights(data: Any, least: int = LARGE_BYTES) -> tuple[bytes, dict[int, Span]] | None:
    """Return the bytes of a ModelProto without large `raw_data`, and where those lie, by the initializer's number.

    Args:
        data: the file's bytes, or something that gives them by index and slice.
        least: how many bytes are large.

    Returns:
        None where there are none, or the bytes are unusual.
    """
    spans: dict[int, Span] = {}
    count = 0
    out: list[bytes] = []
    try:
        for f in _fields(data, 0, len(data)):
            if f.number != GRAPH:
                out.append(data[f.start : f.end])
                continue
            _check(f)
            parts: list[bytes] = []
            for g in _fields(data, f.body, f.end):
                if g.number != INITIALIZER:
                    parts.append(data[g.start : g.end])
                    continue
                _check(g)
                span, light = _tensor(data, g, least)
                if span is not None:
                    spans[count] = span
                parts.append(light)
                count += 1
            graph = b"".join(parts)
            out += [_tagged(GRAPH, len(graph)), graph]
    except (_UnusualError, IndexError):
        return None
    return (b"".join(out), spans) if spans else None


def _tensor(data: Any, f: _Field, least: int) -> tuple[Span | None, bytes]:
    if f.end - f.body < least:
        return None, data[f.start : f.end]
    raw = None
    rest: list[bytes] = []
    for part in _fields(data, f.body, f.end):
        if part.number != RAW_DATA:
            if part.end - part.start >= LARGE_BYTES:
                return None, data[f.start : f.end]
            rest.append(data[part.start : part.end])
            continue
        _check(part)
        if raw is not None:
            raise _UnusualError
        raw = part
    if raw is None or raw.end - raw.body < least:
        return None, data[f.start : f.end]
    light = b"".join(rest)
    return Span(raw.body, raw.end), _tagged(INITIALIZER, len(light)) + light


def _check(f: _Field) -> None:
    if f.kind != _BYTES:
        raise _UnusualError


def _fields(data: Any, at: int, end: int) -> Iterator[_Field]:
    while at < end:
        start = at
        tag, at = _varint(data, at, end)
        number, kind = tag >> 3, tag & 7
        body = at
        if kind == _BYTES:
            size, body = _varint(data, at, end)
            at = body + size
        elif kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind in (_EIGHT, _FOUR):
            at += 8 if kind == _EIGHT else 4
        else:
            raise _UnusualError
        if at > end or number == 0:
            raise _UnusualError
        yield _Field(number, kind, start, body, at)


def _varint(data: Any, at: int, end: int) -> tuple[int, int]:
    value, shift = 0, 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _UnusualError


def _tagged(number: int, size: int) -> bytes:
    """Return the tag of a field of bytes, and their number."""
    out = bytearray([number << 3 | _BYTES])
    while size >= 0x80:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    return bytes(out)
