"""
How long a queue goes without its director when that is gone.

Two director processes around one Valkey, over a shelf of real rooms. The one that leads is killed (`kill -9`) or stopped (SIGSTOP), and two players
queue in the same moment; the time is from there until both are assigned by the other. Then another process takes the place of the one that is gone.
"""

import asyncio
import os
import signal
import statistics
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from bench.matchmaker.system import QUEUES, fill_shelf, process, serve_director
from bench.report import Report
from fleets.local.valkey import EmbeddedValkey
from gameserver.sessions.client import connect
from gameserver.sessions.model import PlayerId
from matchmaker.model import TicketId, TicketPlayer, TicketState
from matchmaker.records import TicketRecord
from matchmaker.store import TicketStore

QUEUE = QUEUES[0]


@dataclass(slots=True)
class _Director:
    pid: int
    says: Connection
    life: ExitStack
    leads: bool = False

    def listen(self) -> bool:
        """Whether it leads, as far as it has said."""
        while self.says.poll():
            self.leads = self.says.recv()
        return self.leads


def _start(url: str) -> _Director:
    life = ExitStack()
    pid, says = life.enter_context(process(serve_director, url))
    return _Director(pid, says, life)


async def _leader(directors: list[_Director]) -> _Director:
    """Who leads once all live, and the queue is with whom it should be."""
    await asyncio.sleep(3.0)
    while True:
        leaders = [director for director in directors if director.listen()]
        if len(leaders) == 1:
            return leaders[0]
        await asyncio.sleep(0.05)


async def _queue(store: TicketStore, name: str) -> TicketId:
    player = TicketPlayer(id=PlayerId(name), attributes={"rating": 1500.0})
    made = await store.create(QUEUE.name, (player,), idempotency="", max_tickets=100)
    assert isinstance(made, TicketRecord), made
    return made.ticket.id


async def _takeover_s(store: TicketStore, directors: list[_Director], how: signal.Signals, number: int) -> float:
    leader = await _leader(directors)
    os.kill(leader.pid, how)
    begun_s = time.monotonic()
    for ticket in [await _queue(store, f"{how.name}-{number}-{side}") for side in "ab"]:
        while (found := await store.fetch(ticket)) is None or found.state is not TicketState.ASSIGNED:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    took_s = time.monotonic() - begun_s
    directors.remove(leader)
    leader.life.close()
    return took_s


async def takeovers(report: Report, rounds: int) -> None:
    """Take over again and again."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        valkey = await stack.enter_async_context(EmbeddedValkey(Path(folder)))
        await fill_shelf(valkey.url, 1000)
        client = connect(valkey.url)
        stack.push_async_callback(client.aclose)
        store, directors = TicketStore(client), [_start(valkey.url)]
        stack.callback(lambda: [director.life.close() for director in directors])
        for how in (signal.SIGKILL, signal.SIGSTOP):
            took_s = []
            for number in range(rounds):
                directors.append(_start(valkey.url))
                took_s.append(await _takeover_s(store, directors, how, number))
            where = f"a director is gone ({how.name}), until the next players are assigned"
            report.add(f"{where}, median of {rounds}", statistics.median(took_s), "s")
            report.add(f"{where}, worst", max(took_s), "s", goal=2.0)


def measure(report: Report, quick: bool) -> None:
    """Measure it."""
    asyncio.run(takeovers(report, 3 if quick else 20))
