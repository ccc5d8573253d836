"""
A player's way to its match, across connections: reconnects, follows the session to other servers, and says when the match is over.

When the session moves, the new connection is made while the old one goes on, and takes over with its first snapshot: what is shown has no gap. When a
connection is lost, or has been silent for longer than any network is, the matchmaker is asked where the session is now, until it answers that it
has ended, or patience is at its end; a connection that is being made meanwhile does not hold the asking up. `js/link.js` does the same.

Owns which connection counts and when to ask; refuses to own the connections themselves, and how the matchmaker is asked (`Ask`).
"""

import asyncio
import base64
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from gameserver.client.matchmaking import MatchmakingFailed
from gameserver.client.session import ClientEvent, ClientSession, Ended, Happened, Moving, Seated, WorldSeen
from gameserver.client.udp import UdpGameClient
from gameserver.client.websocket import ConnectFailed, GameClient
from gameserver.protocol.messages import CloseCode, MalformedMessage

PATIENCE_S = 30.0
"""How long a lost match is looked for: a server keeps a lost player's seat for so long."""
SUSPECT_S = 0.5
"""Silence after which the matchmaker is asked, though the connection may only be slow."""
REDIAL_S = 2.0
"""Silence after which a new connection is made, though the session has not moved: this one's path is broken."""
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.4
"""Between questions in the first seconds, when most lost matches are found again; then up to five times that."""
_HURRY_S = 8.0
_FIRST_ASK_S = 1.0
"""A first connection is given so long before anybody is asked anything."""
_MAX_WAITING = 1024
"""Events that may wait for a caller who does not iterate; the oldest are lost."""
_FINAL = frozenset({
    CloseCode.NORMAL, CloseCode.MALFORMED, CloseCode.VERSION, CloseCode.KICKED, CloseCode.GAME_ERROR, CloseCode.SUPERSEDED,
})  # fmt: skip
"""After these there is nothing to come back to."""

Assignment = Mapping[str, Any]
"""What the matchmaker says of a session: `{session, epoch, server, host, ports, secure?, seat, token, connectToken?}`."""
Ask = Callable[[str], Awaitable[Assignment]]
"""Where is this session now? Raises MatchmakingFailed; 410: it has ended, 404 and 403: it is none of ours."""


class GameConnection(Protocol):
    """One connection: `GameClient`, `UdpGameClient`."""

    session: ClientSession

    def events(self) -> AsyncIterator[ClientEvent]:
        """Yield what happens until the connection ends."""

    async def send_input(self, **values: Any) -> None:
        """Send one input."""

    async def leave(self) -> None:
        """Give the seat up."""


Dial = Callable[[Assignment], AbstractAsyncContextManager[GameConnection]]
"""Make the connection to an assignment's server, not yet entered. Raises KeyError for a transport that is not served there."""


