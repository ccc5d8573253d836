"""
How full servers are: a recorded evening of matches, replayed on the real shelf, keeper and planner.

The trace is made by `trace(seed)` below and is the same every time: two hours in which arrivals swell and fall (a Poisson process whose rate follows
half a sine, 6 to 60 matches a minute), matches last log-normally (median 8 min, sigma 0.6). Fleet: 8 rooms a server, a shelf of 8 rooms, one keeper
round each 5 s of the trace. Efficiency is the time that matches need at least, were they moved together at every moment (matches ÷ rooms, rounded
up), over the server time that was spent: on servers with a match, and on all that the shelf held (the free rooms that it keeps claimable included).
"""

import asyncio
import heapq
import math
import random
import sys
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import uvloop

from allocator.keeper import ShelfKeeper
from allocator.model import Allocation, AllocationRequest, FleetPolicy, Strategy
from allocator.service import Allocator
from allocator.shelf import Shelf
from bench.allocator.claims import FLEET, valkey
from bench.report import Report
from gameserver.sessions.client import connect
from gameserver.sessions.model import MatchId, session_id

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from fakes import FakeBackend

ROOMS = 8
ROUND_S = 5.0
HOURS = 2.0


def trace(seed: int, hours: float) -> list[tuple[float, float]]:
    """(begin, length) of matches in s, in the order of their beginnings."""
    rng, now_s, found = random.Random(seed), 0.0, []
    while now_s < hours * 3600:
        per_s = (6 + 54 * math.sin(math.pi * now_s / (hours * 3600)) ** 2) / 60
        now_s += rng.expovariate(per_s)
        found.append((now_s, rng.lognormvariate(math.log(480), 0.6)))
    return found


@dataclass
class Spent:
    """Server time, in s."""

    needed: float = 0.0
    used: float = 0.0
    held: float = 0.0


async def replay(url: str, strategy: Strategy, matches: list[tuple[float, float]]) -> Spent:
    """Play the trace, in virtual time."""
    policy = FleetPolicy(name=FLEET, rooms=ROOMS, shelf=ROOMS, strategy=strategy)
    spent, ends, active = Spent(), [], 0
    async with aclosing(connect(url)) as client:
        await client.flushdb()
        backend, shelf = FakeBackend(FLEET, len(matches) // ROOMS), Shelf(client)
        keeper = ShelfKeeper(policy, shelf, client, backend)
        allocator = Allocator(shelf, client, [policy], backend)
        now_s, coming = 0.0, list(enumerate(matches))[::-1]
        while coming or ends:
            while await keeper.round():
                pass
            now_s += ROUND_S
            while ends and ends[0][0] <= now_s:
                await allocator.end(session_id(FLEET, MatchId(f"m{heapq.heappop(ends)[1]}")), reason="over")
                active -= 1
            while coming and coming[-1][1][0] <= now_s:
                index, (begin_s, length_s) = coming.pop()
                found = await allocator.allocate(
                    AllocationRequest(match=MatchId(f"m{index}"), fleets=(FLEET,), seats=()), deadline_s=5, wait=False
                )
                if isinstance(found, Allocation):
                    heapq.heappush(ends, (begin_s + length_s, index))
                    active += 1
                else:
                    coming.append((index, (begin_s, length_s)))  # more at once than the shelf has: at the next round
                    break
            state = await shelf.observe(FLEET)
            spent.needed += math.ceil(active / ROOMS) * ROUND_S
            spent.used += sum(bool(entry.sessions) for entry in state.entries) * ROUND_S
            spent.held += len(state.entries) * ROUND_S
    return spent


def measure(report: Report, quick: bool) -> None:
    """Replay the trace with both strategies."""
    matches = trace(4, 1.0 if quick else HOURS)
    report.add("matches of the trace", len(matches), "")
    with valkey() as url, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for strategy in Strategy:
            spent = runner.run(replay(url, strategy, matches))
            report.add(f"packing, {strategy}: servers needed ÷ servers with a match", spent.needed / spent.used, "")
            report.add(f"packing, {strategy}: servers needed ÷ servers held", spent.needed / spent.held, "")
