"""OpenTelemetry's own variables, for every container of ours that makes spans."""

from fleets.spec.platform import PlatformBody


def variables(platform: PlatformBody) -> dict[str, str]:
    """Name to value; empty where nobody traces."""
    wanted = platform.tracing
    if wanted is None:
        return {}
    return {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": wanted.endpoint,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": f"{wanted.ratio:g}",
    }
