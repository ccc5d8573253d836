"""The Valkey client: cancellation and deadlines."""

import asyncio
import os
import random
import signal
import socket
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
import uvloop
from redis.exceptions import RedisError, ResponseError
from valkeys import Name, Valkey

from gameserver.sessions.client import StoreClient, connect, listen

ECHO = "#!lua name=test\nredis.register_function('test_echo', function(keys, args) return {keys[1], args[1]} end)"


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


@pytest.mark.one_server
async def test_calls_of_one_pipe_keep_their_replies(valkey: StoreClient) -> None:
    """Any number under way, some cancelled: each of the others gets its own reply."""
    await valkey.function_load(ECHO, replace=True)
    rng = random.Random(2)

    async def call(index: int) -> None:
        assert await valkey.call_function("test_echo", ["k"], index) == [b"k", str(index).encode()]

    await valkey.call_function("test_echo", ["k"], 0)
    for _ in range(20):
        tasks = [asyncio.create_task(call(index)) for index in range(50)]
        await asyncio.sleep(rng.random() * 0.001)
        for task in rng.sample(tasks, 10):
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            assert task.cancelled() or task.exception() is None
    with pytest.raises(ResponseError, match="Function not found"):
        await valkey.call_function("test_nothing", [])
    await valkey.function_delete("test")


@pytest.mark.one_server
async def test_a_call_on_a_dead_connection_is_sent_again(valkey: StoreClient) -> None:
    """The server closed the connection, as after a restart: the caller does not notice."""
    await valkey.function_load(
        "#!lua name=test\nredis.register_function('test_one', function() return 1 end)", replace=True
    )
    for _ in range(3):
        assert await valkey.call_function("test_one", []) == 1
        await valkey.client_kill_filter(_type="normal", skipme=True)
    await valkey.function_delete("test")


async def test_a_silent_server_fails_all_calls_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts and never answers: every call under way fails, and the message says so."""
    monkeypatch.setattr("gameserver.sessions.client.COMMAND_TIMEOUT_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        client = connect(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        calls = await asyncio.gather(*(client.call_function("f", []) for _ in range(5)), return_exceptions=True)
        assert all("no answer in 0.2 s" in str(call) for call in calls)
        await client.aclose()


async def test_listeners_leave_a_server_that_stands_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing breaks when a primary is stopped and its name leads elsewhere: with the calls that fail, what listens moves too."""
    monkeypatch.setattr("gameserver.sessions.client.COMMAND_TIMEOUT_S", 0.5)
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    subscribed = asyncio.Semaphore(0)
    async with AsyncExitStack() as stack:
        old, new = (stack.enter_context(Valkey(tmp_path / name)) for name in ("old", "new"))
        for valkey in (old, new):
            valkey.ask("FUNCTION", "LOAD", ECHO)
        name = await stack.enter_async_context(Name(old).serving())
        client = await stack.enter_async_context(aclosing(connect(name.url)))
        await client.call_function("test_echo", ["k"], 1)
        listening = asyncio.create_task(listen(client, ["news"], heard.put_nowait, subscribed=subscribed.release))
        await subscribed.acquire()
        os.kill(old.pid, signal.SIGSTOP)
        name.target = new
        with pytest.raises(RedisError):
            await client.call_function("test_echo", ["k"], 2)
        assert await client.call_function("test_echo", ["k"], 3) == [b"k", b"3"]
        async with asyncio.timeout(20):
            await subscribed.acquire()
            assert new.ask("PUBLISH", "news", "hello") == 1
            assert await heard.get() == b"hello"
        listening.cancel()
        await asyncio.wait([listening])


async def test_a_server_that_is_not_there_is_named() -> None:
    """Nobody listens: the error says where."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    client = connect(f"redis://127.0.0.1:{port}/0")
    with pytest.raises(RedisError, match=f"127.0.0.1:{port}"):
        await client.call_function("f", [])
    await client.aclose()


@pytest.mark.one_server
def test_the_pipe_runs_on_uvloop(valkey_url: str) -> None:
    """On the event loop that services run on, too."""

    async def work() -> None:
        client = connect(valkey_url)
        with pytest.raises(ResponseError, match="Function not found"):
            await client.call_function("test_nothing", [])
        await client.aclose()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())
