"""
Errors as RFC 9457 problem details, from one table. Unknown exceptions become a 500 with an id that is logged here, once.
"""

import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from gameserver.sessions.port import StoreUnavailable

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"


class ProblemBody(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str


_CONTENT: dict[str, Any] = {MEDIA_TYPE: {"schema": ProblemBody.model_json_schema()}}
RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "Refused; `detail` names the field and the mend.", "content": _CONTENT},
    "5XX": {"description": "Away for a moment or broken; with Retry-After, ask again then.", "content": _CONTENT},
}
"""For OpenAPI: what any endpoint may answer besides its success."""


class Problem(HTTPException):
    """
    An expected refusal; `detail` names the field and the mend.

    An HTTPException, because FastAPI turns any other one that is raised while it reads a body into its own 400.
    """

    def __init__(
        self, status: int, detail: str, *, kind: str = "", headers: Mapping[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(status, detail, headers)
        self.status = status
        self.kind = kind
        self.extra = extra


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem."""

    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> JSONResponse:
        return of(error, request.url.path)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        return respond(error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        errors = [
            {"field": ".".join(map(str, e["loc"])), "message": str(e["msg"]).removeprefix("Value error, ")}
            for e in error.errors()
        ]
        detail = "; ".join(f"{e['field']}: {e['message']}" for e in errors[:5])
        return respond(HTTPStatus.UNPROCESSABLE_ENTITY, detail, kind="invalid", errors=errors)

    @app.exception_handler(StoreUnavailable)
    async def away(request: Request, error: StoreUnavailable) -> JSONResponse:
        return of(error, request.url.path)

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> JSONResponse:
        return of(error, request.url.path)


def of(error: Exception, path: str) -> JSONResponse:
    """The response to what was raised while `path` was asked for."""
    if isinstance(error, Problem):
        return respond(error.status, error.detail, kind=error.kind, headers=error.headers, **error.extra)
    if not isinstance(error, StoreUnavailable):
        error_id = secrets.token_hex(8)
        log.error("request_failed", path=path, error_id=error_id, exc_info=error)
        return respond(HTTPStatus.INTERNAL_SERVER_ERROR, f"an error of ours; its id is {error_id}", kind="internal")
    log.warning("store_unavailable", path=path, error=str(error))
    return respond(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"{error.why}; nothing is lost, ask again",
        kind="store-unavailable",
        headers={"Retry-After": "1"},
    )


def too_large(max_bytes: int) -> Problem:
    """A body over the limit."""
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has {max_bytes} bytes at most", kind="too-large")


async def refuse_websocket(send: Any, response: JSONResponse) -> None:
    """Answer a handshake with a problem."""
    start = {"type": "websocket.http.response.start", "status": response.status_code, "headers": response.raw_headers}
    await send(start)
    await send({"type": "websocket.http.response.body", "body": response.body})


def respond(
    status: int, detail: str, *, kind: str = "", headers: Mapping[str, str] | None = None, **extra: Any
) -> JSONResponse:
    """Make a problem response."""
    body = {
        "type": f"urn:warmfleet:problem:{kind}" if kind else "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
        **extra,
    }
    return JSONResponse(body, status_code=int(status), headers=dict(headers or {}), media_type=MEDIA_TYPE)


class BodyLimit:
    """ASGI middleware: a request body over the limit is answered with 413, before it is read whole."""

    def __init__(self, app: Any, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, counting its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        read = 0
        if length.isdigit() and int(length[:20]) > self._max_bytes:
            await of(too_large(self._max_bytes), scope["path"])(scope, receive, send)
            return

        async def counted() -> Any:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._max_bytes:
                raise too_large(self._max_bytes)
            return message

        await self._app(scope, counted, send)
