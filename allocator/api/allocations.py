"""The allocator's REST resource of allocations: matches in, servers out."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from allocator.api.answers import AllocationId, find, given, invalid, known
from allocator.api.problems import Problem
from allocator.api.schemas import AllocatedBody, AllocationBody, ListBody, allocated
from allocator.service import Allocator
from allocator.shelf import Shelf
from gameserver import tracing
from gameserver.sessions.model import FleetName, SessionState

MAX_WAITING = 5000
"""Requests that wait for a server at the same time, in one process."""
_NOW_S = 2.0
"""For a request that does not wait for a server: how long the store may take."""


class _Crowd:
    """Those who wait, up to a bound."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Be one of them. Raises Problem 429 when there are too many."""
        if self._waiting >= self._most:
            detail = f"{self._most} requests wait for a server already"
            raise Problem(HTTPStatus.TOO_MANY_REQUESTS, detail, kind="busy", headers={"Retry-After": "1"})
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1


def router(allocator: Allocator, shelf: Shelf) -> APIRouter:
    """Make the routes."""
    api = APIRouter()
    crowd = _Crowd(MAX_WAITING)

    @api.post("/allocations", status_code=HTTPStatus.CREATED, tags=["allocations"])
    async def allocate(
        body: AllocationBody, response: Response, traceparent: Annotated[str, Header(include_in_schema=False)] = ""
    ) -> AllocatedBody:
        """
        Give a match its server.

        Repeat it after a lost answer: the same `id` gets the same allocation. 503 with Retry-After when none came in time (nothing is held then) or
        the session store is away (ask again with the same id).
        """
        players = [player.id for player in body.players]
        if len(set(players)) < len(players):
            raise invalid("players: one is there twice")
        with crowd.place(), tracing.span("POST /v1/allocations", parent=traceparent):
            deadline_s, wait = (body.timeout_s, True) if body.timeout_s else (_NOW_S, False)
            found = await allocator.allocate(body.to_request(), deadline_s=deadline_s, wait=wait)
        done = given(found)
        response.headers["Location"] = f"/v1/allocations/{done.id}"
        return done

    @api.get("/allocations", tags=["allocations"])
    async def page(
        fleet: Annotated[str, Query(max_length=63)],
        state: SessionState | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[str, Query(max_length=256)] = "",
    ) -> ListBody:
        """
        The allocations on a fleet's servers, server by server; a page may be a little longer than `limit`, as no server is split.

        One that moves to another server while the pages are read may be seen twice or not at all.
        """
        known(allocator, fleet)
        found, following = await shelf.page(FleetName(fleet), after=after, limit=limit)
        items = [allocated(each) for each in found if state in (None, each.session.state)]
        return ListBody(items=items, next=following)

    @api.get("/allocations/{allocation}", tags=["allocations"])
    async def one(allocation: AllocationId) -> AllocatedBody:
        """Where a match is now; for an hour after its end too."""
        return allocated(await find(allocator, allocation))

    @api.delete("/allocations/{allocation}", status_code=HTTPStatus.NO_CONTENT, tags=["allocations"])
    async def release(allocation: AllocationId) -> None:
        """End a match from outside: its room is free for others. One that is over stays so."""
        found = await find(allocator, allocation)
        await allocator.end(found.session.id, reason="released")

    return api
