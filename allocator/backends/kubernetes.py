"""
Backend `kubernetes`: servers by the API server alone, with GameServerAllocation and watches of GameServers and Fleets.

One informer for each fleet that is asked for, so that a keeper's every look costs no call; an allocation, label or deletion of our own is in the copy
before the call returns. What is read for a decision that cannot be taken back is read with `fresh`.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from allocator.backends.cluster import ClusterApi, Object
from allocator.backends.informer import Informer
from allocator.backends.request import FLEET_LABEL, SET_LABEL, FleetRule, ServerRequest, fleet_of
from allocator.backends.settings import ClusterSettings
from allocator.backends.wire import LOCAL, Given, given_by_object, to_object
from allocator.model import GameServer, ServerState
from gameserver.sessions.model import FleetName, ServerName

_SYNC_S = 5.0
"""How long a first look waits for the first list."""
_SEEN_S = 0.5
"""How long an allocation waits for the watch to show it; it comes about 2 ms before the answer."""
POD_IP = "PodIP"
LAST_ALLOCATED = "agones.dev/last-allocated"
"""Agones' annotation: when, differently for each allocation."""
_POD_IPS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetCounts:
    """A Fleet's own numbers."""

    name: FleetName
    replicas: int
    ready: int
    reserved: int
    allocated: int


class KubernetesBackend:
    """Servers of one namespace of one cluster, as an async context manager; implements `allocator.ports.Backend`."""

    def __init__(
        self,
        settings: ClusterSettings,
        *,
        rules: Mapping[FleetName, FleetRule] | None = None,
        address_type: str = "",
        api: ClusterApi | None = None,
    ) -> None:
        """
        Make it; nothing is connected before it is entered.

        Args:
            rules: how servers are chosen, by fleet; one without a rule takes any Ready server of the fleet.
            address_type: which of a server's addresses is its host (InternalIP, ExternalDNS, PodIP); empty: Agones' choice.
        """
        self._api = api or ClusterApi(settings)
        self._rules = rules or {}
        for fleet, rule in self._rules.items():
            rule.request(fleet, labels={}, annotations={})  # a contradiction is said at the start
        self._address_type = address_type
        self._informers: dict[FleetName, Informer[GameServer]] = {}
        self._fleets: Informer[FleetCounts] | None = None
        self._pod_ips: dict[ServerName, str] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._api)
        self._stack.push_async_callback(self._end)
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
        request = self.rule(fleet).request(fleet, labels=labels, annotations=annotations)
        given = await self.take(request)
        return None if given is None else await self.settled(given)

    async def servers(self, fleet: FleetName, *, fresh: bool = False) -> tuple[GameServer, ...]:
        """List every live server; with `fresh` as they are now, not as last heard."""
        informer = self._informer(fleet)
        if fresh:
            await informer.list_now()
        found = await informer.values(wait_s=_SYNC_S)
        if self._address_type == POD_IP:
            found = tuple([await self._addressed(server) for server in found])
        return found

    def watch(self, fleet: FleetName) -> AsyncIterator[GameServer]:
        """Yield every live server, then each as it changes; one that is gone comes once more with state Shutdown."""
        return self._informer(fleet).follow()

    async def label(self, server: ServerName, labels: Mapping[str, str]) -> None:
        """Set labels; a server that is gone is no error."""
        self._wrote(await self._api.set_labels(server, labels))

    async def delete(self, server: ServerName) -> None:
        """Remove a server in any state; its fleet replaces it if it is wanted."""
        self._wrote(await self._api.delete(server))

    # What only this backend can do.

    async def take(self, request: ServerRequest) -> Given | None:
        """Any allocation that Agones knows; None when no server matches. Raises BackendUnavailable."""
        status = await self._api.allocate(to_object(request, self._api.namespace))
        return None if status is None else given_by_object(status)

    async def settled(self, given: Given) -> GameServer:
        """A server that was just allocated, by whichever way, once it is in the copy as well."""
        server = replace(given.server, host=given.addresses.get(self._address_type, given.server.host))
        if given.source != LOCAL or not server.fleet:
            return server  # of another cluster: not to be seen here
        informer = self._informer(server.fleet)
        seen = await informer.until(server.name, lambda held: _shows(held, server), wait_s=_SEEN_S)
        if seen is None or not _shows(seen, server):
            informer.amend(server.name, server)
            seen = server
        return await self._addressed(seen)

    async def fleet_counts(self) -> tuple[FleetCounts, ...]:
        """The Fleets of the namespace. Raises BackendUnavailable."""
        if self._fleets is None:
            self._fleets = Informer(self._api, "fleets", "", decode=_counts, ended=lambda counts: counts)
            self._spawn(self._fleets, "informer-fleets")
        return await self._fleets.values(wait_s=_SYNC_S)

    def rule(self, fleet: FleetName) -> FleetRule:
        """How servers of a fleet are chosen."""
        return self._rules.get(fleet) or FleetRule()

    @property
    def namespace(self) -> str:
        """Of the servers."""
        return self._api.namespace

    def _informer(self, fleet: FleetName) -> Informer[GameServer]:
        informer = self._informers.get(fleet)
        if informer is None:
            members = self.rule(fleet).members(fleet)
            chosen = f"{FLEET_LABEL}={fleet}" if len(members) == 1 else f"{FLEET_LABEL} in ({','.join(members)})"
            informer = Informer(self._api, "gameservers", chosen, decode=self._decode, ended=_ended)
            self._informers[fleet] = informer
            self._spawn(informer, f"informer-{fleet}")
        return informer

    def _spawn(self, informer: Informer[Any], name: str) -> None:
        self._tasks.append(asyncio.create_task(informer.run(), name=name))

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _wrote(self, item: Object | None) -> None:
        if item is None:
            return
        informer = self._informers.get(fleet_of(item["metadata"].get("labels") or {}))
        if informer is not None:
            informer.wrote(item)

    def _decode(self, item: Object) -> GameServer:
        return game_server(item, self._address_type)

    async def _addressed(self, server: GameServer) -> GameServer:
        """With its pod's own address, if that is wanted: Agones may have left it out, so the pod is asked."""
        if self._address_type != POD_IP or server.host or server.state is not ServerState.ALLOCATED:
            return server
        if server.name not in self._pod_ips:
            self._pod_ips[server.name] = await self._api.pod_ip(server.name)
            while len(self._pod_ips) > _POD_IPS:
                del self._pod_ips[next(iter(self._pod_ips))]
        return replace(server, host=self._pod_ips[server.name])


