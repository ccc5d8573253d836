"""
The paths that every ticket takes, without the framework: raw ASGI in, bytes out.

A request through FastAPI costs about 300 µs more than one read here (docs/performance.md), and a matchmaker's load is two such requests a ticket. Owns no
path: `tickets.py` and `parties.py` say which, `described` how they look in OpenAPI; everything else goes on to the application behind.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import orjson
from fastapi import FastAPI
from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope, Send

from allocator.api import problems
from allocator.api.problems import Problem
from matchmaker.api.document import complete

_T = TypeVar("_T", bound=BaseModel)


class Request:
    """One HTTP request, or a WebSocket's."""

    __slots__ = ("_headers", "_max_bytes", "id", "receive", "scope", "send")

    def __init__(self, scope: Scope, receive: Receive, send: Send, id_: str, max_bytes: int) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.id = id_
        """Of what is asked about, from the path; '' where it has none."""
        self._max_bytes = max_bytes
        self._headers: dict[bytes, bytes] = dict(scope["headers"])

    def header(self, name: bytes, *, longest: int = 16_384) -> str:
        """A header's value, '' when there is none. Raises Problem 422 when it is too long."""
        value = self._headers.get(name, b"")
        if len(value) > longest:
            raise invalid(f"header.{name.decode()}: {longest} characters at most")
        return value.decode("latin-1")

    def query(self) -> dict[str, str]:
        """The query's parameters."""
        raw = self.scope["query_string"]
        return dict(parse_qsl(raw.decode("latin-1"))) if raw else {}

    async def body(self) -> bytes:
        """The whole body. Raises Problem 413 before more than the limit is kept."""
        if (length := self._headers.get(b"content-length", b"0")).isdigit() and int(length[:20]) > self._max_bytes:
            raise problems.too_large(self._max_bytes)
        body = bytearray()
        while True:
            message = await self.receive()
            if message["type"] != "http.request":
                raise Problem(HTTPStatus.BAD_REQUEST, "the request broke off", kind="invalid")
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                raise problems.too_large(self._max_bytes)
            if not message.get("more_body"):
                return bytes(body)


@dataclass(frozen=True, slots=True)
class Reply:
    """A JSON answer; None has no body."""

    status: int
    body: Any = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


Handler = Callable[[Request], Awaitable[Reply | None]]
"""None: it has answered by itself."""


@dataclass(frozen=True, slots=True)
class Routes:
    """Handlers by what comes after `/v1/<collection>`: `` (the collection), `{id}`, `{id}/events`…"""

    http: Mapping[str, Mapping[str, Handler]]
    websocket: Mapping[str, Handler] = field(default_factory=dict)


class Lean(FastAPI):
    """The application; answers `lean` by itself, and the rest as FastAPI does."""

    lean: Mapping[str, Routes] = MappingProxyType({})
    """By collection: `tickets`…; what they do not name goes on to FastAPI."""
    max_bytes = 64 * 1024

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        return self.openapi_schema or complete(super().openapi())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on: ahead of every middleware, each of which costs."""
        parts = scope.get("path", "").split("/", 4)  # "", v1, collection, id, action
        routes = self.lean.get(parts[2]) if len(parts) > 2 and parts[1] == "v1" else None
        if routes is not None:
            name = "" if len(parts) == 3 else "{id}" if len(parts) == 4 else f"{{id}}/{parts[4]}"
            id_ = parts[3] if len(parts) > 3 else ""
            well_formed = bool(id_) or not name
            if well_formed and scope["type"] == "http" and name in routes.http:
                await self._http(Request(scope, receive, send, id_, self.max_bytes), routes.http[name])
                return
            if well_formed and scope["type"] == "websocket" and name in routes.websocket:
                await self._websocket(Request(scope, receive, send, id_, 0), routes.websocket[name])
                return
        await super().__call__(scope, receive, send)

    async def _http(self, request: Request, methods: Mapping[str, Handler]) -> None:
        try:
            handler = methods.get(request.scope["method"])
            if handler is None:
                allowed = {"Allow": ", ".join(methods)}
                raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, "no such method here", headers=allowed)
            reply = await handler(request)
        except Exception as error:
            await problems.of(error, request.scope["path"])(request.scope, request.receive, request.send)
            return
        if reply is not None:
            await answer(request.send, reply)

    async def _websocket(self, request: Request, handler: Handler) -> None:
        try:
            await handler(request)
        except Exception as error:
            await problems.refuse_websocket(request.send, problems.of(error, request.scope["path"]))


async def answer(send: Send, reply: Reply) -> None:
    """Send a reply."""
    body = b"" if reply.body is None else orjson.dumps(reply.body)
    headers = [*reply.headers]
    if reply.body is not None:
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def parse(model: type[_T], body: bytes) -> _T:
    """Read a body. Raises Problem 422 that names the fields."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        errors = [_told(each) for each in found[:20]]
        detail = "; ".join(f"{e['field']}: {e['message']}" for e in errors[:5])
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, kind="invalid", errors=errors) from None


def _told(error: Mapping[str, Any]) -> dict[str, str]:
    field = ".".join(map(str, ("body", *error["loc"])))
    return {"field": field, "message": str(error["msg"]).removeprefix("Value error, ")}


def invalid(detail: str) -> Problem:
    """What is wrong with a request, and the mend."""
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, kind="invalid")
