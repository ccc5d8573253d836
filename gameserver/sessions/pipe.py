"""
One connection to Valkey on which any number of calls are under way at once: replies come in the order of the calls.

The path of every Valkey function (`library.py`). A pool of connections that each carry one call costs a claim more than its work: taking and
returning a connection, a task switch to send, another to read (docs/decisions/0031). A call whose caller has gone is answered all the same and its reply
dropped, so cancelling one disturbs no other; and calls of one process take effect in the order in which they were made.

Owns connecting, authentication, the deadline and the loss of the connection. Speaks TCP, plain or with TLS; what needs more (Unix sockets) goes
through redis-py.
"""

import asyncio
import re
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, cast

import hiredis
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    MovedError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

Word = str | int | float | bytes

MAX_IN_FLIGHT = 20_000
"""Calls under way at most: with a store that has stalled, callers are told so instead of piling up."""
WAITED_KEY = "wf:waited:"
"""And a hash tag: written before replicas are waited for; gone after a minute."""
REIGN_KEY = "wf:reign:"
"""
And a hash tag: a sorted set with one member, the primary's address, and how many replicas it has had at once since it is primary. One for a server, so that
no key that is new can forget what the server had; in a Cluster one for each tag that waits.
"""
_REIGN_MS = 86_400_000
"""Such a key goes when nobody has waited for replicas for so long."""
_REIGN_FRESH_S = 0.25
"""How old the look may be by which a primary's replicas are counted."""
_CONNECTED = re.compile(rb"\bconnected_slaves:(\d+)")
_TRIES = 2
"""All that is sent here may be repeated: a call on a connection that turns out to be dead is sent once more, on a new one."""
_ERRORS: dict[str, type[RedisError]] = {
    "READONLY": ReadOnlyError,
    "OOM": OutOfMemoryError,
    "LOADING": BusyLoadingError,
}
_OF_A_CLUSTER: dict[str, Callable[[str], RedisError]] = {
    "MOVED": MovedError,
    "ASK": AskError,
    "TRYAGAIN": TryAgainError,
    "CLUSTERDOWN": ClusterDownError,
}
"""Which redis-py makes of what follows the word."""
_LEAVE = ("READONLY", "MASTERDOWN", "LOADING")
"""Said by a server that cannot serve us: the name that we connect to may lead to another by now."""


