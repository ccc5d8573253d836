"""What is valid YAML and would go wrong in a cluster: errors that stop a rendering, and warnings that do not."""

from typing import Any

import pytest
from rendered import ADMISSION, fleet, platform

from fleets.render.checks import Severity, check
from fleets.spec.fleet import FleetSpec
from fleets.spec.platform import PlatformBody


def errors(fleet_: FleetSpec, on: PlatformBody | None = None) -> dict[str, str]:
    return {f.path: f.message for f in check([fleet_], on or platform()) if f.severity is Severity.ERROR}


def warnings(fleet_: FleetSpec, on: PlatformBody | None = None) -> dict[str, str]:
    return {f.path: f.message for f in check([fleet_], on or platform()) if f.severity is Severity.WARNING}


def test_a_cross_wired_fleet_is_refused() -> None:
    """One room, host network, no webhook; either cure is accepted."""
    crossed = fleet(lowLatency={"network": "host"})
    assert "cross-wired" in errors(crossed)["spec.lowLatency.network"]
    assert errors(crossed, platform(admission=ADMISSION)) == {}
    assert errors(fleet(server={"rooms": 2}, lowLatency={"network": "host"})) == {}


@pytest.mark.parametrize(
    ("spec", "on", "path", "reason"),
    [
        ({"lowLatency": {"cpuPinning": True, "cpu": 1.5}}, {"admission": ADMISSION}, "lowLatency.cpu", "whole CPUs"),
        ({"lowLatency": {"cpuPinning": True, "cpu": 2}}, {}, "lowLatency.cpuPinning", "Burstable"),
        ({"lowLatency": {"hugepages2Mi": "3Mi"}}, {}, "lowLatency.hugepages2Mi", "multiple of 2Mi"),
        ({"server": {"env": {"WARMFLEET_GAME": "x"}}}, {}, "server.env.WARMFLEET_GAME", "another name"),
        ({"server": {"env": {"a b": "x"}}}, {}, "server.env.a b", "variable's name"),
        ({"server": {"image": None}}, {}, "server.image", "is missing"),
        ({"server": {"tls": {"certificate": "a", "key": "b"}}}, {}, "server.tls.secret", "from a Secret"),
        ({"server": {"command": ["x"], "ports": ["a", "a"]}}, {}, "server.ports", "same name"),
    ],
)
def test_what_a_cluster_would_do_wrong_is_an_error(
    spec: dict[str, Any], on: dict[str, Any], path: str, reason: str
) -> None:
    """With the reason and the mend."""
    found = errors(fleet(**spec), platform(**on))
    assert list(found) == [f"spec.{path}"]
    assert reason in found[f"spec.{path}"]


@pytest.mark.parametrize(
    ("spec", "on", "path"),
    [
        ({"disruption": {"drainTimeout": "2h"}}, {}, "disruption.drainTimeout"),
        ({"disruption": {"drainTimeout": "20m", "onDrain": "migrate"}}, {}, "disruption.drainTimeout"),
        ({"lowLatency": {"dscp": "EF"}}, {}, "lowLatency.dscp"),
        ({"lowLatency": {"kernel": "realtime", "nodePool": "p"}}, {}, "lowLatency.kernel"),
        ({"warm": {"buffer": 0}}, {}, "warm.buffer"),
        ({"warm": {"shelf": 8, "buffer": 5, "max": 10}}, {}, "warm.max"),
        ({"lowLatency": {"nodePool": "p"}}, {"nodePools": {"p": {"labels": {"a": "b"}, "spot": True}}}, "disruption"),
        ({"lowLatency": {"network": "host"}}, {"admission": ADMISSION}, "lowLatency.network"),
    ],
)
def test_what_may_surprise_is_a_warning(spec: dict[str, Any], on: dict[str, Any], path: str) -> None:
    """It does not stop a rendering."""
    assert list(warnings(fleet(**spec), platform(**on))) == [f"spec.{path}"]
    assert errors(fleet(**spec), platform(**on)) == {}


def test_labels_that_kubernetes_would_refuse_are_errors() -> None:
    """So are those that are somebody else's."""
    spec = fleet().model_dump(by_alias=True, exclude_unset=True)
    spec["metadata"]["labels"] = {"a/b/c": "x", "ok": "no spaces", "agones.dev/fleet": "x", "fine": "yes"}
    found = errors(FleetSpec.model_validate(spec))
    assert len(found) == 3
    assert "spec.metadata.labels.fine" not in found


def test_a_static_port_is_not_that_of_the_metrics() -> None:
    """Else the game could not listen."""
    levers = {"portPolicy": "Static", "hostPort": 9464}
    assert "spec.lowLatency.hostPort" in errors(fleet(lowLatency=levers), platform(prometheusOperator=True))
    assert "spec.lowLatency.hostPort" not in errors(fleet(lowLatency=levers))


def test_our_udp_transport_marks_its_own_packets() -> None:
    """So nobody is warned that nothing does."""
    marked = {"lowLatency": {"dscp": "EF"}}
    assert "spec.lowLatency.dscp" not in warnings(fleet(server={"transports": ["udp"]}, **marked))
    assert "spec.lowLatency.dscp" in warnings(fleet(**marked))
