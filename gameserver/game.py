"""
The small interface that a studio implements: `Game`.

Owns nothing but the contract. `room.py` calls a game, one call at a time, from one task; a game never awaits, never sleeps, and
does no I/O. Everything a game may do to the world goes through the `RoomContext` it is given.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

from gameserver.protocol.interest import Interest
from gameserver.protocol.schema import Fields, Schema
from gameserver.sessions.model import PlayerId, SessionId

Columns = Mapping[str, NDArray[Any] | Sequence[Any]]
"""One table of a snapshot: `id` (u16, unique) and one entry per field of the schema, all of one length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Player:
    """Someone in a seat, as the game sees it. Equal and hashable by all its fields, which do not change while the player is in."""

    id: PlayerId
    seat: int
    """0 to seats - 1."""
    team: str


class RoomContext(Protocol):
    """What a room lends to its game."""

    session: SessionId
    seats: int
    tick_rate_hz: int
    options: Mapping[str, str]
    rng: random.Random
    """Seeded per session: the same inputs give the same match."""

    @property
    def tick(self) -> int:
        """The tick being computed; 1 at the first step."""

    def rewind(self, player: Player, table: str) -> Mapping[str, NDArray[Any]]:
        """
        One table of the snapshot as this player saw it when it made its newest applied input: lag compensation.

        Columns `id` (ascending) and each field, copies, with numbers interpolated as clients show them; at most `rewind.MAX_AGE_S` old. In `input`
        the input is the one at hand; in `step` the player's last of this tick. Raises KeyError for a table that the schema lacks, LookupError
        in the first tick, when nobody has seen anything.
        """

    def lag_s(self, player: Player) -> float:
        """How long ago the moment was that `rewind` goes back to; 0 where it is unknown."""

    def event(self, name: str, *, to: Player | None = None, **data: Any) -> None:
        """Tell everyone (or one player) something that happened, reliably and in order; `data` must be JSON."""

    def kick(self, player: Player, reason: str) -> None:
        """Close the player's connection for good; `leave` is called before the next step."""

    def excuse(self, player: Player) -> None:
        """
        The player's part is over (it was knocked out, say): it may leave, and counts as having stayed: no lost rating, no penalty.

        Say it again in `restore`, as of anything that the room does not keep.
        """

    def want(self, teams: Mapping[str, int]) -> None:
        """
        Keep teams at so many players from now on: where there are fewer, the queue's waiting players are sent here before new matches are made.

        Counts who is here or on the way, so that saying it once is enough; who leaves is replaced. `{}`: nobody is wanted any more. Holds until it is
        said anew, also where the match moves to another server, and only in queues with `backfill: {enabled: true}`, up to the teams' sizes there.
        Raises ValueError for what is no number of players, or more than there are seats.
        """

    def end(self, **results: Any) -> None:
        """End the match after this step; `results` (JSON) are stored with the session."""


class Game(ABC):
    """
    One match's rules and state. Made anew for each session; `restore` follows when the session is resumed.

    Calls come in this order: construction, then per tick `join`/`leave` of that tick, `input` for each accepted input (the first of each
    player, then the second of each, in the order of their sequence numbers), `step` once, `snapshot` once. An exception from any of
    them ends this match alone.
    """

    schema: ClassVar[Schema]
    """The tables of a snapshot."""
    inputs: ClassVar[Fields]
    """The fields of one input."""
    interest: ClassVar[Mapping[str, Interest]] = {}
    """For tables of a large world: how far players see. Other tables are shown whole to everyone."""

    def __init__(self, room: RoomContext) -> None:
        self.room = room

    def info(self) -> Mapping[str, Any]:
        """What a newcomer is told once (walls, map name); JSON."""
        return {}

    @abstractmethod
    def join(self, player: Player) -> None:
        """A player has taken a seat. Also called when a seat's player comes back after `leave`."""

    @abstractmethod
    def leave(self, player: Player) -> None:
        """A player is gone for good: it left, was kicked, or did not come back within the reconnect window."""

    @abstractmethod
    def input(self, player: Player, data: Mapping[str, Any]) -> None:
        """One input of a player: a value per field of `inputs`, already decoded and within its declared range."""

    def inputs_of(self, players: Sequence[Player], data: Mapping[str, NDArray[Any]]) -> None:
        """
        Inputs of several players, one of each: row k of every column is `players[k]`'s.

        Calls `input` for each; a game with hundreds of players may override this instead and work on whole columns.
        """
        columns = {name: column.tolist() for name, column in data.items()}
        for row, player in enumerate(players):
            self.input(player, {name: column[row] for name, column in columns.items()})

    @abstractmethod
    def step(self, dt_s: float) -> None:
        """Advance the world by one tick, `dt_s` = 1 / tick rate."""

    @abstractmethod
    def snapshot(self) -> Mapping[str, Columns]:
        """The state that clients see: for each table its columns. The arrays may be the game's own; they are read at once."""

    def viewpoint(self, player: Player) -> tuple[float, float] | None:
        """Where this player looks from, for the tables with an `interest`; None to show it everything. Asked after each step."""
        return None

    @abstractmethod
    def save(self) -> bytes:
        """
        The whole state, for a checkpoint. No pickle: use `json` or `numpy.save` without pickling.

        It holds up the tick loop, so it should take well below a tick. One that raises, returns no bytes or more than 8 MiB costs this checkpoint,
        never the match; it is logged once, and a server that dies then takes the match back to the newest good one.
        """

    @abstractmethod
    def restore(self, state: bytes) -> None:
        """Take up the state that `save` returned, from the same version of the game. Players rejoin by `join`."""
