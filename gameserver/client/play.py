"""
One player's whole journey, and many of them at once: ticket, match, play, reconnect, until the match is over.

Drives the real REST API and real WebSockets; what the players saw (waits, gaps between snapshots, lost connections) is the report.
`warmfleet bots` and the end-to-end tests are built on it.
"""

import asyncio
import base64
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gameserver.client.matchmaking import Matchmaking, MatchmakingFailed
from gameserver.client.session import Ended, Happened, Seated, WorldSeen
from gameserver.client.udp import UdpGameClient
from gameserver.client.websocket import ConnectFailed, GameClient
from gameserver.protocol.messages import CloseCode
from gameserver.protocol.schema import Fields
from gameserver.protocol.snapshot import World

Policy = Callable[[World, int, random.Random], dict[str, Any]]
"""(newest world, own seat, dice) → one input."""

RECONNECT_FOR_S = 30.0
_RECONNECT_PAUSE_S = 0.05
_FINAL = {
    CloseCode.NORMAL,
    CloseCode.MALFORMED,
    CloseCode.VERSION,
    CloseCode.KICKED,
    CloseCode.GAME_ERROR,
    CloseCode.SUPERSEDED,
}


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
    events: list[dict[str, Any]] = field(default_factory=list)
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
    ) -> None:
        self._transport = transport
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
        journey = Journey(player=self._player)
        begun_s = time.monotonic()
        self._seen_s = 0.0
        async with Matchmaking(self._base_url, self._token) as matchmaking:
            try:
                ticket = await matchmaking.create_ticket(
                    self._queue, [{"id": self._player, "attributes": self._attributes}]
                )
            except MatchmakingFailed as error:
                journey.ended = f"no ticket: {error}"
                return journey
            try:
                async with asyncio.timeout_at(_loop_time(until_s)):
                    assignment = await matchmaking.assignment(ticket["id"])
            except TimeoutError:
                await matchmaking.cancel_ticket(ticket["id"])
                journey.ended = "left the queue"
                return journey
            except MatchmakingFailed as error:
                journey.ended = str(error)
                return journey
            journey.wait_s = time.monotonic() - begun_s
            journey.session, journey.temperature = assignment["session"], assignment["temperature"]
            await self._stay(matchmaking, assignment, journey, begun_s, until_s)
        return journey

    async def _stay(
        self,
        matchmaking: Matchmaking,
        assignment: dict[str, Any] | None,
        journey: Journey,
        begun_s: float,
        until_s: float,
    ) -> None:
        """Connect, play, and come back after losses, until the match is over or nobody knows where it is."""
        lost_s = time.monotonic()
        while not journey.ended:
            if assignment is not None:
                journey.servers.append(assignment["server"])
                before = journey.snapshots
                await self._connect(assignment, journey, begun_s, until_s)
                if journey.ended:
                    return
                journey.disconnects += 1
                if journey.snapshots > before:
                    lost_s = time.monotonic()
            if time.monotonic() - lost_s > RECONNECT_FOR_S:
                journey.ended = "the match was not found again"
                return
            await asyncio.sleep(_RECONNECT_PAUSE_S)
            try:
                assignment = await matchmaking.seat(journey.session)
            except MatchmakingFailed as error:
                assignment = None
                if error.status in (404, 410):
                    journey.ended = "over" if error.status == 410 else str(error)

    async def _connect(self, assignment: dict[str, Any], journey: Journey, begun_s: float, until_s: float) -> None:
        try:
            async with self._client(assignment) as client:
                seated = asyncio.Event()
                acting = self._act(client, assignment["seat"]["index"], seated)
                playing = asyncio.create_task(acting, name=f"play-{self._player}")
                try:
                    async with asyncio.timeout_at(_loop_time(until_s)):
                        await self._follow(client, journey, begun_s, seated)
                except TimeoutError:
                    await client.leave()
                    journey.ended = "left"
                finally:
                    playing.cancel()
                    await asyncio.wait([playing])
        except ConnectFailed:
            pass  # a disconnect like any other

    def _client(self, assignment: dict[str, Any]) -> GameClient | UdpGameClient:
        if self._transport == "udp":
            return UdpGameClient(base64.b64decode(assignment["connectToken"]), assignment["token"])
        return GameClient(f"ws://{assignment['host']}:{assignment['ports']['websocket']}", assignment["token"])

    async def _follow(
        self, client: GameClient | UdpGameClient, journey: Journey, begun_s: float, seated: asyncio.Event
    ) -> None:
        fresh = True
        async for event in client.events():
            match event:
                case WorldSeen(tick=tick):
                    now = time.monotonic()
                    if not journey.snapshots:
                        journey.first_snapshot_s = now - begun_s
                    elif self._seen_s:
                        journey.gaps_s.append(now - self._seen_s)
                    if fresh:
                        journey.ticks_lost += max(0, journey.last_tick - tick)
                        fresh = False
                    self._seen_s = now
                    journey.snapshots += 1
                    journey.last_tick = tick
                case Happened(data=data):
                    journey.events.append(data)
                case Ended(code=code, reason=reason):
                    if code in _FINAL:
                        journey.ended = "over" if code == CloseCode.NORMAL else reason or str(code)
                    return
                case Seated():
                    seated.set()
                case _:
                    return  # the session moves: ask where it is

    def _choose(self, client: GameClient | UdpGameClient, world: World, seat: int) -> dict[str, Any]:
        if self._policy is None:
            return fumble(client.session.inputs, self._rng)
        return self._policy(world, seat, self._rng)

    async def _act(self, client: GameClient | UdpGameClient, seat: int, seated: asyncio.Event) -> None:
        """Send one input per tick of the server."""
        await seated.wait()
        assert client.session.welcome is not None
        interval_s = 1.0 / client.session.welcome.tick_rate_hz
        due_s = time.monotonic()
        while True:
            if client.world is not None:
                await client.send_input(**self._choose(client, client.world, seat))
            due_s = max(due_s + interval_s, time.monotonic() - interval_s)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))


@dataclass(frozen=True, slots=True, kw_only=True)
class BotsReport:
    """What all bots saw."""

    journeys: tuple[Journey, ...]

    def summary(self) -> dict[str, Any]:
        """Figures for a table or JSON; times in seconds."""
        seated = [j for j in self.journeys if j.snapshots]
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
) -> BotsReport:
    """Let so many players play match after match for `duration_s`; `token_for(name)` gives a player id and its token."""
    until_s = time.monotonic() + duration_s
    journeys: list[Journey] = []

    async def one(number: int) -> None:
        player, token = await token_for(f"bot-{number}")
        bot = Player(base_url, queue, player, token, policy=policy, attributes=attributes, transport=transport)
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
