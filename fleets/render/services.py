"""
Our own services in the cluster: what `warmfleet serve` runs, a Deployment each, with all that stands around it.

Owns the shape that they share; what differs from part to part is one row of `_PARTS`. The webhook is in `webhook`, Valkey in `store`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from fleets.render import optional
from fleets.render.allocation import served
from fleets.render.entry import entry
from fleets.render.manifest import Manifest, manifest, to_yaml
from fleets.render.network import Ports, policy, store_ports, url_ports
from fleets.render.part import Part, name_of
from fleets.render.pod import VALKEY_CA, ca_volume, secret_env, valkey_url
from fleets.render.scaling import recommendations, scaling
from fleets.render.tracing import variables
from fleets.spec.platform import PARTS, SERVICE_PORT, PlatformBody, ServiceBody, Services

HTTP_PORT = SERVICE_PORT
SPECS = "/etc/warmfleet/specs"
"""The folder of the fleets' and queues' YAML in each container."""
_TLS = "/var/run/warmfleet/tls"
_REGIONS = "/etc/warmfleet/regions"
_REGIONS_MAP = "warmfleet-regions"
_KUBE = "/var/run/warmfleet/kubeconfig"
_SPECS = "warmfleet-specs"
_SPECS_BYTES = 700_000
"""Of one ConfigMap, which may have 1 MiB."""
_GRACE_S = 45
_LEAVE_S = 5
"""Between a pod's removal from its Service and its SIGTERM: what routes to it must hear of it first."""


_GAME_SERVERS = {"apiGroups": ["agones.dev"], "resources": ["gameservers"]}
_HTTPS: Ports = [("TCP", 443, 443)]


def _parts(platform: PlatformBody, services: Services) -> dict[str, Part]:
    store: Ports = store_ports(platform)
    asked = served(platform.allocation)
    return {
        "matchmaker": Part(
            secrets=(
                ("WARMFLEET_PLAYER_KEYS", platform.player_keys),
                ("WARMFLEET_SEAT_SIGNING_KEY", platform.seat_signing_key),
                ("WARMFLEET_NETCODE_KEY", platform.netcode_key),
                ("WARMFLEET_OPERATOR_TOKEN", platform.operator_token),
            ),
            out=[*store, *_HTTPS],
            values=(("WARMFLEET_REGIONS", f"{_REGIONS}/regions.yaml"),) if platform.regions else (),
            volumes=(({"name": "regions", "configMap": {"name": _REGIONS_MAP}}, _REGIONS),) if platform.regions else (),
        ),
        "director": Part(out=store, by_queue=True),
        "allocator": Part(
            rules=(
                {"apiGroups": ["allocation.agones.dev"], "resources": ["gameserverallocations"], "verbs": ["create"]},
                {**_GAME_SERVERS, "verbs": ["get", "list", "watch", "patch", "delete"]},
                {"apiGroups": ["agones.dev"], "resources": ["fleets"], "verbs": ["get", "list", "watch"]},
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
            ),
            out=[*store, *_HTTPS],
            values=asked.values,
            volumes=asked.volumes,
            ports=asked.ports,
        ),
        "autoscaler": Part(
            rules=(
                {
                    "apiGroups": ["agones.dev"],
                    "resources": ["fleets", "gameservers"],
                    "verbs": ["get", "list", "watch"],
                },
            ),
            out=store,
            values=(("WARMFLEET_SCALE_INTERVAL_S", str(platform.autoscaler.interval_s)),),
            tls_secret=platform.autoscaler.tls_secret,
            port=platform.autoscaler.port,
        ),
        "events": optional.events(platform, services),
        "console": optional.console(platform, services),
        "beacon": optional.beacon(services),
    }


def services(platform: PlatformBody, documents: Sequence[Mapping[str, Any]]) -> list[Manifest]:
    """
    Everything of the parts that are enabled.

    Args: documents: the YAML of the fleets and queues as the studio wrote it; the parts read it from a ConfigMap.
    Returns: empty where the platform renders no services; without a part that would have nothing to do, and therefore end at once.
    """
    if platform.services is None:
        return []
    idle = _idle(documents)
    queues = sorted(d["metadata"]["name"] for d in documents if d.get("kind") == "Queue" and "shadow" not in d["spec"])
    configs = _config_maps(platform, documents)
    regions = _regions_map(platform)
    digest = hashlib.sha256(to_yaml([*configs, *regions]).encode()).hexdigest()[:16]
    items: list[Manifest] = [*configs, *regions]
    parts = _parts(platform, platform.services)
    for part in PARTS:
        body: ServiceBody = getattr(platform.services, part)
        if body.enabled and part not in idle:
            items += _service(
                part, parts[part], body, platform, queues, [c["metadata"]["name"] for c in configs], digest
            )
    if platform.services.matchmaker.enabled:
        items += entry(platform, name_of("matchmaker"), HTTP_PORT)
    return items


