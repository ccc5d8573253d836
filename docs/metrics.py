"""Writes docs/metrics.md from the metrics themselves. `python docs/metrics.py`, or `make metrics`; a test holds the page to it."""

from pathlib import Path

from fleets.observability.catalog import MODULES, PROCESS, metrics_of

PAGE = Path(__file__).parent / "metrics.md"
_HEAD = f"""# Metrics

Made from the code (`make metrics`). Every process serves them at `/metrics` in Prometheus' text format, or as OpenMetrics with exemplars (the trace of one
observation) to whoever asks for that; what is not used in a process is 0 there or absent. `warmfleet up` lists all its processes at `/metrics/targets`, for
`http_sd_configs`. No label is an id: sessions, players, tickets and servers are in logs and traces.

Every process also tells its own: `{"`, `".join(PROCESS)}` and the rest of prometheus-client's process metrics.
"""


def page() -> str:
    """The whole page."""
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
    PAGE.write_text(page(), encoding="utf-8")
