"""`warmfleet rollout` against an API server in memory whose Fleets have servers, as a person or CI runs it."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kube_fake import KubeFake
from prometheus_fake import Pod, PrometheusFake
from promtool import needs_promtool
from typer.testing import CliRunner

import gameserver.metrics
from fleets.cli.main import app
from fleets.rollout import prometheus
from fleets.rollout.model import Health
from fleets.rollout.prometheus import COMPLETION, JITTER, PrometheusHealth

_YAML = """
apiVersion: warmfleet.dev/v1
kind: Fleet
metadata: {{name: arena}}
spec:
  server: {{game: "g:G", image: "registry.example/g:{tag}"}}
  warm: {{buffer: 1, min: 1, max: 10}}
  rollout: {{strategy: canary, steps: [25%, 100%], pause: 10ms, readyWithin: {late}, abortOn: {{unhealthyRate: 10%, minServers: 1}}}}
---
apiVersion: warmfleet.dev/v1
kind: Platform
metadata: {{name: eu}}
spec: {{namespace: games, prePull: false}}
"""


class Agones:
    """Gives every Fleet its servers at once; `broken` versions of an image never become Ready, `busy` fleets keep one player."""

    def __init__(self, fake: KubeFake) -> None:
        self.fake = fake
        self.broken: set[str] = set()
        self.failing: set[str] = set()
        self.busy: set[str] = set()
        fake.on_write = self.play

    def play(self, path: str, item: dict[str, Any]) -> None:
        if item["kind"] != "Fleet":
            return
        name, template = item["metadata"]["name"], item["spec"]["template"]
        wanted = item["spec"].get("replicas", 0)
        image = template["spec"]["template"]["spec"]["containers"][0]["image"]
        base = path.replace(f"/fleets/{name}", "/gameservers")
        kept = [p for p in self.fake.objects if p.startswith(f"{base}/{name}-s")]
        for old in kept:
            if self.fake.objects[old].item["status"]["state"] != "Allocated":
                del self.fake.objects[old]
        state = "Scheduled" if image in self.broken else "Unhealthy" if image in self.failing else "Ready"
        busy = 1 if name in self.busy else 0
        for index in range(max(wanted, busy)):
            labels = {**template["metadata"]["labels"], "agones.dev/fleet": name}
            now = "Allocated" if index < busy else state
            self.put(
                f"{base}/{name}-s{index}",
                {"metadata": {"name": f"{name}-s{index}", "labels": labels}, "status": {"state": now}},
            )

    def put(self, path: str, body: dict[str, Any]) -> None:
        from kube_fake import Stored

        self.fake.objects.setdefault(path, Stored(item={"apiVersion": "agones.dev/v1", "kind": "GameServer", **body}))

    def scale(self, name: str, replicas: int) -> None:
        with self.fake.lock:
            self.fake.edit("fleets", name, {"spec": {"replicas": replicas}}, manager="agones")
            path = next(p for p in self.fake.objects if p.endswith(f"/fleets/{name}"))
            self.play(path, self.fake.objects[path].item)


class Studio:
    def __init__(self, folder: Path, fake: KubeFake) -> None:
        self.folder, self.fake, self.agones = folder, fake, Agones(fake)
        self.write("1")
        assert self.run("apply", str(folder / "studio.yaml"), "--no-wait").exit_code == 0
        self.agones.scale("arena", 4)

    def write(self, tag: str, late: str = "60s") -> None:
        (self.folder / "studio.yaml").write_text(_YAML.format(tag=tag, late=late))

    def run(self, *arguments: str) -> Any:
        return CliRunner().invoke(app, [*arguments, "--kubeconfig", str(self.folder / "kubeconfig")])

    def start(self, *options: str) -> Any:
        return self.run(
            "rollout", "start", str(self.folder / "studio.yaml"), "--fleet", "arena", "--every", "0.01", *options
        )

    def image(self, fleet: str = "arena") -> str:
        spec = self.fake.find("fleets", fleet)["spec"]["template"]["spec"]["template"]["spec"]
        found: str = spec["containers"][0]["image"]
        return found.rpartition(":")[2]


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    fake = KubeFake().start()
    fake.raw["/api/v1/namespaces/games/events"] = {"items": []}
    (tmp_path / "kubeconfig").write_text(fake.kubeconfig())
    yield Studio(tmp_path, fake)
    fake.stop()


def test_a_new_version_comes_in_by_steps(studio: Studio) -> None:
    """A quarter, all, promoted, retired; the old fleet keeps its servers' number; then apply has nothing to do."""
    studio.write("2")
    sizes: list[int] = []
    play = studio.agones.play

    def watch(path: str, item: dict[str, Any]) -> None:
        if item["kind"] == "Fleet" and item["metadata"]["name"] == "arena-canary":
            sizes.append(item["spec"]["replicas"])
        play(path, item)

    studio.fake.on_write = watch
    result = studio.start()
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == "arena: done"
    assert sizes == [1, 4, 0]
    assert studio.image() == "2"
    assert studio.fake.names("fleets") == ["arena"]
    assert studio.fake.find("fleets", "arena")["spec"]["replicas"] == 4
    assert "step 1 of 2 (25%: 1 servers)" in result.stderr
    plan = json.loads(studio.run("plan", str(studio.folder / "studio.yaml"), "--json").stdout)
    assert {row["deed"] for row in plan["steps"]} == {"keep"}


