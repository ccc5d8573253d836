"""
netcode's packets and their bytes; STANDARD.md "Packets" and "Reading Encrypted Packets" are the specification.

Readers return None for whatever is to be ignored, in the order of checks that the standard gives; they never raise.
"""

import struct
from collections.abc import Container
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from gameserver.protocol.netcode.crypto import (
    AEAD_DECRYPT,
    AEAD_ENCRYPT,
    MAC_BYTES,
    NULL,
    TOKEN_NONCE_BYTES,
    Cipher,
    make_room,
)
from gameserver.protocol.netcode.replay import ReplayProtection

VERSION_INFO = b"NETCODE 1.02\0"
PRIVATE_TOKEN_BYTES = 1024
CHALLENGE_TOKEN_BYTES = 300
MAX_PAYLOAD_BYTES = 1200
MAX_PACKET_BYTES = 1 + 8 + MAX_PAYLOAD_BYTES + MAC_BYTES
"""Nothing longer is valid."""
DISCONNECT_PACKETS = 10
"""Sent in a row, so that one arrives. Source: the reference implementation."""
SEND_INTERVAL_S = 0.1
"""Of requests, responses and keep-alives. Source: STANDARD.md, "at some rate, like 10HZ"."""


class PacketKind(IntEnum):
    """The low four bits of the first byte."""

    REQUEST = 0
    DENIED = 1
    CHALLENGE = 2
    RESPONSE = 3
    KEEP_ALIVE = 4
    PAYLOAD = 5
    DISCONNECT = 6


# Plain integers where every packet is looked at: an enum's attribute costs twice as much.
DENIED, CHALLENGE, RESPONSE, KEEP_ALIVE, PAYLOAD, DISCONNECT = 1, 2, 3, 4, 5, 6

_REQUEST = struct.Struct(f"<B13sQQ{TOKEN_NONCE_BYTES}s{PRIVATE_TOKEN_BYTES}s")
REQUEST_BYTES = _REQUEST.size
_KEEP_ALIVE = struct.Struct("<II")
_CHALLENGE = struct.Struct(f"<Q{CHALLENGE_TOKEN_BYTES}s")
_SIZES: dict[int, Container[int]] = {
    DENIED: (0,),
    CHALLENGE: (_CHALLENGE.size,),
    RESPONSE: (_CHALLENGE.size,),
    KEEP_ALIVE: (_KEEP_ALIVE.size,),
    PAYLOAD: range(1, MAX_PAYLOAD_BYTES + 1),
    DISCONNECT: (0,),
}
SERVER_READS = frozenset({RESPONSE, KEEP_ALIVE, PAYLOAD, DISCONNECT})
_PREFIXES = tuple(bytes((prefix,)) for prefix in range(256))
CLIENT_READS = frozenset({DENIED, CHALLENGE, KEEP_ALIVE, PAYLOAD, DISCONNECT})

_HEAD_BYTES = 9
"""Of an encrypted packet at most: its first byte and its number."""


class AssociatedData:
    """What a protocol's packets are bound to, and room to work on one of them at a time: for one connection's side, not for several threads."""

    __slots__ = ("_memory", "body", "by_prefix", "room", "size")

    def __init__(self, protocol_id: int) -> None:
        head = VERSION_INFO + struct.pack("<Q", protocol_id)
        self.by_prefix = tuple(head + bytes((prefix,)) for prefix in range(256))
        """By the packet's first byte."""
        self.size = len(head) + 1
        self._memory, self.room = make_room(MAX_PACKET_BYTES)
        self.body = self._memory + _HEAD_BYTES
        """Where in `room` the body of a packet begins, as a pointer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The first packet of a client, the only one in clear."""

    protocol_id: int
    expires_unix_s: int
    nonce: bytes
    private: bytes
    """The encrypted private part of the connect token."""


