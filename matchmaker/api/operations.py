"""What a cluster asks of every process: does it live, can it serve, how does it do."""

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import REGISTRY
from starlette.responses import Response

from gameserver.exposition import exposition
from matchmaker.api.services import Services


def add(app: FastAPI, services: Services) -> None:
    """Add the endpoints."""

    @app.get("/healthz", tags=["operations"], response_class=PlainTextResponse)
    async def healthz() -> str:
        """The process lives."""
        return "ok\n"

    @app.get("/readyz", tags=["operations"], response_class=PlainTextResponse)
    async def readyz() -> str:
        """The process can serve: its store answers."""
        await services.store.ping()
        return "ok\n"

    @app.get("/metrics", tags=["operations"], response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        """Metrics of this process, for Prometheus; in the OpenMetrics format with exemplars when it is asked for."""
        body, kind = await exposition(REGISTRY, request.headers.get("accept", ""))
        return Response(body, media_type=kind)
