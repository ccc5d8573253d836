"""Keys are rotated without a player noticing: both are accepted while they change, and the old one no longer after that."""

import base64
import time

import pytest

from gameserver.protocol.netcode.client import ClientState, NetcodeClient
from gameserver.protocol.netcode.server import NetcodeServer
from gameserver.protocol.netcode.tokens import issue_connect_token, parse_private_keys, protocol_id_of
from gameserver.seats import SeatGrant, SeatIssuer, SeatRefused, SeatVerifier
from gameserver.sessions.model import PlayerId, ServerName, SessionId
from gameserver.settings import Settings

SERVER = ServerName("arena-1")
OLD, NEW = bytes(range(32)), bytes(range(32, 64))
GRANT = SeatGrant(player=PlayerId("ann"), seat=0, team="", session=SessionId("arena.m1"), server=SERVER, epoch=1)


def text(*keys: bytes) -> str:
    return ",".join(base64.urlsafe_b64encode(key).decode().rstrip("=") for key in keys)


def test_seat_tokens_of_both_keys_are_accepted_while_they_change() -> None:
    """First the servers learn the new key, then the matchmaker signs with it, then the servers forget the old one."""
    old, new = SeatIssuer(OLD), SeatIssuer(NEW)
    now_s = time.time()
    both = SeatVerifier([old.public_key, new.public_key], SERVER)
    assert both.verify(old.issue(GRANT, now_s), now_s) == both.verify(new.issue(GRANT, now_s), now_s) == GRANT
    after = SeatVerifier([new.public_key], SERVER)
    assert after.verify(new.issue(GRANT, now_s), now_s) == GRANT
    with pytest.raises(SeatRefused, match="unknown key"):
        after.verify(old.issue(GRANT, now_s), now_s)


def test_game_servers_read_several_keys() -> None:
    """From the same variables as one."""
    env = {
        "WARMFLEET_GAME": "a:B", "WARMFLEET_FLEET": "arena", "HOSTNAME": SERVER, "WARMFLEET_TRANSPORTS": "udp",
        "WARMFLEET_NETCODE_KEY": text(OLD, NEW), "WARMFLEET_SEAT_KEYS": "one,two",
    }  # fmt: skip
    settings = Settings.from_environment(env)
    assert (settings.netcode_key, settings.netcode_other_keys) == (OLD, (NEW,))
    assert settings.seat_keys == ("one", "two")
    with pytest.raises(ValueError, match="32 bytes"):
        parse_private_keys(text(OLD) + ",short")


@pytest.mark.parametrize(
    ("key", "has", "let_in"),
    [(OLD, (OLD,), True), (OLD, (OLD, NEW), True), (NEW, (OLD, NEW), True), (NEW, (NEW,), True), (OLD, (NEW,), False)],
)
def test_connect_tokens_of_both_keys_open_a_connection(key: bytes, has: tuple[bytes, ...], let_in: bool) -> None:
    """A handshake with a server that has one key or two."""
    here, protocol, unix_s = ("127.0.0.1", 7000), protocol_id_of("arena"), 1_700_000_000
    server = NetcodeServer(
        addresses=[here], protocol_id=protocol, private_key=has[0], other_keys=has[1:], max_clients=2,
        challenge_key=bytes(32), unix_offset_s=float(unix_s),
    )  # fmt: skip
    token = issue_connect_token([here], protocol_id=protocol, private_key=key, now_unix_s=unix_s)
    client = NetcodeClient(token, 0.0)
    for step in range(100):
        now_s = step / 20
        for _, data in client.data_to_send(now_s):
            server.receive(data, ("127.0.0.1", 5000), now_s)
        for _, data in server.data_to_send(now_s):
            client.receive(data, here, now_s)
    assert (client.state is ClientState.CONNECTED) is let_in
