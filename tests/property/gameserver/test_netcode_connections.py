"""netcode's connections on a simulated network with a clock of its own: handshakes, their failures, floods, loss, and any bytes at all."""

import random
from collections.abc import Callable
from heapq import heappop, heappush

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gameserver.protocol.netcode import client as c
from gameserver.protocol.netcode import packets as p
from gameserver.protocol.netcode import server as s
from gameserver.protocol.netcode.addresses import Address
from gameserver.protocol.netcode.client import ClientState, NetcodeClient
from gameserver.protocol.netcode.crypto import make_cipher
from gameserver.protocol.netcode.limits import HandshakeLimits
from gameserver.protocol.netcode.server import DisconnectReason, NetcodeServer
from gameserver.protocol.netcode.tokens import issue_connect_token, read_connect_token

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


def test_a_client_connects_and_talks() -> None:
    """Through the standard's states to the lowest slot; user data and payloads arrive; a silent connection is kept alive."""
    net = Net()
    echo(net)
    server = net.server()
    client = net.client(net.token(client_id=5, user_data=b"ann"))
    net.run(0.2)
    assert net.states(client) == [1, 2, 3]
    assert (client.index, client.max_clients) == (0, 4)
    assert net.happened[HERE][:1] == [s.Connected(1, net.address(client), 5, b"ann".ljust(256, b"\0"))]
    for size in (1, 2, 1100, 1200):
        client.send(bytes(size))
    net.run(0.2)
    assert payloads(net, net.address(client)) == [bytes(size) for size in (1, 2, 1100, 1200)]
    net.run(30)
    assert client.state is ClientState.CONNECTED
    assert server.clients == 1
    kinds = [data[0] & 15 for source, _, data in net.sent[-100:] if source == HERE]
    assert set(kinds) == {p.KEEP_ALIVE}


@pytest.mark.parametrize("size", [0, 1201])
def test_payloads_out_of_size_are_our_own_fault(size: int) -> None:
    """Both sides refuse to send them."""
    net = Net()
    server, client = net.server(), net.client()
    net.run(0.2)
    for send in (lambda: server.send(1, bytes(size)), lambda: client.send(bytes(size))):
        with pytest.raises(ValueError, match=f"{size} bytes"):
            send()


def test_a_client_leaves() -> None:
    """Disconnect packets free its slot at once, for the next one."""
    net = Net()
    server = net.server(max_clients=1)
    client = net.client()
    net.run(0.2)
    client.disconnect()
    net.run(0.1)
    assert disconnects(net) == [DisconnectReason.BY_CLIENT]
    second = net.client()
    net.run(0.2)
    assert second.state is ClientState.CONNECTED
    assert server.clients == 1
    assert client.next_timer_s() is None


def test_the_server_lets_a_client_go() -> None:
    """The client is told, the slot is free, and calls about a client that is gone do nothing."""
    net = Net()
    server, client = net.server(), net.client()
    net.run(0.2)
    server.disconnect(1)
    net.run(0.1)
    assert net.states(client) == [1, 2, 3, 0]
    assert disconnects(net) == [DisconnectReason.BY_SERVER]
    server.disconnect(1)
    server.send(1, b"late")
    assert server.data_to_send(net.now_s) == []
    assert server.next_timer_s() is None


def test_a_slot_taken_again_is_another_client() -> None:
    """What is sent to a client that left never reaches the one that has its slot now."""
    net = Net()
    server = net.server(max_clients=1)
    first = net.client()
    net.run(0.2)
    first.disconnect()
    net.run(0.1)
    second = net.client()
    net.run(0.2)
    assert (first.index, second.index) == (0, 0)
    server.send(1, b"for the first")
    net.run(0.1)
    assert payloads(net, net.address(second)) == []


