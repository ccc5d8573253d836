"""Seat tokens."""

import base64
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gameserver.seats import DEFAULT_LIFETIME_S, SeatGrant, SeatIssuer, SeatRefused, SeatVerifier
from gameserver.sessions.model import PlayerId, ServerName, SessionId

ISSUER = SeatIssuer(bytes(range(32)))
GRANT = SeatGrant(
    player=PlayerId("ann"), seat=3, team="red", session=SessionId("arena.m1"), server=ServerName("arena-abcde"), epoch=2
)


def verifier(server: str = "arena-abcde") -> SeatVerifier:
    return SeatVerifier([ISSUER.public_key], ServerName(server))


def test_a_token_lets_its_player_in_once() -> None:
    """The grant comes back whole the first time, and never again."""
    token, server = ISSUER.issue(GRANT, 1000.0), verifier()
    granted = server.verify(token, 1030.0)
    assert (granted, granted.expires_at_s) == (GRANT, 1000 + DEFAULT_LIFETIME_S)
    with pytest.raises(SeatRefused, match="used"):
        server.verify(token, 1031.0)


def test_other_servers_late_and_foreign_tokens_are_refused() -> None:
    """Each wrong token is refused with its reason."""
    token = ISSUER.issue(GRANT, 1000.0)
    with pytest.raises(SeatRefused, match="for server"):
        verifier("arena-other").verify(token, 1000.0)
    with pytest.raises(SeatRefused, match="expired"):
        verifier().verify(token, 1060.0)
    with pytest.raises(SeatRefused, match="unknown key"):
        verifier().verify(SeatIssuer(bytes(32)).issue(GRANT, 1000.0), 1000.0)


def others(server: SeatVerifier, now_s: float, count: int = 600) -> None:
    """So many that those which have expired are forgotten."""
    for seat in range(count):
        server.verify(ISSUER.issue(dataclasses.replace(GRANT, seat=seat), now_s), now_s)


def test_nonces_are_forgotten_only_after_expiry() -> None:
    """A used token is still refused late in its life, after many others; the others are not kept for ever."""
    server = verifier()
    token = ISSUER.issue(GRANT, 1000.0, lifetime_s=500)
    server.verify(token, 1000.0)
    for now_s in range(1001, 1400, 100):
        others(server, now_s)
    assert len(server._used) < 1500
    with pytest.raises(SeatRefused, match="used"):
        server.verify(token, 1499.0)


def test_a_clock_that_is_set_back_brings_no_token_to_life() -> None:
    """Used, forgotten while the clock was hours ahead, and refused once it is right again; new tokens let in."""
    server = verifier()
    token = ISSUER.issue(GRANT, 1000.0)
    server.verify(token, 1000.0)
    others(server, 50_000.0)
    with pytest.raises(SeatRefused, match="expired"):
        server.verify(token, 1005.0)
    server.verify(ISSUER.issue(GRANT, 1005.0), 1005.0)


@given(st.data())
def test_any_change_is_refused(data: st.DataObject) -> None:
    """A token with any byte changed is refused."""
    raw = bytearray(base64.urlsafe_b64decode(ISSUER.issue(GRANT, 1000.0) + "=="))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SeatRefused):
        verifier().verify(base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode(), 1000.0)


@given(st.text(max_size=300))
def test_any_text_is_refused(text: str) -> None:
    """No text raises anything but SeatRefused."""
    with pytest.raises(SeatRefused):
        verifier().verify(text, 1000.0)


def test_a_bad_key_is_named() -> None:
    """A public key that is none is refused at the start."""
    with pytest.raises(ValueError, match="32 bytes"):
        SeatVerifier(["nonsense!"], ServerName("a"))
