"""What an operator sees of a running system."""

from collections.abc import Callable

import httpx
from prometheus_client.parser import text_string_to_metric_families as parse
from up import Up

Start = Callable[..., Up]


def test_every_process_tells_its_metrics(start: Start) -> None:
    """Service discovery names the system and each game server; all of them answer."""
    up = start().until_ready()
    groups = up.get("/metrics/targets").json()
    assert [group["labels"]["part"] for group in groups].count("up") == 1
    servers = [server["name"] for fleet in up.status()["fleets"] for server in fleet["servers"]]
    assert {group["labels"]["server"] for group in groups if group["labels"]["part"] == "gameserver"} <= set(servers)
    assert len(groups) >= 2
    for group in groups:
        text = httpx.get(f"http://{group['targets'][0]}/metrics", trust_env=False).text
        names = {family.name for family in parse(text)}
        assert names >= {"process_cpu_seconds"}
        assert ("warmfleet_tick_duration_seconds" if "server" in group["labels"] else "warmfleet_shelf_rooms") in names
