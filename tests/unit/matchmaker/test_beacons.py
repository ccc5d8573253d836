"""Beacons: what they measure, what they refuse, and that they are no lever for floods."""

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gameserver.protocol.beacons import LONGEST_PLAYER, Cookie, Hello, Measure, Token, decode, encode
from matchmaker.beacons.beacon import Beacon, network
from matchmaker.beacons.tokens import LIFETIME_S, LatencyRefused, LatencySigner, LatencyVerifier

NONCE = b"12345678"
WALL_S = 1_800_000_000.0


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def beacon(
    clock: Clock, region: str = "eu", key: bytes = b"k" * 32, per_address_s: float = 1000.0
) -> tuple[Beacon, LatencyVerifier]:
    signer = LatencySigner(region, key)
    made = Beacon(signer, clock=clock, wall=lambda: WALL_S, per_address_s=per_address_s)
    return made, LatencyVerifier({region: signer.public_key})


def ask(it: Beacon, clock: Clock, rtt_s: float, player: str = "ann", address: str = "192.0.2.1") -> str | None:
    reply = it.receive(encode(Hello(NONCE)), address)
    assert reply is not None
    cookie = decode(reply)
    assert isinstance(cookie, Cookie)
    clock.now_s += rtt_s
    answer = it.receive(encode(Measure(NONCE, cookie.cookie, player)), address)
    token = None if answer is None else decode(answer)
    return token.token if isinstance(token, Token) else None


def test_the_round_trip_is_what_lies_between_cookie_and_answer() -> None:
    """The beacon's own clock measures it, and its signature says so."""
    clock = Clock()
    it, verifier = beacon(clock)
    token = ask(it, clock, 0.0423)
    assert token is not None
    measured = verifier.verify(token, "ann", WALL_S + 1)
    assert (measured.region, measured.player) == ("eu", "ann")
    assert measured.rtt_ms == pytest.approx(42.3, abs=0.01)


def test_a_cookie_is_bound_to_its_beacon_nonce_address_and_time() -> None:
    """Made up, moved, or kept too long, it measures nothing; kept for a while it only measures more."""
    clock = Clock()
    it, _ = beacon(clock)
    cookie = it.cookie(NONCE, "192.0.2.1")
    assert it.measure(NONCE, cookie, "192.0.2.2", "ann") is None
    assert it.measure(b"87654321", cookie, "192.0.2.1", "ann") is None
    assert it.measure(NONCE, bytes(24), "192.0.2.1", "ann") is None
    assert beacon(clock)[0].measure(NONCE, cookie, "192.0.2.1", "ann") is None
    earlier = (int.from_bytes(cookie[:8], "little") + 10_000_000).to_bytes(8, "little") + cookie[8:]
    clock.now_s += 0.05
    assert it.measure(NONCE, earlier, "192.0.2.1", "ann") is None, "a later time would be a shorter round trip"
    first = it.measure(NONCE, cookie, "192.0.2.1", "ann")
    clock.now_s += 0.1
    second = it.measure(NONCE, cookie, "192.0.2.1", "ann")
    assert first is not None
    assert second is not None
    assert second[1] > first[1]
    clock.now_s += 10
    assert it.measure(NONCE, cookie, "192.0.2.1", "ann") is None


def test_a_token_proves_nothing_else() -> None:
    """For another player, region or time, altered, or signed by somebody else it is refused, with the reason."""
    clock = Clock()
    it, verifier = beacon(clock)
    token = ask(it, clock, 0.02)
    assert token is not None
    forged = ask(beacon(clock, key=b"x" * 32)[0], clock, 0.001)
    assert forged is not None
    for bad, player, now_s, why in (
        (token, "bob", WALL_S, "another player"),
        (token, "ann", WALL_S + LIFETIME_S, "expired"),
        (token, "ann", WALL_S - 3600, "expired"),
        (forged, "ann", WALL_S, "unknown key"),
        (token[:20] + ("A" if token[20] != "A" else "B") + token[21:], "ann", WALL_S, "signature"),
        ("nonsense", "ann", WALL_S, "no latency token"),
        ("é" * 20, "ann", WALL_S, "no latency token"),
    ):
        with pytest.raises(LatencyRefused, match=why):
            verifier.verify(bad, player, now_s)
    with pytest.raises(LatencyRefused, match=r"latencyTokens\[1\]"):
        verifier.latencies_ms([token, "x"], "ann", WALL_S)


def test_the_shortest_of_several_counts() -> None:
    """A client can add delay, and not remove it."""
    clock = Clock()
    it, verifier = beacon(clock)
    tokens = [ask(it, clock, rtt_s) or "" for rtt_s in (0.08, 0.03, 0.05)]
    assert verifier.latencies_ms(tokens, "ann", WALL_S) == {"eu": pytest.approx(30, abs=0.01)}


def test_a_region_cannot_speak_for_another() -> None:
    """A key signs for its own region only."""
    clock = Clock()
    token = ask(beacon(clock, region="us")[0], clock, 0.01)
    verifier = LatencyVerifier({"eu": LatencySigner("eu", b"k" * 32).public_key})
    with pytest.raises(LatencyRefused, match="not its key's"):
        verifier.verify(token or "", "ann", WALL_S)


def test_one_address_is_answered_so_often() -> None:
    """Beyond its share an address hears nothing; others do. Of IPv6 a whole /64 is one."""
    clock = Clock()
    it, _ = beacon(clock, per_address_s=2.0)
    hello = encode(Hello(NONCE))
    assert [it.receive(hello, "192.0.2.1") is None for _ in range(9)] == [False] * 8 + [True]
    assert it.receive(hello, "192.0.2.2") is not None
    clock.now_s += 1.0
    assert it.receive(hello, "192.0.2.1") is not None
    assert network("2001:db8:1:2:3::1") == network("2001:db8:1:2::9")


@given(st.binary(max_size=600))
def test_any_bytes_are_answered_with_no_more(data: bytes) -> None:
    """No datagram gets a longer reply, whatever is in it."""
    it, _ = beacon(Clock())
    for prefix in (b"", b"WFB1\x01", b"WFB1\x03"):
        sent = prefix + data
        assert len(it.receive(sent, "192.0.2.1") or b"") <= len(sent)


@given(
    st.text(min_size=1, max_size=LONGEST_PLAYER).filter(lambda t: 0 < len(t.encode()) <= LONGEST_PLAYER),
    st.text(min_size=1, max_size=16),
)
def test_a_token_is_no_longer_than_what_asked_for_it(player: str, region: str) -> None:
    """The longest player and region fit."""
    clock = Clock()
    it, verifier = beacon(clock, region=region)
    token = ask(it, clock, 0.01, player=player)
    assert token is not None
    assert len(encode(Token(NONCE, token))) <= len(encode(Measure(NONCE, bytes(24), player)))
    assert verifier.verify(token, player, WALL_S).region == region


@given(
    st.sampled_from(
        [Hello(NONCE), Cookie(NONCE, secrets.token_bytes(24)), Measure(NONCE, bytes(24), "é"), Token(NONCE, "abc")]
    )
)
def test_datagrams_come_back(datagram: object) -> None:
    """What is encoded is decoded."""
    assert decode(encode(datagram)) == datagram  # type: ignore[arg-type]
