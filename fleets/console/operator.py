"""What an operator does to a laptop's system, and the console made of its parts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx
from fastapi import FastAPI

from allocator.keeper import ShelfKeeper
from allocator.service import Allocator
from allocator.shelf import Shelf
from fleets.autoscaler.policy import Decision
from fleets.console.console import Console
from fleets.console.feed import Feed
from fleets.console.look import Looker, Sources
from fleets.console.tempo import Tempo
from fleets.console.timelines import Timelines
from fleets.console.web import Actions, Tokens, mount
from fleets.local.agones import LocalAgones
from gameserver.sessions.client import StoreClient
from gameserver.sessions.control import SessionControl
from gameserver.sessions.model import FleetName, PlayerId, SessionState, parse_session_id
from matchmaker.api.ticket_watch import TicketWatch
from matchmaker.model import QueueName
from matchmaker.store import TicketStore

_SHELF_TTL_S = 3600.0
"""A shelf that an operator has set goes back to the fleet's own figure by itself."""
_NOT_FOUND = (404, 422)


class Operator:
    """Acts by the same interfaces as everybody else: the REST API with the operator's key, the allocator, the shelf."""

    def __init__(
        self, app: FastAPI, token: str, agones: LocalAgones, allocator: Allocator, shelf: Shelf, client: StoreClient
    ) -> None:
        """`token`: the operator's, which is an API key of `app` too."""
        self.token = token
        self.drain = agones.drain
        self._allocator = allocator
        self._shelf = shelf
        self._control = SessionControl(client)
        self._http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://localhost",
            headers={"Authorization": f"Bearer {token}"},
        )

    async def close(self, queue: str, how: str) -> bool:
        """Pause, drain or open a queue."""
        reply = await self._http.put(f"/v1/queues/{quote(queue, safe='')}/closed", json={"closed": how})
        return _found(reply)

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
        """A ticket as the API tells it; without seat tokens, which are the players'."""
        reply = await self._http.get(f"/v1/tickets/{quote(ticket, safe='')}")
        if not _found(reply):
            return None
        body: dict[str, Any] = reply.json()
        body.pop("assignments", None)
        return body

    async def why(self, ticket: str) -> dict[str, Any] | None:
        """Why it waits."""
        reply = await self._http.get(f"/v1/tickets/{quote(ticket, safe='')}/explanation")
        return dict(reply.json()) if _found(reply) else None


def _found(reply: httpx.Response) -> bool:
    if reply.status_code in _NOT_FOUND:
        return False
    reply.raise_for_status()
    return True


def make_console(
    app: FastAPI,
    operator: Operator,
    *,
    viewer_token: str,
    agones: LocalAgones,
    keepers: Mapping[FleetName, ShelfKeeper],
    decisions: Mapping[FleetName, Decision],
    queues: Sequence[QueueName],
    store: TicketStore,
    tickets: TicketWatch,
    scraped: Callable[[], Iterable[tuple[str, str, int]]],
) -> Console:
    """Wire it, and add it to the application; its `run` must run beside."""
    feed, timelines = Feed(), Timelines()
    tempo = Tempo(scraped, watched=lambda: feed.viewers > 0)
    why: dict[QueueName, str] = {}
    tickets.listeners.append(timelines.heard)
    looker = Looker(
        Sources(
            fleets=agones.status,
            keepers=keepers,
            decisions=decisions,
            queues=queues,
            store=store,
            tempo=tempo,
            timelines=timelines,
            why=why,
        )
    )

    async def ask_why() -> None:
        for queue in queues:
            oldest = await store.oldest(queue)
            found = await operator.why(oldest[0]) if oldest is not None else None
            why[queue] = found["detail"] if found is not None else ""

    async def ticket(name: str) -> dict[str, Any] | None:
        body = await operator.ticket(name)
        steps = timelines.of(name)
        if body is None and not steps:
            return None
        if body is not None and (not steps or steps[0]["state"] != "queued"):
            steps = [{"state": "queued", "at": datetime.fromisoformat(body["createdAt"]).timestamp()}, *steps]
        waits = body is not None and body["state"] in ("queued", "searching", "placing", "proposed")
        return {**(body or {"id": name}), "steps": steps, "why": await operator.why(name) if waits else None}

    actions = Actions(
        drain=operator.drain,
        close=operator.close,
        set_shelf=operator.set_shelf,
        kick=operator.kick,
        end=operator.end,
        ticket=ticket,
    )
    mount(app, feed, Tokens(operator=operator.token, viewer=viewer_token), actions)
    return Console(feed, looker, tempo, ask_why=ask_why)
