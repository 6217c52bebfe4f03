"""Weights in a safetensors file, written in one step."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..ops.errors import LoadError, SaveError
from ..ops.types import Array


def save_weights(
    arrays: Mapping[str, Array], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays by name; an existing file is replaced in one step, or left as it was.

    Raises:
        SaveError: if it cannot be written there.
    """
    from safetensors.numpy import save

    target = Path(path)
    host = {k: np.ascontiguousarray(a.get() if hasattr(a, "get") else a) for k, a in arrays.items()}
    data = save(host, dict(metadata) if metadata else None)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, target)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise SaveError(f"cannot save to {target}: {error.strerror or error}") from error


def load_weights(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Return the arrays of a safetensors file by name.

    Raises:
        LoadError: if it is not one.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(os.fspath(path)))
    except SafetensorError as error:
        raise LoadError(f"{os.fspath(path)}: not a safetensors file: {error}") from error
