"""
What a session is: one match's place on a server, as Valkey holds it.

Owns the words shared by all packages (ids, Seat, Session). Decides nothing and does no I/O. A session id names its fleet,
so that every key of a session can be derived from the id alone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

FleetName = NewType("FleetName", str)
ServerName = NewType("ServerName", str)
MatchId = NewType("MatchId", str)
SessionId = NewType("SessionId", str)
PlayerId = NewType("PlayerId", str)

_SESSION_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.[A-Za-z0-9_-]{1,64}")


class SessionState(StrEnum):
    """Where a session stands; `ended` is final."""

    PENDING = "pending"
    """Claimed: the server has a room for it, nobody has come yet."""
    LIVE = "live"
    DRAINING = "draining"
    """Its server is to go: the session is to be moved or finished."""
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One player's place in a session."""

    index: int
    """0 to seats - 1, unique in the session."""
    player: PlayerId
    team: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One match on one server, at one epoch."""

    id: SessionId
    server: ServerName
    room: int
    """0 to the server's rooms - 1."""
    epoch: int
    """1 at the claim; grows by one whenever the session moves. Writes with an older epoch are refused."""
    state: SessionState
    seats: tuple[Seat, ...]
    checkpoint_tick: int = 0
    """Tick of the newest checkpoint, 0 for none."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What the match is about (queue, map, mode): handed to the game."""
    free_seats: int = 0
    """How many more players may be seated while it runs."""
    kicked: Mapping[PlayerId, str] = field(default_factory=dict)
    """Players who were removed from outside (`control.SessionControl`), and why."""
    left: Mapping[PlayerId, str] = field(default_factory=dict)
    """Players who left for good before the end, though the game had not excused them, and their teams; where others may come they have no seat any more."""
    want: Mapping[str, int] | None = None
    """Team → how many players the game wants in it, with those who are there; None: it has never said."""
    results: str = ""
    """What the game ended the match with, as JSON; empty until then."""

    @property
    def fleet(self) -> FleetName:
        """The fleet that the session belongs to, from its id."""
        return fleet_of(self.id)


class ServerMode(StrEnum):
    """What a server means to do with its sessions; it says so with every heartbeat."""

    SERVE = "serve"
    FINISH = "finish"
    """It goes: no new sessions, those it has are played to their end."""
    MIGRATE = "migrate"
    """It goes: its sessions want rooms elsewhere, to be handed over live."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A session that the store has on a server, begun there or not."""

    session: SessionId
    epoch: int
    reserved: bool
    """A room elsewhere is kept for it: it can be handed over."""
    kicked: Mapping[PlayerId, str] = field(default_factory=dict)
    """As `Session.kicked`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What the store answers to a heartbeat."""

    fenced: frozenset[SessionId]
    """Rooms to stop at once: their sessions are over, or another server's."""
    placed: tuple[Placement, ...]
    """Sessions to have open: those that have been played before; a new one is opened by its first player."""


def session_id(fleet: FleetName, match: MatchId) -> SessionId:
    """Build the id of the session that `match` has in `fleet`: `<fleet>.<match>`; the same inputs always give the same id."""
    value = f"{fleet}.{match}"
    if not _SESSION_ID.fullmatch(value):
        raise ValueError(f"{value!r} is no session id: wanted <fleet name>.<letters, digits, - or _>")
    return SessionId(value)


def parse_session_id(text: str) -> SessionId:
    """Check a session id that came from outside; raises ValueError with the wanted form."""
    fleet, _, match = text.partition(".")
    return session_id(FleetName(fleet), MatchId(match))


def fleet_of(session: SessionId) -> FleetName:
    """Return the fleet that a session id names."""
    return FleetName(session.partition(".")[0])
