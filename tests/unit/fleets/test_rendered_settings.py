"""What is rendered is what the programs read: commands, variables, ports, probes and volumes, by the programs' own settings."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from fleets.autoscaler.app import make_app
from fleets.cli.main import app
from fleets.observability.catalog import catalog
from fleets.render.checks import Severity, check
from fleets.render.rendering import render
from fleets.render.services import SPECS
from fleets.serve.settings import PartName, ServeSettings
from fleets.spec.fleet import FleetSpec
from fleets.spec.loader import Specs
from fleets.spec.platform import PARTS, PlatformBody
from gameserver.settings import Settings

_ROOT = Path(__file__).parents[3]
_KEY = "A" * 43
_SECRETS = {
    ("warmfleet-valkey", "url"): "rediss://:pw@valkey:6379/0?ssl_ca_certs=/var/run/warmfleet/valkey/ca.crt",
    ("warmfleet-seat-keys", "private"): _KEY,
    ("warmfleet-seat-keys", "public"): _KEY,
    ("warmfleet-netcode", "key"): _KEY,
    ("warmfleet-players", "secret"): "s" * 32,
    ("warmfleet-operator", "token"): "operator-of-them-all",
    ("warmfleet-viewer", "token"): "somebody-who-looks",
    ("warmfleet-beacon", "key"): _KEY,
    ("hooks", "secret"): "w" * 16,
}
_QUEUE = {"apiVersion": "warmfleet.dev/v1", "kind": "Queue", "metadata": {"name": "q"}, "spec": {}}
_FLEET = {
    "apiVersion": "warmfleet.dev/v1",
    "kind": "Fleet",
    "metadata": {"name": "arena"},
    "spec": {
        "server": {"game": "g:G", "image": "i", "transports": ["websocket", "udp"], "rooms": 8, "tickRate": 60},
        "disruption": {"drainTimeout": "90s", "onDrain": "migrate"},
        "lowLatency": {"dscp": "EF"},
    },
}
_PLATFORMS: dict[str, dict[str, Any]] = {
    "plain": {"services": {"events": {}, "console": {}, "beacon": {"region": "eu-west"}}},
    "secured": {
        "services": {
            "events": {
                "keepS": 3600,
                "webhook": {"url": "https://hooks.example:8443/in", "secret": {"secret": "hooks", "key": "secret"}},
                "kafka": {
                    "brokers": ["k1:9093", "k2:9093"],
                    "topic": "t",
                    "config": {"secret": "kafka", "key": "json"},
                },
            },
            "console": {
                "viewerToken": {"secret": "warmfleet-viewer", "key": "token"},
                "signIn": {"jwks": "https://id.example/keys", "audience": "warmfleet", "issuer": "https://id.example"},
            },
            "beacon": {"region": "eu-west", "tlsSecret": "beacon-tls", "annotations": {"a.example/b": "c"}},
        },
        "regions": [{"region": "eu-west", "udp": "203.0.113.4:7770", "key": "B" * 43}],
        "prometheus": "http://prometheus.monitoring:9090",
        "tracing": {"endpoint": "http://collector.monitoring:4318", "ratio": 0.25},
        "namespace": "games",
        "valkey": {"tls": True, "ca": {"secret": "ca", "key": "ca.crt"}, "replicas": 2},
        "autoscaler": {"caBundle": "Y2E=", "tlsSecret": "autoscaler-tls", "intervalS": 7, "port": 443},
        "prometheusOperator": True,
        "allowedOrigins": ["https://play.example"],
        "kubeconfig": {"secret": "clusters", "key": "kubeconfig.yaml"},
        "clusters": {"eu-west": "gke_eu", "us-east": "gke_us"},
        "allocation": {
            "tlsSecret": "allocation-tls",
            "mutualTls": True,
            "tokens": {"secret": "tokens", "key": "lines"},
        },
    },
}


def made(platform: str) -> dict[tuple[str, str], dict[str, Any]]:
    body = {
        "images": {"repository": "registry.example/warmfleet", "tag": "1"},
        "admission": {"issuer": {"name": "internal"}},
        **_PLATFORMS[platform],
    }
    items = render([FleetSpec.model_validate(_FLEET)], PlatformBody.model_validate(body), [_QUEUE, _FLEET])
    return {(item["kind"], item["metadata"]["name"]): item for item in items}


def environment(container: dict[str, Any]) -> dict[str, str]:
    """As the kubelet fills it in."""
    env = {}
    for entry in container["env"]:
        source = entry.get("valueFrom", {})
        if "secretKeyRef" in source:
            env[entry["name"]] = _SECRETS[source["secretKeyRef"]["name"], source["secretKeyRef"]["key"]]
        elif "fieldRef" in source:
            env[entry["name"]] = {"metadata.name": "arena-x-y", "status.podIP": "10.0.0.7"}[
                source["fieldRef"]["fieldPath"]
            ]
        else:
            env[entry["name"]] = entry["value"]
    return env


def traced(env: dict[str, str]) -> bool:
    """Whether OpenTelemetry's own variables, which it takes out, are those that its SDK makes a sampler and an exporter of."""
    found = {name: env.pop(name) for name in sorted(env) if name.startswith("OTEL_")}
    if found:
        assert found == {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.monitoring:4318",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.25",
        }
    return bool(found)


