"""The matchmaker's HTTP application: what it is made of, and what runs beside it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Never

from fastapi import FastAPI

from allocator.api import problems
from gameserver.seats import SeatIssuer
from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import FleetName
from matchmaker.api import described, explanations, matches, operations, parties, sessions
from matchmaker.api import development as _development
from matchmaker.api import queues as _queues
from matchmaker.api import regions as _regions
from matchmaker.api.assignments import Assignments
from matchmaker.api.auth import ApiKeys, Callers, PlayerTokens, RateLimit
from matchmaker.api.connect import ConnectTokens
from matchmaker.api.estimates import Estimates
from matchmaker.api.lean import Lean
from matchmaker.api.party_watch import PartyWatch
from matchmaker.api.services import Services
from matchmaker.api.ticket_watch import TicketWatch
from matchmaker.api.tickets import Handlers, Tickets
from matchmaker.beacons.regions import Region
from matchmaker.model import QueueConfig
from matchmaker.ports import Allocator, RunningSessions, Supply
from matchmaker.ratings.store import RatingStore
from matchmaker.store import TicketStore

MAX_BODY_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Beside:
    """What runs beside the application."""

    tickets: TicketWatch
    parties: PartyWatch

    async def run(self) -> Never:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.tickets.run(), name="watch-tickets")
            tasks.create_task(self.parties.run(), name="watch-parties")
        raise AssertionError("neither ever ends")


def create_app(
    *,
    client: StoreClient,
    queues: Sequence[QueueConfig],
    allocator: Allocator,
    seats: SeatIssuer,
    players: PlayerTokens,
    keys: ApiKeys | None = None,
    running: RunningSessions | None = None,
    supply: Supply | None = None,
    connect: ConnectTokens | None = None,
    secure: Mapping[FleetName, str] | None = None,
    regions: Sequence[Region] = (),
    requests_per_s: float = 10.0,
    key_requests_per_s: float = 2000.0,
    replicas: int = 0,
    development: bool = False,
) -> tuple[FastAPI, Beside]:
    """
    Make the application, and what must `run` beside it.

    Args:
        keys: of the studio's own services and operators; none by default.
        running: seats of running sessions; without it there is no backfill.
        supply: how much is warm, for explanations; None where that is not known.
        connect: makes players' UDP connect tokens; None where no server speaks UDP.
        secure: fleets whose WebSockets are TLS, and the domain of their servers' names ("": clients are told the address).
        regions: those that have beacons, whose signed round trips are believed.
        requests_per_s, key_requests_per_s: of one player, and of one API key, in the long run; four times as many at once.
        replicas: of Valkey that must have a ticket before it is acknowledged.
        development: issue tokens to whoever asks at `POST /v1/dev/players`; only ever on a developer's own machine.
    """
    estimates = Estimates(queues)
    watch = TicketWatch(client, [queue.name for queue in queues])
    watch.listeners.append(estimates.heard)
    services = Services(
        client=client,
        queues={queue.name: queue for queue in queues},
        store=TicketStore(client, replicas=replicas),
        allocator=allocator,
        seats=running,
        assignments=Assignments(allocator, seats, connect, secure or {}),
        callers=Callers(
            players,
            keys or ApiKeys(),
            player_limit=RateLimit(per_s=requests_per_s, burst=4 * requests_per_s),
            key_limit=RateLimit(per_s=key_requests_per_s, burst=4 * key_requests_per_s),
        ),
        watch=watch,
        estimates=estimates,
        ratings=RatingStore(client),
        proofs=_regions.Proofs(regions),
        supply=supply,
    )
    app = _empty()
    app.state.callers = services.callers
    beside = _add_endpoints(app, services)
    app.include_router(_regions.router(regions))
    operations.add(app, services)
    if development:
        _development.add(app, players)
    return app, beside


def _empty() -> Lean:
    app = Lean(
        title="Warmfleet matchmaker",
        version="1",
        description="Tickets in, matches on warm servers out. Errors are RFC 9457 problem details.",
        docs_url=None,
        redoc_url=None,
        responses=problems.RESPONSES,
        generate_unique_id_function=lambda route: route.name,
    )
    problems.install(app)
    app.add_middleware(problems.BodyLimit, max_bytes=MAX_BODY_BYTES)
    app.max_bytes = MAX_BODY_BYTES
    return app


def _add_endpoints(app: Lean, services: Services) -> Beside:
    tickets = Tickets(services)
    watch = PartyWatch(services.client, services.watch)
    gathered = parties.Parties(services, tickets, watch)
    app.lean = {
        "tickets": Handlers(services, tickets).routes(),
        "parties": parties.routes(services, gathered),
    }
    app.include_router(described.router())
    app.include_router(parties.router(services, gathered, tickets))
    app.include_router(explanations.router(services, tickets))
    app.include_router(_queues.router(services))
    app.include_router(sessions.router(services))
    app.include_router(matches.router(services))
    return Beside(services.watch, watch)
