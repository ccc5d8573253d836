"""Every lever of lowLatency: what it renders, and what it refuses."""

from typing import Any

import pytest
from pydantic import ValidationError

from fleets.render.checks import Severity, check
from fleets.render.pod import TLS_FILES
from fleets.render.rendering import render
from fleets.spec.fleet import FleetSpec, LowLatency
from fleets.spec.platform import PlatformBody

_ADMISSION = {"image": "registry.example/warmfleet:1", "issuer": {"name": "internal"}}
_MISSING = object()


def fleet(server: dict[str, Any] | None = None, **low: Any) -> FleetSpec:
    base = {"game": "g:G"} if server is None or "command" not in server else {}
    body = {"server": {"image": "i", **base, **(server or {})}, "lowLatency": low}
    return FleetSpec.model_validate(
        {"apiVersion": "warmfleet.dev/v1", "kind": "Fleet", "metadata": {"name": "arena"}, "spec": body}
    )


def game_server(spec: FleetSpec, **platform: Any) -> dict[str, Any]:
    items = render([spec], PlatformBody.model_validate(platform))
    found: dict[str, Any] = next(i for i in items if i["kind"] == "Fleet")["spec"]["template"]["spec"]
    return found


def at(value: Any, path: str) -> Any:
    for part in path.split("|"):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError):
            return _MISSING
    return value


_POD = "template|spec"
_GAME = f"{_POD}|containers|0"
_META = "template|metadata"
_HUGE = f"{_GAME}|resources|limits|hugepages-1Gi"
_NODE_AFFINITY = f"{_POD}|affinity|nodeAffinity"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_SAME = {"matchLabels": {"warmfleet.dev/fleet": "arena"}}


