"""Rendered manifests: against Agones' CRDs, against Kubernetes' own models, and lever by lever."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rendered import ADMISSION, fleet, game_server, platform, pod, rendered
from typer.testing import CliRunner

import fleets
from fleets.cli.render import render_command
from fleets.render import manifest
from fleets.render.checks import Severity, check
from fleets.render.manifest import to_yaml
from fleets.render.policies import policies
from fleets.render.rendering import FolderForeign, differences, files, render, write
from fleets.render.schemas import Schemas, read_crds
from fleets.spec.fleet import FleetSpec
from fleets.spec.loader import SpecError, load
from fleets.spec.platform import PlatformSpec

_EXAMPLES = Path(fleets.__file__).parent / "examples"
_CRDS = Path(fleets.__file__).parents[2] / "shared/agones/crds.yaml"
# Schemas


@functools.cache
def schemas() -> Schemas:
    """Kubernetes' own, and Agones' where they are at hand."""
    return Schemas(crds=read_crds([_CRDS] if _CRDS.exists() else []))


_CUSTOM = {"Certificate", "ServiceMonitor", "PodMonitor", "PrometheusRule", "CiliumNetworkPolicy"}


def valid(items: Any) -> None:
    for item in items:
        assert schemas().problems(item) == ()
        if item["kind"] not in _CUSTOM and not item["apiVersion"].startswith("projectcalico.org/"):
            assert schemas().knows(item) or (not _CRDS.exists() and "agones" in item["apiVersion"])


def test_agones_schemas_are_at_hand() -> None:
    """Else rendered Fleets were checked down to their pods alone."""
    if not _CRDS.exists():
        pytest.skip(f"Agones' CRDs are not at {_CRDS}")
    assert schemas().knows({"apiVersion": "agones.dev/v1", "kind": "Fleet"})


_PLATFORMS: list[dict[str, Any]] = [
    {},
    {
        "admission": ADMISSION,
        "mesh": "istio",
        "prometheusOperator": True,
        "networkPolicy": "cilium",
        "calicoQos": True,
    },
    {"networkPolicy": "calico"},
    {
        "admission": {"image": "i", "caBundle": "Y2E="},
        "mesh": "linkerd",
        "networkPolicy": "none",
        "prePull": False,
        "autoscaler": {"caBundle": "Y2E="},
        "nodePools": {"games": {"labels": {"pool": "g"}, "taints": [{"key": "g"}], "runtimeClass": "rt"}},
    },
]


@pytest.mark.parametrize("spec", _PLATFORMS, ids=["default", "admission", "calico", "own CA"])
@pytest.mark.parametrize("example", ["arena.yaml", "ranked.yaml", "command.yaml"])
def test_the_examples_are_valid_objects(example: str, spec: dict[str, Any]) -> None:
    """Every kind has its schema; what has none is our neighbours' CRD."""
    valid(render([with_image(f) for f in load([_EXAMPLES / example]).fleets], platform(**spec)))


def with_image(spec: FleetSpec) -> FleetSpec:
    """A laptop's example names none."""
    server = spec.spec.server.model_copy(update={"image": spec.spec.server.image or "registry.example/built:1"})
    return spec.model_copy(update={"spec": spec.spec.model_copy(update={"server": server})})


_NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


