"""
How fast a game server is Ready, cold and forked from a warm zygote, and what a forked one adds in memory.

Both fleets run the arena under one local Agones on a real Valkey, and grow by one server in turn. Timed from the request for the process
to Ready: settings, sidecar, store and listeners are in it both times. Memory is the growth of the whole fleet's PSS by one server
(/proc/PID/smaps_rollup), zygote and spare included.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import uvloop

from allocator.model import ServerState
from bench.report import Report
from fleets.local.agones import LocalAgones
from fleets.local.planner import LocalFleet
from fleets.local.process import ServerProcess
from fleets.local.valkey import EmbeddedValkey
from gameserver.seats import SeatIssuer
from gameserver.sessions.model import FleetName

ARENA = "gameserver.games.arena:Arena"
_SETTLE_S = 1.0
"""Until a zygote has forked its next server ahead."""
COLD, FORKED = FleetName("cold"), FleetName("forked")


class _Timed(LocalAgones):
    """Notes when each process was asked for."""

    asked_s: float = 0.0

    async def _process(self, spec: LocalFleet, env: Mapping[str, str], path: Path) -> ServerProcess:
        self.asked_s = time.perf_counter()
        return await super()._process(spec, env, path)


def measure(report: Report, quick: bool) -> None:
    """Measure, and add the rows."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_measure(report, 4 if quick else 15))


async def _measure(report: Report, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "valkey").mkdir()
        async with EmbeddedValkey(folder / "valkey") as valkey:
            fleets = [_fleet(COLD, "", valkey.url, rounds), _fleet(FORKED, ARENA, valkey.url, rounds)]
            async with _Timed(fleets, logs=folder / "logs") as agones:
                times: dict[FleetName, list[float]] = {COLD: [], FORKED: []}
                await _grow(agones, FORKED, 1)  # starts the zygote
                await asyncio.sleep(_SETTLE_S)
                first_kb = _pss_kb(agones)
                for count in range(1, rounds + 1):
                    times[COLD].append(await _grow(agones, COLD, count))
                    times[FORKED].append(await _grow(agones, FORKED, count + 1))
                await asyncio.sleep(_SETTLE_S)
                added_kb = (_pss_kb(agones) - first_kb) / rounds
                cold_kb = _pss_kb(agones, COLD) / rounds
    ratios = [cold / forked for cold, forked in zip(times[COLD], times[FORKED], strict=True)]
    report.add("cold process to Ready, median", statistics.median(times[COLD]) * 1000, "ms")
    report.add("forked from a zygote to Ready, median", statistics.median(times[FORKED]) * 1000, "ms")
    report.add("forked to Ready, worst", max(times[FORKED]) * 1000, "ms")
    report.add("cold ÷ forked, median of pairs", statistics.median(ratios), "", goal=15, at_least=True)
    report.add("memory that a forked server adds (PSS)", added_kb * 1024 / 1e6, "MB", goal=10)
    report.add("memory of a cold server (PSS)", cold_kb * 1024 / 1e6, "MB")


def _fleet(name: FleetName, game: str, valkey_url: str, rounds: int) -> LocalFleet:
    env = {
        "WARMFLEET_GAME": ARENA,
        "WARMFLEET_FLEET": name,
        "WARMFLEET_SEAT_KEYS": SeatIssuer(bytes(32)).public_key,
        "WARMFLEET_VALKEY_URL": valkey_url,
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = (sys.executable, "-m", "gameserver")
    return LocalFleet(
        name=name, command=command, game=game, env=env, ports=("websocket",), buffer=0, max=rounds + 1, drain_timeout_s=1.0
    )  # fmt: skip


async def _grow(agones: _Timed, fleet: FleetName, count: int) -> float:
    """Have one server more; returns how long it took from its request to Ready, in s."""
    agones.set_buffer(fleet, count)
    async with asyncio.timeout(60):
        while sum(server.state is ServerState.READY for server in await agones.servers(fleet)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.0005)
    return time.perf_counter() - agones.asked_s


def _pss_kb(agones: LocalAgones, only: FleetName = FORKED) -> int:
    """Proportional memory of a fleet's processes, in kB; its zygote with it."""
    pids = [s.pid for status in agones.status() if status.fleet.name == only for s in status.servers]
    if only == FORKED:
        pids += [pid for zygote in agones.zygotes() for pid in _group(zygote)]
    return sum(_pss_of(pid) for pid in pids)


def _group(leader: int) -> list[int]:
    """A zygote, and the server that it has forked ahead."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [pid for pid in pids if os.getpgid(pid) == leader]


def _pss_of(pid: int) -> int:
    lines: Sequence[str] = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
