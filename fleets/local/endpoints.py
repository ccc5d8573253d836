"""
The SDK over gRPC, AGONES_SDK_GRPC_PORT of one local game server; `rest.py` says the same over HTTP.

Only translates: every decision is the record's (`states.py`). Errors have the status that Agones' sidecar gives: INVALID_ARGUMENT for labels, UNKNOWN
for counters and lists.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

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
            return counter_message(request.name, self._record.counter_named(request.name))

    async def UpdateCounter(self, request: beta_pb2.UpdateCounterRequest, context: Any) -> beta_pb2.Counter:  # noqa: N802, D102
        update = request.counterUpdateRequest
        async with _refusals(context):
            counter = self._record.update_counter(
                update.name,
                count=update.count.value if update.HasField("count") else None,
                capacity=update.capacity.value if update.HasField("capacity") else None,
                add=update.countDiff,
            )
            return counter_message(update.name, counter)

    async def GetList(self, request: beta_pb2.GetListRequest, context: Any) -> beta_pb2.List:  # noqa: N802, D102
        async with _refusals(context):
            return list_message(request.name, self._record.list_named(request.name))

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
            return list_message(request.list.name, status)

    async def AddListValue(self, request: beta_pb2.AddListValueRequest, context: Any) -> beta_pb2.List:  # noqa: N802, D102
        async with _refusals(context):
            return list_message(request.name, self._record.add_list_value(request.name, request.value))

    async def RemoveListValue(self, request: beta_pb2.RemoveListValueRequest, context: Any) -> beta_pb2.List:  # noqa: N802, D102
        async with _refusals(context):
            return list_message(request.name, self._record.remove_list_value(request.name, request.value))


@asynccontextmanager
async def _refusals(context: Any, code: grpc.StatusCode = grpc.StatusCode.UNKNOWN) -> AsyncIterator[None]:
    """End the RPC with `code` where the record refuses."""
    try:
        yield
    except SDKError as error:
        await context.abort(code, str(error))


def counter_message(name: str, status: CounterStatus) -> beta_pb2.Counter:
    """A counter in the SDK's words."""
    return beta_pb2.Counter(name=name, count=status.count, capacity=status.capacity)


def list_message(name: str, status: ListStatus) -> beta_pb2.List:
    """A list in the SDK's words."""
    return beta_pb2.List(name=name, values=status.values, capacity=status.capacity)


async def serve_grpc(record: GameServerRecord, now: Now) -> tuple[grpc.aio.Server, int]:
    """Start the gRPC endpoint on a free loopback port."""
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    sdk_pb2_grpc.add_SDKServicer_to_server(StableService(record, now), server)
    beta_pb2_grpc.add_SDKServicer_to_server(BetaService(record), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port
