"""
Tickets over HTTP: create, read, cancel, accept, and follow by long poll, server-sent events or WebSocket.

These are the paths of every ticket, answered by `lean`; how they look in the OpenAPI document is in `described`.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any, assert_never

from allocator.api.problems import Problem
from gameserver import tracing
from gameserver.sessions.model import PlayerId
from matchmaker import metrics
from matchmaker.api import streams
from matchmaker.api.auth import Caller, Role
from matchmaker.api.lean import Reply, Request, Routes, invalid, parse
from matchmaker.api.many import ManyFollowed
from matchmaker.api.schemas import AcceptanceRequest, TicketRequest
from matchmaker.api.services import Services
from matchmaker.api.streams import Followed, next_change
from matchmaker.matching.wants import missing
from matchmaker.model import FINAL, QueueConfig, QueueName, RatingConfig, TicketId, TicketPlayer, TicketState
from matchmaker.records import PlayerBarred, PlayerBusy, QueueClosed, QueueFull, Refused, TicketRecord

WATCH_SUBPROTOCOL = "warmfleet.tickets.1"
LONGEST_WAIT_S = 60.0
_LONGEST_KEY = 128
_FRESH_S = 1.0
"""For so long a session is taken to be where it was put; if it has moved, its player asks for its seat."""
_WORDS = {state: state.value for state in TicketState}


class Tickets:
    """What the endpoints do."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def queue(self, name: str) -> QueueConfig:
        """A queue by its name. Raises Problem 422."""
        queue = self._services.queues.get(QueueName(name))
        if queue is None:
            raise invalid(f"queue: no queue {name!r}; there are: {', '.join(self._services.queues)}")
        return queue

    async def create(
        self,
        queue_name: str,
        players: Sequence[TicketPlayer],
        caller: Caller,
        *,
        key: str = "",
        priority: str = "",
        ticket: TicketId | None = None,
    ) -> TicketRecord:
        """Queue a party; `ticket`: its id, for who must know it before. Raises Problem."""
        queue = self.queue(queue_name)
        players = self._services.proofs.prove(players, queue)
        if queue.ratings is not None:
            players = await self._rated(queue.name, queue.ratings, players, caller)
        _check_party(players, queue, caller)
        made = await self._services.store.create(
            queue.name,
            tuple(players),
            idempotency=f"{caller.name}:{key}" if key else "",
            max_tickets=queue.max_tickets,
            priority=priority or caller.priority,
            ticket=ticket,
        )
        outcome = type(made).__name__ if isinstance(made, Refused) else "made"
        metrics.TICKETS_CREATED.labels(queue.name, outcome).inc()
        if isinstance(made, Refused):
            raise _refused(made, queue, caller)
        if not isinstance(made, TicketRecord):
            return await self.fetch(made, caller)
        self._services.estimates.created(made)
        return made

    async def _rated(
        self, queue: QueueName, ratings: RatingConfig, players: Sequence[TicketPlayer], caller: Caller
    ) -> list[TicketPlayer]:
        """The players with their ratings as attribute; only an API key may say another, as players could make theirs up."""
        name = ratings.attribute
        trusted = caller.role is not Role.PLAYER
        known = await self._services.ratings.fetch(queue, [player.id for player in players]) if players else {}
        return [
            player
            if trusted and name in player.attributes
            else replace(
                player,
                attributes={
                    **player.attributes,
                    name: known[player.id].mean if player.id in known else ratings.initial,
                },
            )
            for player in players
        ]

    async def fetch(self, ticket: str, caller: Caller) -> TicketRecord:
        """A ticket of the player's own party. Raises Problem 404."""
        record = None
        if QueueName(ticket.partition(".")[0]) in self._services.queues:
            record = await self._services.store.fetch(TicketId(ticket))
        if record is None or not caller.is_in([member.id for member in record.ticket.players]):
            raise Problem(HTTPStatus.NOT_FOUND, f"no ticket {ticket!r} of yours", kind="not-found")
        return record

    async def cancel(self, ticket: str, caller: Caller) -> None:
        """Take a ticket out of its queue. Raises Problem 404, 409."""
        await self.fetch(ticket, caller)
        state = await self._services.store.cancel(TicketId(ticket))
        if state is not None and state.value not in ("cancelled", "timed_out", "failed"):
            raise Problem(HTTPStatus.CONFLICT, f"the ticket is {state.value}: too late to cancel", kind="too-late")

    async def accept(self, ticket: str, caller: Caller, body: AcceptanceRequest) -> TicketRecord:
        """Say a player's word on its proposed match. Raises Problem 404, 409, 422."""
        record = await self.fetch(ticket, caller)
        player = caller.player or body.player
        if player not in [member.id for member in record.ticket.players]:
            raise invalid("player: an API key says for which of the ticket's players it speaks")
        state = await self._services.store.accept(TicketId(ticket), PlayerId(player), accept=body.accept)
        wanted = (TicketState.PROPOSED, TicketState.PLACING, TicketState.ASSIGNED)
        if body.accept and state not in wanted:
            detail = f"the ticket is {state.value if state else 'gone'}: there is no match to accept"
            raise Problem(HTTPStatus.CONFLICT, detail, kind="too-late")
        if not body.accept and state in wanted:
            raise Problem(HTTPStatus.CONFLICT, f"the ticket is {state}: too late to decline", kind="too-late")
        return await self.fetch(ticket, caller)

    async def body(self, record: TicketRecord, caller: Caller, *, fresh: bool = False) -> dict[str, Any]:
        """A ticket as JSON values, with the asking player's assignment (everybody's for an API key)."""
        created = datetime.fromtimestamp(record.ticket.created_at_s, UTC).isoformat(timespec="milliseconds")
        body: dict[str, Any] = {
            "id": record.ticket.id,
            "queue": record.queue,
            "state": _WORDS[record.state],
            "createdAt": created[:-6] + "Z",
            "players": [
                {"id": member.id, "attributes": dict(member.attributes), "latencies": dict(member.latencies_ms)}
                for member in record.ticket.players
            ],
        }
        if record.match is not None:
            body["match"] = record.match
        if (wait := self._services.estimates.of(record)) is not None:
            body["estimatedWait"] = wait
        if record.reason:
            body["reason"] = record.reason
        if record.deadline_ms is not None:
            deadline = datetime.fromtimestamp(record.deadline_ms / 1000, UTC).isoformat(timespec="milliseconds")
            body["acceptance"] = {
                "accepted": record.accepted,
                "players": record.asked,
                "deadline": deadline[:-6] + "Z",
            }
        if record.assignment is not None:
            await self._add_assignments(body, record, caller, fresh=fresh)
        return body

    async def _add_assignments(
        self, body: dict[str, Any], record: TicketRecord, caller: Caller, *, fresh: bool
    ) -> None:
        assigned, way = record.assignment, self._services.assignments
        assert assigned is not None
        fresh = fresh or record.assigned_ago_s < _FRESH_S
        players = [caller.player] if caller.player is not None else [member.id for member in record.ticket.players]
        found = {
            player: await (way.fresh(assigned, player) if fresh else way.now(assigned, player)) for player in players
        }
        if None in found.values():
            body["reason"] = "the match is over"
        elif caller.player is not None:
            body["assignment"] = found[caller.player]
        else:
            body["assignments"] = found