def test_silence_ends_a_connection_at_both_ends() -> None:
    """After the token's timeout, in both states and reasons."""
    net = Net()
    net.server()
    client = net.client(net.token(timeout_s=2))
    net.run(0.2)
    net.loss = 1.0
    net.run(1.8)
    assert client.state is ClientState.CONNECTED
    net.run(0.5)
    assert client.state is ClientState.CONNECTION_TIMED_OUT
    assert disconnects(net) == [DisconnectReason.TIMED_OUT]


def test_a_negative_timeout_waits_for_ever() -> None:
    """As the standard says, for development."""
    net = Net()
    server, client = net.server(), net.client(net.token(timeout_s=-1))
    net.run(0.2)
    net.loss = 1.0
    net.run(60)
    assert client.state is ClientState.CONNECTED
    assert server.clients == 1


def test_nobody_there() -> None:
    """A request without an answer times out; a token that expires first says that instead."""
    net = Net()
    silent, expired = net.client(net.token(timeout_s=2)), net.client(net.token(timeout_s=5, lifetime_s=1))
    net.run(2.5)
    assert net.states(silent) == [1, ClientState.CONNECTION_REQUEST_TIMED_OUT]
    assert net.states(expired) == [1, ClientState.CONNECT_TOKEN_EXPIRED]


def test_a_response_without_an_answer_times_out() -> None:
    """When the server falls silent after its challenge."""
    net = Net()
    net.server()
    client = net.client(net.token(timeout_s=2))
    while client.state is not ClientState.SENDING_CONNECTION_RESPONSE:
        net.step()
    net.servers.clear()
    net.run(2.5)
    assert client.state is ClientState.CONNECTION_RESPONSE_TIMED_OUT


def test_a_full_server_denies() -> None:
    """By a denied packet, and the client says so; with another server in the token it goes there, over IPv6 too."""
    net = Net()
    net.server(max_clients=1)
    net.client()
    net.run(0.2)
    denied = net.client()
    net.run(0.2)
    assert net.states(denied) == [1, ClientState.CONNECTION_DENIED]
    net.server(V6)
    moved = net.client(net.token(HERE, V6))
    net.run(0.3)
    assert net.states(moved) == [1, 1, 2, 3]
    assert moved.server == V6


def test_filled_between_challenge_and_response() -> None:
    """The last slot goes to who answers first; the other is denied, or goes to its next server without using a number again."""
    net = Net()
    net.server(max_clients=1)
    clients = [net.client(), net.client()]
    net.run(0.3)
    assert sorted(client.state for client in clients) == [ClientState.CONNECTION_DENIED, ClientState.CONNECTED]
    net = Net()
    net.server(max_clients=1)
    net.server(V6)
    clients = [net.client(net.token(HERE, V6)) for _ in range(2)]
    net.run(0.5)
    assert sorted(client.server for client in clients) == [HERE, V6]
    assert all(client.state is ClientState.CONNECTED for client in clients)
    assert_no_nonce_twice(net)


def test_a_silent_server_is_passed_over() -> None:
    """The client tries the token's servers in turn, with packet numbers that never start anew."""
    net = Net()
    net.server(V6)
    client = net.client(net.token(("192.0.2.9", 1), ("192.0.2.9", 2), V6, timeout_s=1))
    net.run(3)
    assert net.states(client) == [1, 1, 1, 2, 3]
    assert client.server == V6
    assert_no_nonce_twice(net)


@pytest.mark.parametrize(
    "changes",
    [
        {"private_key": bytes(32)},
        {"protocol_id": PROTOCOL + 1},
        {"now_unix_s": UNIX - 61},
        {"servers": [("192.0.2.7", 40000)]},
    ],
)
def test_wrong_tokens_are_not_answered(changes: dict[str, object]) -> None:
    """Another key, protocol, server, or an expired one: silence."""
    net = Net()
    server = net.server()
    listed = changes.pop("servers", [HERE])
    token = bytearray(net.token(*listed, **changes))  # type: ignore[misc]
    if listed != [HERE]:
        # The public part leads here all the same.
        at = token.index(bytes((192, 0, 2, 7)))
        token[at : at + 4] = bytes((127, 0, 0, 1))
    client = net.client(bytes(token))
    net.run(1)
    assert client.state is ClientState.SENDING_CONNECTION_REQUEST
    assert all(source != HERE for source, _, _ in net.sent)
    assert server.ignored >= 9


