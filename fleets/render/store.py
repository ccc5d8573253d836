"""A small Valkey in the cluster: one pod with a persistent volume, for a studio that has no managed one yet."""

from typing import Any

from fleets.render.manifest import Manifest, manifest
from fleets.render.network import policy
from fleets.spec.platform import PlatformBody, Storage
from fleets.spec.types import size_bytes

SERVICE = "warmfleet-valkey"
_LABELS = {"app.kubernetes.io/name": SERVICE}
_USER = 999
"""Of user valkey in the official image."""
_MEMORY_SHARE = 0.75
"""Of the limit: a rewrite of the append-only file copies pages that change meanwhile."""


def valkey(platform: PlatformBody) -> list[Manifest]:
    """Its objects; empty where Valkey is somewhere else."""
    storage = platform.valkey.in_cluster
    if storage is None:
        return []
    port = {"name": "valkey", "port": platform.valkey.port, "targetPort": "valkey"}
    namespace = platform.namespace
    reached = policy(
        platform,
        SERVICE,
        _LABELS,
        reached=[("TCP", platform.valkey.port, platform.valkey.port)],
        out=[],
        api_server=False,
    )
    return [
        manifest(
            "v1", "ServiceAccount", SERVICE, namespace=namespace, labels=_LABELS, automountServiceAccountToken=False
        ),
        *([reached] if reached is not None else []),
        manifest(
            "v1",
            "Service",
            SERVICE,
            namespace=namespace,
            labels=_LABELS,
            spec={"clusterIP": "None", "selector": _LABELS, "ports": [port]},
        ),
        manifest("apps/v1", "StatefulSet", SERVICE, namespace=namespace, labels=_LABELS, spec=_spec(storage, platform)),
    ]


def _spec(storage: Storage, platform: PlatformBody) -> dict[str, Any]:
    claim: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage.size}}}
    if storage.storage_class is not None:
        claim["storageClassName"] = storage.storage_class
    pod = {
        "serviceAccountName": SERVICE,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 60,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(storage, platform)],
    }
    return {
        "serviceName": SERVICE,
        "replicas": 1,
        "selector": {"matchLabels": _LABELS},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        "template": {"metadata": {"labels": _LABELS}, "spec": pod},
        "volumeClaimTemplates": [
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": claim}
        ],
    }


def _container(storage: Storage, platform: PlatformBody) -> dict[str, Any]:
    amounts = {"cpu": storage.cpu, "memory": storage.memory}
    ping = {"exec": {"command": ["sh", "-c", 'REDISCLI_AUTH="$VALKEY_PASSWORD" valkey-cli ping | grep -q PONG']}}
    return {
        "name": "valkey",
        "image": storage.image,
        "command": ["valkey-server"],
        "args": [part for flag, value in _flags(storage, platform).items() for part in (flag, value)],
        "env": [
            {
                "name": "VALKEY_PASSWORD",
                "valueFrom": {"secretKeyRef": {"name": storage.password.secret, "key": storage.password.key}},
            }
        ],
        "ports": [{"name": "valkey", "containerPort": platform.valkey.port, "protocol": "TCP"}],
        "readinessProbe": {**ping, "periodSeconds": 5, "timeoutSeconds": 3},
        "livenessProbe": {
            **ping,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
            "initialDelaySeconds": 20,
        },
        "resources": {"requests": amounts, "limits": amounts},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }


def _flags(storage: Storage, platform: PlatformBody) -> dict[str, str]:
    return {
        "--port": str(platform.valkey.port),
        "--dir": "/data",
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--maxmemory": str(int(size_bytes(storage.memory) * _MEMORY_SHARE)),
        "--maxmemory-policy": "noeviction",
        "--requirepass": "$(VALKEY_PASSWORD)",
    }