class Opened(NamedTuple):
    """A packet that was decrypted (a tuple: one is made for every packet)."""

    kind: int
    sequence: int
    body: bytes


def associated_data(protocol_id: int) -> AssociatedData:
    """All that packets of a protocol can be bound to, made once."""
    return AssociatedData(protocol_id)


def encode_request(request: Request) -> bytes:
    """Write a connection request."""
    return _REQUEST.pack(0, VERSION_INFO, request.protocol_id, request.expires_unix_s, request.nonce, request.private)


def decode_request(data: bytes) -> Request | None:
    """Read a connection request; nothing in it is trustworthy yet."""
    if len(data) != REQUEST_BYTES:
        return None
    prefix, version, protocol_id, expires, nonce, private = _REQUEST.unpack(data)
    if prefix != PacketKind.REQUEST or version != VERSION_INFO:
        return None
    return Request(protocol_id=protocol_id, expires_unix_s=expires, nonce=nonce, private=private)


def seal(kind: int, sequence: int, body: bytes, cipher: Cipher, associated: AssociatedData) -> bytes:
    """Encrypt a packet of at most MAX_PAYLOAD_BYTES (ValueError). No (sequence, key) may ever be sealed twice."""
    length = len(body)
    if length > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a packet of {length} bytes: at most {MAX_PAYLOAD_BYTES} are wanted")
    number = sequence.to_bytes(8, "little")
    size = (sequence.bit_length() + 7) >> 3 or 1
    prefix = size << 4 | kind
    bound = associated.by_prefix[prefix]
    AEAD_ENCRYPT(associated.body, NULL, body, length, bound, associated.size, NULL, b"\0\0\0\0" + number, cipher)
    start = 8 - size
    associated.room[start:9] = _PREFIXES[prefix] + number[:size]
    sealed: bytes = associated.room[start : 25 + length]
    return sealed


def unseal(
    data: bytes, cipher: Cipher, associated: AssociatedData, replay: ReplayProtection, kinds: frozenset[int]
) -> Opened | None:
    """Check and decrypt a packet of one of `kinds`, and note it as taken; None for one to ignore."""
    length = len(data)
    if not 18 <= length <= MAX_PACKET_BYTES:
        return None
    prefix = data[0]
    kind, size = prefix & 15, prefix >> 4
    length -= 1 + size
    if kind not in kinds or not 1 <= size <= 8 or length < MAC_BYTES:
        return None
    sequence = int.from_bytes(data[1 : 1 + size], "little")
    if kind >= KEEP_ALIVE and replay.seen(sequence):
        return None
    bound, nonce = associated.by_prefix[prefix], b"\0\0\0\0" + sequence.to_bytes(8, "little")
    if AEAD_DECRYPT(associated.body, NULL, NULL, data[1 + size :], length, bound, associated.size, nonce, cipher):
        return None
    if kind >= KEEP_ALIVE:
        replay.advance(sequence)
    length -= MAC_BYTES
    if length not in _SIZES[kind]:
        return None
    # Past the constructor that NamedTuple makes, which takes twice as long.
    return tuple.__new__(Opened, (kind, sequence, associated.room[9 : 9 + length]))


def encode_keep_alive(index: int, max_clients: int) -> bytes:
    """Body of a keep-alive; a client sends zeros."""
    return _KEEP_ALIVE.pack(index, max_clients)


def decode_keep_alive(body: bytes) -> tuple[int, int]:
    """(client index, max clients) of a keep-alive."""
    index, max_clients = _KEEP_ALIVE.unpack(body)
    return index, max_clients


def encode_challenge(sequence: int, token: bytes) -> bytes:
    """Body of a challenge, and of the response that brings it back."""
    return _CHALLENGE.pack(sequence, token)


def decode_challenge(body: bytes) -> tuple[int, bytes]:
    """(challenge sequence, encrypted challenge token)."""
    sequence, token = _CHALLENGE.unpack(body)
    return sequence, token
