"""What an operator sees of a running system."""

import math
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from conftest import free_port
from prometheus_client.parser import text_string_to_metric_families as parse
from promtool import needs_prometheus
from up import EXAMPLE, Up

from fleets.observability.dashboards import filled, queries
from fleets.observability.rules import alerts, recordings

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


@needs_prometheus
def test_a_real_prometheus_understands_everything(start: Start, tmp_path: Path) -> None:
    """With bots playing: it scrapes every process, evaluates all rules, and every panel of every dashboard; nothing fires, and what bots cause is seen."""
    up = start(
        EXAMPLE.read_text().replace('duration_s: "120"', 'duration_s: "5"').replace("buffer: 1", "buffer: auto")
    ).until_ready()
    with Prometheus(tmp_path / "prometheus", up) as prometheus:
        play = ["bots", "--players", "4", "--duration", "25", "--json"]
        with subprocess.Popen([*up.process.args[:3], *play], cwd=up.folder, stdout=subprocess.DEVNULL) as bots:  # type: ignore[index]
            prometheus.until(lambda: len(prometheus.targets()) >= 3 and set(prometheus.targets().values()) == {"up"})
            for query in SEEN_WITH_BOTS:
                prometheus.until(
                    lambda query=query: prometheus.values(query) and min(prometheus.values(query)) > 0, query
                )
            bots.wait(60)
        answered = {where for where, query in queries() if prometheus.query(filled(query))}
        empty = {where for where, _ in queries()} - answered
        groups = prometheus.get("rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert len(rules) == len(alerts()) + len(recordings())
        assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []
        firing = {rule["name"] for rule in rules if rule.get("state") == "firing"}
        assert firing <= {"WarmfleetServersStandStill"}  # true of a machine that runs too much beside
        for alert in alerts():
            prometheus.query(alert.query)
    assert {where for where in empty if not any(row in where for row in NOT_ON_A_LAPTOP)} == set()


NOT_ON_A_LAPTOP = (
    *("Agones and Kubernetes", "Ratings, shadows, beacons", "Event stream"),
    *("Warmth: Refused", "Play: Loss (UDP)", "wait that were kept", "Error of the estimates"),
)
"""What needs a cluster, or options that these queues have not; nobody was refused, and these bots speak WebSocket."""

SEEN_WITH_BOTS = (
    'sum(warmfleet_tickets_created_total{outcome="made"})',
    'sum(warmfleet_matches_total{outcome="assigned"})',
    'sum(warmfleet_allocations_total{temperature="shelf"})',
    "sum by (queue) (warmfleet_ticket_wait_seconds_count)",
    "sum by (fleet) (rate(warmfleet_tick_duration_seconds_count[30s]))",
    "sum by (fleet) (warmfleet_client_rtt_seconds_count)",
    "sum by (fleet) (warmfleet_snapshots_sent_bytes_total)",
    "sum(warmfleet_store_up)",
    "sum(warmfleet_fleet_servers)",
    "sum(warmfleet_autoscaler_decisions_total)",
    "fleet:warmfleet_tick_lateness_seconds:p99_5m",
    "fleet:warmfleet_client_rtt_seconds:p95_5m",
)


class Prometheus:
    """A real one, scraping a system as `warmfleet observe` tells it to."""

    def __init__(self, folder: Path, up: Up) -> None:
        assert up.cli("observe", str(folder), "--url", up.url).returncode == 0
        config = folder / "prometheus.yml"
        config.write_text(config.read_text().replace(": 5s", ": 1s"))
        self._url = f"http://127.0.0.1:{free_port()}"
        self.log = folder / "prometheus.log"
        command = [
            *("prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"),
            *(f"--web.listen-address={self._url.removeprefix('http://')}", "--enable-feature=exemplar-storage"),
        ]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def __enter__(self) -> "Prometheus":
        self.until(self._ready)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self._url}/-/ready", trust_env=False).is_success
        except httpx.ConnectError:
            return False

    def until(self, check: Callable[[], Any], what: str = "", timeout_s: float = 40.0) -> Any:
        deadline = time.monotonic() + timeout_s
        while not (value := check()):
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, (what, self.targets())
            time.sleep(0.2)
        return value

    def get(self, path: str, **params: str) -> Any:
        reply = httpx.get(f"{self._url}/api/v1/{path}", params=params, trust_env=False, timeout=10).json()
        assert reply["status"] == "success", (reply, params)
        return reply["data"]

    def query(self, query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("query", query=query)["result"]
        return found

    def values(self, query: str) -> list[float]:
        return [value for row in self.query(query) if not math.isnan(value := float(row["value"][1]))]

    def targets(self) -> dict[str, str]:
        return {target["scrapeUrl"]: target["health"] for target in self.get("targets")["activeTargets"]}
