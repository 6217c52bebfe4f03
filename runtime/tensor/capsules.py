"""What lies in DLPack's capsules: where an array is, and of which element type."""

from __future__ import annotations

import ctypes
from typing import Any

from ...ops.errors import InputError

UINT, BFLOAT = 1, 4
"""DLPack's codes of whole numbers and of bfloat16."""


class Described(ctypes.Structure):
    """The begin of DLPack's DLTensor."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("kind", ctypes.c_int32),
        ("number", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
    ]


TENSOR_AT = {b"dltensor": 0, b"dltensor_versioned": 32}
"""Where the description stands in what a capsule of a name points to."""


def described(capsule: Any) -> Described:
    """Return what a capsule that was not taken yet holds.

    Raises:
        InputError: if it was taken, or is none of DLPack's.
    """
    api = ctypes.pythonapi
    api.PyCapsule_IsValid.argtypes = [ctypes.py_object, ctypes.c_char_p]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    for name, offset in TENSOR_AT.items():
        if api.PyCapsule_IsValid(capsule, name):
            return Described.from_address(api.PyCapsule_GetPointer(capsule, name) + offset)
    raise InputError("from_dlpack: the capsule was taken before, or is none of DLPack's")


def recoded(capsule: Any, old: int, new: int) -> bool:
    """Say that elements of 16 bits are of another kind, where they are of the old one; return whether they were."""
    found = described(capsule)
    if (found.code, found.bits) != (old, 16):
        return False
    found.code = new
    return True
