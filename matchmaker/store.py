"""
Tickets and matches in Valkey.

Each deciding method is one Valkey function (`queue.lua`, `queue_*.lua`). All keys of a queue share its hash tag; `p` below is `wf:q:{<queue>}:`.

| key | type | owner, and how it goes |
|---|---|---|
| `p pool` | sorted set: ids of waiting tickets, by creation in ms | create, return; commit, cancel, expire |
| `p ticket:<id>` | hash: state players names created_ms event match assignment reason accepted asked deadline_ms assigned_ms | create; 1 h after its end |
| `p player:<player>` | string: the player's live ticket | create; the ticket's end |
| `p idempotency:<player>:<key>` | string: ticket id | create; expires after 1 h |
| `p log` | stream: what entered and left the pool, matches that were accepted | every change but commit; trimmed to 200,000 entries |
| `p idle` | string: the director has read all of the log | cycle; whoever wakes it |
| `p matches` | hash: match id → Match as JSON, while it is placing | commit, accept; assign, return |
| `p owners` | hash: match id → token of the director that places it, and alone may give it back | commit, adopt; with its member of `matches` |
| `p proposed`, `p deadlines` | hash and sorted set: matches that wait for acceptance, until when in ms | commit; accept, decline, cancel, cycle |
| `p accepting:<match>` | hash: players who have accepted; under the empty name, of how many | with its member of `proposed` |
| `p offences:<player>`, `p offenders` | number in 24 h; list of those that the director has not dealt with | decline, cycle; bar |
| `p left:<session>:<player>` | string: that this leaver is counted | left; expires after 24 h |
| `p penalty:<player>` | string: why the player may not queue | bar; expires when it may again |
| `p backfills` | hash: session → what it wants, as JSON | put; drop, commit |
| `p playing:<session>` | hash: ticket → players as `p ticket` has them, in queues with backfill | assign; playing_prune; 4 h after anybody came or was wanted |
| `p closed` | string: `paused` or `draining` | close |
| `p jumped` | string: by how many ms the store's clock has jumped while tickets waited | cycle; cycle, once nothing waits |
| `p lease` | string: the director's token, or `for <replica>`, whose director alone may take it | cycle; release; expires with the lease |
| `wf:directors` | sorted set: directors' processes, until when each counts as alive | beat |
| `p wake`, `p changed` | channels: something for the director to do; which tickets changed, and how | |
"""

import secrets
from collections.abc import Awaitable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson
from redis.exceptions import RedisError

from gameserver import tracing
from gameserver.sessions.client import StoreClient
from gameserver.sessions.clock import StoreClock
from gameserver.sessions.library import FunctionLibrary
from gameserver.sessions.model import MatchId, PlayerId, SessionId
from gameserver.sessions.port import StoreUnavailable
from matchmaker.backfill import Backfill, decode_backfill, encode_backfill
from matchmaker.batches import Batch
from matchmaker.model import Match, QueueName, Ticket, TicketId, TicketPlayer, TicketState
from matchmaker.records import (
    Change,
    Closed,
    Followed,
    Look,
    Offence,
    PlayerBarred,
    PlayerBusy,
    QueueClosed,
    QueueFull,
    Refused,
    TicketRecord,
    decode_match,
    decode_offence,
    decode_record,
    decode_ticket,
    encode_match,
    encode_party,
)