def test_no_token_at_all() -> None:
    """Bytes that are no connect token end the attempt before it begins."""
    net = Net()
    client = net.client(b"junk")
    assert client.next_event() == c.StateChanged(ClientState.INVALID_CONNECT_TOKEN)
    assert client.data_to_send(0.0) == []
    assert client.next_timer_s() is None
    client.receive(b"x", HERE, 0.0)
    client.disconnect()


def test_a_token_serves_one_address() -> None:
    """A second address with the same token is not answered, before or after the first has connected."""
    net = Net()
    net.server()
    token = net.token()
    first, thief = net.client(token), net.client(token, host="198.51.100.66")
    net.run(1)
    assert first.state is ClientState.CONNECTED
    assert thief.state is ClientState.SENDING_CONNECTION_REQUEST


def test_a_token_serves_one_connection() -> None:
    """After it, not even the same address is let in with it: a recording of the first session, played again, connects nobody."""
    net = Net()
    server = net.server()
    client = net.client()
    net.run(0.2)
    client.send(b"buy")
    client.disconnect()
    net.run(0.1)
    address = net.address(client)
    recorded = [data for source, _, data in net.sent if source == address]
    before = len(net.happened[HERE])
    for data in recorded:
        net.inject(data, address, HERE)
        net.step()
    assert server.clients == 0
    assert net.happened[HERE][before:] == []


def test_one_connection_per_client_id() -> None:
    """A second token for an id that is connected is not answered; it is let in when the first has gone. Of two at once, one gets in."""
    net = Net()
    net.server()
    first = net.client(net.token(client_id=9))
    net.run(0.2)
    second = net.client(net.token(client_id=9))
    net.run(0.5)
    assert (first.state, second.state) == (ClientState.CONNECTED, ClientState.SENDING_CONNECTION_REQUEST)
    first.disconnect()
    net.run(0.5)
    assert second.state is ClientState.CONNECTED
    pair = [net.client(net.token(client_id=10)) for _ in range(2)]
    net.run(0.5)
    assert sorted(client.state for client in pair) == [
        ClientState.SENDING_CONNECTION_RESPONSE,
        ClientState.CONNECTED,
    ]


def test_a_payload_never_comes_before_its_slot_is_known() -> None:
    """Until the client is known to know its slot, a keep-alive that says it goes before each payload; afterwards none does."""
    net = Net()
    server = net.server()

    def greet(end: s.ServerEvent) -> None:
        if isinstance(end, s.Connected):
            for _ in range(2):
                server.send(end.client, b"hello")

    net.on_server = lambda _, event: greet(event)
    client = net.client()
    net.run(0.3)
    kinds = [data[0] & 15 for source, _, data in net.sent if source == HERE]
    assert kinds[1:6] == [p.KEEP_ALIVE, p.KEEP_ALIVE, p.PAYLOAD, p.KEEP_ALIVE, p.PAYLOAD]
    assert payloads(net, net.address(client)) == [b"hello", b"hello"]
    net.sent.clear()
    server.send(1, b"more")
    net.step()
    assert [data[0] & 15 for source, _, data in net.sent if source == HERE][:1] == [p.PAYLOAD]


def test_two_tokens_do_not_mix() -> None:
    """A challenge made for one token's client is no answer for another token's."""
    net = Net()
    server = net.server()
    token = read_connect_token(net.token(client_id=1))
    other = net.client(net.token(client_id=2))
    while other.state is ClientState.SENDING_CONNECTION_REQUEST:
        net.step()
    assert other.state is ClientState.SENDING_CONNECTION_RESPONSE
    challenge = other._challenge
    mine = ("192.0.2.77", 1)
    request = p.Request(
        protocol_id=PROTOCOL, expires_unix_s=token.expires_unix_s, nonce=token.nonce, private=token.private
    )
    net.inject(p.encode_request(request), mine, HERE)
    cipher = make_cipher(token.client_to_server_key)
    ignored = server.ignored
    net.inject(p.seal(p.RESPONSE, 0, challenge, cipher, p.associated_data(PROTOCOL)), mine, HERE)
    assert server.ignored == ignored + 1
    assert server.clients == 0


