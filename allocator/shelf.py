"""
The shelf in Valkey: rooms of allocated servers, who waits for one, which session is where.

Each method is one Valkey function (`shelf.lua`). All keys of a fleet share its hash tag; `p` below is `wf:{<fleet>}:`.

| key | type | owner, and how it goes |
|---|---|---|
| `p shelf` | sorted set: server, by number of free rooms | servers that can be claimed; follows the rooms |
| `p servers` | set of registered servers | register; unshelve or drop |
| `p server:<name>` | hash: host ports version rooms spent draining registered_ms, `room:<i>` → session id | with its member in `servers` |
| `p rooms:<name>` | list of free room numbers | with its server |
| `p waiters`, `p waiting` | sorted set and hash: session ids that wait, until when each counts as alive | claim; a waiter that stops asking goes after 2 s |
| `p lost` | set of session ids whose server is gone | drop; move or end |
| `p session:<id>`, `p checkpoint:<id>`, `p ended` | see gameserver/sessions/valkey.py | |
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from allocator.model import Allocation, GameServer, Temperature
from gameserver.sessions.library import FunctionLibrary
from gameserver.sessions.model import FleetName, Seat, ServerName, Session, SessionId, SessionState
from gameserver.sessions.port import StoreUnavailable
from gameserver.sessions.valkey import decode_session, encode_seats, session_key


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
class ShelfState:
    """Everything that the keeper looks at."""

    entries: tuple[ShelfEntry, ...]
    waiters: int
    ended: tuple[SessionId, ...]
    lost: tuple[LostSession, ...]

    @property
    def free(self) -> int:
        """Rooms that can be claimed."""
        return sum(entry.free for entry in self.entries if not entry.draining)


class Shelf:
    """The shelves of all fleets in one Valkey. Every method may raise StoreUnavailable, and may be called again then."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._functions = FunctionLibrary(client, Path(__file__).with_name("shelf.lua"))

    async def register(self, server: GameServer, *, rooms: int) -> bool:
        """Put an allocated server on the shelf with all its rooms; False when it was there already."""
        ports = json.dumps(dict(server.ports))
        reply = await self._call("register", server.fleet, server.name, server.host, ports, server.version, rooms)
        return bool(reply)

    async def claim(
        self,
        fleet: FleetName,
        session: SessionId,
        *,
        seats: tuple[Seat, ...],
        options: Mapping[str, str],
        temperature: Temperature,
        wait: bool,
    ) -> Allocation | Waiting | NoRoom:
        """Take a room for a session; one that exists is returned as it is. With `wait` the request keeps its place in the queue."""
        arguments = (session, encode_seats(seats), json.dumps(dict(options)), temperature.value, int(wait))
        reply = await self._functions.call("shelf_claim", [_prefix(fleet), session_key(session)], *arguments)
        if reply[0] == b"NEW":  # the rest of the record is what was just sent
            _, server, room, host, ports = reply
            made = Session(
                id=session, server=ServerName(server.decode()), room=int(room), epoch=1, state=SessionState.PENDING,
                seats=seats, options=options,
            )  # fmt: skip
            return Allocation(
                session=made, host=host.decode(), ports=json.loads(ports), temperature=temperature, waited_s=0.0
            )
        if reply[0] == b"HAVE":
            return decode_allocation(session, _fields(reply[1]))
        return Waiting(ahead=int(reply[1])) if reply[0] == b"WAIT" else NoRoom()

    async def abandon(self, session: SessionId, *, recycle: bool = True) -> bool:
        """Give up a request: it waits no longer, and a session that nobody joined is ended; True when one was."""
        return bool(await self._on_session("abandon", session, int(recycle)))

    async def release(self, session: SessionId, *, recycle: bool) -> bool:
        """Free the room of a session that has ended; False while it has not."""
        return bool(await self._on_session("release", session, int(recycle)))

    async def end(self, session: SessionId, *, reason: str, recycle: bool) -> bool:
        """End a session in whatever state, and free its room; False when it was over."""
        return bool(await self._on_session("end", session, json.dumps({"error": reason}), int(recycle)))

    async def move(self, session: SessionId, *, epoch: int) -> Allocation | NoRoom | None:
        """Move a session that is at `epoch` to another server; None when it has ended or moved already."""
        reply = await self._on_session("move", session, epoch)
        if reply[0] == b"HAVE":
            return decode_allocation(session, _fields(reply[1]))
        return NoRoom() if reply[0] == b"NONE" else None

    async def unshelve(self, fleet: FleetName, server: ServerName) -> bool:
        """Take an empty server off the shelf; False when a session is on it, or it is not there."""
        return bool(await self._call("unshelve", fleet, server))

    async def drain(self, fleet: FleetName, server: ServerName, *, draining: bool = True) -> bool:
        """Give a server no new sessions (or again); False when it is not there."""
        return bool(await self._call("drain", fleet, server, int(draining)))

    async def drop(self, fleet: FleetName, server: ServerName) -> tuple[SessionId, ...]:
        """Forget a server that is gone; its sessions are lost, until they are moved or ended."""
        return tuple(SessionId(raw.decode()) for raw in await self._call("drop", fleet, server))

    async def observe(self, fleet: FleetName) -> ShelfState:
        """Look at everything."""
        _, waiters, ended, lost, servers = await self._call("observe", fleet)
        return ShelfState(
            entries=tuple(_entry(raw) for raw in servers),
            waiters=int(waiters),
            ended=tuple(SessionId(raw.decode()) for raw in ended),
            lost=tuple(
                LostSession(session=SessionId(i.decode()), epoch=int(e), age_s=int(age) / 1000) for i, e, age in lost
            ),
        )

    async def find(self, session: SessionId) -> Allocation | None:
        """Look a session up, ended or not; None when there is none."""
        try:
            record: Any = await self._client.hgetall(session_key(session))
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"find: {error}") from error
        return decode_allocation(session, record) if record else None

    async def _call(self, function: str, fleet: FleetName, *args: str | int) -> Any:
        return await self._functions.call(f"shelf_{function}", [_prefix(fleet)], *args)

    async def _on_session(self, function: str, session: SessionId, *args: str | int) -> Any:
        fleet = FleetName(session.partition(".")[0])
        return await self._functions.call(f"shelf_{function}", [_prefix(fleet), session_key(session)], session, *args)


def decode_allocation(session: SessionId, record: Mapping[bytes, bytes]) -> Allocation:
    """Read a session's record as what a match gets."""
    return Allocation(
        session=decode_session(session, record),
        host=record[b"host"].decode(),
        ports=json.loads(record[b"ports"]),
        temperature=Temperature(record[b"temperature"].decode()),
        waited_s=0.0,
    )


def _prefix(fleet: FleetName) -> str:
    return f"wf:{{{fleet}}}:"


def _fields(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _entry(raw: list[Any]) -> ShelfEntry:
    name, version, draining, rooms, spent, free, age_ms, sessions = raw
    return ShelfEntry(
        server=ServerName(name.decode()),
        version=version.decode(),
        draining=draining == b"1",
        rooms=int(rooms),
        spent=int(spent),
        free=int(free),
        age_s=int(age_ms) / 1000,
        sessions=tuple(
            RoomInUse(
                session=SessionId(session.decode()),
                state=None if state == b"missing" else SessionState(state.decode()),
                age_s=int(session_age_ms) / 1000,
            )
            for _, session, state, session_age_ms in sessions
        ),
    )
