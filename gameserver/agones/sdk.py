"""
The Agones SDK over grpc.aio: what a game server says to its sidecar, and hears from it; the stable part, and counters and lists of the beta part.

Owns one channel, made in the running loop (never before a fork), and the translation of its errors. `ready`, `shutdown` and the others are
single calls with a deadline; `keep_healthy` and `watch` go on through a sidecar's restart. Agones' own words are used for states. What is left in
alpha (player tracking, behind a gate that is off) is not here: lists do the same, see docs/decisions/0005.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from gameserver.agones.pb import beta_pb2, beta_pb2_grpc, sdk_pb2, sdk_pb2_grpc

_CHANNEL_OPTIONS = (
    # A game often starts before its sidecar listens; gRPC's default first back-off of 1 s would be on every start-up.
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
)
_RETRY_S = 0.2


class SDKUnavailable(Exception):
    """The sidecar does not answer."""


class SDKRefused(Exception):
    """The sidecar refused the call: a bad label, a counter out of range."""


class SDKNotFound(SDKRefused):
    """The GameServer does not declare this counter or list, or the value is not in the list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """A counter of the GameServer."""

    count: int
    capacity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class List:
    """A list of the GameServer."""

    values: tuple[str, ...]
    capacity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """When Agones takes the GameServer for unhealthy."""

    disabled: bool
    period_s: int
    failure_threshold: int
    initial_delay_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SDKGameServer:
    """The GameServer that this process is, as its sidecar knows it."""

    name: str
    namespace: str
    uid: str
    resource_version: str
    generation: int
    created_at: datetime
    deleted_at: datetime | None
    """When its deletion was asked for."""
    state: str
    address: str
    addresses: tuple[tuple[str, str], ...]
    """(type, address): `InternalIP`, `ExternalIP`, `Hostname`, `PodIP`, as far as Agones knows them."""
    ports: Mapping[str, int]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    health: Health
    counters: Mapping[str, Counter]
    lists: Mapping[str, List]


