"""By which addresses players reach a server over UDP: what the server takes for its own, and what connect tokens name."""

import base64
import ipaddress
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from gameserver import process
from gameserver.agones.sdk import Health, SDKGameServer
from gameserver.protocol.netcode.tokens import read_connect_token
from gameserver.sessions.model import FleetName, ServerName
from gameserver.settings import Settings, SettingsError
from matchmaker.api.connect import ConnectTokens

SETTINGS = Settings(
    game="g:G",
    fleet=FleetName("f"),
    server=ServerName("f-1"),
    agones_grpc_port=1,
    transports=("udp",),
    pod_ip="10.1.2.3",
    listen_ports={"udp": 7002},
)


def told(address: str, *addresses: tuple[str, str], ports: Mapping[str, int] | None = None) -> SDKGameServer:
    return SDKGameServer(
        name="f-1", namespace="games", uid="", resource_version="", generation=1, created_at=datetime.now(UTC),
        deleted_at=None, state="Ready", address=address, addresses=addresses, ports={"udp": 7043} if ports is None else ports,
        labels={}, annotations={}, health=Health(disabled=False, period_s=5, failure_threshold=3, initial_delay_s=5), counters={}, lists={},
    )  # fmt: skip


async def test_every_address_of_a_server_is_its_own() -> None:
    """The one that Agones chose, the node's others, the pod's, each at the port outside and the one inside; names by what they mean."""
    me = told("203.0.113.7", ("ExternalIP", "203.0.113.7"), ("InternalIP", "2001:db8::7"), ("Hostname", "localhost"))
    found = await process._own_addresses(SETTINGS, me)
    hosts = {host for host, _ in found}
    assert {"203.0.113.7", "2001:db8::7", "10.1.2.3"} < hosts
    assert all(ipaddress.ip_address(host).is_loopback for host in hosts - {"203.0.113.7", "2001:db8::7", "10.1.2.3"})
    assert {port for _, port in found} == {7043, 7002}
    assert len(found) == len(set(found)) == 2 * len(hosts)


async def test_a_server_without_an_address_says_so() -> None:
    """A name that cannot be looked up is none, and is told with the mend where nothing else is there."""
    bare = replace(SETTINGS, pod_ip="")
    with pytest.raises(SettingsError, match=r"nowhere\.invalid"):
        await process._own_addresses(bare, told("nowhere.invalid"))
    assert await process._own_addresses(SETTINGS, told("nowhere.invalid", ports={})) == [("10.1.2.3", 7002)]


async def test_a_connect_token_names_every_address_of_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is looked up once in a while, off the loop; one that means nothing gets no token."""
    tokens, asked = ConnectTokens(bytes(32)), []

    async def look_up(loop: Any, host: str, port: None, **options: Any) -> list[Any]:
        asked.append(host)
        if host != "game.example":
            raise OSError("unknown")
        return [(0, 0, 0, "", (ip, 0)) for ip in ("2001:db8::1", "192.0.2.1", "2001:db8::1")]

    monkeypatch.setattr("asyncio.base_events.BaseEventLoop.getaddrinfo", look_up)

    async def servers(host: str) -> list[tuple[str, int]] | None:
        token = await tokens.issue(FleetName("f"), host, 7043, time.time())
        return None if token is None else list(read_connect_token(base64.b64decode(token)).servers)

    assert await servers("203.0.113.7") == [("203.0.113.7", 7043)]
    for _ in range(2):
        assert await servers("game.example") == [("2001:db8::1", 7043), ("192.0.2.1", 7043)]
    assert await servers("nowhere.invalid") is None
    assert asked == ["game.example", "nowhere.invalid"]
