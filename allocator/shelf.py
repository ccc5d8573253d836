"""
The shelf in Valkey: rooms of allocated servers, who waits for one, which session is where.

Each method is one Valkey function (`shelf.lua`). All keys of a fleet share its hash tag; `p` below is `wf:{<fleet>}:`. What only a keeper may do carries
its lease's token and is refused once the lease is another's (`LeaseLost`); see docs/decisions/0030.

| key | type | owner, and how it goes |
|---|---|---|
| `p shelf` | sorted set: server, by number of free rooms | servers that can be claimed; follows the rooms |
| `p servers` | set of registered servers | register; unshelve or drop |
| `p server:<name>` | hash: host ports version rooms spent draining registered_ms silent_since_ms, `room:<i>` → session id | with its member in `servers` |
| `p rooms:<name>` | list of free room numbers | with its server |
| `p waiters`, `p waiting` | sorted set and hash: session ids that wait, until when each counts as alive | claim; a waiter that stops asking goes after 2 s |
| `p keeper` | string: the token of the keeper that works | expires with the lease |
| `p claims` | integer: sessions ever claimed | claim; stays, since arrivals are its differences |
| `p target` | string: rooms to keep claimable, in place of the fleet's own figure | expires unless it is set again |
| `p lost` | set of session ids whose server is gone | drop; move or end |
| `p dead` | sorted set: servers dropped though their backend still had them, by when to forget it (ms) | drop; after an hour |
| `p open:<queue>` | sorted set: session, by seats that more players may take | claim and allocator/seats.py; one that is over goes when it is met |
| `p reserved` | sorted set: `<session> <player>` who has not come, by until when its seat is kept (ms) | reserve and find; come, leave, expiry |
| `p party:<request>` | string: the session that a party was seated in | after 1 h |
| `p session:<id>`, `p checkpoint:<id>`, `p ended` | see gameserver/sessions/valkey.py | |
| `p wake`, `p called` | channels: something for the keeper to look at; ids of waiters for whom there is a room | |
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from redis.exceptions import RedisError

from allocator.model import Allocation, GameServer, Strategy, Temperature, explain
from gameserver.sessions.client import StoreClient
from gameserver.sessions.clock import StoreClock
from gameserver.sessions.library import FunctionLibrary
from gameserver.sessions.model import (
    FleetName,
    Seat,
    ServerMode,
    ServerName,
    Session,
    SessionId,
    SessionState,
    fleet_of,
)
from gameserver.sessions.port import StoreUnavailable
from gameserver.sessions.valkey import decode_session, encode_seats, session_key


class LeaseLost(Exception):
    """The keeper's lease is over or another's: nothing was changed, and nothing may be until it is held again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """No room yet; so many requests are ahead."""

    ahead: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NoRoom:
    """No room, and the request does not wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomInUse:
    """A session on a shelved server."""

    session: SessionId
    state: SessionState | None
    """None: its record is gone."""
    age_s: float
    """Since its last change of state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShelfEntry:
    """A registered server."""

    server: ServerName
    version: str
    draining: bool
    rooms: int
    free: int
    spent: int
    """Rooms whose match is over and that are not used again."""
    age_s: float
    """Since it was registered."""
    silent_s: float = 0.0
    """For how long a server that once gave signs of life has given none."""
    mode: ServerMode | None = None
    """What its newest sign of life says it means to do; None once that has expired."""
    sessions: tuple[RoomInUse, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether no session is on it."""
        return self.free + self.spent >= self.rooms


@dataclass(frozen=True, slots=True, kw_only=True)
class LostSession:
    """A session whose server is gone."""

    session: SessionId
    epoch: int
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """What recovery looks at. Sessions come with their epochs."""

    lost: tuple[tuple[SessionId, int], ...]
    leaving: tuple[tuple[SessionId, int, SessionState], ...]
    """On servers that are to go, and not reserved a room elsewhere yet."""
    draining: tuple[ServerName, ...]
    """Say that they take no more sessions, and still stand on the shelf."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShelfState:
    """Everything that the keeper looks at."""

    entries: tuple[ShelfEntry, ...]
    waiters: int
    ended: tuple[SessionId, ...]
    lost: tuple[LostSession, ...]
    target: int | None = None
    """Rooms to keep claimable, set from outside; None: the policy's figure holds."""
    dead: frozenset[ServerName] = frozenset()
    """Servers that were dropped though their backend still had them."""
    jumped_s: float = 0.0
    """By so much the store's clock was not what the one who looks expected; from `JUMP_S` on its times have moved along."""

    @property
    def free(self) -> int:
        """Rooms that can be claimed."""
        return sum(entry.free for entry in self.entries if not entry.draining)


class Shelf:
    """The shelves of all fleets in one Valkey. Every method may raise StoreUnavailable, and may be called again then."""

    def __init__(self, client: StoreClient, *, lease: str = "", replicas: int = 0) -> None:
        """
        Make it.

        Args:
            lease: token that a keeper's writes carry; without one they are an operator's, and unfenced.
            replicas: of Valkey that must have a claim before it counts; with 0 a claim may be lost in a failover (docs/decisions/0034).
        """
        self._replicas = replicas
        self._client = client
        self._lease = lease
        self._functions = FunctionLibrary(client, Path(__file__).with_name("shelf.lua"))

    def under(self, lease: str) -> "Shelf":
        """The same shelves, for the keeper whose lease has this token."""
        return Shelf(self._client, lease=lease, replicas=self._replicas)

    async def hold(self, fleet: FleetName, *, lease_s: float, take: bool = True) -> bool:
        """Hold on to the fleet's lease, or `take` it when it is nobody's; False when it is not ours."""
        return bool(await self._call("hold", fleet, self._lease, round(lease_s * 1000), int(take)))

    async def give_up(self, fleet: FleetName) -> None:
        """Give the lease up, so that the next keeper need not wait for its end."""
        await self._call("yield", fleet, self._lease)

    async def set_target(self, fleet: FleetName, rooms: int | None, *, ttl_s: float = 60.0) -> None:
        """Keep so many rooms claimable from now on, for `ttl_s` unless it is said again; None: the fleet's own figure."""
        await self._call("target", fleet, "" if rooms is None else rooms, round(ttl_s * 1000))

    async def register(self, server: GameServer, *, rooms: int) -> bool:
        """Put an allocated server on the shelf with all its rooms; False when it was there already."""
        ports = json.dumps(dict(server.ports))
        reply = await self._keep("register", server.fleet, server.name, server.host, ports, server.version, rooms)
        return bool(reply)

    async def claim(
        self,
        fleet: FleetName,
        session: SessionId,
        *,
        seats: tuple[Seat, ...],
        options: Mapping[str, str],
        temperature: Temperature,
        waited_s: float | None = None,
        strategy: Strategy = Strategy.PACKED,
        free_seats: int = 0,
    ) -> Allocation | Waiting | NoRoom:
        """
        Take a room for a session; one that exists is returned as it is.

        Args:
            temperature: what the request gets if a server must be brought for it.
            waited_s: for how long it has waited; the request keeps its place in the queue. None: it does not wait.
            free_seats: how many more players may be seated later, with `allocator.seats`.
        """
        p = prefix(fleet)
        reply = await self._functions.call(
            "shelf_claim",
            [p, f"{p}session:{session}"],
            session,
            encode_seats(seats),
            json.dumps(dict(options)) if options else "{}",
            temperature.value,
            "" if waited_s is None else round(waited_s * 1000),
            strategy.value,
            free_seats,
            replicas=self._replicas,
        )
        if reply[0] == b"NEW":  # the rest of the record is what was just sent
            _, server, room, host, ports, warm = reply
            warmth = Temperature(warm.decode())
            made = Session(
                id=session, server=ServerName(server.decode()), room=int(room), epoch=1, state=SessionState.PENDING,
                seats=seats, options=options, free_seats=free_seats,
            )  # fmt: skip
            return Allocation(
                session=made,
                host=host.decode(),
                ports=_ports(ports),
                temperature=warmth,
                waited_s=waited_s or 0.0,
                reason=explain(warmth, waited=bool(waited_s)),
            )
        if reply[0] == b"HAVE":
            return decode_allocation(session, fields(reply[1]))
        return Waiting(ahead=int(reply[1])) if reply[0] == b"WAIT" else NoRoom()

    async def abandon(self, session: SessionId, *, recycle: bool = True) -> bool:
        """Give up a request: it waits no longer, and a session that nobody joined is ended; True when one was."""
        return bool(await self._on_session("abandon", session, int(recycle)))

    async def release(self, session: SessionId, *, recycle: bool) -> bool:
        """Free the room of a session that has ended; False while it has not."""
        return bool(await self._keep_session("release", session, int(recycle)))

    async def end(
        self, session: SessionId, *, reason: str, recycle: bool, only: Literal["", "pending", "lost"] = ""
    ) -> bool:
        """End a session in whatever state, or `only` if it still is so, and free its room; False when it was over."""
        error = json.dumps({"error": reason})
        return bool(await self._keep_session("end", session, error, int(recycle), only))

    async def move(
        self, session: SessionId, *, epoch: int, strategy: Strategy = Strategy.PACKED
    ) -> Allocation | NoRoom | None:
        """Move a session that is at `epoch` to another server; None when it has ended or moved already."""
        reply = await self._keep_session("move", session, epoch, strategy.value)
        if reply[0] == b"HAVE":
            return decode_allocation(session, fields(reply[1]))
        return NoRoom() if reply[0] == b"NONE" else None

    async def reserve(self, session: SessionId, *, epoch: int, strategy: Strategy = Strategy.PACKED) -> bool | None:
        """
        Keep a room elsewhere for a session whose server is to go, and tell that server, which hands it over.

        Returns: False while there is no room; None when it has ended or moved.
        """
        reply = int(await self._keep_session("reserve", session, epoch, strategy.value))
        return None if reply < 0 else bool(reply)

    async def pulse(self, fleet: FleetName, *, migrate: bool) -> Pulse:
        """
        Look at what recovery acts on.

        Args:
            migrate: sessions on draining servers are to be handed over, though their servers do not ask for it.
        """
        lost, leaving, draining = await self._keep("pulse", fleet, int(migrate))
        return Pulse(
            lost=tuple((SessionId(session.decode()), int(epoch)) for session, epoch in lost),
            leaving=tuple((SessionId(i.decode()), int(e), SessionState(s.decode())) for i, e, s in leaving),
            draining=tuple(ServerName(name.decode()) for name in draining),
        )

    async def unshelve(self, fleet: FleetName, server: ServerName) -> bool:
        """Take an empty server off the shelf; False when a session is on it, or it is not there."""
        return bool(await self._keep("unshelve", fleet, server))

    async def drain(self, fleet: FleetName, server: ServerName, *, draining: bool = True) -> bool:
        """Give a server no new sessions (or again); False when it is not there."""
        return bool(await self._keep("drain", fleet, server, int(draining)))

    async def drop(self, fleet: FleetName, server: ServerName, *, dead: bool = False) -> tuple[SessionId, ...]:
        """
        Forget a server that is gone; its sessions are lost, until they are moved or ended.

        Args:
            dead: its backend still has it: remember it for an hour, so that it is removed there and not adopted.
        """
        return tuple(SessionId(raw.decode()) for raw in await self._keep("drop", fleet, server, int(dead)))

    async def free_rooms(self, fleets: Sequence[FleetName]) -> dict[FleetName, int]:
        """Rooms that could be claimed this moment. Raises StoreUnavailable."""
        looks = [("ZRANGE", f"{prefix(fleet)}shelf", 0, -1, "WITHSCORES") for fleet in fleets]
        try:
            rows = await self._client.fetch_all(looks)
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"free rooms: {error}") from error
        return {fleet: sum(int(free) for _, free in row) for fleet, row in zip(fleets, rows, strict=True)}

    async def observe(self, fleet: FleetName, clock: StoreClock | None = None) -> ShelfState:
        """Look at everything. `clock`: a keeper's of this fleet; nothing is older for a jump of the store's since it looked last."""
        clock = clock or StoreClock()
        now_ms, target, waiters, ended, lost, dead, servers = await self._keep("observe", fleet, clock.expected_ms())
        return ShelfState(
            jumped_s=clock.saw(now_ms / 1000),
            target=None if target is None else int(target),
            dead=frozenset(ServerName(raw.decode()) for raw in dead),
            entries=tuple(_entry(raw) for raw in servers),
            waiters=int(waiters),
            ended=tuple(SessionId(raw.decode()) for raw in ended),
            lost=tuple(
                LostSession(session=SessionId(i.decode()), epoch=int(e), age_s=int(age) / 1000) for i, e, age in lost
            ),
        )

    async def standing(self, fleet: FleetName) -> tuple[bool, int]:
        """Whether a keeper looks after the fleet, and how many rooms can be claimed at once."""
        kept, free = await self._call("standing", fleet)
        return bool(kept), int(free)

    async def page(self, fleet: FleetName, *, after: str, limit: int) -> tuple[list[Allocation], str | None]:
        """
        Some of the fleet's sessions, server by server, and what to give as `after` for the next ones; None: there are no more.

        No server is split: a page has `limit` sessions at least, unless it is the last, and at most those of one more server.
        """
        found, last = await self._call("page", fleet, after, limit)
        decoded = [decode_allocation(SessionId(raw.decode()), fields(record)) for raw, record in found]
        return decoded, None if last is None else last.decode()

    async def find(self, session: SessionId) -> Allocation | None:
        """Look a session up, ended or not; None when there is none."""
        try:
            record: Any = await self._client.hgetall(session_key(session))
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"find: {error}") from error
        if not record and self._replicas:
            # A primary that was replaced while it stood still lacks what its successor has, and answers reads for a while.
            keys = [prefix(fleet_of(session)), session_key(session)]
            record = fields(await self._functions.call("shelf_find", keys, replicas=self._replicas))
        return decode_allocation(session, record) if record else None

    async def _call(self, function: str, fleet: FleetName, *args: str | int) -> Any:
        return await self._functions.call(f"shelf_{function}", [prefix(fleet)], *args)

    async def _keep(self, function: str, fleet: FleetName, *args: str | int) -> Any:
        return self._fenced(await self._call(function, fleet, self._lease, *args), fleet)

    async def _keep_session(self, function: str, session: SessionId, *args: str | int) -> Any:
        keys = [prefix(fleet_of(session)), session_key(session)]
        reply = await self._functions.call(f"shelf_{function}", keys, self._lease, session, *args)
        return self._fenced(reply, fleet_of(session))

    @staticmethod
    def _fenced(reply: Any, fleet: FleetName) -> Any:
        if reply == b"FENCED":
            raise LeaseLost(f"the lease on {fleet} is another keeper's")
        return reply

    async def _on_session(self, function: str, session: SessionId, *args: str | int) -> Any:
        keys = [prefix(fleet_of(session)), session_key(session)]
        return await self._functions.call(f"shelf_{function}", keys, session, *args)


