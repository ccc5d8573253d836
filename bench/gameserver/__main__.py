"""
What a game server costs, against Colyseus and against `websockets.broadcast()`.

`python -m bench.gameserver [--quick] [--json FILE] [PART…]`. Workload A: one room, N players, 20 inputs a second each, 30 Hz, everyone moves on both axes and
sees everyone. Every measurement starts a fresh server, loads it from one other process, and takes the server's CPU time from its own accounting. The sides
alternate within each round; a ratio is the median of the rounds' ratios. Colyseus is installed from npm at its newest release; the server is measured from its
sources and, where there is a C compiler, compiled as images have it. Parts: `workload` (with the
share of encryption, and the floor of plain sendmmsg), `capacity` (players at 80 % of a core, and past the knee), `bytes` (half of the entities
moving; a thousand with interest management), `metrics`, `lateness`, `start`. All of them take about eight minutes.
"""

import asyncio
import json
import statistics
import sys
from collections.abc import Mapping, Sequence

from bench.gameserver import capacity, colyseus, compiled, datagrams, lateness, metering, sides, start
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


_COMPILED = ", compiled"
"""Ends the names of what needs a compiler."""
SIDES: dict[str, sides.Side] = {
    "WebSocket": sides.ours,
    "UDP, encrypted": sides.udp,
    f"WebSocket{_COMPILED}": sides.ours_compiled,
    f"UDP, encrypted{_COMPILED}": sides.udp_compiled,
    "websockets.broadcast()": sides.broadcast,
    "Colyseus": sides.peer,
}


def _per_snapshot(seen: dict[str, float]) -> float:
    """CPU for the whole work: a server that falls behind its 30 Hz, on a busy machine say, has not done all of it."""
    return seen["cpu"] / min(seen["snapshots_hz"] / 30, 1.0)


async def workload_a(
    report: Report, known: Mapping[str, sides.Side], players: int, rounds: int, *, warm_s: float, measure_s: float
) -> None:
    """CPU of one room, on the sides that there are here."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in known}
    for _ in range(rounds):
        for name, side in known.items():
            found[name].append(await run(side, players, warm_s=warm_s, measure_s=measure_s))
    medians = {
        name: {key: statistics.median(result[key] for result in results) for key in results[0]}
        for name, results in found.items()
    }
    for name, median in medians.items():
        report.add(f"{name}, {players} players: CPU", 100 * median["cpu"], "% of a core")
        report.add("  snapshots a second and player", median["snapshots_hz"], "Hz")
        report.add("  bytes a second and player", median["bytes_per_client_s"], "B/s")
        report.add("  the load's own CPU", 100 * median["load_cpu"], "% of a core")
    for name, other in (
        ("WebSocket, compiled", "Colyseus"), ("WebSocket, compiled", "websockets.broadcast()"),
        ("UDP, encrypted, compiled", "Colyseus"),
        ("WebSocket", "Colyseus"), ("WebSocket", "websockets.broadcast()"), ("UDP, encrypted", "Colyseus"),
    ):  # fmt: skip
        if name not in found:
            continue
        ratios = [_per_snapshot(a) / _per_snapshot(b) for a, b in zip(found[name], found[other], strict=True)]
        goal = 0.6 if players >= 200 else None
        report.add(f"{name} ÷ {other}, {players} players: CPU", statistics.median(ratios), "×", goal=goal)
        report.add(f"  of {rounds} rounds", f"{min(ratios):.2f} to {max(ratios):.2f}", "×")
    sent = medians["UDP, encrypted"]
    datagrams.measure(report, players, sent["cpu"], sent["bytes_per_client_s"] / sent["snapshots_hz"])


async def workloads(report: Report, known: Mapping[str, sides.Side], *, quick: bool) -> None:
    """Workload A at its sizes."""
    for players, rounds in ((50, 1), (200, 1)) if quick else ((50, 1), (200, 3), (400, 3)):
        await workload_a(report, known, players, rounds, warm_s=1.5, measure_s=2.0 if quick else 3.0)


async def sizes(report: Report, *, quick: bool) -> None:
    """Bytes, which no machine's speed changes."""
    players, measure_s = (50 if quick else 200), (2.0 if quick else 4.0)
    moving = [await run(side, players, warm_s=1.5, measure_s=measure_s, still=0.5) for side in (sides.ours, sides.peer)]
    ours, peer = (seen["bytes_per_client_s"] for seen in moving)
    report.add(f"bytes a second and player, half of {players} moving: ours", ours, "B/s")
    report.add("  Colyseus' patches", peer, "B/s")
    report.add("  ours ÷ Colyseus", ours / peer, "×", goal=0.5)
    near, whole = [
        (await run(side, 50, warm_s=1.5, measure_s=measure_s))["bytes_per_client_s"]
        for side in (sides.near, sides.whole)
    ]
    report.add("1,000 entities, 50 players, with interest management", near, "B/s")
    report.add("  without", whole, "B/s")
    report.add("  with ÷ without: bytes", near / whole, "×", goal=0.1)


PARTS = ("workload", "capacity", "bytes", "metrics", "lateness", "start")


async def measure(report: Report, parts: Sequence[str], *, quick: bool) -> None:
    """Measure what needs a loop."""
    if {"workload", "capacity", "bytes"} & set(parts):
        report.add("Colyseus", await asyncio.to_thread(colyseus.install), "version")
    if {"workload", "capacity"} & set(parts):
        lacking = await asyncio.to_thread(compiled.install)
        report.add("compiled", lacking.partition("\n")[0] or "as images have it", "")
        known = {name: side for name, side in SIDES.items() if not (lacking and name.endswith(_COMPILED))}
        if "workload" in parts:
            await workloads(report, known, quick=quick)
        if "capacity" in parts:
            ladder = {name: known[name] for name in ("WebSocket, compiled", "WebSocket", "Colyseus") if name in known}
            await capacity.measure(report, run, ladder, quick=quick)
    if "bytes" in parts:
        await sizes(report, quick=quick)
    if "metrics" in parts:
        loaded = await run(sides.ours, metering.PLAYERS, warm_s=1.5, measure_s=2.0 if quick else 4.0)
        await metering.measure(report, server_cpu=loaded["cpu"], quick=quick)
    if "lateness" in parts:
        await lateness.measure(report, quick=quick)


def main() -> None:
    """Run the benchmark."""
    options = arguments(__doc__, parts=PARTS)
    parts = options.parts or PARTS
    report = Report(" ".join([COMMAND, *options.parts]) + (" --quick" if options.quick else ""))
    asyncio.run(measure(report, parts, quick=options.quick))
    if "start" in parts:
        start.measure(report, options.quick)
    report.finish(options.json)


if __name__ == "__main__":
    main()