class Handlers:
    """The endpoints."""

    def __init__(self, services: Services, tickets: Tickets) -> None:
        self._services = services
        self._tickets = tickets

    def routes(self) -> Routes:
        """For `Lean`."""
        return Routes(
            http={
                "": {"POST": self.create},
                "{id}": {"GET": self.get, "DELETE": self.cancel},
                "{id}/events": {"GET": self.events},
                "{id}/acceptance": {"POST": self.accept},
            },
            websocket={"{id}/watch": self.watch, "{id}": self.watch_many},
        )

    async def create(self, request: Request) -> Reply:
        """`POST /v1/tickets`."""
        caller = await self._caller(request)
        key = request.header(b"idempotency-key", longest=_LONGEST_KEY)
        body = parse(TicketRequest, await request.body())
        if body.priority and caller.role is Role.PLAYER:
            raise Problem(
                HTTPStatus.FORBIDDEN,
                "priority: only an API key gives one, or the player's token (its claim `priority`)",
                kind="forbidden",
            )
        players = [member.to_player() for member in body.players]
        with tracing.span("POST /v1/tickets", parent=request.header(b"traceparent"), queue=body.queue) as span:
            record = await self._tickets.create(body.queue, players, caller, key=key, priority=body.priority)
            span.set(ticket=record.ticket.id)
        location = f"/v1/tickets/{record.ticket.id}".encode()
        return Reply(201, await self._tickets.body(record, caller), ((b"location", location),))

    async def get(self, request: Request) -> Reply:
        """`GET /v1/tickets/{ticket}`, with `?wait=` as soon as it changes or is over."""
        caller = await self._caller(request)
        wait_s = _wait(request.query().get("wait", "0"))
        record = await self._tickets.fetch(request.id, caller)
        if wait_s and record.state not in FINAL:
            record = await next_change(self._followed(record.ticket.id, caller), record, wait_s)
        return Reply(200, await self._tickets.body(record, caller))

    async def cancel(self, request: Request) -> Reply:
        """`DELETE /v1/tickets/{ticket}`."""
        await self._tickets.cancel(request.id, await self._caller(request))
        return Reply(204)

    async def accept(self, request: Request) -> Reply:
        """`POST /v1/tickets/{ticket}/acceptance`."""
        caller = await self._caller(request)
        body = parse(AcceptanceRequest, await request.body())
        record = await self._tickets.accept(request.id, caller, body)
        return Reply(200, await self._tickets.body(record, caller))

    async def events(self, request: Request) -> None:
        """`GET /v1/tickets/{ticket}/events`: server-sent events."""
        caller = await self._caller(request)
        await streams.events(request, self._followed(TicketId(request.id), caller), name=b"state")

    async def watch(self, request: Request) -> None:
        """`WS /v1/tickets/{ticket}/watch`: the same over WebSocket, one JSON text a change."""
        caller, spoken = await self._greet(request)
        if (await request.receive())["type"] == "websocket.connect":
            await streams.websocket(request, self._followed(TicketId(request.id), caller), subprotocol=spoken)

    async def watch_many(self, request: Request) -> None:
        """`WS /v1/tickets/watch`: of as many tickets as the client names, while it is connected."""
        if request.id != "watch":
            raise Problem(HTTPStatus.NOT_FOUND, "WebSockets are at …/watch", kind="not-found")
        caller, spoken = await self._greet(request)
        if (await request.receive())["type"] == "websocket.connect":
            await ManyFollowed(request, lambda name: self._followed(TicketId(name), caller)).run(subprotocol=spoken)

    async def _greet(self, request: Request) -> tuple[Caller, str | None]:
        """Who opens a WebSocket, and by which subprotocol it is spoken."""
        offered = request.scope.get("subprotocols", [])
        token = next((name.removeprefix("bearer.") for name in offered if name.startswith("bearer.")), "")
        caller = await self._services.callers.caller(f"Bearer {token}" if token else request.header(b"authorization"))
        return caller, WATCH_SUBPROTOCOL if WATCH_SUBPROTOCOL in offered else None

    def _followed(self, ticket: TicketId, caller: Caller) -> Followed[TicketRecord]:
        return Followed(
            following=partial(self._services.watch.following, ticket),
            fetch=lambda: self._tickets.fetch(ticket, caller),
            body=lambda record, fresh: self._tickets.body(record, caller, fresh=fresh),
        )

    async def _caller(self, request: Request) -> Caller:
        return await self._services.callers.caller(request.header(b"authorization"))


