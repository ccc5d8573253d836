"""Alerts, recording rules and dashboards as objects of the cluster, where the Platform asks for them."""

from fleets.observability.dashboards import DASHBOARDS, to_json
from fleets.observability.files import dashboard_text
from fleets.observability.rules import rule_groups
from fleets.render.manifest import Manifest, manifest
from fleets.spec.platform import PlatformBody

_LABEL = {"grafana_dashboard": "1"}
"""What the sidecar of Grafana's Helm chart looks for."""
_FOLDER = {"grafana_folder": "Warmfleet"}


def observability(platform: PlatformBody) -> list[Manifest]:
    """A PrometheusRule for Prometheus' operator, a ConfigMap for each dashboard; empty where neither is wanted."""
    items: list[Manifest] = []
    if platform.prometheus_operator:
        items.append(
            manifest(
                "monitoring.coreos.com/v1",
                "PrometheusRule",
                "warmfleet",
                namespace=platform.namespace,
                spec=rule_groups(),
            )
        )
    if platform.dashboards:
        items += [
            manifest(
                "v1",
                "ConfigMap",
                f"{dashboard.uid}-dashboard",
                namespace=platform.namespace,
                labels=_LABEL,
                annotations=_FOLDER,
                data={f"{dashboard.uid}.json": dashboard_text(to_json(dashboard))},
            )
            for dashboard in DASHBOARDS
        ]
    return items