def dialer(transport: str = "websocket", *, spectator: bool = False, tls: ssl.SSLContext | None = None) -> Dial:
    """Make the `Dial` of a transport: `websocket` or `udp`; `tls` for servers whose authority is not one of the system's."""

    def udp(assignment: Assignment) -> UdpGameClient:
        return UdpGameClient(base64.b64decode(assignment["connectToken"]), assignment["token"], spectator=spectator)

    def websocket(assignment: Assignment) -> GameClient:
        host = f"[{assignment['host']}]" if ":" in assignment["host"] else assignment["host"]
        secure = bool(assignment.get("secure"))
        url = f"{'wss' if secure else 'ws'}://{host}:{assignment['ports']['websocket']}"
        return GameClient(url, assignment["token"], spectator=spectator, tls=tls if secure else None)

    return udp if transport == "udp" else websocket


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenOver:
    """A connection counts from now on; its Seated and first WorldSeen follow."""

    assignment: Assignment
    again: bool
    """Whether there was another before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The connection is gone; another is being looked for. Told once, however many attempts it takes."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Over:
    """The match is over for this player; the last event."""

    code: CloseCode | int
    reason: str
    results: dict[str, Any] | None


LinkEvent = TakenOver | Seated | WorldSeen | Happened | Moving | Lost | Over


@dataclass(slots=True, eq=False)
class _Line:
    """One connection, from dialling to its end."""

    assignment: Assignment
    client: GameConnection | None = None
    task: asyncio.Task[None] | None = None
    alive: bool = True
    hung_up: bool = False
    heard_at_s: float = 0.0
    """Of the newest world."""
    early: list[Seated | Happened] = field(default_factory=list)
    """Of a line that is to take over: told once it has."""


class Link:
    """A seat in a match for as long as the match lasts, as an async context manager; iterate `events()` to follow it."""

    def __init__(
        self,
        assignment: Assignment,
        ask: Ask,
        dial: Dial,
        *,
        rng: random.Random | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`rng` spreads the questions of many players who lost one server."""
        self._ask_where = ask
        self._dial_to = dial
        self._rng = rng or random.Random()  # noqa: S311 (spreads retries)
        self._patience_s = patience_s
        self._session: str = assignment["session"]
        self._current: _Line | None = None
        self._next: _Line | None = None
        self._inbox: asyncio.Queue[tuple[_Line, ClientEvent | None]] = asyncio.Queue()
        self._told: asyncio.Queue[LinkEvent] = asyncio.Queue(_MAX_WAITING)
        self._lines: set[asyncio.Task[None]] = set()
        self._asking: asyncio.Task[Assignment] | None = None
        self._runner: asyncio.Task[None]
        self._moving = False
        self._lost = False
        """Whether Lost has been told, and no connection has taken over since."""
        self._trouble_since_s: float | None = time.monotonic()
        self._ask_at_s = time.monotonic() + _FIRST_ASK_S
        self._pause_s = _FIRST_PAUSE_S
        self._last_end = Ended(code=CloseCode.TIMEOUT, reason="the match was not found again")
        self._results: dict[str, Any] | None = None
        self.assignment = assignment
        """Of the connection that counts, or of the first one that is to."""
        self.over: Over | None = None
        self.reconnects = 0

    async def __aenter__(self) -> Self:
        """Begin to connect; `events` says how it goes."""
        self._dial(self.assignment)
        self._runner = asyncio.create_task(self._run(), name=f"link-{self._session}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.cancel()
        await asyncio.wait([self._runner])
        self._drop_all()
        if self._lines:
            await asyncio.wait(self._lines)
        if not self._runner.cancelled() and (failed := self._runner.exception()) is not None:
            raise failed

    @property
    def connection(self) -> GameConnection | None:
        """The connection that counts; None before the first world."""
        return self._current.client if self._current is not None else None

    async def events(self) -> AsyncIterator[LinkEvent]:
        """Yield what happens; the last one is Over."""
        while self.over is None or not self._told.empty():
            event = await self._told.get()
            yield event
            if isinstance(event, Over):
                return

    async def send_input(self, **values: Any) -> None:
        """Send one input; nothing is sent while no connection counts."""
        if self._current is not None and self._current.alive and self._current.client is not None:
            await self._current.client.send_input(**values)

    async def leave(self) -> None:
        """Give the seat up: the match goes on without this player."""
        if self._current is not None and self._current.alive and self._current.client is not None:
            await self._current.client.leave()
        self._finish(Ended(code=CloseCode.NORMAL, reason="left"))

    # The connections.

    def _dial(self, assignment: Assignment) -> None:
        self._hang_up(self._next)
        line = self._next = _Line(assignment)
        line.task = asyncio.create_task(self._follow(line), name=f"line-{assignment.get('server')}")
        self._lines.add(line.task)
        line.task.add_done_callback(self._lines.discard)

    async def _follow(self, line: _Line) -> None:
        end: ClientEvent | None = None
        try:
            async with self._dial_to(line.assignment) as line.client:
                async for event in line.client.events():
                    self._inbox.put_nowait((line, event))
        except ConnectFailed as error:
            end = Ended(code=CloseCode.TIMEOUT, reason=str(error))
        except MalformedMessage as error:
            end = Ended(code=CloseCode.MALFORMED, reason=f"the server broke the protocol: {error}")
        except (KeyError, TypeError, ValueError) as error:
            end = Ended(code=CloseCode.VERSION, reason=f"the server is not reached like this: {error!r}")
        self._inbox.put_nowait((line, end or Ended(code=CloseCode.TIMEOUT, reason="the connection was lost")))

    def _hang_up(self, line: _Line | None) -> None:
        if line is not None:
            line.alive = False
            if line.task is not None and not line.hung_up:
                line.hung_up = True  # once: a second time would interrupt the closing
                line.task.cancel()

    def _drop_all(self) -> None:
        self._hang_up(self._next)
        self._hang_up(self._current)
        if self._asking is not None:
            self._asking.cancel()

    # What goes on.

    async def _run(self) -> None:
        try:
            await self._follow_lines()
        except Exception as error:
            self._finish(Ended(code=CloseCode.MALFORMED, reason=f"{type(error).__name__}: {error}"))
            raise

    async def _follow_lines(self) -> None:
        while self.over is None:
            try:
                async with asyncio.timeout(self._tend(time.monotonic())):
                    line, event = await self._inbox.get()
            except TimeoutError:
                continue
            if event is not None and self.over is None and line in (self._current, self._next):
                self._happened(line, event, time.monotonic())

    def _happened(self, line: _Line, event: ClientEvent, now_s: float) -> None:
        match event:
            case Ended():
                self._ended(line, event, now_s)
            case WorldSeen():
                line.heard_at_s = now_s
                if line is self._next:
                    self._take_over(line)
                self._tell(event)
            case Seated() | Happened():
                if line is self._next:
                    line.early.append(event)
                else:
                    self._tell_of(line, event)
            case Moving() if line is self._current:
                self._move(event, now_s)

    def _take_over(self, line: _Line) -> None:
        old, self._current, self._next = self._current, line, None
        self._hang_up(old)
        self._moving = self._lost = False
        self.reconnects += old is not None
        self.assignment = line.assignment
        self._tell(TakenOver(assignment=line.assignment, again=old is not None))
        for event in line.early:
            self._tell_of(line, event)

    def _tell_of(self, line: _Line, event: Seated | Happened) -> None:
        if line.client is not None:
            self._results = line.client.session.results or self._results
        self._tell(event)

    def _move(self, event: Moving, now_s: float) -> None:
        """The session moves, or is about to: this connection goes on until another has taken over."""
        self._tell(event)
        self._moving = True
        self._trouble(now_s)
        there = event.data.get("assignment")
        if isinstance(there, dict):
            self._dial({**self.assignment, **there})
        else:
            self._ask_at_s = now_s

    def _ended(self, line: _Line, end: Ended, now_s: float) -> None:
        if not line.alive:
            return
        line.alive = False
        if line is self._next:
            self._next = None
        elif (self._moving or self._next is not None) and end.code not in (CloseCode.KICKED, CloseCode.GAME_ERROR):
            return  # the old one may go: another is on its way
        self._last_end = end
        if end.code in _FINAL:
            self._finish(end)
            return
        self._trouble(now_s)
        self._ask_at_s = min(self._ask_at_s, now_s + self._pause())
        if not self._lost and (self._current is None or not self._current.alive):
            self._lost = True
            self._tell(Lost(reason=end.reason))

    # Where is it now?

    def _tend(self, now_s: float) -> float:
        """Ask when it is time to; returns how long nothing need be done."""
        if self._asking is not None and self._asking.done():
            asked, self._asking = self._asking, None
            self._answered(asked, now_s)
        silent_s = self._silent_s(now_s)
        if self._results is not None:
            if silent_s > REDIAL_S:  # it ended, and its last word was lost
                self._finish(Ended(code=CloseCode.NORMAL, reason="the match is over"))
            return SUSPECT_S
        if not self._moving and silent_s < SUSPECT_S:
            self._trouble_since_s = None
            self._pause_s = _FIRST_PAUSE_S
            return SUSPECT_S - silent_s
        self._trouble(now_s)
        assert self._trouble_since_s is not None
        if now_s - self._trouble_since_s > self._patience_s:
            if silent_s >= SUSPECT_S:
                self._finish(self._last_end)
            self._moving = False  # nobody knows of a new place: stay at the old one
            return 0.0
        if self._asking is None and now_s >= self._ask_at_s:
            self._asking = asyncio.create_task(self._where(), name=f"where-{self._session}")
            self._asking.add_done_callback(lambda _: self._inbox.put_nowait((_NOBODY, None)))
        return max(0.005, self._ask_at_s - now_s) if self._asking is None else SUSPECT_S

    async def _where(self) -> Assignment:
        return await self._ask_where(self._session)

    def _answered(self, asked: asyncio.Task[Assignment], now_s: float) -> None:
        if asked.cancelled():
            return
        error = asked.exception()
        if isinstance(error, MatchmakingFailed):
            self._ask_at_s = now_s + max(self._pause(), error.retry_after_s)
            if error.status == 410:
                self._finish(Ended(code=CloseCode.NORMAL, reason="the match is over"))
            elif error.status in (403, 404):
                self._finish(Ended(code=CloseCode.UNAUTHORIZED, reason=str(error)))
            return
        if error is not None:
            raise error
        self._ask_at_s = now_s + self._pause()
        there = asked.result()
        heading = self._next if self._next is not None else self._current
        newer = heading is None or int(there["epoch"]) > int(heading.assignment["epoch"])
        broken = self._next is None and not self._moving and self._silent_s(now_s) > REDIAL_S
        gone = self._next is None and (self._current is None or not self._current.alive)
        if newer or broken or gone:
            self._dial(there)

    def _silent_s(self, now_s: float) -> float:
        """How long the connection that counts has said nothing; for ever when there is none."""
        if self._current is None or not self._current.alive:
            return float("inf")
        return now_s - self._current.heard_at_s

    def _trouble(self, now_s: float) -> None:
        if self._trouble_since_s is None:
            self._trouble_since_s = self._ask_at_s = now_s

    def _pause(self) -> float:
        """The time until the next question; they are spread, so that those who lost one server do not ask as one."""
        hurry = self._trouble_since_s is None or time.monotonic() - self._trouble_since_s < _HURRY_S
        pause_s = self._pause_s * self._rng.uniform(0.5, 1.5)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S if hurry else 5 * _LONGEST_PAUSE_S)
        return pause_s

    def _finish(self, end: Ended) -> None:
        if self.over is None:
            self.over = Over(code=end.code, reason=end.reason, results=self._results)
            self._tell(self.over)
            self._drop_all()

    def _tell(self, event: LinkEvent) -> None:
        if self._told.full():
            self._told.get_nowait()
        self._told.put_nowait(event)


_NOBODY = _Line({})
"""Whose messages only wake the loop."""
