"""What the allocator needs from the world: a backend that has servers. The laptop's is `fleets/local`, the cluster's are in `backends/`."""

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from allocator.model import GameServer
from gameserver.sessions.model import FleetName, ServerName


class BackendUnavailable(Exception):
    """The backend did not answer, or not in time; whether the call took effect is unknown. Reconciliation finds out."""


SHELF_LABEL = "warmfleet.dev/shelf"
"""Label put on a server in the same backend call that allocates it for the shelf; reconciliation finds leaked servers by it."""

TRACK_LABEL = "warmfleet.dev/track"
"""`canary` on servers of a new version that runs beside the old one: neither makes the other's servers stale."""

RETIRE_LABEL = "warmfleet.dev/retire"
"""Set to `true` on a server that is to get no new sessions; it goes once the ones on it are over."""

RECYCLE_LABEL = "warmfleet.dev/recycle"
"""Set to `ready` to ask a server of ours to call Ready() on its own SDK: only it can go from Allocated back to Ready."""


class Backend(Protocol):
    """Servers of some fleets, in Agones' terms."""

    async def allocate(
        self, fleet: FleetName, *, labels: Mapping[str, str], annotations: Mapping[str, str]
    ) -> GameServer | None:
        """
        Move one Ready server of `fleet` to Allocated and set the metadata on it, in one step.

        Returns: the server, or None when no Ready one is there.
        Raises: BackendUnavailable.
        """

    async def servers(self, fleet: FleetName, *, fresh: bool = False) -> tuple[GameServer, ...]:
        """
        List every live server of the fleet, any state; one that is told to go is SHUTDOWN until its process has ended.

        `fresh`: as they are now; without it a backend may answer with what it last heard. Raises BackendUnavailable.
        """

    def watch(self, fleet: FleetName) -> AsyncIterator[GameServer]:
        """
        Yield servers as they change, first every live one; a server that is gone is yielded once more with state SHUTDOWN.

        Events may be lost or repeated: they only wake a loop that lists. Raises BackendUnavailable when the stream breaks.
        """

    async def label(self, server: ServerName, labels: Mapping[str, str]) -> None:
        """Set labels on a server; one that is gone is no error. Raises BackendUnavailable."""

    async def delete(self, server: ServerName) -> None:
        """Remove a server in any state; the fleet replaces it if it is wanted. One that is gone is no error."""
