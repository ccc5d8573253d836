"""
Certificates in PEM files, as a Secret is mounted: read whole, taken up again when they change, and what is wrong with them in words.

Changes are found by content, not by event: a Secret's files are swapped by a symbolic link. Serves all that speak TLS: servers through
`ServerCertificate`, gRPC (whose API wants bytes, and which reports a refused certificate as a connection that broke) through `read` and `complaint`.
"""

import asyncio
import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

log = structlog.get_logger(__name__)


class CertificateError(Exception):
    """The files hold no certificate with its key; the message names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFiles:
    """PEM files."""

    certificate: Path | None = None
    """Our own, with its chain; None for a client whose server wants none."""
    key: Path | None = None
    ca: Path | None = None
    """Who signs the other side's certificate; None: a client trusts the system's authorities, a server's clients show none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What the files hold."""

    certificate: bytes | None
    key: bytes | None
    ca: bytes | None

    @property
    def expires_at(self) -> datetime.datetime | None:
        """When our own ends, in UTC."""
        return None if self.certificate is None else _parsed(self.certificate)[0].not_valid_after_utc


def read(files: CertificateFiles) -> Certificate:
    """Read the files. Raises CertificateError, also when they do not fit together, as half-way through a rotation."""
    if (files.certificate is None) != (files.key is None):
        raise CertificateError("a certificate and its key belong together: name both files, or neither")
    found = Certificate(certificate=_bytes(files.certificate), key=_bytes(files.key), ca=_bytes(files.ca))
    for path, pem in ((files.certificate, found.certificate), (files.ca, found.ca)):
        if pem is not None:
            try:
                _parsed(pem)
            except ValueError as error:
                raise CertificateError(f"{path}: no PEM certificate: {error}") from None
    if found.certificate is not None and found.key is not None:
        try:
            public_key = load_pem_private_key(found.key, password=None).public_key()
        except (ValueError, TypeError) as error:
            raise CertificateError(f"{files.key}: no PEM private key without a password: {error}") from None
        if public_key != _parsed(found.certificate)[0].public_key():
            raise CertificateError(f"{files.key} is not the key of {files.certificate}")
    return found


def complaint(files: CertificateFiles, found: Certificate, now: datetime.datetime) -> str:
    """What is wrong with the certificates at `now` (UTC), as this machine's clock has it; "" when nothing is."""
    for path, pem in ((files.certificate, found.certificate), (files.ca, found.ca)):
        for certificate in _parsed(pem) if pem is not None else ():
            if now > certificate.not_valid_after_utc:
                return f"{path} expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: renew it, it is read again"
            if now < certificate.not_valid_before_utc:
                return (
                    f"{path} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC, and here it is "
                    f"{now:%Y-%m-%d %H:%M} UTC: is this machine's clock right?"
                )
    return ""


class ServerCertificate:
    """
    A server's certificate, and who may connect when `files.ca` is named: clients with a certificate of that authority, and nobody else.

    `context` stays the same for the life of the server; each new connection gets the newest files, open ones keep theirs.
    """

    def __init__(self, files: CertificateFiles) -> None:
        """Load them. Raises CertificateError."""
        self._files = files
        self._loaded = read(files)
        self._newest = self.context = self._make()
        # A context cannot forget an authority, so a connection is handed over to the newest one as it begins.
        self.context.sni_callback = self._hand_over

    def refresh(self) -> bool:
        """
        Take up changed files. Returns whether they were taken up.

        Raises: CertificateError when they do not fit together; what was loaded stays in use.
        """
        found = read(self._files)
        if found == self._loaded:
            return False
        self._newest, self._loaded = self._make(), found
        return True

    async def watch(self, every_s: float) -> None:
        """Refresh for ever; says when clients whose clocks go like this one's would refuse the certificate."""
        said = ""
        while True:
            wrong = complaint(self._files, self._loaded, datetime.datetime.now(datetime.UTC))
            if wrong and wrong != said:
                log.warning("certificate_not_valid_now", problem=wrong)
            said = wrong
            await asyncio.sleep(every_s)
            try:
                if await asyncio.to_thread(self.refresh):
                    log.info("certificate_taken_up", file=str(self._files.certificate))
            except CertificateError as error:
                log.warning("certificate_not_taken_up", error=str(error))

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            if self._files.certificate is None:
                raise CertificateError("a server needs a certificate and its key")
            context.load_cert_chain(self._files.certificate, self._files.key)
            if self._files.ca is not None:
                context.load_verify_locations(self._files.ca)
                context.verify_mode = ssl.CERT_REQUIRED
                context.num_tickets = 0  # a session resumed would not be verified again
        except (ssl.SSLError, OSError) as error:
            raise CertificateError(f"{self._files.certificate} and {self._files.key}: {error}") from error
        return context

    def _hand_over(self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._newest


def _parsed(pem: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem)


def _bytes(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{path}: {error.strerror}") from None