def test_apply_leaves_a_new_version_to_its_steps(studio: Studio) -> None:
    """Unless told that all at once is meant."""
    studio.write("2")
    refused = studio.run("apply", str(studio.folder / "studio.yaml"), "--no-wait")
    assert refused.exit_code == 1
    assert "rollout start --fleet arena" in refused.stdout
    assert studio.image() == "1"
    assert studio.run("apply", str(studio.folder / "studio.yaml"), "--no-wait", "--all-at-once").exit_code == 0
    assert studio.image() == "2"


def test_a_version_that_never_gets_ready_is_taken_back(studio: Studio) -> None:
    """In its time, with the reason, the exit code, and the old fleet untouched."""
    studio.agones.broken = {"registry.example/g:2"}
    studio.write("2", late="30ms")
    result = studio.start()
    assert result.exit_code == 1
    assert "aborted: only 0 servers of the step were Ready" in result.stdout
    assert (studio.image(), studio.fake.names("fleets")) == ("1", ["arena"])


@pytest.mark.parametrize("by_event", [False, True], ids=["state", "event"])
def test_a_version_whose_servers_fail_is_taken_back(studio: Studio, by_event: bool) -> None:
    """Seen while they are Unhealthy, or told by Agones' events once they were replaced."""
    if by_event:
        event = {"reason": "Unhealthy", "involvedObject": {"kind": "GameServer", "name": "arena-canary-x-y"}}
        other = {"reason": "Unhealthy", "involvedObject": {"kind": "GameServer", "name": "other-x"}}
        studio.fake.raw["/api/v1/namespaces/games/events"] = {"items": [event, other]}
    else:
        studio.agones.failing = {"registry.example/g:2"}
    studio.write("2")
    result = studio.start()
    assert result.exit_code == 1
    assert "servers failed, more than 10.0%" in result.stdout
    assert (studio.image(), studio.fake.names("fleets")) == ("1", ["arena"])


def test_sessions_on_the_canary_end_before_it_goes(studio: Studio) -> None:
    """The rollout waits, is cut short, and is taken up; the busy server was never removed."""
    studio.agones.busy = {"arena-canary"}
    studio.write("2")
    for _ in range(9):
        assert studio.start("--no-wait").exit_code == 0
    status = json.loads(studio.run("rollout", "status", "arena", "-n", "games", "--json").stdout)
    assert status["state"]["phase"] == "retiring"
    assert status["seen"]["canary"]["busy"] == 1
    assert studio.fake.names("gameservers").count("arena-canary-s0") == 1
    for path in [p for p in studio.fake.objects if "/gameservers/arena-canary" in p]:
        del studio.fake.objects[path]
    done = studio.run("rollout", "continue", "arena", "-n", "games", "--every", "0.01")
    assert (done.exit_code, done.stdout.strip()) == (0, "arena: done")


