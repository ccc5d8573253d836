"""
A transport without sockets, over a network as bad as wanted: seeded loss, delay, jitter, duplication and reordering; for tests and experiments.

`Path` is the network: when does a message arrive, if at all, and how often. `LoopbackTransport` is a server's side of it (a `transports.port`), and
`client()` makes the clients, used as those of `gameserver/client` are. As a reliable transport it behaves like TCP: nothing is lost or overtaken, a lost
segment is sent again after a timeout and everything behind it waits. As an unreliable one it behaves like UDP.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from gameserver.client.session import ClientEvent, ClientSession, Ended
from gameserver.client.websocket import ConnectFailed
from gameserver.protocol import messages as m
from gameserver.transports.port import Accept, Handler

RETRANSMIT_S = 0.2
"""The least time until TCP sends a lost segment again (RFC 6298 with the 200 ms floor of common systems)."""
_TRIES = 4
_HELD_BACK_S = 0.02
_HELLO_INTERVAL_S = 0.1
_HELLO, _WELCOME, _SNAPSHOT, _MIGRATE = b"\x01", 0x81, 0x82, 0x85


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """A network, one way. Chances are from 0 to 1."""

    loss: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    """Added to the delay of each message, evenly from 0 to this."""
    duplicates: float = 0.0
    """Chance of a second copy, with a delay of its own."""
    reorder: float = 0.0
    """Chance that a message is held back long enough to be overtaken: `jitter_s` and 20 ms more."""


class Path:
    """One direction of one connection."""

    def __init__(self, conditions: Conditions, rng: random.Random, *, reliable: bool) -> None:
        self._conditions = conditions
        self._rng = rng
        self._reliable = reliable
        self._free_s = 0.0
        self._under_way: deque[Callable[[], None]] = deque()

    @property
    def longest_s(self) -> float:
        """How long a message travels that nothing holds up but chance."""
        return self._conditions.delay_s + 2 * self._conditions.jitter_s + _HELD_BACK_S

    def arrivals(self, now_s: float) -> list[float]:
        """When a message that is sent at `now_s` arrives: no time for a lost one, two for a duplicated one; in order if reliable."""
        network, rng = self._conditions, self._rng
        if self._reliable:
            at_s = self._once(now_s)
            timeout_s = max(RETRANSMIT_S, 2 * network.delay_s)
            for _ in range(_TRIES):
                if rng.random() >= network.loss:
                    break
                at_s += timeout_s
                timeout_s *= 2
            self._free_s = max(self._free_s, at_s)
            return [self._free_s]
        if rng.random() < network.loss:
            return []
        copies = 1 + (rng.random() < network.duplicates)
        return [self._once(now_s) for _ in range(copies)]

    def send(self, arrive: Callable[[], None]) -> None:
        """Let a message travel on the running loop; `arrive` is called when it is there."""
        loop, now_s = asyncio.get_running_loop(), time.monotonic()
        for at_s in self.arrivals(now_s):
            if self._reliable:
                # Timers of nearly the same time may fire in any order: each delivers the oldest message.
                self._under_way.append(arrive)
                loop.call_later(max(0.0, at_s - now_s), lambda: self._under_way.popleft()())
            else:
                loop.call_later(max(0.0, at_s - now_s), arrive)

    def _once(self, now_s: float) -> float:
        network = self._conditions
        at_s = now_s + network.delay_s + network.jitter_s * self._rng.random()
        if not self._reliable and self._rng.random() < network.reorder:
            at_s += network.jitter_s + _HELD_BACK_S
        return at_s


class LoopbackTransport:
    """A server's clients in the same process."""

    def __init__(
        self, accept: Accept, conditions: Conditions | None = None, *, seed: int = 0, reliable: bool = False
    ) -> None:
        """`conditions` hold each way; the same seed and the same messages give the same network."""
        self._accept = accept
        self._conditions = conditions or Conditions()
        self._rng = random.Random(seed)  # noqa: S311 (a network's dice)
        self._reliable = reliable
        self.open = True
        """False: a server that is not there any more, without a word."""

    def client(self, token: str, *, spectator: bool = False) -> "LoopbackClient":
        """Make a client, an async context manager like `GameClient`."""
        return LoopbackClient(self, token, spectator=spectator)

    def connect(self, client: "LoopbackClient") -> "_ServerEnd":
        """Join a client's end to a new connection of the server."""
        there, back = (Path(self._conditions, self._rng, reliable=self._reliable) for _ in range(2))
        end = _ServerEnd(self, client, there, back)
        end.handler = self._accept(end)
        return end

    @property
    def reliable(self) -> bool:
        """Whether it is like TCP."""
        return self._reliable


