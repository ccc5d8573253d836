"""
The way in: from a new connection to a seat in a room, and every limit on the way.

Owns what one connection may do: Hello within a time limit, with a valid seat token, then messages at a bounded rate. Says Bye with the code of
docs/protocol.md to whoever breaks a rule; nobody else notices.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import structlog

from gameserver import tracing
from gameserver.member import Member
from gameserver.protocol.messages import (
    SPECTATOR_SEAT,
    VERSION,
    Bye,
    CloseCode,
    Hello,
    MalformedMessage,
    Ping,
    decode_client,
)
from gameserver.room import MAX_SPECTATORS, Room
from gameserver.seats import SeatGrant, SeatRefused, SeatVerifier
from gameserver.transports.port import Connection

log = structlog.get_logger(__name__)

HELLO_TIMEOUT_S = 5.0
SILENCE_TIMEOUT_S = 15.0
"""A client sends at least a Ping every 5 s."""
MESSAGES_PER_S = 120.0
"""Four times what a client at 30 Hz sends."""
_BURST = 240.0
"""At once; twice as much from a client that has been quiet since its last refill."""


class NoRoom(Exception):
    """There is no place for the session here; the code says why."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


FindRoom = Callable[[SeatGrant], Awaitable[Room]]
"""Find or open the room of a session; raises NoRoom."""


