"""
Several clusters as one backend: each fleet's servers are in one of them.

A cluster that is away takes only its own fleets' new servers away. Which fleet a match goes to is not decided here but before a claim
(`allocator/selection.py`: regions, weights, fail-over); this only knows where a fleet is.
"""

from collections.abc import AsyncIterator, Mapping

from allocator.model import GameServer
from allocator.ports import Backend
from gameserver.sessions.model import FleetName, ServerName


class Several:
    """Backends by fleet; implements `allocator.ports.Backend`. They are entered and closed by whoever made them."""

    def __init__(self, backends: Mapping[FleetName, Backend]) -> None:
        self._backends = backends

    def clusters(self) -> list[tuple[Backend, tuple[FleetName, ...]]]:
        """Each backend once, with its fleets."""
        distinct = {id(backend): backend for backend in self._backends.values()}
        return [
            (backend, tuple(fleet for fleet, its in self._backends.items() if its is backend))
            for backend in distinct.values()
        ]

    async def allocate(
        self, fleet: FleetName, *, labels: Mapping[str, str], annotations: Mapping[str, str]
    ) -> GameServer | None:
        """Move one Ready server to Allocated; None when none is Ready. Raises BackendUnavailable, KeyError for a fleet that is nowhere."""
        return await self._backends[fleet].allocate(fleet, labels=labels, annotations=annotations)

    async def servers(self, fleet: FleetName, *, fresh: bool = False) -> tuple[GameServer, ...]:
        """List every live server of the fleet. Raises as `allocate`."""
        return await self._backends[fleet].servers(fleet, fresh=fresh)

    def watch(self, fleet: FleetName) -> AsyncIterator[GameServer]:
        """Yield servers as they change. Raises as `allocate`."""
        return self._backends[fleet].watch(fleet)

    async def label(self, server: ServerName, labels: Mapping[str, str]) -> None:
        """Set labels on a server. Raises BackendUnavailable, KeyError for a server of none of the fleets."""
        await self._of(server).label(server, labels)

    async def delete(self, server: ServerName) -> None:
        """Remove a server. Raises as `label`."""
        await self._of(server).delete(server)

    def _of(self, server: ServerName) -> Backend:
        """A server is named after its fleet; one fleet's name may begin another's."""
        named = [fleet for fleet in self._backends if server.startswith(f"{fleet}-")]
        if not named:
            raise KeyError(f"{server} is a server of none of the fleets {', '.join(sorted(self._backends))}")
        return self._backends[max(named, key=len)]
