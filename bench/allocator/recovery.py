"""
Matches whose servers die, and matches whose servers drain, as their players see them.

A whole `warmfleet up` runs arena servers; bots play matches of two on them over real WebSockets and find their way back by the public API alone. In
turn a server that has matches is killed (`kill -9`) or drained, until so many matches have been through it. From the kill to the first
snapshot of the new server counts for each player; for a hand-over, the longest gap between two snapshots around it.
"""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.report import Report
from fleets.home import Home
from gameserver.client.link import Link, Lost, Over, TakenOver, dialer
from gameserver.client.matchmaking import Matchmaking, development_player
from gameserver.client.session import WorldSeen

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from up import Up

CHECKPOINT_S = 1.0
TICK_RATE = 30
PAIRS = 6
YAML = f"""
apiVersion: warmfleet.dev/v1
kind: Fleet
metadata: {{name: arena}}
spec:
  server: {{game: "gameserver.games.arena:Arena", tickRate: {TICK_RATE}, rooms: 2, seats: 2, checkpointInterval: {CHECKPOINT_S:g}s}}
  warm: {{shelf: 4, buffer: 1, min: 2, max: 12}}
  disruption: {{drainTimeout: 30s, onDrain: migrate}}
---
apiVersion: warmfleet.dev/v1
kind: Queue
metadata: {{name: duel}}
spec:
  fleets: [arena]
  teams: [{{name: red, players: 1}}, {{name: blue, players: 1}}]
  options: {{map: duel, duration_s: "36000"}}
"""


@dataclass(slots=True)
class Bot:
    """One player in one endless match, and what it sees."""

    url: str
    session: str = ""
    server: str = ""
    tick: int = 0
    seen_s: float = 0.0
    ended: str = ""
    left: int = 0
    """Ticks by which the newest move went back."""
    gap_s: float = 0.0
    """Longest gap between snapshots since it was set to 0."""
    moved: int = 0
    lost: int = 0
    first_s: float = 0.0
    """When the first snapshot of the present server came."""
    _fresh: bool = field(default=False)

    async def play(self, name: str) -> None:
        """Queue, play and follow the match."""
        player, token = await development_player(self.url, name)
        async with Matchmaking(self.url, token) as matchmaking:
            ticket = await matchmaking.create_ticket("duel", [{"id": player, "attributes": {}}])
            assignment = await matchmaking.assignment(ticket["id"])
            self.session = assignment["session"]
            ask: Callable[[str], Any] = lambda session: matchmaking.seat(session, patience_s=0.0)  # noqa: E731
            async with Link(assignment, ask, dialer()) as link:
                acting = asyncio.create_task(self._act(link))
                try:
                    await self._follow(link)
                finally:
                    acting.cancel()
                    await asyncio.wait([acting])

    async def _follow(self, link: Link) -> None:
        async for event in link.events():
            match event:
                case TakenOver(assignment=assignment, again=again):
                    self.server, self._fresh = assignment["server"], True
                    self.moved += again
                case WorldSeen(tick=tick):
                    now = time.monotonic()
                    if self._fresh:
                        self.left, self.first_s, self._fresh = max(0, self.tick - tick), now, False
                    if self.seen_s:
                        self.gap_s = max(self.gap_s, now - self.seen_s)
                    self.tick, self.seen_s = tick, now
                case Lost():
                    self.lost += 1
                case Over(reason=reason):
                    self.ended = reason or "over"
                case _:
                    pass

    async def _act(self, link: Link) -> None:
        while True:
            if link.connection is not None and link.connection.session.world is not None:
                await link.send_input(move_x=0.5, fire=True)
            await asyncio.sleep(0.1)


class Stage:
    """The system, and all matches on it."""

    def __init__(self, up: Up) -> None:
        self.url = up.url
        token = Home(up.folder / ".warmfleet").running().operator_token
        self._http = httpx.AsyncClient(
            base_url=up.url, headers={"Authorization": f"Bearer {token}"}, timeout=10, trust_env=False
        )
        self.bots = [Bot(up.url) for _ in range(2 * PAIRS)]

    async def servers(self) -> dict[str, dict[str, Any]]:
        """Servers by name."""
        fleets = (await self._http.get("/v1/fleets")).json()["fleets"]
        return {server["name"]: server for server in fleets[0]["servers"]}

    async def drain(self, server: str) -> None:
        """Tell a server to go."""
        (await self._http.post(f"/v1/servers/{server}/drain")).raise_for_status()

    async def settled(self) -> None:
        """Until every match runs and the shelf is full again."""
        async with asyncio.timeout(120):
            while True:
                shelf = (await self._http.get("/v1/fleets")).json()["fleets"][0]["shelf"]
                fresh = all(bot.tick and time.monotonic() - bot.seen_s < 0.5 for bot in self.bots if not bot.ended)
                if fresh and shelf["free"] >= shelf["wanted"]:
                    return
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        """Done."""
        await self._http.aclose()