class Gate:
    """Lets connections in; `accept` is a transport's `Accept`."""

    def __init__(
        self,
        verifier: SeatVerifier,
        find_room: FindRoom,
        *,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._verifier = verifier
        self._find_room = find_room
        self.now = now
        self._wall = wall
        self._visitors: set[_Visitor] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, connection: Connection) -> "_Visitor":
        """Begin with a new connection."""
        visitor = _Visitor(self, connection, self.now())
        self._visitors.add(visitor)
        return visitor

    async def watch(self) -> None:
        """Close connections that say nothing, until cancelled."""
        while True:
            await asyncio.sleep(1.0)
            now = self.now()
            for visitor in tuple(self._visitors):
                visitor.check_silence(now)

    def admit(self, visitor: "_Visitor", hello: Hello) -> None:
        """Check a Hello, and seat its player once the room is there."""
        if hello.version != VERSION:
            visitor.connection.close(CloseCode.VERSION, f"protocol version {VERSION} is spoken here")
            return
        try:
            grant = self._verifier.verify(hello.token, self._wall())
        except SeatRefused as error:
            log.info("seat_refused", peer=visitor.connection.peer, reason=str(error))
            visitor.connection.close(CloseCode.UNAUTHORIZED, str(error))
            return
        visitor.admitted = True
        task = asyncio.create_task(self._seat(visitor, grant, hello), name=f"seat-{grant.player}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _seat(self, visitor: "_Visitor", grant: SeatGrant, hello: Hello) -> None:
        said_s = self._wall()
        try:
            room = await self._find_room(grant)
        except NoRoom as error:
            visitor.connection.close(error.code, error.reason)
            return
        spectator = hello.spectator or grant.seat == SPECTATOR_SEAT
        if grant.player in room.roster.kicked:
            visitor.connection.close(CloseCode.KICKED, "kicked before")
        elif not spectator and not room.roster.gives(grant):
            visitor.connection.close(CloseCode.FULL, "the seat is another's")
        elif spectator and len(room.roster.spectators) >= MAX_SPECTATORS:
            visitor.connection.close(CloseCode.FULL, f"{MAX_SPECTATORS} spectators are here already")
        elif not visitor.gone:
            with tracing.span("player.seat", parent=_trace_of(grant, room), session=grant.session, seat=grant.seat):
                tracing.record("player.wait_for_room", parent=tracing.current(), start_s=said_s, end_s=self._wall())
                visitor.take_seat(room, room.seat(grant, visitor.connection, spectator=spectator))

    def forget(self, visitor: "_Visitor") -> None:
        """Its connection is gone."""
        self._visitors.discard(visitor)


def _trace_of(grant: SeatGrant, room: Room) -> str:
    """The trace of this player's ticket, else that of the match; '' where nobody traces."""
    options = room.record.options
    if not tracing.enabled() or tracing.OPTION not in options:
        return ""
    try:
        own = json.loads(options.get(tracing.PLAYERS_OPTION, "{}")).get(grant.player)
    except (ValueError, AttributeError):
        own = None
    return own if isinstance(own, str) else options[tracing.OPTION]


class _Visitor:
    """One connection on its way through (a transport's `Handler`)."""

    __slots__ = (
        "_credit", "_credit_then", "_gate", "_heard_at_s", "_member", "_refilled_at_s", "_room", "_take_input", "admitted",
        "connection", "gone",
    )  # fmt: skip

    def __init__(self, gate: Gate, connection: Connection, now_s: float) -> None:
        self._gate = gate
        self.connection = connection
        self.admitted = False
        self.gone = False
        self._room: Room | None = None
        self._take_input: Callable[[Member, bytes], None]
        """The room's, from `take_seat` on."""
        self._member: Member | None = None
        self._credit = self._credit_then = _BURST
        """Messages that may come, now and when silence was last looked for."""
        self._refilled_at_s = self._heard_at_s = now_s

    def received(self, message: bytes) -> None:
        """Handle one message, any bytes."""
        # With hundreds of players this runs thousands of times a second: neither the clock nor any sum but this one.
        self._credit -= 1.0
        if self._credit < 0.0 and not self._refill():
            self.connection.close(CloseCode.FLOOD, f"more than {MESSAGES_PER_S:g} messages a second")
            return
        try:
            member = self._member
            if member is not None and message[:1] == b"\x02" and member.connection is self.connection:
                self._take_input(member, message)
            else:
                self._handle(message)
        except MalformedMessage as error:
            self.connection.close(CloseCode.MALFORMED, str(error))

    def _refill(self) -> bool:
        """Give credit for the time since the last one was used up, for this message too; returns whether that is enough."""
        now_s = self._gate.now()
        self._credit = min((now_s - self._refilled_at_s) * MESSAGES_PER_S, _BURST) - 1.0
        self._refilled_at_s = now_s
        return self._credit >= 0.0

    def _handle(self, message: bytes) -> None:
        decoded = decode_client(message)
        if isinstance(decoded, Hello):
            if not self.admitted:  # a repeated one is a client that has not seen Welcome yet
                self._gate.admit(self, decoded)
        elif isinstance(decoded, Bye):
            if self._room is not None and self._seated is not None:
                self._room.leave(self._seated)
            self.gone = True  # whose seat is still being looked for takes none
            self.connection.close(CloseCode.NORMAL, "bye")
        elif self._room is not None and self._member is not None:
            if isinstance(decoded, Ping) and self._seated is not None:
                self._room.answer(self._seated, decoded)
        elif not self.admitted:
            self.connection.close(CloseCode.UNAUTHORIZED, "Hello comes first")

    @property
    def _seated(self) -> Member | None:
        """Its member while it is this one's connection: what a superseded one still sends is nobody's."""
        mine = self._member is not None and self._member.connection is self.connection
        return self._member if mine else None

    def lost(self) -> None:
        """The connection is gone."""
        self.gone = True
        self._gate.forget(self)
        if self._room is not None and self._member is not None:
            self._room.lose(self._member, self.connection)

    def take_seat(self, room: Room, member: Member) -> None:
        """From here on its messages are the room's."""
        self._room, self._member, self._take_input = room, member, room.take_input

    def check_silence(self, now_s: float) -> None:
        """Close it when it has said nothing for too long."""
        if self._credit != self._credit_then:
            self._credit_then, self._heard_at_s = self._credit, now_s
        limit_s = SILENCE_TIMEOUT_S if self.admitted else HELLO_TIMEOUT_S
        if now_s - self._heard_at_s > limit_s:
            self.connection.close(CloseCode.TIMEOUT, f"nothing heard for {limit_s:g} s")
