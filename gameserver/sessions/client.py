"""
The Valkey client of all packages: redis-py with deadlines that cancellation survives.

With a socket timeout redis-py sends through `asyncio.wait_for`, which on Python 3.11 loses a cancellation that arrives once the bytes are
out: half of all cancelled calls went on as if nothing had happened (measured with redis-py 8.1; tests/integration/test_client.py). So sockets
have no timeout here, and every command runs under `asyncio.timeout`, which keeps cancellations.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any, NoReturn
from urllib.parse import parse_qsl, urlencode

import redis.asyncio
import structlog
from redis.asyncio.client import PubSub
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gameserver.sessions.pipe import Durable, Pipe

log = structlog.get_logger(__name__)

COMMAND_TIMEOUT_S = 2.0
CALL_ENDS_S = 4 * COMMAND_TIMEOUT_S
"""A function call has its answer by then, or its exception: it may load the functions, lose its connection and make another."""
SENTINEL_PORT = 26379
_LISTEN_AGAIN_S = 0.2


class StoreClient(redis.asyncio.Redis):
    """A client whose commands raise redis' TimeoutError after `COMMAND_TIMEOUT_S`, with a pipe for functions."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._pipe: Pipe | None = None
        self._durable: Durable | None = None
        """A connection of its own: waiting for replicas holds up what is behind it."""
        self.slots = False
        """The server is one of a Cluster."""
        self.moved = asyncio.Event()
        """Set, and exchanged for another, once channels may be elsewhere than `by_server` said."""

    @property
    def connections(self) -> int:
        """How many connections functions have gone over: when it has changed, another server may be answering, one that knows less."""
        return 0 if self._pipe is None else self._pipe.connections

    def call_function(self, function: str, keys: Sequence[str], *args: str | int | float | bytes) -> Awaitable[Any]:
        """Call a Valkey function; like a command, but many at once on one connection."""
        pipe = self._pipe
        if pipe is None:
            if issubclass(self.connection_pool.connection_class, UnixDomainSocketConnection):
                return self.fcall(function, len(keys), *keys, *args)
            pipe = self._pipe = _pipe(self.connection_pool, self._move)
        return pipe.call("FCALL", function, len(keys), *keys, *args)

    async def call_durably(
        self, function: str, keys: Sequence[str], *args: str | int | float | bytes, replicas: int
    ) -> Any:
        """
        Call a Valkey function, and wait until so many replicas have what it wrote.

        Raises: besides `call_function`'s, RedisTimeoutError when they have not in time: it may take effect or be lost, so call it again.
        """
        if self._durable is None:
            pipe = _pipe(self.connection_pool, self._move)
            self._durable = Durable(pipe, timeout_s=COMMAND_TIMEOUT_S / 2, slots=self.slots)
        return await self._durable.call(replicas, keys[0], "FCALL", function, len(keys), *keys, *args)

    def _move(self) -> None:
        self.moved.set()
        self.moved = asyncio.Event()

    async def by_server(self, channels: Sequence[str]) -> dict["StoreClient", list[str]]:
        """Where to listen to channels."""
        return {self: list(channels)}

    async def clock_s(self, key: str) -> float:
        """The clock of the server that has a key, Unix seconds: what functions wrote there was timed by it."""
        return clock_of(await self.time())

    async def fetch_all(self, commands: Sequence[tuple[str | int, ...]]) -> list[Any]:
        """Run commands that only read, each `(command, key, …)`, in one round trip and under one deadline; their replies in order."""
        pipeline = self.pipeline(transaction=False)
        for words in commands:
            pipeline.execute_command(*words)
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                return await pipeline.execute()
        except TimeoutError as error:
            raise RedisTimeoutError(f"no answer in {COMMAND_TIMEOUT_S:g} s") from error

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run one command under the deadline."""
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except ReadOnlyError:
            # A primary that became a replica keeps its connections; where its name leads by now, a new one finds out.
            await self.connection_pool.disconnect(inuse_connections=False)
            raise
        except TimeoutError as error:
            raise RedisTimeoutError(f"no answer in {COMMAND_TIMEOUT_S:g} s") from error

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close all connections."""
        if self._pipe is not None:
            self._pipe.close()
        if self._durable is not None:
            self._durable.close()
        pool = self.connection_pool
        await super().aclose(close_connection_pool)
        if isinstance(pool, SentinelConnectionPool):
            for sentinel in pool.sentinel_manager.sentinels:
                await sentinel.aclose()


