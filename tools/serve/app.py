"""The web application: routes, limits and status codes around `protocol`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ...ops.errors import OnnxGradError, ServeError
from . import LIMIT_BYTES
from .protocol import EXTENSIONS, VERSION, Answer, Servable, expand, infer, metadata

T = TypeVar("T")

BODY_SECONDS = 60.0
"""How long a client may take to send a body."""

DRAIN_SECONDS = 1.0
"""How long the rest of a refused body is read and dropped, so that the client sees the answer."""

WAITING_LIMIT = 128
"""How many inference requests may be in progress or waiting; further ones are told to come back."""


def create_app(
    models: Mapping[str, Servable], *, limit_bytes: int = LIMIT_BYTES, workers: int | None = None
) -> Starlette:
    """Return the application that serves these models by their names."""
    endpoints = _Endpoints(dict(models), limit_bytes, workers or min(4, os.cpu_count() or 1))
    model = "/v2/models/{model}"
    routes = [
        Route("/v2", endpoints.server),
        Route("/v2/health/live", endpoints.live),
        Route("/v2/health/ready", endpoints.ready),
        Route("/v2/models", endpoints.list_models),
        *(
            route
            for prefix in (model, model + "/versions/{version}")
            for route in (
                Route(prefix, endpoints.model_metadata),
                Route(prefix + "/ready", endpoints.model_ready),
                Route(prefix + "/infer", endpoints.model_infer, methods=["POST"]),
            )
        ),
    ]
    errors: dict[Any, Callable[[Request, Any], Awaitable[Response]]] = {
        HTTPException: _http_error,
        ServeError: _serve_error,
        Exception: _internal_error,
    }

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        endpoints.pool.shutdown(wait=True, cancel_futures=True)

    return Starlette(routes=routes, exception_handlers=errors, lifespan=lifespan)


class _Endpoints:
    """The endpoints and what they share."""

    def __init__(self, models: dict[str, Servable], limit_bytes: int, workers: int) -> None:
        self.models = models
        self.limit_bytes = limit_bytes
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="infer")
        self.in_progress = 0

    async def server(self, request: Request) -> Response:
        return _json({"name": "onnxgrad", "version": version("onnxgrad"), "extensions": EXTENSIONS})

    async def live(self, request: Request) -> Response:
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        return _json({"ready": True})

    async def list_models(self, request: Request) -> Response:
        return _json({"models": list(self.models)})

    async def model_metadata(self, request: Request) -> Response:
        return _json(metadata(*self.model(request)))

    async def model_ready(self, request: Request) -> Response:
        name, _ = self.model(request)
        return _json({"name": name, "ready": True})

    async def model_infer(self, request: Request) -> Response:
        name, model = self.model(request)
        lengths = set(request.headers.getlist("inference-header-content-length"))
        if len(lengths) > 1:
            raise ServeError("Inference-Header-Content-Length is given twice")
        encoding = request.headers.get("content-encoding", "").strip().lower()
        if self.in_progress >= WAITING_LIMIT:
            raise ServeError(f"{self.in_progress} requests are waiting, try again later", 503)
        self.in_progress += 1
        try:
            body = await self.read_body(request)

            def work() -> Answer:
                return infer(name, model, expand(body, encoding, self.limit_bytes), next(iter(lengths), None))

            answer = await self.in_pool(request, work)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except ServeError:
            raise
        except OnnxGradError as error:
            raise ServeError(str(error)) from error
        except MemoryError as error:
            raise ServeError("not enough memory for this request", 503) from error
        finally:
            self.in_progress -= 1
        if answer.json_length is None:
            return Response(answer.body, media_type="application/json")
        length = {"Inference-Header-Content-Length": str(answer.json_length)}
        return Response(answer.body, headers=length, media_type="application/octet-stream")

    def model(self, request: Request) -> tuple[str, Servable]:
        """Return the model that the path names."""
        name = request.path_params["model"]
        if name not in self.models:
            raise ServeError(f"no model {name[:200]!r}; the models are {', '.join(self.models)}", 404)
        asked = request.path_params.get("version", VERSION)
        if asked != VERSION:
            raise ServeError(f"model {name!r} has no version {asked[:40]!r}, only {VERSION!r}", 404)
        return name, self.models[name]

    async def read_body(self, request: Request) -> bytes:
        """Return the body, refusing it as soon as it is known to be too large."""
        declared = request.headers.get("content-length", "")
        too_large = declared.isdigit() and int(declared[:20]) > self.limit_bytes
        body = bytearray()
        stream = request.stream()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                if not too_large:
                    async for piece in stream:
                        body += piece
                        if len(body) > self.limit_bytes:
                            too_large = True
                            break
        except TimeoutError:
            raise ServeError(f"the body did not arrive within {BODY_SECONDS:g} seconds", 408) from None
        if not too_large:
            return bytes(body)
        del body
        if "expect" not in request.headers:
            try:
                async with asyncio.timeout(DRAIN_SECONDS):
                    async for _ in stream:
                        pass
            except TimeoutError:
                pass
        raise ServeError(f"the body is larger than the limit of {self.limit_bytes} bytes", 413)

    async def in_pool(self, request: Request, work: Callable[[], T]) -> T:
        """Return what `work` gives, run in the pool; work still waiting when the client leaves is dropped."""
        job = asyncio.wrap_future(self.pool.submit(work))
        gone = asyncio.ensure_future(request.receive())
        try:
            either: set[asyncio.Future[Any]] = {job, gone}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not job.done():
                raise ClientDisconnect
            return job.result()
        finally:
            gone.cancel()
            job.cancel()


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    body = msgspec.json.encode(content)
    return Response(body, status_code=status, headers=headers, media_type="application/json")


async def _serve_error(request: Request, error: ServeError) -> Response:
    headers = {408: {"Connection": "close"}, 413: {"Connection": "close"}, 503: {"Retry-After": "1"}}
    return _json({"error": str(error)}, error.status, headers.get(error.status))


async def _http_error(request: Request, error: HTTPException) -> Response:
    text = {404: "no such path", 405: f"the method {request.method[:20]} is not for this path"}
    return _json({"error": text.get(error.status_code, error.detail)}, error.status_code, error.headers)


async def _internal_error(request: Request, error: Exception) -> Response:
    # Logged by the server that runs the application, with its traceback.
    return _json({"error": "internal error; the server's log says more"}, 500)
