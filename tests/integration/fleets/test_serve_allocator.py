"""`warmfleet serve allocator`: its interfaces for other services, as they are set."""

import asyncio
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from agones_fake.certificates import Certificates
from conftest import free_port
from fakes import FakeBackend

from allocator.backends.pb import allocation_pb2 as pb
from allocator.backends.pb import allocation_pb2_grpc
from allocator.keeper import ShelfKeeper
from allocator.model import FleetPolicy
from allocator.service import Allocator
from allocator.shelf import Shelf
from fleets.serve.services import Interfaces, interfaces
from fleets.serve.settings import ServeSettings, SettingsError
from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import FleetName

POLICY = FleetPolicy(name=FleetName("arena"), shelf=2)


async def made(client: StoreClient, **settings: Any) -> Interfaces:
    shelf, backend = Shelf(client), FakeBackend(POLICY.name, 3)
    keeper = ShelfKeeper(POLICY, shelf, client, backend)
    while await keeper.round():
        pass
    allocator = Allocator(shelf, client, [POLICY], backend)
    return interfaces(ServeSettings.read({}, **settings), allocator, shelf, backend)


async def test_both_interfaces_over_mutual_tls(valkey: StoreClient, tmp_path: Path) -> None:
    """A client with a certificate of the authority is served by REST and by gRPC; one without is not."""
    certificates = Certificates(tmp_path)
    grpc_port, rest_port = free_port(), free_port()
    served = await made(
        valkey,
        service_grpc=f"127.0.0.1:{grpc_port}",
        service_rest=f"127.0.0.1:{rest_port}",
        service_certificate=certificates.server.certificate,
        service_key=certificates.server.key,
        service_client_ca=certificates.ca,
    )
    tasks = [asyncio.ensure_future(run()) for run in served.services.values()]
    async with AsyncExitStack() as stack:
        known = ssl.create_default_context(cafile=str(certificates.ca))
        known.load_cert_chain(certificates.client.certificate, certificates.client.key)
        stranger = ssl.create_default_context(cafile=str(certificates.ca))
        url = f"https://localhost:{rest_port}/v1/allocations"
        http = await stack.enter_async_context(httpx.AsyncClient(verify=known))
        async with asyncio.timeout(15):
            while True:
                try:
                    reply = await http.post(url, json={"id": "m1", "fleets": ["arena"]})
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0.05)
        assert reply.status_code == 201
        other = await stack.enter_async_context(httpx.AsyncClient(verify=stranger))
        with pytest.raises(httpx.HTTPError):
            await other.post(url, json={"id": "m2", "fleets": ["arena"]})
        credentials = grpc.ssl_channel_credentials(
            certificates.ca.read_bytes(),
            certificates.client.key.read_bytes(),
            certificates.client.certificate.read_bytes(),
        )
        channel = await stack.enter_async_context(grpc.aio.secure_channel(f"localhost:{grpc_port}", credentials))
        found = await allocation_pb2_grpc.AllocationServiceStub(channel).Allocate(pb.AllocationRequest())
        assert found.gameServerName.startswith("arena-")
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_without_tokens_only_this_machine_is_served(valkey: StoreClient, tmp_path: Path) -> None:
    """REST on the part's own port: for loopback, or for whoever has a token."""
    assert (await made(valkey)).app is not None
    assert (await made(valkey, host="0.0.0.0")).app is None
    tokens = tmp_path / "tokens"
    tokens.write_text("matchmaker:0123456789abcdef\n")
    assert (await made(valkey, host="0.0.0.0", service_tokens=tokens)).app is not None


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"service_tokens": "missing"}, "SERVICE_TOKENS"),
        ({"service_certificate": "a.crt"}, "SERVICE_KEY"),
        ({"service_client_ca": "ca.crt"}, "SERVICE_CERTIFICATE"),
        ({"service_certificate": "a.crt", "service_key": "a.key"}, "SERVICE_TOKENS"),
        ({"service_certificate": "a.crt", "service_key": "a.key", "service_client_ca": "ca"}, "a.crt is no file"),
        ({"service_grpc": "0.0.0.0:0"}, "SERVICE_GRPC"),
        ({"service_rest": "127.0.0.1:0"}, "SERVICE_CERTIFICATE"),
    ],
)
async def test_contradictory_settings_are_named(valkey: StoreClient, settings: dict[str, str], named: str) -> None:
    """Before anything is served, with the variable and the mend."""
    with pytest.raises(SettingsError, match=named):
        await made(valkey, **settings)
