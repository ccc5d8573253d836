"""
The SDK endpoints of one local game server: gRPC on AGONES_SDK_GRPC_PORT, the REST gateway on AGONES_SDK_HTTP_PORT.

Only translates: every decision is the record's (`states.py`). Errors have the status that Agones' sidecar gives (INVALID_ARGUMENT for labels,
UNKNOWN for counters and lists), and the REST gateway's JSON is grpc-gateway's: camelCase, unset fields present, 64-bit integers as strings.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from google.protobuf import json_format
from google.protobuf.message import Message
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from fleets.local.states import CounterStatus, GameServerRecord, ListStatus, SDKError, ServerEvent
from gameserver.agones.pb import beta_pb2, beta_pb2_grpc, sdk_pb2, sdk_pb2_grpc

Now = Callable[[], float]


@asynccontextmanager
async def changes(record: GameServerRecord) -> AsyncIterator[asyncio.Event]:
    """An event that is set whenever the record changes; the waiter clears it."""
    event = asyncio.Event()
    record.listeners.append(event.set)
    try:
        yield event
    finally:
        record.listeners.remove(event.set)


def game_server_message(record: GameServerRecord) -> sdk_pb2.GameServer:
    """The record in the SDK's words."""
    message = sdk_pb2.GameServer()
    meta, health, status = message.object_meta, message.spec.health, message.status
    meta.name, meta.namespace, meta.uid = record.name, "default", record.uid
    meta.resource_version, meta.generation = str(record.resource_version), 1
    meta.creation_timestamp = int(record.created_at_s)
    meta.labels.update(record.labels)
    meta.annotations.update(record.annotations)
    health.disabled, health.failure_threshold = record.health.disabled, record.health.failure_threshold
    health.period_seconds, health.initial_delay_seconds = (
        int(record.health.period_s),
        int(record.health.initial_delay_s),
    )
    status.state, status.address = record.state.value, record.host
    status.addresses.add(type="InternalIP", address=record.host)
    for name, port in record.ports.items():
        status.ports.add(name=name, port=port)
    for name, counter in record.counters.items():
        status.counters[name].count, status.counters[name].capacity = counter.count, counter.capacity
    for name, values in record.lists.items():
        status.lists[name].capacity = values.capacity
        status.lists[name].values.extend(values.values)
    return message


class StableService(sdk_pb2_grpc.SDKServicer):
    """agones.dev.sdk.SDK for one record."""

    def __init__(self, record: GameServerRecord, now: Now) -> None:
        self._record = record
        self._now = now

    async def Ready(self, request: sdk_pb2.Empty, context: Any) -> sdk_pb2.Empty:  # noqa: N802, D102
        return self._happen(ServerEvent.SDK_READY)

    async def Allocate(self, request: sdk_pb2.Empty, context: Any) -> sdk_pb2.Empty:  # noqa: N802, D102
        return self._happen(ServerEvent.SDK_ALLOCATE)

    async def Shutdown(self, request: sdk_pb2.Empty, context: Any) -> sdk_pb2.Empty:  # noqa: N802, D102
        return self._happen(ServerEvent.SDK_SHUTDOWN)

    async def Reserve(self, request: sdk_pb2.Duration, context: Any) -> sdk_pb2.Empty:  # noqa: N802, D102
        self._record.reserve(request.seconds, self._now())
        return sdk_pb2.Empty()

    async def Health(self, request_iterator: AsyncIterator[sdk_pb2.Empty], context: Any) -> sdk_pb2.Empty:  # noqa: N802, D102
        async for _ in request_iterator:
            self._record.ping(self._now())
        return sdk_pb2.Empty()

    async def GetGameServer(self, request: sdk_pb2.Empty, context: Any) -> sdk_pb2.GameServer:  # noqa: N802, D102
        return game_server_message(self._record)

    async def WatchGameServer(self, request: sdk_pb2.Empty, context: Any) -> AsyncIterator[sdk_pb2.GameServer]:  # noqa: N802, D102
        async with changes(self._record) as changed:
            while True:
                yield game_server_message(self._record)
                await changed.wait()
                changed.clear()

    async def SetLabel(self, request: sdk_pb2.KeyValue, context: Any) -> sdk_pb2.Empty:  # noqa: N802, D102
        async with _refusals(context, grpc.StatusCode.INVALID_ARGUMENT):
            self._record.set_label(request.key, request.value)
        return sdk_pb2.Empty()

    async def SetAnnotation(self, request: sdk_pb2.KeyValue, context: Any) -> sdk_pb2.Empty:  # noqa: N802, D102
        async with _refusals(context, grpc.StatusCode.INVALID_ARGUMENT):
            self._record.set_annotation(request.key, request.value)
        return sdk_pb2.Empty()

    def _happen(self, event: ServerEvent) -> sdk_pb2.Empty:
        self._record.happen(event, self._now())
        return sdk_pb2.Empty()


