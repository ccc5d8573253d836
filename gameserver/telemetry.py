"""Log set-up for all four packages: readable lines on a terminal, JSON everywhere else."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from gameserver import tracing

REDACTED = "[redacted]"
_SECRET_NAMES = re.compile(
    r"(^|_)(tokens?|secrets?|passwords?|passphrase|authorization|cookie|credentials?|(private|signing|api|netcode)_keys?)$",
    re.IGNORECASE,
)
_SECRETS = re.compile(
    r"(?P<login>://)[^/@\s]+(?=@)"  # user and password of a URL
    r"|(?P<bearer>\bBearer\s+)[\w.~+/=-]+"
    r"|\beyJ[\w-]{5,}\.[\w-]+\.[\w-]*"  # a JWT
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)",
    re.DOTALL,
)


def redact(logger: Any, method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    """Take secrets out of a log event, by the names of its fields and by what is in them (also in tracebacks); the last processor but one."""
    return {key: REDACTED if _SECRET_NAMES.search(key) else _clean(value) for key, value in event.items()}


def redact_text(text: str) -> str:
    """Take what looks like a secret out of a text that is shown: logins of URLs, bearer tokens, JWTs, private keys."""
    return _SECRETS.sub(lambda found: f"{found['login'] or found['bearer'] or ''}{REDACTED}", text)


def _clean(value: Any) -> Any:
    match value:
        case str():
            return redact_text(value)
        case dict():
            return redact(None, "", value)
        case list() | tuple():
            return [_clean(one) for one in value]
        case _:
            return value


def configure_logging(*, json: bool, level: int = logging.INFO) -> None:
    """Make structlog write to standard error, one event a line; call once, at the start of a program."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            tracing.add_trace,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