def clock_of(reply: Any) -> float:
    """Unix seconds of TIME's reply."""
    seconds, micros = reply
    return float(seconds) + float(micros) / 1e6


def _pipe(pool: redis.asyncio.ConnectionPool, again: Callable[[], None]) -> Pipe:
    options = pool.connection_kwargs

    async def where() -> tuple[str, int]:
        if isinstance(pool, SentinelConnectionPool):
            return await pool.get_master_address()  # type: ignore[no-any-return, no-untyped-call]
        return options.get("host", "localhost"), options.get("port", 6379)

    return Pipe(
        where,
        db=options.get("db") or 0,
        username=options.get("username"),
        password=options.get("password"),
        timeout_s=COMMAND_TIMEOUT_S,
        tls=_tls(pool),
        again=again,
    )


def _tls(pool: redis.asyncio.ConnectionPool) -> ssl.SSLContext | None:
    """As redis-py itself makes it for this pool."""
    if not issubclass(pool.connection_class, SSLConnection):
        return None
    connection = pool.make_connection()  # type: ignore[no-untyped-call]
    assert isinstance(connection, SSLConnection)
    return connection.ssl_context.get()


async def listen(
    client: StoreClient, channels: Sequence[str], heard: Callable[[bytes], None], *, subscribed: Callable[[], None]
) -> NoReturn:
    """
    Hear every message of some channels until cancelled, through outages.

    A server that stands still breaks no connection: calls that get no answer and connect anew move the listeners too.

    Args:
        heard: told each message's data.
        subscribed: told after each (re)connection, since messages in between were missed.
    """
    while True:
        async with AsyncExitStack() as stack:
            try:
                subscriptions = []
                servers, moved = await client.by_server(channels), client.moved
                for server, some in servers.items():
                    pubsub = await stack.enter_async_context(aclosing(server.pubsub()))
                    async with asyncio.timeout(COMMAND_TIMEOUT_S):
                        await _subscribe(pubsub, some, heard)
                    subscriptions.append(pubsub)
                subscribed()
                await _hear(subscriptions, heard, moved)
            except (RedisError, OSError) as error:
                log.warning("listening_broke", channels=list(channels), error=str(error) or type(error).__name__)
        await asyncio.sleep(_LISTEN_AGAIN_S)


async def _subscribe(pubsub: PubSub, channels: Sequence[str], heard: Callable[[bytes], None]) -> None:
    """Returns once the server says so: whatever is read from then on, a later change is heard of."""
    await pubsub.subscribe(*channels)
    missing = len(channels)
    while missing:
        message = await pubsub.get_message(timeout=None)
        if message is not None and message["type"] == "message":
            heard(message["data"])
        elif message is not None:
            missing -= 1


async def _hear(subscriptions: Sequence[PubSub], heard: Callable[[bytes], None], moved: asyncio.Event) -> NoReturn:
    """Until one of them breaks, or channels have moved."""

    async def hear(pubsub: PubSub) -> NoReturn:
        while True:
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=None)
            if message is not None:
                heard(message["data"])

    error: BaseException = RedisConnectionError("channels have moved")
    try:
        async with asyncio.TaskGroup() as group:
            hearing = [group.create_task(hear(pubsub), name="hear") for pubsub in subscriptions]
            await moved.wait()
            for task in hearing:
                task.cancel()
    except* (RedisError, OSError) as broken:
        error = broken.exceptions[0]
    raise RedisConnectionError(str(error)) from error


