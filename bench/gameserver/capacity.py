"""
How many players one room has at 80 % of a core, and what happens when a tick asks for more than there is.

Players are added in steps until the server's CPU passes 80 % or its clients miss snapshots; the number is read off between the last two steps. Past the knee: a
game whose step alone takes one and a half times its tick, with 200 players who go on sending.
"""

import time
from collections.abc import Mapping
from typing import ClassVar

from bench.gameserver import sides
from bench.gameserver.swarm import Swarm
from bench.report import Report

FULL = 0.8
RATE_HZ = 30


class Heavy(Swarm):
    """A game that asks for more than there is."""

    asks_s: ClassVar[float] = 1.5 / RATE_HZ

    def step(self, dt_s: float) -> None:
        """Move, and once everyone is here burn CPU."""
        super().step(dt_s)
        until_s = time.thread_time() + self.asks_s
        while len(self._seats) == self.room.seats and time.thread_time() < until_s:
            pass


async def measure(report: Report, run: sides.Run, ladder: Mapping[str, sides.Side], *, quick: bool) -> None:
    """Add the rows; Colyseus is one of the `ladder`, to which the others are compared."""
    steps = (200, 400) if quick else (600, 1000, 1400, 1800, 2400, 3000, 3600)
    found = {name: await _players(run, side, steps) for name, side in ladder.items()}
    for name, (players, reached, hz) in found.items():
        more = "" if reached else " or more"
        report.add(f"players of one room at {FULL:.0%} of a core, {name}{more}", players, "")
        report.add("  snapshots a second and player at the last step", hz, "Hz")
    for name in (name for name in ladder if name != "Colyseus"):
        ratio = found[name][0] / found["Colyseus"][0]
        report.add(f"{name} ÷ Colyseus: players", ratio, "×", goal=None if quick else 1.5, at_least=True)
    knee = await run(sides.heavy, 200, warm_s=1.0, measure_s=2.0 if quick else 4.0)
    # Of the CPU that it was given: on a machine that does other work too it is less than a core.
    most_hz = knee["cpu"] / Heavy.asks_s
    report.add("past the knee: ticks a second", knee["snapshots_hz"], "Hz")
    report.add(
        "  of those that the game's own step would leave", knee["snapshots_hz"] / most_hz, "", goal=0.8, at_least=True
    )
    report.add("  connections lost", knee["lost"], "", goal=0)


async def _players(run: sides.Run, side: sides.Side, steps: tuple[int, ...]) -> tuple[float, bool, float]:
    """(players at `FULL`, whether it was reached, snapshots a second at the last step)."""
    before = (0, 0.0)
    for count in steps:
        seen = await run(side, count, warm_s=2.0, measure_s=3.0)
        cpu, hz = seen["cpu"], seen["snapshots_hz"]
        if cpu >= FULL or hz < 0.9 * RATE_HZ:
            share = min((FULL - before[1]) / (cpu - before[1]), 1.0) if cpu > before[1] else 1.0
            return before[0] + share * (count - before[0]), True, hz
        before = count, cpu
    return before[0], False, hz
