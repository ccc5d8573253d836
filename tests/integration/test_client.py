"""The Valkey client: cancellation and deadlines."""

import asyncio
import random
import socket

import pytest
from redis.exceptions import RedisError

from gameserver.sessions.client import connect


async def test_a_cancelled_call_ends_at_once(valkey_url: str) -> None:
    """Cancelled at any moment, a task in a command ends, and the client goes on to answer rightly."""
    client, rng = connect(valkey_url), random.Random(1)

    async def work() -> None:
        while True:
            assert await client.echo("mine") == b"mine"

    for _ in range(100):
        task = asyncio.create_task(work())
        await asyncio.sleep(rng.random() * 0.003)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=1)
        assert done
        assert task.cancelled()
        assert await client.echo("yours") == b"yours"
    await client.aclose()


async def test_a_silent_server_is_an_error_in_time() -> None:
    """A server that accepts and never answers gives an error, not a wait without end."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        client = connect(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        with pytest.raises(RedisError):
            await client.ping()
        await client.aclose()