def test_answers_are_smaller_than_questions() -> None:
    """Until an address has proved itself, each datagram to it answers one from it, and is smaller; nothing is sent by the clock."""
    net = Net()
    net.server(max_clients=1)
    for _ in range(3):
        net.client()
    net.run(2)
    asked: dict[Address, list[int]] = {}
    proven: set[Address] = set()
    for source, to, data in net.sent:
        if to == HERE:
            asked.setdefault(source, []).append(len(data))
            proven |= {source} if data[0] & 15 == p.RESPONSE else set()
        elif to not in proven:
            assert len(data) < asked[to].pop()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_stranger_gets_more_than_it_sent(data: st.DataObject) -> None:
    """Whatever an address that has not answered its challenge sends, in any order, as often as it likes: no more bytes come back than it sent."""
    net = Net(seed=data.draw(st.integers(0, 1000)))
    server = net.server(max_clients=data.draw(st.integers(1, 2)), limits=HandshakeLimits(per_s=1e9, per_host_per_s=1e9))
    net.client()  # takes a slot: a full server says Denied
    net.run(0.2)
    tokens = [read_connect_token(net.token()) for _ in range(2)]
    requests = [
        p.encode_request(
            p.Request(protocol_id=PROTOCOL, expires_unix_s=t.expires_unix_s, nonce=t.nonce, private=t.private)
        )
        for t in tokens
    ]
    replayed = [sent for _, to, sent in net.sent if to == HERE]
    ciphers = [make_cipher(t.client_to_server_key) for t in tokens]
    into: dict[Address, int] = {}
    out: dict[Address, int] = {}
    for number in range(data.draw(st.integers(1, 30))):
        stranger = ("198.51.100.9", data.draw(st.integers(1, 3)))
        kind = data.draw(st.sampled_from(("request", "replay", "sealed", "junk", "wait")))
        datagram = b""
        if kind == "request":
            datagram = data.draw(st.sampled_from(requests))
        elif kind == "replay":
            datagram = data.draw(st.sampled_from(replayed))
        elif kind == "sealed":  # knows a token's keys, but not what its challenge says
            body = data.draw(st.sampled_from((b"", bytes(8), bytes(308), b"x")))
            sealed_as = data.draw(st.integers(1, 6))
            datagram = p.seal(sealed_as, number, body, data.draw(st.sampled_from(ciphers)), p.associated_data(PROTOCOL))
        elif kind == "junk":
            datagram = data.draw(st.binary(max_size=40))
        if datagram:
            into[stranger] = into.get(stranger, 0) + len(datagram)
            server.receive(datagram, stranger, net.now_s)
        else:
            net.now_s += 0.5
        for to, answer in server.data_to_send(net.now_s):
            out[to] = out.get(to, 0) + len(answer)
        for address, size in out.items():
            assert address not in into or size <= into[address]
            assert address in into or address in net.clients


