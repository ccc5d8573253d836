"""agones-allocator's gRPC side: `allocation.AllocationService/Allocate` over mTLS, with Agones' status codes."""

import asyncio
from typing import Any

import grpc
import grpc.aio
from google.protobuf import json_format

from agones_fake.allocation import NONE_FREE, Allocator, InvalidAllocation, UpdateConflict
from agones_fake.certificates import Certificates, KeyPair
from agones_fake.cluster import Object
from agones_fake.faults import Effect, Faults
from allocator.backends.pb import allocation_pb2 as pb
from allocator.backends.pb import allocation_pb2_grpc

_OPTIONS = (
    ("grpc.so_reuseport", 0),
    # As agones-allocator: who pings more often than once a minute is sent away (ENHANCE_YOUR_CALM).
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 60_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 60_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_connection_idle_ms", 300_000),
)


class GrpcApi(allocation_pb2_grpc.AllocationServiceServicer):
    """Serves until stopped, and again on the same port."""

    def __init__(self, allocator: Allocator, faults: Faults, certificates: Certificates | None):
        """Without certificates it serves in plain text, as `--disable-tls` does."""
        self._allocator = allocator
        self._faults = faults
        self._certificates = certificates
        self._server: grpc.aio.Server | None = None
        self.pair: KeyPair | None = certificates.server if certificates else None
        """What it shows; change it and start again for a rotation."""
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = grpc.aio.server(options=_OPTIONS)
        allocation_pb2_grpc.add_AllocationServiceServicer_to_server(self, self._server)
        address = f"127.0.0.1:{self.port}"
        if self._certificates is None:
            self.port = self._server.add_insecure_port(address)
        else:
            assert self.pair is not None
            credentials = grpc.ssl_server_credentials(
                [(self.pair.key.read_bytes(), self.pair.certificate.read_bytes())],
                root_certificates=self._certificates.ca.read_bytes(),
                require_client_auth=True,
            )
            self.port = self._server.add_secure_port(address, credentials)
        await self._server.start()

    async def stop(self) -> None:
        """Break every connection and refuse new ones."""
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    async def Allocate(self, request: pb.AllocationRequest, context: Any) -> pb.AllocationResponse:  # noqa: N802
        fault = self._faults.take("allocate")
        effect = fault.effect if fault else None
        if fault is not None:
            if effect is Effect.DROP_BEFORE:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            elif effect is Effect.STATUS:
                await context.abort(grpc.StatusCode[fault.grpc_code], "injected")
            elif effect is Effect.CONTENTION:
                await context.abort(grpc.StatusCode.ABORTED, "too many concurrent requests have overwhelmed the system")
            elif effect in (Effect.DELAY, Effect.STALL):
                await asyncio.sleep(fault.seconds)
        try:
            answer = await self._allocator.allocate(to_object(request))
        except InvalidAllocation as error:
            # Agones puts the HTTP code 422 where a gRPC code belongs; clients see UNKNOWN.
            await context.abort(grpc.StatusCode.UNKNOWN, f'GameServerAllocation "" is invalid: {error}')
        except UpdateConflict:
            await context.abort(grpc.StatusCode.UNKNOWN, "could not update the selected GameServer")
        if fault is not None and effect is Effect.DROP_AFTER:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        if fault is not None and effect is Effect.STALL_AFTER:
            await asyncio.sleep(fault.seconds)
        match answer["status"]["state"]:
            case "Allocated":
                return to_message(answer["status"])
            case "UnAllocated":
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, NONE_FREE)
            case _:
                await context.abort(grpc.StatusCode.ABORTED, "too many concurrent requests have overwhelmed the system")
        raise AssertionError


def to_object(request: pb.AllocationRequest) -> Object:
    """ConvertAllocationRequestToGSA."""
    spec: Object = {
        "scheduling": pb.AllocationRequest.SchedulingStrategy.Name(request.scheduling),
        "selectors": [_selector(selector) for selector in request.gameServerSelectors],
        "required": _selector(request.requiredGameServerSelector),
        "preferred": [_selector(selector) for selector in request.preferredGameServerSelectors],
        "multiClusterSetting": json_format.MessageToDict(request.multiClusterSetting),
    }
    patch = request.metadata if request.HasField("metadata") else request.metaPatch
    spec["metadata"] = {"labels": dict(patch.labels), "annotations": dict(patch.annotations)}
    if request.priorities:
        spec["priorities"] = [
            {"type": pb.Priority.Type.Name(p.type), "key": p.key, "order": pb.Priority.Order.Name(p.order)}
            for p in request.priorities
        ]
    spec["counters"] = {
        name: {
            field: getattr(action, field).value for field in ("action", "amount", "capacity") if action.HasField(field)
        }
        for name, action in request.counters.items()
    }
    spec["lists"] = {
        name: {"addValues": list(action.addValues), "deleteValues": list(action.deleteValues)}
        | ({"capacity": action.capacity.value} if action.HasField("capacity") else {})
        for name, action in request.lists.items()
    }
    return {"metadata": {"namespace": request.namespace}, "spec": spec}


def _selector(selector: pb.GameServerSelector) -> Object:
    found: Object = {
        "matchLabels": dict(selector.matchLabels),
        "gameServerState": "Allocated" if selector.gameServerState else "Ready",
        "counters": {
            name: {
                "minCount": c.minCount,
                "maxCount": c.maxCount,
                "minAvailable": c.minAvailable,
                "maxAvailable": c.maxAvailable,
            }
            for name, c in selector.counters.items()
        },
        "lists": {
            name: {
                "containsValue": found.containsValue,
                "minAvailable": found.minAvailable,
                "maxAvailable": found.maxAvailable,
            }
            for name, found in selector.lists.items()
        },
    }
    if selector.HasField("players"):
        players = selector.players
        found["players"] = {"minAvailable": players.minAvailable, "maxAvailable": players.maxAvailable}
    return found


def to_message(status: Object) -> pb.AllocationResponse:
    """ConvertGSAToAllocationResponse."""
    message = pb.AllocationResponse(
        gameServerName=status["gameServerName"],
        address=status["address"],
        nodeName=status["nodeName"],
        source=status["source"],
    )
    for port in status["ports"]:
        message.ports.add(name=port["name"], port=port["port"])
    for address in status["addresses"]:
        message.addresses.add(type=address["type"], address=address["address"])
    message.metadata.labels.update(status["metadata"]["labels"])
    message.metadata.annotations.update(status["metadata"]["annotations"])
    for name, counter in status.get("counters", {}).items():
        message.counters[name].count.value = counter.get("count", 0)
        message.counters[name].capacity.value = counter.get("capacity", 0)
    for name, values in status.get("lists", {}).items():
        message.lists[name].values.extend(values.get("values") or [])
        message.lists[name].capacity.value = values.get("capacity", 0)
    return message
