"""
Tickets over HTTP: create, read, cancel, and follow by long poll, server-sent events or WebSocket.

The seat token is minted here, when an assignment is delivered: short-lived, and for the server where the session is at that moment.
"""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, assert_never

from fastapi import APIRouter, Header, Query, Response, Security, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBearer

from allocator.model import Allocation
from gameserver.seats import SeatGrant, SeatIssuer
from gameserver.sessions.model import PlayerId, SessionId, SessionState, parse_session_id
from gameserver.sessions.port import StoreUnavailable
from matchmaker.api.auth import PlayerTokens, RateLimit
from matchmaker.api.connect import ConnectTokens
from matchmaker.api.problems import Problem
from matchmaker.api.schemas import AssignmentBody, QueueBody, SeatBody, TicketBody, TicketRequest
from matchmaker.api.watch import TicketWatch
from matchmaker.matching.wants import missing
from matchmaker.model import FINAL, QueueConfig, QueueName, TicketId
from matchmaker.ports import Allocator
from matchmaker.store import PlayerBarred, PlayerBusy, QueueClosed, QueueFull, Refused, TicketRecord, TicketStore

KEEP_ALIVE_S = 15.0
WATCH_SUBPROTOCOL = "warmfleet.tickets.1"
_STORE_RETRY_S = 0.5

Authorization = Annotated[str, Header(include_in_schema=False)]
_SIGNED = [Security(HTTPBearer(auto_error=False, bearerFormat="JWT", description="Its `sub` is the player."))]
"""Tells OpenAPI who may call; `Tickets.player` checks it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the endpoints work with."""

    queues: Mapping[QueueName, QueueConfig]
    store: TicketStore
    allocator: Allocator
    seats: SeatIssuer
    players: PlayerTokens
    watch: TicketWatch
    rate: RateLimit
    connect: ConnectTokens | None = None


