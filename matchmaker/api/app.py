"""The matchmaker's HTTP application."""

import re
import secrets
from collections.abc import Sequence

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import REGISTRY
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response

from allocator.api import problems
from gameserver.exposition import exposition
from gameserver.seats import SeatIssuer
from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import PlayerId
from matchmaker.api import described
from matchmaker.api.assignments import Assignments
from matchmaker.api.auth import ApiKeys, Callers, PlayerTokens, RateLimit
from matchmaker.api.connect import ConnectTokens
from matchmaker.api.lean import Lean
from matchmaker.api.matches import router as matches_router
from matchmaker.api.queues import router as queues_router
from matchmaker.api.schemas import DevelopmentPlayerBody, DevelopmentPlayerRequest
from matchmaker.api.services import Services
from matchmaker.api.tickets import Handlers, Tickets
from matchmaker.api.watch import TicketWatch
from matchmaker.model import QueueConfig
from matchmaker.ports import Allocator, RunningSessions
from matchmaker.store import TicketStore

MAX_BODY_BYTES = 64 * 1024


def create_app(
    *,
    client: StoreClient,
    queues: Sequence[QueueConfig],
    allocator: Allocator,
    seats: SeatIssuer,
    players: PlayerTokens,
    keys: ApiKeys | None = None,
    running: RunningSessions | None = None,
    connect: ConnectTokens | None = None,
    requests_per_s: float = 10.0,
    key_requests_per_s: float = 2000.0,
    development: bool = False,
) -> tuple[FastAPI, TicketWatch]:
    """
    Make the application, and the watch whose `run` must run beside it.

    Args:
        keys: of the studio's own services and operators; none by default.
        running: seats of running sessions; without it there is no backfill.
        connect: makes players' UDP connect tokens; None where no server speaks UDP.
        requests_per_s, key_requests_per_s: of one player, and of one API key, in the long run; four times as many at once.
        development: issue tokens to whoever asks at `POST /v1/dev/players`; only ever on a developer's own machine.
    """
    watch = TicketWatch(client, [queue.name for queue in queues])
    app = Lean(
        title="Warmfleet matchmaker",
        version="1",
        description="Tickets in, matches on warm servers out. Errors are RFC 9457 problem details.",
        docs_url=None,
        redoc_url=None,
        responses=problems.RESPONSES,
    )
    problems.install(app)
    services = Services(
        queues={queue.name: queue for queue in queues},
        store=TicketStore(client),
        allocator=allocator,
        seats=running,
        assignments=Assignments(allocator, seats, connect),
        callers=Callers(
            players,
            keys or ApiKeys(),
            player_limit=RateLimit(per_s=requests_per_s, burst=4 * requests_per_s),
            key_limit=RateLimit(per_s=key_requests_per_s, burst=4 * key_requests_per_s),
        ),
        watch=watch,
    )
    tickets = Tickets(services)
    app.add_middleware(problems.BodyLimit, max_bytes=MAX_BODY_BYTES)
    app.lean = Handlers(services, tickets).routes()
    app.max_bytes = MAX_BODY_BYTES
    app.include_router(described.router())
    app.include_router(queues_router(services))
    app.include_router(matches_router(services))

    @app.get("/healthz", tags=["operations"], response_class=PlainTextResponse)
    async def healthz() -> str:
        """The process lives."""
        return "ok\n"

    @app.get("/readyz", tags=["operations"], response_class=PlainTextResponse)
    async def readyz() -> str:
        """The process can serve: its store answers."""
        await services.store.now_s()
        return "ok\n"

    @app.get("/metrics", tags=["operations"], response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        """Metrics of this process, for Prometheus; in the OpenMetrics format with exemplars when it is asked for."""
        body, kind = await exposition(REGISTRY, request.headers.get("accept", ""))
        return Response(body, media_type=kind)

    if development:
        _add_development(app, players)
    return app, watch


def _add_development(app: FastAPI, players: PlayerTokens) -> None:
    # A page from elsewhere whose name was made to point here (DNS rebinding) must not get tokens.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "::1"])

    @app.post("/v1/dev/players", status_code=201, tags=["development"])
    async def development_player(body: DevelopmentPlayerRequest) -> DevelopmentPlayerBody:
        """A player and a token for it, for whoever asks; the name gets a random end, so that no two share an id."""
        name = re.sub(r"[^\w-]+", "-", body.name).strip("-") or "guest"
        player = PlayerId(f"{name}-{secrets.token_hex(3)}")
        return DevelopmentPlayerBody(player=player, token=players.issue(player))
