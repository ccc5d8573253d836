"""
Seats of running sessions in Valkey: parties that come later, players who leave.

Each method is one Valkey function (`seats.lua`); the keys are described in `shelf.py`. A party gets all of its seats or none, all in one session,
and asking again changes nothing. What depends on who is playing (opening, releasing) carries the session's epoch: a server that lost the session is
refused. Players of one party are told apart by their ids alone.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from allocator.model import Allocation, Strategy
from allocator.shelf import decode_allocation, fields, prefix
from gameserver.sessions.client import StoreClient
from gameserver.sessions.library import FunctionLibrary
from gameserver.sessions.model import FleetName, PlayerId, SessionId, fleet_of
from gameserver.sessions.port import SessionGone
from gameserver.sessions.valkey import ValkeySessions, session_key

Party = Sequence[tuple[PlayerId, str]]
"""(player, team), each player once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoSeats:
    """Not enough free seats for the whole party: an expected outcome, and nobody was seated."""

    free: int
    """Seats that the session asked for has left; 0 where any session would have done."""


class Seats:
    """Seats of all fleets' sessions in one Valkey. Every method may raise StoreUnavailable, and may be called again then."""

    def __init__(self, client: StoreClient) -> None:
        self._client = client
        self._functions = FunctionLibrary(client, Path(__file__).with_name("seats.lua"))

    async def open(self, session: SessionId, *, epoch: int, free: int) -> None:
        """Let so many more players in, or none with 0. Raises SessionGone."""
        if free < 0:
            raise ValueError(f"free: {free} seats cannot be opened; 0 closes the session")
        reply = await self._functions.call("seats_open", _keys(session), session, epoch, free)
        _refuse_gone(reply, session, epoch)

    async def reserve(self, session: SessionId, party: Party) -> Allocation | NoSeats:
        """Seat a party in this session; its seats are in the answer. Raises SessionGone when it is over or takes nobody."""
        reply = await self._functions.call("seats_reserve", _keys(session), session, _encode(party))
        if reply[0] == b"GONE":
            raise SessionGone(f"session {session} takes no more players")
        return decode_allocation(session, fields(reply[1])) if reply[0] == b"SEATED" else NoSeats(free=int(reply[1]))

    async def find(
        self, fleet: FleetName, request: str, party: Party, *, queue: str, strategy: Strategy = Strategy.PACKED
    ) -> Allocation | NoSeats:
        """
        Seat a party in whichever session of a queue fits it best.

        Args:
            request: the party's identity: asked again, it is in the same session, never in a second one.
            queue: the option `queue` of the matches that may take it; "" for those that have none.
        """
        reply = await self._functions.call(
            "seats_find", [prefix(fleet)], request, queue, _encode(party), strategy.value
        )
        if reply[0] == b"NONE":
            return NoSeats(free=0)
        return decode_allocation(SessionId(reply[1].decode()), fields(reply[2]))

    async def release(self, session: SessionId, players: Sequence[PlayerId], *, epoch: int) -> int:
        """Free the seats of players who have left; returns how many had one. Raises SessionGone."""
        return await ValkeySessions(self._client, fleet_of(session)).vacate(session, players, epoch=epoch)


def _keys(session: SessionId) -> list[str]:
    return [prefix(fleet_of(session)), session_key(session)]


def _encode(party: Party) -> str:
    players = [player for player, _ in party]
    if not players or len(set(players)) < len(players):
        raise ValueError(f"party: wanted one player or more, each once, not {players}")
    return json.dumps([[player, team] for player, team in party])


def _refuse_gone(reply: object, session: SessionId, epoch: int) -> None:
    if reply == b"GONE":
        raise SessionGone(f"session {session} is no longer at epoch {epoch}")
