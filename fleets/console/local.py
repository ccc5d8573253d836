"""The fleets of a laptop, as the console shows them: what `fleets/laptop.py` runs is in this process."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from allocator.keeper import ShelfKeeper
from fleets.autoscaler.policy import Decision
from fleets.console.look import FleetView, ServerView
from fleets.local.agones import FleetStatus, LocalAgones
from gameserver.sessions.model import FleetName


def local_fleets(
    agones: LocalAgones, keepers: Mapping[FleetName, ShelfKeeper], decisions: Mapping[FleetName, Decision]
) -> Callable[[], Awaitable[Sequence[FleetView]]]:
    """What `look.Sources` wants."""

    async def views() -> Sequence[FleetView]:
        return [
            _view(status, keepers[status.fleet.name], decisions.get(status.fleet.name)) for status in agones.status()
        ]

    return views


def _view(status: FleetStatus, keeper: ShelfKeeper, decision: Decision | None) -> FleetView:
    now_s = time.time()
    return FleetView(
        name=status.fleet.name,
        max=status.fleet.max,
        shelf=keeper.policy.shelf,
        seen=keeper.seen,
        moved=keeper.moved,
        failures=status.failures,
        reason=status.reason,
        decision=decision,
        servers=[
            ServerView(
                server=server.server,
                since_at=now_s - server.since_s,
                rooms=server.rooms,
                players=server.players,
                pid=server.pid,
                reason=server.reason,
            )
            for server in status.servers
        ],
    )