class BetaService(beta_pb2_grpc.SDKServicer):
    """agones.dev.sdk.beta.SDK for one record: counters and lists."""

    def __init__(self, record: GameServerRecord) -> None:
        self._record = record

    async def GetCounter(self, request: beta_pb2.GetCounterRequest, context: Any) -> beta_pb2.Counter:  # noqa: N802, D102
        async with _refusals(context):
            return _counter(request.name, self._record.counter_named(request.name))

    async def UpdateCounter(self, request: beta_pb2.UpdateCounterRequest, context: Any) -> beta_pb2.Counter:  # noqa: N802, D102
        update = request.counterUpdateRequest
        async with _refusals(context):
            counter = self._record.update_counter(
                update.name,
                count=update.count.value if update.HasField("count") else None,
                capacity=update.capacity.value if update.HasField("capacity") else None,
                add=update.countDiff,
            )
            return _counter(update.name, counter)

    async def GetList(self, request: beta_pb2.GetListRequest, context: Any) -> beta_pb2.List:  # noqa: N802, D102
        async with _refusals(context):
            return _list(request.name, self._record.list_named(request.name))

    async def UpdateList(self, request: beta_pb2.UpdateListRequest, context: Any) -> beta_pb2.List:  # noqa: N802, D102
        paths = set(request.update_mask.paths)
        async with _refusals(context):
            if unknown := paths - {"capacity", "values"}:
                raise SDKError(f"field mask {sorted(unknown)}: capacity, values or both are wanted")
            # An empty mask changes nothing and is no error, as in Agones; the Node SDK's setListCapacity sends one.
            status = self._record.update_list(
                request.list.name,
                values=list(request.list.values) if "values" in paths else None,
                capacity=request.list.capacity if "capacity" in paths else None,
            )
            return _list(request.list.name, status)

    async def AddListValue(self, request: beta_pb2.AddListValueRequest, context: Any) -> beta_pb2.List:  # noqa: N802, D102
        async with _refusals(context):
            return _list(request.name, self._record.add_list_value(request.name, request.value))

    async def RemoveListValue(self, request: beta_pb2.RemoveListValueRequest, context: Any) -> beta_pb2.List:  # noqa: N802, D102
        async with _refusals(context):
            return _list(request.name, self._record.remove_list_value(request.name, request.value))


@asynccontextmanager
async def _refusals(context: Any, code: grpc.StatusCode = grpc.StatusCode.UNKNOWN) -> AsyncIterator[None]:
    """End the RPC with `code` where the record refuses."""
    try:
        yield
    except SDKError as error:
        await context.abort(code, str(error))


def _counter(name: str, status: CounterStatus) -> beta_pb2.Counter:
    return beta_pb2.Counter(name=name, count=status.count, capacity=status.capacity)


def _list(name: str, status: ListStatus) -> beta_pb2.List:
    return beta_pb2.List(name=name, values=status.values, capacity=status.capacity)