@st.composite
def fleets_of_any_kind(draw: st.DrawFn) -> FleetSpec:
    game = draw(st.booleans())
    server: dict[str, Any] = {
        "secretEnv": draw(st.sampled_from([{}, {"B_TOKEN": {"secret": "s", "key": "k"}}])),
        "health": draw(st.sampled_from([{}, {"disabled": True}, {"period": "1500ms", "failures": 2}])),
        "env": draw(st.dictionaries(st.from_regex(r"A[A-Z_]{0,5}", fullmatch=True), st.text(max_size=8), max_size=3)),
    }
    server |= (
        {
            "game": "g:G",
            "rooms": draw(st.integers(1, 9)),
            "transports": draw(st.sampled_from([["udp"], ["websocket", "udp"]])),
            "mirror": draw(st.sampled_from(["none", "counters", "lists"])),
        }
        if game
        else {
            "command": ["./run", draw(st.text(min_size=1, max_size=8))],
            "ports": draw(st.lists(_NAMES, min_size=1, max_size=3, unique=True)),
        }
    )
    low = {
        "network": draw(st.sampled_from(["host", "hostPort"])),
        "cpu": draw(st.sampled_from([1, 2, 0.5, 1.25])),
        "cpuPinning": draw(st.booleans()),
        "memory": draw(st.sampled_from(["256Mi", "2Gi"])),
        "kernel": draw(st.sampled_from(["default", "realtime"])),
    }
    for key, values in {
        "hugepages2Mi": ["128Mi"],
        "hugepages1Gi": ["2Gi"],
        "portPolicy": ["Passthrough"],
        "portRange": ["games"],
        "nice": [-5, 5],
        "nodeLabels": [{"disk": "fast"}],
        "preferNodeLabels": [{"rack": "a", "row": "b"}],
        "architecture": ["arm64"],
        "tolerations": [[{"key": "k", "value": "v", "effect": "NoExecute", "seconds": 5}, {"operator": "Exists"}]],
        "zoneSpread": ["none", "require"],
        "antiAffinity": ["prefer", "require"],
        "runtimeClass": ["rt"],
        "sysctls": [{"net.core.somaxconn": "1024", "kernel.shm_rmid_forced": "1"}],
        "mesh": ["minimal"],
        "spot": ["never", "tolerate", "prefer"],
        "prePull": [True, False],
        "nodePool": ["games", "other"],
        "priority": [0, 7],
        "dscp": ["EF", "CS5"],
    }.items():
        if draw(st.booleans()):
            low[key] = draw(st.sampled_from(values))
    most = draw(st.integers(1, 50))
    warm = {
        "shelf": draw(st.integers(0, most)),
        "buffer": draw(st.just("auto") | st.integers(0, 60)),
        "min": draw(st.integers(0, most)),
        "max": most,
    }
    drain = {
        "drainTimeout": draw(st.sampled_from(["500ms", "5m", "30m", "2h"])),
        "onDrain": draw(st.sampled_from(["migrate", "finish"])),
    }
    return fleet(draw(_NAMES), server, lowLatency=low, warm=warm, disruption=drain)


@given(
    st.lists(fleets_of_any_kind(), min_size=1, max_size=3, unique_by=lambda f: f.metadata.name),
    st.sampled_from(_PLATFORMS),
)
@settings(max_examples=80, deadline=None)
def test_any_fleets_give_valid_objects_the_same_every_time(some: list[FleetSpec], spec: dict[str, Any]) -> None:
    """In any order of the fleets; the text reads back as the objects; Agones' own rules for buffers hold."""
    on = platform(**spec)
    items = render(some, on)
    valid(items)
    if not any(finding.severity is Severity.ERROR for finding in check(some, on)):
        assert [finding for finding in policies(items) if finding.severity is Severity.ERROR] == []
    text = to_yaml(items)
    assert text == to_yaml(render(list(reversed(some)), on))
    assert list(yaml.safe_load_all(text)) == list(items)
    assert "&id" not in text
    assert len(files(items)) == len(items) + 1
    for item in items:
        if item["kind"] == "FleetAutoscaler":
            policy = item["spec"]["policy"]
            buffer = (policy["chain"][-1] if policy["type"] == "Chain" else policy)["buffer"]
            assert 1 <= buffer["bufferSize"] <= buffer["maxReplicas"]
            assert buffer["minReplicas"] == 0 or buffer["bufferSize"] <= buffer["minReplicas"] <= buffer["maxReplicas"]
        if item["kind"] == "Fleet":
            containers = pod(item)["containers"]
            assert all(c["resources"]["requests"] == c["resources"]["limits"] for c in containers)
            assert "replicas" not in item["spec"]