class _ServerEnd:
    """One client, as the server sees it."""

    handler: Handler

    def __init__(self, transport: LoopbackTransport, client: "LoopbackClient", there: Path, back: Path) -> None:
        self._transport = transport
        self._client = client
        self._there, self._back = there, back
        self._closed = False
        self._welcome = b""
        self.peer = "loopback"
        self.reliable = transport.reliable

    def send(self, message: bytes) -> None:
        if message[0] == _WELCOME:
            self._welcome = message
        if not self._closed:
            repeats = 3 if message[0] == _MIGRATE and not self.reliable else 1
            for _ in range(repeats):
                self._travel(self._back, lambda: self._client.received(message))

    def send_snapshot(self, snapshot: m.SharedSnapshot, ack_input: int) -> bool:
        self.send(snapshot.message(ack_input))
        return not self._closed

    def close(self, code: m.CloseCode, reason: str = "") -> None:
        if self._closed:
            return
        for _ in range(1 if self.reliable else 3):
            self.send(m.encode(m.Bye(code=code, reason=reason)))
        self._closed = True
        asyncio.get_running_loop().call_soon(self.handler.lost)

    def receive(self, message: bytes) -> None:
        """Take what the client sends on its way."""
        self._travel(self._there, lambda: self._deliver(message))

    def hang_up(self) -> None:
        """The client is gone, once what it has sent is there."""
        asyncio.get_running_loop().call_later(self._there.longest_s, self._gone)

    def _gone(self) -> None:
        if not self._closed:
            self._closed = True
            self.handler.lost()

    def _deliver(self, message: bytes) -> None:
        if self._closed:
            return
        if message[:1] == _HELLO and self._welcome:
            self.send(self._welcome)  # the first one was lost
        self.handler.received(message)

    def _travel(self, path: Path, arrive: Callable[[], None]) -> None:
        if self._transport.open:
            path.send(arrive)


class LoopbackClient:
    """A seat in a match, over a loopback; used as `GameClient` is."""

    def __init__(self, transport: LoopbackTransport, token: str, *, spectator: bool = False) -> None:
        self._transport = transport
        self._end: _ServerEnd
        self._running: asyncio.Task[None]
        self._waiting: asyncio.Queue[ClientEvent | m.MalformedMessage] = asyncio.Queue()
        self.session = ClientSession(token, spectator=spectator, repeat=1 if transport.reliable else m.MAX_INPUTS)

    async def __aenter__(self) -> Self:
        """Say Hello. Raises ConnectFailed where no server is."""
        if not self._transport.open:
            raise ConnectFailed("loopback: no server")
        self._end = self._transport.connect(self)
        self._end.receive(self.session.hello())
        self._running = asyncio.create_task(self._run(), name="loopback")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.cancel()
        await asyncio.wait([self._running])
        self._end.hang_up()

    async def events(self) -> AsyncIterator[ClientEvent]:
        """Yield what happens until the server says Bye. Raises MalformedMessage."""
        while True:
            event = await self._waiting.get()
            if isinstance(event, m.MalformedMessage):
                raise event
            yield event
            if isinstance(event, Ended):
                return

    async def send_input(self, **values: Any) -> None:
        """Send one input."""
        self._end.receive(self.session.send_input(values))

    async def leave(self) -> None:
        """Say Bye: the seat is given up."""
        for _ in range(1 if self._transport.reliable else 3):
            self._end.receive(m.encode_client_bye(m.CloseCode.NORMAL))

    def received(self, message: bytes) -> None:
        """Take a message in (called by the server's end)."""
        if self.session.welcome is None and message[0] == _SNAPSHOT:
            return  # it overtook Welcome
        try:
            self.session.receive(message, time.monotonic())
        except m.MalformedMessage as error:
            self._waiting.put_nowait(error)
            return
        while (event := self.session.next_event()) is not None:
            self._waiting.put_nowait(event)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_HELLO_INTERVAL_S)
            if self.session.welcome is None and not self._transport.reliable:
                self._end.receive(self.session.hello())
            for message in self.session.data_to_send(time.monotonic()):
                self._end.receive(message)
