"""Listening, announcing and stopping."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Mapping

import uvicorn
from starlette.applications import Starlette

from .app import create_app
from .protocol import Servable, type_text

SHUTDOWN_SECONDS = 30
"""How long requests in progress may take once the server is told to stop."""

BACKLOG = 2048
"""How many connections may wait to be accepted."""

SWITCH_SECONDS = 0.0005
"""How long a computing thread keeps the interpreter: a tenth of Python's default, for quick health checks."""


def run(models: Mapping[str, Servable], *, host: str, port: int, limit_bytes: int, workers: int | None) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    app = create_app(models, limit_bytes=limit_bytes, workers=workers)
    with listen(host, port) as listener:
        print(announcement(models, host, listener.getsockname()[1]), flush=True)
        switch_interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        try:
            serve_on(app, listener)
        finally:
            sys.setswitchinterval(switch_interval)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on this address."""
    if not 0 <= port < 1 << 16:
        raise OSError(f"cannot listen on {host}:{port}: ports end at 65535")
    # asyncio turns off Nagle's delay, 40 ms an answer, only where the protocol is spelled out.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {host}:{port}: {error}") from error
    return listener


def serve_on(app: Starlette, listener: socket.socket) -> None:
    """Serve an application on a socket until a signal says to stop, and return as if nothing had happened."""
    server = make_server(app)
    if threading.current_thread() is not threading.main_thread():
        server.run(sockets=[listener])
        return
    # Once it has stopped, uvicorn raises the signal again for whoever handled it before.
    before = {s: signal.signal(s, lambda *_: None) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def make_server(app: Starlette) -> uvicorn.Server:
    """Return a uvicorn server for an application, quiet but for errors."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            ws="none",
        )
    )


def announcement(models: Mapping[str, Servable], host: str, port: int) -> str:
    """Return the lines that say what is served where."""
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    lines = [f"onnxgrad serves {len(models)} model{'s'[: len(models) != 1]} at {url} (Ctrl-C stops)"]
    for name, model in models.items():
        lines.append(f"  {url}/v2/models/{name}")
        lines += [f"    in  {port.name}: {type_text(port)}" for port in model.inputs]
        lines += [f"    out {port.name}: {type_text(port)}" for port in model.outputs]
    return "\n".join(lines)
