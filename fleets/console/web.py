"""
The console over HTTP: its page at `/console`, its stream and actions under `/v1/console`.

Two roles by bearer token: a viewer sees everything, an operator also acts. The page itself says nothing to whoever has no token. Actions are noted in the
feed, so that other operators see them.
"""

import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from fleets.console.feed import Feed, TooManyViewers
from fleets.pages import PageHeaders

_PAGE = Path(__file__).parent / "page"


class Role(StrEnum):
    """Who looks."""

    VIEWER = "viewer"
    OPERATOR = "operator"


class ShelfOrder(BaseModel):
    """How many rooms to keep claimable; null: the fleet's own figure."""

    rooms: int | None = Field(ge=0, le=10_000)


class KickOrder(BaseModel):
    """Whom to throw out of a session, for good."""

    player: str = Field(min_length=1, max_length=64)
    reason: str = Field(default="kicked by an operator", max_length=200)


class CloseOrder(BaseModel):
    """How to close a queue; "" opens it."""

    closed: str = Field(pattern="^(|paused|draining)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """What an operator can do. Each returns whether there is such a thing; may raise StoreUnavailable."""

    drain: Callable[[str], bool]
    close: Callable[[str, str], Awaitable[bool]]
    set_shelf: Callable[[str, int | None], Awaitable[bool]]
    kick: Callable[[str, str, str], Awaitable[bool]]
    end: Callable[[str], Awaitable[bool]]
    ticket: Callable[[str], Awaitable[dict[str, Any] | None]]
    """A ticket with its timeline and, while it waits, why."""


class Tokens:
    """Bearer tokens of the two roles."""

    def __init__(self, *, operator: str, viewer: str) -> None:
        self._tokens = {Role.OPERATOR: operator, Role.VIEWER: viewer}

    def role(self, authorization: str) -> Role:
        """Whose it is. Raises HTTPException 401."""
        for role, token in self._tokens.items():
            if hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
                return role
        raise HTTPException(401, "a console token is wanted: `warmfleet console` prints the address with one")


def mount(app: FastAPI, feed: Feed, tokens: Tokens, actions: Actions) -> None:
    """Add the page, the stream and the actions."""
    app.mount("/console", PageHeaders(StaticFiles(directory=_PAGE, html=True)))

    async def viewer(authorization: Annotated[str, Header()] = "") -> Role:
        return tokens.role(authorization)

    async def operator(authorization: Annotated[str, Header()] = "") -> None:
        if tokens.role(authorization) is not Role.OPERATOR:
            raise HTTPException(403, "this token may look, and not act")

    acting = {"dependencies": [Depends(operator)], "status_code": 204, "include_in_schema": False}

    def done(found: bool, kind: str, what: str, text: str) -> None:
        if not found:
            raise HTTPException(404, f"no {what!r} here, or it is over")
        feed.note(time.time(), kind, what, f"{text} (an operator)")

    @app.get("/v1/console/stream", include_in_schema=False)
    async def stream(role: Annotated[Role, Depends(viewer)]) -> StreamingResponse:
        told = feed.watch()
        try:
            first = await anext(told)
        except TooManyViewers as error:
            raise HTTPException(503, str(error), headers={"Retry-After": "10"}) from None

        async def events() -> AsyncIterator[bytes]:
            yield f"event: role\ndata: {role.value}\n\n".encode()
            yield first
            async for event in told:
                yield event

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(events(), media_type="text/event-stream", headers=headers)

    @app.get("/v1/console/tickets/{ticket}", include_in_schema=False, dependencies=[Depends(viewer)])
    async def ticket(ticket: str) -> dict[str, Any]:
        found = await actions.ticket(ticket)
        if found is None:
            raise HTTPException(404, f"no ticket {ticket!r}: it may be over for an hour, or never was")
        return found

    @app.post("/v1/console/servers/{server}/drain", **acting)  # type: ignore[arg-type]
    async def drain(server: str) -> None:
        done(actions.drain(server), "drain", server, "is told to drain")

    @app.put("/v1/console/queues/{queue}", **acting)  # type: ignore[arg-type]
    async def close(queue: str, order: CloseOrder) -> None:
        done(await actions.close(queue, order.closed), "queue", queue, f"is set to {order.closed or 'open'}")

    @app.put("/v1/console/fleets/{fleet}/shelf", **acting)  # type: ignore[arg-type]
    async def shelf(fleet: str, order: ShelfOrder) -> None:
        text = "keeps its own figure" if order.rooms is None else f"keeps {order.rooms} rooms on its shelf"
        done(await actions.set_shelf(fleet, order.rooms), "shelf", fleet, text)

    @app.post("/v1/console/sessions/{session}/kick", **acting)  # type: ignore[arg-type]
    async def kick(session: str, order: KickOrder) -> None:
        done(await actions.kick(session, order.player, order.reason), "kick", session, f"{order.player} is kicked")

    @app.post("/v1/console/sessions/{session}/end", **acting)  # type: ignore[arg-type]
    async def end(session: str) -> None:
        done(await actions.end(session), "end", session, "is ended")
