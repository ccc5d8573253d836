"""Log set-up for all four packages: readable lines on a terminal, JSON everywhere else."""

import logging
import sys

import structlog

from gameserver import tracing


def configure_logging(*, json: bool, level: int = logging.INFO) -> None:
    """Make structlog write to standard error, one event a line; call once, at the start of a program."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            tracing.add_trace,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
