"""
Sessions in Valkey, as a game server sees them.

| key | type | written by | expires |
|---|---|---|---|
| `wf:{<fleet>}:session:<id>` | hash (fields below) | allocator: claim, move, reserve; here: the rest | 24 h after the last write; 1 h after the end |
| `wf:{<fleet>}:checkpoint:<id>` | string: `checkpoints.pack` | checkpoint, hand_over | with its session |
| `wf:{<fleet>}:ended` | set of session ids whose rooms are to be freed | end; removed by the allocator's release | never: reaped by the keeper |
| `wf:{<fleet>}:beat:<server>` | string: its mode | beat; removed by goodbye, and with its server | after its time to live |
| `wf:{<fleet>}:open:<queue>`, `reserved` | the allocator's (allocator/shelf.py); seats that are left or not taken | seats, expire_seats | |
| `wf:{<fleet>}:leavers:<queue>` | list: `session player`, who left a match of the queue, the last 1000 | seats; `Notices.forget` | after a day |
| `wf:{<fleet>}:wants:<queue>` | set: `session change`, whose want or seats have changed | seats, expire_seats, the director; `Notices.settled` | after a day |
| `wf:{<fleet>}:wake` | channel | end, hand_over, goodbye, a beat with a new mode | |
| `wf:{<fleet>}:inbox:<server>` | channel | move, reserve, hand_over: a beat of that server will bring something new | |
| `wf:{<fleet>}:server:<server>`, `rooms:<server>` | the allocator's (allocator/shelf.py); a hand-over gives the room that it leaves back | | |

A session's fields: server room epoch state seats free_seats options checkpoint_tick host ports temperature waited_ms losses lost_tick
changed_ms results left (JSON: of who left before the end, player → team)
want (JSON: team → how many players its game wants in it) and want_change (how often that, or the seats of a game that wants some, have changed)
came_from (the server that handed it over), and next_server next_room next_host next_ports while a room is
reserved for it elsewhere. `seats` is a JSON list of [index, player, team]; `options` and `ports` are JSON objects; times are the store's clock.
"""

import json
from collections.abc import Callable, Collection, Mapping
from json.encoder import encode_basestring_ascii as _quoted
from pathlib import Path
from typing import NoReturn

from gameserver.sessions.client import StoreClient, listen
from gameserver.sessions.library import FunctionLibrary
from gameserver.sessions.model import (
    FleetName,
    Orders,
    Placement,
    PlayerId,
    Seat,
    ServerMode,
    ServerName,
    Session,
    SessionId,
    SessionState,
    fleet_of,
)
from gameserver.sessions.port import SessionGone

SESSION_TTL_S = 24 * 3600
ENDED_TTL_S = 3600
"""How long results can still be asked for."""


def session_key(session: SessionId) -> str:
    """Key of a session's record."""
    return f"wf:{{{fleet_of(session)}}}:session:{session}"


def checkpoint_key(session: SessionId) -> str:
    """Key of a session's newest checkpoint."""
    return f"wf:{{{fleet_of(session)}}}:checkpoint:{session}"


def ended_key(fleet: FleetName) -> str:
    """Key of the set of ended sessions whose rooms are not freed yet."""
    return f"wf:{{{fleet}}}:ended"


def beat_key(fleet: FleetName, server: ServerName) -> str:
    """Key of a server's heartbeat."""
    return f"wf:{{{fleet}}}:beat:{server}"


def inbox_channel(fleet: FleetName, server: ServerName) -> str:
    """Channel that tells a server to look at its sessions."""
    return f"wf:{{{fleet}}}:inbox:{server}"


def wake_channel(fleet: FleetName) -> str:
    """Channel that wakes the fleet's keeper and its waiting claims."""
    return f"wf:{{{fleet}}}:wake"


def encode_seats(seats: tuple[Seat, ...]) -> str:
    """Seats as the record holds them."""
    rows = [f"[{seat.index},{_quoted(seat.player)},{_quoted(seat.team)}]" for seat in seats]
    return f"[{','.join(rows)}]"  # json.dumps makes a new encoder for each call: 10 µs more


def decode_session(session: SessionId, record: Mapping[bytes, bytes]) -> Session:
    """Read a record; raises KeyError or ValueError when it is damaged."""
    return Session(
        id=session,
        server=ServerName(record[b"server"].decode()),
        room=int(record[b"room"]),
        epoch=int(record[b"epoch"]),
        state=SessionState(record[b"state"].decode()),
        seats=tuple(Seat(index=i, player=PlayerId(p), team=t) for i, p, t in json.loads(record[b"seats"])),
        checkpoint_tick=int(record.get(b"checkpoint_tick", 0)),
        options=json.loads(record.get(b"options", b"{}")),
        free_seats=int(record.get(b"free_seats", 0)),
        kicked=json.loads(record.get(b"kicked", b"{}")),
        left=json.loads(record.get(b"left", b"{}")),
        want=json.loads(record[b"want"]) if b"want" in record else None,
        results=record.get(b"results", b"").decode(),
    )


