"""The admission webhook's objects: configuration, Deployment, Service, budget, account, certificate, monitor."""

from typing import Any

from fleets.admission.mutation import ROLE_LABEL
from fleets.render.manifest import Manifest, manifest
from fleets.render.pod import ADMISSION_LABEL, priority_class
from fleets.spec.platform import Admission, PlatformBody

NAME = "warmfleet-admission"
_TLS = f"{NAME}-tls"
_LABELS = {"app.kubernetes.io/name": NAME}
_PORT = 9443
PRIORITY = 1_000_000_000
"""The highest a user may give. A class of our own: some clouds keep system-cluster-critical to kube-system."""
_FOLDER = "/var/run/warmfleet/tls"


def admission_webhook(platform: PlatformBody) -> tuple[Manifest, ...]:
    """Everything of the webhook; empty when the platform has none."""
    admission = platform.admission
    if admission is None:
        return ()
    namespace = platform.namespace
    items = [
        manifest("v1", "ServiceAccount", NAME, namespace=namespace, labels=_LABELS, automountServiceAccountToken=False),
        _deployment(admission, platform),
        manifest(
            "v1",
            "Service",
            NAME,
            namespace=namespace,
            labels=_LABELS,
            spec={"selector": _LABELS, "ports": [{"name": "https", "port": 443, "targetPort": "https"}]},
        ),
        manifest(
            "policy/v1",
            "PodDisruptionBudget",
            NAME,
            namespace=namespace,
            labels=_LABELS,
            spec={"maxUnavailable": 1, "selector": {"matchLabels": _LABELS}},
        ),
        _configuration(admission, namespace),
    ]
    if admission.issuer is not None:
        items.append(_certificate(admission, namespace))
    if platform.prometheus_operator:
        items.append(_monitor(namespace))
    return tuple(items)


def _configuration(admission: Admission, namespace: str) -> Manifest:
    client: dict[str, Any] = {"service": {"name": NAME, "namespace": namespace, "path": "/mutate", "port": 443}}
    annotations = {}
    if admission.ca_bundle is not None:
        client["caBundle"] = admission.ca_bundle
    else:
        annotations["cert-manager.io/inject-ca-from"] = f"{namespace}/{NAME}"

    def webhook(need: str, policy: str) -> dict[str, Any]:
        return {
            "name": f"{need}.pods.warmfleet.dev",
            "admissionReviewVersions": ["v1"],
            "clientConfig": client,
            "failurePolicy": policy,
            "sideEffects": "None",
            "reinvocationPolicy": "IfNeeded",
            "timeoutSeconds": 3,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "objectSelector": {"matchLabels": {ROLE_LABEL: "gameserver", ADMISSION_LABEL: need}},
            "rules": [
                {
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "operations": ["CREATE"],
                    "resources": ["pods"],
                    "scope": "Namespaced",
                }
            ],
        }

    return manifest(
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
        f"{NAME}-{namespace}",
        labels=_LABELS,
        annotations=annotations,
        webhooks=[webhook("required", "Fail"), webhook("optional", "Ignore")],
    )


def _deployment(admission: Admission, platform: PlatformBody) -> Manifest:
    game, offsets = platform.game_ports, platform.sidecar_ports
    probe = {"httpGet": {"path": "/readyz", "port": "https", "scheme": "HTTPS"}, "periodSeconds": 5}
    amounts = {"cpu": "100m", "memory": "128Mi"}
    container = {
        "name": "admission",
        "image": platform.image_of("admission", admission.image),
        "command": ["warmfleet", "admission"],
        "args": [
            f"--port={_PORT}",
            f"--certificate={_FOLDER}/tls.crt",
            f"--key={_FOLDER}/tls.key",
            f"--game-ports={game.first}-{game.last}",
            f"--offsets={offsets.grpc},{offsets.http},{offsets.health},{offsets.metrics}",
            f"--rate-limit={admission.rate_limit}",
            f"--sidecar-cpu={admission.sidecar_cpu}",
            f"--sidecar-memory={admission.sidecar_memory}",
        ],
        "ports": [{"name": "https", "containerPort": _PORT, "protocol": "TCP"}],
        "readinessProbe": probe,
        "livenessProbe": {**probe, "httpGet": {**probe["httpGet"], "path": "/healthz"}, "initialDelaySeconds": 10},  # type: ignore[dict-item]
        "resources": {"requests": amounts, "limits": {"memory": amounts["memory"]}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "tls", "mountPath": _FOLDER, "readOnly": True}],
    }
    spec = {
        "serviceAccountName": NAME,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "priorityClassName": priority_class(PRIORITY),
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": _LABELS},
            }
        ],
        "containers": [container],
        "volumes": [{"name": "tls", "secret": {"secretName": _TLS}}],
    }
    return manifest(
        "apps/v1",
        "Deployment",
        NAME,
        namespace=platform.namespace,
        labels=_LABELS,
        spec={
            "replicas": admission.replicas,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": _LABELS},
            "template": {"metadata": {"labels": _LABELS}, "spec": spec},
        },
    )


def _certificate(admission: Admission, namespace: str) -> Manifest:
    assert admission.issuer is not None
    return manifest(
        "cert-manager.io/v1",
        "Certificate",
        NAME,
        namespace=namespace,
        labels=_LABELS,
        spec={
            "secretName": _TLS,
            "dnsNames": [f"{NAME}.{namespace}.svc", f"{NAME}.{namespace}.svc.cluster.local"],
            "duration": "2160h",
            "renewBefore": "720h",
            "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
            "issuerRef": {"name": admission.issuer.name, "kind": admission.issuer.kind, "group": "cert-manager.io"},
        },
    )


def _monitor(namespace: str) -> Manifest:
    endpoint = {"port": "https", "scheme": "https", "path": "/metrics", "tlsConfig": {"insecureSkipVerify": True}}
    return manifest(
        "monitoring.coreos.com/v1",
        "ServiceMonitor",
        NAME,
        namespace=namespace,
        labels=_LABELS,
        spec={"selector": {"matchLabels": _LABELS}, "endpoints": [endpoint]},
    )
