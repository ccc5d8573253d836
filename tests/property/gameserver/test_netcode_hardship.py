"""What netcode bears: strangers, floods, clocks that jump, networks that lose and repeat, and any bytes at all."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netcode_net import HERE, PROTOCOL, Net, assert_no_nonce_twice, disconnects, echo, payloads

from gameserver.protocol.netcode import packets as p
from gameserver.protocol.netcode.addresses import Address
from gameserver.protocol.netcode.client import ClientState
from gameserver.protocol.netcode.crypto import make_cipher
from gameserver.protocol.netcode.limits import HandshakeLimits
from gameserver.protocol.netcode.server import DisconnectReason
from gameserver.protocol.netcode.tokens import read_connect_token


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


@pytest.mark.sources
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