def _wait(text: str) -> float:
    try:
        wait_s = float(text)
    except ValueError:
        wait_s = math.nan
    if not 0 <= wait_s <= LONGEST_WAIT_S:
        raise invalid(f"query.wait: 0 to {LONGEST_WAIT_S:g} s are wanted")
    return wait_s


def _refused(refused: Refused, queue: QueueConfig, caller: Caller) -> Problem:
    match refused:
        case PlayerBusy():
            return Problem(
                HTTPStatus.CONFLICT,
                f"player {refused.player} has a live ticket in this queue: {refused.ticket}; cancel it first",
                kind="live-ticket",
                ticket=refused.ticket if caller.is_in([refused.player]) else None,
            )
        case PlayerBarred():
            wait_s = max(1, math.ceil(refused.remaining_s))
            return Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"player {refused.player} may not queue for another {wait_s} s: {refused.reason}",
                kind="barred",
                headers={"Retry-After": str(wait_s)},
            )
        case QueueFull():
            detail, kind, after_s = f"queue {queue.name} is full: {queue.max_tickets} tickets wait", "queue-full", "5"
        case QueueClosed():
            detail, kind, after_s = f"queue {queue.name} takes no tickets now: it is {refused.how}", "closed", "30"
        case _:
            assert_never(refused)
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, kind=kind, headers={"Retry-After": after_s})


def _check_party(players: Sequence[TicketPlayer], queue: QueueConfig, caller: Caller) -> None:
    """The party against the queue's rules. Raises Problem 403, 422 that names the field."""
    ids = [member.id for member in players]
    if not caller.is_in(ids):
        raise Problem(HTTPStatus.FORBIDDEN, f"players: you ({caller.player}) are not among them", kind="not-your-party")
    if len(set(ids)) < len(ids):
        raise invalid("players: a player is there twice")
    if len(ids) > queue.party_max:
        raise invalid(f"players: {len(ids)} are a larger party than queue {queue.name} takes, {queue.party_max}")
    for index, member in enumerate(players):
        wanted = missing(queue, member)
        if wanted is not None:
            raise invalid(f"players.{index}.{wanted[0]}: queue {queue.name} {wanted[1]}")
