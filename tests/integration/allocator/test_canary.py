"""A canary Fleet beside its fleet, as the allocator sees both: one fleet, the new version first."""

from pathlib import Path

from agones_fake import FakeAgones

from allocator.backends.cluster import ClusterApi
from allocator.backends.kubernetes import KubernetesBackend
from allocator.backends.request import FleetRule
from allocator.backends.settings import ClusterSettings
from gameserver.sessions.model import FleetName

FLEET = FleetName("arena")


async def test_a_canarys_servers_are_taken_first_and_count_for_the_fleet(tmp_path: Path) -> None:
    """As many as it has; then the old fleet's. A fleet without canaries is asked for by its own name alone."""
    async with FakeAgones(tmp_path) as fake:
        await fake.add_fleet("arena", 2, labels={"warmfleet.dev/fleet": "arena"})
        await fake.add_fleet("arena-canary", 1, labels={"warmfleet.dev/fleet": "arena"})
        settings = ClusterSettings(kubeconfig=fake.kubeconfig)
        rules = {FLEET: FleetRule(canary=True)}
        async with KubernetesBackend(settings, api=ClusterApi(settings, timeout_s=5.0), rules=rules) as backend:
            assert len(await backend.servers(FLEET)) == 3
            given = [await backend.allocate(FLEET, labels={}, annotations={}) for _ in range(2)]
            names = [server.name for server in given if server is not None]
            assert names[0].startswith("arena-canary-")
            assert not names[1].startswith("arena-canary-")
            assert {server.fleet for server in given if server is not None} == {FLEET}
    assert FleetRule().request(FLEET, labels={}, annotations={}).selectors[0].labels == {"agones.dev/fleet": "arena"}
