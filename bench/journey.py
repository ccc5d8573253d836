"""
From a ticket to the first snapshot: warm shelf against cold start; and from the command to all-ready.

`python -m bench.journey [--quick] [--json FILE]`. Starts whole systems (`warmfleet up`, as processes) and plays real matches of two players over REST and
WebSocket. The systems take turns within one run: the warm one has a shelf; the others keep no server at all, so that each of their matches
waits for a new process, started cold as a pod is, or forked as `warmfleet up` does by itself. Time is from just before the second player's POST to its
first snapshot.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.report import Report, arguments
from gameserver.client.matchmaking import Matchmaking, development_player
from gameserver.client.session import WorldSeen
from gameserver.client.websocket import GameClient

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from up import EXAMPLE, Up

COMMAND = "python -m bench.journey"
WARM = EXAMPLE.read_text().replace("max: 10", "max: 4").replace('"120"', '"1"')
FORKED = WARM.replace("shelf: 4, buffer: 1, min: 1", "shelf: 0, buffer: 0, min: 0").replace(
    "rooms: 4", "rooms: 1\n    recycle: replace"
)
COLD = FORKED.replace("rooms: 1\n", "rooms: 1\n    fork: false\n")
SYSTEMS = {"warm": WARM, "cold": COLD, "forked": FORKED}


async def first_snapshot_s(url: str) -> float:
    """One match of two new players; the second one's POST to its first snapshot, in s."""
    players = [await development_player(url, name) for name in ("ann", "bob")]
    async with Matchmaking(url, players[0][1]) as first, Matchmaking(url, players[1][1]) as second:
        bodies: list[list[dict[str, Any]]] = [[{"id": player, "attributes": {"rating": 1500}}] for player, _ in players]
        await first.create_ticket("duel", bodies[0])
        begun_s = time.perf_counter()
        ticket = await second.create_ticket("duel", bodies[1])
        assignment = await second.assignment(ticket["id"])
        address = f"ws://{assignment['host']}:{assignment['ports']['websocket']}"
        async with GameClient(address, assignment["token"]) as client:
            async for event in client.events():
                if isinstance(event, WorldSeen):
                    took_s = time.perf_counter() - begun_s
                    break
            async for _ in client.events():
                pass  # until the match is over, so that its server is free (or replaced) again
    return took_s


def start_up_s(folder: Path) -> float:
    """How long a system takes from the command to all-ready, in s."""
    folder.mkdir(exist_ok=True)
    begun_s = time.perf_counter()
    with Up(folder, WARM) as up:
        while "warmfleet is up" not in up.said():
            time.sleep(0.005)
        return time.perf_counter() - begun_s


def main() -> None:
    """Run the benchmark."""
    options = arguments(__doc__)
    rounds, starts = (5, 2) if options.quick else (30, 7)
    report = Report(COMMAND)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        took_s = [start_up_s(Path(folder) / f"start-{index}") for index in range(starts)]
        report.add("warmfleet up (installed) to all-ready, median", statistics.median(took_s), "s")
        ups: dict[str, Up] = {}
        for name, yaml in SYSTEMS.items():
            (Path(folder) / name).mkdir()
            ups[name] = stack.enter_context(Up(Path(folder) / name, yaml)).until_ready()
        times: dict[str, list[float]] = {name: [] for name in SYSTEMS}
        for _ in range(rounds):
            for name, up in ups.items():
                times[name].append(asyncio.run(first_snapshot_s(up.url)))
                time.sleep(1.0)  # the ended match's server is handed back or replaced
    for name, values in times.items():
        report.add(f"POST ticket to first snapshot, {name}, median", statistics.median(values) * 1e3, "ms")
        report.add(f"POST ticket to first snapshot, {name}, worst", max(values) * 1e3, "ms")
    ratio = statistics.median(c / w for c, w in zip(times["cold"], times["warm"], strict=True))
    report.add("cold ÷ warm, median of pairs", ratio, "×", goal=20.0, at_least=True)
    report.finish(options.json)


if __name__ == "__main__":
    main()
