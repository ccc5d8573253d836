"""
Who may ask the allocator: services with a token from a file.

The file has one token a line, `name:token` or the token alone; lines with # are comments. Several are good at once, so that one can be exchanged for the next
without a gap; the file is read again when it changes. Comparing takes the same time whatever is wrong. With mutual TLS the connection says who
asks, and no token is wanted.
"""

import hashlib
import hmac
from http import HTTPStatus
from pathlib import Path

import structlog

from allocator.api.problems import Problem

log = structlog.get_logger(__name__)

MIN_TOKEN = 16
"""Characters: shorter ones can be guessed."""


class TokensUnusable(Exception):
    """The file is missing, empty or holds what is no token; the message names it and the mend."""


class ServiceTokens:
    """The tokens of a file."""

    def __init__(self, file: Path) -> None:
        """Read them. Raises TokensUnusable."""
        self._file = file
        self._stamp = _stamp(file)
        self._digests = _read(file)

    def check(self, authorization: str) -> str:
        """The service that an Authorization header names, '' when its token has no name. Raises Problem 401."""
        self._refresh()
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _unauthorized("a service token is wanted: Authorization: Bearer <token>")
        digest, known = hashlib.sha256(token.strip().encode()).digest(), None
        for name, good in self._digests:  # all of them, however early one fits
            if hmac.compare_digest(digest, good):
                known = name
        if known is None:
            raise _unauthorized("the service token is not known")
        return known

    def _refresh(self) -> None:
        try:
            stamp = _stamp(self._file)
            if stamp != self._stamp:
                self._digests, self._stamp = _read(self._file), stamp
                log.info("service_tokens_read", file=str(self._file), tokens=len(self._digests))
        except (TokensUnusable, OSError) as error:
            log.warning("service_tokens_kept", error=str(error))  # half-way through a change: what was read stays good


def _stamp(file: Path) -> tuple[int, int, int]:
    try:
        status = file.stat()
    except OSError as error:
        raise TokensUnusable(f"{file}: {error.strerror}; wanted: one token a line, `name:token`") from error
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(file: Path) -> list[tuple[str, bytes]]:
    found = []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TokensUnusable(f"{file}: {error}") from error
    for number, line in enumerate(lines, 1):
        if not (line := line.strip()) or line.startswith("#"):
            continue
        name, _, token = line.rpartition(":")
        if len(token) < MIN_TOKEN or " " in token:
            raise TokensUnusable(f"{file}:{number}: a token has {MIN_TOKEN} characters or more, and no space")
        found.append((name.strip(), hashlib.sha256(token.encode()).digest()))
    if not found:
        raise TokensUnusable(f"{file}: no token in it; wanted: one a line, `name:token`")
    return found


def _unauthorized(detail: str) -> Problem:
    return Problem(HTTPStatus.UNAUTHORIZED, detail, kind="unauthorized", headers={"WWW-Authenticate": "Bearer"})
