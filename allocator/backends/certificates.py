"""
The allocation client's certificate: read from files, taken up again when they change, and what is wrong with it in words.

gRPC reports a refused or expired certificate as a connection that broke (a TLS alert); the files say more.
"""

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from allocator.backends import metrics


class CertificateError(Exception):
    """The files hold no certificate with its key; the message names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFiles:
    """PEM files, as a Secret is mounted."""

    certificate: Path | None = None
    """The client's; None where the allocation service wants none (`--disable-mtls`)."""
    key: Path | None = None
    ca: Path | None = None
    """Who signed the server's certificate; None: the system's authorities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What the files hold."""

    certificate: bytes | None
    key: bytes | None
    ca: bytes | None


def read(files: CertificateFiles) -> Certificate:
    """Read the files. Raises CertificateError."""
    if (files.certificate is None) != (files.key is None):
        raise CertificateError("a client certificate and its key belong together: name both files, or neither")
    found = Certificate(certificate=_bytes(files.certificate), key=_bytes(files.key), ca=_bytes(files.ca))
    for path, pem in ((files.certificate, found.certificate), (files.ca, found.ca)):
        if pem is not None:
            try:
                x509.load_pem_x509_certificates(pem)
            except ValueError as error:
                raise CertificateError(f"{path}: no PEM certificate: {error}") from None
    if found.certificate is not None:
        expiry = x509.load_pem_x509_certificates(found.certificate)[0].not_valid_after_utc
        metrics.CERTIFICATE_EXPIRY.set(expiry.timestamp())
    return found


def complaint(files: CertificateFiles, found: Certificate, now: datetime.datetime) -> str:
    """What is wrong with the certificates at `now` (UTC), as this machine's clock has it; "" when nothing is."""
    for path, pem in ((files.certificate, found.certificate), (files.ca, found.ca)):
        for certificate in x509.load_pem_x509_certificates(pem) if pem is not None else ():
            if now > certificate.not_valid_after_utc:
                return f"{path} expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: renew it, it is read again"
            if now < certificate.not_valid_before_utc:
                return (
                    f"{path} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC, and here it is "
                    f"{now:%Y-%m-%d %H:%M} UTC: is this machine's clock right?"
                )
    return ""


def _bytes(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{path}: {error.strerror}") from None
