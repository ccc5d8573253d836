"""
Agones' own allocation service, answered from our shelves: clients written for Agones point here, and are served in one Valkey round trip.

A request's selectors become fleets: `agones.dev/fleet` by name, any other label among those of the fleet's YAML; selectors are tried in order. What a
room can stand for is honoured, and what it cannot (counters, lists, priorities of single servers) is refused by name instead of ignored. Both states
that a selector may ask for, READY and ALLOCATED, mean a free room here: filling running servers is what the shelf does. Metadata is handed to the
game as options of its session, and its labels are put on the server where the game is not ours.

Semantics: cmd/allocator/main.go, pkg/allocation/converters and pkg/apis/allocation/v1 of Agones 1.57.
"""

import asyncio
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import grpc
import grpc.aio
import structlog

from allocator.api.problems import Problem
from allocator.api.tokens import ServiceTokens
from allocator.backends.pb import allocation_pb2, allocation_pb2_grpc
from allocator.model import Allocation, AllocationRequest, Cause, FleetPolicy, Strategy, Unavailable
from allocator.ports import Backend, BackendUnavailable
from allocator.service import Allocator
from gameserver import certificates, tracing
from gameserver.certificates import Certificate, CertificateError, CertificateFiles
from gameserver.sessions.model import FleetName, MatchId
from gameserver.sessions.port import StoreUnavailable

log = structlog.get_logger(__name__)

FLEET_LABEL = "agones.dev/fleet"
SESSION_LABEL = "warmfleet.dev/session"
WAIT_S = 1.0
"""How long a request waits for a server at most, by default: Agones answers without waiting, and its clients ask again by themselves."""
MAX_WAITING = 5000
LIMITS = {
    "grpc.max_receive_message_length": 256 * 1024,
    "grpc.max_metadata_size": 16 * 1024,
    "grpc.max_concurrent_streams": 1000,
    "grpc.server_handshake_timeout_ms": 10_000,
    "grpc.max_connection_idle_ms": 300_000,
    "grpc.max_connection_age_ms": 600_000,
    "grpc.max_connection_age_grace_ms": 10_000,
    "grpc.keepalive_time_ms": 60_000,
    "grpc.keepalive_timeout_ms": 20_000,
}
"""Of one connection. gRPC sets no end to a request that is never whole: its connection has one, after which clients connect anew by themselves."""
_MARGIN = 0.8
"""Of what is left of the client's deadline: so that it gets an answer instead of a timeout."""
_KEY = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_MATCH = re.compile(r"[A-Za-z0-9_-]{1,64}")


_Context = grpc.aio.ServicerContext[allocation_pb2.AllocationRequest, allocation_pb2.AllocationResponse]


