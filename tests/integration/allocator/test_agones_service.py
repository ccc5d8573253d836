"""Agones' allocation service on our shelves, as clients of Agones see it: real gRPC with mutual TLS."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from agones_fake.certificates import Authority, Certificates, KeyPair
from fakes import FakeBackend

from allocator.api.agones import AllocationServer, AllocationService
from allocator.api.tokens import ServiceTokens
from allocator.backends.agones import AgonesBackend
from allocator.backends.endpoints import Endpoint
from allocator.backends.pb import allocation_pb2 as pb
from allocator.backends.pb import allocation_pb2_grpc
from allocator.keeper import ShelfKeeper
from allocator.model import FleetPolicy
from allocator.service import Allocator
from allocator.shelf import Shelf
from gameserver import tracing
from gameserver.certificates import CertificateFiles
from gameserver.sessions.client import StoreClient, connect
from gameserver.sessions.model import FleetName, SessionId

EU = FleetPolicy(name=FleetName("arena-eu"), rooms=2, shelf=4, labels={"mode": "duel", "region": "eu"})
US = FleetPolicy(name=FleetName("arena-us"), rooms=1, shelf=1, labels={"mode": "duel", "region": "us"}, managed=False)
Selector = pb.GameServerSelector


class Stage:
    def __init__(self, client: StoreClient) -> None:
        self.backends = {policy.name: FakeBackend(policy.name, 3) for policy in (EU, US)}
        self.shelf = Shelf(client)
        self.keepers = [ShelfKeeper(policy, self.shelf, client, self.backends[policy.name]) for policy in (EU, US)]
        self.allocator = Allocator(self.shelf, client, (EU, US), self.backends[US.name])

    def service(self, **more: Any) -> AllocationService:
        return AllocationService(self.allocator, self.backends[US.name], wait_s=0.1, **more)

    async def settle(self) -> None:
        for keeper in self.keepers:
            while await keeper.round():
                pass


@pytest.fixture
async def stage(valkey: StoreClient) -> Stage:
    stage = Stage(valkey)
    await stage.settle()
    return stage


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@asynccontextmanager
async def plain(stage: Stage, **more: Any) -> AsyncIterator[Any]:
    async with AllocationServer(stage.service(**more), address="127.0.0.1:0", tls=None) as server:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield allocation_pb2_grpc.AllocationServiceStub(channel)


def fleet(name: str) -> Selector:
    return Selector(matchLabels={"agones.dev/fleet": name})


async def code(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_an_agones_client_is_served(stage: Stage) -> None:
    """By the fleet's label, by labels of the fleet, in the order of the selectors; without any, whatever is free."""
    async with plain(stage) as stub:
        found = await stub.Allocate(pb.AllocationRequest(namespace="default", gameServerSelectors=[fleet("arena-us")]))
        server = stage.backends[US.name].all[found.gameServerName]
        assert (found.address, {p.name: p.port for p in found.ports}) == (server.host, server.ports)
        assert found.source == "local"
        assert found.metadata.labels["agones.dev/fleet"] == "arena-us"
        assert found.metadata.annotations["warmfleet.dev/temperature"] == "shelf"
        session = await stage.shelf.find(SessionId(found.metadata.labels["warmfleet.dev/session"]))
        assert session is not None
        by_label = pb.AllocationRequest(gameServerSelectors=[Selector(matchLabels={"mode": "duel", "region": "eu"})])
        assert (await stub.Allocate(by_label)).metadata.labels["agones.dev/fleet"] == "arena-eu"
        # Nothing is free in the first any more: the next selector's.
        in_order = pb.AllocationRequest(gameServerSelectors=[fleet("arena-us"), fleet("arena-eu")])
        assert (await stub.Allocate(in_order)).metadata.labels["agones.dev/fleet"] == "arena-eu"
        assert (await stub.Allocate(pb.AllocationRequest())).metadata.labels["agones.dev/fleet"] == "arena-eu"
        old = pb.AllocationRequest(
            requiredGameServerSelector=Selector(matchLabels={"mode": "duel"}),
            preferredGameServerSelectors=[fleet("arena-eu")],
        )
        assert (await stub.Allocate(old)).metadata.labels["agones.dev/fleet"] == "arena-eu"
        status, why = await code(stub.Allocate(pb.AllocationRequest(gameServerSelectors=[fleet("arena-eu")])))
        assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert why.startswith("there is no available GameServer to allocate")


