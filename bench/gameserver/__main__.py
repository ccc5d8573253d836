"""
What a game server costs, against Colyseus and against `websockets.broadcast()`.

`python -m bench.gameserver [--quick] [--json FILE]`. Workload A: one room, N players, 20 inputs a second each, 30 Hz, everyone moves on both axes and sees
everyone. Every measurement starts a fresh server, loads it from one other process, and takes the server's CPU time from its own accounting. The sides
alternate within each round; a ratio is the median of the rounds' ratios. Colyseus is installed from npm at its newest release.
"""

import asyncio
import json
import statistics
import sys
from collections.abc import Sequence

from bench.gameserver import colyseus, lateness, metering, sides, start
from bench.report import Report, arguments

COMMAND = "python -m bench.gameserver"


async def run(
    side: sides.Side, players: int, *, warm_s: float, measure_s: float, still: float = 0.0
) -> dict[str, float]:
    """One measurement: what `load` says."""
    async with side(players) as running:
        order = {
            "kind": running.kind, "pid": running.pid, "port": running.port, "tokens": running.tokens(players),
            "warm_s": warm_s, "measure_s": measure_s, "still": still,
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.gameserver.load", cwd=sides.ROOT,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await process.communicate(json.dumps(order).encode())
        if process.returncode:
            raise RuntimeError(f"the load failed against {side.__name__}")
        result: dict[str, float] = json.loads(out)
        return result


SIDES: dict[str, sides.Side] = {
    "WebSocket": sides.ours,
    "UDP, encrypted": sides.udp,
    "websockets.broadcast()": sides.broadcast,
    "Colyseus": sides.peer,
}


async def workload_a(report: Report, players: Sequence[int], rounds: int, warm_s: float, measure_s: float) -> None:
    """CPU of one room, by number of players."""
    for count in players:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
        for _ in range(rounds):
            for name, side in SIDES.items():
                found[name].append(await run(side, count, warm_s=warm_s, measure_s=measure_s))
        for name, results in found.items():
            median = {key: statistics.median(result[key] for result in results) for key in results[0]}
            report.add(f"{name}, {count} players: CPU", 100 * median["cpu"], "% of a core")
            report.add("  snapshots a second and player", median["snapshots_hz"], "Hz")
            report.add("  bytes a second and player", median["bytes_per_client_s"], "B/s")
            report.add("  the load's own CPU", 100 * median["load_cpu"], "% of a core")
        for name, other in (
            ("WebSocket", "Colyseus"), ("WebSocket", "websockets.broadcast()"), ("UDP, encrypted", "Colyseus"),
        ):  # fmt: skip
            ratios = [a["cpu"] / b["cpu"] for a, b in zip(found[name], found[other], strict=True)]
            goal = 0.6 if count >= 200 else None
            report.add(f"{name} ÷ {other}, {count} players: CPU", statistics.median(ratios), "×", goal=goal)
            report.add(f"  of {rounds} rounds", f"{min(ratios):.2f} to {max(ratios):.2f}", "×")


async def measure(report: Report, *, quick: bool) -> None:
    """Measure all of it."""
    report.add("Colyseus", await asyncio.to_thread(colyseus.install), "version")
    players, rounds = ((50, 200), 1) if quick else ((50, 200, 400), 5)
    await workload_a(report, players, rounds, 2.0 if quick else 3.0, 2.0 if quick else 5.0)
    loaded = await run(sides.ours, metering.PLAYERS, warm_s=2.0, measure_s=2.0 if quick else 5.0)
    await metering.measure(report, server_cpu=loaded["cpu"], quick=quick)
    await lateness.measure(report, quick=quick)


def main() -> None:
    """Run the benchmark."""
    options = arguments(__doc__)
    report = Report(COMMAND + (" --quick" if options.quick else ""))
    asyncio.run(measure(report, quick=options.quick))
    start.measure(report, options.quick)
    report.finish(options.json)


if __name__ == "__main__":
    main()
