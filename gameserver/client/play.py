"""
One player's whole journey, and many of them at once: ticket, match, play, reconnect, until the match is over.

Drives the real REST API and real WebSockets; what the players saw (waits, gaps between snapshots, lost connections) is the report.
`warmfleet bots` and the end-to-end tests are built on it.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from gameserver import tracing
from gameserver.client.link import Assignment, GameConnection, Link, Lost, Over, TakenOver, dialer
from gameserver.client.matchmaking import Matchmaking, MatchmakingFailed
from gameserver.client.session import Happened, Moving, Seated, WorldSeen
from gameserver.protocol.messages import CloseCode
from gameserver.protocol.schema import Fields
from gameserver.protocol.snapshot import World

Policy = Callable[[World, int, random.Random], dict[str, Any]]
"""(newest world, own seat, dice) → one input."""


@dataclass(slots=True, kw_only=True)
class Journey:
    """What one player saw of one match."""

    player: str
    session: str = ""
    servers: list[str] = field(default_factory=list)
    temperature: str = ""
    wait_s: float = 0.0
    """POST ticket to assigned."""
    first_snapshot_s: float = 0.0
    """POST ticket to the first snapshot."""
    snapshots: int = 0
    gaps_s: list[float] = field(default_factory=list)
    """Time between snapshots, those across a reconnect too."""
    last_tick: int = 0
    ticks_lost: int = 0
    """How far the tick went back at reconnects: state that was lost."""
    disconnects: int = 0
    away_s: list[float] = field(default_factory=list)
    """For each lost connection, the time without snapshots."""
    moves: int = 0
    """Changes of server without a lost connection."""
    events: list[dict[str, Any]] = field(default_factory=list)
    results: dict[str, Any] | None = None
    """What the game ended with."""
    ended: str = ""
    """`over`, `left`, or what went wrong."""


def fumble(fields: Fields, rng: random.Random) -> dict[str, Any]:
    """Any input of any game: what a bot does that knows nothing of its rules."""
    values: dict[str, Any] = {}
    for name, kind in fields.types.items():
        low, high = (kind.min, kind.max) if kind.kind == "float" else (0, 1)
        values[name] = rng.uniform(low, high) if kind.kind in ("float", "f32") else rng.randint(0, 1)
    return values


class Player:
    """One player's journeys."""

    def __init__(
        self,
        base_url: str,
        queue: str,
        player: str,
        token: str,
        *,
        policy: Policy | None,
        attributes: Mapping[str, Any] | None = None,
        transport: str = "websocket",
        turn: AbstractAsyncContextManager[Any] | None = None,
    ) -> None:
        """`turn`: entered to queue, left with the match; None: it queues whenever it likes."""
        self._transport = transport
        self._turn = turn if turn is not None else nullcontext()
        self._base_url = base_url
        self._queue = queue
        self._player = player
        self._token = token
        self._policy = policy
        self._attributes = dict(attributes or {})
        self._seen_s = 0.0
        """When the newest snapshot of this journey came; 0 for none."""
        self._rng = random.Random(player)  # noqa: S311 (a bot's dice)

    async def play(self, *, until_s: float = float("inf")) -> Journey:
        """Play one match, or until `until_s` (monotonic); never raises for what a player may meet: `Journey.ended` says it."""
        with tracing.span("player.match", queue=self._queue) as span:
            journey = await self._play(until_s)
            span.set(session=journey.session, ended=journey.ended)
        return journey

    async def _play(self, until_s: float) -> Journey:
        journey = Journey(player=self._player)
        self._seen_s = 0.0
        async with Matchmaking(self._base_url, self._token) as matchmaking:
            async with self._turn:
                begun_s = time.monotonic()
                assignment = await self._wait(matchmaking, journey, until_s)
            if assignment is not None:
                journey.wait_s = time.monotonic() - begun_s
                journey.session, journey.temperature = assignment["session"], assignment["temperature"]
                await self._stay(matchmaking, assignment, journey, begun_s, until_s)
        return journey

    async def _wait(self, matchmaking: Matchmaking, journey: Journey, until_s: float) -> dict[str, Any] | None:
        """Queue for a match; None when there is none, and the journey says why."""
        try:
            ticket = await matchmaking.create_ticket(
                self._queue, [{"id": self._player, "attributes": self._attributes}]
            )
        except MatchmakingFailed as error:
            journey.ended = f"no ticket: {error}"
            return None
        try:
            async with asyncio.timeout_at(_loop_time(until_s)):
                return await matchmaking.assignment(ticket["id"])
        except TimeoutError:
            await matchmaking.cancel_ticket(ticket["id"])
            journey.ended = "left the queue"
        except MatchmakingFailed as error:
            journey.ended = str(error)
        return None

    async def _stay(
        self,
        matchmaking: Matchmaking,
        assignment: dict[str, Any],
        journey: Journey,
        begun_s: float,
        until_s: float,
    ) -> None:
        """Connect, play, and come back after losses, until the match is over or nobody knows where it is."""

        def ask(session: str) -> Awaitable[Assignment]:
            return matchmaking.seat(session, patience_s=0.0)  # the link has a patience of its own

        async with Link(assignment, ask, dialer(self._transport)) as link:
            playing = asyncio.create_task(self._act(link, assignment["seat"]["index"]), name=f"play-{self._player}")
            try:
                async with asyncio.timeout_at(_loop_time(until_s)):
                    await self._follow(link, journey, begun_s)
            except TimeoutError:
                await link.leave()
                journey.ended = "left"
            finally:
                playing.cancel()
                await asyncio.wait([playing])

    async def _follow(self, link: Link, journey: Journey, begun_s: float) -> None:
        fresh = lost = False
        async for event in link.events():
            now = time.monotonic()
            match event:
                case TakenOver(assignment=assignment, again=again):
                    journey.servers.append(assignment["server"])
                    fresh = True
                    if again and not lost:
                        journey.moves += 1
                case WorldSeen(tick=tick):
                    if not journey.snapshots:
                        journey.first_snapshot_s = now - begun_s
                        ended_s = time.time()
                        start_s = ended_s - journey.first_snapshot_s
                        tracing.record(
                            "player.first_snapshot", parent=tracing.current(), start_s=start_s, end_s=ended_s
                        )
                    else:
                        journey.gaps_s.append(now - self._seen_s)
                    if lost:
                        journey.away_s.append(now - self._seen_s)
                    if fresh:
                        journey.ticks_lost += max(0, journey.last_tick - tick)
                    fresh = lost = False
                    self._seen_s = now
                    journey.snapshots += 1
                    journey.last_tick = tick
                case Happened(data=data):
                    journey.events.append(data)
                case Lost():
                    lost = journey.snapshots > 0
                    journey.disconnects += 1
                case Over(code=code, reason=reason, results=results):
                    journey.ended = "over" if code == CloseCode.NORMAL else reason or str(code)
                    journey.results = results
                case Seated() | Moving():
                    pass

    def _choose(self, connection: GameConnection, world: World, seat: int) -> dict[str, Any]:
        if self._policy is None:
            return fumble(connection.session.inputs, self._rng)
        return self._policy(world, seat, self._rng)

    async def _act(self, link: Link, seat: int) -> None:
        """Send one input per tick of the server, while there is one."""
        due_s = time.monotonic()
        while True:
            interval_s = 0.02
            connection = link.connection
            if connection is not None and connection.session.world is not None:
                assert connection.session.welcome is not None
                interval_s = 1.0 / connection.session.welcome.tick_rate_hz
                await link.send_input(**self._choose(connection, connection.session.world, seat))
            due_s = max(due_s + interval_s, time.monotonic() - interval_s)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))


