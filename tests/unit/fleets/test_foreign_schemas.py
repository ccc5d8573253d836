"""
Objects of our neighbours' kinds, against their own CustomResourceDefinitions.

Those are not ours to keep here: $WARMFLEET_CRDS names files or folders of them, as `kubectl get crd -o yaml` or the projects' repositories
give them. What has no schema there is skipped, saying so; that the objects have the shape they should is checked by hand in
test_services.py and test_render.py.
"""

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleets.render.manifest import Manifest
from fleets.render.rendering import render
from fleets.render.schemas import Schemas, read_crds
from fleets.spec.fleet import FleetSpec
from fleets.spec.platform import PlatformBody

_ENV = "WARMFLEET_CRDS"
_KINDS = [
    ("agones.dev/v1", "Fleet"),
    ("autoscaling.agones.dev/v1", "FleetAutoscaler"),
    ("keda.sh/v1alpha1", "ScaledObject"),
    ("keda.sh/v1alpha1", "TriggerAuthentication"),
    ("autoscaling.k8s.io/v1", "VerticalPodAutoscaler"),
    ("gateway.networking.k8s.io/v1", "Gateway"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("cilium.io/v2", "CiliumNetworkPolicy"),
    ("projectcalico.org/v3", "NetworkPolicy"),
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
    ("monitoring.coreos.com/v1", "PodMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("cert-manager.io/v1", "Certificate"),
]
_QUEUE = {"apiVersion": "warmfleet.dev/v1", "kind": "Queue", "metadata": {"name": "q"}, "spec": {}}
_PASSWORD = {"secret": "valkey", "key": "password"}
_ON: dict[str, Any] = {
    "images": {"repository": "registry.example/warmfleet", "tag": "1"},
    "services": {"director": {"autoscale": {"ticketsPerReplica": 5000}}},
    "admission": {"issuer": {"name": "internal"}},
    "autoscaler": {"caBundle": "Y2E=", "tlsSecret": "t"},
    "prometheusOperator": True,
    "verticalRecommendations": True,
}
_PLATFORMS: list[dict[str, Any]] = [
    {"networkPolicy": "cilium", "entry": {"host": "a.example", "tlsSecret": "t", "kind": "gateway", "className": "c"}},
    {"networkPolicy": "calico", "entry": {"host": "a.example", "kind": "gateway", "gateway": "shared"}},
    {"valkey": {"mode": "sentinel", "sentinelMaster": "m", "addresses": ["s:26379"], "password": _PASSWORD}},
    {"valkey": {"mode": "cluster", "addresses": ["a:6379", "b:6379"], "tls": True}},
    {"valkey": {"inCluster": {}}},
]
_FLEETS: list[dict[str, Any]] = [
    {},
    {"warm": {"buffer": 3, "min": 1}},
    {"lowLatency": {"network": "host", "cpu": 2, "cpuPinning": True, "hugepages2Mi": "128Mi", "priority": 1}},
    {
        "lowLatency": {"portPolicy": "Static", "hostPort": 7700, "antiAffinity": "require"},
        "disruption": {"drainTimeout": "2h"},
    },
]


def everything() -> Iterator[Manifest]:
    """What each platform and each fleet renders."""
    for platform in _PLATFORMS:
        documents = [
            {
                "apiVersion": "warmfleet.dev/v1",
                "kind": "Fleet",
                "metadata": {"name": f"arena-{index}"},
                "spec": {
                    "server": {"game": "g:G", "image": "i", "transports": ["websocket", "udp"], "rooms": 8},
                    **(body if platform.get("networkPolicy") else {}),
                },
            }
            for index, body in enumerate(_FLEETS)
        ]
        fleets = [FleetSpec.model_validate(document) for document in documents]
        valkey = {"valkey": {"addresses": ["v:6379"]}}
        yield from render(fleets, PlatformBody.model_validate(_ON | valkey | platform), [_QUEUE, *documents])


@functools.cache
def schemas() -> Schemas:
    return Schemas(crds=read_crds([Path(path) for path in os.environ.get(_ENV, "").split(os.pathsep) if path]))


@pytest.mark.parametrize(("api_version", "kind"), _KINDS)
def test_our_neighbours_would_take_it(api_version: str, kind: str) -> None:
    """Every key is theirs, strictly, and none that they want is missing."""
    ours = [item for item in everything() if (item["apiVersion"], item["kind"]) == (api_version, kind)]
    assert ours
    if not schemas().knows(ours[0]):
        pytest.skip(f"no schema of {api_version} {kind}: set ${_ENV} to files or folders of CustomResourceDefinitions")
    for item in ours:
        assert schemas().problems(item) == ()


def test_nothing_else_is_foreign() -> None:
    """A kind that is neither Kubernetes' own nor in the list above would go unchecked."""
    for item in everything():
        assert (item["apiVersion"], item["kind"]) in _KINDS or Schemas().knows(item)