def test_one_command_takes_it_back(studio: Studio) -> None:
    """While it is under way by an abort, afterwards by the version before; and there is nothing more to undo then."""
    studio.write("2")
    studio.start("--no-wait")
    assert studio.fake.names("fleets") == ["arena", "arena-canary"]
    undone = studio.run("rollout", "undo", "arena", "-n", "games", "--every", "0.01")
    assert (undone.exit_code, undone.stdout.strip()) == (0, "arena: aborted: a person aborted it")
    assert (studio.image(), studio.fake.names("fleets")) == ("1", ["arena"])
    assert studio.start().exit_code == 0
    assert studio.image() == "2"
    back = studio.run("rollout", "undo", "arena", "-n", "games", "--every", "0.01")
    assert (back.exit_code, studio.image()) == (0, "1"), back.output
    late = studio.run("rollout", "abort", "arena", "-n", "games")
    assert late.exit_code == 1
    assert "nothing is left to abort" in late.stderr


def test_what_cannot_be_rolled_out_is_said(studio: Studio) -> None:
    """No such fleet, nothing new, another one under way, no rollout at all."""
    assert "is of version" in studio.start().stderr
    assert "there is no rollout of arena" in studio.run("rollout", "status", "arena", "-n", "games").stderr
    missing = studio.run("rollout", "start", str(studio.folder / "studio.yaml"), "--fleet", "arnea")
    assert (missing.exit_code, "there are: arena" in missing.stderr) == (2, True)
    studio.write("2")
    studio.start("--no-wait")
    studio.write("3")
    assert "a rollout to" in studio.start().stderr
    studio.fake.find("configmaps", "warmfleet-rollout-arena")["data"]["state"] = "{"
    assert "holds no rollout" in studio.run("rollout", "status", "arena", "-n", "games").stderr


# What Prometheus knows

_LIMITS = "{unhealthyRate: 10%, minServers: 1, tickJitter: 5ms, matchCompletion: 95%}"


def limited(studio: Studio, tag: str = "2") -> None:
    """The same YAML with limits on ticks and matches."""
    studio.write(tag)
    path = studio.folder / "studio.yaml"
    path.write_text(path.read_text().replace("{unhealthyRate: 10%, minServers: 1}", _LIMITS))


_GOOD = Pod(0.002, {"finished": 97, "failed": 3, "moved": 50})
_OLD = Pod(0.5, {"failed": 10})
"""On the old fleet, which is not asked about."""


@pytest.mark.parametrize(
    ("canary", "says"),
    [
        (_GOOD, ""),
        (Pod(0.0061, _GOOD.ended), "ticks are late by 6.1 ms (p99), more than 5 ms"),
        (
            Pod(0.002, {"finished": 90, "failed": 6, "cut_short": 4}),
            "90.0% of the matches end as they should, fewer than 95.0%",
        ),
        (Pod(0.002, {}), ""),
    ],
    ids=["good", "late", "unfinished", "no match yet"],
)
def test_a_version_is_judged_by_its_own_ticks_and_matches(studio: Studio, canary: Pod, says: str) -> None:
    """Moved matches are neither finished nor failed; the old fleet's numbers are its own."""
    limited(studio)
    with PrometheusFake({"arena-canary-x7k2m-ab12c": canary, "arena-x7k2m-ab12c": _OLD}) as prometheus:
        result = studio.start("--prometheus", prometheus.url)
    assert prometheus.asked
    assert (result.exit_code, studio.image()) == ((1, "1") if says else (0, "2")), result.output
    assert says in result.stdout
    assert studio.fake.names("fleets") == ["arena"]


