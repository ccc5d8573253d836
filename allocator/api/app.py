"""The allocator's HTTP application."""

from fastapi import Depends, FastAPI, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import REGISTRY
from starlette.responses import Response

from allocator.api import allocations, fleets, problems, seats
from allocator.api.answers import bearer
from allocator.api.tokens import ServiceTokens
from allocator.service import Allocator
from allocator.shelf import Shelf
from gameserver.exposition import exposition

MAX_BODY_BYTES = 256 * 1024


def create_app(*, allocator: Allocator, shelf: Shelf, tokens: ServiceTokens | None) -> FastAPI:
    """
    Make the application.

    Args:
        tokens: whose bearer may ask. None: whoever can connect, for mutual TLS (uvicorn's `ssl_cert_reqs`) or a loopback address.
    """
    app = FastAPI(
        title="Warmfleet allocator",
        version="1",
        description="Matches in, rooms on warm servers out. Errors are RFC 9457 problem details.",
        docs_url=None,
        redoc_url=None,
        responses=problems.RESPONSES,
    )
    problems.install(app)
    app.add_middleware(problems.BodyLimit, max_bytes=MAX_BODY_BYTES)
    for router in (allocations.router(allocator, shelf), seats.router(allocator), fleets.router(allocator, shelf)):
        app.include_router(router, prefix="/v1", dependencies=[Depends(bearer(tokens))])

    @app.get("/healthz", tags=["operations"], response_class=PlainTextResponse)
    async def healthz() -> str:
        """The process lives."""
        return "ok\n"

    @app.get("/readyz", tags=["operations"], response_class=PlainTextResponse)
    async def readyz() -> str:
        """The process can serve: its store answers."""
        for fleet in list(allocator.fleets)[:1]:
            await shelf.standing(fleet)
        return "ok\n"

    @app.get("/metrics", tags=["operations"], response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        """Metrics of this process, for Prometheus; in the OpenMetrics format with exemplars when it is asked for."""
        body, kind = await exposition(REGISTRY, request.headers.get("accept", ""))
        return Response(body, media_type=kind)

    return app
