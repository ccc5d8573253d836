"""What a Prometheus and a Grafana beside `warmfleet up` want, as files: name to content, the same for the same address."""

import json
from typing import Any

import yaml

from fleets.observability.dashboards import DASHBOARDS, to_json
from fleets.observability.rules import rule_groups

_SCRAPE_S = 5
_GRAFANA_FOLDER = "/etc/warmfleet/dashboards"


def files(url: str) -> dict[str, str]:
    """
    Everything, by its path in a folder.

    Args: url: of `warmfleet up`, as Prometheus reaches it.
    """
    made = {
        "prometheus.yml": _yaml(prometheus(url)),
        "rules.yml": _yaml(rule_groups()),
        "grafana/provisioning/datasources/warmfleet.yaml": _yaml(_DATASOURCE),
        "grafana/provisioning/dashboards/warmfleet.yaml": _yaml(_PROVIDER),
    }
    return made | {f"dashboards/{dashboard.uid}.json": dashboard_text(to_json(dashboard)) for dashboard in DASHBOARDS}


def prometheus(url: str) -> dict[str, Any]:
    """A configuration that scrapes all processes of a `warmfleet up`, as it lists them."""
    return {
        "global": {"scrape_interval": f"{_SCRAPE_S}s", "evaluation_interval": f"{_SCRAPE_S}s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            {
                "job_name": "warmfleet",
                "http_sd_configs": [{"url": f"{url.rstrip('/')}/metrics/targets", "refresh_interval": f"{_SCRAPE_S}s"}],
            }
        ],
    }


def dashboard_text(dashboard: dict[str, Any]) -> str:
    """JSON as it is kept in files and ConfigMaps."""
    return json.dumps(dashboard, indent=1, ensure_ascii=False) + "\n"


_DATASOURCE = {
    "apiVersion": 1,
    "datasources": [
        {
            "name": "Prometheus",
            "type": "prometheus",
            "url": "http://localhost:9090",
            "isDefault": True,
            "access": "proxy",
        }
    ],
}
_PROVIDER = {
    "apiVersion": 1,
    "providers": [{"name": "warmfleet", "folder": "Warmfleet", "type": "file", "options": {"path": _GRAFANA_FOLDER}}],
}


def _yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1 << 30)
    return text
