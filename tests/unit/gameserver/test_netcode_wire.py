"""netcode's bytes: frozen vectors, tokens, addresses, replay protection, limits, fragments."""

import importlib.util
import json
import struct
from pathlib import Path

import pytest

from gameserver.protocol import messages as m
from gameserver.protocol.netcode import packets as p
from gameserver.protocol.netcode.addresses import format_address, make_address, parse_address
from gameserver.protocol.netcode.crypto import make_cipher
from gameserver.protocol.netcode.fragments import MAX_MESSAGE_BYTES, Reassembly, split
from gameserver.protocol.netcode.limits import HandshakeLimits, UsedTokens
from gameserver.protocol.netcode.replay import WINDOW, ReplayProtection
from gameserver.protocol.netcode.tokens import (
    BadConnectToken,
    decrypt_challenge,
    issue_connect_token,
    open_private_token,
    parse_private_key,
    protocol_id_of,
    read_connect_token,
)

VECTORS = Path(__file__).parents[2] / "vectors"
FROZEN = json.loads((VECTORS / "netcode.json").read_text())
ARTIFACTS = {name: bytes.fromhex(value) for name, value in FROZEN["artifacts"].items()}
INPUTS = FROZEN["inputs"]
PROTOCOL = int(INPUTS["protocol_id"], 16)
KEY = bytes.fromhex(INPUTS["private_key"])
SERVER = ("127.0.0.1", 40000)