def connect(url: str) -> StoreClient:
    """
    Make a client; connections are opened as they are needed.

    A command on a connection that turns out to be dead is sent once more on a new one: all that is sent here may be repeated. No `driver_info`:
    finding the library's own version out takes 8 ms of each connection, and 2 MB of each forked server.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`; or `redis+sentinel://[user:password@]host:port[,host:port…][/db]?service=NAME`
        (`rediss+sentinel://`), whose
            hosts are Sentinels that know where the primary of that name is; `sentinel_username` and `sentinel_password` are for them;
            or `redis+cluster://[user:password@]host:port[,host:port…]` (`rediss+cluster://`), whose hosts are some nodes of a Cluster.
    Raises: ValueError for a URL that is none of these; it names the mend and holds no secret.
    """
    options: dict[str, Any] = {
        "socket_timeout": None,
        "socket_connect_timeout": COMMAND_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 1),
        "protocol": 3,
        "driver_info": None,
    }
    if url.startswith(("redis+sentinel://", "rediss+sentinel://")):
        return _by_sentinel(url, options)
    if url.startswith(("redis+cluster://", "rediss+cluster://")):
        from gameserver.sessions.cluster import ClusterClient  # what only a Cluster needs: servers are many

        hosts, found, _ = read_hosts(url, "cluster", 6379)
        return ClusterClient(hosts, {**options, **found})
    client = StoreClient.from_url(url, **options)
    assert isinstance(client, StoreClient)
    return client


def _by_sentinel(url: str, options: dict[str, Any]) -> StoreClient:
    hosts, found, own = read_hosts(url, "sentinel", SENTINEL_PORT, "service", "sentinel_username", "sentinel_password")
    if not own["service"]:
        raise ValueError("the URL of Sentinels wants ?service=NAME, the name by which they know the primary")
    for_sentinels = {"username": own["sentinel_username"], "password": own["sentinel_password"]}
    sentinels = Sentinel([], **{**options, **found})  # type: ignore[no-untyped-call]
    tls = {key: value for key, value in found.items() if key.startswith("ssl")}
    sentinels.sentinels = [StoreClient(host=host, port=port, **options, **tls, **for_sentinels) for host, port in hosts]
    client = sentinels.master_for(own["service"], redis_class=StoreClient)
    assert isinstance(client, StoreClient)
    return client


def read_hosts(
    url: str, kind: str, default_port: int, *own: str
) -> tuple[list[tuple[str, int]], dict[str, Any], dict[str, str | None]]:
    """
    Read `redis+<kind>://[user:password@]host[:port][,host[:port]…][/db][?…]`, or rediss.

    Args: own: parameters of the query that are not a connection's.
    Returns: the hosts, a connection's options, and those parameters. Raises: ValueError, which holds no secret.
    """
    scheme, _, rest = url.partition(f"+{kind}://")
    rest, _, query = rest.partition("?")
    login, _, rest = rest.rpartition("@")
    hosts, _, database = rest.partition("/")
    asked = dict(parse_qsl(query))
    taken = {name: asked.pop(name, None) for name in own}
    # One host stands for all in a plain URL, by which redis-py reads everything else.
    plain = f"{scheme}://{login}{'@' if login else ''}host/{database}?{urlencode(asked)}"
    found: dict[str, Any] = {**redis.asyncio.connection.parse_url(plain)}
    del found["host"]
    found["ssl"] = found.pop("connection_class", None) is SSLConnection
    return [_address(host, kind.capitalize(), default_port) for host in hosts.split(",")], found, taken


def _address(text: str, of: str, default_port: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if colon and not port.endswith("]"):
        if not port.isdecimal():
            raise ValueError(f"{text!r} is no host:port of a {of}")
        return host.strip("[]"), int(port)
    if not text:
        raise ValueError(f"the URL of a {of} wants at least one host:port")
    return text.strip("[]"), default_port