class Tickets:
    """What the endpoints do."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def player(self, authorization: str) -> PlayerId:
        """Who asks. Raises Problem 401, 429."""
        player = self._services.players.player(authorization)
        self._services.rate.spend(player, time.monotonic())
        return player

    async def create(self, body: TicketRequest, player: PlayerId, key: str) -> TicketRecord:
        """Queue a party. Raises Problem."""
        queue = self._services.queues.get(QueueName(body.queue))
        if queue is None:
            known = ", ".join(self._services.queues)
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY, f"queue: no queue {body.queue!r}; there are: {known}", kind="invalid"
            )
        _check_party(body, queue, player)
        players = tuple(member.to_player() for member in body.players)
        made = await self._services.store.create(
            queue.name, players, idempotency=f"{player}:{key}" if key else "", max_tickets=queue.max_tickets
        )
        if isinstance(made, Refused):
            raise _refused(made, queue, player)
        return await self.fetch(made, player)

    async def fetch(self, ticket: str, player: PlayerId) -> TicketRecord:
        """A ticket of the player's own party. Raises Problem 404."""
        record = None
        if QueueName(ticket.partition(".")[0]) in self._services.queues:
            record = await self._services.store.fetch(TicketId(ticket))
        if record is None or player not in [member.id for member in record.ticket.players]:
            raise Problem(HTTPStatus.NOT_FOUND, f"no ticket {ticket!r} of yours", kind="not-found")
        return record

    async def cancel(self, ticket: str, player: PlayerId) -> None:
        """Take a ticket out of its queue. Raises Problem 404, 409."""
        await self.fetch(ticket, player)
        state = await self._services.store.cancel(TicketId(ticket))
        if state is not None and state.value not in ("cancelled", "timed_out", "failed"):
            raise Problem(HTTPStatus.CONFLICT, f"the ticket is {state.value}: too late to cancel", kind="too-late")

    async def body(self, record: TicketRecord, player: PlayerId) -> dict[str, Any]:
        """A ticket as JSON, with the asking player's assignment."""
        created = datetime.fromtimestamp(record.ticket.created_at_s, UTC)
        body = TicketBody(
            id=record.ticket.id,
            queue=record.queue,
            state=record.state.value,
            createdAt=created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            players=[
                {"id": member.id, "attributes": dict(member.attributes), "latencies": dict(member.latencies_ms)}
                for member in record.ticket.players
            ],
            match=record.match,
            reason=record.reason or None,
        )
        if record.assignment is not None:
            found = await self._services.allocator.find(SessionId(record.assignment["session"]))
            if found is not None and found.session.state is not SessionState.ENDED:
                body.assignment = self.assignment(found, player)
            else:
                body.reason = "the match is over"
        return body.model_dump(exclude_none=True)

    async def seat(self, session: str, player: PlayerId) -> AssignmentBody:
        """Where a player's session is now. Raises Problem 404, 403, 410."""
        try:
            session_id = parse_session_id(session)
        except ValueError as error:
            raise Problem(HTTPStatus.NOT_FOUND, str(error), kind="not-found") from None
        found = await self._services.allocator.find(session_id)
        if found is None:
            raise Problem(HTTPStatus.NOT_FOUND, f"no session {session!r}", kind="not-found")
        if player not in [seat.player for seat in found.session.seats]:
            raise Problem(HTTPStatus.FORBIDDEN, "you have no seat in this session", kind="no-seat")
        if found.session.state is SessionState.ENDED:
            raise Problem(HTTPStatus.GONE, "the match is over", kind="over")
        return self.assignment(found, player)

    def assignment(self, found: Allocation, player: PlayerId) -> AssignmentBody:
        """A player's way to its seat, with a fresh token."""
        session = found.session
        seat = next(seat for seat in session.seats if seat.player == player)
        grant = SeatGrant(
            player=player,
            seat=seat.index,
            team=seat.team,
            session=session.id,
            server=session.server,
            epoch=session.epoch,
        )
        return AssignmentBody(
            session=session.id,
            epoch=session.epoch,
            server=session.server,
            host=found.host,
            ports=dict(found.ports),
            seat=SeatBody(index=seat.index, team=seat.team),
            token=self._services.seats.issue(grant, time.time()),
            connectToken=self._services.connect.issue(found, time.time()) if self._services.connect else None,
            temperature=found.temperature.value,
        )

    async def changes(
        self, ticket: str, player: PlayerId, after: int
    ) -> AsyncIterator[tuple[int, dict[str, Any]] | None]:
        """
        Yield (event number, ticket) now and at each change past event `after`, until the ticket is over.

        None is a sign of life, every `KEEP_ALIVE_S`. An outage of the store is waited out.
        """
        async with self._services.watch.watching(TicketId(ticket)) as changed:
            while True:
                changed.clear()
                try:
                    record = await self.fetch(ticket, player)
                    if record.event > after:
                        body = await self.body(record, player)
                        after = record.event  # only now: an outage in between must not swallow the event
                        yield after, body
                except StoreUnavailable:
                    await asyncio.sleep(_STORE_RETRY_S)
                    continue
                except Problem:
                    return  # it has expired
                if record.state in FINAL:
                    return
                try:
                    async with asyncio.timeout(KEEP_ALIVE_S):
                        await changed.wait()
                except TimeoutError:
                    yield None


