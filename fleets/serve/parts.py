"""
What each part is made of: one function a part, from settings and specs to what runs.

A part is an ASGI application (none: the operations' endpoints alone), services that run until they are cancelled, and what must be true before it is ready.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Never

from allocator.backends.agones import AgonesBackend
from allocator.backends.kubernetes import KubernetesBackend
from allocator.backends.request import FleetRule
from allocator.keeper import ShelfKeeper
from allocator.model import GameServer
from allocator.ports import Backend, BackendUnavailable
from allocator.service import Allocator
from allocator.shelf import Shelf
from fleets.autoscaler.app import make_app as make_autoscaler_app
from fleets.autoscaler.service import Autoscaler
from fleets.serve.counts import watch_counts
from fleets.serve.services import interfaces
from fleets.serve.settings import BackendName, PartName, ServeSettings, SettingsError
from fleets.spec.convert import to_aim, to_policy, to_queue_config
from fleets.spec.loader import Specs
from gameserver.seats import SeatIssuer
from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import FleetName, ServerName
from matchmaker.api.app import create_app
from matchmaker.api.connect import ConnectTokens
from matchmaker.director import Director
from matchmaker.replicas import Replicas
from matchmaker.store import TicketStore

Service = Callable[[], Awaitable[object]]
Application = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part, ready to run."""

    name: PartName
    services: Mapping[str, Service]
    app: Application | None = None
    ready: Callable[[], Awaitable[str]] | None = None
    """What is still missing, "" when nothing is; beside the store, which every part needs."""
    last: Service | None = field(default=None)
    """What is left to say once its services have ended."""


async def make(
    name: PartName, settings: ServeSettings, specs: Specs, client: StoreClient, stack: AsyncExitStack
) -> Part:
    """
    Wire a part; what it holds open is closed with `stack`.

    Raises: SettingsError, BackendUnavailable, CertificateError.
    """
    match name:
        case PartName.MATCHMAKER:
            return _matchmaker(settings, specs, client, await _backend(settings, specs, BackendName.NONE, stack))
        case PartName.DIRECTOR:
            return _director(settings, specs, client, await _backend(settings, specs, BackendName.NONE, stack))
        case PartName.ALLOCATOR:
            return _allocator(settings, specs, client, await _backend(settings, specs, BackendName.KUBERNETES, stack))
        case PartName.AUTOSCALER:
            return _autoscaler(settings, specs, client, await _backend(settings, specs, BackendName.KUBERNETES, stack))


def _matchmaker(settings: ServeSettings, specs: Specs, client: StoreClient, backend: Backend) -> Part:
    policies = [to_policy(fleet) for fleet in specs.fleets]
    udp = settings.udp_key(specs)
    allocator = Allocator(Shelf(client, replicas=settings.valkey_replicas), client, policies, backend)
    app, watch = create_app(
        client=client,
        queues=[to_queue_config(queue, specs.fleets) for queue in specs.queues],
        allocator=allocator,
        running=allocator.seats,
        seats=SeatIssuer(settings.seat_key()),
        players=settings.players(),
        keys=settings.keys(),
        connect=None if udp is None else ConnectTokens(udp),
        requests_per_s=settings.requests_per_s,
        key_requests_per_s=settings.key_requests_per_s,
    )
    return Part(name=PartName.MATCHMAKER, app=app, services={"watch": watch.run})


def _director(settings: ServeSettings, specs: Specs, client: StoreClient, backend: Backend) -> Part:
    store = TicketStore(client)
    shelf = Shelf(client, replicas=settings.valkey_replicas)
    allocator = Allocator(shelf, client, [to_policy(fleet) for fleet in specs.fleets], backend)
    replicas = Replicas(store)
    directors = [
        Director(
            to_queue_config(queue, specs.fleets),
            store,
            allocator,
            supply=allocator,
            seats=allocator.seats,
            replicas=replicas,
        )
        for queue in specs.queues
    ]
    if not directors:
        raise SettingsError("no Queue is described in these files: a director would have nothing to do")
    services: dict[str, Service] = {f"director-{director.queue.name}": director.run for director in directors}
    return Part(name=PartName.DIRECTOR, services={**services, "replicas": replicas.run}, last=replicas.leave)