class _Refused(Exception):
    """The request cannot be served as it is; the message names the field."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class AllocationService(allocation_pb2_grpc.AllocationServiceServicer):
    """`allocation.AllocationService`."""

    def __init__(
        self, allocator: Allocator, backend: Backend, *, tokens: ServiceTokens | None = None, wait_s: float = WAIT_S
    ) -> None:
        """`tokens`: wanted as `authorization: Bearer …` in the call's metadata; None: the connection is trusted (mutual TLS, loopback)."""
        self._allocator = allocator
        self._backend = backend
        self._tokens = tokens
        self._wait_s = wait_s
        self._waiting = 0

    async def Allocate(  # noqa: N802 (gRPC's name)
        self, request: allocation_pb2.AllocationRequest, context: _Context
    ) -> allocation_pb2.AllocationResponse:
        """Allocate a room; the answer is its server, as Agones gives it."""
        metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
        if self._tokens is not None:
            try:
                self._tokens.check(metadata.get("authorization", ""))
            except Problem as error:
                await _abort(context, grpc.StatusCode.UNAUTHENTICATED, error.detail)
        try:
            asked = to_request(request, self._allocator.fleets, metadata.get("x-request-id", ""))
        except _Refused as error:
            await _abort(context, error.code, str(error))
        if self._waiting >= MAX_WAITING:
            await _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_WAITING} requests wait already")
        left_s = context.time_remaining()
        wait_s = self._wait_s if left_s is None else min(self._wait_s, left_s * _MARGIN)
        self._waiting += 1
        try:
            with tracing.span("Allocate", parent=metadata.get(tracing.OPTION, "")):
                found = await self._allocator.allocate(asked, deadline_s=max(wait_s, 0.05), wait=wait_s > 0)
        except StoreUnavailable as error:
            log.warning("store_unavailable", error=str(error))
            await _abort(context, grpc.StatusCode.UNAVAILABLE, f"{error.why}; ask again")
        finally:
            self._waiting -= 1
        if isinstance(found, Unavailable):
            code = (
                grpc.StatusCode.FAILED_PRECONDITION
                if found.cause is Cause.ENDED
                else grpc.StatusCode.RESOURCE_EXHAUSTED
            )
            await _abort(context, code, f"there is no available GameServer to allocate: {found.reason}")
        await self._mark(found, request)
        return to_response(found)

    async def _mark(self, found: Allocation, request: allocation_pb2.AllocationRequest) -> None:
        """Put the metadata's labels on a server whose game knows no sessions; without them it is allocated all the same."""
        labels = dict(_metadata(request).labels)
        if labels and not self._allocator.fleets[found.session.fleet].managed:
            try:
                await self._backend.label(found.session.server, labels)
            except BackendUnavailable as error:
                log.warning("labels_not_set", server=found.session.server, error=str(error))


def to_request(
    request: allocation_pb2.AllocationRequest, fleets: Mapping[FleetName, FleetPolicy], request_id: str
) -> AllocationRequest:
    """
    Read a request in our words.

    Args:
        request_id: makes repeating it safe; "" where the client gives none, as Agones knows no such thing.
    """
    if request_id and not _MATCH.fullmatch(request_id):
        raise _invalid("metadata x-request-id: wanted 1 to 64 letters, digits, - or _")
    for field in ("counters", "lists", "priorities"):
        if len(getattr(request, field)):
            raise _invalid(f"{field}: rooms have none; select by labels")
    metadata = _metadata(request)
    for kind, values in (("labels", metadata.labels), ("annotations", metadata.annotations)):
        for key, value in values.items():
            if not _KEY.fullmatch(key) or (kind == "labels" and not _VALUE.fullmatch(value)):
                raise _invalid(f"metadata.{kind}: {key!r}: {value!r} is not what Kubernetes takes")
    found: list[FleetName] = []
    for name, selector in _selectors(request):
        found += [fleet for fleet in _matching(name, selector, request, fleets) if fleet not in found]
    if not found:
        raise _Refused(
            grpc.StatusCode.NOT_FOUND,
            f"no fleet matches the selectors; there are: {', '.join(sorted(fleets)) or 'none'}",
        )
    spread = request.scheduling == allocation_pb2.AllocationRequest.SchedulingStrategy.Distributed
    return AllocationRequest(
        match=MatchId(request_id or secrets.token_hex(10)),
        fleets=tuple(found),
        seats=(),
        options={**metadata.labels, **metadata.annotations},
        strategy=Strategy.DISTRIBUTED if spread else None,
        retried=bool(request_id) and len(found) > 1,
    )


def to_response(found: Allocation) -> allocation_pb2.AllocationResponse:
    """An allocation as Agones gives it."""
    session = found.session
    response = allocation_pb2.AllocationResponse(
        gameServerName=session.server,
        address=found.host,
        source="local",
        ports=[
            allocation_pb2.AllocationResponse.GameServerStatusPort(name=name, port=port)
            for name, port in found.ports.items()
        ],
    )
    response.metadata.labels.update({FLEET_LABEL: session.fleet, SESSION_LABEL: session.id})
    response.metadata.annotations.update(
        {
            "warmfleet.dev/room": str(session.room),
            "warmfleet.dev/temperature": found.temperature.value,
            "warmfleet.dev/reason": found.reason,
            **session.options,
        }
    )
    return response


