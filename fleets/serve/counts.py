"""The cluster's own numbers of our fleets, as metrics; and a word when a fleet is not there at all."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn, Protocol, runtime_checkable

import structlog

from allocator.ports import BackendUnavailable
from fleets.metrics import show_servers
from gameserver.sessions.model import FleetName

if TYPE_CHECKING:  # needs the extra `kubernetes`, which only parts that ask a cluster have
    from allocator.backends.kubernetes import FleetCounts

log = structlog.get_logger(__name__)

_PERIOD_S = 5.0


@runtime_checkable
class Counts(Protocol):
    """A cluster that has Fleets."""

    async def fleet_counts(self) -> "tuple[FleetCounts, ...]":
        """The Fleets of the namespace. Raises BackendUnavailable."""


async def watch_counts(cluster: Counts, fleets: Sequence[FleetName]) -> NoReturn:
    """Keep the metrics until cancelled; a fleet of the files that the cluster lacks is said once, until it comes."""
    missing: set[FleetName] = set()
    away = False
    while True:
        try:
            counts = {fleet.name: fleet for fleet in await cluster.fleet_counts()}
            away = False
            for fleet in fleets:
                _show(fleet, counts.get(fleet))
            lacking = {fleet for fleet in fleets if fleet not in counts}
            if new := sorted(lacking - missing):
                log.warning(
                    "fleets_not_in_cluster", fleets=new, mend="apply what `warmfleet render` makes, in this namespace"
                )
            missing = lacking
        except BackendUnavailable as error:
            if not away:
                log.warning("fleets_not_counted", error=str(error))
            away = True
        await asyncio.sleep(_PERIOD_S)


def _show(fleet: FleetName, counts: "FleetCounts | None") -> None:
    ready, allocated, reserved, replicas = (
        (counts.ready, counts.allocated, counts.reserved, counts.replicas) if counts else (0, 0, 0, 0)
    )
    show_servers(fleet, ready=ready, allocated=allocated, reserved=reserved, replicas=replicas)
