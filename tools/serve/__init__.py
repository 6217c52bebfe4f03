"""An inference server: models over HTTP by the Open Inference Protocol (KServe V2) with binary tensors.

`datatypes` turns one tensor into JSON or bytes and back, `protocol` does so with whole requests and responses
(both know nothing of HTTP libraries), `app` is the web application, `server` listens and stops.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...ops.errors import MissingExtraError

if TYPE_CHECKING:
    from .protocol import Servable

LIMIT_BYTES = 64 << 20
"""The largest request body that is read, in bytes; compressed bodies may not expand beyond it either."""


def check_installed() -> None:
    """Import what serving needs.

    Raises:
        MissingExtraError: if a package of the extra `serve` is not installed.
    """
    for name in ("msgspec", "starlette", "uvicorn"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise MissingExtraError(f"serving needs {name}: pip install 'onnxgrad[serve]'") from error


def serve(
    models: Mapping[str, Servable],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limit_bytes: int = LIMIT_BYTES,
    workers: int | None = None,
) -> None:
    """Serve these models by their names until Ctrl-C or SIGTERM; requests in progress are answered first.

    Args:
        models: What to serve, by the name in its URL.
        host: The address to listen on. The default is reachable from this machine only: there is no
            authentication, so put a proxy in front before opening it to others.
        port: The port; 0 takes a free one.
        limit_bytes: Larger request bodies are refused with status 413.
        workers: How many requests compute at once (threads); by default the number of cores, at most 4.

    Raises:
        MissingExtraError: if the packages of the extra `serve` are not installed.
        OSError: if the address cannot be listened on.
    """
    check_installed()
    from .server import run

    run(models, host=host, port=port, limit_bytes=limit_bytes, workers=workers)
