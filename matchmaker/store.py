"""
Tickets and matches in Valkey.

Each deciding method is one Valkey function (`queue.lua`). All keys of a queue share its hash tag; `p` below is `wf:q:{<queue>}:`.

| key | type | owner, and how it goes |
|---|---|---|
| `p pool` | sorted set: ids of waiting tickets, by creation in ms | create, return; commit, cancel, expire |
| `p ticket:<id>` | hash: state players names created_ms match assignment reason event | create; expires 1 h after its end, 24 h after its last change |
| `p player:<player>` | string: the player's live ticket | create; the ticket's end |
| `p idempotency:<player>:<key>` | string: ticket id | create; expires after 1 h |
| `p matches` | hash: match id → Match as JSON, while it is placing | commit; assign, return |
| `p lease` | string: the director's token | lease_hold; expires with the lease |
| `p wake`, `p changed` | channels: something for the director to do; a ticket's id | |
"""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from redis.exceptions import RedisError

from gameserver.sessions.client import COMMAND_TIMEOUT_S, StoreClient
from gameserver.sessions.library import FunctionLibrary
from gameserver.sessions.model import FleetName, MatchId, PlayerId
from gameserver.sessions.port import StoreUnavailable
from matchmaker.model import Match, QueueName, Ticket, TicketId, TicketPlayer, TicketState

_T = TypeVar("_T")
_PIPELINE = 1000
"""Tickets fetched in one round trip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketRecord:
    """A ticket as it stands."""

    ticket: Ticket
    queue: QueueName
    state: TicketState
    event: int
    """Grows with every change."""
    match: MatchId | None
    assignment: dict[str, Any] | None
    """{session, seats: {player: index}} once assigned; where the session is must be asked."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayerBusy:
    """A player has a live ticket in this queue already."""

    player: PlayerId
    ticket: TicketId


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFull:
    """As many tickets wait as may."""


def queue_of(ticket: TicketId) -> QueueName:
    """The queue that a ticket id names."""
    return QueueName(ticket.partition(".")[0])


def wake_channel(queue: QueueName) -> str:
    """Wakes the director."""
    return f"{_prefix(queue)}wake"


def changed_channel(queue: QueueName) -> str:
    """Tells watchers which ticket changed."""
    return f"{_prefix(queue)}changed"


