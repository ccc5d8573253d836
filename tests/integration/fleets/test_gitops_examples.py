"""The examples for Argo CD and Flux: they parse, name our kinds, and Argo's health checks say what they should, in a real Lua."""

import json
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
import yaml

import fleets

_GITOPS = Path(fleets.__file__).parent / "examples/gitops"
_FLEET = "resource.customizations.health.agones.dev_Fleet"
_SCALER = "resource.customizations.health.autoscaling.agones.dev_FleetAutoscaler"


def checks() -> dict[str, str]:
    found: dict[str, str] = yaml.safe_load((_GITOPS / "argocd/argocd-cm.yaml").read_text())["data"]
    return found


@pytest.mark.parametrize(
    ("check", "item", "status", "message"),
    [
        (_FLEET, {"spec": {}}, "Progressing", "no status yet"),
        (
            _FLEET,
            {"spec": {"replicas": 3}, "status": {"readyReplicas": 1}},
            "Progressing",
            "1 of 3 servers (0 allocated)",
        ),
        (
            _FLEET,
            {"spec": {"replicas": 3}, "status": {"readyReplicas": 1, "allocatedReplicas": 2}},
            "Healthy",
            "3 of 3 servers (2 allocated)",
        ),
        (_FLEET, {"spec": {"replicas": 0}, "status": {}}, "Healthy", "0 of 0 servers (0 allocated)"),
        (_SCALER, {"spec": {}}, "Progressing", "has not spoken yet"),
        (_SCALER, {"status": {"ableToScale": False}}, "Degraded", "cannot scale: see its events"),
        (
            _SCALER,
            {"status": {"ableToScale": True, "desiredReplicas": 4, "scalingLimited": True}},
            "Healthy",
            "wants 4 servers, at its limit",
        ),
    ],
)
async def test_argos_health_checks(
    valkey: redis.asyncio.Redis, check: str, item: dict[str, Any], status: str, message: str
) -> None:
    """Valkey's Lua is Argo CD's: 5.1."""
    script = f"local obj = cjson.decode(ARGV[1])\nlocal function check()\n{checks()[check]}\nend\nlocal r = check()\nreturn {{r.status, r.message}}"
    found: Any = await valkey.eval(script, 0, json.dumps(item))
    assert [part.decode() for part in found] == [status, message]


def test_the_examples_sync_by_server_side_apply_and_prune_no_fleet() -> None:
    """A pruned Fleet would take its sessions with it; its replicas are its autoscaler's."""
    application = yaml.safe_load((_GITOPS / "argocd/application.yaml").read_text())
    assert "ServerSideApply=true" in application["spec"]["syncPolicy"]["syncOptions"]
    assert application["spec"]["syncPolicy"]["automated"]["prune"] is False
    assert {"group": "agones.dev", "kind": "Fleet", "jsonPointers": ["/spec/replicas"]} in application["spec"][
        "ignoreDifferences"
    ]
    _, kustomization = yaml.safe_load_all((_GITOPS / "flux/kustomization.yaml").read_text())
    assert kustomization["spec"]["prune"] is False
    kinds = {(row["apiVersion"], row["kind"]) for row in kustomization["spec"]["healthCheckExprs"]}
    assert kinds == {("agones.dev/v1", "Fleet"), ("autoscaling.agones.dev/v1", "FleetAutoscaler")}
