"""
What each part is made of: one function a part, from settings and specs to what runs.

A part is an ASGI application (none: the operations' endpoints alone), services that run until they are cancelled, and what must be true before it is ready.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog

from allocator.keeper import ShelfKeeper
from allocator.ports import Backend, BackendUnavailable
from allocator.service import Allocator
from allocator.shelf import Shelf
from fleets.autoscaler.app import make_app as make_autoscaler_app
from fleets.autoscaler.service import Autoscaler
from fleets.console.cluster import ClusterFleets, PrometheusFigures
from fleets.console.console import Console
from fleets.console.feed import Feed
from fleets.console.look import Looker, Sources
from fleets.console.operator import Operator, asking_why
from fleets.console.pace import Pace
from fleets.console.timelines import Timelines
from fleets.console.web import make_app as make_console_app
from fleets.serve.backends import Unlisted, clusters_of, make_backend
from fleets.serve.counts import Counts, watch_counts
from fleets.serve.services import interfaces
from fleets.serve.settings import BackendName, PartName, ServeSettings, SettingsError
from fleets.shadows import shadows
from fleets.spec.convert import to_aim, to_policy, to_queue_config, to_secure
from fleets.spec.loader import Specs
from gameserver.seats import SeatIssuer
from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import FleetName
from matchmaker.api.app import create_app
from matchmaker.api.connect import ConnectTokens
from matchmaker.api.ticket_watch import TicketWatch
from matchmaker.beacons.beacon import Beacon
from matchmaker.beacons.serving import http, udp
from matchmaker.director import Director
from matchmaker.events.relay import Relay, Sink, fleet_prefix, queue_prefix
from matchmaker.model import QueueName
from matchmaker.ratings.skill import RatingsUnavailable
from matchmaker.replicas import Replicas
from matchmaker.store import TicketStore

log = structlog.get_logger(__name__)

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
    name: PartName, settings: ServeSettings, specs: Specs, client: StoreClient | None, stack: AsyncExitStack
) -> Part:
    """
    Wire a part; what it holds open is closed with `stack`. A beacon has no `client`.

    Raises: SettingsError, BackendUnavailable, CertificateError.
    """
    if name is PartName.BEACON:
        return await _beacon(settings, stack)
    assert client is not None  # every other part has a store
    match name:
        case PartName.MATCHMAKER:
            return _matchmaker(settings, specs, client, await make_backend(settings, specs, BackendName.NONE, stack))
        case PartName.DIRECTOR:
            return _director(settings, specs, client, await make_backend(settings, specs, BackendName.NONE, stack))
        case PartName.ALLOCATOR:
            return _allocator(
                settings, specs, client, await make_backend(settings, specs, BackendName.KUBERNETES, stack)
            )
        case PartName.EVENTS:
            return await _events(settings, specs, client, stack)
        case PartName.CONSOLE:
            backend = await make_backend(settings, specs, BackendName.KUBERNETES, stack)
            return await _console(settings, specs, client, backend, stack)
        case PartName.AUTOSCALER:
            return _autoscaler(
                settings, specs, client, await make_backend(settings, specs, BackendName.KUBERNETES, stack)
            )


def _matchmaker(settings: ServeSettings, specs: Specs, client: StoreClient, backend: Backend) -> Part:
    policies = [to_policy(fleet) for fleet in specs.fleets]
    udp = settings.udp_key(specs)
    allocator = Allocator(Shelf(client, replicas=settings.valkey_replicas), client, policies, backend)
    app, watch = create_app(
        client=client,
        queues=[to_queue_config(queue, specs.fleets) for queue in specs.queues],
        allocator=allocator,
        running=allocator.seats,
        supply=allocator,
        seats=SeatIssuer(settings.seat_key()),
        players=settings.players(),
        keys=settings.keys(),
        connect=None if udp is None else ConnectTokens(udp),
        secure=to_secure(specs.fleets),
        regions=settings.beacons(),
        requests_per_s=settings.requests_per_s,
        key_requests_per_s=settings.key_requests_per_s,
        replicas=settings.valkey_replicas,
    )
    return Part(name=PartName.MATCHMAKER, app=app, services={"watch": watch.run})


async def _events(settings: ServeSettings, specs: Specs, client: StoreClient, stack: AsyncExitStack) -> Part:
    prefixes = [queue_prefix(queue.metadata.name) for queue in specs.queues]
    prefixes += [fleet_prefix(fleet.metadata.name) for fleet in specs.fleets]
    sinks: list[Sink | None] = []
    if (webhook := settings.webhook()) is not None:
        sinks.append(await stack.enter_async_context(webhook))
    if (kafka := settings.kafka()) is not None:
        sinks.append(kafka)
    services: dict[str, Service] = {}
    for prefix in prefixes:
        for sink in sinks or [None]:
            relay = Relay(client, prefix, sink, keep_s=settings.events_keep_s)
            services[f"events-{prefix}{sink.name if sink else 'keep'}"] = relay.run
    return Part(name=PartName.EVENTS, services=services)


async def _beacon(settings: ServeSettings, stack: AsyncExitStack) -> Part:
    signer = settings.beacon()
    beacon = Beacon(signer, per_address_s=settings.beacon_per_address_s)
    host, _, port = settings.beacon_udp.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise SettingsError(f"WARMFLEET_BEACON_UDP: {settings.beacon_udp!r}: host:port is wanted")
    try:
        await stack.enter_async_context(udp(beacon, host.strip("[]"), int(port)))
    except OSError as error:
        raise SettingsError(f"WARMFLEET_BEACON_UDP: {settings.beacon_udp}: {error.strerror or error}") from None
    log.info("beacon_signs", region=signer.region, key=signer.public_key)
    return Part(name=PartName.BEACON, app=http(beacon), services={})


def _director(settings: ServeSettings, specs: Specs, client: StoreClient, backend: Backend) -> Part:
    store = TicketStore(client)
    shelf = Shelf(client, replicas=settings.valkey_replicas)
    allocator = Allocator(shelf, client, [to_policy(fleet) for fleet in specs.fleets], backend)
    replicas = Replicas(store)
    try:
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
    except RatingsUnavailable as error:
        raise SettingsError(str(error)) from None
    if not directors:
        raise SettingsError("no Queue is described in these files: a director would have nothing to do")
    services: dict[str, Service] = {f"director-{director.queue.name}": director.run for director in directors}
    services |= {f"shadow-{shadow.queue.name}": shadow.run for shadow in shadows(specs, store)}
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
    for index, (cluster, fleets) in enumerate(clusters_of(backend, [keeper.policy.name for keeper in keepers])):
        if isinstance(cluster, Counts):
            services[f"fleets-{index}"] = partial(watch_counts, cluster, fleets)
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


async def _console(
    settings: ServeSettings, specs: Specs, client: StoreClient, backend: Backend, stack: AsyncExitStack
) -> Part:
    access = settings.access()
    policies = [to_policy(fleet) for fleet in specs.fleets]
    queues = [to_queue_config(queue, specs.fleets).name for queue in specs.queues]
    feed, timelines, pace = Feed(), Timelines(), Pace()
    figures = PrometheusFigures(settings.prometheus_url, watched=lambda: feed.viewers > 0)
    fleets = ClusterFleets(policies, client, None if isinstance(backend, Unlisted) else backend, figures)
    watch = TicketWatch(client, queues)
    watch.listeners += [timelines.heard, pace.heard]
    store = TicketStore(client)
    allocator = Allocator(Shelf(client), client, policies, Unlisted())
    matchmaker = await stack.enter_async_context(settings.matchmaker())
    operator = Operator(matchmaker, allocator, client, timelines, fleets.drain)
    why: dict[QueueName, str] = {}
    sources = Sources(
        fleets=fleets.views, queues=queues, store=store, pace=pace, figures=figures, timelines=timelines, why=why
    )
    console = Console(feed, Looker(sources), measure=figures.run, ask_why=asking_why(operator, store, queues, why))
    app = make_console_app(feed, access, operator)
    return Part(name=PartName.CONSOLE, app=app, services={"console": console.run, "watch": watch.run})


def _autoscaler(settings: ServeSettings, specs: Specs, client: StoreClient, backend: Backend) -> Part:
    aims = {FleetName(f.metadata.name): to_aim(f) for f in specs.fleets if f.spec.warm.buffer == "auto"}
    if not aims:
        raise SettingsError("no Fleet of these files has `buffer: auto`: an autoscaler would have nothing to decide")
    autoscaler = Autoscaler(aims, client, backend, lead_s=settings.start_s)
    app = make_autoscaler_app(autoscaler, namespace=settings.namespace, interval_s=settings.scale_interval_s)
    return Part(name=PartName.AUTOSCALER, app=app, services={"autoscaler": autoscaler.run})
