"""
Shows a room's members the newest world: who is sent which bytes.

Owns the choice of each member's baseline (and area, in games with an interest), and counts what is sent. The bytes are `SnapshotHistory`'s and
`Views`', each made once for all who share them.
"""

from collections.abc import Iterable

from gameserver import metrics
from gameserver.game import Game
from gameserver.member import Member
from gameserver.protocol.interest import Areas, Views
from gameserver.protocol.messages import SharedSnapshot
from gameserver.protocol.snapshot import SnapshotHistory


class Showing:
    """One room's."""

    def __init__(self, game: Game, history: SnapshotHistory) -> None:
        """`history` is the room's: its newest world is shown. Raises SchemaError for an interest that makes no sense."""
        self._game = game
        self._history = history
        self._views = Views(Areas(game.schema, game.interest), history) if game.interest else None

    def show(self, members: Iterable[Member]) -> None:
        """Send the newest world to those who are connected, and their unacknowledged events once more."""
        # With hundreds of players most of a tick is spent here: no call that can be spared.
        find, views = self._history.snapshot, self._views
        found: dict[int, SharedSnapshot] = {}
        skipped = sent = sent_bytes = largest_bytes = 0
        for member in members:
            connection = member.connection
            if connection is None:
                continue
            if views is not None:
                snapshot = self._viewed(views, member)
            else:
                shared = found.get(member.ack_tick)
                snapshot = shared or found.setdefault(member.ack_tick, find(member.ack_tick))
            if connection.send_snapshot(snapshot, member.inputs.applied):
                sent += 1
                sent_bytes += snapshot.size_bytes
                if snapshot.size_bytes > largest_bytes:
                    largest_bytes = snapshot.size_bytes
            else:
                skipped += 1
            if member.events:
                for _, message in member.events:
                    connection.send(message)
        if skipped:
            metrics.SNAPSHOTS_SKIPPED.inc(skipped)
        if sent:
            metrics.SNAPSHOTS_SENT.inc(sent)
            metrics.SNAPSHOTS_SENT_BYTES.inc(sent_bytes)
            metrics.SNAPSHOT_LARGEST_BYTES.observe(largest_bytes)

    def _viewed(self, views: Views, member: Member) -> SharedSnapshot:
        """What this member sees from where it is, on the view that it has acknowledged."""
        point = self._game.viewpoint(member.player) if member.player is not None else None
        area = None if point is None else views.areas.at(*point)
        known, history = member.ack_tick in member.areas, self._history
        snapshot = views.snapshot(member.ack_tick if known else 0, member.areas.get(member.ack_tick), area)
        # Noted though it may not be sent: who is not sent a snapshot does not acknowledge it either.
        member.areas[history.tick] = area
        if len(member.areas) > 2 * history.size:
            member.areas = {at: shown for at, shown in member.areas.items() if at >= history.oldest}
        return snapshot
