"""
netcode's packets and their bytes; STANDARD.md "Packets" and "Reading Encrypted Packets" are the specification.

Readers return None for whatever is to be ignored, in the order of checks that the standard gives; they never raise.
"""

import struct
from collections.abc import Callable, Container, Hashable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, TypeVar

from gameserver.protocol.netcode.crypto import (
    AEAD_DECRYPT,
    AEAD_ENCRYPT,
    MAC_BYTES,
    MAKE_NONCE,
    NULL,
    TOKEN_NONCE_BYTES,
    Cipher,
    make_room,
)
from gameserver.protocol.netcode.replay import ReplayProtection
from gameserver.protocol.netcode.rows import ROW_BYTES, Rows

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
    PAYLOAD: (),
    DISCONNECT: (0,),
}
"""Of the bodies of packets but payloads, which may have any size from 1 to MAX_PAYLOAD_BYTES."""
SERVER_READS = frozenset({RESPONSE, KEEP_ALIVE, PAYLOAD, DISCONNECT})
CLIENT_READS = frozenset({DENIED, CHALLENGE, KEEP_ALIVE, PAYLOAD, DISCONNECT})

_HEAD = struct.Struct("<BQ")
"""Of an encrypted packet at its longest: its first byte and its number."""
_READ_HEAD, _WRITE_HEAD = _HEAD.unpack_from, _HEAD.pack_into
_NUMBERS = tuple((1 << 8 * (head_size - 1)) - 1 if head_size else 0 for head_size in range(10))
"""What is the number of the eight bytes after the first one, by the size of the head."""
_SHORTEST_BYTES = 2 + MAC_BYTES

Packet = tuple[Hashable, int, int, bytes, bytes, Cipher]
"""One to be sealed: (whom it is for, kind, sequence, begin and rest of the body, key). A plain tuple: one is made for every client and tick."""


class AssociatedData:
    """What a protocol's packets are bound to, and room to work on one of them at a time: for one connection's side, not for several threads."""

    __slots__ = ("by_prefix", "plain", "row", "size", "text")

    def __init__(self, protocol_id: int) -> None:
        head = VERSION_INFO + struct.pack("<Q", protocol_id)
        self.by_prefix = tuple(head + bytes((prefix,)) for prefix in range(256))
        """By the packet's first byte."""
        self.size = len(head) + 1
        self.row = Rows(1)
        """For a packet that comes or goes alone."""
        self.plain, self.text = make_room(MAX_PACKET_BYTES)
        """Where packets are decrypted to: as a pointer and as a buffer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The first packet of a client, the only one in clear."""

    protocol_id: int
    expires_unix_s: int
    nonce: bytes
    private: bytes
    """The encrypted private part of the connect token."""


class Reader(ReplayProtection):
    """What the packets of one sender are read with: a key, and which ones were taken."""

    __slots__ = ("heard_at_s", "key")

    def __init__(self, key: Cipher) -> None:
        super().__init__()
        self.key = key
        self.heard_at_s = 0.0
        """When a packet was taken last; responses aside, which may be replayed."""


R = TypeVar("R", bound=Reader)


class Opened(NamedTuple):
    """A packet that was decrypted."""

    kind: int
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
    if len(body) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a packet of {len(body)} bytes: at most {MAX_PAYLOAD_BYTES} are wanted")
    (size,) = seal_rows(((None, kind, sequence, b"", body, cipher),), associated.row, associated)
    sealed: bytes = associated.row.view[:size]
    return sealed


def seal_rows(packets: Iterable[Packet], rows: Rows, associated: AssociatedData) -> list[int]:
    """
    Encrypt packets of at most MAX_PAYLOAD_BYTES, one into each row from the first on; returns how long they are.

    No (sequence, key) may ever be sealed twice.
    """
    # This runs for each client and tick: nothing is made that can be spared.
    by_prefix, bound_size, view = associated.by_prefix, associated.size, rows.view
    write_head, encrypt, make_nonce, null = _WRITE_HEAD, AEAD_ENCRYPT, MAKE_NONCE, NULL
    sizes: list[int] = []
    for (_, kind, sequence, begin, rest, cipher), start, row in zip(packets, rows.starts, rows.pointers, strict=False):
        body = begin + rest  # here, not before: one piece of memory, which the caches know, serves all packets
        number_size = (sequence.bit_length() + 7) >> 3 or 1
        prefix = number_size << 4 | kind
        write_head(view, start, prefix, sequence)  # zeros after the number are overwritten by the body
        head_size, size = 1 + number_size, len(body)
        encrypt(row + head_size, null, body, size, by_prefix[prefix], bound_size, null, make_nonce(0, sequence), cipher)
        sizes.append(head_size + size + MAC_BYTES)
    return sizes


def unseal(data: bytes, reader: Reader, associated: AssociatedData, kinds: frozenset[int]) -> Opened | None:
    """Check and decrypt a packet of one of `kinds`, and note it as taken; None for one to ignore."""
    associated.row.put(data)
    payloads: list[tuple[Reader, bytes]] = []
    for _, kind, body in unseal_rows(associated.row, (len(data),), (reader,), associated, kinds, 0.0, payloads.append):
        return Opened(kind, body) if kind else None
    return Opened(PAYLOAD, payloads[0][1])


def unseal_rows(
    rows: Rows, sizes: Iterable[int], readers: Iterable[R | None], associated: AssociatedData, kinds: frozenset[int],
    time_s: float, take: Callable[[tuple[R, bytes]], None],
) -> Iterator[tuple[int, int, bytes]]:  # fmt: skip
    """
    Do the same with packets in rows, each with its own reader, which is asked for once the packet before is dealt with.

    Payloads are handed to `take`, as (reader, payload).
    Yields: the others, as (row, kind, body); the kind is 0 for a packet to ignore, or without a reader.
    """
    # This runs for each input of each player: nothing is called that can be spared.
    by_prefix, bound_size, view = associated.by_prefix, associated.size, rows.view
    plain, text, null = associated.plain, associated.text, NULL
    read_head, decrypt, make_nonce, numbers = _READ_HEAD, AEAD_DECRYPT, MAKE_NONCE, _NUMBERS
    for reader, size, start, row in zip(readers, sizes, rows.starts, rows.pointers, strict=False):
        if reader is not None and _SHORTEST_BYTES <= size <= MAX_PACKET_BYTES:
            prefix, sequence = read_head(view, start)
            kind, head_size = prefix & 15, 1 + (prefix >> 4)
            sealed_size = size - head_size
            if kind in kinds and 2 <= head_size <= 9 and sealed_size >= MAC_BYTES:
                sequence &= numbers[head_size]
                once = kind >= KEEP_ALIVE
                if not (once and sequence <= reader.newest and reader.seen(sequence)) and not decrypt(
                    plain, null, null, row + head_size, sealed_size, by_prefix[prefix], bound_size,
                    make_nonce(0, sequence), reader.key,
                ):  # fmt: skip
                    if once:
                        reader.advance(sequence)
                        reader.heard_at_s = time_s
                    length = sealed_size - MAC_BYTES
                    if kind == PAYLOAD and 0 < length <= MAX_PAYLOAD_BYTES:
                        take((reader, text[:length]))
                        continue
                    if length in _SIZES[kind]:
                        yield start // ROW_BYTES, kind, text[:length]
                        continue
        yield start // ROW_BYTES, 0, b""


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
