"""Beacons on real sockets: measured by the clients, believed by the matchmaker."""

import asyncio
import base64
import json
import os
import re
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from matchmaking import DUEL, FLEET, FakeAllocator

from gameserver.client.beacons import measure_regions
from gameserver.seats import SeatIssuer
from gameserver.sessions.client import StoreClient
from matchmaker.api.app import create_app
from matchmaker.api.auth import PlayerTokens
from matchmaker.beacons.beacon import Beacon
from matchmaker.beacons.regions import Region, RegionsError, read_regions
from matchmaker.beacons.serving import http, udp
from matchmaker.beacons.tokens import LatencySigner
from matchmaker.model import LatencyRule, Limit

SIGNER = LatencySigner("eu", b"b" * 32)
SECRET = b"s" * 32
JS = Path(__file__).parents[2] / "gameserver/client/js/beacons.js"


@asynccontextmanager
async def serving(app: Any) -> Any:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def test_the_python_client_measures_over_udp_and_http() -> None:
    """Both give tokens of the same region; one that is away is left out."""
    async with udp(Beacon(SIGNER), "127.0.0.1", 0) as port, serving(http(Beacon(SIGNER))) as url:
        regions = [
            {"region": "eu", "udp": f"127.0.0.1:{port}"},
            {"region": "gone", "udp": "127.0.0.1:9"},
            {"region": "eu", "http": url},
        ]
        found = await measure_regions(regions, "ann", timeout_s=2.0)
    assert [one.region for one in found] == ["eu", "eu"]
    assert all(0 < one.rtt_ms < 1000 for one in found)


@pytest.mark.node
async def test_the_javascript_client_measures_over_http() -> None:
    """Under Node, as in a browser."""
    async with serving(http(Beacon(SIGNER))) as url:
        script = f"""
            import {{ measureRegions }} from {json.dumps(JS.as_uri())};
            const regions = [{{ region: "eu", http: {json.dumps(url)} }}, {{ region: "gone", http: "http://127.0.0.1:9" }}];
            console.log(JSON.stringify(await measureRegions(regions, "ann")));
        """
        node = Path(sys.executable).with_name("node")
        process = await asyncio.create_subprocess_exec(
            node, "--input-type=module", "-e", script, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
    (measured,) = json.loads(out)
    assert measured["region"] == "eu"
    assert measured["rttMs"] > 0


async def test_http_says_what_is_wrong() -> None:
    """Errors are problem details, open to pages of any origin."""
    async with serving(http(Beacon(SIGNER))) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        assert (await client.get("/v1/beacon")).status_code == 400
        assert (await client.get("/v1/beacon?nonce=AAAAAAAAAAA&cookie=x&player=ann")).status_code == 400
        stale = await client.get(f"/v1/beacon?nonce=AAAAAAAAAAA&cookie={'A' * 32}&player=ann")
        assert stale.status_code == 409
        assert stale.headers["access-control-allow-origin"] == "*"
        assert (await client.post("/v1/beacon")).status_code == 405
        assert (await client.get("/other")).status_code == 404


async def test_a_signed_queue_believes_beacons_only(valkey: StoreClient) -> None:
    """Claims are refused where tokens are wanted; tokens of others, too; elsewhere tokens come before claims."""
    near = replace(
        DUEL, name="near", rules=(LatencyRule(limit=Limit(value=50)),), regions={FLEET: "eu"}, signed_latency=True
    )  # type: ignore[arg-type]
    lax = replace(near, name="lax", signed_latency=False)  # type: ignore[arg-type]
    tokens = PlayerTokens(SECRET)
    app, _ = create_app(
        client=valkey, queues=[near, lax], allocator=FakeAllocator(), seats=SeatIssuer(b"k" * 32), players=tokens,
        regions=[Region(region="eu", udp="b.example:7770", key=SIGNER.public_key)],
    )  # fmt: skip
    headers = {"Authorization": f"Bearer {tokens.issue('ann')}"}
    measured = SIGNER.sign("ann", 0.031, time.time(), b"12345678")
    other = SIGNER.sign("bob", 0.001, time.time(), b"12345678")
    async with serving(app) as url, httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
        assert (await client.get("/v1/regions")).json() == [{"region": "eu", "udp": "b.example:7770"}]

        async def queue(name: str, **brings: Any) -> httpx.Response:
            return await client.post("/v1/tickets", json={"queue": name, "players": [{"id": "ann", **brings}]})

        claimed = await queue("near", latencies={"eu": 1})
        assert (claimed.status_code, "latencyTokens" in claimed.json()["detail"]) == (422, True)
        stolen = await queue("near", latencyTokens=[other])
        assert (stolen.status_code, "another player" in stolen.json()["detail"]) == (422, True)
        for name in ("near", "lax"):
            made = await queue(name, latencyTokens=[measured], latencies={"eu": 1})
            assert made.status_code == 201, made.text
            assert made.json()["players"][0]["latencies"] == {"eu": 31.0}


def test_a_beacon_is_served_alone(tmp_path: Path) -> None:
    """`warmfleet serve beacon` needs a region and a key, and neither store nor YAML of queues."""
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text("apiVersion: warmfleet.dev/v1\nkind: Fleet\nmetadata: {name: a}\nspec: {server: {command: [x]}}\n")
    env = {
        **os.environ,
        "WARMFLEET_BEACON_REGION": "eu",
        "WARMFLEET_BEACON_KEY": base64.urlsafe_b64encode(b"b" * 32).decode(),
        "WARMFLEET_BEACON_UDP": "127.0.0.1:0",
    }
    command = [sys.executable, "-m", "fleets.cli", "serve", "beacon", str(fleet), "--port", "0"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = re.search(r"http://\S+", process.stdout.readline())
        assert url is not None
        found = asyncio.run(measure_regions([{"region": "eu", "http": url[0]}], "ann", timeout_s=5.0))
        ready = httpx.get(f"{url[0]}/readyz", trust_env=False).status_code
        process.terminate()
        _, said = process.communicate(timeout=20)
    assert found[0].region == "eu"
    assert ready == 200
    assert SIGNER.public_key in said
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {region: eu, udp: nowhere, key: x}", "0.udp"),
        (f"- {{region: eu, key: {SIGNER.public_key}}}\n- {{region: us, key: {SIGNER.public_key}}}", "a key of its own"),
        (f"- {{region: eu, key: '{'?' * 43}'}}", "32 bytes in base64url"),
        ("{", "regions.yaml"),
    ],
)
def test_a_wrong_list_of_regions_is_named(tmp_path: Path, text: str, said: str) -> None:
    """The file, the place and the reason."""
    path = tmp_path / "regions.yaml"
    path.write_text(text)
    with pytest.raises(RegionsError) as failed:
        read_regions(path)
    assert said in str(failed.value)
