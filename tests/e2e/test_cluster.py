"""A whole `warmfleet up` on a Cluster: matches are played, and go on when primaries are killed."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from up import EXAMPLE, Up
from valkeys import Cluster, Valkey

Start = Callable[..., Up]
YAML = EXAMPLE.read_text().replace('duration_s: "120"', 'duration_s: "4"')
FLEET, TEAMS = "wf:{arena}:", "wf:q:{teams}:"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path / "cluster") as cluster:
        yield cluster


def fail_over(cluster: Cluster, key: str) -> None:
    """Kill a key's primary once its replica has everything, and start it again when that has taken over."""
    old = cluster.holder(key)
    replica = cluster.replica_of(old)
    replica.catch_up(old)
    old.kill()
    Valkey.until(lambda: cluster.holder(key) is replica)
    old.start()
    Valkey.until(lambda: old.follows(replica) and old.ask("INFO", "replication")["master_link_status"] == "up")


def played(up: Up, *options: str) -> "subprocess.Popen[str]":
    command = [*up.process.args[:3], "bots", "--players", "4", "--json", *options]  # type: ignore[index]
    return subprocess.Popen(command, cwd=up.folder, stdout=subprocess.PIPE, text=True)


def report_of(bots: "subprocess.Popen[str]") -> dict[str, Any]:
    out, _ = bots.communicate(timeout=90)
    report: dict[str, Any] = json.loads(out)
    return report


def test_slots_and_primaries_change_under_matches(start: Start, cluster: Cluster) -> None:
    """Slots are moved and replicas promoted again and again while bots play: no match and no connection is lost."""
    up = start(YAML, "--valkey-url", cluster.url).until_ready()
    with played(up, "--duration", "14") as bots:
        for turn in range(5):
            for key in (FLEET, "wf:q:{duel}:"):
                (move_slot if turn % 2 else promote)(cluster, key)
            time.sleep(1)
        report = report_of(bots)
    assert report["matches"] >= 4, report
    assert report["disconnects"] == 0
    assert set(report["endings"]) <= {"over", "left", "left the queue"}, report


def move_slot(cluster: Cluster, key: str) -> None:
    source = cluster.holder(key)
    target = next(cluster.holder(f"{at}") for at in range(100) if cluster.holder(f"{at}") is not source)
    slot = source.ask("CLUSTER", "KEYSLOT", key)
    source.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.ask("CLUSTER", "MYID"))
    Valkey.until(lambda: cluster.holder(key) is target)


def promote(cluster: Cluster, key: str) -> None:
    replica = cluster.replica_of(cluster.holder(key))
    replica.ask("CLUSTER", "FAILOVER")
    Valkey.until(lambda: cluster.holder(key) is replica)


@pytest.mark.parametrize(
    "command",
    [
        ["up", "--port", "0", "--valkey-url"],
        ["record", "--queue", "duel", "--out", "t.parquet", "--valkey-url"],
        ["serve", "director", "studio.yaml", "--port", "0", "--valkey-url"],
    ],
    ids=["up", "record", "serve"],
)
def test_a_wrong_url_is_told(command: list[str], tmp_path: Path) -> None:
    """In one line, with the setting and the mend, and without the password."""
    (tmp_path / "studio.yaml").write_text(YAML)
    url = "redis+cluster://:secret@localhost/3"
    told = subprocess.run(
        [sys.executable, "-m", "fleets.cli", *command, url],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode in (1, 2)
    assert "database 0 alone" in told.stderr
    assert "valkey" in told.stderr.lower()
    assert "Traceback" not in told.stderr
    assert "secret" not in told.stderr + told.stdout


def test_matches_and_tickets_outlive_primaries(start: Start, cluster: Cluster) -> None:
    """The fleet's primary dies under running matches and nobody is disconnected; the queue's dies and the ticket that waits in it is matched."""
    up = start(YAML, "--valkey-url", cluster.url).until_ready()
    with played(up, "--duration", "6") as bots:
        report = report_of(bots)
    assert report["matches"] >= 2, report
    assert report["disconnects"] == 0

    ann, ann_token = up.player("ann")
    waiting = up.ticket(ann, ann_token, "teams")
    with played(up, "--duration", "15") as bots:
        up.until(lambda: any(server["state"] == "Allocated" for server in up.status()["fleets"][0]["servers"]))
        fail_over(cluster, FLEET)
        report = report_of(bots)
    assert report["matches"] >= 3, report
    assert report["disconnects"] == 0
    assert set(report["endings"]) <= {"over", "left", "left the queue"}, report

    fail_over(cluster, TEAMS)
    found = up.get(f"/v1/tickets/{waiting['id']}", ann_token).json()
    assert found["createdAt"] == waiting["createdAt"]
    for name in ("bob", "eve", "zoe"):
        player, token = up.player(name)
        up.ticket(player, token, "teams")
    up.until(lambda: up.get(f"/v1/tickets/{waiting['id']}", ann_token).json()["state"] == "assigned")
