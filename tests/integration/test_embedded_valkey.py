"""The embedded Valkey: real processes."""

import asyncio
import os
import signal
from pathlib import Path

import redis.asyncio

from fleets.local.valkey import EmbeddedValkey


async def test_data_survives_the_run(tmp_path: Path) -> None:
    """What one run wrote is there in the next, behind a password."""
    async with EmbeddedValkey(tmp_path) as valkey, redis.asyncio.Redis.from_url(valkey.url) as client:
        await client.set("ticket", "1")
        bare = redis.asyncio.Redis.from_url("redis://" + valkey.url.partition("@")[2])
        try:
            await bare.get("ticket")
        except redis.exceptions.AuthenticationError:
            pass
        else:
            raise AssertionError("read without the password")
        finally:
            await bare.aclose()
    async with EmbeddedValkey(tmp_path) as valkey, redis.asyncio.Redis.from_url(valkey.url) as client:
        assert await client.get("ticket") == b"1"


async def test_a_killed_server_is_started_again_with_its_data(tmp_path: Path) -> None:
    """After kill -9 the same URL answers again and has what was written (the file is synced every second)."""
    async with EmbeddedValkey(tmp_path) as valkey, redis.asyncio.Redis.from_url(valkey.url) as client:
        await client.set("ticket", "1")
        info = await client.info("server")
        os.kill(info["process_id"], signal.SIGKILL)
        async with asyncio.timeout(10):
            while True:
                try:
                    assert await client.get("ticket") == b"1"
                    break
                except (redis.exceptions.ConnectionError, redis.exceptions.BusyLoadingError):
                    await asyncio.sleep(0.02)
            assert (await client.info("server"))["process_id"] != info["process_id"]
