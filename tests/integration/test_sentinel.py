"""The store client with Sentinels: it finds the primary, and finds it again after a failover; with TLS as without."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from conftest import free_port

from bench.chaos.store import Replicated, until
from gameserver.sessions.client import connect, listen
from gameserver.sessions.library import FunctionLibrary
from gameserver.sessions.port import StoreUnavailable

CODE = """#!lua name=probe
redis.register_function('probe_add', function(keys, args) return redis.call('INCRBY', keys[1], args[1]) end)
"""
ONCE = """#!lua name=once
redis.register_function('once', function(keys, args)
  if redis.call('SET', keys[1], args[1], 'NX') then return 'NEW' end
  return 'HAVE'
end)
"""

# A connection to a server that was killed or frozen may still be on its way when its client is closed; redis-py leaves it to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Replicated]:
    async with Replicated(tmp_path, [free_port() for _ in range(6)]) as store:
        yield store


async def test_functions_and_messages_follow_the_primary(store: Replicated, tmp_path: Path) -> None:
    """The primary is killed; calls fail for a while, then go on with the one that took over, and so do subscriptions."""
    (tmp_path / "probe.lua").write_text(CODE)
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    async with aclosing(connect(store.url)) as client:
        library = FunctionLibrary(client, tmp_path / "probe.lua")
        assert await library.call("probe_add", ["{a}"], 1, replicas=1) == 1
        subscribed = asyncio.Semaphore(0)
        listening = asyncio.create_task(listen(client, ["news"], heard.put_nowait, subscribed=subscribed.release))
        await subscribed.acquire()
        old = store.primary()
        assert old is not None
        old.kill()
        async with asyncio.timeout(30):
            while True:
                try:
                    assert await library.call("probe_add", ["{a}"], 1) >= 2
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.1)
            await subscribed.acquire()
            assert await client.publish("news", b"hello") == 1
            assert await heard.get() == b"hello"
        listening.cancel()
        await asyncio.wait([listening])
        new = store.primary()
        assert new is not None
        assert new is not old


async def test_a_repeated_call_waits_for_replicas_too(store: Replicated, tmp_path: Path) -> None:
    """What an unanswered call has written counts no sooner because it is asked for again, by whichever connection."""
    (tmp_path / "once.lua").write_text(ONCE)
    replicas = [server for server in store.valkeys if server is not store.primary()]
    async with aclosing(connect(store.valkeys[0].url)) as first, aclosing(connect(store.valkeys[0].url)) as second:
        library, again = (FunctionLibrary(client, tmp_path / "once.lua") for client in (first, second))
        assert await library.call("once", ["{a}"], 1, replicas=1) == b"NEW"
        for server in replicas:
            os.kill(server.pid, signal.SIGSTOP)
        try:
            for one in (library, library, again):
                with pytest.raises(StoreUnavailable):
                    await one.call("once", ["{b}"], 1, replicas=1)
        finally:
            for server in replicas:
                os.kill(server.pid, signal.SIGCONT)


async def test_a_primary_that_wakes_up_late_is_left(store: Replicated) -> None:
    """Stopped while another takes over, it comes back as a replica: nobody goes on talking to it as to a primary."""
    async with aclosing(connect(store.url)) as client:
        await client.set("a", 1)
        old = store.primary()
        assert old is not None
        os.kill(old.pid, signal.SIGSTOP)
        await until(lambda: store.primary() not in (old, None), 30)
        os.kill(old.pid, signal.SIGCONT)
        await until(store.in_step, 30)
        async with asyncio.timeout(20):
            while True:
                try:
                    await client.set("a", 2)
                    break
                except Exception:
                    await asyncio.sleep(0.1)
        new = store.primary()
        assert new is not None
        assert new.ask("GET", "a") == "2"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+sentinel://host:26379/0", "service=NAME"),
        ("redis+sentinel://:secret@host:port/0?service=main", "no host:port"),
        ("redis+sentinel://?service=main", "at least one"),
    ],
)
def test_a_wrong_url_is_told(url: str, said: str) -> None:
    """With the mend, and without the password."""
    with pytest.raises(ValueError, match=said) as failed:
        connect(url)
    assert "secret" not in str(failed.value)


def test_what_a_url_says_reaches_the_connections() -> None:
    """Passwords of the store and of the Sentinels, the database, TLS, hosts without a port and of IPv6."""
    client = connect(
        "rediss+sentinel://app:s%40fe@a,[::1]:7/3?service=main&sentinel_password=other&ssl_ca_certs=ca.pem"
    )
    pool = client.connection_pool
    assert {key: pool.connection_kwargs[key] for key in ("username", "password", "db", "ssl_ca_certs")} == {
        "username": "app", "password": "s@fe", "db": 3, "ssl_ca_certs": "ca.pem",
    }  # fmt: skip
    assert pool.connection_class.__name__ == "SentinelManagedSSLConnection"
    assert [
        (s.connection_pool.connection_kwargs["host"], s.connection_pool.connection_kwargs["port"])
        for s in pool.sentinel_manager.sentinels
    ] == [("a", 26379), ("::1", 7)]
    assert all(s.connection_pool.connection_kwargs["password"] == "other" for s in pool.sentinel_manager.sentinels)