def _idle(documents: Sequence[Mapping[str, Any]]) -> set[str]:
    """Parts that none of the documents gives work."""
    fleets = [d.get("spec", {}) for d in documents if d.get("kind") == "Fleet"]
    idle = set() if any(d.get("kind") == "Queue" for d in documents) else {"director"}
    if not any(spec.get("warm", {}).get("buffer", "auto") == "auto" for spec in fleets):
        idle.add("autoscaler")
    return idle if fleets else idle | {"allocator"}


def _config_maps(platform: PlatformBody, documents: Sequence[Mapping[str, Any]]) -> list[Manifest]:
    """One key a document; several maps where one would be too large."""
    ordered = sorted(documents, key=lambda d: (d["kind"], d["metadata"]["name"]))
    maps: list[dict[str, str]] = [{}]
    size = 0
    for document in ordered:
        key, text = f"{document['kind']}-{document['metadata']['name']}.yaml".lower(), to_yaml([document])
        size += len(key) + len(text.encode())
        if maps[-1] and size > _SPECS_BYTES:
            maps.append({})
            size = len(key) + len(text.encode())
        maps[-1][key] = text
    return [
        manifest("v1", "ConfigMap", f"{_SPECS}-{index}", namespace=platform.namespace, data=data)
        for index, data in enumerate(maps)
    ]


def _regions_map(platform: PlatformBody) -> list[Manifest]:
    if not platform.regions:
        return []
    text = yaml.safe_dump([region.model_dump(exclude_defaults=True) for region in platform.regions], sort_keys=False)
    return [manifest("v1", "ConfigMap", _REGIONS_MAP, namespace=platform.namespace, data={"regions.yaml": text})]


def _service(
    part: str, what: Part, body: ServiceBody, platform: PlatformBody, queues: list[str], configs: list[str], digest: str
) -> list[Manifest]:
    name, namespace = name_of(part), platform.namespace
    labels = {"app.kubernetes.io/name": name}
    open_ports: Ports = [("TCP", HTTP_PORT, HTTP_PORT), *((protocol, at, at) for _, at, protocol in what.ports)]
    wanted = policy(
        platform,
        name,
        labels,
        reached=() if what.inside else open_ports,
        inside=open_ports if what.inside else (),
        out=[*what.out, *(url_ports(platform.tracing.endpoint) if platform.tracing is not None else [])],
        api_server=bool(what.rules),
    )
    items = [
        *_account(name, what, platform, labels),
        *([wanted] if wanted is not None else []),
        manifest(
            "apps/v1",
            "Deployment",
            name,
            namespace=namespace,
            labels=labels,
            spec=_deployment(part, what, body, platform, labels, configs, digest),
        ),
        manifest(
            "v1",
            "Service",
            platform.autoscaler.service if part == "autoscaler" else name,
            namespace=namespace,
            labels=labels,
            annotations=what.annotations,
            spec={
                **what.service,
                "selector": labels,
                "ports": [
                    {"name": "http", "port": what.port, "targetPort": "http"},
                    *(
                        {"name": own, "port": number, "targetPort": own, **_udp(protocol)}
                        for own, number, protocol in what.ports
                    ),
                ],
            },
        ),
        manifest(
            "policy/v1",
            "PodDisruptionBudget",
            name,
            namespace=namespace,
            labels=labels,
            spec={"maxUnavailable": 1, "selector": {"matchLabels": labels}},
        ),
    ]
    if body.autoscale is not None:
        items += scaling(platform, name, labels, body.autoscale, queues if what.by_queue else [])
    items += recommendations(platform, name, labels, api_version="apps/v1", kind="Deployment")
    if platform.prometheus_operator:
        items.append(_monitor(name, what, platform, labels))
    return items


def _monitor(name: str, what: Part, platform: PlatformBody, labels: dict[str, str]) -> Manifest:
    """How Prometheus reads it."""
    endpoint: dict[str, Any] = {"port": "http", "path": "/metrics", "interval": "15s"}
    if what.tls_secret is not None:
        endpoint |= {"scheme": "https", "tlsConfig": {"insecureSkipVerify": True}}
    return manifest(
        "monitoring.coreos.com/v1",
        "ServiceMonitor",
        name,
        namespace=platform.namespace,
        labels=labels,
        spec={"selector": {"matchLabels": labels}, "endpoints": [endpoint]},
    )


def _udp(protocol: str) -> dict[str, str]:
    """What is not TCP is said."""
    return {} if protocol == "TCP" else {"protocol": protocol}