def game_server(item: Object, address_type: str = "") -> GameServer:
    """A GameServer object in our words; one that is told to go is SHUTDOWN until it has gone."""
    meta, status = item["metadata"], item.get("status") or {}
    labels = meta.get("labels") or {}
    addresses = {address["type"]: address["address"] for address in status.get("addresses") or ()}
    return GameServer(
        name=ServerName(meta["name"]),
        fleet=fleet_of(labels),
        state=ServerState.SHUTDOWN if meta.get("deletionTimestamp") else _state(status.get("state", "")),
        host=addresses.get(address_type, "" if address_type == POD_IP else status.get("address") or ""),
        ports={port["name"]: port["port"] for port in status.get("ports") or ()},
        version=labels.get(SET_LABEL, ""),
        labels=labels,
        annotations=meta.get("annotations") or {},
    )


def _state(name: str) -> ServerState:
    try:
        return ServerState(name)
    except ValueError:
        return ServerState.PORT_ALLOCATION  # just made, or a state that Agones has added: not to be counted on


def _ended(server: GameServer) -> GameServer:
    return replace(server, state=ServerState.SHUTDOWN)


def _shows(held: GameServer | None, server: GameServer) -> bool:
    """Whether the copy has the allocation, or what came after it."""
    if held is None:
        return False
    if held.state is ServerState.ALLOCATED:
        mark = server.annotations.get(LAST_ALLOCATED)
        return held.annotations.get(LAST_ALLOCATED) == mark and server.labels.items() <= held.labels.items()
    return held.state in (ServerState.SHUTDOWN, ServerState.UNHEALTHY, ServerState.ERROR)


def _counts(item: Object) -> FleetCounts:
    status = item.get("status") or {}
    return FleetCounts(
        name=FleetName(item["metadata"]["name"]),
        replicas=status.get("replicas", 0),
        ready=status.get("readyReplicas", 0),
        reserved=status.get("reservedReplicas", 0),
        allocated=status.get("allocatedReplicas", 0),
    )
