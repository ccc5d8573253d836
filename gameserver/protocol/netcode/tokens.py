"""
Connect tokens and challenge tokens; STANDARD.md "Connect Token" and "Challenge Token" are the specification.

The matchmaker calls `issue_connect_token`, the client `read_connect_token`, the server `open_private_token`.

The two secrets of a deployment: a private key of 32 random bytes that the matchmaker and every game server know (`WARMFLEET_NETCODE_KEY`, base64url), and
the protocol id, which is no secret (`protocol_id_of(fleet)`). A key is changed by restarting servers and matchmaker with the new one; tokens
live for a minute, so nobody who is playing notices.
"""

import base64
import binascii
import hashlib
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gameserver.protocol.netcode.addresses import Address, decode_addresses, encode_addresses, make_address
from gameserver.protocol.netcode.crypto import (
    KEY_BYTES,
    MAC_BYTES,
    TOKEN_NONCE_BYTES,
    Cipher,
    decrypt,
    decrypt_token,
    encrypt,
    encrypt_token,
)
from gameserver.protocol.netcode.packets import CHALLENGE_TOKEN_BYTES, PRIVATE_TOKEN_BYTES, VERSION_INFO, Request

CONNECT_TOKEN_BYTES = 2048
USER_DATA_BYTES = 256
DEFAULT_LIFETIME_S = 60
"""As a seat token's: long enough to dial a server."""
DEFAULT_TIMEOUT_S = 5
"""Silence after which either side gives the connection up."""
_PUBLIC = struct.Struct(f"<13sQQQ{TOKEN_NONCE_BYTES}s{PRIVATE_TOKEN_BYTES}si")
_CHALLENGE = struct.Struct(f"<Q{USER_DATA_BYTES}s")