class TicketStore:
    """The tickets of all queues. Every method may raise StoreUnavailable; each may be called again then, with the same arguments."""

    def __init__(self, client: StoreClient) -> None:
        self.client = client
        self._functions = FunctionLibrary(client, Path(__file__).with_name("queue.lua"))

    async def create(
        self, queue: QueueName, players: tuple[TicketPlayer, ...], *, idempotency: str, max_tickets: int
    ) -> TicketId | PlayerBusy | QueueFull:
        """Queue a party; with an idempotency key a repeated call returns the first one's ticket."""
        ticket = TicketId(f"{queue}.{secrets.token_urlsafe(12).replace('_', '-')}")
        names = json.dumps([player.id for player in players])
        body = json.dumps([_encode_player(player) for player in players], separators=(",", ":"))
        reply = await self._call("ticket_create", queue, ticket, body, names, idempotency, max_tickets)
        if reply[0] == b"BUSY":
            return PlayerBusy(player=PlayerId(reply[1].decode()), ticket=TicketId(reply[2].decode()))
        return QueueFull() if reply[0] == b"FULL" else TicketId(reply[1].decode())

    async def fetch(self, ticket: TicketId) -> TicketRecord | None:
        """A ticket as it stands; None when there is none (any more)."""
        queue = queue_of(ticket)
        record: Any = await self._answer(self.client.hgetall(f"{_prefix(queue)}ticket:{ticket}"))
        return _decode(ticket, queue, record) if record else None

    async def cancel(self, ticket: TicketId) -> TicketState | None:
        """Take a ticket out of the queue; returns the state it is in now, None when there is none."""
        state = await self._call("ticket_cancel", queue_of(ticket), ticket)
        return TicketState(state.decode()) if state else None

    async def pool(self, queue: QueueName) -> dict[TicketId, float]:
        """Every waiting ticket and when it was created (Unix seconds)."""
        rows: Any = await self._answer(self.client.zrange(f"{_prefix(queue)}pool", 0, -1, withscores=True))
        return {TicketId(row[0].decode()): float(row[1]) / 1000 for row in rows}

    async def tickets(self, queue: QueueName, ids: Sequence[TicketId]) -> list[Ticket]:
        """Fetch tickets; those that are gone are left out."""
        found: list[Ticket] = []
        for start in range(0, len(ids), _PIPELINE):
            some = ids[start : start + _PIPELINE]
            pipeline = self.client.pipeline(transaction=False)
            for ticket in some:
                pipeline.hmget(f"{_prefix(queue)}ticket:{ticket}", "players", "created_ms")
            try:
                async with asyncio.timeout(COMMAND_TIMEOUT_S):  # the client's own deadline covers single commands
                    rows: Any = await self._answer(pipeline.execute())
            except TimeoutError as error:
                raise StoreUnavailable(f"no answer in {COMMAND_TIMEOUT_S:g} s") from error
            found.extend(_ticket(ticket, *row) for ticket, row in zip(some, rows, strict=True) if row[0] is not None)
        return found

    async def depth(self, queue: QueueName) -> int:
        """How many tickets wait."""
        return int(await self._answer(self.client.zcard(f"{_prefix(queue)}pool")))

    async def now_s(self) -> float:
        """The store's clock, Unix seconds."""
        seconds, micros = await self._answer(self.client.time())
        return float(seconds) + float(micros) / 1e6

    async def searching(self, queue: QueueName, token: str, tickets: Sequence[TicketId]) -> None:
        """Mark tickets as looked at."""
        await self._call("ticket_search", queue, token, *tickets)

    async def expire(self, queue: QueueName, token: str, *, age_s: float) -> int:
        """Time out the tickets that have waited longer; returns how many."""
        return int(await self._call("ticket_expire", queue, token, round(age_s * 1000)))

    async def commit(self, queue: QueueName, token: str, match: Match) -> bool:
        """Take a match's tickets out of the pool, all or none; False when one is gone or the lease is lost."""
        reply = await self._call("match_commit", queue, token, match.id, _encode_match(match), *match.tickets)
        return bool(reply == b"OK")

    async def placing(self, queue: QueueName) -> list[Match]:
        """The matches that have no server yet."""
        rows: Any = await self._answer(self.client.hgetall(f"{_prefix(queue)}matches"))
        return [_decode_match(MatchId(key.decode()), value) for key, value in rows.items()]

    async def assign(self, queue: QueueName, match: Match, assignment: dict[str, Any]) -> bool:
        """Give a match's tickets their assignment; False when it was done, or returned, before."""
        return bool(await self._call("match_assign", queue, match.id, json.dumps(assignment), *match.tickets))

    async def give_back(self, queue: QueueName, match: Match, *, reason: str) -> bool:
        """Return a match's tickets to the pool with their age; False when it was done, or assigned, before."""
        return bool(await self._call("match_return", queue, match.id, reason, *match.tickets))

    async def hold_lease(self, queue: QueueName, token: str, *, lease_s: float) -> bool:
        """Take or renew the director's lease of a queue; False while another holds it."""
        return bool(await self._call("lease_hold", queue, token, round(lease_s * 1000)))

    async def release_lease(self, queue: QueueName, token: str) -> None:
        """Give the lease up."""
        await self._call("lease_release", queue, token)

    async def _call(self, function: str, queue: QueueName, *args: str | int) -> Any:
        return await self._functions.call(function, [_prefix(queue)], *args)

    async def _answer(self, call: Awaitable[_T]) -> _T:
        try:
            return await call
        except (RedisError, OSError) as error:
            raise StoreUnavailable(str(error)) from error


def _prefix(queue: QueueName) -> str:
    return f"wf:q:{{{queue}}}:"


def _encode_player(player: TicketPlayer) -> dict[str, Any]:
    attributes = {key: list(v) if isinstance(v, tuple) else v for key, v in player.attributes.items()}
    return {"id": player.id, "attributes": attributes, "latencies": dict(player.latencies_ms)}


def _ticket(ticket: TicketId, players: bytes, created_ms: bytes) -> Ticket:
    return Ticket(
        id=ticket,
        created_at_s=int(created_ms) / 1000,
        players=tuple(
            TicketPlayer(
                id=PlayerId(player["id"]),
                attributes={k: tuple(v) if isinstance(v, list) else v for k, v in player["attributes"].items()},
                latencies_ms=player["latencies"],
            )
            for player in json.loads(players)
        ),
    )


def _decode(ticket: TicketId, queue: QueueName, record: dict[bytes, bytes]) -> TicketRecord:
    return TicketRecord(
        ticket=_ticket(ticket, record[b"players"], record[b"created_ms"]),
        queue=queue,
        state=TicketState(record[b"state"].decode()),
        event=int(record[b"event"]),
        match=MatchId(record[b"match"].decode()) if b"match" in record else None,
        assignment=json.loads(record[b"assignment"]) if b"assignment" in record else None,
        reason=record.get(b"reason", b"").decode(),
    )


def _encode_match(match: Match) -> str:
    return json.dumps({"tickets": match.tickets, "seats": match.seats, "fleets": match.fleets}, separators=(",", ":"))


def _decode_match(match: MatchId, raw: bytes) -> Match:
    value = json.loads(raw)
    return Match(
        id=match,
        tickets=tuple(TicketId(ticket) for ticket in value["tickets"]),
        seats=tuple((PlayerId(player), team) for player, team in value["seats"]),
        fleets=tuple(FleetName(fleet) for fleet in value["fleets"]),
    )
