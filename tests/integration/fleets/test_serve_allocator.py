"""`warmfleet serve allocator`: its interfaces for other services, as they are set."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
from fleets.serve import services
from fleets.serve.services import Interfaces, interfaces
from fleets.serve.settings import ServeSettings, SettingsError
from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import FleetName

POLICY = FleetPolicy(name=FleetName("arena"), shelf=2)


def mutual(certificates: Certificates) -> dict[str, Path]:
    return {
        "service_certificate": certificates.server.certificate,
        "service_key": certificates.server.key,
        "service_client_ca": certificates.ca,
    }


def client_of(certificates: Certificates, *, known: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificates.ca))
    if known:
        context.load_cert_chain(certificates.client.certificate, certificates.client.key)
    return context


async def asked(port: int, match: str, tls: ssl.SSLContext) -> httpx.Response:
    async with httpx.AsyncClient(verify=tls) as http:
        return await http.post(f"https://localhost:{port}/v1/allocations", json={"id": match, "fleets": ["arena"]})


@asynccontextmanager
async def running(served: Interfaces, port: int) -> AsyncIterator[None]:
    """Until it listens there, and to its end."""
    tasks = [asyncio.ensure_future(run()) for run in served.services.values()]
    try:
        async with asyncio.timeout(15):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    break
                except OSError:
                    await asyncio.sleep(0.05)
        writer.close()
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


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
    addresses = {"service_grpc": f"127.0.0.1:{grpc_port}", "service_rest": f"127.0.0.1:{rest_port}"}
    served = await made(valkey, **addresses, **mutual(certificates))
    async with running(served, rest_port):
        assert (await asked(rest_port, "m1", client_of(certificates))).status_code == 201
        with pytest.raises(httpx.HTTPError):
            await asked(rest_port, "m2", client_of(certificates, known=False))
        credentials = grpc.ssl_channel_credentials(
            certificates.ca.read_bytes(),
            certificates.client.key.read_bytes(),
            certificates.client.certificate.read_bytes(),
        )
        async with grpc.aio.secure_channel(f"localhost:{grpc_port}", credentials) as channel:
            found = await allocation_pb2_grpc.AllocationServiceStub(channel).Allocate(pb.AllocationRequest())
            assert found.gameServerName.startswith("arena-")


async def test_rest_takes_up_new_certificates_and_a_new_authority(
    valkey: StoreClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a restart: clients of the new authority are served, those of the old one no longer; half a rotation changes nothing."""
    monkeypatch.setattr(services, "CERTIFICATE_CHECK_S", 0.02)
    old, new = Certificates(tmp_path / "served"), Certificates(tmp_path / "new")
    port = free_port()
    served = await made(valkey, service_rest=f"127.0.0.1:{port}", **mutual(old))
    before, after = client_of(old), client_of(new)
    async with running(served, port):
        assert (await asked(port, "m1", before)).status_code == 201
        shutil.copy(new.server.certificate, old.server.certificate)
        await asyncio.sleep(0.1)
        assert (await asked(port, "m1", before)).status_code == 201
        shutil.copy(new.server.key, old.server.key)
        shutil.copy(new.ca, old.ca)
        async with asyncio.timeout(15):
            while True:
                try:
                    assert (await asked(port, "m1", after)).status_code == 201
                    break
                except httpx.HTTPError:
                    await asyncio.sleep(0.05)
        before.load_verify_locations(new.ca)  # it trusts the server, and is not trusted by it
        with pytest.raises(httpx.HTTPError):
            await asked(port, "m1", before)


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
