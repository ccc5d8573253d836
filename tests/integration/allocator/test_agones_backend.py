"""Backend `agones` against the fake allocation service: choice, certificates, endpoints, lost replies."""

import asyncio
import datetime
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from agones_fake import Certificates, Effect, FakeAgones, Fault, Timing
from agones_fake.certificates import Authority

from allocator.backends.agones import AgonesBackend
from allocator.backends.endpoints import Endpoint
from allocator.backends.kubernetes import KubernetesBackend
from allocator.backends.request import (
    CounterAction,
    CounterChange,
    CounterRange,
    FleetRule,
    ListAction,
    ListRange,
    Priority,
    PriorityType,
    Scheduling,
    Selector,
)
from allocator.backends.settings import ClusterSettings
from allocator.backends.wire import Given
from allocator.model import ServerState
from allocator.ports import SHELF_LABEL, BackendUnavailable
from gameserver.certificates import CertificateError, CertificateFiles
from gameserver.sessions.model import FleetName

FLEET = FleetName("arena")
SHELVED = {SHELF_LABEL: "yes"}


def files_of(certificates: Certificates) -> CertificateFiles:
    client = certificates.client
    return CertificateFiles(certificate=client.certificate, key=client.key, ca=certificates.ca)


def backend_of(fake: FakeAgones, **options: Any) -> AgonesBackend:
    options.setdefault("files", files_of(fake.certificates))
    options.setdefault("cluster", KubernetesBackend(ClusterSettings(kubeconfig=fake.kubeconfig)))
    options.setdefault("timeout_s", 3.0)
    return AgonesBackend([Endpoint(address=fake.grpc_address)], **options)


@asynccontextmanager
async def stage(folder: Path, ready: int = 3, **options: Any) -> AsyncIterator[tuple[FakeAgones, AgonesBackend]]:
    async with FakeAgones(folder) as fake:
        await fake.add_fleet(FLEET, ready)
        async with backend_of(fake, **options) as backend:
            yield fake, backend


async def take(backend: AgonesBackend, rule: FleetRule, **labels: str) -> Given | None:
    return await backend.take(rule.request(FLEET, labels=labels, annotations={}))


def allocated(fake: FakeAgones) -> int:
    return list(fake.cluster.states(FLEET).values()).count("Allocated")


async def test_counters_and_lists_choose_and_change(tmp_path: Path) -> None:
    """Selectors, priorities and actions do on the server what they say, in the same step."""
    async with FakeAgones(tmp_path) as fake:
        counters, lists = {"rooms": {"count": 0, "capacity": 2}}, {"players": {"capacity": 3, "values": ["ann"]}}
        await fake.add_fleet(FLEET, 3, counters=counters, lists=lists)
        rule = FleetRule(
            selectors=(
                Selector(state=ServerState.ALLOCATED, counters={"rooms": CounterRange(min_available=1)}),
                Selector(lists={"players": ListRange(contains="ann")}),
            ),
            priorities=(Priority(type=PriorityType.COUNTER, key="rooms"),),
            counters={"rooms": CounterAction(change=CounterChange.INCREMENT, amount=1)},
            lists={"players": ListAction(add=("bob",), remove=("ann",), capacity=5)},
        )
        async with backend_of(fake, cluster=None) as backend:
            first = await take(backend, rule)
            assert first is not None
            assert first.counters == {"rooms": (1, 2)}
            assert first.lists == {"players": (("bob",), 5)}
            second = await take(backend, rule)  # the allocated one has room for another
            assert second is not None
            assert (second.server.name, second.counters["rooms"]) == (first.server.name, (2, 2))
            third = await take(backend, rule)
            assert third is not None
            assert third.server.name != first.server.name


async def test_packed_fills_a_node_and_distributed_does_not(tmp_path: Path) -> None:
    """The strategy reaches the service."""
    async with stage(tmp_path, ready=8) as (_, backend):
        nodes = {given.node for given in [await take(backend, FleetRule()) for _ in range(4)] if given is not None}
        assert len(nodes) == 1
        spread = [await take(backend, FleetRule(scheduling=Scheduling.DISTRIBUTED)) for _ in range(4)]
        assert all(spread)