@pytest.mark.parametrize(
    ("low", "platform", "path", "value"),
    [
        ({"portPolicy": "Passthrough"}, {}, "ports|0", {"name": "websocket", "portPolicy": "Passthrough", "protocol": "TCP"}),
        ({"portPolicy": "Static", "hostPort": 7777}, {}, "ports|0|hostPort", 7777),
        ({"portPolicy": "Static", "hostPort": 7777}, {}, "ports|0|containerPort", 7777),
        ({"portRange": "games"}, {}, "ports|0|range", "games"),
        ({}, {}, "ports|0|range", _MISSING),
        ({"cpu": 2, "cpuPinning": True, "numa": "single"}, {}, f"{_POD}|nodeSelector", {"warmfleet.dev/numa": "single"}),
        ({"hugepages1Gi": "2Gi"}, {}, _HUGE, "2Gi"),
        ({"hugepages1Gi": "2Gi"}, {}, f"{_POD}|volumes|0", {"name": "hugepages-1gi", "emptyDir": {"medium": "HugePages-1Gi"}}),
        ({"hugepages1Gi": "2Gi"}, {}, f"{_GAME}|volumeMounts|0|mountPath", "/dev/hugepages-1Gi"),
        ({"fifo": 10}, {}, f"{_GAME}|command", ["chrt", "--fifo", "10", "python", "-m", "gameserver"]),
        ({"fifo": 10}, {}, f"{_GAME}|securityContext|capabilities", {"drop": ["ALL"], "add": ["SYS_NICE"]}),
        ({"fifo": 10}, {}, f"{_GAME}|securityContext|runAsUser", 0),
        ({"fifo": 10}, {}, f"{_GAME}|securityContext|runAsNonRoot", _MISSING),
        ({"nice": 5}, {}, f"{_GAME}|command|1", "-n"),
        ({"nice": 5}, {}, f"{_GAME}|securityContext|runAsNonRoot", True),
        ({"nice": -5}, {}, f"{_GAME}|securityContext|runAsUser", 0),
        ({"nodeLabels": {"disk": "fast"}}, {}, f"{_POD}|nodeSelector", {"disk": "fast"}),
        ({"architecture": "arm64"}, {}, f"{_POD}|nodeSelector", {"kubernetes.io/arch": "arm64"}),
        ({"preferNodeLabels": {"rack": "a"}}, {}, f"{_NODE_AFFINITY}|{_PREFERRED}|0|preference|matchExpressions|0|values", ["a"]),
        ({"spot": "never"}, {}, f"{_NODE_AFFINITY}|{_REQUIRED}|nodeSelectorTerms|0|matchExpressions|0|operator", "NotIn"),
        ({"spot": "tolerate"}, {}, f"{_POD}|tolerations|0|key", "cloud.google.com/gke-spot"),
        ({"spot": "tolerate"}, {}, f"{_POD}|affinity", _MISSING),
        ({"spot": "prefer"}, {}, f"{_NODE_AFFINITY}|{_PREFERRED}|3|preference|matchExpressions|0|key", "karpenter.sh/capacity-type"),
        ({"tolerations": [{"operator": "Exists"}]}, {}, f"{_POD}|tolerations", [{"operator": "Exists"}]),
        (
            {"tolerations": [{"key": "k", "value": "v", "effect": "NoExecute", "seconds": 9}]},
            {},
            f"{_POD}|tolerations|0",
            {"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute", "tolerationSeconds": 9},
        ),
        ({}, {}, f"{_POD}|topologySpreadConstraints|0|whenUnsatisfiable", "ScheduleAnyway"),
        ({"zoneSpread": "require"}, {}, f"{_POD}|topologySpreadConstraints|0|whenUnsatisfiable", "DoNotSchedule"),
        ({"zoneSpread": "none"}, {}, f"{_POD}|topologySpreadConstraints", _MISSING),
        (
            {"antiAffinity": "require"},
            {},
            f"{_POD}|affinity|podAntiAffinity|{_REQUIRED}|0",
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": _SAME},
        ),
        ({"antiAffinity": "prefer"}, {}, f"{_POD}|affinity|podAntiAffinity|{_PREFERRED}|0|weight", 100),
        ({"runtimeClass": "rt"}, {}, f"{_POD}|runtimeClassName", "rt"),
        ({"priority": 7, "preemption": "never"}, {}, f"{_POD}|priorityClassName", "warmfleet-7-waits"),
        (
            {"sysctls": {"net.ipv4.tcp_syncookies": "1"}},
            {},
            f"{_POD}|securityContext|sysctls",
            [{"name": "net.ipv4.tcp_syncookies", "value": "1"}],
        ),
        ({"mesh": "minimal"}, {"mesh": "istio"}, f"{_META}|annotations|sidecar.istio.io/proxyCPULimit", "50m"),
        ({"mesh": "minimal"}, {"mesh": "istio"}, f"{_META}|annotations|traffic.sidecar.istio.io/includeInboundPorts", ""),
        ({"mesh": "minimal"}, {"mesh": "istio"}, f"{_META}|labels|sidecar.istio.io/inject", "true"),
        ({"mesh": "minimal"}, {"mesh": "istioAmbient"}, f"{_META}|labels|istio.io/dataplane-mode", "ambient"),
        ({"mesh": "minimal"}, {"mesh": "linkerd"}, f"{_META}|annotations|config.linkerd.io/skip-inbound-ports", "7000-8000"),
        ({}, {"images": {"repository": "r", "tag": "t", "pullSecrets": ["p"]}}, f"{_POD}|imagePullSecrets", [{"name": "p"}]),
        ({}, {"valkey": {"ca": {"secret": "s", "key": "k"}}}, f"{_GAME}|volumeMounts|0|mountPath", "/var/run/warmfleet/valkey"),
    ],
)  # fmt: skip
def test_a_lever_renders_to_its_field(low: dict[str, Any], platform: dict[str, Any], path: str, value: Any) -> None:
    """One key, one place."""
    assert at(game_server(fleet(**low), **platform), path) == value


def test_no_lever_is_without_effect() -> None:
    """Each key, set alone, changes what is rendered (with what it needs beside it)."""
    needs: dict[str, dict[str, Any]] = {
        "numa": {"cpuPinning": True},
        "preemption": {"priority": 5},
        "hostPort": {"portPolicy": "Static"},
    }
    values: dict[str, Any] = {
        "network": "host", "portPolicy": "Passthrough", "hostPort": 7000, "portRange": "r", "cpu": 2, "cpuPinning": True,
        "numa": "single", "memory": "1Gi", "hugepages2Mi": "2Mi", "hugepages1Gi": "1Gi", "kernel": "realtime", "fifo": 1, "nice": 1,
        "nodePool": "p", "nodeLabels": {"a": "b"}, "preferNodeLabels": {"a": "b"}, "architecture": "arm64",
        "tolerations": [{"operator": "Exists"}], "zoneSpread": "none", "antiAffinity": "prefer", "runtimeClass": "r", "priority": 1,
        "preemption": "never", "sysctls": {"net.core.somaxconn": "1"}, "dscp": "EF", "mesh": "minimal", "spot": "never",
        "prePull": False,
    }  # fmt: skip
    assert set(values) == {field.alias or name for name, field in LowLatency.model_fields.items()}
    platform = PlatformBody.model_validate({"mesh": "istio", "admission": _ADMISSION})
    for key, value in values.items():
        beside = needs.get(key, {})
        if key == "hostPort":
            beside = {"portPolicy": "Static"}
            plain = render([fleet(portPolicy="Passthrough")], platform)
        else:
            plain = render([fleet(**beside)], platform)
        if key == "portPolicy":
            beside = {}
        assert render([fleet(**{**beside, key: value})], platform) != plain, key