@pytest.mark.parametrize(
    "text",
    ["yes", "n", "1e3", "0o17", "12:30:00", "1_000", "", " a", "null", "5%", "~", "#x", "2026-01-01", "inf", "0x1F"],
)
def test_text_that_some_reader_takes_for_something_else_is_quoted(text: str) -> None:
    """YAML 1.1 and 1.2 disagree; kubectl, kustomize and PyYAML must not."""
    assert to_yaml([{"a": text}]) == f"a: {json.dumps(text)}\n"


_KEYS = st.from_regex(r"[A-Za-z][A-Za-z./-]{0,12}", fullmatch=True)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=120),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(_KEYS, _VALUES, max_size=3), min_size=1, max_size=3))
def test_both_emitters_write_the_same_bytes(items: list[dict[str, Any]]) -> None:
    """A folder that is current on one machine is so on another, whether PyYAML has libyaml there or not."""
    text = to_yaml(items)
    assert text == manifest._dump(items, manifest._PlainDumper)
    assert list(yaml.safe_load_all(text)) == items


# Levers


def test_the_host_network_with_the_webhook() -> None:
    """Passthrough ports, node DNS, no pod without the webhook, several pods a node."""
    made = rendered(fleet(lowLatency={"network": "host"}), on=platform(admission=ADMISSION))
    item = made["Fleet", "arena"]
    assert game_server(item)["ports"] == [{"name": "websocket", "portPolicy": "Passthrough", "protocol": "TCP"}]
    assert (pod(item)["hostNetwork"], pod(item)["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")
    assert "affinity" not in pod(item)
    assert game_server(item)["template"]["metadata"]["labels"]["warmfleet.dev/admission"] == "required"
    hooks = made["MutatingWebhookConfiguration", "warmfleet-admission-default"]["webhooks"]
    assert {h["objectSelector"]["matchLabels"]["warmfleet.dev/admission"]: h["failurePolicy"] for h in hooks} == {
        "required": "Fail",
        "optional": "Ignore",
    }
    assert ("NetworkPolicy", "arena") not in made


def test_the_host_network_without_the_webhook_has_a_node_each() -> None:
    """Against every other such fleet's pods too, in every namespace."""
    item = rendered(fleet(server={"rooms": 8}, lowLatency={"network": "host"}))["Fleet", "arena"]
    term = pod(item)["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert term["namespaceSelector"] == {}
    assert term["labelSelector"]["matchLabels"].items() <= game_server(item)["template"]["metadata"]["labels"].items()
    assert item["spec"]["scheduling"] == "Distributed"


def test_dynamic_ports_are_told_to_the_game() -> None:
    """Each transport listens where Agones forwards to, with the protocol that it speaks."""
    made = rendered(fleet(server={"transports": ["websocket", "udp"]}))
    item = made["Fleet", "arena"]
    assert [(p["name"], p["protocol"], p["containerPort"]) for p in game_server(item)["ports"]] == [
        ("websocket", "TCP", 7001),
        ("udp", "UDP", 7002),
    ]
    env = {e["name"]: e.get("value") for e in pod(item)["containers"][0]["env"]}
    assert (env["WARMFLEET_WEBSOCKET_PORT"], env["WARMFLEET_UDP_PORT"]) == ("7001", "7002")
    assert made["NetworkPolicy", "arena"]["spec"]["ingress"] == [
        {"ports": [{"protocol": "TCP", "port": 7001}, {"protocol": "UDP", "port": 7002}]}
    ]


@pytest.mark.parametrize("cni", ["kubernetes", "cilium", "calico"])
def test_a_command_may_call_whom_it_likes_and_our_game_may_not(cni: str) -> None:
    """Both are reached on their game ports alone."""
    ours = rendered(fleet(), on=platform(networkPolicy=cni))
    theirs = rendered(fleet(server={"command": ["./run"]}), on=platform(networkPolicy=cni))
    policy = "CiliumNetworkPolicy" if cni == "cilium" else "NetworkPolicy"
    assert "6379" in json.dumps(ours[policy, "arena"]["spec"]["egress"])
    assert "egress" not in theirs[policy, "arena"]["spec"]
    for made in (ours, theirs):
        assert "7001" in json.dumps(made[policy, "arena"]["spec"]["ingress"])


def test_the_games_settings_are_those_that_the_server_reads() -> None:
    """The environment of a pod is accepted by the game server's own settings; secrets come by reference."""
    from gameserver.settings import Settings

    spec = fleet(
        server={"tickRate": 60, "rooms": 3, "seats": 4, "checkpointInterval": "250ms"},
        disruption={"drainTimeout": "5m"},
    )
    entries = pod(
        rendered(spec, on=platform(allowedOrigins=["https://a.example", "https://b.example"], valkey={"replicas": 2}))[
            "Fleet", "arena"
        ]
    )["containers"][0]["env"]
    env = {e["name"]: e.get("value", f"from-{e['name']}") for e in entries}
    read = Settings.from_environment(env)
    assert (read.game, read.tick_rate_hz, read.rooms, read.seats) == ("g:G", 60, 3, 4)
    assert (read.drain_timeout_s, read.checkpoint_interval_s, read.bind_host) == (300.0, 0.25, "::")
    assert read.allowed_origins == ("https://a.example", "https://b.example")
    assert read.listen_ports == {"websocket": 7001}
    assert read.valkey_replicas == 2
    assert read.server == "from-POD_NAME"
    secret = next(e for e in entries if e["name"] == "WARMFLEET_VALKEY_URL")["valueFrom"]["secretKeyRef"]
    assert secret == {"name": "warmfleet-valkey", "key": "url"}


def test_agones_is_shown_a_games_matches() -> None:
    """By Counters that are declared for as many as there may be, or Lists within Agones' limit; a foreign program's are its own affair."""

    def declared(**server: Any) -> tuple[Any, Any]:
        spec = rendered(fleet(server=server))["Fleet", "arena"]["spec"]["template"]["spec"]
        return spec.get("counters"), spec.get("lists")

    counts = {"rooms": {"count": 0, "capacity": 300}, "players": {"count": 0, "capacity": 1200}}
    assert declared(rooms=300, seats=4) == (counts, None)
    ids = {"rooms": {"capacity": 300, "values": []}, "players": {"capacity": 1000, "values": []}}
    assert declared(rooms=300, seats=4, mirror="lists") == (None, ids)
    assert declared(rooms=300, seats=4, mirror="none") == (None, None)
    assert declared(command=["./run"]) == (None, None)


def test_a_command_keeps_its_own_program_and_learns_its_port() -> None:
    """In a network of its own by a fixed PORT; in the host network the webhook sets it."""
    own = rendered(fleet(server={"command": ["./run"], "ports": ["game", "ws-admin"]}))["Fleet", "arena"]
    assert [p["protocol"] for p in game_server(own)["ports"]] == ["UDP", "TCP"]
    container = pod(own)["containers"][0]
    assert container["command"] == ["./run"]
    assert {"name": "PORT", "value": "7001"} in container["env"]
    host = rendered(
        fleet(server={"command": ["./run"]}, lowLatency={"network": "host"}), on=platform(admission=ADMISSION)
    )
    metadata = game_server(host["Fleet", "arena"])["template"]["metadata"]
    assert metadata["annotations"]["warmfleet.dev/port-variable"] == "PORT"
    assert "PORT" not in {e["name"] for e in pod(host["Fleet", "arena"])["containers"][0]["env"]}


def test_pinned_cpus_huge_pages_and_priority() -> None:
    """Guaranteed, with the pages mounted; the class is rendered beside."""
    low = {"cpu": 2, "cpuPinning": True, "memory": "512Mi", "hugepages2Mi": "128Mi", "priority": 100000}
    made = rendered(fleet(lowLatency=low), on=platform(admission=ADMISSION))
    spec = pod(made["Fleet", "arena"])
    resources = spec["containers"][0]["resources"]
    assert resources["requests"] == resources["limits"] == {"cpu": "2", "memory": "512Mi", "hugepages-2Mi": "128Mi"}
    assert spec["volumes"][0]["emptyDir"] == {"medium": "HugePages-2Mi"}
    assert spec["priorityClassName"] == "warmfleet-100000"
    assert made["PriorityClass", "warmfleet-100000"]["value"] == 100000
    metadata = game_server(made["Fleet", "arena"])["template"]["metadata"]
    assert metadata["annotations"]["warmfleet.dev/guaranteed-sidecar"] == "true"
    assert metadata["labels"]["warmfleet.dev/admission"] == "required"


def test_fractions_of_a_cpu_are_millis() -> None:
    """As Kubernetes writes them."""
    made = rendered(fleet(lowLatency={"cpu": 0.25}))
    assert pod(made["Fleet", "arena"])["containers"][0]["resources"]["limits"]["cpu"] == "250m"


def test_a_pool_is_reached_as_the_platform_says() -> None:
    """Game servers and the pods that pull their image go to the same nodes."""
    pools = {
        "games": {"labels": {"cloud/pool": "g"}, "taints": [{"key": "dedicated", "value": "g"}], "runtimeClass": "rt"}
    }
    spec = fleet(lowLatency={"nodePool": "games", "kernel": "realtime"})
    made = rendered(spec, on=platform(nodePools=pools))
    wanted = {"cloud/pool": "g", "warmfleet.dev/kernel": "realtime"}
    ahead = made["DaemonSet", "arena-pre-pull"]["spec"]["template"]["spec"]
    assert pod(made["Fleet", "arena"])["nodeSelector"] == ahead["nodeSelector"] == wanted
    assert pod(made["Fleet", "arena"])["tolerations"] == ahead["tolerations"]
    assert {t["key"] for t in ahead["tolerations"]} == {"dedicated", "warmfleet.dev/kernel"}
    assert pod(made["Fleet", "arena"])["runtimeClassName"] == "rt"
    default = pod(rendered(spec)["Fleet", "arena"])
    assert default["nodeSelector"]["warmfleet.dev/pool"] == "games"


@pytest.mark.parametrize(
    ("drain", "on_drain", "safe", "budget"),
    [
        ("30s", "migrate", "Always", True),
        ("20m", "migrate", "OnUpgrade", True),
        ("30s", "finish", "OnUpgrade", True),
        ("2h", "finish", "Never", False),
    ],
)
def test_eviction_follows_from_the_drain(drain: str, on_drain: str, safe: str, budget: bool) -> None:
    """And a pod is never under two budgets, with which no eviction works; the pod outlives its drain."""
    made = rendered(fleet(disruption={"drainTimeout": drain, "onDrain": on_drain}))
    assert game_server(made["Fleet", "arena"])["eviction"] == {"safe": safe}
    assert (("PodDisruptionBudget", "arena") in made) is budget
    seconds = {"30s": 30, "20m": 1200, "2h": 7200}[drain]
    assert pod(made["Fleet", "arena"])["terminationGracePeriodSeconds"] > seconds


def test_the_autoscaler_falls_back_to_a_buffer() -> None:
    """Demand first; blind, enough to fill the shelf anew."""
    spec = fleet(server={"rooms": 4}, warm={"shelf": 10, "min": 2, "max": 50})
    policy = rendered(spec)["FleetAutoscaler", "arena"]["spec"]["policy"]
    assert [entry["type"] for entry in policy["chain"]] == ["Webhook", "Buffer"]
    assert policy["chain"][1]["buffer"] == {"bufferSize": 3, "minReplicas": 3, "maxReplicas": 50}
    fixed = rendered(fleet(warm={"shelf": 1, "buffer": 5, "max": 50}))["FleetAutoscaler", "arena"]["spec"]["policy"]
    assert fixed == {"type": "Buffer", "buffer": {"bufferSize": 5, "minReplicas": 0, "maxReplicas": 50}}


@pytest.mark.parametrize(
    ("mesh", "where", "key"),
    [
        ("istio", "labels", "sidecar.istio.io/inject"),
        ("istioAmbient", "labels", "istio.io/dataplane-mode"),
        ("linkerd", "annotations", "linkerd.io/inject"),
    ],
)
def test_game_servers_stay_out_of_the_mesh(mesh: str, where: str, key: str) -> None:
    """Each mesh by its own word."""
    metadata = game_server(rendered(fleet(), on=platform(mesh=mesh))["Fleet", "arena"])["template"]["metadata"]
    assert metadata[where][key] in ("false", "none", "disabled")


# Folder and command


def test_a_folder_follows_its_fleets(tmp_path: Path) -> None:
    """Files of a fleet that is gone go too; others' files stay; a second run changes nothing."""
    folder = tmp_path / "out"
    both = files(render([fleet("a"), fleet("b")], platform()))
    write(folder, both)
    assert differences(folder, both) == []
    (folder / "mine.yaml").write_text("a: 1\n")
    one = files(render([fleet("a")], platform()))
    assert "fleet-b.yaml: is left over" in differences(folder, one)
    write(folder, one)
    assert {p.name for p in folder.iterdir()} == {*one, "mine.yaml"}
    (folder / "fleet-a.yaml").write_text("edited")
    assert differences(folder, one) == ["fleet-a.yaml: differs"]


def test_files_of_others_are_not_overwritten_or_removed(tmp_path: Path) -> None:
    """Neither one of our names, nor a path outside that a kustomization lists."""
    outside = tmp_path / "outside.yaml"
    outside.write_text("mine")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text("resources: [../outside.yaml]\n")
    write(folder, files(render([fleet("a")], platform())))
    assert outside.read_text() == "mine"
    other = tmp_path / "other"
    other.mkdir()
    (other / "fleet-a.yaml").write_text("mine")
    with pytest.raises(FolderForeign, match=r"fleet-a\.yaml"):
        write(other, files(render([fleet("a")], platform())))
    assert (other / "fleet-a.yaml").read_text() == "mine"


def run(*arguments: str | Path) -> Any:
    app = typer.Typer()
    app.command()(render_command)
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_the_command_renders_checks_and_refuses(tmp_path: Path) -> None:
    """Exit codes for CI: 0 current or written, 1 not current or wrong, 2 misused."""
    (tmp_path / "f.yaml").write_text(to_yaml([fleet().model_dump(by_alias=True, exclude_unset=True)]))
    out = tmp_path / "out"
    assert run(tmp_path / "f.yaml", "--out", out, "--check").exit_code == 1
    assert not out.exists()
    assert run(tmp_path / "f.yaml", "--out", out).exit_code == 0
    assert run(tmp_path / "f.yaml", "--out", out, "--check").exit_code == 0
    stream = run(tmp_path / "f.yaml")
    assert {item["kind"] for item in yaml.safe_load_all(stream.stdout)} >= {"Fleet", "FleetAutoscaler"}
    assert run(tmp_path / "f.yaml", "--check").exit_code == 2
    refused = run(_EXAMPLES / "ranked.yaml", "--out", out, "--json")
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["valid"] is False
    assert "cpuPinning" in refused.stderr
    (tmp_path / "p.yaml").write_text("kind: Platform\nspec: {mesh: none, colour: red}\n")
    assert "spec.colour" in run(tmp_path / "f.yaml", "--platform", tmp_path / "p.yaml").stderr


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("spec: {admission: {image: i}}", "exactly one of issuer and caBundle"),
        ("spec: {admission: {image: i, caBundle: x}, gamePorts: {first: 7000, last: 12000}}", "closer together"),
        ("spec: {admission: {image: i, caBundle: x}, sidecarPorts: {grpc: 3000}}", "the kubelet"),
        ("spec: {admission: {caBundle: x}}", "admission has no image of its own"),
        ("spec: {services: {}}", "services.matchmaker, services.director"),
        ("spec: {allowedOrigins: ['a,b']}", "an origin"),
        ("spec: {valkey: {mode: sentinel}}", "sentinelMaster"),
        ("spec: {valkey: {addresses: [a]}}", "host:port"),
        ("spec: {valkey: {mode: cluster, inCluster: {}}}", "one server"),
        ("spec: {entry: {host: a.example, tlsSecret: t}}", "services.matchmaker"),
        (
            "spec: {nodePools: {games: {labels: {a: b}, colour: red}}}",
            "allowed here: labels, taints, runtimeClass, spot",
        ),
        ("spec: {nodePools: {games: {}}}", "spec.nodePools.games.labels: is missing"),
        ("spec: {services: {matchmaker: {autoscale: {min: 9, max: 3}}}, images: {repository: r, tag: t}}", "min 9"),
        (
            "spec: {services: {matchmaker: {autoscale: {cpu: null}}}, images: {repository: r, tag: t}}",
            "nothing to scale by",
        ),
        ("spec: [1]", "spec"),
    ],
)
def test_a_wrong_platform_is_said(tmp_path: Path, text: str, reason: str) -> None:
    """With the file, the line and the key."""
    path = tmp_path / "p.yaml"
    path.write_text(f"kind: Platform\n{text}\n")
    with pytest.raises(SpecError, match=r"p\.yaml:\d+: spec") as caught:
        load([path])
    assert reason in str(caught.value)


