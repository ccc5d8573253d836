"""Every route of every HTTP application, and every method of every gRPC service, wants a caller that it knows, or is listed here with the reason why not."""

import asyncio
import base64
import re
from contextlib import AsyncExitStack
from pathlib import Path

import grpc.aio
import httpx
import pytest
from pydantic import SecretStr
from wired_apps import SPECS, applications, routes, settings

from allocator.api.agones import AllocationServer, AllocationService
from allocator.api.tokens import ServiceTokens
from allocator.backends.pb import allocation_pb2
from fleets.serve.parts import make
from fleets.serve.run import _Operations
from fleets.serve.settings import PartName
from fleets.spec.loader import load
from gameserver.sessions.client import StoreClient

HEALTH = "says whether the process lives: nothing of anybody's"
METRICS = "Prometheus asks without a token; no ids are labels, and network policies keep players out"
PAGE = "the page to play on, of a laptop"
DESCRIPTION = "what the API looks like is no secret"
WEBHOOK = "Kubernetes and Agones call webhooks without credentials: TLS and network policies say who can"
OPEN = {
    "GET /healthz": HEALTH,
    "GET /readyz": HEALTH,
    "GET /metrics": METRICS,
    "GET /metrics/targets": METRICS,
    "GET /openapi.json": DESCRIPTION,
    "GET /v1/queues": "which queues there are, so that a page can offer them before anybody signs in",
    "GET /v1/regions": "where to measure a latency to, before anybody signs in",
    "GET /": PAGE,
    "MOUNT /arena": PAGE,
    "MOUNT /sdk": PAGE,
    "MOUNT /console": "the console's page alone: its stream and its actions want the operator's token",
    "POST /v1/dev/players": "development tokens: there only where `warmfleet up` listens on a loopback address, for pages of its own origin",
    "POST /v1/fleet-autoscale": WEBHOOK,
    "GET /v1/fleets/{fleet}/decision": "how many servers were decided on and why, beside the webhook, not reachable for players",
    "POST /mutate": WEBHOOK,
}
REFUSED = (401, 403)


async def test_routes_want_a_caller(valkey: StoreClient, valkey_url: str, tmp_path: Path) -> None:
    """Without a token, and with a wrong one; before the body is looked at."""
    answered, seen = [], set()
    async with AsyncExitStack() as stack:
        for name, app in (await applications(valkey, valkey_url, tmp_path, stack)).items():
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
                for method, path in routes(app):
                    seen.add(f"{method} {path}")
                    if f"{method} {path}" in OPEN:
                        continue
                    assert method not in ("WS", "MOUNT"), (
                        f"{name}: {path} is not listed: ask it as a socket, or open it"
                    )
                    for headers in ({}, {"Authorization": "Bearer nobody"}, {"Authorization": "Basic bm86Ym9keQ=="}):
                        reply = await http.request(method, re.sub(r"\{[^}]*\}", "x", path), headers=headers)
                        if reply.status_code not in REFUSED:
                            answered.append(f"{name}: {method} {path} with {headers}: {reply.status_code}")
    assert not answered, "\n".join(answered)
    assert len(seen) > 30


async def test_parts_serve_nothing_else(valkey: StoreClient, valkey_url: str, tmp_path: Path) -> None:
    """A part without an application, or a beacon, knows no other paths than those of the operations."""
    (tmp_path / "specs.yaml").write_text(SPECS)
    specs = load([tmp_path / "specs.yaml"])
    served = settings(valkey, valkey_url).model_copy(
        update={
            "beacon_region": "eu",
            "beacon_key": SecretStr(base64.urlsafe_b64encode(bytes(32)).decode()),
            "beacon_udp": "127.0.0.1:0",
        }
    )
    own = {PartName.MATCHMAKER, PartName.AUTOSCALER, PartName.ALLOCATOR, PartName.CONSOLE}  # walked above
    async with AsyncExitStack() as stack:
        for name in set(PartName) - own:
            part = await make(name, served, specs, valkey, stack)
            transport = httpx.ASGITransport(app=_Operations(part, valkey, asyncio.Event()))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
                for path in ("/healthz", "/metrics"):
                    assert (await http.get(path)).status_code == 200, name
                assert part.app is None or name is PartName.BEACON
                for path in ("/", "/v1/tickets", "/v1/allocations", "/metrics/targets", "/docs", "/v1/beacon/x"):
                    assert (await http.get(path)).status_code == 404, (name, path)
                if name is PartName.BEACON:
                    # Open, as its list of regions is: a round trip is measured before anybody signs in, at most 20 requests a second for each address.
                    answers = [(await http.get("/v1/beacon?nonce=AAAAAAAAAAA")).status_code for _ in range(100)]
                    assert answers[0] == 200
                    assert answers[-1] == 429


async def test_grpc_methods_want_a_caller(tmp_path: Path) -> None:
    """Each of the allocation service's, without a token and with a wrong one; what Agones' SDK says is heard on loopback alone."""
    tokens = tmp_path / "tokens"
    tokens.write_text("matchmaker:0123456789abcdef\n")
    service = AllocationService(None, None, tokens=ServiceTokens(tokens))  # type: ignore[arg-type]
    methods = [
        f"/{described.full_name}/{method.name}"
        for described in allocation_pb2.DESCRIPTOR.services_by_name.values()
        for method in described.methods
    ]
    assert methods
    async with AllocationServer(service, address="127.0.0.1:0", tls=None) as server:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            for method in (*methods, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"):
                for metadata in ((), (("authorization", "Bearer nobody"),)):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await channel.unary_unary(method)(b"", metadata=metadata)
                    known = method in methods
                    assert caught.value.code() is (
                        grpc.StatusCode.UNAUTHENTICATED if known else grpc.StatusCode.UNIMPLEMENTED
                    )


async def test_development_tokens_are_a_laptops(valkey: StoreClient, valkey_url: str, tmp_path: Path) -> None:
    """A served matchmaker hands none out."""
    async with AsyncExitStack() as stack:
        apps = await applications(valkey, valkey_url, tmp_path, stack)
        assert ("POST", "/v1/dev/players") in routes(apps["up"])
        assert ("POST", "/v1/dev/players") not in routes(apps["matchmaker"])


async def test_a_foreign_name_is_refused_on_a_laptop(valkey: StoreClient, valkey_url: str, tmp_path: Path) -> None:
    """A page that has its own name lead to this machine (DNS rebinding) gets no development token."""
    async with AsyncExitStack() as stack:
        app = (await applications(valkey, valkey_url, tmp_path, stack))["up"]
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://evil.example") as http:
            assert (await http.post("/v1/dev/players", json={})).status_code == 400


async def test_bodies_have_a_limit(valkey: StoreClient, valkey_url: str, tmp_path: Path) -> None:
    """Of every application, declared or not: no route keeps a megabyte of a stranger's."""
    kept = []
    async with AsyncExitStack() as stack:
        for name, app in (await applications(valkey, valkey_url, tmp_path, stack)).items():
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
                for method, path in routes(app):
                    if method not in ("POST", "PUT"):
                        continue
                    where = re.sub(r"\{[^}]*\}", "x", path)
                    taken = 0

                    async def endless() -> object:
                        nonlocal taken
                        for _ in range(64):
                            taken += 65536
                            yield b" " * 65536

                    reply = await http.request(method, where, content=endless())
                    if reply.status_code not in (400, 401, 403, 413):
                        kept.append(f"{name}: {method} {path}: {reply.status_code} after {taken} bytes")
    assert not kept, "\n".join(kept)
