"""netcode servers and clients on a simulated network with a clock of its own."""

import random
from collections.abc import Callable
from heapq import heappop, heappush

from gameserver.protocol.netcode import client as c
from gameserver.protocol.netcode import server as s
from gameserver.protocol.netcode.addresses import Address
from gameserver.protocol.netcode.client import NetcodeClient
from gameserver.protocol.netcode.server import DisconnectReason, NetcodeServer
from gameserver.protocol.netcode.tokens import issue_connect_token

PROTOCOL = 0x1122334455667788
KEY = bytes(range(32))
HERE: Address = ("127.0.0.1", 40000)
V6: Address = ("::1", 40001)
UNIX = 1_700_000_000.0


class Net:
    """Servers and clients, what travels between them, and the time."""

    def __init__(self, *, seed: int = 0, loss: float = 0.0, delay_s: float = 0.001, copies: float = 0.0) -> None:
        self.now_s = 0.0
        self.rng = random.Random(seed)
        self.loss, self.delay_s, self.copies = loss, delay_s, copies
        self.servers: dict[Address, NetcodeServer] = {}
        self.clients: dict[Address, NetcodeClient] = {}
        self.happened: dict[Address, list[object]] = {}
        self.sent: list[tuple[Address, Address, bytes]] = []
        self.on_server: Callable[[NetcodeServer, s.ServerEvent], None] = lambda server, event: None
        self._travelling: list[tuple[float, int, Address, Address, bytes]] = []
        self._count = 0

    def server(
        self, address: Address = HERE, *, max_clients: int = 4, key: bytes = KEY, **more: object
    ) -> NetcodeServer:
        self.servers[address] = NetcodeServer(
            addresses=[address], protocol_id=PROTOCOL, private_key=key, max_clients=max_clients,
            challenge_key=self.rng.randbytes(32), unix_offset_s=UNIX, **more,
        )  # type: ignore[arg-type]  # fmt: skip
        self.happened[address] = []
        return self.servers[address]

    def token(self, *servers: Address, **changes: object) -> bytes:
        arguments = {"protocol_id": PROTOCOL, "private_key": KEY, "now_unix_s": UNIX + self.now_s} | changes
        return issue_connect_token(servers or (HERE,), random_bytes=self.rng.randbytes, **arguments)  # type: ignore[arg-type]

    def client(self, token: bytes | None = None, *, host: str = "192.0.2.1") -> NetcodeClient:
        address = (host, 50000 + len(self.clients))
        self.clients[address] = NetcodeClient(token or self.token(), self.now_s)
        self.happened[address] = []
        return self.clients[address]

    def address(self, client: NetcodeClient) -> Address:
        return next(address for address, known in self.clients.items() if known is client)

    def inject(self, data: bytes, source: Address, to: Address) -> None:
        if to in self.servers:
            self.servers[to].receive(data, source, self.now_s)
        elif to in self.clients:
            self.clients[to].receive(data, source, self.now_s)

    def post(self, source: Address, to: Address, data: bytes) -> None:
        self.sent.append((source, to, data))
        for _ in range(1 + (self.rng.random() < self.copies)):
            if self.rng.random() >= self.loss:
                self._count += 1
                at_s = self.now_s + self.delay_s * (1 + 4 * self.rng.random() * bool(self.loss))
                heappush(self._travelling, (at_s, self._count, source, to, data))

    def step(self, dt_s: float = 0.01) -> None:
        self.now_s += dt_s
        while self._travelling and self._travelling[0][0] <= self.now_s:
            _, _, source, to, data = heappop(self._travelling)
            self.inject(data, source, to)
        for address, end in [*self.servers.items(), *self.clients.items()]:
            while (event := end.next_event()) is not None:
                self.happened[address].append(event)
                if isinstance(end, NetcodeServer):
                    self.on_server(end, event)  # type: ignore[arg-type]
            for to, data in end.data_to_send(self.now_s):
                self.post(address, to, data)

    def run(self, seconds: float) -> "Net":
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.step()
        return self

    def seated(self, number: int, address: Address = HERE) -> s.Client:
        """The client that a server has counted so."""
        connected = (event.client for event in self.happened[address] if isinstance(event, s.Connected))
        return next(client for client in connected if client.number == number)

    def states(self, client: NetcodeClient) -> list[int]:
        happened = self.happened[self.address(client)]
        return [event.state for event in happened if isinstance(event, c.StateChanged)]


def echo(net: Net) -> None:
    """Let servers send back what they get."""

    def answer(server: NetcodeServer, event: s.ServerEvent) -> None:
        if isinstance(event, tuple):
            server.send(*event)

    net.on_server = answer


def payloads(net: Net, address: Address) -> list[bytes]:
    return [event[-1] for event in net.happened[address] if isinstance(event, tuple) and isinstance(event[-1], bytes)]


def disconnects(net: Net, address: Address = HERE) -> list[DisconnectReason]:
    return [event.reason for event in net.happened[address] if isinstance(event, s.Disconnected)]


def assert_no_nonce_twice(net: Net) -> None:
    """No (direction, peer, number) was sealed twice with different content."""
    seen: dict[tuple[object, ...], bytes] = {}
    for source, to, data in net.sent:
        if data[0]:
            who = (to if source in net.servers else source), source in net.servers
            number = data[1 : 1 + (data[0] >> 4)]
            assert seen.setdefault((*who, number), data) == data