@pytest.mark.parametrize(
    ("low", "path", "reason"),
    [
        ({"network": "bridge"}, "network", "'host' or 'hostPort'"),
        ({"network": "host", "portPolicy": "Dynamic"}, "", "use Passthrough"),
        ({"portPolicy": "dynamic"}, "portPolicy", "'Dynamic'"),
        ({"portPolicy": "Static"}, "", "hostPort: wanted with portPolicy Static"),
        ({"hostPort": 7000}, "", "hostPort: wanted with portPolicy Static"),
        ({"portPolicy": "Static", "hostPort": 70000}, "hostPort", "65535"),
        ({"portPolicy": "Static", "hostPort": 7000, "portRange": "a"}, "", "portRange"),
        ({"portRange": "No"}, "portRange", "pattern"),
        ({"cpu": 0}, "cpu", "greater than 0"),
        ({"cpu": "2"}, "cpu", "number"),
        ({"cpuPinning": "yes"}, "cpuPinning", "boolean"),
        ({"numa": "single"}, "", "needs cpuPinning"),
        ({"numa": "all"}, "numa", "'any' or 'single'"),
        ({"memory": "512"}, "memory", "as 512Mi"),
        ({"memory": 512}, "memory", "string"),
        ({"hugepages2Mi": "0Mi"}, "hugepages2Mi", "as 512Mi"),
        ({"hugepages1Gi": "1G"}, "hugepages1Gi", "as 512Mi"),
        ({"kernel": "rt"}, "kernel", "'realtime'"),
        ({"fifo": 0}, "fifo", "greater than or equal to 1"),
        ({"fifo": 100}, "fifo", "99"),
        ({"fifo": 5, "nice": 1}, "", "set one of fifo and nice"),
        ({"nice": 20}, "nice", "19"),
        ({"nodePool": "Games"}, "nodePool", "pattern"),
        ({"nodeLabels": {"": "a"}}, "nodeLabels", "at least 1 character"),
        ({"nodeLabels": ["a"]}, "nodeLabels", "dictionary"),
        ({"preferNodeLabels": {"a": 1}}, "preferNodeLabels.a", "string"),
        ({"architecture": "x86"}, "architecture", "'amd64' or 'arm64'"),
        ({"tolerations": [{}]}, "tolerations.0", "operator must be Exists"),
        ({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}, "tolerations.0", "takes no value"),
        ({"tolerations": [{"key": "a", "seconds": 1}]}, "tolerations.0", "NoExecute"),
        ({"zoneSpread": True}, "zoneSpread", "'prefer'"),
        ({"antiAffinity": "yes"}, "antiAffinity", "'require'"),
        ({"runtimeClass": "R"}, "runtimeClass", "pattern"),
        ({"priority": -1}, "priority", "greater than or equal to 0"),
        ({"priority": 1.5}, "priority", "integer"),
        ({"preemption": "never"}, "", "goes with a priority"),
        ({"sysctls": {"net.core.somaxconn": 1}}, "sysctls.net.core.somaxconn", "string"),
        ({"dscp": "AF11"}, "dscp", "'EF'"),
        ({"mesh": "in"}, "mesh", "'out' or 'minimal'"),
        ({"spot": True}, "spot", "'never'"),
        ({"prePull": "no"}, "prePull", "boolean"),
    ],
)
def test_a_wrong_lever_is_refused(low: dict[str, Any], path: str, reason: str) -> None:
    """Type, range and conflict, at the key."""
    with pytest.raises(ValidationError) as caught:
        fleet(**low)
    assert any(
        ".".join(map(str, error["loc"])).startswith(f"spec.lowLatency{'.' + path if path else ''}")
        and reason in error["msg"]
        for error in caught.value.errors()
    ), caught.value


