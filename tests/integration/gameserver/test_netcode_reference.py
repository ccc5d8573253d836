"""
Our netcode against the reference implementation, both ways, over real UDP.

Runs where WARMFLEET_NETCODE_REFERENCE names a checkout of github.com/mas-bandwidth/netcode; it is compiled with cc, its own libsodium included.
"""

import json
import os
import platform
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gameserver.protocol.netcode import client as c
from gameserver.protocol.netcode import server as s
from gameserver.protocol.netcode.addresses import format_address
from gameserver.protocol.netcode.client import ClientState, NetcodeClient
from gameserver.protocol.netcode.server import DisconnectReason, NetcodeServer
from gameserver.protocol.netcode.tokens import issue_connect_token

REFERENCE = os.environ.get("WARMFLEET_NETCODE_REFERENCE", "")
pytestmark = pytest.mark.skipif(not REFERENCE, reason="WARMFLEET_NETCODE_REFERENCE names no checkout of netcode")
HERE = Path(__file__).parent
PROTOCOL = 0x1122334455667788
KEY = bytes(range(32))
SIZES = (1, 2, 100, 1100, 1200)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> str:
    program = tmp_path_factory.mktemp("netcode") / "driver"
    sources = [HERE / "test_netcode_reference.c", f"{REFERENCE}/netcode.c", f"{REFERENCE}/sodium/sodium.c"]
    flags = ["-O1", "-w", "-DNETCODE_RELEASE", "-I", REFERENCE, "-I", f"{REFERENCE}/sodium"]
    if platform.machine() == "x86_64":
        flags += ["-maes", "-mpclmul", "-mavx2"]
    subprocess.run(["cc", *flags, "-o", program, *sources, "-lm"], check=True)
    return str(program)


class Other:
    """The reference, in its own process."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self.said = ""

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n".encode())
        self.process.stdin.flush()

    def listen(self) -> str:
        assert self.process.stdout is not None
        self.said += (self.process.stdout.read() or b"").decode()
        return self.said

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def start(driver: str) -> Iterator[Callable[..., Other]]:
    others: list[Other] = []

    def run(*arguments: str) -> Other:
        others.append(Other(driver, *arguments))
        return others[-1]

    yield run
    for other in others:
        try:
            other.end()
        except BrokenPipeError:
            pass  # it had ended with a command unread


class Ours:
    """Our server or client on a real socket, driven by hand."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.socket.setblocking(False)
        self.address = (host, self.socket.getsockname()[1])
        self.end: NetcodeServer | NetcodeClient
        self.happened: list[object] = []

    def serve(self, max_clients: int = 4, key: bytes = KEY) -> NetcodeServer:
        self.end = NetcodeServer(
            addresses=[self.address], protocol_id=PROTOCOL, private_key=key, max_clients=max_clients,
            challenge_key=os.urandom(32), unix_offset_s=time.time() - time.monotonic(),
        )  # fmt: skip
        return self.end

    def connect(self, token: bytes) -> NetcodeClient:
        self.end = NetcodeClient(token, time.monotonic())
        return self.end

    def turn(self) -> None:
        """Read, echo if a server, write."""
        now_s = time.monotonic()
        while True:
            try:
                data, peer = self.socket.recvfrom(2048)
            except BlockingIOError:
                break
            self.end.receive(data, peer[:2], now_s)
        while (event := self.end.next_event()) is not None:
            self.happened.append(event)
            if isinstance(event, tuple) and isinstance(self.end, NetcodeServer):
                self.end.send(*event)
        for peer, data in self.end.data_to_send(now_s):
            self.socket.sendto(data, peer)

    def disconnects(self) -> list[DisconnectReason]:
        return [event.reason for event in self.happened if isinstance(event, s.Disconnected)]

    def until(self, done: Callable[[], object], timeout_s: float = 10.0) -> None:
        give_up_s = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < give_up_s, self.happened
            self.turn()
            time.sleep(0.002)

    def during(self, seconds: float) -> None:
        over_s = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= over_s, seconds + 5)


@pytest.fixture(params=["127.0.0.1", "::1"])
def ours(request: pytest.FixtureRequest) -> Iterator[Ours]:
    ours = Ours(request.param)
    yield ours
    ours.socket.close()


def token(*servers: tuple[str, int], **changes: object) -> bytes:
    arguments = {"protocol_id": PROTOCOL, "private_key": KEY, "now_unix_s": time.time()} | changes
    return issue_connect_token(servers, **arguments)  # type: ignore[arg-type]


def reference_server(
    start: Callable[..., Other], ours: Ours, *, max_clients: int = 4, key: bytes = KEY
) -> tuple[Other, tuple[str, int]]:
    with socket.socket(ours.socket.family, socket.SOCK_DGRAM) as probe:
        probe.bind((ours.address[0], 0))
        address = (ours.address[0], probe.getsockname()[1])
    other = start("server", format_address(address), str(max_clients), key.hex(), f"{PROTOCOL:x}")
    give_up_s = time.monotonic() + 5
    while "ready" not in other.listen():
        assert time.monotonic() < give_up_s
        time.sleep(0.01)
    return other, address


def test_the_reference_makes_our_frozen_vectors(driver: str) -> None:
    """Byte for byte, from the same inputs."""
    made = subprocess.run([driver, "vectors"], check=True, capture_output=True, text=True).stdout
    frozen = json.loads((HERE.parents[1] / "vectors" / "netcode.json").read_text())
    assert dict(line.split() for line in made.splitlines()) == frozen["artifacts"]


