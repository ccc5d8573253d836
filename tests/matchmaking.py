"""What the matchmaker's tests share: an allocator in memory with faults, a queue, and waiting for things to come true."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from allocator.model import Allocation, AllocationRequest, Temperature, Unavailable
from allocator.seats import NoSeats
from gameserver.sessions.model import (
    FleetName,
    MatchId,
    PlayerId,
    Seat,
    ServerName,
    Session,
    SessionId,
    SessionState,
    session_id,
)
from gameserver.sessions.port import SessionGone, StoreUnavailable
from matchmaker.model import QueueConfig, QueueName, Team, TicketPlayer

FLEET = FleetName("arena")
DUEL = QueueConfig(
    name=QueueName("duel"), fleets=(FLEET,), teams=(Team(name="red", players=1), Team(name="blue", players=1))
)


class FakeAllocator:
    """Gives every match a session at once, the same one when asked again; with faults to be set."""

    def __init__(self) -> None:
        self.requests: list[AllocationRequest] = []
        self.sessions: dict[SessionId, Allocation] = {}
        self.abandoned: list[SessionId] = []
        self.host = "h"
        self.refuse = 0
        """So many allocations are refused next."""
        self.away = 0.0
        """Chance that a call raises StoreUnavailable, half of them after it took effect."""
        self.pause_s = 0.0
        """Longest wait before and after a call takes effect."""
        self.hold = asyncio.Event()
        """Allocations wait for it."""
        self.hold.set()
        self._rng = random.Random(0)

    async def allocate(
        self, request: AllocationRequest, *, deadline_s: float, shared: bool = False
    ) -> Allocation | Unavailable:
        self.requests.append(request)
        await self.hold.wait()
        await self._fault()
        if self.refuse:
            self.refuse -= 1
            return Unavailable(reason="no server")
        name = session_id(request.fleets[0], request.match)
        if name not in self.sessions:
            session = Session(
                id=name,
                server=ServerName("arena-1"),
                room=0,
                epoch=1,
                state=SessionState.PENDING,
                seats=request.seats,
                options=request.options,
            )
            self.sessions[name] = Allocation(
                session=session, host=self.host, ports={"websocket": 7001}, temperature=Temperature.SHELF, waited_s=0.0
            )
        await self._fault()
        return self.sessions[name]

    async def abandon(self, match: MatchId, fleets: Sequence[FleetName]) -> None:
        self.abandoned += [session_id(fleet, match) for fleet in fleets]

    async def find(self, session: SessionId) -> Allocation | None:
        return self.sessions.get(session)

    def running(self, match: str, *players: tuple[str, str], queue: str = "duel") -> SessionId:
        """A session that runs already, with (player, team)s."""
        name = session_id(FLEET, MatchId(match))
        seats = tuple(Seat(index=i, player=PlayerId(player), team=team) for i, (player, team) in enumerate(players))
        session = Session(
            id=name,
            server=ServerName("arena-1"),
            room=0,
            epoch=1,
            state=SessionState.LIVE,
            seats=seats,
            options={"queue": queue},
        )
        self.sessions[name] = Allocation(
            session=session, host="h", ports={"websocket": 7001}, temperature=Temperature.SHELF, waited_s=0.0
        )
        return name

    def end(self, session: SessionId) -> None:
        """The match is over."""
        found = self.sessions[session]
        self.sessions[session] = replace(found, session=replace(found.session, state=SessionState.ENDED))

    def of(self, match: MatchId) -> Allocation:
        return self.sessions[session_id(FLEET, match)]

    async def _fault(self) -> None:
        if self.pause_s:
            await asyncio.sleep(self._rng.uniform(0, self.pause_s))
        if self._rng.random() < self.away / 2:
            raise StoreUnavailable("away")


class FakeSeats:
    """Seats of the fake allocator's sessions."""

    def __init__(self, allocator: FakeAllocator) -> None:
        self._allocator = allocator
        self.opened: dict[SessionId, int] = {}
        self.reserved: dict[SessionId, list[tuple[PlayerId, str]]] = {}
        self.gone = False

    async def open(self, session: SessionId, *, epoch: int, free: int) -> None:
        self.opened[session] = free

    async def reserve(self, session: SessionId, party: Sequence[tuple[PlayerId, str]]) -> Allocation | NoSeats:
        if self.gone:
            raise SessionGone("over")
        found = self._allocator.sessions[session]
        here = {seat.player for seat in found.session.seats}
        new = [(player, team) for player, team in party if player not in here]
        self.reserved.setdefault(session, []).extend(new)
        seats = [
            *found.session.seats,
            *(Seat(index=len(here) + i, player=player, team=team) for i, (player, team) in enumerate(new)),
        ]
        self._allocator.sessions[session] = replace(found, session=replace(found.session, seats=tuple(seats)))
        return self._allocator.sessions[session]


def solo(name: str, **attributes: float | str) -> tuple[TicketPlayer, ...]:
    return (TicketPlayer(id=PlayerId(name), attributes=attributes),)


async def until(true: Callable[[], Awaitable[bool]], *, patience_s: float = 20.0) -> None:
    """Wait for something to come true; an outage on the way is no answer."""
    give_up_s = time.monotonic() + patience_s
    while True:
        try:
            if await true():
                return
        except StoreUnavailable:
            pass
        assert time.monotonic() < give_up_s, "it never came true"
        await asyncio.sleep(0.02)
