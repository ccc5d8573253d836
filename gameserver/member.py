"""Who is in a room: what the room knows of one player or spectator, across its connections."""

from collections import deque
from dataclasses import dataclass, field

from gameserver.game import Player
from gameserver.protocol.inputs import InputBuffer
from gameserver.protocol.interest import Area
from gameserver.sessions.model import PlayerId
from gameserver.transports.port import Connection

EVENTS_UNACKNOWLEDGED = 256
"""Events kept for repetition over an unreliable connection; the oldest are given up."""


@dataclass(slots=True, eq=False)
class Member:
    """One seated player or spectator, across its connections."""

    id: PlayerId
    player: Player | None
    """None for a spectator."""
    connection: Connection | None
    inputs: InputBuffer
    ack_tick: int = 0
    event_seq: int = 0
    events: deque[tuple[int, bytes]] | None = None
    """To be repeated until they are acknowledged; None over a reliable connection."""
    lost_at_s: float = 0.0
    granted_until_s: int = 0
    """Of its newest token: whoever is given this seat later has a later one."""
    joined: bool = False
    view: int = 0
    """Of the newest applied input: what its player saw when it acted (tick × 256)."""
    probe_tick: int = 0
    """The snapshot whose acknowledgement is waited for, to measure the round trip; 0: none."""
    probe_at_s: float = 0.0
    rtt_s: float | None = None
    """The newest measured one."""
    areas: dict[int, Area | None] = field(default_factory=dict)
    """In games with an interest: the area that each snapshot showed, by its tick."""
