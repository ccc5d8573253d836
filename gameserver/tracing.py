"""
Traces of a player's way, from its ticket to its first snapshot; off unless OTEL_TRACES_EXPORTER says `otlp` or `console`.

The facade that all packages use. Off, a span costs a function call and the SDK is not imported; on, `gameserver.spans` does the work with
the extra `tracing`. Contexts travel as W3C `traceparent` texts: in HTTP headers, on tickets and matches, in a session's options, in gRPC metadata.
All other settings are OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER …).
"""

from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol

OPTION = "traceparent"
"""Of a session: the trace of the match that it was made for."""
PLAYERS_OPTION = "traceparents"
"""Of a session: JSON, player to the trace of its ticket."""
EXPORTERS = ("otlp", "console")

Value = str | int | float | bool


class TracingError(Exception):
    """Traces are wanted and cannot be had; the message says why and the mend."""


class TracingMissing(TracingError):
    """The extra is not installed."""


class Span(Protocol):
    """A piece of work under way."""

    def set(self, **attributes: Value) -> None:
        """Add to what is told of it."""


class Tracer(Protocol):
    """What `gameserver.spans` implements."""

    def span(
        self, name: str, *, parent: str, links: Sequence[str], attributes: Mapping[str, Value]
    ) -> AbstractContextManager[Span]:
        """See `span`."""

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
        """See `record`."""

    def current(self) -> str:
        """See `current`."""

    def shutdown(self) -> None:
        """See `shutdown`."""


class _Off:
    """The span of a process that traces nothing."""

    def __enter__(self) -> "_Off":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def set(self, **attributes: Value) -> None:
        """Nothing."""


_OFF = _Off()
_tracer: Tracer | None = None


def configure(service: str, env: Mapping[str, str]) -> None:
    """
    Trace from here on, if the environment says so; call once, at the start of a program (after a fork).

    Raises: TracingError for an unknown exporter, TracingMissing where the extra `tracing` is not installed.
    """
    global _tracer
    exporter = env.get("OTEL_TRACES_EXPORTER", "none") or "none"
    if exporter == "none":
        return
    if exporter not in EXPORTERS:
        raise TracingError(f"OTEL_TRACES_EXPORTER={exporter}: none or {' or '.join(EXPORTERS)} is wanted")
    try:
        from gameserver.spans import make_tracer
    except ImportError as error:
        raise TracingMissing(
            f"OTEL_TRACES_EXPORTER={exporter} wants the extra tracing: pip install 'warmfleet[tracing]' ({error})"
        ) from None
    _tracer = make_tracer(service, exporter)


def enabled() -> bool:
    """Whether this process traces."""
    return _tracer is not None


def span(
    name: str, *, parent: str = "", links: Sequence[str] = (), **attributes: Value
) -> AbstractContextManager[Span]:
    """
    Do a piece of work as a span.

    Args:
        parent: the traceparent that it belongs under; '' for the current span, or else a new trace.
        links: traceparents of others that it serves too.
    """
    if _tracer is None:
        return _OFF
    return _tracer.span(name, parent=parent, links=links, attributes=attributes)


def record(
    name: str, *, parent: str, start_s: float, end_s: float, links: Sequence[str] = (), **attributes: Value
) -> None:
    """Tell of a piece of work that is over, from and to Unix seconds; without a `parent` nothing."""
    if _tracer is not None and parent:
        _tracer.record(name, parent=parent, links=links, start_s=start_s, end_s=end_s, attributes=attributes)


def current() -> str:
    """The traceparent of the span under way; '' when there is none."""
    return "" if _tracer is None else _tracer.current()


def headers() -> dict[str, str]:
    """What a request carries on: HTTP headers, or gRPC metadata."""
    parent = current()
    return {OPTION: parent} if parent else {}


def exemplar(parent: str = "") -> dict[str, str] | None:
    """What a metric's observation points to: the trace of `parent` or of the span under way; None when there is none."""
    text = (parent or current()) if _tracer is not None else ""
    return {"trace_id": text.split("-")[1]} if text.count("-") == 3 else None


def add_trace(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: log lines say to which trace they belong."""
    if _tracer is not None and (parent := _tracer.current()):
        _, event["trace_id"], event["span_id"], _ = parent.split("-")
    return event


def shutdown() -> None:
    """Send what is left; call last."""
    global _tracer
    if _tracer is not None:
        _tracer.shutdown()
        _tracer = None