def measure(report: Report, quick: bool) -> None:
    """Measure, and add the rows."""
    with tempfile.TemporaryDirectory() as folder, Up(Path(folder), YAML) as up:
        up.until_ready()
        asyncio.run(_measure(report, Stage(up), kills=8 if quick else 200, drains=4 if quick else 100))


async def _measure(report: Report, stage: Stage, *, kills: int, drains: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        playing = [tasks.create_task(bot.play(f"bot-{number}")) for number, bot in enumerate(stage.bots)]
        try:
            await stage.settled()
            await asyncio.sleep(2 * CHECKPOINT_S)
            await _kills(report, stage, kills)
            await _drains(report, stage, drains)
        finally:
            for task in playing:
                task.cancel()
            await stage.close()


async def _kills(report: Report, stage: Stage, matches: int) -> None:
    back_s: list[float] = []
    left: list[int] = []
    through = survived = 0
    while through < matches:
        name = next(bot.server for bot in stage.bots if not bot.ended)
        hit = [bot for bot in stage.bots if bot.server == name]
        pid = (await stage.servers())[name]["pid"]
        killed_s = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        await _until_elsewhere(hit, name)
        alive = [bot for bot in hit if not bot.ended and bot.server != name]
        back_s += [bot.first_s - killed_s for bot in alive]
        left += [bot.left for bot in alive]
        sessions = {bot.session for bot in hit}
        through += len(sessions)
        survived += len(sessions) - len({bot.session for bot in hit} - {bot.session for bot in alive})
        await stage.settled()
        await asyncio.sleep(CHECKPOINT_S)
    back_s.sort()
    report.add("matches whose server was killed", through, "")
    report.add("of them survived", survived, "", goal=through, at_least=True)
    report.add("kill to first snapshot elsewhere, median of players", _quantile(back_s, 0.5), "s", goal=1.0)
    report.add("kill to first snapshot elsewhere, p99", _quantile(back_s, 0.99), "s", goal=2.0)
    report.add("kill to first snapshot elsewhere, worst", back_s[-1], "s")
    report.add("state lost, worst", max(left) / TICK_RATE, "s", goal=CHECKPOINT_S)


async def _drains(report: Report, stage: Stage, matches: int) -> None:
    gaps_s: list[float] = []
    left: list[int] = []
    through = lost = 0
    while through < matches:
        name = next(bot.server for bot in stage.bots if not bot.ended)
        hit = [bot for bot in stage.bots if bot.server == name]
        before = sum(bot.lost for bot in hit)
        for bot in hit:
            bot.gap_s = 0.0
        await stage.drain(name)
        await _until_elsewhere(hit, name)
        await asyncio.sleep(0.5)
        gaps_s += [bot.gap_s for bot in hit]
        left += [bot.left for bot in hit]
        lost += sum(bot.lost for bot in hit) - before
        through += len({bot.session for bot in hit})
        await stage.settled()
    gaps_s.sort()
    report.add("matches handed over", through, "")
    report.add("connections lost on the way", lost, "", goal=0)
    report.add("longest gap between snapshots, median of players", _quantile(gaps_s, 0.5) * 1000, "ms")
    report.add("longest gap between snapshots, p99", _quantile(gaps_s, 0.99) * 1000, "ms", goal=250)
    report.add("state lost, worst", max(left) / TICK_RATE * 1000, "ms")


async def _until_elsewhere(bots: list[Bot], server: str) -> None:
    try:
        async with asyncio.timeout(40):
            while any(not bot.ended and (bot.server == server or bot._fresh) for bot in bots):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    except TimeoutError:
        pass  # counted as lost


def _quantile(ordered: list[float], q: float) -> float:
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]