_T = TypeVar("_T")
_FUNCTIONS = ("queue.lua", "queue_refusals.lua", "queue_direction.lua", "queue_matches.lua", "queue_backfills.lua")
"""One library; each part calls what those before it define."""
_PIPELINE = 1000
"""Tickets fetched in one round trip."""
_MOST_CHANGES = 20_000
"""Of the log, read in one cycle."""
_KEPT_FOR_HEIR_S = 0.5
"""A lease that is handed over and not taken is anybody's after so long."""
_NEVER = "0-0"
"""Before the first entry of any log."""
_Assigned = tuple[Match, bytes, str]
"""With the assignment as JSON, and the session for which the players are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _NewTicket:
    id: TicketId
    party: bytes
    names: str
    idempotency: str
    max_tickets: int


def queue_of(ticket: TicketId) -> QueueName:
    """The queue that a ticket id names."""
    return QueueName(ticket.partition(".")[0])


def new_ticket_id(queue: QueueName) -> TicketId:
    """An id that no other ticket has."""
    return TicketId(f"{queue}.{secrets.token_urlsafe(12).replace('_', '-')}")


def wake_channel(queue: QueueName) -> str:
    """Wakes the director."""
    return f"{_prefix(queue)}wake"


def changed_channel(queue: QueueName) -> str:
    """Tells watchers which tickets changed: a JSON list of {state, tickets: {id: event}, match, reason, assignment, accepted, asked, deadline}."""
    return f"{_prefix(queue)}changed"


class TicketStore:
    """The tickets of all queues. Every method may raise StoreUnavailable; each may be called again then, with the same arguments."""

    def __init__(self, client: StoreClient, *, replicas: int = 0) -> None:
        """`replicas`: of Valkey that must have a new ticket before it is acknowledged; 0: the primary alone (docs/decisions/0034)."""
        self.client = client
        self._replicas = replicas
        self._functions = FunctionLibrary(client, *(Path(__file__).with_name(name) for name in _FUNCTIONS))
        self._creating: dict[QueueName, Batch[_NewTicket, Any]] = {}
        self._fetching: dict[QueueName, Batch[TicketId, TicketRecord | None]] = {}
        self._assigning: dict[QueueName, Batch[_Assigned, SessionId | None]] = {}

    @property
    def connections(self) -> int:
        """Changes when the connection was lost: the store may be another since, which lacks what the last one had not passed on."""
        return self.client.connections

    async def create(
        self,
        queue: QueueName,
        players: tuple[TicketPlayer, ...],
        *,
        idempotency: str,
        max_tickets: int,
        priority: str = "",
        ticket: TicketId | None = None,
    ) -> TicketRecord | TicketId | Refused:
        """
        Queue a party; with an idempotency key, or the same id, a repeated call returns the first one's ticket, by its id alone.

        `ticket`: from `new_ticket_id`, for who must know it before; by default it gets one here.
        """
        new = _NewTicket(
            id=ticket or new_ticket_id(queue),
            party=encode_party(players, priority, trace := tracing.current()),
            names="\n".join(player.id for player in players),
            idempotency=idempotency,
            max_tickets=max_tickets,
        )
        if (batch := self._creating.get(queue)) is None:
            batch = self._creating[queue] = Batch(lambda some: self._create(queue, some))
        reply = await batch(new)
        match reply[0]:
            case b"BUSY":
                return PlayerBusy(player=PlayerId(reply[1].decode()), ticket=TicketId(reply[2].decode()))
            case b"BARRED":
                return PlayerBarred(
                    player=PlayerId(reply[1].decode()), remaining_s=reply[2] / 1000, reason=reply[3].decode()
                )
            case b"FULL":
                return QueueFull()
            case b"CLOSED":
                return QueueClosed(how=Closed(reply[1].decode()))
            case b"OK":
                made = Ticket(id=new.id, players=players, created_at_s=reply[2] / 1000, priority=priority, trace=trace)
                return TicketRecord(
                    ticket=made,
                    queue=queue,
                    state=TicketState.QUEUED,
                    event=1,
                    match=None,
                    assignment=None,
                    reason="",
                )
            case _:
                return TicketId(reply[1].decode())

    async def fetch(self, ticket: TicketId) -> TicketRecord | None:
        """A ticket as it stands; None when there is none (any more)."""
        queue = queue_of(ticket)
        if (batch := self._fetching.get(queue)) is None:
            batch = self._fetching[queue] = Batch(lambda some: self._fetch(queue, some))
        found = await batch(ticket)
        if found is None and self._replicas:
            # A primary that was replaced while it stood still lacks what its successor has: only its replicas' word shows which of them it is.
            (found,) = await self._fetch(queue, [ticket], replicas=self._replicas)
        return found

    async def cancel(self, ticket: TicketId) -> TicketState | None:
        """Take a ticket out of the queue; returns the state it is in now, None when there is none."""
        state = await self._call("ticket_cancel", queue_of(ticket), ticket)
        return TicketState(state.decode()) if state else None

    async def accept(self, ticket: TicketId, player: PlayerId, *, accept: bool) -> TicketState | None:
        """A player's word on its proposed match; returns the ticket's state now, None when there is none."""
        state = await self._call("match_accept", queue_of(ticket), ticket, player, int(accept))
        return TicketState(state.decode()) if state else None

    async def pool(self, queue: QueueName) -> dict[TicketId, float]:
        """Every waiting ticket and when it was created (Unix seconds)."""
        rows: Any = await self._answer(self.client.zrange(f"{_prefix(queue)}pool", 0, -1, withscores=True))
        return {TicketId(row[0].decode()): float(row[1]) / 1000 for row in rows}

    async def sample(self, queue: QueueName, most: int) -> list[TicketId]:
        """So many of the waiting tickets at random, or all of them; what it costs does not grow with the queue."""
        rows: Any = await self._answer(self.client.zrandmember(f"{_prefix(queue)}pool", most))
        return [TicketId(row.decode()) for row in rows]

    async def tickets(self, queue: QueueName, ids: Sequence[TicketId]) -> list[Ticket]:
        """Fetch tickets; those that are gone are left out."""
        found: list[Ticket] = []
        for start in range(0, len(ids), _PIPELINE):
            some = ids[start : start + _PIPELINE]
            looks = [("HMGET", f"{_prefix(queue)}ticket:{ticket}", "players", "created_ms") for ticket in some]
            rows = await self._answer(self.client.fetch_all(looks))
            found.extend(
                decode_ticket(ticket, *row) for ticket, row in zip(some, rows, strict=True) if row[0] is not None
            )
        return found

    async def depth(self, queue: QueueName) -> int:
        """How many tickets wait."""
        return int(await self._answer(self.client.zcard(f"{_prefix(queue)}pool")))

    async def oldest(self, queue: QueueName) -> tuple[TicketId, float] | None:
        """The ticket that waits longest, and when it was created (Unix seconds); None when none waits."""
        rows: Any = await self._answer(self.client.zrange(f"{_prefix(queue)}pool", 0, 0, withscores=True))
        return (TicketId(rows[0][0].decode()), float(rows[0][1]) / 1000) if rows else None

    async def created(self, tickets: Sequence[TicketId]) -> dict[TicketId, float]:
        """When tickets were created (Unix seconds); without those that are forgotten."""
        looks = [("HGET", f"{_prefix(queue_of(ticket))}ticket:{ticket}", "created_ms") for ticket in tickets]
        found = await self._answer(self.client.fetch_all(looks)) if looks else []
        return {t: int(ms) / 1000 for t, ms in zip(tickets, found, strict=True) if ms is not None}

    async def ping(self) -> None:
        """Whether the store answers. Raises StoreUnavailable."""
        await self._answer(self.client.ping())

    async def now_s(self, queue: QueueName) -> float:
        """The clock by which a queue's tickets have their times, Unix seconds."""
        (now_ms,) = await self._call("ticket_fetch", queue)
        return float(now_ms) / 1000

    async def look(
        self,
        queue: QueueName,
        token: str,
        *,
        lease_s: float,
        cursor: str,
        ticket_timeout_s: float,
        clock: StoreClock | None = None,
    ) -> Look | None:
        """
        Direct the queue for another `lease_s`: time out what is late, and see what has changed since `cursor` ('' at first).

        `clock`: the caller's of this queue; nothing is older for a jump of the store's since it looked last.
        Returns: None while another directs.
        """
        clock = clock or StoreClock()
        reply = await self._call(
            "queue_cycle",
            queue,
            token,
            round(lease_s * 1000),
            cursor,
            round(ticket_timeout_s * 1000),
            _MOST_CHANGES,
            clock.expected_ms(),
        )
        now_s = reply[1] / 1000
        clock.saw(now_s)
        if reply[0] == b"HELD":
            return None
        cursor = reply[2].decode()
        if reply[0] == b"LOST":
            return Look(now_s=now_s, cursor=cursor, complete=False, jumped_s=reply[3] / 1000)
        added: dict[TicketId, Ticket] = {}
        removed: dict[TicketId, None] = {}
        accepted = []
        for entry in reply[5]:
            name = entry[1].decode()
            match entry[0]:
                case b"+":
                    added[TicketId(name)] = decode_ticket(TicketId(name), entry[3], entry[2])
                    removed.pop(TicketId(name), None)
                case b"-":
                    added.pop(TicketId(name), None)
                    removed[TicketId(name)] = None
                case _:
                    accepted.append(MatchId(name))
        return Look(
            now_s=now_s,
            cursor=cursor,
            complete=True,
            added=tuple(added.values()),
            removed=tuple(removed),
            accepted=tuple(accepted),
            offences=tuple(decode_offence(raw.decode()) for raw in reply[4]),
            closed=Closed(reply[3].decode()),
            timed_out=reply[6],
            oldest_s=max(0.0, now_s - reply[7] / 1000) if reply[7] else 0.0,
            full=len(reply[5]) >= _MOST_CHANGES,
        )

    async def follow(self, queue: QueueName, cursor: str) -> Followed:
        """What has changed since `cursor` (''; from now on), for those who only watch."""
        key = f"{_prefix(queue)}log"
        if not cursor:
            last: Any = await self._answer(self.client.xrevrange(key, count=1))
            return Followed(cursor=last[0][0].decode() if last else _NEVER, complete=True)
        rows: Any = await self._answer(self.client.xrange(key, min=cursor, count=_MOST_CHANGES))
        complete = cursor == _NEVER or bool(rows and rows[0][0].decode() == cursor)
        changes = []
        for entry, fields in rows:
            at, (kind, name) = entry.decode(), next(iter(fields.items()))
            if at == cursor or kind not in (b"+", b"-"):
                continue
            ticket = TicketId(name.decode())
            # redis-py reads an entry as pairs: ('+', id), (created in ms, party).
            entered = [decode_ticket(ticket, party, created) for created, party in list(fields.items())[1:]]
            at_s = int(at.partition("-")[0]) / 1000
            changes.append(Change(at_s=at_s, ticket=ticket, entered=entered[0] if entered else None))
        return Followed(cursor=rows[-1][0].decode() if rows else cursor, complete=complete, changes=tuple(changes))

    async def searching(self, queue: QueueName, token: str, tickets: Sequence[TicketId]) -> None:
        """Mark tickets as looked at."""
        for start in range(0, len(tickets), _PIPELINE):
            await self._call("ticket_search", queue, token, *tickets[start : start + _PIPELINE])

    async def commit(
        self, queue: QueueName, token: str, matches: Sequence[Match], *, accept_s: float = 0.0
    ) -> list[bool]:
        """
        Take each match's tickets out of the pool, all or none; False where one is gone, or everywhere when the lease is lost.

        `accept_s`: how long their players may take to accept; 0 when nobody is asked.
        """
        done: list[bool] = []
        for start in range(0, len(matches), _MATCHES_AT_ONCE):
            some = matches[start : start + _MATCHES_AT_ONCE]
            args: list[str | int | bytes] = []
            for m in some:
                args += (m.id, encode_match(m), len(m.tickets), *m.tickets)
            reply = await self._call("match_commit", queue, token, round(accept_s * 1000), *args)
            done.extend([False] * len(some) if reply == b"FENCED" else [one == b"OK" for one in reply])
        return done

    async def placing(self, queue: QueueName) -> list[MatchId]:
        """The matches that have no server yet."""
        rows: Any = await self._answer(self.client.hkeys(f"{_prefix(queue)}matches"))
        return [MatchId(key.decode()) for key in rows]

    async def adopt(self, queue: QueueName, token: str, ids: Sequence[MatchId]) -> list[Match]:
        """Take matches over, so that only the director of this token gives them back; those that are placing still, none when the lease is lost."""
        found: list[Match] = []
        for start in range(0, len(ids), _MATCHES_AT_ONCE):
            some = ids[start : start + _MATCHES_AT_ONCE]
            reply = await self._call("match_adopt", queue, token, *some)
            if reply == b"FENCED":
                break
            found += [decode_match(match, raw) for match, raw in zip(some, reply, strict=True) if raw is not None]
        return found

    async def assign(
        self, queue: QueueName, match: Match, assignment: dict[str, Any], *, keep_players: bool = False
    ) -> SessionId | None:
        """
        Give a match's tickets their assignment; returns the session that they have: another if that came before, None if they were returned.

        `keep_players`: for `playing`.
        """
        if (batch := self._assigning.get(queue)) is None:
            batch = self._assigning[queue] = Batch(lambda some: self._assign(queue, some), largest=_MATCHES_AT_ONCE)
        kept_for = assignment["session"] if keep_players else ""
        return await batch((match, orjson.dumps(assignment), kept_for))

    async def give_back(self, queue: QueueName, match: MatchId, *, reason: str, token: str = "") -> bool:
        """
        Return a match's tickets to the pool with their age; nobody is sent to a session of it any more.

        `token`: of the director that gives up; without one it is an operator who does.
        Returns: False when it was done, or assigned, before, or when another director has taken the match over: then its sessions are not the caller's to end.
        """
        return bool(await self._call("match_return", queue, match, reason, token))

    async def backfills(self, queue: QueueName) -> list[Backfill]:
        """What the running sessions of a queue want."""
        rows: Any = await self._answer(self.client.hgetall(f"{_prefix(queue)}backfills"))
        return [decode_backfill(SessionId(key.decode()), raw) for key, raw in rows.items()]

    async def backfill(self, queue: QueueName, session: SessionId) -> Backfill | None:
        """What one session wants."""
        raw: Any = await self._answer(self.client.hget(f"{_prefix(queue)}backfills", session))
        return None if raw is None else decode_backfill(session, raw)

    async def put_backfill(self, queue: QueueName, backfill: Backfill, *, token: str = "") -> tuple[bool, int]:
        """
        Say what a session wants, as the version after the one that the caller knows.

        `token`: of the director that says so.
        Returns: whether it is so now, and the newest version: False when another came first, players are being seated, or the director leads no more.
        """
        raw, led = encode_backfill(backfill), (token,) if token else ()
        done, version = await self._call("backfill_put", queue, backfill.session, backfill.version - 1, raw, *led)
        return bool(done), int(version)

    async def drop_backfill(self, queue: QueueName, session: SessionId, *, token: str = "") -> bool:
        """A session wants nobody any more; False when it did not. `token`: of the director that says so; False when it leads no more."""
        reply = await self._call("backfill_drop", queue, session, *((token,) if token else ()))
        return bool(reply == 1)

    async def seating(self, queue: QueueName) -> set[SessionId]:
        """The running sessions that players are being seated in."""
        rows: Any = await self._answer(self.client.hvals(f"{_prefix(queue)}matches"))
        return {SessionId(value["session"]) for value in map(orjson.loads, rows) if "session" in value}

    async def playing(self, queue: QueueName, session: SessionId, here: Collection[PlayerId]) -> list[TicketPlayer]:
        """Those who are `here`, as the tickets that brought them described them; tickets that have nobody here any more are forgotten."""
        rows: Any = await self._answer(self.client.hgetall(f"{_prefix(queue)}playing:{session}"))
        found: dict[PlayerId, TicketPlayer] = {}
        gone: list[TicketId] = []
        for key, raw in rows.items():
            ticket = decode_ticket(TicketId(key.decode()), raw, b"0")
            staying = {player.id: player for player in ticket.players if player.id in here}
            found |= staying
            if not staying:
                gone.append(ticket.id)
        await self._call("playing_prune", queue, session, *gone)
        return list(found.values())

    async def commit_backfill(
        self, queue: QueueName, token: str, wanted: Backfill, left: Backfill | None, match: Match
    ) -> bool:
        """Take a match's tickets for a running session, all or none, if it still wants what it `wanted`; then it wants what is `left`."""
        after = b"" if left is None else encode_backfill(left)
        head = (token, wanted.session, wanted.version, after, match.id, encode_match(match))
        return bool(await self._call("backfill_commit", queue, *head, *match.tickets) == b"OK")

    async def left(self, queue: QueueName, session: SessionId, player: PlayerId) -> None:
        """Count a player who has left a running match as an offender, once."""
        await self._call("player_left", queue, session, player)

    async def bar(self, queue: QueueName, offence: Offence, *, duration_s: float) -> None:
        """Keep an offender out of the queue for a while (0: not at all); the offence is dealt with."""
        await self._call("player_bar", queue, offence.entry, offence.player, round(duration_s * 1000), offence.kind)

    async def close(self, queue: QueueName, how: Closed) -> None:
        """Close a queue, or open it again; survives restarts."""
        await self._call("queue_close", queue, how.value)

    async def closed(self, queue: QueueName) -> Closed:
        """How a queue is closed."""
        raw: Any = await self._answer(self.client.get(f"{_prefix(queue)}closed"))
        return Closed((raw or b"").decode())

    async def hold_lease(self, queue: QueueName, token: str, *, lease_s: float) -> bool:
        """Take or renew the director's lease of a queue; False while another holds it."""
        return bool(await self._call("lease_hold", queue, token, round(lease_s * 1000)))

    async def release_lease(self, queue: QueueName, token: str, *, heir: str = "") -> None:
        """Give the lease up; for a moment only the `heir`, a replica whose directors' tokens begin with its name and a dot, may take it."""
        await self._call("lease_release", queue, token, heir, round(_KEPT_FOR_HEIR_S * 1000))

    async def beat(self, replica: str, *, alive_s: float) -> tuple[str, ...]:
        """Say that a director's process lives for so long (0: that it goes); returns all that live, in order of their names."""
        reply = await self._functions.call("replica_beat", ["wf:directors"], replica, round(alive_s * 1000))
        return tuple(sorted(name.decode() for name in reply))

    async def _create(self, queue: QueueName, some: Sequence[_NewTicket]) -> Sequence[Any]:
        args = [arg for new in some for arg in (new.id, new.party, new.names, new.idempotency)]
        keys = [_prefix(queue)]
        replies: Sequence[Any] = await self._functions.call(
            "ticket_create", keys, some[0].max_tickets, *args, replicas=self._replicas
        )
        return replies

    async def _fetch(
        self, queue: QueueName, some: Sequence[TicketId], *, replicas: int = 0
    ) -> list[TicketRecord | None]:
        keys = [_prefix(queue)]
        now_ms, *rows = await self._functions.call("ticket_fetch", keys, *some, replicas=replicas)
        return [decode_record(ticket, queue, row, now_ms) for ticket, row in zip(some, rows, strict=True)]

    async def _assign(self, queue: QueueName, some: Sequence[_Assigned]) -> list[SessionId | None]:
        args: list[str | int | bytes] = []
        for match, body, kept_for in some:
            args += (match.id, body, kept_for, len(match.tickets), *match.tickets)
        reply = await self._call("match_assign", queue, *args)
        return [SessionId(session.decode()) if session else None for session in reply]

    async def _call(self, function: str, queue: QueueName, *args: str | int | bytes) -> Any:
        return await self._functions.call(function, [_prefix(queue)], *args)

    async def _answer(self, call: Awaitable[_T]) -> _T:
        try:
            return await call
        except (RedisError, OSError) as error:
            raise StoreUnavailable(str(error)) from error


_MATCHES_AT_ONCE = 64
"""In one call of a function: the store answers nobody else meanwhile."""


def _prefix(queue: QueueName) -> str:
    return f"wf:q:{{{queue}}}:"
