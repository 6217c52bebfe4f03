"""A file is written whole, or stays as it was."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...ops.errors import SaveError


def replace_file(path: str | os.PathLike[str], parts: Iterable[Any]) -> None:
    """Write bytes, one part after the other, to a file beside the target, and put it in the target's place.

    Raises:
        SaveError: if it cannot be written there; the target is as it was then.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise SaveError(f"cannot save to {target}: the folder {target.parent} does not exist")
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
        os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise SaveError(f"cannot save to {target}: {error.strerror or error}") from error
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