def _metadata(request: allocation_pb2.AllocationRequest) -> allocation_pb2.MetaPatch:
    return request.metadata if request.HasField("metadata") else request.metaPatch


def _selectors(
    request: allocation_pb2.AllocationRequest,
) -> Sequence[tuple[str, allocation_pb2.GameServerSelector]]:
    """In the order in which Agones tries them; without any, every server will do."""
    if request.gameServerSelectors:
        return [(f"gameServerSelectors[{i}]", found) for i, found in enumerate(request.gameServerSelectors)]
    old = [(f"preferredGameServerSelectors[{i}]", s) for i, s in enumerate(request.preferredGameServerSelectors)]
    return [*old, ("requiredGameServerSelector", request.requiredGameServerSelector)]


def _matching(
    name: str,
    selector: allocation_pb2.GameServerSelector,
    request: allocation_pb2.AllocationRequest,
    fleets: Mapping[FleetName, FleetPolicy],
) -> Sequence[FleetName]:
    for field in ("counters", "lists"):
        if len(getattr(selector, field)):
            raise _invalid(f"{name}.{field}: rooms have none; select by labels")
    players = selector.players
    if players.maxAvailable and players.minAvailable > players.maxAvailable:
        raise _invalid(
            f"{name}.players: minAvailable {players.minAvailable} is above maxAvailable {players.maxAvailable}"
        )
    if players.minAvailable or players.maxAvailable:
        raise _invalid(f"{name}.players: seats of running matches are reserved through the REST API")
    wanted = dict(selector.matchLabels)
    if request.multiClusterSetting.enabled:
        # The fleets of all clusters are in one list here: a policy selector says which of them.
        wanted |= dict(request.multiClusterSetting.policySelector.matchLabels)
    for key, value in wanted.items():
        if not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            raise _invalid(f"{name}.matchLabels: {key!r}: {value!r} is no label")
    return [
        fleet for fleet, policy in fleets.items() if wanted.items() <= {**policy.labels, FLEET_LABEL: fleet}.items()
    ]


def _invalid(message: str) -> _Refused:
    return _Refused(grpc.StatusCode.INVALID_ARGUMENT, message)


async def _abort(context: _Context, code: grpc.StatusCode, message: str) -> NoReturn:
    await context.abort(code, message)
    raise AssertionError("abort raises")


class AllocationServer:
    """The service on a port; use it as a context."""

    def __init__(self, service: AllocationService, *, address: str, tls: CertificateFiles | None) -> None:
        """
        Prepare it.

        Args:
            address: `host:port`; port 0 for any.
            tls: None only for a loopback address. Without its `ca` clients show no certificate, but a service token. Changed files
                are taken up by the next connection.
        Raises: CertificateError, ValueError, RuntimeError when the address is taken.
        """
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0), *LIMITS.items()])
        allocation_pb2_grpc.add_AllocationServiceServicer_to_server(service, self._server)
        if tls is None:
            if not address.startswith(("127.0.0.1:", "localhost:", "[::1]:")):
                raise ValueError(f"{address}: without TLS only a loopback address is listened on")
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, _credentials(tls))

    async def __aenter__(self) -> "AllocationServer":
        await self._server.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        # Those that wait for a server get their answer, or the time that one waits at most.
        await asyncio.shield(self._server.stop(WAIT_S))


def _credentials(tls: CertificateFiles) -> grpc.ServerCredentials:
    loaded = certificates.read(tls)

    def fetch() -> Any:  # None too, which the stubs do not know
        """Asked before each connection; None: the files are as they were, or are just being changed."""
        nonlocal loaded
        try:
            found = certificates.read(tls)
        except CertificateError as error:
            log.warning("certificate_not_taken_up", error=str(error))
            return None
        if found == loaded:
            return None
        loaded = found
        return _configuration(found)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(loaded), fetch, require_client_authentication=tls.ca is not None
    )


def _configuration(found: Certificate) -> grpc.ServerCertificateConfiguration:
    assert found.key is not None
    assert found.certificate is not None
    return grpc.ssl_server_certificate_configuration([(found.key, found.certificate)], root_certificates=found.ca)