class BadConnectToken(ValueError):
    """The bytes are no connect token of this version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateToken:
    """What the matchmaker tells the server about one client."""

    client_id: int
    timeout_s: int
    """0 or less: never (development only)."""
    servers: tuple[Address, ...]
    client_to_server_key: bytes
    server_to_client_key: bytes
    user_data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectToken:
    """What the matchmaker tells the client."""

    protocol_id: int
    created_unix_s: int
    expires_unix_s: int
    nonce: bytes
    private: bytes
    """Encrypted; the client passes it on."""
    timeout_s: int
    servers: tuple[Address, ...]
    client_to_server_key: bytes
    server_to_client_key: bytes


def protocol_id_of(name: str) -> int:
    """The protocol id of whoever agrees on a name: a fleet's servers, its players' clients and the matchmaker."""
    return int.from_bytes(hashlib.sha256(b"warmfleet.1/" + name.encode()).digest()[:8], "little")


def parse_private_key(text: str) -> bytes:
    """Read a private key from base64url, with or without padding. Raises ValueError, which does not repeat the key."""
    try:
        key = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError("a netcode key is 32 bytes in base64url")
    return key


def parse_private_keys(text: str) -> tuple[bytes, ...]:
    """
    Read keys that are separated by commas: tokens are made with the first, and servers accept those of all, so that keys can be rotated.

    Raises ValueError, which repeats none.
    """
    return tuple(parse_private_key(part.strip()) for part in text.split(","))


def issue_connect_token(
    servers: Sequence[Address],
    *,
    protocol_id: int,
    private_key: bytes,
    now_unix_s: float,
    client_id: int | None = None,
    lifetime_s: int = DEFAULT_LIFETIME_S,
    timeout_s: int = DEFAULT_TIMEOUT_S,
    user_data: bytes = b"",
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> bytes:
    """
    Make a connect token: 2,048 bytes for the client, over TLS only, since they hold its keys.

    Args:
        servers: where the client may connect, tried in this order; 1 to 32. A server takes the token only if its own address is among them.
        client_id: a server has one connection per id at a time. None for a random one, so that a player who reconnects does not wait for
            its lost connection to time out; the seat token in Hello says who it is.
        timeout_s: silence after which both sides give up; 0 or less for never.
        user_data: up to 256 bytes for the server, zero padded.
    Raises: ValueError for an argument out of its range.
    """
    servers = tuple(make_address(host, port) for host, port in servers)
    if not 1 <= len(servers) <= 32 or len(private_key) != KEY_BYTES or len(user_data) > USER_DATA_BYTES:
        raise ValueError("1 to 32 servers, a key of 32 bytes and at most 256 bytes of user data are wanted")
    if lifetime_s < 0:
        raise ValueError(f"a lifetime of {lifetime_s} s ends before it begins")
    created = int(now_unix_s)
    private = PrivateToken(
        client_id=int.from_bytes(random_bytes(8), "little") if client_id is None else client_id,
        timeout_s=timeout_s,
        servers=servers,
        client_to_server_key=random_bytes(KEY_BYTES),
        server_to_client_key=random_bytes(KEY_BYTES),
        user_data=user_data.ljust(USER_DATA_BYTES, b"\0"),
    )
    nonce = random_bytes(TOKEN_NONCE_BYTES)
    token = ConnectToken(
        protocol_id=protocol_id,
        created_unix_s=created,
        expires_unix_s=created + lifetime_s,
        nonce=nonce,
        private=encrypt_token(
            encode_private(private), token_binding(protocol_id, created + lifetime_s), nonce, private_key
        ),
        timeout_s=timeout_s,
        servers=servers,
        client_to_server_key=private.client_to_server_key,
        server_to_client_key=private.server_to_client_key,
    )
    return encode_connect_token(token)


def encode_connect_token(token: ConnectToken) -> bytes:
    """Write a connect token."""
    head = _PUBLIC.pack(
        VERSION_INFO, token.protocol_id, token.created_unix_s, token.expires_unix_s, token.nonce, token.private,
        token.timeout_s,
    )  # fmt: skip
    body = head + encode_addresses(token.servers) + token.client_to_server_key + token.server_to_client_key
    return body.ljust(CONNECT_TOKEN_BYTES, b"\0")


def read_connect_token(data: bytes) -> ConnectToken:
    """Read a connect token. Raises BadConnectToken."""
    if len(data) != CONNECT_TOKEN_BYTES:
        raise BadConnectToken(f"{CONNECT_TOKEN_BYTES} bytes are wanted, got {len(data)}")
    version, protocol_id, created, expires, nonce, private, timeout_s = _PUBLIC.unpack_from(data)
    if version != VERSION_INFO:
        raise BadConnectToken("another version of netcode")
    if created > expires:
        raise BadConnectToken("it expires before it was made")
    try:
        servers, at = decode_addresses(data, _PUBLIC.size)
    except (ValueError, struct.error) as error:
        raise BadConnectToken(str(error)) from error
    return ConnectToken(
        protocol_id=protocol_id,
        created_unix_s=created,
        expires_unix_s=expires,
        nonce=nonce,
        private=private,
        timeout_s=timeout_s,
        servers=servers,
        client_to_server_key=data[at : at + KEY_BYTES],
        server_to_client_key=data[at + KEY_BYTES : at + 2 * KEY_BYTES],
    )


def encode_private(token: PrivateToken) -> bytes:
    """The private part before encryption, without the room for its MAC."""
    head = struct.pack("<Qi", token.client_id, token.timeout_s) + encode_addresses(token.servers)
    body = head + token.client_to_server_key + token.server_to_client_key + token.user_data
    return body.ljust(PRIVATE_TOKEN_BYTES - MAC_BYTES, b"\0")


def open_private_token(request: Request, private_key: bytes) -> PrivateToken | None:
    """Decrypt and read what a connection request carries; None for one that was not made with this key, or is malformed."""
    associated = token_binding(request.protocol_id, request.expires_unix_s)
    data = decrypt_token(request.private, associated, request.nonce, private_key)
    if data is None:
        return None
    client_id, timeout_s = struct.unpack_from("<Qi", data)
    try:
        servers, at = decode_addresses(data, 12)
    except (ValueError, struct.error):
        return None
    keys, user = at + KEY_BYTES, at + 2 * KEY_BYTES
    return PrivateToken(
        client_id=client_id,
        timeout_s=timeout_s,
        servers=servers,
        client_to_server_key=data[at:keys],
        server_to_client_key=data[keys:user],
        user_data=data[user : user + USER_DATA_BYTES],
    )


def encrypt_challenge(client_id: int, user_data: bytes, sequence: int, cipher: Cipher) -> bytes:
    """Make a challenge token: what only this server can read."""
    plain = _CHALLENGE.pack(client_id, user_data).ljust(CHALLENGE_TOKEN_BYTES - MAC_BYTES, b"\0")
    return encrypt(cipher, sequence, plain)


def decrypt_challenge(token: bytes, sequence: int, cipher: Cipher) -> tuple[int, bytes] | None:
    """(client id, user data) of a challenge token; None for one that this server did not make."""
    plain = decrypt(cipher, sequence, token)
    if plain is None:
        return None
    client_id, user_data = _CHALLENGE.unpack_from(plain)
    return client_id, user_data


def token_binding(protocol_id: int, expires_unix_s: int) -> bytes:
    """What the private part of a connect token is bound to."""
    return VERSION_INFO + struct.pack("<QQ", protocol_id, expires_unix_s)
