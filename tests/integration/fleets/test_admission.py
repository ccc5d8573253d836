"""The webhook over real TLS, through a rotation of its certificate."""

import asyncio
import contextlib
import datetime
import socket
import ssl
import sys
from pathlib import Path

import pytest
import structlog
import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner

from fleets.cli.admission import admission
from gameserver.certificates import CertificateError, CertificateFiles, ServerCertificate


def write_pair(folder: Path, serial: int, *, begins_in_h: float = -1.0) -> None:
    """A self-signed certificate with its key, valid for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    start = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=begins_in_h)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


async def serial_at(port: int) -> int:
    """Of the certificate that a new connection is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()
    return x509.load_der_x509_certificate(shown).serial_number


async def eventually(port: int, serial: int) -> None:
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                if await serial_at(port) == serial:
                    return
            await asyncio.sleep(0.02)


async def test_a_rotated_certificate_is_served_without_a_restart(tmp_path: Path) -> None:
    """The next connection gets the new one; SIGTERM ends the server with code 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    write_pair(tmp_path, 1)
    options = ["--certificate", tmp_path / "tls.crt", "--key", tmp_path / "tls.key", "--certificate-check", "0.02"]
    program = "import typer; from fleets.cli.admission import admission; typer.run(admission)"
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, "--host", "127.0.0.1", "--port", str(port), *options
    )
    try:
        await eventually(port, 1)
        write_pair(tmp_path, 2)
        await eventually(port, 2)
        server.terminate()
        async with asyncio.timeout(20):
            assert await server.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.kill()
        await server.wait()


@pytest.mark.parametrize("wrong", [["--game-ports", "7000"], ["--offsets", "1,2,3"], ["--rate-limit", "fast"]])
def test_wrong_options_are_misuse(tmp_path: Path, wrong: list[str]) -> None:
    """Said before anything is opened, with exit code 2."""
    app = typer.Typer()
    app.command()(admission)
    result = CliRunner().invoke(app, ["--certificate", str(tmp_path / "c"), "--key", str(tmp_path / "k"), *wrong])
    assert result.exit_code == 2
    assert "warmfleet:" in result.stderr


def test_half_a_rotation_leaves_the_old_pair_in_use(tmp_path: Path) -> None:
    """A new certificate with the old key is said and not taken; once the key is there too, both are."""
    write_pair(tmp_path, 1)
    pair = ServerCertificate(CertificateFiles(certificate=tmp_path / "tls.crt", key=tmp_path / "tls.key"))
    assert pair.refresh() is False
    old_key = (tmp_path / "tls.key").read_bytes()
    write_pair(tmp_path, 2)
    new_key = (tmp_path / "tls.key").read_bytes()
    (tmp_path / "tls.key").write_bytes(old_key)
    with pytest.raises(CertificateError, match=r"tls\.crt"):
        pair.refresh()
    (tmp_path / "tls.key").write_bytes(new_key)
    assert pair.refresh() is True


@pytest.mark.parametrize(
    ("begins_in_h", "says"), [(2.0, "is this machine's clock right?"), (-30.0, "expired at")], ids=["behind", "ahead"]
)
async def test_a_clock_that_is_off_is_said_and_nobody_is_turned_away(
    tmp_path: Path, begins_in_h: float, says: str
) -> None:
    """Whether a certificate is valid is for the API server's clock to say: ours may be the wrong one. Once it is right, nothing is said."""
    write_pair(tmp_path, 1, begins_in_h=begins_in_h)
    pair = ServerCertificate(CertificateFiles(certificate=tmp_path / "tls.crt", key=tmp_path / "tls.key"))
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=pair.context)
    with structlog.testing.capture_logs() as logs:
        watching = asyncio.create_task(pair.watch(0.01))
        assert await serial_at(server.sockets[0].getsockname()[1]) == 1
        write_pair(tmp_path, 2)
        async with asyncio.timeout(20):
            while not any(entry["event"] == "certificate_taken_up" for entry in logs):
                await asyncio.sleep(0.01)
        watching.cancel()
        await asyncio.wait([watching])
    server.close()
    await server.wait_closed()
    said = [entry["problem"] for entry in logs if entry["event"] == "certificate_not_valid_now"]
    assert len(said) == 1
    assert says in said[0]


def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    """At start."""
    with pytest.raises(CertificateError, match=r"tls\.crt"):
        ServerCertificate(CertificateFiles(certificate=tmp_path / "tls.crt", key=tmp_path / "tls.key"))