async def test_the_preferred_endpoint_is_used_while_it_answers(tmp_path: Path) -> None:
    """The asker's own region first; the other while that is away; the first again once it is back."""
    async with FakeAgones(tmp_path / "a") as near, FakeAgones(tmp_path / "b") as far:
        for fake in (near, far):
            await fake.add_fleet(FLEET, 5)
        both = tmp_path / "both.crt"
        both.write_bytes(near.certificates.ca.read_bytes() + far.certificates.ca.read_bytes())
        far.certificates.ca.write_bytes(both.read_bytes())
        await far.grpc.stop()
        await far.grpc.start()
        client = near.certificates.client
        backend = AgonesBackend(
            [Endpoint(address=far.grpc_address, region="us"), Endpoint(address=near.grpc_address, region="eu")],
            files=CertificateFiles(certificate=client.certificate, key=client.key, ca=both),
            cluster=None,
            region="eu",
            timeout_s=5.0,
        )
        async with backend:
            assert await take(backend, FleetRule()) is not None
            assert (allocated(near), allocated(far)) == (1, 0)
            async with near.grpc_away():
                assert await take(backend, FleetRule(), **SHELVED) is not None
                assert await take(backend, FleetRule()) is not None
                assert (allocated(near), allocated(far)) == (1, 2)
            async with asyncio.timeout(20):
                while allocated(near) == 1 and allocated(far) < 5:
                    await take(backend, FleetRule())
                    await asyncio.sleep(0.6)
            assert allocated(near) == 2


async def test_none_free_is_an_answer_and_contention_is_asked_again(tmp_path: Path) -> None:
    """RESOURCE_EXHAUSTED is no error and not repeated; ABORTED is repeated."""
    async with stage(tmp_path, ready=1) as (fake, backend):
        fake.faults.add(Fault(on="allocate", effect=Effect.CONTENTION, times=2))
        assert await take(backend, FleetRule()) is not None
        assert fake.faults.calls["allocate"] == 3
        fake.cluster.frozen = True
        assert await take(backend, FleetRule()) is None
        assert fake.faults.calls["allocate"] == 4


async def test_a_broken_call_is_repeated_only_where_a_second_server_is_found(tmp_path: Path) -> None:
    """With the shelf's label a lost reply costs at most a server that reconciliation adopts; without it nothing is repeated."""
    async with stage(tmp_path) as (fake, backend):
        fake.faults.add(Fault(on="allocate", effect=Effect.DROP_AFTER))
        with pytest.raises(BackendUnavailable, match="whether a server was allocated is unknown"):
            await backend.allocate(FLEET, labels={"match": "m1"}, annotations={})
        assert (fake.faults.calls["allocate"], allocated(fake)) == (1, 1)
        fake.faults.add(Fault(on="allocate", effect=Effect.DROP_AFTER))
        assert await backend.allocate(FLEET, labels=SHELVED, annotations={}) is not None
        taken = [s for s in await backend.servers(FLEET, fresh=True) if s.labels.get(SHELF_LABEL)]
        assert len(taken) == 2


async def test_no_answer_in_time_is_an_error(tmp_path: Path) -> None:
    """A service that stalls holds nobody beyond the deadline, and is not asked again."""
    async with stage(tmp_path, timeout_s=0.5) as (fake, backend):
        fake.faults.add(Fault(on="allocate", effect=Effect.STALL))
        with pytest.raises(BackendUnavailable, match="DEADLINE_EXCEEDED"):
            await backend.allocate(FLEET, labels=SHELVED, annotations={})
        assert fake.faults.calls["allocate"] == 1


async def test_a_refusal_is_told_in_agones_words(tmp_path: Path) -> None:
    """An endpoint that is no allocation service, or refuses us, says so."""
    async with stage(tmp_path, timeout_s=1.0) as (fake, backend):
        fake.faults.add(Fault(on="allocate", effect=Effect.STATUS, grpc_code="PERMISSION_DENIED", times=None))
        with pytest.raises(BackendUnavailable, match="PERMISSION_DENIED"):
            await backend.allocate(FLEET, labels=SHELVED, annotations={})


async def test_an_expired_certificate_is_named_and_a_new_one_taken_up(tmp_path: Path) -> None:
    """The error says which file and since when; rotation needs no restart."""
    async with FakeAgones(tmp_path) as fake:
        await fake.add_fleet(FLEET, 2)
        fake.certificates.issue("client", server=False, from_days=-9, to_days=-1)
        async with backend_of(fake, timeout_s=1.0) as backend:
            with pytest.raises(BackendUnavailable, match=r"client.crt expired at .* UTC: renew it"):
                await backend.allocate(FLEET, labels={}, annotations={})
            fake.certificates.issue("client", server=False)
            async with asyncio.timeout(20):
                while True:
                    try:
                        assert await backend.allocate(FLEET, labels={}, annotations={}) is not None
                        break
                    except BackendUnavailable:
                        await asyncio.sleep(0.1)


async def test_rotation_disturbs_no_call(tmp_path: Path) -> None:
    """A new pair is used for new connections, while calls under way end on the old one."""
    async with FakeAgones(tmp_path, Timing(batch_s=0.3)) as fake:
        await fake.add_fleet(FLEET, 4)
        async with backend_of(fake, check_files_s=0.02) as backend:
            asking = [asyncio.create_task(take(backend, FleetRule())) for _ in range(2)]
            await asyncio.sleep(0.05)
            before = backend._channels
            fake.certificates.issue("client", server=False)
            async with asyncio.timeout(10):
                while backend._channels is before:
                    await asyncio.sleep(0.01)
            assert all(await asyncio.gather(*asking))
            assert await take(backend, FleetRule()) is not None


