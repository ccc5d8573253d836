"""How many replicas a write waits for, on real Valkeys whose primary is lost, comes back, and wakes up late."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
from conftest import free_port
from valkeys import Valkey

from bench.chaos.store import Replicated
from gameserver.sessions.client import StoreClient, connect
from gameserver.sessions.library import FunctionLibrary
from gameserver.sessions.pipe import REIGN_KEY
from gameserver.sessions.port import StoreUnavailable

CODE = """#!lua name=probe
redis.register_function('probe_add', function(keys, args) return redis.call('INCRBY', keys[1], args[1]) end)
"""


@pytest.fixture
async def trio(tmp_path: Path) -> AsyncIterator[tuple[Valkey, Valkey, Valkey]]:
    """A primary, and two replicas of it."""
    async with AsyncExitStack() as stack:
        servers = [stack.enter_context(Valkey(tmp_path / name)) for name in "abc"]
        first, second, third = servers
        second.follow(first)
        third.follow(first)
        yield first, second, third


class Writer:
    """A client of one server, whose writes wait for both replicas."""

    def __init__(self, client: StoreClient, folder: Path) -> None:
        (folder / "probe.lua").write_text(CODE)
        self._library = FunctionLibrary(client, folder / "probe.lua")

    async def write(self, *, at: str = "{a}") -> None:
        await self._library.call("probe_add", [at], 1, replicas=2)

    async def write_at_last(self) -> None:
        async with asyncio.timeout(30):
            while True:
                try:
                    return await self.write()
                except StoreUnavailable:
                    await asyncio.sleep(0.1)

    async def refused(self, *, at: str = "{a}") -> None:
        with pytest.raises(StoreUnavailable, match="replicas have it"):
            await self.write(at=at)


async def test_a_primary_that_took_over_waits_for_the_replicas_that_it_has(
    trio: tuple[Valkey, Valkey, Valkey], tmp_path: Path
) -> None:
    """The one before it stays dead; once that follows too, it counts as well, and is missed when it goes."""
    first, second, third = trio
    async with aclosing(connect(first.url)) as client:
        await Writer(client, tmp_path).write()
    first.kill()
    second.promote()
    async with aclosing(connect(second.url)) as client:
        writer = Writer(client, tmp_path)
        await writer.refused()  # nobody has it
        third.follow(second)
        await writer.write()
        assert second.ask("ZRANGE", f"{REIGN_KEY}{{wf}}", 0, -1, "WITHSCORES") == [[b"127.0.0.1:%d" % second.port, 1.0]]
        first.start()
        first.follow(second)
        await asyncio.sleep(0.3)
        await writer.write()
        first.kill()
        Valkey.until(lambda: second.ask("INFO", "replication")["connected_slaves"] == 1)
        await writer.refused()


async def test_a_primary_that_wakes_up_while_another_takes_over_confirms_nothing(
    trio: tuple[Valkey, Valkey, Valkey], tmp_path: Path
) -> None:
    """A replica that follows it yet is not enough, whoever asks, for whatever key; nor later, when it has taken over itself."""
    first, second, third = trio
    async with aclosing(connect(first.url)) as client:
        writer = Writer(client, tmp_path)
        await writer.write()
        second.promote()
        Valkey.until(lambda: first.ask("INFO", "replication")["connected_slaves"] == 1)
        await writer.refused()
        async with aclosing(connect(first.url)) as other:
            await Writer(other, tmp_path).refused(at="{never seen}")
    third.follow(second)
    async with aclosing(connect(second.url)) as client:
        writer = Writer(client, tmp_path)
        await writer.write()
        first.follow(second)
        await asyncio.sleep(0.3)
        await writer.write()
        third.promote()
        Valkey.until(lambda: second.ask("INFO", "replication")["connected_slaves"] == 1)
        await writer.refused()


async def test_sentinels_failover_holds_writes_up_no_longer_than_itself(tmp_path: Path) -> None:
    """The primary is killed and stays dead: writes that wait for both replicas go on with the one that is left."""
    async with Replicated(tmp_path, [free_port() for _ in range(6)]) as store, aclosing(connect(store.url)) as client:
        writer = Writer(client, tmp_path)
        await writer.write_at_last()
        old = store.primary()
        assert old is not None
        old.kill()
        await writer.write_at_last()
        new = store.primary()
        assert new is not None
        assert new is not old
