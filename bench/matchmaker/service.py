"""
Players from POST to assigned, through real processes: how long they wait, how many the matchmaker serves, and what each process pays for a ticket.

Valkey, one API process, one director process with the real allocator, whose shelf is filled with real rooms before, and the players in a process of
their own (`load`), who follow their tickets by server-sent events. They play in a closed loop: so many at once, each posts again when it is assigned;
then as many post by the clock, half as often as the closed loop was served, for the wait that a load leaves which is not the most.
All of it shares this machine's cores, so that what a core would serve is told beside what was served: the inverse of the busiest process's CPU.
"""

import asyncio
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from bench.matchmaker.load import play
from bench.matchmaker.system import QUEUES, cpu_s, fill_shelf, heard, process, serving
from bench.report import Report
from fleets.local.valkey import EmbeddedValkey

GOAL_PER_S = 1500
MANY = 400
"""Players at once that keep it busy."""


@contextmanager
def playing(port: int, queue: str, players: int, seconds: float, per_s: float = 0.0) -> Iterator[Any]:
    """So many players at once, and tickets a second (0: as many as are served); gives what the process says."""
    with process(play, port, queue, players, per_s, 1.0, seconds) as (pid, says):
        yield pid, says


def run(
    port: int, pids: dict[str, int], queue: str, players: int, seconds: float, per_s: float = 0.0
) -> tuple[float, list[float], dict[str, float]]:
    """(tickets assigned a second, waits in s, CPU of each process in s a ticket)."""
    with playing(port, queue, players, seconds, per_s) as (player, says):
        pids = {**pids, "players": player}
        heard(says)
        before = {name: cpu_s(pid) for name, pid in pids.items()}
        heard(says, seconds + 30)
        used = {name: cpu_s(pid) - before[name] for name, pid in pids.items()}
        per_s, waits_s, failed = heard(says)
    if failed or not waits_s:
        raise RuntimeError(f"players were not assigned: {failed}")
    return per_s, waits_s, {name: spent / (per_s * seconds) for name, spent in used.items()}


async def loads(report: Report, quick: bool) -> None:
    """A few players at once, for the wait; then as many as keep it busy."""
    seconds = 3.0 if quick else 15.0
    with tempfile.TemporaryDirectory() as folder:
        async with EmbeddedValkey(Path(folder)) as valkey:
            await fill_shelf(valkey.url, 60_000)
            with redis.Redis.from_url(valkey.url) as client:
                pid = int(client.info("server")["process_id"])  # type: ignore[index]
            with serving(valkey.url) as (port, pids):
                for queue in QUEUES:
                    teams = f"{queue.players // 2} against {queue.players // 2}"
                    for at_once in (queue.players, MANY):
                        found = run(port, {**pids, "Valkey": pid}, queue.name, at_once, seconds)
                        _report(report, f"{teams}, {at_once} players at once", at_once, *found)
                    per_s, waits_s, _ = run(port, pids, queue.name, MANY, seconds, found[0] / 2)
                    _report_waits(report, f"{teams}, {per_s:,.0f} tickets a second", waits_s, goal_ms=50.0)


def _report(
    report: Report, where: str, at_once: int, per_s: float, waits_s: list[float], cost_s: dict[str, float]
) -> None:
    _report_waits(report, where, waits_s)
    busy = at_once == MANY
    report.add(f"{where}: tickets assigned", per_s, "1/s", goal=GOAL_PER_S if busy else None, at_least=True)
    if busy:
        for name, spent in cost_s.items():
            report.add(f"{where}: CPU of the {name}, a ticket", spent * 1e6, "µs")
        served = 1 / max(cost_s[name] for name in ("API", "director", "Valkey"))
        report.add(
            f"{where}: tickets that a core for each process would serve", served, "1/s", goal=GOAL_PER_S, at_least=True
        )


def _report_waits(report: Report, where: str, waits_s: list[float], *, goal_ms: float | None = None) -> None:
    quantiles = statistics.quantiles(waits_s, n=100, method="inclusive")
    report.add(f"{where}: POST to assigned, median of {len(waits_s):,}", statistics.median(waits_s) * 1e3, "ms")
    report.add(f"{where}: POST to assigned, p99", quantiles[98] * 1e3, "ms", goal=goal_ms)


def measure(report: Report, quick: bool) -> None:
    """Measure it."""
    asyncio.run(loads(report, quick))