def test_the_default_platform_is_what_an_empty_one_says(tmp_path: Path) -> None:
    """A cluster has one."""
    path = tmp_path / "p.yaml"
    path.write_text("kind: Platform\n")
    assert load([path]).platform == PlatformSpec()
    path.write_text("kind: Platform\n---\nkind: Platform\nmetadata: {name: b}\n")
    with pytest.raises(SpecError, match="a cluster has one Platform"):
        load([path])


# Metrics


@pytest.mark.parametrize("words", ["kubernetes", "cilium", "calico"])
def test_prometheus_reads_the_servers_metrics_and_players_do_not(words: str) -> None:
    """A port of that name, the variables that the server reads, a PodMonitor, and a rule that admits pods of the cluster alone."""
    on = platform(prometheusOperator=True, networkPolicy=words)
    made = rendered(fleet(), on=on)
    container = pod(made["Fleet", "arena"])["containers"][0]
    assert container["ports"] == [{"name": "metrics", "containerPort": 9464, "protocol": "TCP"}]
    env = {entry["name"]: entry for entry in container["env"]}
    assert env["WARMFLEET_METRICS_PORT"]["value"] == "9464"
    assert env["WARMFLEET_METRICS_HOST"]["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"
    monitor = made["PodMonitor", "arena"]["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] == "metrics"
    named = {"sourceLabels": ["__meta_kubernetes_pod_label_warmfleet_dev_fleet"], "targetLabel": "fleet"}
    assert endpoint["relabelings"] == [named]
    labels = made["Fleet", "arena"]["spec"]["template"]["spec"]["template"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    inside = next(
        item
        for (kind, name), item in made.items()
        if kind in ("NetworkPolicy", "CiliumNetworkPolicy") and name == "arena"
    )
    rules = [rule for rule in inside["spec"]["ingress"] if "9464" in json.dumps(rule)]
    assert len(rules) == 1
    only = {
        "kubernetes": ("from", [{"namespaceSelector": {}}]),
        "cilium": ("fromEntities", ["cluster"]),
        "calico": ("source", {"namespaceSelector": "all()"}),
    }[words]
    assert rules[0][only[0]] == only[1]


def test_without_an_operator_or_a_game_of_ours_no_metrics_are_offered() -> None:
    """No port, no monitor; a foreign program's metrics are its own affair."""
    theirs = fleet("theirs", {"command": ["./s"]})
    assert not [kind for kind, _ in rendered(fleet()) if kind == "PodMonitor"]
    made = rendered(theirs, on=platform(prometheusOperator=True))
    assert ("PodMonitor", "theirs") not in made
    assert "ports" not in pod(made["Fleet", "theirs"])["containers"][0]
