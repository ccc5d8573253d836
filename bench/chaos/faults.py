"""
The faults: what is done to which process, for how long, and who is hit by it.

Each kind is a function of the system and a seeded generator that chooses a target, or returns None where there is none now. Owns no judgement:
whether all is well
again is told by the players (`observer.py`) and by the parts' own readiness.
"""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench.chaos.clocks import Clocks, jump_s
from bench.chaos.system import PARTS, Program, System


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault, chosen and not yet done."""

    target: str
    run: Callable[[], Awaitable[None]]
    """Does it, and undoes it where it is to be undone."""
    servers: frozenset[str] = frozenset()
    """Game servers whose players are hit."""
    gone: bool = False
    """Whether these servers do not come back."""
    program: Program | None = None
    """The part that must be ready again."""
    healed: Callable[[], bool] = lambda: True
    """Whether what was broken is whole again, so that the next fault of its lane may come; may block for a moment."""


Maker = Callable[[System, random.Random], Fault | None]


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process that may be gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def kill(pid: int) -> Callable[[], Awaitable[None]]:
    """SIGKILL, now."""

    async def run() -> None:
        send(pid, signal.SIGKILL)

    return run


def freeze(pid: int, for_s: float) -> Callable[[], Awaitable[None]]:
    """SIGSTOP for a while."""

    async def run() -> None:
        send(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(for_s)
        finally:
            send(pid, signal.SIGCONT)

    return run


def set_clock(clocks: Clocks, pid: int, ahead_s: float, for_s: float) -> Callable[[], Awaitable[None]]:
    """A wall clock that jumps, and jumps back after a while."""

    async def run() -> None:
        clocks.set(pid, ahead_s)
        try:
            await asyncio.sleep(for_s)
        finally:
            clocks.set(pid, 0.0)

    return run


def a_server(system: System, rng: random.Random) -> tuple[str, int] | None:
    """A game server that is up, with its process."""
    servers = sorted(system.game_servers().items())
    return rng.choice(servers) if servers else None


def kill_game_server(system: System, rng: random.Random) -> Fault | None:
    """Its sessions move with their last checkpoints."""
    found = a_server(system, rng)
    if found is None:
        return None
    return Fault(target=found[0], run=kill(found[1]), servers=frozenset({found[0]}), gone=True)


def freeze_game_server(system: System, rng: random.Random) -> Fault | None:
    """For less or more than its sign of life lasts: its sessions stay or move."""
    found = a_server(system, rng)
    if found is None:
        return None
    return Fault(target=found[0], run=freeze(found[1], rng.uniform(0.5, 7.0)), servers=frozenset({found[0]}))


def _killing(part: str) -> Maker:
    def make(system: System, rng: random.Random) -> Fault:
        program = rng.choice(system.replicas(part))
        return Fault(target=program.name, run=kill(program.pid), program=program)

    return make


def _freezing(part: str) -> Maker:
    def make(system: System, rng: random.Random) -> Fault:
        program = rng.choice(system.replicas(part))
        return Fault(target=program.name, run=freeze(program.pid, rng.uniform(0.5, 5.0)), program=program)

    return make


def clocks_of(clocks: Clocks) -> tuple[dict[str, Maker], dict[str, Maker]]:
    """Jumps of the clocks of game servers, and of parts."""

    def of_game_server(system: System, rng: random.Random) -> Fault | None:
        found = a_server(system, rng)
        if found is None:
            return None
        run = set_clock(clocks, found[1], jump_s(rng), rng.uniform(0.5, 4.0))
        return Fault(target=found[0], run=run, servers=frozenset({found[0]}))

    def of_part(system: System, rng: random.Random) -> Fault:
        program = rng.choice(system.programs)
        run = set_clock(clocks, program.pid, jump_s(rng), rng.uniform(0.5, 4.0))
        return Fault(target=program.name, run=run, program=program)

    return {"clock of game server jumps": of_game_server}, {"clock of part jumps": of_part}


SERVERS: dict[str, Maker] = {"kill -9 game server": kill_game_server, "freeze game server": freeze_game_server}
PROCESSES: dict[str, Maker] = {
    **{f"kill -9 {part}": _killing(part) for part in PARTS},
    **{f"freeze {part}": _freezing(part) for part in PARTS},
}
