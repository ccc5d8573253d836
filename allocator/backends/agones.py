"""
Backend `agones`: allocation by Agones' allocation service over gRPC with mTLS, everything else by the cluster's API server.

The service only allocates; it cannot list, watch, label or delete. A shelf needs all of these, so this backend is paired with a `KubernetesBackend` of the
same cluster; without one it allocates, and says so when it is asked for more. The endpoints are replicas of one cluster's service: several clusters are
several backends.

An allocation cannot be taken back, so a call is repeated only if it surely changed nothing (no connection, contention, a refusal), or if what it may have
left behind is found: a request with the shelf's label is asked again elsewhere when its connection breaks, since reconciliation adopts a server of both.
"""

import asyncio
import datetime
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import grpc
import grpc.aio
import structlog

from allocator.backends import metrics
from allocator.backends.endpoints import Endpoint, Endpoints
from allocator.backends.kubernetes import FleetCounts, KubernetesBackend
from allocator.backends.pb import allocation_pb2 as pb
from allocator.backends.pb import allocation_pb2_grpc
from allocator.backends.request import FleetRule, ServerRequest
from allocator.backends.wire import Given, given_by_message, to_message
from allocator.model import GameServer
from allocator.ports import SHELF_LABEL, BackendUnavailable
from gameserver import certificates, tracing
from gameserver.certificates import Certificate, CertificateError, CertificateFiles
from gameserver.sessions.model import FleetName, ServerName

log = structlog.get_logger(__name__)

