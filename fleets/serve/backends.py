"""Where a part's servers come from: the cluster that its settings name, or none."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Never

from allocator.backends.request import FleetRule
from allocator.backends.several import Several
from allocator.model import GameServer
from allocator.ports import Backend, BackendUnavailable
from fleets.serve.settings import BackendName, ServeSettings, SettingsError
from fleets.spec.loader import Specs
from gameserver.sessions.model import FleetName, ServerName


async def make_backend(settings: ServeSettings, specs: Specs, default: BackendName, stack: AsyncExitStack) -> Backend:
    """
    The backend that the settings name, or else `default`; `stack` closes it.

    With `settings.clusters` each fleet is in its region's cluster, the others in the one of `kube_context`.
    Raises: SettingsError, BackendUnavailable, CertificateError.
    """
    name = settings.backend or default
    if name is BackendName.NONE:
        return Unlisted()
    regions = {FleetName(f.metadata.name): f.metadata.labels.get("region", "") for f in specs.fleets}
    if unused := sorted(settings.clusters.keys() - set(regions.values())):
        raise SettingsError(f"WARMFLEET_CLUSTERS: no Fleet of these files has `metadata.labels.region: {unused[0]}`")
    canaries = [fleet for fleet in specs.fleets if fleet.spec.rollout.strategy == "canary"]
    rules = {FleetName(fleet.metadata.name): FleetRule(canary=True) for fleet in canaries}
    used = {region if region in settings.clusters else "" for region in regions.values()} or {""}
    made = {region: await stack.enter_async_context(_cluster(settings, name, region, rules)) for region in sorted(used)}
    if len(made) == 1:
        return next(iter(made.values()))
    return Several({fleet: made.get(region) or made[""] for fleet, region in regions.items()})


def clusters_of(backend: Backend, fleets: Sequence[FleetName]) -> list[tuple[Backend, tuple[FleetName, ...]]]:
    """The clusters behind a backend, each with its fleets."""
    return backend.clusters() if isinstance(backend, Several) else [(backend, tuple(fleets))]


def _cluster(
    settings: ServeSettings, name: BackendName, region: str, rules: Mapping[FleetName, FleetRule]
) -> AbstractAsyncContextManager[Backend]:
    # The extra `kubernetes`: 130 MB that a part which asks no cluster does without.
    from allocator.backends.agones import AgonesBackend
    from allocator.backends.kubernetes import KubernetesBackend

    cluster = KubernetesBackend(settings.cluster(region), address_type=settings.address_type, rules=rules)
    if name is BackendName.KUBERNETES:
        return cluster
    return AgonesBackend(
        settings.endpoints_of(region),
        rules=rules,
        files=settings.certificates(),
        cluster=cluster,
        namespace=settings.namespace,
        region=settings.allocation_region,
        server_name=settings.allocation_server_name,
        timeout_s=settings.allocation_timeout_s,
    )


class Unlisted:
    """The backend of a part that asks no cluster: its allocator claims what is on the shelves, and waits for what keepers bring."""

    async def allocate(
        self, fleet: FleetName, *, labels: Mapping[str, str], annotations: Mapping[str, str]
    ) -> GameServer | None:
        """Never."""
        self._refuse()

    async def servers(self, fleet: FleetName, *, fresh: bool = False) -> tuple[GameServer, ...]:
        """Unknown."""
        self._refuse()

    def watch(self, fleet: FleetName) -> AsyncIterator[GameServer]:
        """Never."""
        self._refuse()

    async def label(self, server: ServerName, labels: Mapping[str, str]) -> None:
        """Never."""
        self._refuse()

    async def delete(self, server: ServerName) -> None:
        """Never."""
        self._refuse()

    def _refuse(self) -> Never:
        raise BackendUnavailable("this part asks no cluster (WARMFLEET_BACKEND=none)")