def parsed(container: dict[str, Any]) -> dict[str, Any]:
    """The options as `warmfleet` understands its command line."""
    program, *arguments = [*container["command"], *container.get("args", [])]
    assert program == "warmfleet"
    group = typer.main.get_command(app)
    command = group.get_command(None, arguments[0])  # type: ignore[attr-defined]
    context = command.make_context(arguments[0], arguments[1:])
    found: dict[str, Any] = context.params
    return found


def mounted(container: dict[str, Any], path: str) -> bool:
    return any(Path(path).is_relative_to(mount["mountPath"]) for mount in container["volumeMounts"])


@pytest.mark.parametrize("platform", _PLATFORMS)
@pytest.mark.parametrize("part", PARTS)
def test_a_service_is_told_what_it_reads(platform: str, part: str) -> None:
    """No variable that it does not know, none missing that it needs; it listens where it is asked."""
    items = made(platform)
    pod = items["Deployment", f"warmfleet-{part}"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    options, env = parsed(container), environment(container)
    assert PartName(options["part"]) is PartName(part)
    assert [str(path) for path in options["files"]] == [SPECS]
    known = {f"WARMFLEET_{name.upper()}" for name in ServeSettings.model_fields}
    assert traced(env) == ("tracing" in _PLATFORMS[platform])
    assert env.keys() <= known, env.keys() - known
    settings = ServeSettings.read(env, host=options["host"], port=options["port"])
    assert settings.host == "0.0.0.0"
    assert ("WARMFLEET_VALKEY_URL" in env) is (part != "beacon")
    if part != "beacon":
        assert settings.url() == _SECRETS["warmfleet-valkey", "url"]
        assert settings.valkey_replicas == (2 if platform == "secured" else 0)
    assert settings.namespace == _PLATFORMS[platform].get("namespace", "default")
    if part in ("allocator", "autoscaler", "console"):
        assert settings.clusters == _PLATFORMS[platform].get("clusters", {})
    if part == "matchmaker":
        specs = Specs(fleets=[FleetSpec.model_validate(_FLEET)], queues=[], platform=None, documents=[])
        assert settings.udp_key(specs)
        assert settings.seat_key()
        assert settings.players()
        assert settings.keys()
        assert settings.regions is None or str(settings.regions) == "/etc/warmfleet/regions/regions.yaml"
    if part == "events":
        assert (settings.webhook() is not None) is ("webhook" in _PLATFORMS[platform]["services"]["events"])
        assert settings.events_kafka == ("k1:9093,k2:9093" if platform == "secured" else "")
    if part == "console":
        assert settings.access()
        assert settings.matchmaker().base_url == "http://warmfleet-matchmaker:8080"
    if part == "beacon":
        assert settings.beacon().region == "eu-west"
    port, *others = container["ports"]
    assert port["containerPort"] == settings.port
    scheme = "HTTP" if settings.tls_certificate is None else "HTTPS"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        get = container[probe]["httpGet"]
        assert get["path"] in ("/healthz", "/readyz")
        assert (get["port"], get.get("scheme", "HTTP")) == (port["name"], scheme)
    own = {f"0.0.0.0:{other['containerPort']}" for other in others}
    beacons = settings.beacon_udp if part == "beacon" else ""
    assert own == set(filter(None, (settings.service_grpc, settings.service_rest, beacons)))
    for name, kind in ServeSettings.model_fields.items():
        if "Path" in str(kind.annotation) and (file := getattr(settings, name)):
            assert mounted(container, str(file)), name
    assert mounted(container, SPECS)
    if "ca" in _PLATFORMS[platform].get("valkey", {}) and part != "beacon":
        assert mounted(container, settings.url().partition("ssl_ca_certs=")[2])
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    service = items["Service", f"warmfleet-{part}"]
    assert [to["targetPort"] for to in service["spec"]["ports"]] == [each["name"] for each in container["ports"]]
    (admitted, *_) = items["NetworkPolicy", f"warmfleet-{part}"]["spec"]["ingress"]
    assert [to["port"] for to in admitted["ports"]] == [each["containerPort"] for each in container["ports"]]
    if ("ServiceMonitor", f"warmfleet-{part}") in items:
        (endpoint,) = items["ServiceMonitor", f"warmfleet-{part}"]["spec"]["endpoints"]
        assert endpoint["port"] == service["spec"]["ports"][0]["name"]
        assert endpoint.get("scheme", "http") == scheme.lower()


@pytest.mark.parametrize("platform", _PLATFORMS)
def test_agones_asks_the_autoscaler_where_it_answers(platform: str) -> None:
    """Service, port, path, certificate and pace of the FleetAutoscaler are the service's own."""
    items = made(platform)
    scaler = items["FleetAutoscaler", "arena"]["spec"]
    webhook = scaler["policy"]["chain"][0]["webhook"]
    service = items["Service", webhook["service"]["name"]]
    assert service["metadata"]["namespace"] == webhook["service"]["namespace"]
    assert webhook["service"]["port"] in [port["port"] for port in service["spec"]["ports"]]
    deployment = items["Deployment", "warmfleet-autoscaler"]["spec"]["template"]
    assert service["spec"]["selector"].items() <= deployment["metadata"]["labels"].items()
    settings = ServeSettings.read(environment(deployment["spec"]["containers"][0]))
    assert ("caBundle" in webhook) is (settings.tls_certificate is not None)
    assert settings.scale_interval_s == scaler["sync"]["fixedInterval"]["seconds"]
    answers = make_app(None, namespace="", interval_s=1)  # type: ignore[arg-type]
    assert webhook["service"]["path"] in [getattr(route, "path", "") for route in answers.routes]


def test_the_admission_webhook_is_started_as_it_wants() -> None:
    """Its flags, its port, its certificate's files."""
    items = made("plain")
    pod = items["Deployment", "warmfleet-admission"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    options = parsed(container)
    assert options["port"] == container["ports"][0]["containerPort"]
    assert mounted(container, str(options["certificate"]))
    assert mounted(container, str(options["key"]))
    assert options["offsets"] == "10000,12000,14000,16000"
    assert container["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"


@pytest.mark.parametrize("platform", _PLATFORMS)
def test_a_game_server_is_told_what_it_reads(platform: str) -> None:
    """By its own settings, with the values of the YAML."""
    fleet = made(platform)["Fleet", "arena"]
    container = fleet["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]
    env = environment(container)
    source = (_ROOT / "gameserver/settings.py").read_text(encoding="utf-8")
    known = set(re.findall(r'"(WARMFLEET_\w+|POD_NAME)"', source))
    ports = {"WARMFLEET_WEBSOCKET_PORT", "WARMFLEET_UDP_PORT"}
    assert traced(env) == ("tracing" in _PLATFORMS[platform])
    assert env.keys() <= known | ports, env.keys() - known
    reached = made(platform)["NetworkPolicy", "arena"]["spec"]["egress"][1]["ports"]
    assert ({"protocol": "TCP", "port": 4318} in reached) == ("tracing" in _PLATFORMS[platform])
    settings = Settings.from_environment(env)
    assert (settings.game, settings.fleet, settings.server) == ("g:G", "arena", "arena-x-y")
    assert (settings.rooms, settings.tick_rate_hz) == (8, 60)
    assert (settings.drain_timeout_s, settings.on_drain) == (90, "migrate")
    assert settings.transports == ("websocket", "udp")
    assert set(settings.listen_ports) == {"websocket", "udp"}
    assert settings.valkey_url == _SECRETS["warmfleet-valkey", "url"]
    offered = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
    assert settings.metrics_port == offered.get("metrics", 0)
    assert settings.metrics_host == ("10.0.0.7" if offered else "127.0.0.1")


@pytest.mark.parametrize(
    ("autoscaler", "says"),
    [
        ({"path": "/other"}, "autoscaler.path"),
        ({"caBundle": "Y2E="}, "tlsSecret"),
        ({"tlsSecret": "t"}, "caBundle"),
    ],
)
def test_what_our_autoscaler_could_not_answer_is_refused(autoscaler: dict[str, str], says: str) -> None:
    """Another path, a certificate that nobody trusts, trust in a certificate that it lacks; a service of one's own may."""
    body = {"images": {"repository": "r", "tag": "1"}, "services": {}, "autoscaler": autoscaler}
    with pytest.raises(ValueError, match=says):
        PlatformBody.model_validate(body)
    if "tlsSecret" not in autoscaler:
        assert PlatformBody.model_validate({**body, "services": {"autoscaler": {"enabled": False}}})


def test_the_examples_scale_by_metrics_that_exist() -> None:
    """An HPA on a metric that nobody serves stays where it is, and says so only in its events."""
    text = (_ROOT / "fleets/examples/cluster/platform.yaml").read_text(encoding="utf-8")
    services: dict[str, Any] = yaml.safe_load(text)["spec"]["services"]
    scaled = {metric["name"] for body in services.values() for metric in body.get("autoscale", {}).get("metrics", [])}
    assert scaled
    assert scaled <= {name for described in catalog().values() for name in described.series}


def test_clusters_want_their_kubeconfig() -> None:
    """Their contexts are nowhere else."""
    with pytest.raises(ValueError, match="kubeconfig: is wanted"):
        PlatformBody.model_validate({"clusters": {"eu": "context"}})


def test_a_cluster_without_a_fleet_is_an_error() -> None:
    """The allocator would refuse to start."""
    on = PlatformBody.model_validate({"clusters": {"eu": "c", "us": "d"}, "kubeconfig": {"secret": "s", "key": "k"}})
    fleet = {**_FLEET, "metadata": {"name": "arena", "labels": {"region": "eu"}}}
    found = [f.path for f in check([FleetSpec.model_validate(fleet)], on) if f.severity is Severity.ERROR]
    assert found == ["spec.clusters.us"]


@pytest.mark.parametrize(
    ("allocation", "says"),
    [
        ({"tlsSecret": "t"}, "mutualTls or tokens"),
        ({"tlsSecret": "t", "mutualTls": True, "restPort": 8443}, "two ports"),
        ({"tlsSecret": "t", "mutualTls": True, "grpcPort": 8080}, "probes"),
    ],
)
def test_an_allocation_service_for_everybody_is_refused(allocation: dict[str, Any], says: str) -> None:
    """And two of one port."""
    with pytest.raises(ValueError, match=says):
        PlatformBody.model_validate({"allocation": allocation})
