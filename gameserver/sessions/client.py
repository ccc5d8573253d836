"""
The Valkey client of all packages: redis-py with deadlines that cancellation survives.

With a socket timeout redis-py sends through `asyncio.wait_for`, which on Python 3.11 loses a cancellation that arrives once the bytes are
out: half of all cancelled calls went on as if nothing had happened (measured with redis-py 8.1; tests/integration/test_client.py). So sockets
have no timeout here, and every command runs under `asyncio.timeout`, which keeps cancellations.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import redis.asyncio
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

log = structlog.get_logger(__name__)

COMMAND_TIMEOUT_S = 2.0
_LISTEN_AGAIN_S = 0.2


class StoreClient(redis.asyncio.Redis):
    """A client whose commands raise redis' TimeoutError after `COMMAND_TIMEOUT_S`."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run one command under the deadline."""
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except TimeoutError as error:
            raise RedisTimeoutError(f"no answer in {COMMAND_TIMEOUT_S:g} s") from error


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

    A command on a connection that turns out to be dead is sent once more on a new one: all that is sent here may be repeated.
    """
    client = StoreClient.from_url(
        url, socket_timeout=None, socket_connect_timeout=COMMAND_TIMEOUT_S, retry=Retry(NoBackoff(), 1), protocol=3
    )
    assert isinstance(client, StoreClient)
    return client
