"""What an operator does, on a laptop and in a cluster: by the same interfaces as everybody else."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

from allocator.service import Allocator
from allocator.shelf import Shelf
from fleets.console.timelines import Timelines
from fleets.console.web import CannotAct
from gameserver.sessions.client import StoreClient
from gameserver.sessions.control import SessionControl
from gameserver.sessions.model import FleetName, PlayerId, SessionState, parse_session_id
from matchmaker.model import QueueName
from matchmaker.store import TicketStore

_SHELF_TTL_S = 3600.0
"""A shelf that an operator has set goes back to the fleet's own figure by itself."""
_NOT_FOUND = (HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)
_WAITING = ("queued", "searching", "placing", "proposed")


class Operator:
    """Acts by the REST API with the operator's key, by the allocator and by the shelf. Implements `web.Actions`."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        allocator: Allocator,
        client: StoreClient,
        timelines: Timelines,
        drain: Callable[[str], Awaitable[bool]],
    ) -> None:
        """
        Make it.

        Args:
            http: calls of the matchmaker's API, with an operator's key.
            drain: has a server drained; False when there is none of that name.
        """
        self._http = http
        self._allocator = allocator
        self._shelf = Shelf(client)
        self._control = SessionControl(client)
        self._timelines = timelines
        self._drain = drain

    async def drain(self, server: str) -> bool:
        """Have a server's matches handed over or played to their end, and the server replaced."""
        return await self._drain(server)

    async def close(self, queue: str, how: str) -> bool:
        """Pause, drain or open a queue."""
        return await self._call("PUT", f"/v1/queues/{quote(queue, safe='')}/closed", {"closed": how}) is not None

    async def set_shelf(self, fleet: str, rooms: int | None) -> bool:
        """Keep so many rooms claimable for an hour; None: the fleet's own figure."""
        if FleetName(fleet) not in self._allocator.fleets:
            return False
        await self._shelf.set_target(FleetName(fleet), rooms, ttl_s=_SHELF_TTL_S)
        return True

    async def kick(self, session: str, player: str, reason: str) -> bool:
        """Throw a player out of its session, for good."""
        try:
            found = await self._allocator.find(parse_session_id(session))
        except ValueError:
            return False
        if found is None or found.session.state is SessionState.ENDED:
            return False
        if PlayerId(player) not in [seat.player for seat in found.session.seats]:
            return False
        return await self._control.kick(found.session.id, PlayerId(player), reason)

    async def end(self, session: str) -> bool:
        """End a session."""
        try:
            return await self._allocator.end(parse_session_id(session), reason="ended by an operator")
        except ValueError:
            return False

    async def ticket(self, ticket: str) -> dict[str, Any] | None:
        """A ticket as the API tells it, with its timeline and, while it waits, why; without seat tokens, which are the players'."""
        body = await self._call("GET", f"/v1/tickets/{quote(ticket, safe='')}")
        steps = self._timelines.of(ticket)
        if body is None and not steps:
            return None
        if body is not None:
            body.pop("assignments", None)
            if not steps or steps[0]["state"] != "queued":
                created_s = datetime.fromisoformat(body["createdAt"]).timestamp()
                steps = [{"state": "queued", "at": created_s}, *steps]
        waits = body is not None and body["state"] in _WAITING
        return {**(body or {"id": ticket}), "steps": steps, "why": await self.why(ticket) if waits else None}

    async def why(self, ticket: str) -> dict[str, Any] | None:
        """Why it waits. Raises CannotAct."""
        return await self._call("GET", f"/v1/tickets/{quote(ticket, safe='')}/explanation")

    async def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any] | None:
        """The answer; None where there is no such thing. Raises CannotAct."""
        try:
            reply = await self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise CannotAct(f"the matchmaker does not answer: {type(error).__name__}: {error}") from error
        if reply.status_code in _NOT_FOUND:
            return None
        if reply.is_error:
            raise CannotAct(f"the matchmaker answers {reply.status_code}: {_detail(reply)}")
        return dict(reply.json()) if reply.content else {}


def asking_why(
    operator: Operator, store: TicketStore, queues: Sequence[QueueName], why: dict[QueueName, str]
) -> Callable[[], Awaitable[None]]:
    """Finds out anew why each queue's oldest ticket waits, and keeps it in `why`. Raises StoreUnavailable, CannotAct."""

    async def ask() -> None:
        for queue in queues:
            oldest = await store.oldest(queue)
            found = await operator.why(oldest[0]) if oldest is not None else None
            why[queue] = found["detail"] if found is not None else ""

    return ask


def _detail(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["detail"])[:300]
    except (ValueError, LookupError, TypeError):
        return reply.text[:100]