async def test_metadata_reaches_the_game(stage: Stage) -> None:
    """As options of the session, and as labels of a server whose game is not ours."""
    metadata = pb.MetaPatch(labels={"match": "m1"}, annotations={"example.com/players": '["ann"]'})
    async with plain(stage) as stub:
        found = await stub.Allocate(pb.AllocationRequest(gameServerSelectors=[fleet("arena-us")], metadata=metadata))
        session = await stage.shelf.find(SessionId(found.metadata.labels["warmfleet.dev/session"]))
        assert session is not None
        assert session.session.options == {"match": "m1", "example.com/players": '["ann"]'}
        assert stage.backends[US.name].all[found.gameServerName].labels["match"] == "m1"
        assert found.metadata.annotations["example.com/players"] == '["ann"]'


async def test_a_request_with_an_id_may_be_repeated(stage: Stage) -> None:
    """The same x-request-id gets the same server; without one each call is a new allocation, as with Agones."""
    async with plain(stage) as stub:
        request = pb.AllocationRequest(gameServerSelectors=[fleet("arena-eu"), fleet("arena-us")])
        given = [await stub.Allocate(request, metadata=(("x-request-id", "match-1"),)) for _ in range(3)]
        assert len({found.metadata.labels["warmfleet.dev/session"] for found in given}) == 1
        anew = [await stub.Allocate(request) for _ in range(2)]
        assert len({found.metadata.labels["warmfleet.dev/session"] for found in [given[0], *anew]}) == 3
        status, why = await code(stub.Allocate(request, metadata=(("x-request-id", "no spaces"),)))
        assert (status, why.partition(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, "metadata x-request-id")


@pytest.mark.parametrize(
    ("request_", "wanted", "field"),
    [
        (pb.AllocationRequest(gameServerSelectors=[fleet("nope")]), grpc.StatusCode.NOT_FOUND, "no fleet matches"),
        (
            pb.AllocationRequest(
                gameServerSelectors=[Selector(matchLabels={"agones.dev/fleet": "arena-eu", "region": "us"})]
            ),
            grpc.StatusCode.NOT_FOUND,
            "no fleet matches the selectors; there are: arena-eu, arena-us",
        ),
        (
            pb.AllocationRequest(gameServerSelectors=[Selector(matchLabels={"-bad-": "x"})]),
            grpc.StatusCode.INVALID_ARGUMENT,
            "gameServerSelectors[0].matchLabels",
        ),
        (
            pb.AllocationRequest(
                gameServerSelectors=[fleet("arena-eu"), Selector(players=pb.PlayerSelector(minAvailable=5, maxAvailable=2))]
            ),
            grpc.StatusCode.INVALID_ARGUMENT,
            "gameServerSelectors[1].players: minAvailable 5 is above maxAvailable 2",
        ),
        (
            pb.AllocationRequest(gameServerSelectors=[Selector(counters={"rooms": pb.CounterSelector(minAvailable=1)})]),
            grpc.StatusCode.INVALID_ARGUMENT,
            "gameServerSelectors[0].counters",
        ),
        (pb.AllocationRequest(priorities=[pb.Priority(key="rooms")]), grpc.StatusCode.INVALID_ARGUMENT, "priorities"),
        (
            pb.AllocationRequest(metadata=pb.MetaPatch(labels={"match": "not a value"})),
            grpc.StatusCode.INVALID_ARGUMENT,
            "metadata.labels",
        ),
        (
            pb.AllocationRequest(
                multiClusterSetting=pb.MultiClusterSetting(
                    enabled=True, policySelector=pb.LabelSelector(matchLabels={"region": "mars"})
                )
            ),
            grpc.StatusCode.NOT_FOUND,
            "no fleet matches",
        ),
    ],
)  # fmt: skip
async def test_what_cannot_be_served_is_named(
    stage: Stage, request_: pb.AllocationRequest, wanted: grpc.StatusCode, field: str
) -> None:
    """Nothing that a client asks for is silently ignored; nothing is allocated."""
    async with plain(stage) as stub:
        status, why = await code(stub.Allocate(request_))
        assert status is wanted
        assert field in why
    assert (await stage.shelf.observe(EU.name)).free == 4


async def test_our_own_client_of_agones_works_through_mutual_tls(stage: Stage, certificates: Certificates) -> None:
    """The backend that allocates from a real Agones, pointed here; a client without a certificate of the authority is refused."""
    tls = files(certificates)
    async with AllocationServer(stage.service(), address="127.0.0.1:0", tls=tls) as server:
        own = CertificateFiles(
            certificate=certificates.client.certificate, key=certificates.client.key, ca=certificates.ca
        )
        endpoint = Endpoint(address=f"localhost:{server.port}")
        async with AgonesBackend([endpoint], files=own, cluster=None, namespace="default") as client:
            found = await client.allocate(EU.name, labels={"a": "b"}, annotations={})
            assert found is not None
            assert found.name in stage.backends[EU.name].all
        assert (await code(secure(server.port, certificates, None)))[0] is grpc.StatusCode.UNAVAILABLE
        stranger = Certificates(certificates.folder / "stranger").client
        assert (await code(secure(server.port, certificates, stranger)))[0] is grpc.StatusCode.UNAVAILABLE


def files(certificates: Certificates) -> CertificateFiles:
    return CertificateFiles(
        certificate=certificates.server.certificate, key=certificates.server.key, ca=certificates.ca
    )


async def secure(port: int, certificates: Certificates, pair: KeyPair | None, ca: bytes | None = None) -> Any:
    credentials = grpc.ssl_channel_credentials(
        root_certificates=ca or certificates.ca.read_bytes(),
        private_key=pair.key.read_bytes() if pair else None,
        certificate_chain=pair.certificate.read_bytes() if pair else None,
    )
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        stub = allocation_pb2_grpc.AllocationServiceStub(channel)
        return await stub.Allocate(pb.AllocationRequest(), timeout=10)


async def test_a_changed_certificate_is_taken_up(stage: Stage, tmp_path: Path) -> None:
    """The next connection sees it; one that is half written does no harm."""
    certificates = Certificates(tmp_path)
    tls = files(certificates)
    other = Authority("another")
    async with AllocationServer(stage.service(), address="127.0.0.1:0", tls=tls) as server:
        await secure(server.port, certificates, certificates.client)
        pair = certificates.issue("server", server=True, authority=other)
        for file in (pair.certificate, pair.key):
            os.utime(file, (1, 1))
        await secure(server.port, certificates, certificates.client, ca=other.pem)


async def test_service_tokens_are_wanted_where_they_are_set(stage: Stage, tmp_path: Path) -> None:
    """As metadata of the call, the same tokens as for REST."""
    file = tmp_path / "tokens"
    file.write_text("matchmaker:0123456789abcdef\n")
    async with plain(stage, tokens=ServiceTokens(file)) as stub:
        assert (await code(stub.Allocate(pb.AllocationRequest())))[0] is grpc.StatusCode.UNAUTHENTICATED
        await stub.Allocate(pb.AllocationRequest(), metadata=(("authorization", "Bearer 0123456789abcdef"),))


async def test_an_address_that_others_reach_wants_tls(stage: Stage) -> None:
    """In plain text it listens on loopback alone."""
    with pytest.raises(ValueError, match="loopback"):
        AllocationServer(stage.service(), address="0.0.0.0:0", tls=None)


async def test_a_store_that_is_away_is_unavailable(stage: Stage, unused: str) -> None:
    """The client is told to ask again, which Agones' clients do for this code."""
    away = connect(unused)
    allocator = Allocator(Shelf(away), away, (replace(EU),), stage.backends[EU.name])
    service = AllocationService(allocator, stage.backends[EU.name], wait_s=0.2)
    async with AllocationServer(service, address="127.0.0.1:0", tls=None) as server:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = allocation_pb2_grpc.AllocationServiceStub(channel)
            status, why = await code(stub.Allocate(pb.AllocationRequest()))
            assert status is grpc.StatusCode.UNAVAILABLE
            assert why == "the session store does not answer; ask again"
    await away.aclose()


@pytest.fixture
def unused() -> str:
    from conftest import free_port

    return f"redis://127.0.0.1:{free_port()}/0"


@pytest.fixture
def traces() -> Iterator[Callable[[], Any]]:
    pytest.importorskip("opentelemetry.sdk", reason="the extra tracing is not installed")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from gameserver.spans import OtelTracer

    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing._tracer = OtelTracer(provider)
    yield exporter.get_finished_spans
    tracing.shutdown()


async def test_a_trace_goes_on_through_grpc(stage: Stage, traces: Callable[[], Any]) -> None:
    """Our client of Agones says whose trace it is in, our service goes on with it, down to the claim."""
    async with AllocationServer(stage.service(), address="127.0.0.1:0", tls=None) as server:
        endpoint = Endpoint(address=f"127.0.0.1:{server.port}")
        async with AgonesBackend([endpoint], files=None, cluster=None, namespace="default") as backend:
            with tracing.span("asking"):
                found = await backend.allocate(US.name, labels={}, annotations={})
    assert found is not None
    spans = {span.name: span for span in traces()}
    assert set(spans) == {"asking", "Allocate", "allocate", "claim"}
    assert len({span.context.trace_id for span in spans.values()}) == 1
    assert spans["Allocate"].parent.span_id == spans["asking"].context.span_id
    assert spans["claim"].parent.span_id == spans["allocate"].context.span_id
