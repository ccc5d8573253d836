"""
Injects faults in lanes and times the recovery of each.

A lane does one fault after another, each kind in turn and in an order of its own seed; lanes run side by side, so that faults of different kinds
meet. Recovered is a fault when
the players that it hit see their match again or its end, the part that it hit is ready, and a ticket asked for after the fault has its match.
"""

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.chaos.faults import Fault, Maker
from bench.chaos.observer import Observer
from bench.chaos.system import Players, System, now_s

RECOVERY_S = 45.0
"""A fault that is not over after so long is counted as not recovered."""
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Injected:
    """One fault that was done."""

    kind: str
    target: str
    at_s: float
    ended_s: float
    recovered: bool
    missing: str
    """What was not well when patience ended."""

    @property
    def took_s(self) -> float:
        """From the injection until all was well."""
        return self.ended_s - self.at_s


class Injector:
    """Breaks one system."""

    def __init__(self, system: System, players: Players, log: Path) -> None:
        self._system, self._players = system, players
        self._observer = Observer(players.journal)
        self._log = log
        self.done: list[Injected] = []

    async def run(self, lanes: Sequence[Mapping[str, Maker]], *, seed: int, until_s: float, faults: int) -> None:
        """Inject until the time is over or so many were done."""

        async def lane(number: int, kinds: Mapping[str, Maker]) -> None:
            rng = random.Random(f"{seed}-{number}")
            turn: list[str] = []
            while now_s() < until_s and len(self.done) < faults:
                turn = turn or rng.sample(sorted(kinds), len(kinds))
                kind = turn.pop()
                fault = await asyncio.to_thread(kinds[kind], self._system, rng)  # it may ask a store that is slow
                if fault is None:
                    await asyncio.sleep(0.1)
                    continue
                self._note(await self._inject(kind, fault))
                await asyncio.sleep(rng.uniform(0.1, 0.5))

        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch(), name="watch")
            working = [tasks.create_task(lane(n, kinds), name=f"lane-{n}") for n, kinds in enumerate(lanes) if kinds]
            await asyncio.wait(working)
            watching.cancel()

    async def warm_up(self, tickets: int) -> None:
        """Wait until so many tickets have got their matches. Raises TimeoutError."""
        async with asyncio.timeout(60):
            while self._observer.counts["assigned"] < tickets:
                self._players.check()
                self._observer.read()
                await asyncio.sleep(_LOOK_S)

    async def _watch(self) -> None:
        while True:
            self._players.check()
            self._observer.read()
            await asyncio.sleep(_LOOK_S)

    async def _inject(self, kind: str, fault: Fault) -> Injected:
        self._observer.read()
        hit = self._observer.on(fault.servers)
        at_s = now_s()
        await fault.run()
        missing = "?"
        while missing and now_s() - at_s < RECOVERY_S:
            await asyncio.sleep(_LOOK_S)
            missing = await self._missing(fault, hit, at_s)
        ended_s = now_s()
        # Nobody waits for this any more but the next fault: Sentinels take 10 s to tell an old primary what it is.
        while not await asyncio.to_thread(fault.healed):
            await asyncio.sleep(_LOOK_S)
            if now_s() - at_s > RECOVERY_S:
                missing = missing or f"{fault.target} is not whole again"
                break
        return Injected(
            kind=kind, target=fault.target, at_s=at_s, ended_s=ended_s, recovered=not missing, missing=missing
        )

    async def _missing(self, fault: Fault, hit: list[str], at_s: float) -> str:
        for player in hit:
            sight = self._observer.sights[player]
            if sight.at_s < at_s + 0.2 or (fault.gone and sight.server in fault.servers):
                return f"player {player} has not seen its match since"
        if self._observer.placed_asked_s < at_s:
            return "no ticket asked for since has a match"
        if fault.program is not None and not await fault.program.is_ready():
            return f"{fault.program.name} is not ready"
        return ""

    def _note(self, injected: Injected) -> None:
        self.done.append(injected)
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**asdict(injected), "took_s": injected.took_s}) + "\n")
