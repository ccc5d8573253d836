"""The facade of traces: nothing when off, W3C contexts when on."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from gameserver import tracing
from gameserver.__main__ import main

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_off_is_nothing() -> None:
    """No context, no exemplar, no import of OpenTelemetry's SDK by a game server."""
    tracing.configure("x", {})
    with tracing.span("a", parent=PARENT) as span:
        span.set(b=1)
        assert (tracing.current(), tracing.headers(), tracing.exemplar(PARENT)) == ("", {}, None)
    assert tracing.add_trace(None, "info", {"event": "x"}) == {"event": "x"}
    code = "import sys, gameserver.__main__; sys.exit(bool({'gameserver.spans', 'opentelemetry.sdk.trace'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_exporter_is_named() -> None:
    """The error names the variable and what it may be."""
    with pytest.raises(tracing.TracingError, match="OTEL_TRACES_EXPORTER=jaeger: none or otlp or console"):
        tracing.configure("x", {"OTEL_TRACES_EXPORTER": "jaeger"})


def test_a_game_server_without_the_extra_serves_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says that it is not traced; a mistake in the exporter's name ends it."""
    served = []

    async def serve(*_: object) -> None:
        served.append(tracing.enabled())

    monkeypatch.setattr("gameserver.__main__.serve", serve)
    monkeypatch.setattr("gameserver.__main__.configure_logging", lambda **_: None)  # it would stay so for other tests
    monkeypatch.setitem(sys.modules, "gameserver.spans", None)
    env = {"WARMFLEET_GAME": "gameserver.games.arena:Arena", "WARMFLEET_FLEET": "arena", "POD_NAME": "arena-1"}
    env |= {"WARMFLEET_VALKEY_URL": "redis://v", "WARMFLEET_SEAT_KEYS": "A" * 43, "OTEL_TRACES_EXPORTER": "otlp"}
    env |= {"WARMFLEET_TRANSPORTS": "websocket"}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert main() == 0
    assert served == [False]
    assert "warmfleet[tracing]" in capsys.readouterr().out
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "jaeger")
    assert main() == 2
    assert served == [False]


@pytest.fixture
def spans() -> Iterator[list]:  # type: ignore[type-arg]
    pytest.importorskip("opentelemetry.sdk", reason="the extra tracing is not installed")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from gameserver.spans import OtelTracer

    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing._tracer = OtelTracer(provider)
    yield exporter.get_finished_spans  # type: ignore[misc]
    tracing.shutdown()


def test_contexts_travel_as_text(spans) -> None:  # type: ignore[no-untyped-def]
    """A span goes on where a traceparent points; a record is one that is over; nonsense begins a new trace."""
    with tracing.span("outer", parent=PARENT, links=[PARENT], queue="q") as span:
        here = tracing.current()
        span.set(seats=4)
        assert tracing.headers() == {"traceparent": here}
        assert tracing.exemplar() == {"trace_id": here.split("-")[1]}
        assert tracing.add_trace(None, "info", {"event": "x"})["trace_id"] == here.split("-")[1]
    tracing.record("over", parent=here, start_s=10.0, end_s=12.5)
    tracing.record("nobody's", parent="", start_s=1.0, end_s=2.0)
    with tracing.span("nonsense", parent="00-zz-1"):
        pass
    outer, over, nonsense = spans()
    assert format(outer.context.trace_id, "032x") == PARENT.split("-")[1]
    assert format(outer.parent.span_id, "016x") == PARENT.split("-")[2]
    assert dict(outer.attributes) == {"queue": "q", "seats": 4}
    assert len(outer.links) == 1
    assert (over.parent.span_id, over.end_time - over.start_time) == (outer.context.span_id, 2_500_000_000)
    assert nonsense.parent is None
    assert tracing.current() == ""
