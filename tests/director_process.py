"""
A director in a process of its own, with the real allocator over the real shelf: to be killed, stopped and taken over from.

`python director_process.py URL DEADLINE_S`: prints `leads` when it does for the first time, then goes on until it is killed.
"""

import asyncio
import sys

from fakes import FakeBackend
from matchmaking import DUEL, FLEET

import matchmaker.placing
from allocator.model import FleetPolicy
from allocator.service import Allocator
from allocator.shelf import Shelf
from gameserver.sessions.client import connect
from matchmaker.director import Director
from matchmaker.store import TicketStore


async def direct(url: str, deadline_s: float) -> None:
    matchmaker.placing.DEADLINE_S = deadline_s
    client = connect(url)
    allocator = Allocator(Shelf(client), client, [FleetPolicy(name=FLEET)], FakeBackend(FLEET))
    director = Director(DUEL, TicketStore(client), allocator)
    task = asyncio.create_task(director.run())
    while not director.leading:
        await asyncio.sleep(0.01)
    print("leads", flush=True)
    await task


if __name__ == "__main__":
    asyncio.run(direct(sys.argv[1], float(sys.argv[2])))