@pytest.mark.parametrize("jump_s", [-86_400.0, -0.3, 4.0, 3600.0, 1e9])
@pytest.mark.parametrize("who", ["both", "server", "client"])
def test_a_clock_that_jumps_ends_no_connection(jump_s: float, who: str) -> None:
    """Forward or back, at either end: the connection goes on, keep-alives too; real silence still ends it."""
    net = Net()
    echo(net)
    server, client = net.server(), net.client(net.token(timeout_s=2))
    net.run(0.3)
    now_s = net.now_s
    receive, send = {}, {}
    for end in (server, client):
        # Each end is given its own clock.
        if who in ("both", "server" if end is server else "client"):
            receive[end], send[end] = end.receive, end.data_to_send
            end.receive = lambda d, a, t, end=end: receive[end](d, a, t + jump_s)  # type: ignore[method-assign]
            end.data_to_send = lambda t, end=end: send[end](t + jump_s)  # type: ignore[method-assign]
            server.unix_offset_s -= jump_s * (end is server)
    before = len(net.sent)
    net.run(3.0)
    assert client.state is ClientState.CONNECTED
    assert server.clients == 1
    assert len(net.sent) - before >= 2 * 25, "keep-alives at 10 Hz, each way"
    client.send(b"still here")
    net.run(0.1)
    assert payloads(net, net.address(client)) == [b"still here"]
    late = net.client()
    net.run(0.3)
    assert late.state is ClientState.CONNECTED, "and newcomers connect"
    assert net.now_s > now_s
    net.loss = 1.0
    net.run(3.5)
    assert client.state is ClientState.CONNECTION_TIMED_OUT
    assert DisconnectReason.TIMED_OUT in disconnects(net)


def test_a_stalled_server_keeps_the_clients_that_wait_in_its_socket() -> None:
    """A process that was stopped for longer than the timeout gives nobody up for it."""
    net = Net()
    server, client = net.server(), net.client(net.token(timeout_s=2))
    net.run(0.3)
    net.now_s += 10.0
    server.data_to_send(net.now_s)  # its timer comes before it has read
    client.send(b"meanwhile")
    net.run(0.3)
    assert server.clients == 1
    assert payloads(net, HERE) == [b"meanwhile"]


def test_a_handshake_flood_is_bounded() -> None:
    """Valid tokens beyond the pending table, and requests beyond the rate, are ignored."""
    net = Net()
    server = net.server(max_clients=2, limits=HandshakeLimits(per_s=1000, per_host_per_s=1000, burst_s=1))
    for k in range(40):
        token = read_connect_token(net.token())
        request = p.Request(
            protocol_id=PROTOCOL, expires_unix_s=token.expires_unix_s, nonce=token.nonce, private=token.private
        )
        server.receive(p.encode_request(request), ("192.0.2.1", 1000 + k), 0.0)
    assert len(server.data_to_send(0.0)) == 8
    assert server.ignored == 32
    slow = Net()
    limited = slow.server(limits=HandshakeLimits(per_s=5, per_host_per_s=5, burst_s=1))
    request_data = p.encode_request(request)
    for _ in range(20):
        limited.receive(request_data, ("192.0.2.1", 1), 0.0)
    assert len(limited.data_to_send(0.0)) == 5
    assert limited.next_timer_s() is not None
    for second in range(40):
        limited.data_to_send(float(second))
    assert limited.next_timer_s() is None, "a handshake that does not go on is forgotten"


def test_numbers_start_at_the_top_half_at_every_start() -> None:
    """Challenges and denials are numbered from 1 << 63 by each new server."""
    for _ in range(2):
        net = Net()
        net.server(max_clients=1)
        net.client()
        net.client()
        net.run(0.5)
        numbers = [
            int.from_bytes(data[1 : 1 + (data[0] >> 4)], "little")
            for source, _, data in net.sent
            if source == HERE and data[0] & 15 in (p.DENIED, p.CHALLENGE)
        ]
        assert numbers == [(1 << 63) + k for k in range(len(numbers))]
        assert len(numbers) >= 2


def assert_no_nonce_twice(net: Net) -> None:
    """No (direction, peer, number) was sealed twice with different content."""
    seen: dict[tuple[object, ...], bytes] = {}
    for source, to, data in net.sent:
        if data[0]:
            who = (to if source in net.servers else source), source in net.servers
            number = data[1 : 1 + (data[0] >> 4)]
            assert seen.setdefault((*who, number), data) == data


