"""A Prometheus as far as its query API goes: GET and POST /api/v1/query, answers and errors in its own form, series chosen by their labels."""

import http.server
import json
import re
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from prometheus_client import REGISTRY

import gameserver.metrics

assert gameserver.metrics  # its metrics are in the registry


@dataclass
class Pod:
    """What a game server's pod has measured lately."""

    lateness_p99_s: float
    ended: dict[str, int] = field(default_factory=dict)
    """Rooms by how they ended."""


class BadQuery(Exception):
    """Not a query that it understands, or of metrics that nobody serves."""


class PrometheusFake:
    """Serves what `pods` say, by name; `fail` is answered instead, as (status, body)."""

    def __init__(self, pods: dict[str, Pod] | None = None) -> None:
        self.pods = pods or {}
        self.fail: tuple[int, str] | None = None
        self.asked: list[str] = []
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                url = urllib.parse.urlsplit(self.path)
                self.answer(url.path, url.query)

            def do_POST(self) -> None:
                self.answer(self.path, self.rfile.read(int(self.headers["Content-Length"])).decode())

            def answer(self, path: str, query: str) -> None:
                status, body, kind = fake.reply(path, urllib.parse.parse_qs(query))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reply(self, path: str, query: dict[str, list[str]]) -> tuple[int, bytes, str]:
        if self.fail is not None:
            return self.fail[0], self.fail[1].encode(), "text/html"
        if path != "/api/v1/query":
            return 404, b"404 page not found", "text/plain; charset=utf-8"
        try:
            value = self._value(query.get("query", [""])[0])
        except BadQuery as error:
            body = {"status": "error", "errorType": "bad_data", "error": str(error)}
            return 400, json.dumps(body).encode(), "application/json"
        series = [] if value is None else [{"metric": {}, "value": [time.time(), value]}]
        body = {"status": "success", "data": {"resultType": "vector", "result": series}}
        return 200, json.dumps(body).encode(), "application/json"

    def _value(self, query: str) -> str | None:
        """One number as Prometheus writes it; None: no such series."""
        self.asked.append(query)
        selectors = re.findall(r"(\w+)\{([^}]*)\}\[\d+[smh]\]", query)
        if not selectors:
            raise BadQuery(f'invalid parameter "query": {query!r}')
        served = {sample.name for family in REGISTRY.collect() for sample in family.samples}
        if missing := {name for name, _ in selectors} - served - {"warmfleet_rooms_ended_total"}:
            raise BadQuery(f"nobody serves {missing}")
        pods = self._matching(selectors[0][1])
        if not pods:
            return None
        if query.startswith("histogram_quantile(0.99"):
            return str(max(pod.lateness_p99_s for pod in pods))
        parts = [self._rooms(matchers) for _, matchers in selectors]
        return "NaN" if parts[1] == 0 else str(parts[0] / parts[1])

    def _matching(self, matchers: str) -> list[Pod]:
        pattern = re.search(r'pod=~"([^"]*)"', matchers)
        if pattern is None:
            raise BadQuery("no matcher of pods")
        return [pod for name, pod in self.pods.items() if re.fullmatch(pattern[1], name)]

    def _rooms(self, matchers: str) -> int:
        how = re.search(r'outcome(=|!=)"([^"]*)"', matchers)
        assert how is not None
        counted = [pod.ended for pod in self._matching(matchers)]
        return sum(n for ended in counted for outcome, n in ended.items() if (outcome == how[2]) is (how[1] == "="))