async def test_a_half_written_pair_is_not_taken_up(tmp_path: Path) -> None:
    """Half-way through a rotation the old certificate stays in use."""
    async with stage(tmp_path, check_files_s=0.02) as (fake, backend):
        assert await take(backend, FleetRule()) is not None
        fake.certificates.client.certificate.write_bytes(b"-----BEGIN CERTIFICATE-----\nhalf")
        await asyncio.sleep(0.1)
        assert await take(backend, FleetRule()) is not None


async def test_an_unknown_authority_is_named(tmp_path: Path) -> None:
    """The server's certificate is of another authority than ours, or ours of one that it does not know."""
    async with stage(tmp_path, timeout_s=1.0) as (fake, _):
        strange = tmp_path / "strange.crt"
        strange.write_bytes(Authority("strange").pem)
        client = fake.certificates.client
        files = CertificateFiles(certificate=client.certificate, key=client.key, ca=strange)
        async with backend_of(fake, files=files, cluster=None, timeout_s=1.0) as backend:
            with pytest.raises(BackendUnavailable, match=r"was its own certificate signed by .*strange.crt"):
                await take(backend, FleetRule())
        foreign = fake.certificates.issue("foreign", server=False, authority=Authority("strange"))
        files = CertificateFiles(certificate=foreign.certificate, key=foreign.key, ca=fake.certificates.ca)
        async with backend_of(fake, files=files, cluster=None, timeout_s=1.0) as backend:
            with pytest.raises(BackendUnavailable, match=r"does the service trust the authority of .*foreign.crt"):
                await take(backend, FleetRule())


async def test_no_client_certificate_is_said(tmp_path: Path) -> None:
    """A service that wants one breaks the connection; the error says what is missing."""
    async with stage(tmp_path) as (fake, _):
        files = CertificateFiles(ca=fake.certificates.ca)
        async with backend_of(fake, files=files, cluster=None, timeout_s=1.0) as backend:
            with pytest.raises(BackendUnavailable, match="no client certificate was shown"):
                await take(backend, FleetRule())


async def test_a_clock_that_is_wrong_is_said(tmp_path: Path) -> None:
    """A certificate that is not valid yet is told with this machine's time."""
    async with FakeAgones(tmp_path) as fake:
        fake.certificates.issue("client", server=False, from_days=1, to_days=9)
        async with backend_of(fake, cluster=None, timeout_s=1.0) as backend:
            with pytest.raises(BackendUnavailable, match=r"not valid before .* is this machine's clock right\?"):
                await take(backend, FleetRule())
        fake.certificates.issue("client", server=False)
        late = lambda: datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=365)  # noqa: E731
        await fake.grpc.stop()
        async with backend_of(fake, cluster=None, timeout_s=1.0, clock=late) as backend:
            with pytest.raises(BackendUnavailable, match="expired at"):
                await take(backend, FleetRule())


async def test_files_that_hold_no_pair_are_refused_at_the_start(tmp_path: Path) -> None:
    """A missing file and a file without a certificate are named."""
    certificates = Certificates(tmp_path)
    missing = CertificateFiles(certificate=tmp_path / "none", key=certificates.client.key)
    with pytest.raises(CertificateError, match="none: No such file"):
        await AgonesBackend([Endpoint(address="localhost:1")], files=missing, cluster=None).__aenter__()
    shutil.copy(certificates.client.key, certificates.client.certificate)
    with pytest.raises(CertificateError, match="no PEM certificate"):
        await AgonesBackend([Endpoint(address="localhost:1")], files=files_of(certificates), cluster=None).__aenter__()


async def test_alone_it_allocates_and_says_what_it_cannot(tmp_path: Path) -> None:
    """gRPC can neither list, watch, label nor delete: the error says with what to pair it."""
    async with stage(tmp_path, cluster=None) as (_, backend):
        server = await backend.allocate(FLEET, labels={}, annotations={})
        assert server is not None
        for call in (backend.servers(FLEET), backend.label(server.name, {}), backend.delete(server.name)):
            with pytest.raises(BackendUnavailable, match="pair this backend"):
                await call
        with pytest.raises(BackendUnavailable, match="pair this backend"):
            backend.watch(FLEET)


async def test_with_the_api_server_away_it_still_allocates(tmp_path: Path) -> None:
    """As with Agones' extensions down: allocation goes on, and what it gives is in the list."""
    async with stage(tmp_path) as (fake, backend):
        await backend.servers(FLEET)
        async with fake.api_away():
            server = await backend.allocate(FLEET, labels=SHELVED, annotations={})
            assert server is not None
            assert server.state is ServerState.ALLOCATED
            assert server in await backend.servers(FLEET)
