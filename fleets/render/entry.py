"""How players reach the matchmaker from outside: an Ingress, or a route of the Gateway API; HTTPS in both."""

from fleets.render.manifest import Manifest, manifest
from fleets.spec.platform import Entry, PlatformBody

NAME = "warmfleet"
_PATHS = ("/v1", "/openapi.json")
"""What is for players; probes, metrics and the operator's pages stay inside."""
_NGINX = {
    "nginx.ingress.kubernetes.io/proxy-buffering": "off",
    "nginx.ingress.kubernetes.io/proxy-read-timeout": "3600",
}
"""Server-sent events and WebSockets are quiet for as long as a ticket waits."""


def entry(platform: PlatformBody, service: str, port: int) -> list[Manifest]:
    """Its objects; empty where the platform has none."""
    wanted = platform.entry
    if wanted is None:
        return []
    return (
        [_ingress(wanted, platform, service, port)]
        if wanted.kind == "ingress"
        else _gateway(wanted, platform, service, port)
    )


def _ingress(wanted: Entry, platform: PlatformBody, service: str, port: int) -> Manifest:
    backend = {"service": {"name": service, "port": {"number": port}}}
    spec = {"ingressClassName": wanted.class_name} if wanted.class_name is not None else {}
    annotations = (_NGINX if wanted.class_name == "nginx" else {}) | wanted.annotations
    return manifest(
        "networking.k8s.io/v1",
        "Ingress",
        NAME,
        namespace=platform.namespace,
        annotations=annotations,
        spec={
            **spec,
            "tls": [{"hosts": [wanted.host], "secretName": wanted.tls_secret}],
            "rules": [
                {
                    "host": wanted.host,
                    "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend} for path in _PATHS]},
                }
            ],
        },
    )


def _gateway(wanted: Entry, platform: PlatformBody, service: str, port: int) -> list[Manifest]:
    items = []
    if wanted.gateway is None:
        listener = {
            "name": "https",
            "hostname": wanted.host,
            "port": 443,
            "protocol": "HTTPS",
            "tls": {"mode": "Terminate", "certificateRefs": [{"kind": "Secret", "name": wanted.tls_secret}]},
            "allowedRoutes": {"namespaces": {"from": "Same"}},
        }
        spec = {"gatewayClassName": wanted.class_name, "listeners": [listener]}
        items.append(
            manifest(
                "gateway.networking.k8s.io/v1",
                "Gateway",
                NAME,
                namespace=platform.namespace,
                annotations=wanted.annotations,
                spec=spec,
            )
        )
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": path}} for path in _PATHS],
        "backendRefs": [{"name": service, "port": port}],
        "timeouts": {"request": "0s"},
    }
    items.append(
        manifest(
            "gateway.networking.k8s.io/v1",
            "HTTPRoute",
            NAME,
            namespace=platform.namespace,
            annotations=wanted.annotations,
            spec={
                "parentRefs": [
                    {"name": wanted.gateway or NAME, **({} if wanted.gateway else {"sectionName": "https"})}
                ],
                "hostnames": [wanted.host],
                "rules": [rule],
            },
        )
    )
    return items
