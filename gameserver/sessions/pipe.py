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
                    address = f"{host}:{port}"
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
    """

    def __init__(self, pipe: Pipe, *, timeout_s: float) -> None:
        """`timeout_s`: how long replicas may take."""
        self._pipe = pipe
        self._timeout_ms = round(timeout_s * 1000)
        self._waiting = asyncio.Lock()
        self._next: asyncio.Task[tuple[int, int]] | None = None

    async def call(self, replicas: int, key: str, *words: Word) -> Any:
        """
        Send a command that writes at `key`, and wait until so many replicas have it.

        Raises: as `Pipe.call`; TimeoutError when they have not in time.
        """
        reply = await self._pipe.call(*words)
        connection = self._pipe.connections
        if self._next is None:
            self._next = asyncio.create_task(self._wait(replicas, key), name="wait-for-replicas")
        waited, reached = await asyncio.shield(self._next)
        if waited != connection:  # Valkey knows what a connection wrote, and this was another
            raise RedisConnectionError("the connection was lost before replicas had it")
        if reached < replicas:
            raise RedisTimeoutError(f"{reached} of {replicas} replicas have it")
        return reply

    def close(self) -> None:
        """Give the connection up."""
        self._pipe.close()

    async def _wait(self, replicas: int, key: str) -> tuple[int, int]:
        async with self._waiting:
            self._next = None  # who comes from now on is not covered
            # WAIT is about what this connection wrote last. A call that is repeated finds its work done, perhaps by a lost connection, and writes
            # nothing: with a write of ours behind it, it is waited for all the same.
            # It has the tag of a key that the server has, since in a Cluster others are refused.
            await self._pipe.call_once("SET", WAITED_KEY + _tag(key), "", "PX", 60_000)
            return await self._pipe.call_once("WAIT", replicas, self._timeout_ms)


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
