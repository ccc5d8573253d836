"""Spans by OpenTelemetry's SDK: the only module that imports it, and only where traces are wanted (`gameserver.tracing`)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gameserver.tracing import Span, Value

_NS = 1_000_000_000
_DELAY_MS = 500
"""How long finished spans wait to be sent together."""
_PROPAGATOR = TraceContextTextMapPropagator()


def make_tracer(service: str, exporter: str) -> "OtelTracer":
    """A tracer that sends to `exporter`, otlp (over HTTP) or console. Raises ImportError where it is not installed."""
    found: SpanExporter
    if exporter == "console":
        found = ConsoleSpanExporter()
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        found = OTLPSpanExporter()
    provider = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(found, schedule_delay_millis=_DELAY_MS))
    return OtelTracer(provider)


class OtelTracer:
    """Implements `tracing.Tracer`."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("warmfleet")

    @contextmanager
    def span(self, name: str, *, parent: str, links: Sequence[str], attributes: Mapping[str, Value]) -> Iterator[Span]:
        """Work as a span, current for what is done in it; an exception is noted."""
        context = _PROPAGATOR.extract({"traceparent": parent}) if parent else None
        with self._tracer.start_as_current_span(
            name, context=context, links=_links(links), attributes=dict(attributes)
        ) as made:
            yield _Made(made)

    def record(
        self,
        name: str,
        *,
        parent: str,
        links: Sequence[str],
        start_s: float,
        end_s: float,
        attributes: Mapping[str, Value],
    ) -> None:
        """A span that is over."""
        made = self._tracer.start_span(
            name,
            context=_PROPAGATOR.extract({"traceparent": parent}),
            links=_links(links),
            attributes=dict(attributes),
            start_time=round(start_s * _NS),
        )
        made.end(round(max(start_s, end_s) * _NS))

    def current(self) -> str:
        """As W3C's traceparent."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        return carrier.get("traceparent", "")

    def shutdown(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


class _Made:
    def __init__(self, made: trace.Span) -> None:
        self._made = made

    def set(self, **attributes: Value) -> None:
        self._made.set_attributes(attributes)


def _links(parents: Sequence[str]) -> list[trace.Link]:
    contexts = (trace.get_current_span(_PROPAGATOR.extract({"traceparent": p})).get_span_context() for p in parents)
    return [trace.Link(context) for context in contexts if context.is_valid]