class AgonesSDK:
    """A connection to the sidecar, as an async context manager."""

    def __init__(self, port: int, *, host: str = "127.0.0.1", timeout_s: float = 5.0) -> None:
        self._target = f"{host}:{port}"
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(self._target, options=_CHANNEL_OPTIONS)
        self._stable = sdk_pb2_grpc.SDKStub(self._channel)
        self._beta = beta_pb2_grpc.SDKStub(self._channel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close(None)

    async def ready(self) -> None:
        """Ask to become Ready: players may be sent here. Also returns an Allocated server to Ready."""
        await self._call(self._stable.Ready, sdk_pb2.Empty())

    async def allocate(self) -> None:
        """Become Allocated by one's own decision."""
        await self._call(self._stable.Allocate, sdk_pb2.Empty())

    async def shutdown(self) -> None:
        """Ask to be removed and replaced."""
        await self._call(self._stable.Shutdown, sdk_pb2.Empty())

    async def reserve(self, seconds: int) -> None:
        """Be Reserved for so long, then Ready again; 0 is without end."""
        await self._call(self._stable.Reserve, sdk_pb2.Duration(seconds=seconds))

    async def set_label(self, key: str, value: str) -> None:
        """Set a label; Agones prefixes the key with `agones.dev/sdk-`."""
        await self._call(self._stable.SetLabel, sdk_pb2.KeyValue(key=key, value=value))

    async def set_annotation(self, key: str, value: str) -> None:
        """Set an annotation; Agones prefixes the key with `agones.dev/sdk-`."""
        await self._call(self._stable.SetAnnotation, sdk_pb2.KeyValue(key=key, value=value))

    async def get_game_server(self) -> SDKGameServer:
        """Fetch the GameServer of this process."""
        return _game_server(await self._call(self._stable.GetGameServer, sdk_pb2.Empty()))

    async def watch(self) -> AsyncIterator[SDKGameServer]:
        """Yield the GameServer now and at each change; takes up again after a sidecar's restart, so a change may come twice."""
        while True:
            stream = self._stable.WatchGameServer(sdk_pb2.Empty(), wait_for_ready=True)
            try:
                async for message in stream:
                    yield _game_server(message)
            except grpc.aio.AioRpcError:
                pass  # the sidecar restarts: the next stream begins with the present state
            finally:
                stream.cancel()
            await asyncio.sleep(_RETRY_S)

    async def keep_healthy(self, period_s: float) -> None:
        """Send a health ping every `period_s` until cancelled, through a sidecar's restarts."""
        while True:
            stream = self._stable.Health(wait_for_ready=True)
            try:
                while True:
                    await stream.write(sdk_pb2.Empty())
                    await asyncio.sleep(period_s)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await asyncio.sleep(_RETRY_S)
            finally:
                stream.cancel()

    async def get_counter(self, name: str) -> Counter:
        """Fetch a counter."""
        return _counter(await self._call(self._beta.GetCounter, beta_pb2.GetCounterRequest(name=name)))

    async def update_counter(
        self, name: str, *, count: int | None = None, capacity: int | None = None, add: int = 0
    ) -> Counter:
        """Set a counter's count or capacity, or add to its count; the count stays from 0 to the capacity."""
        request = beta_pb2.CounterUpdateRequest(name=name, countDiff=add)
        if count is not None:
            request.count.value = count
        if capacity is not None:
            request.capacity.value = capacity
        update = beta_pb2.UpdateCounterRequest(counterUpdateRequest=request)
        return _counter(await self._call(self._beta.UpdateCounter, update))

    async def get_list(self, name: str) -> List:
        """Fetch a list."""
        return _list(await self._call(self._beta.GetList, beta_pb2.GetListRequest(name=name)))

    async def update_list(
        self, name: str, *, values: tuple[str, ...] | None = None, capacity: int | None = None
    ) -> None:
        """Set a list's values or capacity (at most 1,000). Agones' sidecar answers with an empty list, so nothing is returned."""
        request = beta_pb2.UpdateListRequest(list=beta_pb2.List(name=name, values=values or (), capacity=capacity or 0))
        request.update_mask.paths.extend(
            path for path, given in (("values", values), ("capacity", capacity)) if given is not None
        )
        await self._call(self._beta.UpdateList, request)

    async def add_list_value(self, name: str, value: str) -> List:
        """Append a value that the list does not have yet."""
        request = beta_pb2.AddListValueRequest(name=name, value=value)
        return _list(await self._call(self._beta.AddListValue, request))

    async def remove_list_value(self, name: str, value: str) -> List:
        """Remove a value that the list has."""
        request = beta_pb2.RemoveListValueRequest(name=name, value=value)
        return _list(await self._call(self._beta.RemoveListValue, request))

    async def _call(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, timeout=self._timeout_s, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise SDKUnavailable(f"the Agones SDK at {self._target} does not answer: {error.details()}") from error
            # Agones' sidecar answers UNKNOWN for what its own definition calls NOT_FOUND; only the words tell.
            missing = error.code() is grpc.StatusCode.NOT_FOUND or "not found" in (error.details() or "").lower()
            raise (SDKNotFound if missing else SDKRefused)(error.details()) from error


def _game_server(message: sdk_pb2.GameServer) -> SDKGameServer:
    status, meta = message.status, message.object_meta
    health = message.spec.health
    deleted_s = meta.deletion_timestamp
    return SDKGameServer(
        name=meta.name,
        namespace=meta.namespace,
        uid=meta.uid,
        resource_version=meta.resource_version,
        generation=meta.generation,
        created_at=datetime.fromtimestamp(meta.creation_timestamp, UTC),
        deleted_at=datetime.fromtimestamp(deleted_s, UTC) if deleted_s else None,
        state=status.state,
        address=status.address,
        addresses=tuple((it.type, it.address) for it in status.addresses),
        health=Health(
            disabled=health.disabled,
            period_s=health.period_seconds,
            failure_threshold=health.failure_threshold,
            initial_delay_s=health.initial_delay_seconds,
        ),
        ports={port.name: port.port for port in status.ports},
        labels=dict(meta.labels),
        annotations=dict(meta.annotations),
        counters={name: Counter(count=c.count, capacity=c.capacity) for name, c in status.counters.items()},
        lists={name: List(values=tuple(it.values), capacity=it.capacity) for name, it in status.lists.items()},
    )


def _counter(message: beta_pb2.Counter) -> Counter:
    return Counter(count=message.count, capacity=message.capacity)


def _list(message: beta_pb2.List) -> List:
    return List(values=tuple(message.values), capacity=message.capacity)