@pytest.mark.parametrize(
    ("low", "platform", "severity", "path", "reason"),
    [
        ({"hugepages1Gi": "512Mi"}, {}, "error", "hugepages1Gi", "multiple of 1Gi"),
        ({"fifo": 5, "kernel": "realtime", "nodePool": "p"}, {}, "error", "fifo", "starves"),
        ({"network": "host", "mesh": "minimal"}, {"admission": _ADMISSION}, "error", "mesh", "host network"),
        ({"portPolicy": "Static", "hostPort": 65535}, {}, "error", "hostPort", "no room"),
        ({"network": "host", "portPolicy": "Static", "hostPort": 9000}, {"admission": _ADMISSION}, "error", "hostPort", "gamePorts"),
        ({"sysctls": {"vm.swappiness": "1"}}, {}, "error", "sysctls.vm.swappiness", "whole node's"),
        ({"sysctls": {"a b": "1"}}, {}, "error", "sysctls.a b", "no kernel setting's name"),
        ({"network": "host", "sysctls": {"net.core.somaxconn": "1"}}, {"admission": _ADMISSION}, "error", "sysctls.net.core.somaxconn", "host network"),
        ({"sysctls": {"net.core.somaxconn": "1"}}, {}, "warning", "sysctls", "allowedUnsafeSysctls"),
        ({"nice": -1}, {}, "warning", "nice", "SYS_NICE"),
        ({"mesh": "minimal"}, {}, "warning", "mesh", "no mesh"),
        ({"antiAffinity": "require"}, {}, "warning", "antiAffinity", "a node for each"),
        ({"portPolicy": "Static", "hostPort": 7000}, {}, "warning", "portPolicy", "one server a node"),
        ({"spot": "tolerate"}, {}, "warning", "", "spot nodes"),
        ({"cpu": 2, "cpuPinning": True, "fifo": 5}, {"admission": _ADMISSION}, "warning", "fifo", "kernel: realtime"),
    ],
)  # fmt: skip
def test_what_a_lever_would_break_in_a_cluster_is_said(
    low: dict[str, Any], platform: dict[str, Any], severity: str, path: str, reason: str
) -> None:
    """With the reason, and as an error where pods would not run or would hurt their node."""
    server = {"transports": ["websocket", "udp"]}
    found = check([fleet(server, **low)], PlatformBody.model_validate(platform))
    where = f"spec.lowLatency.{path}" if path else "spec.disruption"
    assert any(f.severity is Severity(severity) and f.path == where and reason in f.message for f in found), found


def test_a_passthrough_game_asks_the_sdk_for_its_port() -> None:
    """No port is in its environment; a command's comes by the webhook's annotation; policies admit Agones' whole range."""
    ours = game_server(fleet(portPolicy="Passthrough"), admission=_ADMISSION)
    assert not [e for e in at(ours, f"{_GAME}|env") if e["name"].endswith("_PORT")]
    theirs = game_server(fleet({"command": ["./run"]}, portPolicy="Passthrough"), admission=_ADMISSION)
    assert at(theirs, f"{_META}|annotations|warmfleet.dev/port-variable") == "PORT"
    items = render([fleet(portPolicy="Passthrough")], PlatformBody())
    policy = next(i for i in items if i["kind"] == "NetworkPolicy")
    assert policy["spec"]["ingress"] == [{"ports": [{"protocol": "TCP", "port": 7000, "endPort": 8000}]}]


def test_two_fleets_of_one_name_are_refused() -> None:
    """By the checks, whoever loaded them."""
    found = check([fleet(), fleet()], PlatformBody())
    assert [f.path for f in found if f.severity is Severity.ERROR] == ["metadata.name"]


def test_certificates_come_from_a_secret_and_are_told_to_the_game() -> None:
    """The whole Secret is a volume, since a single mounted file would not follow its changes; without one there is no TLS."""
    pod = game_server(fleet(server={"tls": {"secret": "game-tls"}}))["template"]["spec"]
    assert pod["volumes"] == [{"name": "tls", "secret": {"secretName": "game-tls"}}]
    container = pod["containers"][0]
    assert container["volumeMounts"] == [{"name": "tls", "mountPath": TLS_FILES, "readOnly": True}]
    values = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert (values["WARMFLEET_TLS_CERT"], values["WARMFLEET_TLS_KEY"]) == (
        f"{TLS_FILES}/tls.crt",
        f"{TLS_FILES}/tls.key",
    )
    bare = game_server(fleet())["template"]["spec"]
    assert "volumes" not in bare
    assert not [entry for entry in bare["containers"][0]["env"] if "TLS" in entry["name"]]


def test_secrets_come_by_reference_and_never_twice() -> None:
    """A variable is given once."""
    spec = fleet({"secretEnv": {"TOKEN": {"secret": "s", "key": "k"}}})
    entries = at(game_server(spec), f"{_GAME}|env")
    assert {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}} in entries
    both = fleet({"secretEnv": {"TOKEN": {"secret": "s", "key": "k"}}, "env": {"TOKEN": "x"}})
    assert "spec.server.secretEnv.TOKEN" in [f.path for f in check([both], PlatformBody())]