class Pipe:
    """A connection, opened by the first call and again after it was lost."""

    def __init__(
        self,
        where: Callable[[], Awaitable[tuple[str, int]]],
        *,
        db: int,
        username: str | None,
        password: str | None,
        timeout_s: float,
        tls: ssl.SSLContext | None = None,
        again: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Prepare.

        Args:
            where: tells host and port, before each connection; may raise redis' errors.
            timeout_s: for how long the oldest call may be without an answer before the connection is given up, in s.
            again: told after each connection but the first: another server may be answering.
        """
        self._where = where
        self._again = again
        self._tls = tls
        self._login: list[tuple[Word, ...]] = []
        if password:
            self._login.append(("AUTH", username, password) if username else ("AUTH", password))
        if db:
            self._login.append(("SELECT", db))
        self._timeout_s = timeout_s
        self._wire: _Wire | None = None
        self._connecting = asyncio.Lock()
        self.connections = 0
        """How many there have been: tells one from the next."""
        self.address = ""
        """Where the newest leads."""

    async def call(self, *words: Word) -> Any:
        """
        Send one command and wait for its reply (bytes, int, None or a list of these).

        Raises: redis' own exceptions: ResponseError and its kinds for what the server refuses, ConnectionError and TimeoutError when
            nothing is known about the effect.
        """
        packed = hiredis.pack_command(words)  # type: ignore[arg-type]
        for left in reversed(range(_TRIES)):
            wire = self._wire
            if wire is None or wire.lost:
                wire = await self._connect()
            try:
                return await wire.send(packed)
            except RedisTimeoutError:
                raise
            except RedisConnectionError:
                if not left:
                    raise
        raise AssertionError("the last try returns or raises")

    async def call_once(self, *words: Word) -> tuple[int, Any]:
        """Like `call`, but never sent a second time; returns also by which connection it went."""
        wire = self._wire
        if wire is None or wire.lost:
            wire = await self._connect()
        connection = self.connections
        return connection, await wire.send(hiredis.pack_command(words))  # type: ignore[arg-type]

    def close(self) -> None:
        """Give the connection up; calls under way fail."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.give_up(RedisConnectionError("the client was closed"))

    async def _connect(self) -> "_Wire":
        async with self._connecting:
            if self._wire is not None and not self._wire.lost:
                return self._wire  # another caller was faster
            loop = asyncio.get_running_loop()
            address = "the store"
            try:
                async with asyncio.timeout(self._timeout_s):
                    host, port = await self._where()
                    address = self.address = f"{host}:{port}"
                    _, wire = await loop.create_connection(
                        lambda: _Wire(loop, self._timeout_s), host, port, ssl=self._tls
                    )
            except TimeoutError as error:
                raise RedisTimeoutError(f"{address} does not answer in {self._timeout_s:g} s") from error
            except OSError as error:
                raise RedisConnectionError(f"{address}: {error}") from error
            try:
                for words in self._login:
                    await wire.send(hiredis.pack_command(words))  # type: ignore[arg-type]
            except BaseException:
                wire.give_up(RedisConnectionError("not logged in"))
                raise
            self._wire = wire
            self.connections += 1
            if self.connections > 1:
                self._again()
            return wire


class Durable:
    """
    Calls that count once replicas have what they wrote, over a pipe of their own: while Valkey waits for replicas, a connection does nothing else.

    One wait serves all calls that were answered before it, so that many of them cost few waits.

    A primary that has taken over has one replica less, until the one before it is back: what all that it has had since then have counts
    (docs/decisions/0130). One that has lost replicas in its reign must wait for them: they may follow another by now.
    """

    def __init__(self, pipe: Pipe, *, timeout_s: float, slots: bool = False) -> None:
        """`timeout_s`: how long replicas may take; `slots`: the server is one of a Cluster, and has some keys only."""
        self._pipe = pipe
        self._slots = slots
        self._timeout_ms = round(timeout_s * 1000)
        self._waiting = asyncio.Lock()
        self._next: asyncio.Task[tuple[int, int, int]] | None = None
        self._reigns: dict[str, tuple[int, float, int]] = {}
        """By hash tag: over which connection was asked, when, and how many replicas its primary must wait for."""

    async def call(self, replicas: int, key: str, *words: Word) -> Any:
        """
        Send a command that writes at `key`, and wait until so many replicas have it, or all that the primary has had since it is one.

        Raises: as `Pipe.call`; TimeoutError when they have not in time.
        """
        reply = await self._pipe.call(*words)
        connection = self._pipe.connections
        if self._next is None:
            self._next = asyncio.create_task(self._wait(replicas, key), name="wait-for-replicas")
        waited, reached, wanted = await asyncio.shield(self._next)
        if waited != connection:  # Valkey knows what a connection wrote, and this was another
            raise RedisConnectionError("the connection was lost before replicas had it")
        if reached < wanted:
            raise RedisTimeoutError(f"{reached} of {wanted} replicas have it")
        return reply

    def close(self) -> None:
        """Give the connection up."""
        self._pipe.close()

    async def _wait(self, replicas: int, key: str) -> tuple[int, int, int]:
        """Over which connection was waited, how many replicas have it, and how many must."""
        async with self._waiting:
            try:
                wanted = await self._wanted(replicas, _tag(key) if self._slots else "{wf}")
            finally:
                self._next = None  # who comes from now on is not covered
            # WAIT is about what this connection wrote last. A call that is repeated finds its work done, perhaps by a lost connection, and writes
            # nothing: with a write of ours behind it, it is waited for all the same.
            # It has the tag of a key that the server has, since in a Cluster others are refused.
            await self._pipe.call_once("SET", WAITED_KEY + _tag(key), "", "PX", 60_000)
            connection, reached = await self._pipe.call_once("WAIT", wanted, self._timeout_ms)
            if reached < wanted or connection != self._pipe.connections:
                self._reigns.clear()
            return connection, reached, wanted

    async def _wanted(self, replicas: int, tag: str) -> int:
        """So many replicas at most; fewer of a primary that has not had so many since it is one."""
        if replicas < 2:
            return replicas
        now_s, known = asyncio.get_running_loop().time(), self._reigns.get(tag)
        if known is None or known[0] != self._pipe.connections or now_s - known[1] > _REIGN_FRESH_S:
            known = self._reigns[tag] = await self._reign(tag, now_s)
        return max(1, min(replicas, known[2]))

    async def _reign(self, tag: str, now_s: float) -> tuple[int, float, int]:
        connection, said = await self._pipe.call_once("INFO", "replication")
        found = _CONNECTED.search(said)
        key, here = REIGN_KEY + tag, self._pipe.address
        if found is None:
            raise RedisConnectionError("the store does not say how many replicas it has")
        calls: list[tuple[Word, ...]] = [
            ("ZADD", key, "GT", int(found[1]), here),
            ("PEXPIRE", key, _REIGN_MS),
            ("ZRANGE", key, 0, -1, "WITHSCORES"),
        ]
        replies = await asyncio.gather(*(self._pipe.call_once(*words) for words in calls))
        if any(by != connection for by, _ in replies):
            raise RedisConnectionError("the connection was lost before replicas had it")
        rows = replies[-1][1]
        had = {rows[at].decode(): int(float(rows[at + 1])) for at in range(0, len(rows), 2)}
        if others := [address for address in had if address != here]:  # primaries before this one
            await self._pipe.call_once("ZREM", key, *others)
        return connection, now_s, had[here]


class _Wire(asyncio.Protocol):
    """One TCP connection; its calls, oldest first."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout_s: float) -> None:
        self._loop = loop
        self._timeout_s = timeout_s
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        self._calls: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._transport: asyncio.Transport | None = None
        self._corked: list[bytes] | None = None
        """Calls that wait for the end of this turn of the loop; None: there was no call in it yet."""
        self._watch: asyncio.TimerHandle | None = None
        self.lost = False

    def send(self, packed: bytes) -> asyncio.Future[Any]:
        """Write a command; the future has its reply."""
        future = self._loop.create_future()
        if self.lost or self._transport is None:
            future.set_exception(RedisConnectionError("the connection is lost"))
        elif len(self._calls) >= MAX_IN_FLIGHT:
            future.set_exception(RedisTimeoutError(f"{MAX_IN_FLIGHT} calls are under way without an answer"))
        else:
            self._calls.append((future, self._loop.time()))
            if self._corked is not None:
                self._corked.append(packed)
            else:
                # The first call of a turn of the loop goes out at once; those that follow in the same turn go out together after it.
                self._transport.write(packed)
                self._corked = []
                self._loop.call_soon(self._uncork)
            if self._watch is None:
                self._watch = self._loop.call_later(self._timeout_s, self._look)
        return future

    def give_up(self, error: RedisError) -> None:
        """Close the connection; calls under way get this error."""
        if self._transport is not None:
            self._transport.abort()
        self._fail(error)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        """Hand replies out."""
        reader, calls = self._reader, self._calls
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not _MORE:
                future, _ = calls.popleft()
                if isinstance(reply, hiredis.ReplyError):
                    self._refuse(future, str(reply))
                elif not future.done():  # else its caller has gone
                    future.set_result(reply)
        except (hiredis.ProtocolError, IndexError) as error:
            self.give_up(RedisConnectionError(f"no sensible reply: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everyone who waits."""
        self._fail(RedisConnectionError(f"the connection is lost{f': {exc}' if exc else ''}"))

    def _uncork(self) -> None:
        corked, self._corked = self._corked, None
        if corked and self._transport is not None and not self.lost:
            self._transport.write(b"".join(corked))

    def _refuse(self, future: asyncio.Future[Any], message: str) -> None:
        kind, _, rest = message.partition(" ")
        if not future.done():
            known = _OF_A_CLUSTER.get(kind)
            future.set_exception(known(rest) if known else _ERRORS.get(kind, ResponseError)(message))
        if kind in _LEAVE:
            self.give_up(RedisConnectionError(message))

    def _look(self) -> None:
        """Give up a connection whose oldest call has waited too long."""
        self._watch = None
        if not self._calls:
            return
        waited_s = self._loop.time() - self._calls[0][1]
        if waited_s >= self._timeout_s:
            self.give_up(RedisTimeoutError(f"no answer in {self._timeout_s:g} s"))
        else:
            self._watch = self._loop.call_later(self._timeout_s - waited_s, self._look)

    def _fail(self, error: RedisError) -> None:
        self.lost = True
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        while self._calls:
            future, _ = self._calls.popleft()
            if not future.done():
                future.set_exception(type(error)(*error.args))


def _tag(key: str) -> str:
    """What decides on a key's slot, as a hash tag."""
    found = re.search(r"\{[^}]+\}", key)
    return found[0] if found else "{" + key + "}"


_MORE = object()
"""hiredis' word for: nothing whole has come yet. None is a reply."""