def _account(name: str, what: Part, platform: PlatformBody, labels: Mapping[str, str]) -> list[Manifest]:
    namespace = platform.namespace
    own = manifest(
        "v1", "ServiceAccount", name, namespace=namespace, labels=labels, automountServiceAccountToken=bool(what.rules)
    )
    if not what.rules:
        return [own]
    group = "rbac.authorization.k8s.io"
    return [
        own,
        manifest(f"{group}/v1", "Role", name, namespace=namespace, labels=labels, rules=[dict(r) for r in what.rules]),
        manifest(
            f"{group}/v1",
            "RoleBinding",
            name,
            namespace=namespace,
            labels=labels,
            roleRef={"apiGroup": group, "kind": "Role", "name": name},
            subjects=[{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        ),
    ]


def _deployment(
    part: str,
    what: Part,
    body: ServiceBody,
    platform: PlatformBody,
    labels: Mapping[str, str],
    configs: list[str],
    digest: str,
) -> dict[str, Any]:
    mounted = _mounted(what, platform, configs)
    spec: dict[str, Any] = {
        "serviceAccountName": name_of(part),
        "automountServiceAccountToken": bool(what.rules),
        "enableServiceLinks": False,  # a Service's variables would look like settings of ours
        "terminationGracePeriodSeconds": _GRACE_S,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": dict(labels)},
            }
            for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
        ],
        "containers": [_container(part, what, body, platform, [_mount(volume, path) for volume, path in mounted])],
        "volumes": [volume for volume, _ in mounted],
    }
    if platform.images is not None and platform.images.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in platform.images.pull_secrets]
    return {
        **({"replicas": body.replicas} if body.autoscale is None else {}),  # else the number is the scaler's
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "selector": {"matchLabels": dict(labels)},
        "template": {
            "metadata": {"labels": dict(labels), "annotations": {"warmfleet.dev/specs": digest}},
            "spec": spec,
        },
    }


def _mounted(what: Part, platform: PlatformBody, configs: list[str]) -> list[tuple[dict[str, Any], str]]:
    """Volumes, and where each is mounted."""
    sources = [{"configMap": {"name": name}} for name in configs]
    found: list[tuple[dict[str, Any], str]] = [({"name": "specs", "projected": {"sources": sources}}, SPECS)]
    if what.store and platform.valkey.ca is not None:
        found.append((ca_volume(platform), VALKEY_CA))
    if what.tls_secret is not None:
        found.append(({"name": "tls", "secret": {"secretName": what.tls_secret}}, _TLS))
    if what.rules and platform.kubeconfig is not None:
        items = [{"key": platform.kubeconfig.key, "path": "config"}]
        found.append(
            ({"name": "kubeconfig", "secret": {"secretName": platform.kubeconfig.secret, "items": items}}, _KUBE)
        )
    return [*found, *what.volumes]


def _mount(volume: dict[str, Any], path: str) -> dict[str, Any]:
    return {"name": volume["name"], "mountPath": path, "readOnly": True}


def _container(
    part: str, what: Part, body: ServiceBody, platform: PlatformBody, mounts: list[dict[str, Any]]
) -> dict[str, Any]:
    scheme = {"scheme": "HTTPS"} if what.tls_secret is not None else {}

    def probe(path: str, **timing: int) -> dict[str, Any]:
        return {"httpGet": {"path": path, "port": "http", **scheme}, **timing}

    # A part says itself which setting it lacks; not every studio has all of these.
    secrets = [secret_env("WARMFLEET_VALKEY_URL", valkey_url(platform))] if what.store else []
    secrets += [secret_env(variable, source, optional=True) for variable, source in what.secrets]
    secrets += [secret_env(variable, source) for variable, source in body.secret_env.items()]
    values = {"WARMFLEET_NAMESPACE": platform.namespace, **dict(what.values)}
    if what.store and platform.valkey.replicas:
        values["WARMFLEET_VALKEY_REPLICAS"] = str(platform.valkey.replicas)
    if what.tls_secret is not None:
        values |= {"WARMFLEET_TLS_CERTIFICATE": f"{_TLS}/tls.crt", "WARMFLEET_TLS_KEY": f"{_TLS}/tls.key"}
    if what.rules and platform.kubeconfig is not None:
        values["WARMFLEET_KUBECONFIG"] = f"{_KUBE}/config"
        if platform.clusters:
            values["WARMFLEET_CLUSTERS"] = ",".join(f"{region}={name}" for region, name in platform.clusters.items())
    values |= variables(platform) | body.env
    return {
        "name": part,
        "image": platform.image_of(part, body.image),
        **({"imagePullPolicy": platform.images.pull_policy} if platform.images is not None else {}),
        "command": ["warmfleet", "serve", part],
        "args": [SPECS, "--host=0.0.0.0", f"--port={HTTP_PORT}"],
        "env": secrets + [{"name": name, "value": value} for name, value in values.items()],
        "ports": [
            {"name": own, "containerPort": number, "protocol": protocol}
            for own, number, protocol in (("http", HTTP_PORT, "TCP"), *what.ports)
        ],
        "startupProbe": probe("/healthz", periodSeconds=1, failureThreshold=60),
        "readinessProbe": probe("/readyz", periodSeconds=2, failureThreshold=2),
        "livenessProbe": probe("/healthz", periodSeconds=10, failureThreshold=3, timeoutSeconds=3),
        "lifecycle": {"preStop": {"sleep": {"seconds": _LEAVE_S}}},
        "resources": {"requests": {"cpu": body.cpu, "memory": body.memory}, "limits": {"memory": body.memory}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": mounts,
    }
