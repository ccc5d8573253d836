"""Directors as processes, really killed and really stopped, and the one that takes over from them."""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from matchmaking import DUEL, FLEET, solo, until

from allocator.model import GameServer, ServerState
from allocator.shelf import Shelf
from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import ServerName, SessionId, SessionState
from matchmaker.director import _TICK_S, LEASE_S
from matchmaker.model import TicketId, TicketState
from matchmaker.records import TicketRecord
from matchmaker.store import TicketStore

_PROGRAM = Path(__file__).parents[1] / "director_process.py"
_PATIENT_S = 30.0


@pytest.fixture
async def director(valkey_url: str, valkey: StoreClient) -> AsyncIterator[Callable[[float], Awaitable[Process]]]:
    """Starts directors; each is returned once it leads, or at once when another does."""
    async with AsyncExitStack() as stack:

        async def start(deadline_s: float = _PATIENT_S, *, leads: bool = True) -> Process:
            return await stack.enter_async_context(_process(valkey_url, deadline_s, leads=leads))

        yield start


@asynccontextmanager
async def _process(url: str, deadline_s: float, *, leads: bool) -> AsyncIterator[Process]:
    path = os.pathsep.join((str(_PROGRAM.parent), str(_PROGRAM.parents[1])))
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(_PROGRAM), url, str(deadline_s), stdout=PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    try:
        if leads:
            await _leads(process)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _leads(process: Process) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"leads\n"


async def _ticket(store: TicketStore, name: str) -> TicketId:
    made = await store.create(DUEL.name, solo(name), idempotency="", max_tickets=100)
    assert isinstance(made, TicketRecord)
    return made.ticket.id


async def _shelve(shelf: Shelf, name: str) -> None:
    server = GameServer(
        name=ServerName(name), fleet=FLEET, state=ServerState.ALLOCATED, host="h", ports={"websocket": 7001}
    )
    await shelf.register(server, rooms=4)


async def _all_in(store: TicketStore, tickets: list[TicketId], state: TicketState) -> bool:
    records = [await store.fetch(ticket) for ticket in tickets]
    return all(record is not None and record.state is state for record in records)


async def test_a_director_that_slept_through_its_deadline_leaves_the_match_of_its_successor_alone(
    valkey: StoreClient, director: Callable[..., Awaitable[Process]]
) -> None:
    """It is stopped while its match waits for a server; another places the match; then it wakes, and its time is up."""
    store, shelf = TicketStore(valkey), Shelf(valkey)
    old = await director(4.0)
    tickets = [await _ticket(store, name) for name in ("ann", "bob")]
    await until(lambda: _all_in(store, tickets, TicketState.PLACING))
    old.send_signal(signal.SIGSTOP)
    stopped_s = time.monotonic()
    await director()
    await _shelve(shelf, "arena-1")
    await until(lambda: _all_in(store, tickets, TicketState.ASSIGNED))
    await asyncio.sleep(max(0.0, stopped_s + 4.5 - time.monotonic()))
    old.send_signal(signal.SIGCONT)
    await asyncio.sleep(1.0)
    found = await shelf.find(await _session_of(store, tickets[0]))
    assert found is not None
    assert found.session.state is SessionState.PENDING, "the players who were sent there find it ended"


def test_a_lease_and_one_look_of_another_director_are_over_within_two_seconds() -> None:
    """Measured with real processes by `python -m bench.matchmaker takeover`."""
    longest_look_s = 2 * 1.1 * _TICK_S  # of a replica that is not preferred
    assert LEASE_S + longest_look_s <= 2.0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_another_takes_over_from_a_director_that_is_killed_or_stopped(
    valkey: StoreClient, director: Callable[..., Awaitable[Process]], how: signal.Signals
) -> None:
    """With a match on its way and a ticket that waits; one that goes on later changes nothing of what the other did."""
    store, shelf = TicketStore(valkey), Shelf(valkey)
    old = await director()
    new = await director(leads=False)
    tickets = [await _ticket(store, name) for name in ("ann", "bob")]
    await until(lambda: _all_in(store, tickets, TicketState.PLACING))
    tickets.append(await _ticket(store, "cat"))
    await until(lambda: _all_in(store, tickets[2:], TicketState.SEARCHING))
    old.send_signal(how)
    await _leads(new)
    await _shelve(shelf, "arena-1")
    tickets.append(await _ticket(store, "dan"))
    await until(lambda: _all_in(store, tickets, TicketState.ASSIGNED))
    if how is signal.SIGSTOP:
        old.send_signal(signal.SIGCONT)
    tickets += [await _ticket(store, name) for name in ("eve", "fay", "gus", "hal")]
    await until(lambda: _all_in(store, tickets, TicketState.ASSIGNED))
    seated: list[str] = []
    for session in {await _session_of(store, ticket) for ticket in tickets}:
        found = await shelf.find(session)
        assert found is not None
        assert found.session.state is SessionState.PENDING
        seated += [seat.player for seat in found.session.seats]
    assert sorted(seated) == ["ann", "bob", "cat", "dan", "eve", "fay", "gus", "hal"]


async def _session_of(store: TicketStore, ticket: TicketId) -> SessionId:
    record = await store.fetch(ticket)
    assert record is not None
    assert record.assignment is not None
    return SessionId(record.assignment["session"])
