"""
How late ticks begin on an idle machine, and what collecting garbage adds: `python -m bench.gameserver.lateness MODE SECONDS`, one process per mode.

Modes: `loop` sleeps by the event loop's own timers, `metronome` by the product's; `+gc` leaves garbage collection to the interpreter while a game makes
garbage in cycles, `+kept` has the metronome collect the same garbage between ticks.
"""

import asyncio
import gc
import json
import resource
import sys
import time

import uvloop

from bench.gameserver.sides import ROOT
from bench.report import Report
from gameserver.metronome import Metronome
from gameserver.tick import TickClock

RATE_HZ = 30


class Cycle:
    """Garbage that only a collection finds."""

    def __init__(self) -> None:
        self.me = self


async def tick(mode: str, duration_s: float) -> dict[str, float]:
    """Run ticks; lateness and the longest collection within a tick, in ms, and the CPU that it took."""
    pauses: list[float] = []
    begun = [0.0]
    ticking = [False]

    def on_collection(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            begun[0] = time.perf_counter()
        elif ticking[0]:
            pauses.append(time.perf_counter() - begun[0])

    gc.callbacks.append(on_collection)
    live = [Cycle() for _ in range(100_000)]  # a game's objects, which every full collection looks at
    late: list[float] = []
    with Metronome(collect=mode.endswith("+kept")) as metronome:
        live += [Cycle() for _ in range(100_000)]
        sleep = asyncio.sleep if mode.startswith("loop") else metronome.sleep
        clock = TickClock(RATE_HZ, time.perf_counter())
        end_s = time.perf_counter() + duration_s
        cpu_s = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        while time.perf_counter() < end_s:
            await sleep(clock.wait_s(time.perf_counter()))
            late.append(clock.ticked(time.perf_counter()))
            ticking[0] = True
            if "+" in mode:
                for _ in range(1000):
                    Cycle()
            ticking[0] = False
        cpu_s = sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - cpu_s
    late.sort()
    return {
        "p50_ms": late[len(late) // 2] * 1000, "p99_ms": late[len(late) * 99 // 100] * 1000,
        "cpu": cpu_s / duration_s, "pause_ms": max(pauses, default=0.0) * 1000,
    }  # fmt: skip


async def measure(report: Report, *, quick: bool) -> None:
    """Add the rows."""
    for mode in ("loop", "metronome", "metronome+gc", "metronome+kept"):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.gameserver.lateness", mode, "3" if quick else "10", cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        found = json.loads((await process.communicate())[0])
        goal = 0.5 if mode == "metronome" else None
        report.add(f"tick lateness, {mode}: p99 at {RATE_HZ} Hz", found["p99_ms"], "ms", goal=goal)
        report.add("  median", found["p50_ms"], "ms")
        report.add("  CPU of the process", 100 * found["cpu"], "% of a core")
        if "+" in mode:
            report.add("  longest collection within a tick", found["pause_ms"], "ms")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(tick(sys.argv[1], float(sys.argv[2])))))
