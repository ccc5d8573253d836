"""
The webhook's TLS certificate, taken up again when its files change (cert-manager and the kubelet rotate them in place).

Owns one `ssl.SSLContext` for the life of the server; new connections get the newest certificate, open ones keep theirs.
"""

import asyncio
import ssl
from pathlib import Path

import structlog

_log = structlog.get_logger(__name__)


class CertificateError(Exception):
    """The files hold no certificate with its key; the message names them."""


class Certificate:
    """A certificate and its key, in two PEM files."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Load them. Raises CertificateError."""
        self._files = (certificate, key)
        self.context = _context()
        self._loaded = self._read()
        self._load()

    def refresh(self) -> bool:
        """
        Take up changed files. Returns whether they were taken up.

        Raises: CertificateError when they do not fit together, as half-way through a rotation; what was loaded stays in use.
        """
        now = self._read()
        if now == self._loaded:
            return False
        self._load()
        self._loaded = now
        return True

    async def watch(self, every_s: float) -> None:
        """Refresh for ever. By content, not by event: a Secret's files are swapped by a symbolic link."""
        while True:
            await asyncio.sleep(every_s)
            try:
                if await asyncio.to_thread(self.refresh):
                    _log.info("certificate taken up", file=str(self._files[0]))
            except CertificateError as error:
                _log.warning("certificate not taken up", error=str(error))

    def _read(self) -> tuple[bytes, ...]:
        try:
            return tuple(path.read_bytes() for path in self._files)
        except OSError as error:
            raise CertificateError(f"{error.filename}: {error.strerror}") from error

    def _load(self) -> None:
        # Tried on a context of its own first: one that fails half-way has lost its old key already.
        for context in (_context(), self.context):
            try:
                context.load_cert_chain(*self._files)
            except (ssl.SSLError, OSError) as error:
                raise CertificateError(f"{self._files[0]} and {self._files[1]}: {error}") from error


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
