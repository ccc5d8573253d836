"""
What `warmfleet up` serves besides the matchmaker's API: the arena's page, the browser SDK, and the operator's view of the fleets.

Owns paths and response headers; the content belongs to the packages below. The operator's endpoints want the operator's bearer token.
"""

import hmac
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

import gameserver.client
import gameserver.games.arena
from fleets.pages import HEADERS, PageHeaders

_PAGE = Path(gameserver.games.arena.__file__).parent / "web"
_SDK = Path(gameserver.client.__file__).parent / "js"


def mount_pages(app: FastAPI, *, arena: bool) -> None:
    """Serve the arena at `/arena/`, the browser SDK at `/sdk/`, and at `/` the arena or, for other games, the playground."""
    app.mount("/arena", PageHeaders(StaticFiles(directory=_PAGE)))
    app.mount("/sdk", PageHeaders(StaticFiles(directory=_SDK)))
    headers = {name.decode(): value.decode() for name, value in HEADERS}

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_PAGE / "index.html" if arena else _SDK / "playground.html", headers=headers)


def mount_targets(app: FastAPI, servers: Callable[[], Iterable[tuple[str, str, int]]]) -> None:
    """
    Serve `/metrics/targets`: every process of this machine that has metrics, for Prometheus' HTTP service discovery.

    Args: servers: (fleet, server, port) of each that serves `/metrics`.
    """

    @app.get("/metrics/targets", tags=["operations"], summary="What to scrape, for Prometheus' http_sd_configs")
    async def targets(request: Request) -> list[dict[str, Any]]:
        found = [{"targets": [request.url.netloc], "labels": {"part": "up"}}]
        for fleet, server, port in servers():
            labels = {"part": "gameserver", "fleet": fleet, "server": server}
            found.append({"targets": [f"127.0.0.1:{port}"], "labels": labels})
        return found


def mount_operator(
    app: FastAPI, *, token: str, status: Callable[[], Awaitable[dict[str, Any]]], drain: Callable[[str], bool]
) -> None:
    """
    Serve what an operator's commands ask for.

    Args:
        status: what `warmfleet status` shows.
        drain: told to have a server drained; False when there is none of that name.
    """

    async def operator(authorization: Annotated[str, Header()] = "") -> None:
        if not hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
            raise HTTPException(401, "the operator's bearer token is wanted: `warmfleet status` sends it")

    @app.get("/v1/fleets", dependencies=[Depends(operator)], tags=["operator"], summary="Fleets, servers and shelves")
    async def fleets() -> dict[str, Any]:
        return await status()

    @app.post(
        "/v1/servers/{server}/drain",
        status_code=202,
        dependencies=[Depends(operator)],
        tags=["operator"],
        summary="Have a server's matches handed over or finished, then replace it",
    )
    async def drain_server(server: str) -> dict[str, str]:
        if not drain(server):
            raise HTTPException(404, f"no server {server!r}: `warmfleet status` lists them")
        return {"server": server, "state": "draining"}