@dataclass(frozen=True, slots=True, kw_only=True)
class BotsReport:
    """What all bots saw."""

    journeys: tuple[Journey, ...]

    def summary(self) -> dict[str, Any]:
        """Figures for a table or JSON; times in seconds."""
        seated = [j for j in self.journeys if j.snapshots]
        away = sorted(away for journey in seated for away in journey.away_s)
        gaps = sorted(gap for journey in seated for gap in journey.gaps_s)
        endings: dict[str, int] = {}
        for journey in self.journeys:
            endings[journey.ended] = endings.get(journey.ended, 0) + 1
        return {
            "matches": len({journey.session for journey in seated}),
            "journeys": len(self.journeys),
            "wait_p50_s": _quantile(sorted(j.wait_s for j in seated), 0.5),
            "wait_p99_s": _quantile(sorted(j.wait_s for j in seated), 0.99),
            "first_snapshot_p50_s": _quantile(sorted(j.first_snapshot_s for j in seated), 0.5),
            "first_snapshot_p99_s": _quantile(sorted(j.first_snapshot_s for j in seated), 0.99),
            "snapshot_gap_p50_s": _quantile(gaps, 0.5),
            "snapshot_gap_p99_s": _quantile(gaps, 0.99),
            "snapshot_gap_max_s": gaps[-1] if gaps else 0.0,
            "away_p50_s": _quantile(away, 0.5),
            "away_p99_s": _quantile(away, 0.99),
            "moves": sum(journey.moves for journey in self.journeys),
            "disconnects": sum(journey.disconnects for journey in self.journeys),
            "temperatures": {t: sum(j.temperature == t for j in seated) for t in ("shelf", "buffer", "cold")},
            "endings": endings,
        }


async def run_bots(
    base_url: str,
    queue: str,
    players: int,
    *,
    duration_s: float,
    policy: Policy | None,
    token_for: Callable[[str], Awaitable[tuple[str, str]]],
    attributes: Mapping[str, Any] | None = None,
    transport: str = "websocket",
    waiting: int = 0,
) -> BotsReport:
    """
    Let so many players play match after match for `duration_s`.

    Args:
        token_for: gives a player id and its token, by name.
        waiting: how many queue at once; one fewer than a match has players, and each of their matches has somebody else in it. 0: all.
    """
    until_s = time.monotonic() + duration_s
    journeys: list[Journey] = []
    turn = asyncio.Semaphore(waiting) if waiting else None

    async def one(number: int) -> None:
        player, token = await token_for(f"bot-{number}")
        bot = Player(
            base_url, queue, player, token, policy=policy, attributes=attributes, transport=transport, turn=turn
        )
        while time.monotonic() < until_s:
            journey = await bot.play(until_s=until_s)
            journeys.append(journey)
            if journey.ended not in ("over", "left"):
                await asyncio.sleep(0.5)

    async with asyncio.TaskGroup() as tasks:
        for number in range(players):
            tasks.create_task(one(number), name=f"bot-{number}")
    return BotsReport(journeys=tuple(journeys))


def _quantile(ordered: list[float], q: float) -> float:
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else 0.0


def _loop_time(monotonic_s: float) -> float | None:
    """A monotonic time on the running loop's clock."""
    if monotonic_s == float("inf"):
        return None
    return asyncio.get_running_loop().time() + monotonic_s - time.monotonic()
