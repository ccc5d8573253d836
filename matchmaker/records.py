"""What the store says of tickets, matches and queues, and how each is written in Valkey. Pure; `store` reads and writes them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from gameserver.sessions.model import FleetName, MatchId, PlayerId, SessionId
from matchmaker.model import FINAL, Match, QueueName, Ticket, TicketId, TicketPlayer, TicketState


class Closed(StrEnum):
    """How an operator has closed a queue."""

    OPEN = ""
    PAUSED = "paused"
    """No tickets in, no matches made."""
    DRAINING = "draining"
    """No tickets in; those that wait are matched."""


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
    """What the director gave `assign`; where the session is now must be asked."""
    reason: str
    accepted: int | None = None
    """Of a proposed match: how many players have accepted."""
    asked: int | None = None
    """How many there are."""
    deadline_ms: int | None = None
    """Of a proposed match: until when (Unix ms)."""
    assigned_ago_s: float = math.inf
    """When it was read."""

    @property
    def over(self) -> bool:
        """Nothing more will happen to it."""
        return self.state in FINAL


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayerBusy:
    """A player has a live ticket in this queue already."""

    player: PlayerId
    ticket: TicketId


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayerBarred:
    """A player may not queue for a while."""

    player: PlayerId
    remaining_s: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFull:
    """As many tickets wait as may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueClosed:
    """An operator lets no tickets in."""

    how: Closed


Refused = PlayerBusy | PlayerBarred | QueueFull | QueueClosed


@dataclass(frozen=True, slots=True, kw_only=True)
class Offence:
    """A player left a match that others wanted to play."""

    entry: str
    """As the store lists it; handed back to `bar`."""
    player: PlayerId
    kind: str
    count: int
    """With this one, in the last 24 h."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What has changed in a queue since its director's last look."""

    now_s: float
    """The store's clock, Unix seconds."""
    cursor: str
    """Where the next look goes on."""
    complete: bool
    """False: the log did not reach back, and the pool must be read whole; then this look says nothing else."""
    added: tuple[Ticket, ...] = ()
    removed: tuple[TicketId, ...] = ()
    """Neither in `added` any more."""
    accepted: tuple[MatchId, ...] = ()
    """Matches that everybody has accepted: to be placed."""
    offences: tuple[Offence, ...] = ()
    closed: Closed = Closed.OPEN
    timed_out: int = 0
    """Tickets that this look has ended, since they had waited too long."""
    oldest_s: float = 0.0
    """Age of the ticket that waits longest."""
    full: bool = False
    """There is more to read at once."""
    jumped_s: float = 0.0
    """By so much the store's clock has jumped since the last look; the queue's has not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A ticket entered the pool, or left it other than by a match."""

    at_s: float
    """The store's clock, Unix seconds."""
    ticket: TicketId
    entered: Ticket | None
    """None: it left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What has changed in a queue since a watcher's last look."""

    cursor: str
    """Where the next look goes on."""
    complete: bool
    """False: the log did not reach back, and some changes were missed."""
    changes: tuple[Change, ...] = ()
    """In order; as many as one look brings at most, then the next one brings more at once."""


def encode_party(players: Sequence[TicketPlayer], priority: str, trace: str = "") -> bytes:
    """[priority, [[id, attributes, latencies, blocked, avoided], …]], and the trace where there is one."""
    rows = [[p.id, dict(p.attributes), dict(p.latencies_ms), p.blocked, p.avoided] for p in players]
    return orjson.dumps([priority, rows, trace] if trace else [priority, rows])


def decode_ticket(ticket: TicketId, party: bytes, created_ms: bytes) -> Ticket:
    """A ticket, from what `encode_party` made of it and its creation in Unix ms."""
    priority, rows, *trace = orjson.loads(party)
    return Ticket(
        id=ticket,
        created_at_s=int(created_ms) / 1000,
        priority=priority,
        trace=trace[0] if trace else "",
        players=tuple(
            TicketPlayer(
                id=PlayerId(player),
                attributes={k: tuple(v) if isinstance(v, list) else v for k, v in attributes.items()},
                latencies_ms=latencies,
                blocked=tuple(blocked),
                avoided=tuple(avoided),
            )
            for player, attributes, latencies, blocked, avoided in rows
        ),
    )


def decode_record(ticket: TicketId, queue: QueueName, row: Sequence[bytes | None], now_ms: int) -> TicketRecord | None:
    """A row of `ticket_fetch`, read at `now_ms`; None where there is no ticket (any more)."""
    players, created_ms, state, event, match, assignment, reason, accepted, asked, deadline_ms, assigned_ms = row
    if players is None or created_ms is None or state is None or event is None:
        return None
    return TicketRecord(
        ticket=decode_ticket(ticket, players, created_ms),
        queue=queue,
        state=TicketState(state.decode()),
        event=int(event),
        match=None if match is None else MatchId(match.decode()),
        assignment=None if assignment is None else orjson.loads(assignment),
        reason=(reason or b"").decode(),
        accepted=None if accepted is None else int(accepted),
        asked=None if asked is None else int(asked),
        deadline_ms=None if deadline_ms is None else int(deadline_ms),
        assigned_ago_s=math.inf if assigned_ms is None else (now_ms - int(assigned_ms)) / 1000,
    )


def decode_offence(entry: str) -> Offence:
    """An entry of `offenders`."""
    player, kind, count = entry.split("\n")
    return Offence(entry=entry, player=PlayerId(player), kind=kind, count=int(count))


def encode_match(match: Match) -> bytes:
    """A match as JSON, without its id."""
    value: dict[str, Any] = {
        "tickets": match.tickets,
        "seats": match.seats,
        "fleets": match.fleets,
        "roles": dict(match.roles),
    }
    if match.session is not None:
        value["session"] = match.session
    if match.traces:
        value["traces"] = dict(match.traces)
    if match.latency_ms:
        value["latency_ms"] = dict(match.latency_ms)
    return orjson.dumps(value)


def decode_match(match: MatchId, raw: bytes) -> Match:
    """The match that was encoded."""
    value = orjson.loads(raw)
    return Match(
        id=match,
        tickets=tuple(TicketId(ticket) for ticket in value["tickets"]),
        seats=tuple((PlayerId(player), team) for player, team in value["seats"]),
        fleets=tuple(FleetName(fleet) for fleet in value["fleets"]),
        roles={PlayerId(player): role for player, role in value["roles"].items()},
        session=SessionId(value["session"]) if "session" in value else None,
        traces=value.get("traces", {}),
        latency_ms=value.get("latency_ms", {}),
    )
