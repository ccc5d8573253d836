"""How late ticks are and how matches end, from Prometheus: what a rollout asks beyond its servers' states."""

import math

import httpx

from fleets.rollout.model import Health

_TIMEOUT_S = 5.0
_WINDOW = "5m"
JITTER = "histogram_quantile(0.99, sum by (le) (rate(warmfleet_tick_lateness_seconds_bucket{{{pods}}}[{window}])))"
COMPLETION = (
    'sum(rate(warmfleet_rooms_ended_total{{{pods},outcome="finished"}}[{window}])) / '
    'sum(rate(warmfleet_rooms_ended_total{{{pods},outcome!="moved"}}[{window}]))'
)
"""Of the matches that ended here; those that were moved have not ended."""
_PODS = 'pod=~"{fleet}-[^-]+-[^-]+"'
"""A fleet's GameServers: Agones appends a part for the GameServerSet and one for the server to its name."""


class PrometheusHealth:
    """Implements HealthSource; where Prometheus does not answer, nothing is known, and nothing is aborted for it."""

    def __init__(self, url: str, *, jitter: str = JITTER, completion: str = COMPLETION) -> None:
        """`jitter`, `completion`: queries in which {pods}, a matcher of labels, and {window} are filled in."""
        self._url = url.rstrip("/")
        self._jitter, self._completion = jitter, completion

    def health(self, fleet: str) -> Health:
        """Ask both."""
        pods = _PODS.format(fleet=fleet)
        try:
            jitter, completion = (
                self._ask(query.format(pods=pods, window=_WINDOW)) for query in (self._jitter, self._completion)
            )
        except (httpx.HTTPError, httpx.InvalidURL, LookupError, TypeError, ValueError) as error:
            return Health(unknown=f"{self._url}: {error}")
        return Health(tick_jitter_s=jitter, match_completion=completion)

    def _ask(self, query: str) -> float | None:
        reply = httpx.get(f"{self._url}/api/v1/query", params={"query": query}, timeout=_TIMEOUT_S, trust_env=False)
        if reply.headers.get("content-type", "").startswith("application/json"):
            answer = reply.json()
            if answer["status"] != "success":
                raise ValueError(f"{answer.get('errorType')}: {answer.get('error')}")
        reply.raise_for_status()
        result = reply.json()["data"]["result"]
        value = float(result[0]["value"][1]) if result else math.nan
        return None if math.isnan(value) else value  # NaN: nothing happened in the window
