"""
Lag compensation: the world as a player saw it when it acted.

A client shows its player a moment between two snapshots, some way in the past, and says which in its inputs (`view`). Judging an input against that
moment is what makes a shot hit where the player aimed. Pure; the room's history holds the worlds, `RoomContext.rewind` is how games ask.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gameserver.protocol.schema import Table
from gameserver.protocol.snapshot import SnapshotHistory

MAX_AGE_S = 0.5
"""Nobody is judged by an older moment: beyond it a slow player's shots hit others who have long been behind a wall. Engines grant 0.2 to 1 s."""

Seen = dict[str, NDArray[Any]]
"""One table: `id`, ascending, and a column per field."""


def seen_at(history: SnapshotHistory, table: str, view: int, max_age_ticks: int) -> Seen:
    """
    One table as it was shown at `view` (tick × 256; 0 for unknown: the newest).

    `Float` and `F32` fields are interpolated between the two snapshots around that moment, as clients show them; other fields are the earlier one's.
    A row that appears or goes in between is as the earlier one has it. `view` is clamped to the last `max_age_ticks` ticks: a client that
    claims the future or the far past gains nothing by it.

    Raises: KeyError for a table that the schema lacks, LookupError before the first snapshot.
    """
    newest = history.tick
    at = min(max(view or newest << 8, newest - max_age_ticks << 8), newest << 8)
    tick, fraction = at >> 8, (at & 0xFF) / 256
    before = history.values(tick, table)
    if before is None:  # the room is younger, or resumed: what is kept begins later
        before, fraction = history.values(history.oldest, table), 0.0
    if before is None:
        raise LookupError("there is no snapshot yet")
    after = history.values(tick + 1, table) if fraction else None
    if after is None:
        return {name: column.copy() for name, column in before.items()}
    return _between(history.table(table), before, after, fraction)


def _between(table: Table, before: Seen, after: Seen, fraction: float) -> Seen:
    _, here, there = np.intersect1d(before["id"], after["id"], assume_unique=True, return_indices=True)
    shown = {}
    for name, column in before.items():
        shown[name] = column.copy()
        if name != "id" and table.types[name].kind in ("float", "f32"):
            shown[name][here] += (after[name][there] - column[here]) * fraction
    return shown
