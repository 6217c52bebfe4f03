"""Object code and plans on disk: a private folder, checksummed entries, written whole or not at all.

The folder is `$ONNXGRAD_CACHE`, else `$XDG_CACHE_HOME/onnxgrad`, else `~/.cache/onnxgrad`. A bad entry is made again; a
folder that cannot be used is done without, with one warning.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
import warnings
from pathlib import Path

VARIABLE = "ONNXGRAD_CACHE"
LIMIT_BYTES = 512 << 20
"""The oldest entries go when the folder grows beyond this."""

OBJECT, PLAN, CUBIN = ".o", ".plan", ".cubin"
"""The kinds of entries, by what their files end in."""

_MAGIC = b"onnxgrad-object-1\n"
_written = 16 << 20
_warned: set[str] = set()
_unusable: set[Path] = set()


def folder() -> Path:
    """Return where objects lie."""
    if set_ := os.environ.get(VARIABLE):
        return Path(set_)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "onnxgrad"


def warn_once(message: str) -> None:
    """Warn, once a process."""
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=3)


def _usable() -> Path | None:
    place = folder()
    if place in _unusable:
        return None
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = place.stat()
        if hasattr(os, "getuid") and (found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o022):
            raise PermissionError(f"{place} must belong to this user and be writable by no other")
    except (OSError, RuntimeError) as error:
        _unusable.add(place)
        warn_once(f"compiled kernels are not kept: {error}; set {VARIABLE} to a folder of your own")
        return None
    return place


def read(key: str, kind: str = OBJECT) -> bytes | None:
    """Return the entry of this key, or None where there is none or it is damaged."""
    place = _usable()
    if place is None:
        return None
    try:
        data = (place / f"{key}{kind}").read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        warn_once(f"an entry of the cache cannot be read: {error}; it is made again")
        return None
    head = len(_MAGIC) + 32
    if data[: len(_MAGIC)] != _MAGIC or hashlib.sha256(data[head:]).digest() != data[len(_MAGIC) : head]:
        warn_once(f"{place / key}{kind} is damaged; it is made again")
        return None
    with contextlib.suppress(OSError):  # the time of use; a folder that is read-only keeps the old one
        os.utime(place / f"{key}{kind}")
    return data[head:]


def write(key: str, data: bytes, kind: str = OBJECT) -> None:
    """Keep an entry; another process that writes the same one at the same time does no harm."""
    place = _usable()
    if place is None:
        return
    try:
        handle, name = tempfile.mkstemp(dir=place, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + hashlib.sha256(data).digest() + data)
            os.replace(name, place / f"{key}{kind}")
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        _trim(place, len(data))
    except OSError as error:
        _unusable.add(place)
        warn_once(f"compiled kernels are not kept: {error}; set {VARIABLE} to a folder of your own")


def _trim(place: Path, added: int) -> None:
    """Remove the oldest entries where the folder has grown too large; look once in every 16 MiB that are written."""
    global _written
    _written += added
    if _written < min(LIMIT_BYTES // 32, 16 << 20):
        return
    _written = 0
    entries = []
    for path in (p for kind in (OBJECT, PLAN, CUBIN) for p in place.glob(f"*{kind}")):
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            entries.append((found.st_mtime, found.st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= LIMIT_BYTES:
            return
        path.unlink(missing_ok=True)
        total -= size