TIMEOUT_S = 10.0
"""Of an allocation with its retries: Agones' batch (0.5 s by default), five times should it contend, and some more."""
_CONNECT_S = 2.0
_TRIES = 5
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_CHECK_FILES_S = 10.0
_OPTIONS = (
    # agones-allocator sends away who pings more often than once a minute, and closes idle connections after five.
    ("grpc.keepalive_time_ms", 75_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.enable_retries", 0),  # gRPC's own would repeat what may have taken effect
)
_NOT_SENT = "failed to connect to all addresses"
"""gRPC's words when there was no connection to send on."""
_UPDATE_CONFLICT = "could not update the selected GameServer"
_NONE_FREE = "no available GameServer"
"""Agones' words; the code is a setting of its (RESOURCE_EXHAUSTED by default)."""


class AgonesBackend:
    """Servers of one cluster, as an async context manager; implements `allocator.ports.Backend`."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        files: CertificateFiles | None,
        cluster: KubernetesBackend | None,
        namespace: str = "",
        region: str = "",
        rules: Mapping[FleetName, FleetRule] | None = None,
        server_name: str = "",
        timeout_s: float = TIMEOUT_S,
        check_files_s: float = _CHECK_FILES_S,
        clock: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        """
        Make it; nothing is connected before it is entered.

        Args:
            files: certificates, read again when they change; None: plain text, for a service that is reached inside a mesh.
            cluster: entered together with this backend; None: allocation alone.
            namespace: of the game servers; empty: the cluster's.
            region: the endpoints of this region are asked first.
            rules: how servers are chosen, by fleet.
            server_name: the name in the service's certificate, where its address is another.
        Raises: ValueError, InvalidRequest.
        """
        self._endpoints = Endpoints(endpoints, region=region)
        self._files, self._cluster = files, cluster
        self._namespace, self._server_name = namespace, server_name
        self._rules = rules or {}
        for fleet, rule in self._rules.items():
            rule.request(fleet, labels={}, annotations={})  # a contradiction is said at the start
        self._timeout_s, self._check_files_s, self._clock = timeout_s, check_files_s, clock
        self._certificate: Certificate | None = None
        self._channels: dict[Endpoint, grpc.aio.Channel] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._rng = random.Random()  # noqa: S311 (jitter)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Raises CertificateError, BackendUnavailable."""
        if self._files is not None:
            self._take_up(await asyncio.to_thread(certificates.read, self._files))
            watching = asyncio.create_task(self._watch_files(), name="allocation-certificate")
            self._stack.push_async_callback(_ended, watching)
        if self._cluster is not None:
            await self._stack.enter_async_context(self._cluster)
        self._stack.push_async_callback(self._close)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    # allocator.ports.Backend

    async def allocate(
        self, fleet: FleetName, *, labels: Mapping[str, str], annotations: Mapping[str, str]
    ) -> GameServer | None:
        """Move one Ready server to Allocated, with metadata; None when none is Ready."""
        rule = self._rules.get(fleet) or FleetRule()
        given = await self.take(rule.request(fleet, labels=labels, annotations=annotations))
        if given is None:
            return None
        return given.server if self._cluster is None else await self._cluster.settled(given)

    async def servers(self, fleet: FleetName, *, fresh: bool = False) -> tuple[GameServer, ...]:
        """List every live server; with `fresh` as they are now, not as last heard."""
        return await self._paired("list servers").servers(fleet, fresh=fresh)

    def watch(self, fleet: FleetName) -> AsyncIterator[GameServer]:
        """Yield every live server, then each as it changes."""
        return self._paired("watch servers").watch(fleet)

    async def label(self, server: ServerName, labels: Mapping[str, str]) -> None:
        """Set labels; a server that is gone is no error."""
        await self._paired("label a server").label(server, labels)

    async def delete(self, server: ServerName) -> None:
        """Remove a server in any state."""
        await self._paired("delete a server").delete(server)

    # What only a cluster's backend can do.

    async def fleet_counts(self) -> tuple[FleetCounts, ...]:
        """The Fleets of the namespace. Raises BackendUnavailable."""
        return await self._paired("count fleets").fleet_counts()

    async def take(self, request: ServerRequest) -> Given | None:
        """Any allocation that Agones knows; None when no server matches. Raises BackendUnavailable."""
        namespace = self._namespace or (self._cluster.namespace if self._cluster else "default")
        message = to_message(request, namespace)
        until_s, pause_s, why = time.monotonic() + self._timeout_s, _FIRST_PAUSE_S, ""
        with metrics.SECONDS.labels("agones", "allocate").time():
            for _ in range(_TRIES):
                for endpoint in self._endpoints.order(time.monotonic()):
                    outcome = await self._ask(endpoint, message, until_s=until_s)
                    if isinstance(outcome, _Refusal):
                        why = outcome.why
                        if outcome.contention:
                            break  # at the service, not at this endpoint
                        self._put_aside(endpoint, why)
                        if outcome.sent and SHELF_LABEL not in request.labels:
                            raise _unavailable(f"{why}; whether a server was allocated is unknown")
                        continue
                    self._endpoints.answered(endpoint)
                    metrics.CALLS.labels("agones", "allocate", "none" if outcome is None else "ok").inc()
                    return outcome
                wait_s = pause_s * self._rng.uniform(0.5, 1.0)
                if time.monotonic() + wait_s >= until_s:
                    break
                await asyncio.sleep(wait_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        raise _unavailable(why)

    async def _ask(
        self, endpoint: Endpoint, message: pb.AllocationRequest, *, until_s: float
    ) -> "Given | _Refusal | None":
        channel = self._channel(endpoint)
        if not await _connected(channel, min(_CONNECT_S, until_s - time.monotonic())):
            return _Refusal(f"{endpoint.address}: no connection within {_CONNECT_S:g} s", sent=False)
        try:
            answer = await allocation_pb2_grpc.AllocationServiceStub(channel).Allocate(
                message, timeout=max(0.001, until_s - time.monotonic()), metadata=tuple(tracing.headers().items())
            )
        except grpc.aio.AioRpcError as error:
            details = error.details() or ""
            match error.code():
                case grpc.StatusCode.RESOURCE_EXHAUSTED:
                    return None
                case _ if _NONE_FREE in details:
                    return None
                case grpc.StatusCode.ABORTED:
                    return _Refusal(f"{endpoint.address}: contention: {details}", sent=False, contention=True)
                case grpc.StatusCode.UNKNOWN if _UPDATE_CONFLICT in details:
                    return _Refusal(f"{endpoint.address}: contention: {details}", sent=False, contention=True)
                case grpc.StatusCode.UNAVAILABLE:
                    why = f"{endpoint.address}: {details}{await self._tls_hint()}"
                    return _Refusal(why, sent=_NOT_SENT not in details)
                case code if code in _REFUSALS:
                    return _Refusal(f"{endpoint.address}: {code.name}: {details}", sent=False)
                case code:
                    # The deadline has passed, or the service itself failed: another endpoint would do no better.
                    raise _unavailable(f"{endpoint.address}: {code.name}: {details}") from error
        return given_by_message(answer)

    async def _tls_hint(self) -> str:
        """A refused certificate shows as a broken connection only: look at the files, and whether they have changed."""
        if self._files is None:
            return " (plain text was spoken: does the service want TLS?)"
        await self._refresh()
        assert self._certificate is not None
        wrong = certificates.complaint(self._files, self._certificate, self._clock())
        if wrong:
            return f" ({wrong})"
        if self._certificate.certificate is None:
            return " (no client certificate was shown: does the service want one?)"
        return (
            " (a TLS alert looks like this too: does the service trust the authority of "
            f"{self._files.certificate}, and was its own certificate signed by {self._files.ca or 'a known authority'}?)"
        )

    async def _watch_files(self) -> None:
        while True:
            await asyncio.sleep(self._check_files_s)
            await self._refresh()

    async def _refresh(self) -> None:
        """Take up changed files: new connections with the new certificate, calls under way end on the old ones."""
        assert self._files is not None
        try:
            found = await asyncio.to_thread(certificates.read, self._files)
        except CertificateError as error:
            log.warning("certificate_not_taken_up", error=str(error))  # half-way through a rotation
            return
        if found != self._certificate:
            log.info("certificate_taken_up", file=str(self._files.certificate))
            self._take_up(found)
            old, self._channels = self._channels, {}
            for channel in old.values():
                task = asyncio.create_task(channel.close(self._timeout_s), name="old-allocation-channel")
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)

    def _take_up(self, found: Certificate) -> None:
        self._certificate = found
        if found.expires_at is not None:
            metrics.CERTIFICATE_EXPIRY.set(found.expires_at.timestamp())

    def _channel(self, endpoint: Endpoint) -> grpc.aio.Channel:
        channel = self._channels.get(endpoint)
        if channel is None:
            options = list(_OPTIONS)
            if self._certificate is None:
                channel = grpc.aio.insecure_channel(endpoint.address, options=options)
            else:
                if self._server_name:
                    options.append(("grpc.ssl_target_name_override", self._server_name))  # type: ignore[arg-type]
                found = self._certificate
                credentials = grpc.ssl_channel_credentials(found.ca, found.key, found.certificate)
                channel = grpc.aio.secure_channel(endpoint.address, credentials, options=options)
            self._channels[endpoint] = channel
        return channel

    def _put_aside(self, endpoint: Endpoint, why: str) -> None:
        metrics.FAILOVERS.inc()
        log.warning("endpoint_put_aside", endpoint=endpoint.address, why=why)
        self._endpoints.failed(endpoint, time.monotonic())

    def _paired(self, what: str) -> KubernetesBackend:
        if self._cluster is None:
            raise BackendUnavailable(
                f"Agones' allocation service cannot {what}: pair this backend with the cluster's API server "
                "(a service account or a kubeconfig)"
            )
        return self._cluster

    async def _close(self) -> None:
        for channel in self._channels.values():
            await channel.close(None)
        for task in tuple(self._leaving):
            await _ended(task)


class _Refusal:
    """An endpoint that gave no server."""

    def __init__(self, why: str, *, sent: bool, contention: bool = False) -> None:
        self.why, self.sent, self.contention = why, sent, contention


_REFUSALS = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
    }
)
"""Codes that say that nothing was done, and that this endpoint will go on like that."""


async def _connected(channel: grpc.aio.Channel, timeout_s: float) -> bool:
    """Whether the channel has a connection, or has an error to tell the next call."""
    state = channel.get_state(try_to_connect=True)
    try:
        async with asyncio.timeout(max(0.0, timeout_s)):
            while state in (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING):
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
    except TimeoutError:
        return False
    return True


def _unavailable(why: str) -> BackendUnavailable:
    metrics.CALLS.labels("agones", "allocate", "contention" if "contention" in why else "unavailable").inc()
    return BackendUnavailable(f"allocate: {why}")


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])