@given(
    seed=st.integers(0, 2**32), loss=st.floats(0, 0.4), delay_s=st.floats(0.001, 0.1), copies=st.floats(0, 0.3),
    players=st.integers(1, 6),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_a_lossy_network(seed: int, loss: float, delay_s: float, copies: float, players: int) -> None:
    """With loss, delay, reordering and copies: all connect, stay, get each payload at most once and unharmed, and leave."""
    net = Net(seed=seed, loss=loss, delay_s=delay_s, copies=copies)
    echo(net)
    server = net.server(max_clients=6)
    clients = [net.client(net.token(timeout_s=20)) for _ in range(players)]
    net.run(15)
    assert all(client.state is ClientState.CONNECTED for client in clients)
    assert len({client.index for client in clients}) == players
    for number in range(100):
        for k, client in enumerate(clients):
            client.send(b"%d:%d" % (k, number))
        net.step(0.02)
    net.run(1)
    for k, client in enumerate(clients):
        got = payloads(net, net.address(client))
        assert len(set(got)) == len(got)
        assert set(got) <= {b"%d:%d" % (k, number) for number in range(100)}
        assert len(got) > 100 * (1 - loss) ** 2 * 0.5
    assert server.clients == players
    for client in clients:
        client.disconnect()
    net.run(21)
    assert server.clients == 0
    assert len(disconnects(net)) == players
    assert_no_nonce_twice(net)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_datagram_in_any_state(data: st.DataObject) -> None:
    """Junk, mutated, truncated, crossed and replayed datagrams at any point of a connection's life: nothing raises, nothing false gets through."""
    net = Net(seed=data.draw(st.integers(0, 1000)))
    server = net.server(max_clients=2)
    clients = [net.client(), net.client()]
    honest: set[bytes] = set()
    for turn in range(data.draw(st.integers(1, 14))):
        net.step(data.draw(st.sampled_from((0.01, 0.06, 0.11))))
        for client in clients:
            message = b"honest %d" % turn
            client.send(message)
            honest.add(message)
        ends = [HERE, *net.clients]
        for _ in range(data.draw(st.integers(0, 4))):
            raw = data.draw(st.binary(max_size=64))
            source, to = data.draw(st.sampled_from(ends)), data.draw(st.sampled_from(ends))
            if net.sent and data.draw(st.booleans()):
                old_source, old_to, packet = data.draw(st.sampled_from(net.sent))
                raw = mutate(data, packet)
                if raw == packet and not packet[0]:
                    source, to = old_source, old_to  # whoever shows a token first has it: by the standard
            net.inject(raw, source, to)
    net.run(0.5)
    for address in net.happened:
        got = payloads(net, address)
        assert set(got) <= honest
        assert len(got) <= len(honest) * len(clients)
    assert server.clients == 2
    assert all(client.state is ClientState.CONNECTED for client in clients)


def mutate(data: st.DataObject, packet: bytes) -> bytes:
    """A valid packet with bits changed, cut, grown, or as it is."""
    changed = bytearray(packet)
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from((0, 0, 0, 1, 16, len(changed) - 1)))
    return bytes(changed[: len(changed) - cut]) + data.draw(st.sampled_from((b"", b"", b"\0", bytes(1300))))


@given(st.binary(max_size=200), st.integers(0, 255), st.integers(0, 2**64 - 1))
@settings(max_examples=200, deadline=None)
def test_the_packet_reader_survives_any_bytes(body: bytes, prefix: int, sequence: int) -> None:
    """What holds the key can still send nonsense: sealed bodies of any size and kind are read or ignored by both sides."""
    net = Net()
    net.server()
    client = net.client()
    net.run(0.2)
    token_keys = client._send_cipher, client._read_cipher
    associated = p.associated_data(PROTOCOL)
    sealed = [p.seal(prefix & 15, sequence, body, cipher, associated) for cipher in token_keys]
    net.inject(sealed[0], net.address(client), HERE)
    net.inject(sealed[1], HERE, net.address(client))
    net.inject(bytes((prefix,)) + body, net.address(client), HERE)
    net.inject(bytes((prefix,)) + body, HERE, net.address(client))
    net.step()
