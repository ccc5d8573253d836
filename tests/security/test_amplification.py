"""What a UDP port answers to a stranger, a game server's or a beacon's, is less than what the stranger sent: it is of no use to attack others with forged
addresses."""

import random
from collections.abc import Iterator

import pytest

from gameserver.protocol.beacons import LONGEST_PLAYER, NONCE_SIZE, Cookie, Hello, Measure, Token, encode
from gameserver.protocol.netcode.client import NetcodeClient
from gameserver.protocol.netcode.server import NetcodeServer
from gameserver.protocol.netcode.tokens import issue_connect_token, protocol_id_of
from matchmaker.beacons.beacon import Beacon
from matchmaker.beacons.tokens import LatencySigner

HERE = ("203.0.113.1", 7000)
VICTIM = ("198.51.100.9", 53)
KEY = bytes(range(32))
PROTOCOL = protocol_id_of("arena")
UNIX_S = 1_700_000_000


def server(max_clients: int = 4) -> NetcodeServer:
    return NetcodeServer(
        addresses=[HERE], protocol_id=PROTOCOL, private_key=KEY, max_clients=max_clients, challenge_key=bytes(32),
        unix_offset_s=float(UNIX_S),
    )  # fmt: skip


def new_client(**changes: object) -> NetcodeClient:
    arguments = {"protocol_id": PROTOCOL, "private_key": KEY, "now_unix_s": UNIX_S} | changes
    return NetcodeClient(issue_connect_token([HERE], **arguments), 0.0)  # type: ignore[arg-type]


def request(**changes: object) -> bytes:
    """A client's first datagram."""
    return new_client(**changes).data_to_send(0.0)[0][1]


def first_datagrams() -> Iterator[tuple[str, bytes]]:
    rng = random.Random(7)
    whole = request()
    yield "a valid request", whole
    yield "a request of another key", request(private_key=bytes(32))
    yield "a request of another fleet", request(protocol_id=1)
    yield "an expired request", request(now_unix_s=UNIX_S - 1000)
    yield from ((f"a request cut to {size}", whole[:size]) for size in (0, 1, 2, 18, 100, 1077))
    yield "a request and more", whole + b"x"
    for kind in range(16):
        for size in (1, 2, 9, 18, 30, 100, 308, 1200, 1400):
            data = bytes((kind | rng.choice((16, 128)),)) + rng.randbytes(size - 1)
            yield f"a packet of kind {kind} of {size} bytes", data
    for size in (1, 8, 64, 512, 1200, 1472):
        yield f"{size} random bytes", rng.randbytes(size)


def occupy(one: NetcodeServer) -> None:
    """Take its only place."""
    client = new_client()
    for step in range(20):
        for _, data in client.data_to_send(step / 20):
            one.receive(data, ("192.0.2.1", 4000), step / 20)
        for _, data in one.data_to_send(step / 20):
            client.receive(data, HERE, step / 20)


def answered(one: NetcodeServer, begin_s: float, for_s: float) -> int:
    """How many bytes the victim gets in so long."""
    steps = round(for_s * 20)
    times = (begin_s + step / 20 for step in range(steps))
    return sum(len(data) for now_s in times for address, data in one.data_to_send(now_s) if address == VICTIM)


@pytest.mark.parametrize("full", [False, True])
def test_a_first_datagram_gets_less_than_it_is(full: bool) -> None:
    """Of every kind, all answers of ten seconds together; also from a server that is full, which says so."""
    told = {}
    for name, data in first_datagrams():
        one = server(1)
        if full:
            occupy(one)
        one.receive(data, VICTIM, 1.0)
        told[name] = answered(one, 1.0, 10.0)
        assert told[name] < max(1, len(data)), (name, told[name], len(data))
    assert told["a valid request"] > 0


def test_repeated_datagrams_get_less_than_they_are() -> None:
    """A valid request that was overheard, sent a thousand times from a forged address."""
    one, data = server(), request()
    got = 0
    for step in range(1000):
        one.receive(data, VICTIM, step / 20)
        got += answered(one, step / 20, 0.05)
    assert 0 < got < 1000 * len(data) / 3


def test_an_overheard_request_is_of_no_use_elsewhere() -> None:
    """Its token was used from one address: from another it gets nothing."""
    one, data = server(), request()
    one.receive(data, ("192.0.2.1", 4000), 0.0)
    assert one.data_to_send(0.0)
    one.receive(data, VICTIM, 0.1)
    assert not answered(one, 0.1, 1.0)


def beacon(now_s: list[float] | None = None) -> Beacon:
    """Of the longest name that there is: its tokens are the longest."""
    clock = now_s or [0.0]
    return Beacon(LatencySigner("r" * 64, bytes(32)), clock=lambda: clock[0], wall=lambda: UNIX_S)


def to_beacons() -> Iterator[tuple[str, bytes]]:
    rng = random.Random(7)
    nonce, player = bytes(NONCE_SIZE), "p" * LONGEST_PLAYER
    hello = encode(Hello(nonce))
    yield "a hello", hello
    yield "a long hello", hello + bytes(1000)
    yield from ((f"a hello cut to {size}", hello[:size]) for size in (0, 4, 5, 13, len(hello) - 1))
    yield "an overheard measurement", encode(Measure(nonce, beacon().cookie(nonce, "192.0.2.1"), player))
    yield "its own replies", encode(Cookie(nonce, bytes(24)))
    yield "a token", encode(Token(nonce, "x" * 300))
    for kind in range(8):
        for size in (1, 9, 60, 64, 300, 511, 512, 1200):
            yield f"kind {kind} of {size} bytes", hello[:4] + bytes([kind]) + rng.randbytes(size)


def test_a_beacon_answers_with_less() -> None:
    """To any datagram; and to a measurement that is right, which nobody can send from a forged address, too."""
    for name, data in to_beacons():
        reply = beacon().receive(data, VICTIM[0])
        assert len(reply or b"") < max(1, len(data)), name
    one, nonce = beacon(), bytes(NONCE_SIZE)
    hello = encode(Hello(nonce))
    cookie = one.receive(hello, VICTIM[0])
    assert cookie is not None
    assert len(cookie) / len(hello) < 0.6
    measure = encode(Measure(nonce, one.cookie(nonce, VICTIM[0]), "p" * LONGEST_PLAYER))
    token = one.receive(measure, VICTIM[0])
    assert token is not None
    assert len(token) / len(measure) < 0.8


def test_a_beacon_that_is_flooded_falls_silent() -> None:
    """An address' share is answered, and no more: the victim of a forged one hears a thousandth of a flood of a hundred thousand."""
    now_s = [0.0]
    one, hello, sent, got = beacon(now_s), encode(Hello(bytes(NONCE_SIZE))), 0, 0
    for step in range(100_000):
        now_s[0] = step / 50_000
        sent += len(hello)
        got += len(one.receive(hello, VICTIM[0]) or b"")
    assert 0 < got < sent / 1000