def test_the_encoder_makes_the_frozen_vectors() -> None:
    """The generator's output is the file, which the reference implementation agreed with."""
    spec = importlib.util.spec_from_file_location("generate_netcode", VECTORS / "generate_netcode.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert generator.document() == FROZEN


def test_the_decoder_reads_the_frozen_connect_token() -> None:
    """Both parts of the token say what went in."""
    token = read_connect_token(ARTIFACTS["connect_token"])
    assert token.protocol_id == PROTOCOL
    assert (token.created_unix_s, token.expires_unix_s) == (INPUTS["created_unix_s"], INPUTS["expires_unix_s"])
    assert [format_address(server) for server in token.servers] == INPUTS["servers"]
    request = p.decode_request(ARTIFACTS["request"])
    assert request is not None
    private = open_private_token(request, KEY)
    assert private is not None
    assert private.servers == token.servers
    assert f"{private.client_id:016x}" == INPUTS["client_id"]
    assert private.user_data.hex() == INPUTS["user_data"]
    assert private.client_to_server_key.hex() == INPUTS["client_to_server_key"] == token.client_to_server_key.hex()
    assert private.server_to_client_key.hex() == INPUTS["server_to_client_key"] == token.server_to_client_key.hex()
    assert private.timeout_s == token.timeout_s == INPUTS["timeout_s"]


@pytest.mark.parametrize(
    ("name", "kind", "sequence"),
    [
        ("challenge", p.CHALLENGE, 1 << 63), ("response", p.RESPONSE, 0), ("denied", p.DENIED, (1 << 63) + 1), ("keep_alive", p.KEEP_ALIVE, 1000),
        ("payload_long", p.PAYLOAD, 2**64 - 1), ("payload_short", p.PAYLOAD, 65535), ("disconnect", p.DISCONNECT, 65536),
    ],
)  # fmt: skip
def test_the_decoder_reads_the_frozen_packets(name: str, kind: int, sequence: int) -> None:
    """Each packet opens with its key, once, and not with the other direction's."""
    from_server = name in ("challenge", "denied", "keep_alive")
    keys = [make_cipher(bytes.fromhex(INPUTS[key])) for key in ("server_to_client_key", "client_to_server_key")]
    right, wrong = keys if from_server else reversed(keys)
    kinds, associated, reader = frozenset(range(1, 7)), p.associated_data(PROTOCOL), p.Reader(right)
    assert p.unseal(ARTIFACTS[name], p.Reader(wrong), associated, kinds) is None
    assert p.unseal(ARTIFACTS[name], reader, p.associated_data(PROTOCOL + 1), kinds) is None
    opened = p.unseal(ARTIFACTS[name], reader, associated, kinds)
    assert opened is not None
    assert opened.kind == kind
    assert reader.newest == (sequence if kind >= p.KEEP_ALIVE else -1)
    again = p.unseal(ARTIFACTS[name], reader, associated, kinds)
    assert (again is None) == (kind >= p.KEEP_ALIVE)
    if kind in (p.CHALLENGE, p.RESPONSE):
        number, token = p.decode_challenge(opened.body)
        assert number == INPUTS["challenge_sequence"]
        known = decrypt_challenge(token, number, make_cipher(bytes.fromhex(INPUTS["challenge_key"])))
        assert known == (int(INPUTS["client_id"], 16), bytes.fromhex(INPUTS["user_data"]))
    if kind == p.KEEP_ALIVE:
        assert p.decode_keep_alive(opened.body) == tuple(INPUTS["keep_alive"])


def issue(**changes: object) -> bytes:
    arguments = {"protocol_id": PROTOCOL, "private_key": KEY, "now_unix_s": 1000.5, "client_id": 7} | changes
    servers = arguments.pop("servers", [SERVER])
    return issue_connect_token(servers, **arguments)  # type: ignore[arg-type]


def test_a_token_says_what_it_was_issued_for() -> None:
    """Expiry, servers of both families, timeout, client id and user data arrive at both ends."""
    servers = [SERVER, ("0:0:0:0:0:0:0:1", 9)]
    token = read_connect_token(issue(servers=servers, lifetime_s=30, timeout_s=-1, user_data=b"hello"))
    assert (token.created_unix_s, token.expires_unix_s, token.timeout_s) == (1000, 1030, -1)
    assert token.servers == (SERVER, ("::1", 9))
    private = open_private_token(
        p.Request(protocol_id=PROTOCOL, expires_unix_s=1030, nonce=token.nonce, private=token.private), KEY
    )
    assert private is not None
    assert (private.client_id, private.timeout_s, private.servers) == (7, -1, token.servers)
    assert private.user_data == b"hello".ljust(256, b"\0")


def test_tokens_do_not_repeat() -> None:
    """Two tokens for the same share neither keys nor nonce nor, unless told, the client's id."""
    first, second = (read_connect_token(issue(client_id=None)) for _ in range(2))
    assert first.nonce != second.nonce
    assert (
        len({t.client_to_server_key for t in (first, second)} | {t.server_to_client_key for t in (first, second)}) == 4
    )


@pytest.mark.parametrize(
    ("protocol", "expires", "key"),
    [(PROTOCOL + 1, 1060, KEY), (PROTOCOL, 1061, KEY), (PROTOCOL, 1060, bytes(32))],
)
def test_a_private_token_is_bound(protocol: int, expires: int, key: bytes) -> None:
    """It opens for its own protocol, expiry and key only."""
    token = read_connect_token(issue())
    request = p.Request(protocol_id=protocol, expires_unix_s=expires, nonce=token.nonce, private=token.private)
    assert open_private_token(request, key) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"servers": []}, {"servers": [SERVER] * 33}, {"servers": [("example.com", 1)]}, {"servers": [("::1", 0)]},
        {"private_key": b"short"}, {"user_data": bytes(257)}, {"lifetime_s": -1},
    ],
)  # fmt: skip
def test_arguments_out_of_range_are_refused(changes: dict[str, object]) -> None:
    """A token that nobody could use is not issued."""
    with pytest.raises(ValueError):
        issue(**changes)


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (0, b"X", "version"), (21, struct.pack("<Q", 2**40), "expires"), (13 + 24 + 24 + 1024 + 4, struct.pack("<I", 0), "0 server"),
        (13 + 24 + 24 + 1024 + 4, struct.pack("<I", 33), "33 server"), (13 + 24 + 24 + 1024 + 8, b"\0", "type 0"),
    ],
)  # fmt: skip
def test_bad_connect_tokens(at: int, value: bytes, why: str) -> None:
    """What STANDARD.md calls an invalid connect token is refused by name."""
    token = bytearray(issue())
    token[at : at + len(value)] = value
    with pytest.raises(BadConnectToken, match=why):
        read_connect_token(bytes(token))
    with pytest.raises(BadConnectToken, match="2048"):
        read_connect_token(bytes(token[:-1]))


def test_addresses_as_text() -> None:
    """Both families are read and written; equal places are equal; nothing else is read."""
    for text in ("127.0.0.1:1", "[::1]:65535", "[2001:db8::1:2]:40001"):
        assert format_address(parse_address(text)) == text
    assert parse_address("[0:0::0:1]:7") == make_address("::1", 7)
    for text in (
        "",
        "127.0.0.1",
        "::1:7",
        "[127.0.0.1]:7",
        "host:7",
        "1.2.3.4:0",
        "1.2.3.4:65536",
        "1.2.3.4:x",
        "[::1]",
    ):
        with pytest.raises(ValueError):
            parse_address(text)


def test_private_keys_as_text() -> None:
    """32 bytes of base64url, and an error that does not repeat them."""
    assert parse_private_key("A" * 43) == bytes(32)
    for text in ("", "A" * 42, "secret!" * 6, "é" * 43):
        with pytest.raises(ValueError, match=r"32 bytes in base64url$"):
            parse_private_key(text)
    assert protocol_id_of("arena") != protocol_id_of("arena-eu")
    assert 0 <= protocol_id_of("arena") < 2**64


