"""Where a part's servers come from: the cluster that its settings name, or none."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Never

from allocator.backends.request import FleetRule
from allocator.model import GameServer
from allocator.ports import Backend, BackendUnavailable
from fleets.serve.settings import BackendName, ServeSettings
from fleets.spec.loader import Specs
from gameserver.sessions.model import FleetName, ServerName


async def make_backend(settings: ServeSettings, specs: Specs, default: BackendName, stack: AsyncExitStack) -> Backend:
    """
    The backend that the settings name, or else `default`; `stack` closes it.

    Raises: SettingsError, BackendUnavailable, CertificateError.
    """
    name = settings.backend or default
    if name is BackendName.NONE:
        return Unlisted()
    # The extra `kubernetes`: 130 MB that a part which asks no cluster does without.
    from allocator.backends.agones import AgonesBackend
    from allocator.backends.kubernetes import KubernetesBackend

    canaries = [fleet for fleet in specs.fleets if fleet.spec.rollout.strategy == "canary"]
    rules = {FleetName(fleet.metadata.name): FleetRule(canary=True) for fleet in canaries}
    cluster = KubernetesBackend(settings.cluster(), address_type=settings.address_type, rules=rules)
    if name is BackendName.KUBERNETES:
        return await _enter(stack, cluster)
    backend = AgonesBackend(
        settings.allocation_endpoints,
        rules=rules,
        files=settings.certificates(),
        cluster=cluster,
        namespace=settings.namespace,
        region=settings.allocation_region,
        server_name=settings.allocation_server_name,
        timeout_s=settings.allocation_timeout_s,
    )
    return await _enter(stack, backend)


async def _enter(stack: AsyncExitStack, backend: AbstractAsyncContextManager[Backend]) -> Backend:
    return await stack.enter_async_context(backend)


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