class ValkeySessions:
    """SessionStore on Valkey, for the servers of one fleet."""

    def __init__(self, client: StoreClient, fleet: FleetName, *, replicas: int = 0) -> None:
        """`replicas`: of Valkey that must have a session's move before it is opened where it went (docs/decisions/0151)."""
        self._client = client
        self._replicas = replicas
        self._fleet = fleet
        self._functions = FunctionLibrary(client, Path(__file__).with_name("sessions.lua"))

    async def prepare(self) -> None:
        """Load the functions and open a connection, so that the first player does not wait for them."""
        await self._functions.prepare()

    async def open(self, session: SessionId, *, server: ServerName, epoch: int) -> tuple[Session, bytes | None]:
        """Take a session into its room; see `SessionStore.open`."""
        keys = [session_key(session), checkpoint_key(session)]
        replicas = self._replicas if epoch > 1 else 0  # the claim was confirmed before anybody heard of it
        reply = await self._functions.call("session_open", keys, server, epoch, SESSION_TTL_S, replicas=replicas)
        if reply == b"GONE":
            raise SessionGone(f"session {session} is not at epoch {epoch} on {server}")
        flat, state = reply
        return decode_session(session, dict(zip(flat[::2], flat[1::2], strict=True))), state

    async def checkpoint(self, session: SessionId, *, epoch: int, tick: int, state: bytes | None) -> None:
        """Keep a checkpoint; see `SessionStore.checkpoint`."""
        keys = [session_key(session), checkpoint_key(session)]
        arguments = (epoch, tick, SESSION_TTL_S) if state is None else (epoch, tick, SESSION_TTL_S, state)
        reply = await self._functions.call("session_checkpoint", keys, *arguments)
        self._refuse_gone(reply, session, epoch)

    async def hand_over(self, session: Session, *, tick: int, state: bytes) -> Session | None:
        """Give a session to the room that is reserved for it; see `SessionStore.hand_over`."""
        prefix = f"wf:{{{self._fleet}}}:"
        keys = [session_key(session.id), checkpoint_key(session.id), prefix]
        arguments = (session.id, session.server, session.epoch, tick, state, SESSION_TTL_S)
        reply = await self._functions.call("session_hand_over", keys, *arguments)
        if reply == b"NONE":
            return None
        self._refuse_gone(reply, session.id, session.epoch)
        return decode_session(session.id, dict(zip(reply[::2], reply[1::2], strict=True)))

    async def end(self, session: SessionId, *, epoch: int, results: bytes) -> None:
        """End a session; see `SessionStore.end`."""
        keys = [session_key(session), checkpoint_key(session), ended_key(self._fleet)]
        channel = wake_channel(self._fleet)
        reply = await self._functions.call("session_end", keys, epoch, session, results, ENDED_TTL_S, channel)
        self._refuse_gone(reply, session, epoch)

    async def seats(
        self,
        session: SessionId,
        *,
        epoch: int,
        came: Collection[PlayerId],
        left: Collection[PlayerId],
        excused: Collection[PlayerId] = (),
        want: Mapping[str, int] | None = None,
    ) -> None:
        """Say who has come and who has left, and what the game wants; see `SessionStore.seats`."""
        wanted = "" if want is None else json.dumps(want, sort_keys=True, separators=(",", ":"))
        await self._seats(session, epoch, came, left, "open", excused, wanted)

    async def vacate(self, session: SessionId, players: Collection[PlayerId], *, epoch: int) -> int:
        """Free players' seats from outside, whether or not others may come; how many had one. Raises as `SessionStore.open`."""
        return await self._seats(session, epoch, (), players, "")

    async def expire_seats(self) -> list[tuple[SessionId, PlayerId]]:
        """Free the seats of players of this fleet who were given one in a running session and did not come in time. Raises StoreUnavailable."""
        found = await self._functions.call("session_expire_seats", [f"wf:{{{self._fleet}}}:"])
        words = [word.decode() for word in found]
        return [(SessionId(i), PlayerId(p)) for i, p in zip(words[::2], words[1::2], strict=True)]

    async def _seats(
        self,
        session: SessionId,
        epoch: int,
        came: Collection[PlayerId],
        left: Collection[PlayerId],
        which: str,
        excused: Collection[PlayerId] = (),
        want: str = "",
    ) -> int:
        keys = [session_key(session), f"wf:{{{self._fleet}}}:"]
        leavers = [player for player in left if player not in excused]
        gone = (json.dumps(list(left)), which, json.dumps(leavers))
        arguments = (session, epoch, json.dumps(list(came)), *gone, want)
        reply = await self._functions.call("session_seats", keys, *arguments)
        self._refuse_gone(reply, session, epoch)
        return int(reply)

    async def beat(
        self, server: ServerName, *, ttl_s: float, mode: ServerMode, rooms: Mapping[SessionId, int]
    ) -> Orders:
        """Say that the server is alive; see `SessionStore.beat`."""
        prefix = f"wf:{{{self._fleet}}}:"
        keys = [beat_key(self._fleet, server), f"{prefix}server:{server}", *map(session_key, rooms)]
        arguments = (server, mode.value, round(ttl_s * 1000), prefix, *rooms.values())
        fenced, placed = await self._functions.call("session_beat", keys, *arguments)
        open_ = list(rooms)
        return Orders(
            fenced=frozenset(open_[index] for index in fenced),
            placed=tuple(
                Placement(
                    session=SessionId(i.decode()),
                    epoch=int(e),
                    reserved=bool(next_),
                    kicked=json.loads(kicked or b"{}"),
                )
                for i, e, next_, kicked in placed
            ),
        )

    async def goodbye(self, server: ServerName) -> None:
        """Say that the server goes; see `SessionStore.goodbye`."""
        await self._functions.call("session_goodbye", [beat_key(self._fleet, server)], wake_channel(self._fleet))

    async def listen(self, server: ServerName, heard: Callable[[], None]) -> NoReturn:
        """Hear what is new for a server; see `SessionStore.listen`."""
        await listen(self._client, [inbox_channel(self._fleet, server)], lambda _: heard(), subscribed=heard)

    @staticmethod
    def _refuse_gone(reply: bytes, session: SessionId, epoch: int) -> None:
        if reply == b"GONE":
            raise SessionGone(f"session {session} is no longer at epoch {epoch}")