def test_their_client_our_server(start: Callable[..., Other], ours: Ours) -> None:
    """Connect, echo payloads of every size, stay alive past the timeout, disconnect."""
    server = ours.serve()
    other = start("client", token(ours.address, client_id=77, timeout_s=1).hex())
    ours.until(lambda: "state 3" in other.listen())
    assert isinstance(ours.happened[0], s.Connected)
    assert ours.happened[0].client_id == 77
    for size in SIZES:
        other.tell(f"send {size}")
    ours.until(lambda: other.listen().count("received") == len(SIZES))
    assert re.findall(r"received (\d+) (\w+)", other.said) == [(str(size), "right") for size in SIZES]
    ours.during(2.5)
    assert server.clients == 1
    other.tell("quit")
    ours.until(lambda: ours.disconnects() == [DisconnectReason.BY_CLIENT])


def test_their_client_falls_silent(start: Callable[..., Other], ours: Ours) -> None:
    """Our server gives it up after the token's timeout."""
    ours.serve()
    other = start("client", token(ours.address, timeout_s=1).hex())
    ours.until(lambda: "state 3" in other.listen())
    other.tell("pause")
    ours.until(lambda: ours.disconnects() == [DisconnectReason.TIMED_OUT])


def test_our_server_lets_their_client_go(start: Callable[..., Other], ours: Ours) -> None:
    """By disconnect packets; and one that we fall silent to times out by itself."""
    server = ours.serve()
    first = start("client", token(ours.address).hex())
    second = start("client", token(ours.address, timeout_s=1).hex())
    ours.until(lambda: "state 3" in first.listen() and "state 3" in second.listen())
    clients = [event.client for event in ours.happened if isinstance(event, s.Connected)]
    for client in clients:
        server.disconnect(client)
    ours.until(lambda: "state 0" in first.listen() and "state 0" in second.listen())
    third = start("client", token(ours.address, timeout_s=1).hex())
    ours.until(lambda: "state 3" in third.listen())
    time.sleep(1.5)
    assert "state -4" in third.listen()


def test_our_server_is_full(start: Callable[..., Other], ours: Ours) -> None:
    """Their client is denied."""
    ours.serve(max_clients=1)
    first = start("client", token(ours.address).hex())
    ours.until(lambda: "state 3" in first.listen())
    second = start("client", token(ours.address).hex())
    ours.until(lambda: "state -1" in second.listen())


def test_our_server_has_another_key(start: Callable[..., Other], ours: Ours) -> None:
    """Their client gets no answer and says so after the token's timeout."""
    server = ours.serve(key=bytes(32))
    other = start("client", token(ours.address, timeout_s=1).hex())
    ours.until(lambda: "state -2" in other.listen())
    assert server.ignored >= 5


def test_our_client_their_server(start: Callable[..., Other], ours: Ours) -> None:
    """Connect, echo payloads of every size, stay alive past the timeout, disconnect."""
    other, address = reference_server(start, ours, max_clients=4)
    client = ours.connect(token(address, client_id=0xABC, timeout_s=1))
    ours.until(lambda: client.state is ClientState.CONNECTED)
    assert client.max_clients == 4
    for size in SIZES:
        client.send(bytes(k % 256 for k in range(size)))
    ours.until(lambda: sum(isinstance(event, c.Received) for event in ours.happened) == len(SIZES))
    echoed = [event.payload for event in ours.happened if isinstance(event, c.Received)]
    assert echoed == [bytes(k % 256 for k in range(size)) for size in SIZES]
    ours.during(2.5)
    assert client.state is ClientState.CONNECTED
    client.disconnect()
    ours.until(lambda: "disconnected 0 2" in other.listen())
    assert "connected 0 0000000000000abc" in other.said


def test_our_client_falls_silent(start: Callable[..., Other], ours: Ours) -> None:
    """Their server gives it up after the token's timeout."""
    other, address = reference_server(start, ours)
    client = ours.connect(token(address, timeout_s=1))
    ours.until(lambda: client.state is ClientState.CONNECTED)
    time.sleep(1.5)
    assert "disconnected 0 1" in other.listen()


def test_their_server_lets_our_client_go(start: Callable[..., Other], ours: Ours) -> None:
    """We see it disconnect; and one that dies times out."""
    other, address = reference_server(start, ours)
    client = ours.connect(token(address, timeout_s=1))
    ours.until(lambda: client.state is ClientState.CONNECTED)
    other.tell("disconnect 0")
    ours.until(lambda: client.state is ClientState.DISCONNECTED)
    client = ours.connect(token(address, timeout_s=1))
    ours.until(lambda: client.state is ClientState.CONNECTED)
    other.process.kill()
    ours.until(lambda: client.state is ClientState.CONNECTION_TIMED_OUT)


def test_their_server_is_full_and_the_next_is_not(start: Callable[..., Other], ours: Ours) -> None:
    """Denied by the first server of the token, our client goes to the second; with no second it says denied."""
    _, full = reference_server(start, ours, max_clients=1)
    _, free = reference_server(start, ours)
    first = ours.connect(token(full))
    ours.until(lambda: first.state is ClientState.CONNECTED)
    other = Ours(ours.address[0])
    try:
        second = other.connect(token(full, free))
        other.until(lambda: second.state is ClientState.CONNECTED and ours.turn() is None)
        assert second.server == free
        third = other.connect(token(full))
        other.until(lambda: third.state is ClientState.CONNECTION_DENIED and ours.turn() is None)
    finally:
        other.socket.close()


def test_their_server_has_another_key(start: Callable[..., Other], ours: Ours) -> None:
    """Our client gets no answer and says so."""
    _, address = reference_server(start, ours, key=bytes(32))
    client = ours.connect(token(address, timeout_s=1))
    ours.until(lambda: client.state is ClientState.CONNECTION_REQUEST_TIMED_OUT)
