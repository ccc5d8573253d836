"""
Who is in a room: who has which seat, who watches, who may not come back, and what the session store has still to be told of it.

It closes connections, and says nothing else to anybody; the room tells its game who joins and leaves.
"""

from collections.abc import Iterable

from gameserver.game import Player
from gameserver.member import Member
from gameserver.protocol.messages import CloseCode
from gameserver.seats import SeatGrant
from gameserver.sessions.model import PlayerId


class Roster:
    """The members of one room. Times are the room's own, in seconds."""

    def __init__(self, kicked: Iterable[PlayerId]) -> None:
        """`kicked`: earlier, on another server."""
        self.players: dict[PlayerId, Member] = {}
        self.spectators: list[Member] = []
        self.unsettled: dict[PlayerId, Member] = {}
        """Who has not been let in by the game yet, or has no connection: nobody else has to be looked at each tick."""
        self.kicked: set[PlayerId] = set(kicked)
        """Players who may not come back."""
        self.came: set[PlayerId] = set()
        self.left: set[PlayerId] = set()
        """Who has come, and gone for good, that the store has not been told yet; the process tells it, and takes them out."""
        self.gone: set[PlayerId] = set()
        """Who has left for good, told or not."""
        self.excused: set[PlayerId] = set()
        """Who may leave, by the game's word."""

    @property
    def connected(self) -> int:
        """How many players are connected."""
        return sum(member.connection is not None for member in self.players.values())

    def audience(self, to: Player | None = None) -> list[Member]:
        """One player, if it is here; everyone, spectators too, for None."""
        if to is not None:
            return [self.players[to.id]] if to.id in self.players else []
        return [*self.players.values(), *self.spectators]

    def holder(self, grant: SeatGrant) -> Member | None:
        """Somebody else in this seat."""
        for member in self.players.values():
            if member.player is not None and member.player.seat == grant.seat and member.id != grant.player:
                return member
        return None

    def gives(self, grant: SeatGrant) -> bool:
        """Whether the seat is this player's: free, its own, or another's whose token is older (its time to come ran out, or it left for good)."""
        holder = self.holder(grant)
        if holder is None or (holder.connection is None and holder.lost_at_s == float("-inf")):
            return True  # free, or left for good in this very tick
        return grant.expires_at_s > holder.granted_until_s

    def add(self, member: Member) -> None:
        """Take in a new player, or spectator."""
        if member.player is None:
            self.spectators.append(member)
        else:
            self.players[member.id] = self.unsettled[member.id] = member

    def note_join(self, member: Member) -> None:
        """A player is about to be let in by the game."""
        member.joined = True
        self.came.add(member.id)
        self.left.discard(member.id)
        self.gone.discard(member.id)

    def remove(self, member: Member) -> None:
        """A player is gone for good; its seat is free."""
        del self.players[member.id]
        self.unsettled.pop(member.id, None)
        self.came.discard(member.id)
        self.left.add(member.id)
        self.gone.add(member.id)

    def part(self, member: Member) -> None:
        """Its connection has ended: a player may come back, a spectator comes anew."""
        member.connection = None
        if member.player is None:
            self.spectators.remove(member)
        else:
            self.unsettled[member.id] = member

    def drop(self, member: Member, code: CloseCode, reason: str, now_s: float) -> None:
        """Close its connection, if it has one."""
        connection, member.connection = member.connection, None
        if connection is not None:
            if member.player is not None:
                self.unsettled[member.id] = member
            member.lost_at_s = max(member.lost_at_s, now_s)
            connection.close(code, reason)

    def expel(self, player: PlayerId, reason: str, now_s: float) -> None:
        """Let a player go, and whatever watches in its name, and never let it back in; once."""
        if player in self.kicked:
            return
        self.kicked.add(player)
        member = self.players.get(player)
        if member is not None:
            self.drop(member, CloseCode.KICKED, reason, now_s)
            member.lost_at_s = float("-inf")
        for watching in [member for member in self.spectators if member.id == player]:
            self.drop(watching, CloseCode.KICKED, reason, now_s)
            self.spectators.remove(watching)
