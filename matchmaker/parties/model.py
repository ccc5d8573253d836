"""What a party is. Pure data; who may do what is decided by the store's functions (`parties.lua`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NewType

from gameserver.sessions.model import PlayerId
from matchmaker.model import Attribute, QueueName, TicketId, TicketPlayer

PartyId = NewType("PartyId", str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One player of a party, and what it brings to a ticket."""

    id: PlayerId
    ready: bool = False
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    latencies_ms: Mapping[str, float] = field(default_factory=dict)
    latency_tokens: tuple[str, ...] = ()
    """Beacons' words on its round trips, verified when the party is queued."""

    def to_player(self) -> TicketPlayer:
        """As a ticket has it."""
        return TicketPlayer(
            id=self.id,
            attributes=self.attributes,
            latencies_ms=self.latencies_ms,
            latency_tokens=self.latency_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """A party as it stands."""

    id: PartyId
    code: str
    """Lets players in; only members see it."""
    leader: PlayerId
    """Whoever made it; after it left, the one of the others who came first."""
    size: int
    """Members at most."""
    event: int
    """Grows with every change."""
    members: tuple[Member, ...]
    """In the order in which they came."""
    ticket: TicketId | None = None
    """Under which they wait; None while they gather."""
    queue: QueueName | None = None
    queued_at_s: float = 0.0
    """When they were queued last: the store's clock, Unix seconds."""

    last_ticket: TicketId | None = None
    """The one before: of the match that they play now, or the wait that came to nothing."""

    @property
    def over(self) -> bool:
        """A party is followed until it is gone."""
        return False

    def has(self, player: PlayerId) -> bool:
        """Whether a player is a member."""
        return any(member.id == player for member in self.members)