def decode_allocation(session: SessionId, record: Mapping[bytes, bytes]) -> Allocation:
    """Read a session's record as what a match gets."""
    temperature, waited_s = Temperature(record[b"temperature"].decode()), int(record.get(b"waited_ms", 0)) / 1000
    return Allocation(
        session=decode_session(session, record),
        host=record[b"host"].decode(),
        ports=_ports(record[b"ports"]),
        temperature=temperature,
        waited_s=waited_s,
        reason=explain(temperature, waited=waited_s > 0),
    )


@lru_cache(maxsize=4096)
def _ports(raw: bytes) -> Mapping[str, int]:
    """Read a server's ports: the same few texts come again and again."""
    return MappingProxyType(json.loads(raw))


def called_channel(fleet: FleetName) -> str:
    """Channel on which waiters for whom there is a room are called: session ids, with a space between two."""
    return f"wf:{{{fleet}}}:called"


def prefix(fleet: FleetName) -> str:
    """What all keys of a fleet begin with."""
    return f"wf:{{{fleet}}}:"


def fields(flat: list[bytes]) -> dict[bytes, bytes]:
    """A hash, as a function returns it."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _entry(raw: list[Any]) -> ShelfEntry:
    name, version, draining, rooms, spent, free, age_ms, silent_ms, mode, sessions = raw
    return ShelfEntry(
        server=ServerName(name.decode()),
        version=version.decode(),
        draining=draining == b"1",
        rooms=int(rooms),
        spent=int(spent),
        free=int(free),
        age_s=int(age_ms) / 1000,
        silent_s=int(silent_ms) / 1000,
        mode=ServerMode(mode.decode()) if mode else None,
        sessions=tuple(
            RoomInUse(
                session=SessionId(session.decode()),
                state=None if state == b"missing" else SessionState(state.decode()),
                age_s=int(session_age_ms) / 1000,
            )
            for _, session, state, session_age_ms in sessions
        ),
    )