def router(services: Services) -> APIRouter:
    """The endpoints of tickets, queues and seats."""
    api = APIRouter(prefix="/v1")
    tickets = Tickets(services)

    @api.post(
        "/tickets",
        status_code=201,
        response_model=TicketBody,
        response_model_exclude_none=True,
        tags=["tickets"],
        dependencies=_SIGNED,
    )
    async def create_ticket(
        body: TicketRequest,
        response: Response,
        authorization: Authorization = "",
        idempotency_key: Annotated[str, Header(max_length=128)] = "",
    ) -> dict[str, Any]:
        """Queue a party; with an Idempotency-Key a repeated request returns the same ticket."""
        player = tickets.player(authorization)
        record = await tickets.create(body, player, idempotency_key)
        response.headers["Location"] = f"/v1/tickets/{record.ticket.id}"
        return await tickets.body(record, player)

    @api.get(
        "/tickets/{ticket}",
        response_model=TicketBody,
        response_model_exclude_none=True,
        tags=["tickets"],
        dependencies=_SIGNED,
    )
    async def get_ticket(
        ticket: str,
        authorization: Authorization = "",
        wait: Annotated[float, Query(ge=0, le=60, description="Long poll: s to wait for a change.")] = 0,
    ) -> dict[str, Any]:
        """A ticket as it stands; with `wait`, as soon as it changes or is over."""
        player = tickets.player(authorization)
        record = await tickets.fetch(ticket, player)
        if wait and record.state not in FINAL:
            changes = tickets.changes(ticket, player, record.event)
            try:
                async with asyncio.timeout(wait):
                    async for change in changes:
                        if change is not None:
                            return change[1]
            except TimeoutError:
                pass
            record = await tickets.fetch(ticket, player)
        return await tickets.body(record, player)

    @api.delete("/tickets/{ticket}", status_code=204, tags=["tickets"], dependencies=_SIGNED)
    async def cancel_ticket(ticket: str, authorization: Authorization = "") -> None:
        """Leave the queue; 409 once the ticket is being placed."""
        await tickets.cancel(ticket, tickets.player(authorization))

    @api.get(
        "/tickets/{ticket}/events",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}},
        tags=["tickets"],
        dependencies=_SIGNED,
    )
    async def ticket_events(
        ticket: str, authorization: Authorization = "", last_event_id: Annotated[str, Header(max_length=20)] = ""
    ) -> StreamingResponse:
        """Server-sent events: the ticket now and at each change, until it is over; resumable by Last-Event-ID."""
        player = tickets.player(authorization)
        await tickets.fetch(ticket, player)
        after = int(last_event_id) if last_event_id.isdecimal() else 0

        async def stream() -> AsyncIterator[bytes]:
            async for change in tickets.changes(ticket, player, after):
                if change is None:
                    yield b": keep-alive\n\n"
                else:
                    yield f"id: {change[0]}\nevent: state\ndata: {json.dumps(change[1])}\n\n".encode()

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream(), media_type="text/event-stream", headers=headers)

    @api.websocket("/tickets/{ticket}/watch")
    async def watch_ticket(socket: WebSocket, ticket: str) -> None:
        """The same over WebSocket: subprotocols `warmfleet.tickets.1` and `bearer.<JWT>`; one JSON text per change."""
        offered = socket.scope.get("subprotocols", [])
        token = next((name.removeprefix("bearer.") for name in offered if name.startswith("bearer.")), "")
        player = tickets.player(f"Bearer {token}")  # a Problem here answers the handshake
        await tickets.fetch(ticket, player)
        await socket.accept(subprotocol=WATCH_SUBPROTOCOL if WATCH_SUBPROTOCOL in offered else None)
        try:
            async with asyncio.TaskGroup() as tasks:
                gone = tasks.create_task(_until_gone(socket), name=f"watch-{ticket}")
                async for change in tickets.changes(ticket, player, 0):
                    if change is not None:
                        await socket.send_json(change[1])
                await socket.close()
                gone.cancel()
        except* WebSocketDisconnect:
            pass  # the watcher has gone

    @api.get("/queues", tags=["queues"])
    async def get_queues() -> list[QueueBody]:
        """Every queue and how many tickets wait in it."""
        return [
            QueueBody(
                name=queue.name,
                depth=await services.store.depth(queue.name),
                playersPerMatch=queue.players,
                teams={team.name: team.players for team in queue.teams},
                partyMax=queue.party_max,
            )
            for queue in services.queues.values()
        ]

    @api.get("/sessions/{session}/seat", response_model_exclude_none=True, tags=["sessions"], dependencies=_SIGNED)
    async def get_seat(session: str, authorization: Authorization = "") -> AssignmentBody:
        """Where the player's match is now, with a fresh seat token: for whoever lost its server."""
        return await tickets.seat(session, tickets.player(authorization))

    return api


async def _until_gone(socket: WebSocket) -> None:
    """Read what nobody should send, to notice that the watcher has gone. Raises WebSocketDisconnect."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])


def _refused(refused: Refused, queue: QueueConfig, player: PlayerId) -> Problem:
    match refused:
        case PlayerBusy():
            return Problem(
                HTTPStatus.CONFLICT,
                f"player {refused.player} has a live ticket in this queue: {refused.ticket}; cancel it first",
                kind="live-ticket",
                ticket=refused.ticket if refused.player == player else None,
            )
        case PlayerBarred():
            wait_s = math.ceil(refused.remaining_s)
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


def _check_party(body: TicketRequest, queue: QueueConfig, player: PlayerId) -> None:
    """The party against the queue's rules. Raises Problem 403, 422 that names the field."""
    ids = [member.id for member in body.players]
    if player not in ids:
        raise Problem(HTTPStatus.FORBIDDEN, f"players: you ({player}) are not among them", kind="not-your-party")
    if len(set(ids)) < len(ids):
        raise _invalid("players: a player is there twice")
    if len(ids) > queue.party_max:
        raise _invalid(f"players: {len(ids)} are a larger party than queue {queue.name} takes, {queue.party_max}")
    for index, member in enumerate(body.players):
        wanted = missing(queue, member.to_player())
        if wanted is not None:
            raise _invalid(f"players.{index}.{wanted[0]}: queue {queue.name} {wanted[1]}")


def _invalid(detail: str) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, kind="invalid")
