"""Writes docs/metrics.md and docs/alerts.md from the code. `python docs/metrics.py`, or `make metrics`; a test holds the pages to it."""

import re
from pathlib import Path

from fleets.observability.catalog import MODULES, PROCESS, metrics_of
from fleets.observability.rules import alerts

_FOLDER = Path(__file__).parent
_HEAD = f"""# Metrics

Made from the code (`make metrics`). Every process serves them at `/metrics` in Prometheus' text format, or as OpenMetrics with exemplars (the trace of one
observation) to whoever asks for that; what is not used in a process is 0 there or absent. `warmfleet up` lists all its processes at `/metrics/targets`, for
`http_sd_configs`. No label is an id: sessions, players, tickets and servers are in logs and traces.

Every process also tells its own: `{"`, `".join(PROCESS)}` and the rest of prometheus-client's process metrics.
"""


_ALERTS = """# Alerts

Made from the code (`make metrics`): what an operator is woken for (`page`: players suffer now, or will within minutes) or told of (`ticket`: look in the
daytime). `warmfleet observe FOLDER` writes the rules for a Prometheus of your own; with `prometheusOperator: true` in the Platform, `warmfleet render` makes a
PrometheusRule of them.
"""


def pages() -> dict[Path, str]:
    """Each page and what it should be."""
    return {_FOLDER / "metrics.md": _metrics(), _FOLDER / "alerts.md": _alerts()}


def _alerts() -> str:
    parts = [_ALERTS]
    for alert in alerts():
        summary = alert.summary.replace("{{ $labels.", "<").replace("{{ $value", "<value").replace(" }}", ">")
        lasting = "at once" if alert.lasting == "0m" else f"after {alert.lasting}"
        parts.append(f"## {alert.name}\n\n`{alert.severity}`, {lasting}. {re.sub(r' [|] [a-zA-Z]+', '', summary)}\n")
        parts.append(f"Do: {alert.action}\n\n```\n{alert.query}\n```\n")
    return "\n".join(parts)


def _metrics() -> str:
    parts = [_HEAD]
    for module, title in MODULES.items():
        parts.append(f"## {title}\n\n| metric | kind | labels | what it tells |\n|---|---|---|---|")
        for metric in metrics_of(module):
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            told = metric.told.replace("|", "\\|")
            parts.append(f"| `{metric.name}` | {metric.kind} | {labels} | {told} |")
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
