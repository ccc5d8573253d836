"""Faults of what a process is given and of what it leans on: descriptors, memory, an end that is asked for, and the cluster's API."""

import asyncio
import random
import re
import resource
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.chaos.faults import Fault, Maker, a_server, send
from bench.chaos.system import System

SPARE_BYTES = 4 * 1024 * 1024
"""Of address space, beyond what a process has."""


def starve(pid: int, kind: int, limit: Callable[[int], int], for_s: float) -> Callable[[], Awaitable[None]]:
    """Lower a limit of a process for a while."""

    async def run() -> None:
        try:
            before = resource.prlimit(pid, kind)
            resource.prlimit(pid, kind, (limit(pid), before[1]))
            await asyncio.sleep(for_s)
            resource.prlimit(pid, kind, before)
        except (ProcessLookupError, FileNotFoundError):
            return  # it did not survive, and is started again without

    return run


def descriptors(pid: int) -> int:
    """As many as it has open: no connection more."""
    return max(int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()) + 1


def memory(pid: int) -> int:
    """Hardly more than it has."""
    found = re.search(r"VmSize:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 + SPARE_BYTES if found else resource.RLIM_INFINITY


def _of_part(kind: int, limit: Callable[[int], int]) -> Maker:
    def make(system: System, rng: random.Random) -> Fault:
        program = rng.choice(system.programs)
        run = starve(program.pid, kind, limit, rng.uniform(1.0, 4.0))
        return Fault(target=program.name, run=run, program=program)

    return make


def _of_game_server(kind: int, limit: Callable[[int], int]) -> Maker:
    def make(system: System, rng: random.Random) -> Fault | None:
        found = a_server(system, rng)
        if found is None:
            return None
        run = starve(found[1], kind, limit, rng.uniform(1.0, 4.0))
        return Fault(target=found[0], run=run, servers=frozenset({found[0]}))

    return make


def stop_part(system: System, rng: random.Random) -> Fault:
    """SIGTERM, as in a deployment: it finishes what it does, says that it goes, and another comes."""
    program = rng.choice(system.programs)

    async def run() -> None:
        send(program.pid, signal.SIGTERM)

    return Fault(target=program.name, run=run, program=program)


def stop_game_server(system: System, rng: random.Random) -> Fault | None:
    """SIGTERM, as when a node is drained: its matches are finished, or moved once its time is over."""
    found = a_server(system, rng)
    if found is None:
        return None

    async def run() -> None:
        send(found[1], signal.SIGTERM)

    return Fault(target=found[0], run=run, servers=frozenset({found[0]}))


def cluster_away(system: System, rng: random.Random) -> Fault:
    """The Kubernetes API refuses connections, and breaks those that there are."""
    for_s = rng.uniform(1.0, 4.0)

    async def run() -> None:
        async with system.agones.api_away():
            await asyncio.sleep(for_s)

    return Fault(target="API server", run=run)


SERVERS: dict[str, Maker] = {
    "stop game server (SIGTERM)": stop_game_server,
    "game server without descriptors": _of_game_server(resource.RLIMIT_NOFILE, descriptors),
    "game server without memory": _of_game_server(resource.RLIMIT_AS, memory),
}
PROCESSES: dict[str, Maker] = {
    "stop part (SIGTERM)": stop_part,
    "part without descriptors": _of_part(resource.RLIMIT_NOFILE, descriptors),
    "part without memory": _of_part(resource.RLIMIT_AS, memory),
    "Kubernetes API away": cluster_away,
}
