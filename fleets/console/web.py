"""
The console over HTTP: its page at `/console`, its stream and actions under `/v1/console`.

Two roles by bearer token: a viewer sees everything, an operator also acts. The page itself says nothing to whoever has no token. Actions are noted in the
feed with who did them, so that other operators see them, and logged.
"""

import time
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Protocol

import structlog
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, StreamingResponse

from allocator.api import problems
from fleets.console.access import Access, Role, Visitor
from fleets.console.feed import Feed, TooManyViewers
from fleets.pages import PageHeaders

log = structlog.get_logger(__name__)

_MOST_BYTES = 16 * 1024
_PAGE = Path(__file__).parent / "page"


class CannotAct(Exception):
    """What the console acts by does not answer, or will not; says which and why."""


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


class Actions(Protocol):
    """What an operator can do. Each returns whether there is such a thing; may raise StoreUnavailable, CannotAct."""

    async def drain(self, server: str) -> bool:
        """Have a server drained."""

    async def close(self, queue: str, how: str) -> bool:
        """Pause, drain or open a queue."""

    async def set_shelf(self, fleet: str, rooms: int | None) -> bool:
        """Set a fleet's shelf for a while."""

    async def kick(self, session: str, player: str, reason: str) -> bool:
        """Throw a player out."""

    async def end(self, session: str) -> bool:
        """End a session."""

    async def ticket(self, ticket: str) -> dict[str, Any] | None:
        """A ticket with its timeline and, while it waits, why."""


def make_app(feed: Feed, access: Access, actions: Actions) -> FastAPI:
    """The console as an application of its own."""
    app = FastAPI(title="Warmfleet console", docs_url=None, redoc_url=None, openapi_url=None)
    problems.install(app)
    app.add_middleware(problems.BodyLimit, max_bytes=_MOST_BYTES)
    mount(app, feed, access, actions)

    @app.get("/", include_in_schema=False)
    async def page() -> RedirectResponse:
        return RedirectResponse("/console/")

    return app


def mount(app: FastAPI, feed: Feed, access: Access, actions: Actions) -> None:
    """Add the page, the stream and the actions."""
    app.mount("/console", PageHeaders(StaticFiles(directory=_PAGE, html=True)))

    async def viewer(authorization: Annotated[str, Header()] = "") -> Visitor:
        return await access.visitor(authorization)

    @app.exception_handler(CannotAct)
    async def cannot(_: Request, error: CannotAct) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "2"})

    @app.get("/v1/console/stream", include_in_schema=False)
    async def stream(visitor: Annotated[Visitor, Depends(viewer)]) -> StreamingResponse:
        told = feed.watch()
        try:
            first = await anext(told)
        except TooManyViewers as error:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, str(error), headers={"Retry-After": "10"}) from None

        async def events() -> AsyncIterator[bytes]:
            yield f"event: role\ndata: {visitor.role.value}\n\n".encode()
            yield first
            async for event in told:
                if time.time() >= visitor.until_s:
                    return  # it comes again, with a token that is valid, or is refused
                yield event

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(events(), media_type="text/event-stream", headers=headers)

    @app.get("/v1/console/tickets/{ticket}", include_in_schema=False, dependencies=[Depends(viewer)])
    async def ticket(ticket: str) -> dict[str, Any]:
        found = await actions.ticket(ticket)
        if found is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"no ticket {ticket!r}: it may be over for an hour, or never was")
        return found

    _mount_actions(app, feed, access, actions)


def _mount_actions(app: FastAPI, feed: Feed, access: Access, actions: Actions) -> None:
    async def operator(authorization: Annotated[str, Header()] = "") -> Visitor:
        visitor = await access.visitor(authorization)
        if visitor.role is not Role.OPERATOR:
            raise HTTPException(HTTPStatus.FORBIDDEN, "this token may look, and not act")
        return visitor

    acting: Any = {"status_code": HTTPStatus.NO_CONTENT, "include_in_schema": False}
    acts = Depends(operator)

    def done(by: Visitor, found: bool, kind: str, what: str, text: str) -> None:
        log.info("console_act", by=by.name, kind=kind, of=what, text=text, found=found)
        if not found:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"no {what!r} here, or it is over")
        feed.note(time.time(), kind, what, f"{text} (by {by.name})")

    @app.post("/v1/console/servers/{server}/drain", **acting)
    async def drain(by: Annotated[Visitor, acts], server: str) -> None:
        done(by, await actions.drain(server), "drain", server, "is told to drain")

    @app.put("/v1/console/queues/{queue}", **acting)
    async def close(by: Annotated[Visitor, acts], queue: str, order: CloseOrder) -> None:
        done(by, await actions.close(queue, order.closed), "queue", queue, f"is set to {order.closed or 'open'}")

    @app.put("/v1/console/fleets/{fleet}/shelf", **acting)
    async def shelf(by: Annotated[Visitor, acts], fleet: str, order: ShelfOrder) -> None:
        text = "keeps its own figure" if order.rooms is None else f"keeps {order.rooms} rooms on its shelf"
        done(by, await actions.set_shelf(fleet, order.rooms), "shelf", fleet, text)

    @app.post("/v1/console/sessions/{session}/kick", **acting)
    async def kick(by: Annotated[Visitor, acts], session: str, order: KickOrder) -> None:
        done(by, await actions.kick(session, order.player, order.reason), "kick", session, f"{order.player} is kicked")

    @app.post("/v1/console/sessions/{session}/end", **acting)
    async def end(by: Annotated[Visitor, acts], session: str) -> None:
        done(by, await actions.end(session), "end", session, "is ended")