def _allocator(settings: ServeSettings, specs: Specs, client: StoreClient, backend: Backend) -> Part:
    if isinstance(backend, Unlisted):
        raise SettingsError("WARMFLEET_BACKEND: an allocator needs the servers of a cluster: kubernetes or agones")
    if not specs.fleets:
        raise SettingsError("no Fleet is described in these files: an allocator would have nothing to keep")
    shelf = Shelf(client, replicas=settings.valkey_replicas)
    keepers = [ShelfKeeper(to_policy(fleet), shelf, client, backend) for fleet in specs.fleets]
    served = interfaces(settings, Allocator(shelf, client, [k.policy for k in keepers], backend), shelf, backend)
    services: dict[str, Service] = {f"keeper-{keeper.policy.name}": keeper.run for keeper in keepers}
    if isinstance(backend, KubernetesBackend | AgonesBackend):
        services["fleets"] = partial(watch_counts, backend, [keeper.policy.name for keeper in keepers])
    synced: set[FleetName] = set()

    async def ready() -> str:
        """Each fleet was seen once. An API server that goes away later takes nobody's matches away, so it is no reason to be left out."""
        for keeper in keepers:
            if keeper.policy.name not in synced:
                try:
                    await backend.servers(keeper.policy.name)
                except BackendUnavailable as error:
                    return f"fleet {keeper.policy.name}: {error}"
                synced.add(keeper.policy.name)
        return ""

    return Part(name=PartName.ALLOCATOR, app=served.app, services={**services, **served.services}, ready=ready)


def _autoscaler(settings: ServeSettings, specs: Specs, client: StoreClient, backend: Backend) -> Part:
    aims = {FleetName(f.metadata.name): to_aim(f) for f in specs.fleets if f.spec.warm.buffer == "auto"}
    if not aims:
        raise SettingsError("no Fleet of these files has `buffer: auto`: an autoscaler would have nothing to decide")
    autoscaler = Autoscaler(aims, client, backend, lead_s=settings.start_s)
    app = make_autoscaler_app(autoscaler, namespace=settings.namespace, interval_s=settings.scale_interval_s)
    return Part(name=PartName.AUTOSCALER, app=app, services={"autoscaler": autoscaler.run})


async def _backend(settings: ServeSettings, specs: Specs, default: BackendName, stack: AsyncExitStack) -> Backend:
    canaries = [fleet for fleet in specs.fleets if fleet.spec.rollout.strategy == "canary"]
    rules = {FleetName(fleet.metadata.name): FleetRule(canary=True) for fleet in canaries}
    match settings.backend or default:
        case BackendName.NONE:
            return Unlisted()
        case BackendName.KUBERNETES:
            cluster = KubernetesBackend(settings.cluster(), address_type=settings.address_type, rules=rules)
            return await _enter(stack, cluster)
        case BackendName.AGONES:
            cluster = KubernetesBackend(settings.cluster(), address_type=settings.address_type, rules=rules)
            backend = AgonesBackend(
                settings.allocation_endpoints,
                rules=rules,
                files=settings.certificates(),
                cluster=cluster,
                namespace=settings.namespace,
                region=settings.allocation_region,
                server_name=settings.allocation_server_name,
                timeout_s=settings.allocation_timeout_s,
            )
            return await _enter(stack, backend)


async def _enter(stack: AsyncExitStack, backend: AbstractAsyncContextManager[Backend]) -> Backend:
    return await stack.enter_async_context(backend)


class Unlisted:
    """The backend of a part that asks no cluster: its allocator claims what is on the shelves, and waits for what keepers bring."""

    async def allocate(
        self, fleet: FleetName, *, labels: Mapping[str, str], annotations: Mapping[str, str]
    ) -> GameServer | None:
        """Never."""
        self._refuse()

    async def servers(self, fleet: FleetName, *, fresh: bool = False) -> tuple[GameServer, ...]:
        """Unknown."""
        self._refuse()

    def watch(self, fleet: FleetName) -> AsyncIterator[GameServer]:
        """Never."""
        self._refuse()

    async def label(self, server: ServerName, labels: Mapping[str, str]) -> None:
        """Never."""
        self._refuse()

    async def delete(self, server: ServerName) -> None:
        """Never."""
        self._refuse()

    def _refuse(self) -> Never:
        raise BackendUnavailable("this part asks no cluster (WARMFLEET_BACKEND=none)")
