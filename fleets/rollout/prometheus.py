"""How late ticks are and how matches end, from Prometheus: what a rollout asks beyond its servers' states."""

import httpx

from fleets.rollout.model import Health

_TIMEOUT_S = 5.0
_WINDOW = "5m"
JITTER = 'histogram_quantile(0.99, sum by (le) (rate(warmfleet_tick_lateness_seconds_bucket{{pod=~"{fleet}-.*"}}[{window}])))'
COMPLETION = (
    'sum(rate(warmfleet_rooms_ended_total{{pod=~"{fleet}-.*",outcome="finished"}}[{window}])) / '
    'sum(rate(warmfleet_rooms_ended_total{{pod=~"{fleet}-.*"}}[{window}]))'
)


class PrometheusHealth:
    """Implements HealthSource; where Prometheus does not answer, nothing is known, and nothing is aborted for it."""

    def __init__(self, url: str, *, jitter: str = JITTER, completion: str = COMPLETION) -> None:
        """`jitter`, `completion`: queries in which {fleet} and {window} are filled in."""
        self._url = url.rstrip("/")
        self._queries = {"tick_jitter_s": jitter, "match_completion": completion}
        self.unknown = ""
        """Why the last answer is not known; empty when it is."""

    def health(self, fleet: str) -> Health:
        """Ask both."""
        self.unknown = ""
        found = {name: self._ask(query.format(fleet=fleet, window=_WINDOW)) for name, query in self._queries.items()}
        return Health(**found)  # type: ignore[arg-type]

    def _ask(self, query: str) -> float | None:
        try:
            reply = httpx.get(f"{self._url}/api/v1/query", params={"query": query}, timeout=_TIMEOUT_S, trust_env=False)
            reply.raise_for_status()
            result = reply.json()["data"]["result"]
            value = float(result[0]["value"][1]) if result else float("nan")
        except (httpx.HTTPError, LookupError, TypeError, ValueError) as error:
            self.unknown = f"{self._url}: {error}"
            return None
        return value if value == value else None  # NaN: nothing happened in the window
