"""
The SDK's REST gateway, AGONES_SDK_HTTP_PORT of one local game server: `endpoints.py` over HTTP.

Paths, JSON and errors are grpc-gateway's, as Agones' sidecar has them: camelCase, unset fields present, 64-bit integers as strings.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from fleets.local.endpoints import Now, changes, counter_message, game_server_message, list_message
from fleets.local.states import GameServerRecord, SDKError, ServerEvent


def rest_gateway(record: GameServerRecord, now: Now) -> Starlette:
    """The REST gateway for one record."""
    rest = _Endpoints(record, now)
    return Starlette(
        routes=[
            Route("/ready", rest.event(ServerEvent.SDK_READY), methods=["POST"]),
            Route("/allocate", rest.event(ServerEvent.SDK_ALLOCATE), methods=["POST"]),
            Route("/shutdown", rest.event(ServerEvent.SDK_SHUTDOWN), methods=["POST"]),
            Route("/health", rest.health, methods=["POST"]),
            Route("/gameserver", rest.game_server),
            Route("/watch/gameserver", rest.watch),
            Route("/metadata/label", rest.label, methods=["PUT"]),
            Route("/metadata/annotation", rest.annotation, methods=["PUT"]),
            Route("/reserve", rest.reserve, methods=["POST"]),
            Route("/v1beta1/counters/{name}", rest.counter, methods=["GET", "PATCH"]),
            Route("/v1beta1/lists/{name}", rest.list_, methods=["GET", "PATCH", "POST"]),
        ],
        exception_handlers={SDKError: _refused, _BadBody: _refused},
    )


class _Endpoints:
    def __init__(self, record: GameServerRecord, now: Now) -> None:
        self._record = record
        self._now = now

    def event(self, event: ServerEvent) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            self._record.happen(event, self._now())
            return JSONResponse({})

        return endpoint

    async def health(self, request: Request) -> Response:
        self._record.ping(self._now())
        return JSONResponse({})

    async def game_server(self, request: Request) -> Response:
        return _json(game_server_message(self._record))

    async def watch(self, request: Request) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            async with changes(self._record) as changed:
                while True:
                    yield json.dumps({"result": _dict(game_server_message(self._record))}).encode() + b"\n"
                    await changed.wait()
                    changed.clear()

        return StreamingResponse(lines(), media_type="application/json")

    async def label(self, request: Request) -> Response:
        body = await _body(request)
        self._record.set_label(str(body.get("key", "")), str(body.get("value", "")))
        return JSONResponse({})

    async def annotation(self, request: Request) -> Response:
        body = await _body(request)
        self._record.set_annotation(str(body.get("key", "")), str(body.get("value", "")))
        return JSONResponse({})

    async def reserve(self, request: Request) -> Response:
        self._record.reserve(_integer((await _body(request)).get("seconds", 0)), self._now())
        return JSONResponse({})

    async def counter(self, request: Request) -> Response:
        name = request.path_params["name"]
        if request.method == "GET":
            return _json(counter_message(name, self._record.counter_named(name)))
        body = await _body(request)
        status = self._record.update_counter(
            name,
            count=_given_integer(body, "count"),
            capacity=_given_integer(body, "capacity"),
            add=_integer(body.get("countDiff", 0)),
        )
        return _json(counter_message(name, status))

    async def list_(self, request: Request) -> Response:
        name, _, verb = request.path_params["name"].partition(":")
        if request.method == "GET":
            return _json(list_message(name, self._record.list_named(name)))
        body = await _body(request)
        if request.method == "PATCH":
            values = body.get("values")
            status = self._record.update_list(
                name,
                values=[str(value) for value in values] if isinstance(values, list) else None,
                capacity=_given_integer(body, "capacity"),
            )
        elif verb == "addValue":
            status = self._record.add_list_value(name, str(body.get("value", "")))
        elif verb == "removeValue":
            status = self._record.remove_list_value(name, str(body.get("value", "")))
        else:
            return _error(5, "Not Found", 404)
        return _json(list_message(name, status))


class _BadBody(Exception):
    """A request body that is no JSON object, or has a wrong type in it."""


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = await request.json() if await request.body() else {}
    except ValueError:
        raise _BadBody("the body is no JSON") from None
    if not isinstance(body, dict):
        raise _BadBody("the body is no JSON object")
    return body


def _integer(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise _BadBody(f"{value!r} is no integer") from None


def _given_integer(body: dict[str, Any], key: str) -> int | None:
    return None if body.get(key) is None else _integer(body[key])


def _dict(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


def _json(message: Message) -> Response:
    return JSONResponse(_dict(message))


def _error(code: int, message: str, status: int) -> Response:
    return JSONResponse({"code": code, "message": message, "details": []}, status_code=status)


async def _refused(request: Request, error: Exception) -> Response:
    bad_label = request.url.path.startswith("/metadata/")
    return _error(3, str(error), 400) if bad_label or isinstance(error, _BadBody) else _error(2, str(error), 500)