@pytest.mark.parametrize("start", [0, 1000, 2**63, 2**64 - 1 - 2 * WINDOW])
def test_replay_protection(start: int) -> None:
    """Within the window each number passes once, in any order; older ones do not; up to the top of 64 bits."""
    replay = ReplayProtection()
    newest = start + 2 * WINDOW
    replay.advance(newest)
    fresh = [n for n in range(start, newest + 1) if not replay.seen(n)]
    assert fresh == list(range(newest - WINDOW + 1, newest))
    for number in reversed(fresh):
        assert not replay.seen(number)
        replay.advance(number)
        assert replay.seen(number)
    assert newest == 2**64 - 1 or not replay.seen(newest + 1)


def test_handshakes_are_limited_by_host_and_in_all() -> None:
    """A flooding host is refused while others go on; the limit in all holds against many; credit comes back with time."""
    limits = HandshakeLimits(per_s=20, per_host_per_s=5, burst_s=1)
    assert [limits.allow("192.0.2.1", 0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert limits.allow("192.0.2.2", 0.0)
    assert sum(limits.allow(f"198.51.100.{k}", 0.0) for k in range(100)) == 14
    assert [limits.allow("192.0.2.1", 1.0) for _ in range(6)] == [True] * 5 + [False]
    same_net = HandshakeLimits(per_s=20, per_host_per_s=5, burst_s=1)
    assert sum(same_net.allow(f"2001:db8::{k:x}", 0.0) for k in range(1, 20)) == 5
    mapped = HandshakeLimits(per_s=20, per_host_per_s=1, burst_s=1)
    assert [mapped.allow(f"::ffff:192.0.2.{k}", 0.0) for k in (1, 2, 1)] == [True, True, False]


def test_the_hosts_remembered_are_bounded() -> None:
    """Any number of spoofed addresses leave a table of 4,096."""
    limits = HandshakeLimits()
    for k in range(5000):
        limits.allow(f"10.0.{k // 256}.{k % 256}", 0.0)
    assert len(limits._hosts) == 4096


def test_used_tokens() -> None:
    """One address, one connection; a full table refuses rather than forgets, until tokens expire."""
    used = UsedTokens(2)
    assert used.admit(b"a", "here", 100, 0)
    assert used.admit(b"a", "here", 100, 0)
    assert not used.admit(b"a", "there", 100, 0)
    used.spend(b"a")
    assert not used.admit(b"a", "here", 100, 0)
    assert used.admit(b"b", "here", 50, 0)
    assert not used.admit(b"c", "here", 100, 49)
    assert used.admit(b"c", "here", 100, 50)
    assert not used.admit(b"a", "here", 100, 50)


def test_a_clock_that_is_set_back_brings_no_used_token_to_life() -> None:
    """Forgotten while the clock was ahead, and refused once it is right again."""
    used = UsedTokens(1)
    assert used.admit(b"a", "here", 100, 50)
    assert used.admit(b"b", "here", 9100, 9000)
    assert not used.admit(b"a", "there", 100, 60)
    assert used.admit(b"c", "here", 9200, 9150)


def fragments(message: bytes, number: int) -> list[m.Fragment]:
    decoded = [m.decode_server(piece) for piece in split(message, number)]
    assert all(isinstance(fragment, m.Fragment) for fragment in decoded)
    return decoded  # type: ignore[return-value]


@pytest.mark.parametrize("size", [1, 1100, 1101, 2200, MAX_MESSAGE_BYTES])
def test_fragments_come_together_again(size: int) -> None:
    """In reverse, with one twice, interleaved with another message, and each within a payload."""
    message = bytes(k % 251 for k in range(size))
    assert max(len(piece) for piece in split(message, 9)) <= p.MAX_PAYLOAD_BYTES
    reassembly = Reassembly()
    others = fragments(bytes(5000), 70000)
    whole = []
    for fragment in reversed(fragments(message, 9)):
        for piece in (others[0], fragment):
            whole.append(reassembly.add(piece))
    assert [w for w in whole if w is not None] == [message]


def test_unfinished_messages_are_bounded() -> None:
    """A ninth message in pieces pushes out the first."""
    reassembly = Reassembly()
    messages = [fragments(bytes([k]) * 2000, k) for k in range(9)]
    for first, _ in messages:
        assert reassembly.add(first) is None
    assert [reassembly.add(second) is not None for _, second in reversed(messages)] == [True] * 8 + [False]


def test_lost_packets_are_counted_once_they_are_too_old() -> None:
    """A gap counts when its packet could no longer be taken; late and repeated ones do not."""
    replay = ReplayProtection()
    for sequence in [7, 8, 10, 9, 12, *range(14, 13 + WINDOW)]:  # 11 and 13 never come
        replay.advance(sequence)
    assert replay.lost == 1
    replay.advance(13 + WINDOW)
    assert replay.lost == 2
    replay.advance(1 << 60)
    assert replay.lost <= 2 + WINDOW
