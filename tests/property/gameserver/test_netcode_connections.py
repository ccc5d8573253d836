"""netcode's connections: handshakes, their ends, and their failures."""

import pytest
from netcode_net import HERE, PROTOCOL, UNIX, V6, Net, assert_no_nonce_twice, disconnects, echo, payloads

from gameserver.protocol.netcode import client as c
from gameserver.protocol.netcode import packets as p
from gameserver.protocol.netcode import server as s
from gameserver.protocol.netcode.client import ClientState
from gameserver.protocol.netcode.crypto import make_cipher
from gameserver.protocol.netcode.rows import Rows
from gameserver.protocol.netcode.server import DisconnectReason
from gameserver.protocol.netcode.tokens import read_connect_token


def test_a_client_connects_and_talks() -> None:
    """Through the standard's states to the lowest slot; user data and payloads arrive; a silent connection is kept alive."""
    net = Net()
    echo(net)
    server = net.server()
    client = net.client(net.token(client_id=5, user_data=b"ann"))
    net.run(0.2)
    assert net.states(client) == [1, 2, 3]
    assert (client.index, client.max_clients) == (0, 4)
    assert net.happened[HERE][:1] == [s.Connected(net.seated(1), net.address(client), 5, b"ann".ljust(256, b"\0"))]
    for size in (1, 2, 1100, 1200):
        client.send(bytes(size))
    net.run(0.2)
    assert payloads(net, net.address(client)) == [bytes(size) for size in (1, 2, 1100, 1200)]
    net.run(30)
    assert client.state is ClientState.CONNECTED
    assert server.clients == 1
    kinds = [data[0] & 15 for source, _, data in net.sent[-100:] if source == HERE]
    assert set(kinds) == {p.KEEP_ALIVE}


def test_more_than_there_are_rows() -> None:
    """What does not fit into the memory at hand comes with the next call: everything once, in order, in one piece or two."""
    net = Net()
    server, client = net.server(), net.client()
    net.run(0.2)
    client.send(b"here")  # so that no keep-alives go before payloads
    net.run(0.1)
    said = [bytes((number,)) * (1 + 20 * number) for number in range(50)]
    for payload in said:
        server.send(net.seated(1), payload[:7], payload[7:])
    rows = Rows(3)
    counts = []
    while (batch := server.rows_to_send(rows, net.now_s))[0]:
        counts.append(len(batch[0]))
        for index, (peer, size) in enumerate(zip(*batch, strict=True)):
            net.inject(rows.get(index, size), HERE, peer)
    net.step()
    assert counts == [3] * 16 + [2]
    assert payloads(net, net.address(client)) == said


@pytest.mark.parametrize("size", [0, 1201])
def test_payloads_out_of_size_are_our_own_fault(size: int) -> None:
    """Both sides refuse to send them."""
    net = Net()
    server, client = net.server(), net.client()
    net.run(0.2)
    for send in (lambda: server.send(net.seated(1), bytes(size)), lambda: client.send(bytes(size))):
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
    server.disconnect(net.seated(1))
    net.run(0.1)
    assert net.states(client) == [1, 2, 3, 0]
    assert disconnects(net) == [DisconnectReason.BY_SERVER]
    server.disconnect(net.seated(1))
    server.send(net.seated(1), b"late")
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
    server.send(net.seated(1), b"for the first")
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
    server.send(net.seated(1), b"more")
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
