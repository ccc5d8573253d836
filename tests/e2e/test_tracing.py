"""One trace from a ticket to its first snapshot, over a real system and a receiver of OTLP."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from up import EXAMPLE, Up

Start = Callable[..., Up]
WAY = {
    "player.match": "warmfleet-bots",
    "POST /v1/tickets": "warmfleet-up",
    "ticket.wait": "warmfleet-up",
    "player.seat": "warmfleet-gameserver",
    "player.first_snapshot": "warmfleet-bots",
}
"""Spans of every player's trace, and whose they are."""
PLACING = {
    "match.place": "warmfleet-up",
    "allocate": "warmfleet-up",
    "claim": "warmfleet-up",
    "room.open": "warmfleet-gameserver",
}
"""And of the one of the match's first ticket."""


class Receiver:
    """Takes OTLP over HTTP."""

    def __init__(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        self.spans: list[tuple[str, Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
                for resource in request.resource_spans:
                    names = {a.key: a.value.string_value for a in resource.resource.attributes}
                    for scope in resource.scope_spans:
                        receiver.spans += [(names["service.name"], span) for span in scope.spans]
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def traces(self) -> dict[str, dict[str, str]]:
        """Trace id to its spans' names and services."""
        found: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for service, span in tuple(self.spans):
            found[span.trace_id.hex()][span.name] = service
        return found


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra tracing is not installed")
    made = Receiver()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{made.server.server_address[1]}")
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_one_trace_from_the_ticket_to_the_first_snapshot(start: Start, receiver: Receiver) -> None:
    """Two bots' matches: each player's trace is whole, the first one's has the match too, the other's points there; logs and exemplars carry the ids."""
    up = start(EXAMPLE.read_text().replace('duration_s: "120"', 'duration_s: "3"')).until_ready()
    result = up.cli("bots", "--players", "2", "--duration", "8", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["matches"] >= 2

    def whole() -> list[str]:
        return [trace for trace, spans in receiver.traces().items() if WAY.items() <= spans.items()]

    up.until(lambda: len(whole()) >= 2)
    leading = up.until(lambda: [t for t in whole() if PLACING.items() <= receiver.traces()[t].items()])
    # The other players' waits point to the match's trace.
    links = {link.trace_id.hex() for _, span in receiver.spans if span.name == "ticket.wait" for link in span.links}
    assert links & set(leading)
    metrics = httpx.get(f"{up.url}/metrics", headers={"Accept": "application/openmetrics-text"}, trust_env=False).text
    seen = [
        line
        for line in metrics.splitlines()
        if line.startswith("warmfleet_match_placing_seconds_bucket") and "#" in line
    ]
    assert any(trace in line for line in seen for trace in receiver.traces())
    logs = "".join(path.read_text() for path in (up.folder / ".warmfleet/logs").glob("*.log"))
    opened = [json.loads(line) for line in logs.splitlines() if "room_opened" in line]
    assert opened
    assert all(line["trace_id"] in receiver.traces() for line in opened)


def test_a_players_own_trace_goes_on(start: Start, receiver: Receiver) -> None:
    """A traceparent in the request is the parent of all that follows."""
    up = start().until_ready()
    player, token = up.player("ann")
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    body = {"queue": "duel", "players": [{"id": player, "attributes": {"rating": 1000}}]}
    assert up.post("/v1/tickets", body, token, traceparent=f"00-{trace}-00f067aa0ba902b7-01").status_code == 201
    up.until(lambda: "POST /v1/tickets" in receiver.traces().get(trace, {}))


def test_a_missing_receiver_harms_nobody(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nobody to take the traces, matches are made as ever, and the system stops in time."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra tracing is not installed")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    up = start(EXAMPLE.read_text().replace('duration_s: "120"', 'duration_s: "3"')).until_ready()
    bots = up.cli("bots", "--players", "2", "--duration", "5", "--json")
    assert json.loads(bots.stdout)["matches"] >= 1
    begun_s = time.monotonic()
    assert up.stop() == 0
    assert time.monotonic() - begun_s < 30