def test_no_step_is_passed_while_prometheus_is_silent(studio: Studio) -> None:
    """It is said, nothing is taken back for it, and whoever goes on later asks the same Prometheus."""
    limited(studio)
    with PrometheusFake({"arena-canary-a-b": _GOOD}) as prometheus:
        prometheus.fail = (503, "<html>")
        for _ in range(3):
            told = studio.start("--no-wait", "--prometheus", prometheus.url)
            assert told.exit_code == 0
            time.sleep(0.02)  # longer than the step's pause
        assert "ticks and matches are not known" in told.stderr
        state = json.loads(studio.run("rollout", "status", "arena", "-n", "games", "--json").stdout)["state"]
        assert (state["phase"], state["step"]) == ("stepping", 0)
        prometheus.fail = None
        done = studio.run("rollout", "continue", "arena", "-n", "games", "--every", "0.01")
    assert (done.exit_code, studio.image()) == (0, "2"), done.output


def test_limits_that_nobody_could_watch_are_refused(studio: Studio) -> None:
    """Before anything is changed."""
    limited(studio)
    result = studio.start()
    assert result.exit_code == 2
    assert "abortOn.tickJitter: only Prometheus knows that" in result.stderr
    assert studio.fake.names("fleets") == ["arena"]


def test_what_prometheus_answers() -> None:
    """A number, nothing in the window, its errors, nonsense, nobody there."""
    with PrometheusFake({"f-canary-a-b": Pod(0.02)}) as fake:
        assert PrometheusHealth(f"{fake.url}/").health("f-canary") == Health(tick_jitter_s=0.02)
        assert PrometheusHealth(fake.url).health("other") == Health()
        assert "bad_data" in PrometheusHealth(fake.url, jitter="rate(").health("f-canary").unknown
        assert "nobody serves" in PrometheusHealth(fake.url, jitter="x{{{pods}}}[5m]").health("f").unknown
        for fail in ((200, "<html>"), (500, "")):
            fake.fail = fail
            assert PrometheusHealth(fake.url).health("f-canary").unknown
    assert PrometheusHealth("http://127.0.0.1:1").health("x").unknown


def test_the_queries_name_metrics_and_labels_that_servers_have() -> None:
    """As they are declared where they are counted."""
    declared = {
        "warmfleet_tick_lateness_seconds_bucket": (gameserver.metrics.TICK_LATENESS_SECONDS, ()),
        "warmfleet_rooms_ended_total": (gameserver.metrics.ROOMS_ENDED, ("outcome",)),
    }
    for query in (JITTER, COMPLETION):
        for name, matchers in re.findall(r"(warmfleet_\w+)\{\{(.*?)\}\}\[", query):
            metric, labels = declared[name]
            assert name.startswith(metric._name)
            assert set(re.findall(r"(\w+)!?=", matchers)) == set(labels) == set(metric._labelnames)


@needs_promtool
def test_a_real_prometheus_understands_the_queries(tmp_path: Path) -> None:
    """By promtool: a hundred ticks a minute, one in fifty late by 4 to 8 ms; 90 rooms of 100 that end here as they should."""
    pods = prometheus._PODS.format(fleet="arena-canary")
    canary, old = 'pod="arena-canary-x7k2m-ab12c"', 'pod="arena-x7k2m-ab12c"'
    late, ended = "warmfleet_tick_lateness_seconds_bucket", "warmfleet_rooms_ended_total"
    series = [
        {"series": f"{name}{{{labels}}}", "values": f"0+{step}x10"}
        for name, labels, step in (
            (late, f'{canary},le="0.004"', 98),
            (late, f'{canary},le="0.008"', 100),
            (late, f'{canary},le="+Inf"', 100),
            (late, f'{old},le="+Inf"', 100),
            (ended, f'{canary},outcome="finished"', 90),
            (ended, f'{canary},outcome="failed"', 10),
            (ended, f'{canary},outcome="moved"', 500),
            (ended, f'{old},outcome="failed"', 70),
        )
    ]
    asked = [
        {
            "expr": f"round({query.format(pods=pods, window='5m')}, 0.0001)",
            "eval_time": "10m",
            "exp_samples": [{"labels": "{}", "value": value}],
        }
        for query, value in ((JITTER, 0.006), (COMPLETION, 0.9))
    ]
    cases = tmp_path / "cases.yml"
    cases.write_text(yaml.safe_dump({"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": asked}]}))
    done = subprocess.run(["promtool", "test", "rules", cases], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
