"""
The Valkey client of all packages: redis-py with deadlines that cancellation survives.

With a socket timeout redis-py sends through `asyncio.wait_for`, which on Python 3.11 loses a cancellation that arrives once the bytes are
out: half of all cancelled calls went on as if nothing had happened (measured with redis-py 8.1; tests/integration/test_client.py). So sockets
have no timeout here, and every command runs under `asyncio.timeout`, which keeps cancellations.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn

import redis.asyncio
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gameserver.sessions.pipe import Durable, Pipe

log = structlog.get_logger(__name__)

COMMAND_TIMEOUT_S = 2.0
CALL_ENDS_S = 4 * COMMAND_TIMEOUT_S
"""A function call has its answer by then, or its exception: it may load the functions, lose its connection and make another."""
_LISTEN_AGAIN_S = 0.2


class StoreClient(redis.asyncio.Redis):
    """A client whose commands raise redis' TimeoutError after `COMMAND_TIMEOUT_S`, with a pipe for functions."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._pipe: Pipe | None = None
        self._durable: Durable | None = None
        """A connection of its own: waiting for replicas holds up what is behind it."""

    def call_function(self, function: str, keys: Sequence[str], *args: str | int | float | bytes) -> Awaitable[Any]:
        """Call a Valkey function; like a command, but many at once on one connection."""
        pipe = self._pipe
        if pipe is None:
            if self.connection_pool.connection_class is not redis.asyncio.Connection:
                return self.fcall(function, len(keys), *keys, *args)
            pipe = self._pipe = _pipe(self.connection_pool.connection_kwargs)
        return pipe.call("FCALL", function, len(keys), *keys, *args)

    async def call_durably(
        self, function: str, keys: Sequence[str], *args: str | int | float | bytes, replicas: int
    ) -> Any:
        """
        Call a Valkey function, and wait until so many replicas have what it wrote.

        Raises: besides `call_function`'s, RedisTimeoutError when they have not in time: it may take effect or be lost, so call it again.
        """
        if self._durable is None:
            self._durable = Durable(_pipe(self.connection_pool.connection_kwargs), timeout_s=COMMAND_TIMEOUT_S / 2)
        return await self._durable.call(replicas, "FCALL", function, len(keys), *keys, *args)

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
        await super().aclose(close_connection_pool)


def _pipe(options: Mapping[str, Any]) -> Pipe:
    return Pipe(
        options.get("host", "localhost"),
        options.get("port", 6379),
        db=options.get("db") or 0,
        username=options.get("username"),
        password=options.get("password"),
        timeout_s=COMMAND_TIMEOUT_S,
    )


async def listen(
    client: StoreClient, channels: Sequence[str], heard: Callable[[bytes], None], *, subscribed: Callable[[], None]
) -> NoReturn:
    """
    Hear every message of some channels until cancelled, through outages.

    Args:
        heard: told each message's data.
        subscribed: told after each (re)connection, since messages in between were missed.
    """
    while True:
        pubsub: Any = client.pubsub()
        try:
            await pubsub.subscribe(*channels)
            subscribed()
            while True:
                message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=None)
                if message is not None:
                    heard(message["data"])
        except (RedisError, OSError) as error:
            log.warning("listening_broke", channels=list(channels), error=str(error))
        finally:
            await pubsub.aclose()
        await asyncio.sleep(_LISTEN_AGAIN_S)


def connect(url: str) -> StoreClient:
    """
    Make a client; connections are opened as they are needed.

    A command on a connection that turns out to be dead is sent once more on a new one: all that is sent here may be repeated. No `driver_info`:
    finding the library's own version out takes 8 ms of each connection, and 2 MB of each forked server.
    """
    client = StoreClient.from_url(
        url,
        socket_timeout=None,
        socket_connect_timeout=COMMAND_TIMEOUT_S,
        retry=Retry(NoBackoff(), 1),
        protocol=3,
        driver_info=None,
    )
    assert isinstance(client, StoreClient)
    return client