async def serve_grpc(record: GameServerRecord, now: Now) -> tuple[grpc.aio.Server, int]:
    """Start the gRPC endpoint on a free loopback port."""
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    sdk_pb2_grpc.add_SDKServicer_to_server(StableService(record, now), server)
    beta_pb2_grpc.add_SDKServicer_to_server(BetaService(record), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


def rest_gateway(record: GameServerRecord, now: Now) -> Starlette:
    """The REST gateway for one record; paths and JSON as Agones' grpc-gateway has them."""

    def event(event: ServerEvent) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            record.happen(event, now())
            return JSONResponse({})

        return endpoint

    async def health(request: Request) -> Response:
        record.ping(now())
        return JSONResponse({})

    async def game_server(request: Request) -> Response:
        return _json(game_server_message(record))

    async def watch(request: Request) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            async with changes(record) as changed:
                while True:
                    yield json.dumps({"result": _dict(game_server_message(record))}).encode() + b"\n"
                    await changed.wait()
                    changed.clear()

        return StreamingResponse(lines(), media_type="application/json")

    async def label(request: Request) -> Response:
        body = await _body(request)
        record.set_label(str(body.get("key", "")), str(body.get("value", "")))
        return JSONResponse({})

    async def annotation(request: Request) -> Response:
        body = await _body(request)
        record.set_annotation(str(body.get("key", "")), str(body.get("value", "")))
        return JSONResponse({})

    async def reserve(request: Request) -> Response:
        record.reserve(_integer((await _body(request)).get("seconds", 0)), now())
        return JSONResponse({})

    async def counter(request: Request) -> Response:
        name = request.path_params["name"]
        if request.method == "GET":
            return _json(_counter(name, record.counter_named(name)))
        body = await _body(request)
        status = record.update_counter(
            name,
            count=_integer(body["count"]) if body.get("count") is not None else None,
            capacity=_integer(body["capacity"]) if body.get("capacity") is not None else None,
            add=_integer(body.get("countDiff", 0)),
        )
        return _json(_counter(name, status))

    async def list_(request: Request) -> Response:
        name, _, verb = request.path_params["name"].partition(":")
        if request.method == "GET":
            return _json(_list(name, record.list_named(name)))
        body = await _body(request)
        if request.method == "PATCH":
            status = record.update_list(
                name,
                values=[str(value) for value in body["values"]] if isinstance(body.get("values"), list) else None,
                capacity=_integer(body["capacity"]) if body.get("capacity") is not None else None,
            )
        elif verb == "addValue":
            status = record.add_list_value(name, str(body.get("value", "")))
        elif verb == "removeValue":
            status = record.remove_list_value(name, str(body.get("value", "")))
        else:
            return _error(5, "Not Found", 404)
        return _json(_list(name, status))

    async def refused(request: Request, error: Exception) -> Response:
        bad_label = request.url.path.startswith("/metadata/")
        return _error(3, str(error), 400) if bad_label or isinstance(error, _BadBody) else _error(2, str(error), 500)

    return Starlette(
        routes=[
            Route("/ready", event(ServerEvent.SDK_READY), methods=["POST"]),
            Route("/allocate", event(ServerEvent.SDK_ALLOCATE), methods=["POST"]),
            Route("/shutdown", event(ServerEvent.SDK_SHUTDOWN), methods=["POST"]),
            Route("/health", health, methods=["POST"]),
            Route("/gameserver", game_server),
            Route("/watch/gameserver", watch),
            Route("/metadata/label", label, methods=["PUT"]),
            Route("/metadata/annotation", annotation, methods=["PUT"]),
            Route("/reserve", reserve, methods=["POST"]),
            Route("/v1beta1/counters/{name}", counter, methods=["GET", "PATCH"]),
            Route("/v1beta1/lists/{name}", list_, methods=["GET", "PATCH", "POST"]),
        ],
        exception_handlers={SDKError: refused, _BadBody: refused},
    )


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


def _dict(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


def _json(message: Message) -> Response:
    return JSONResponse(_dict(message))


def _error(code: int, message: str, status: int) -> Response:
    return JSONResponse({"code": code, "message": message, "details": []}, status_code=status)
