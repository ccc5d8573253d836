"""
The datagrams of a ping beacon (docs/beacons.md), as bytes; both sides use it. Little-endian; every datagram begins with `MAGIC` and its kind.

| kind | from | after the kind |
|---|---|---|
| 1 hello | client | nonce (8), padding to `HELLO_SIZE` |
| 2 cookie | beacon | nonce (8), cookie (`COOKIE_SIZE`) |
| 3 measure | client | nonce (8), cookie, length of the player's id (1), the id (UTF-8), padding to `MEASURE_SIZE` |
| 4 token | beacon | nonce (8), the token (ASCII) |

A reply is never longer than what it answers: whoever forges an address gains nothing by it.
"""

from dataclasses import dataclass

MAGIC = b"WFB1"
NONCE_SIZE = 8
COOKIE_SIZE = 24
HELLO_SIZE = 64
MEASURE_SIZE = 512
LONGEST_PLAYER = 128
_HEAD = len(MAGIC) + 1 + NONCE_SIZE


@dataclass(frozen=True, slots=True)
class Hello:
    """Asks for a cookie."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class Cookie:
    """To be sent back at once: the time that takes is the round trip."""

    nonce: bytes
    cookie: bytes


@dataclass(frozen=True, slots=True)
class Measure:
    """Sends the cookie back, and says for whom."""

    nonce: bytes
    cookie: bytes
    player: str


@dataclass(frozen=True, slots=True)
class Token:
    """The signed round trip."""

    nonce: bytes
    token: str


Datagram = Hello | Cookie | Measure | Token


def encode(datagram: Datagram) -> bytes:
    """Raises ValueError for a player's id that is too long."""
    match datagram:
        case Hello(nonce):
            return (MAGIC + b"\x01" + nonce).ljust(HELLO_SIZE, b"\0")
        case Cookie(nonce, cookie):
            return MAGIC + b"\x02" + nonce + cookie
        case Measure(nonce, cookie, player):
            name = player.encode()
            if not 0 < len(name) <= LONGEST_PLAYER:
                raise ValueError(f"a player's id has 1 to {LONGEST_PLAYER} bytes")
            return (MAGIC + b"\x03" + nonce + cookie + bytes([len(name)]) + name).ljust(MEASURE_SIZE, b"\0")
        case Token(nonce, token):
            return MAGIC + b"\x04" + nonce + token.encode("ascii")


def decode(data: bytes) -> Datagram | None:
    """What a datagram says; None for anything else, a request that is shorter than its reply among it."""
    if len(data) < _HEAD or data[: len(MAGIC)] != MAGIC:
        return None
    kind, nonce, rest = data[len(MAGIC)], data[len(MAGIC) + 1 : _HEAD], data[_HEAD:]
    try:
        if kind == 1 and len(data) >= HELLO_SIZE:
            return Hello(nonce)
        if kind == 2 and len(rest) == COOKIE_SIZE:
            return Cookie(nonce, rest)
        if kind == 3 and len(data) >= MEASURE_SIZE:
            size = rest[COOKIE_SIZE]
            name = rest[COOKIE_SIZE + 1 : COOKIE_SIZE + 1 + size]
            return Measure(nonce, rest[:COOKIE_SIZE], name.decode()) if 0 < size <= LONGEST_PLAYER else None
        if kind == 4:
            return Token(nonce, rest.decode("ascii"))
    except UnicodeDecodeError:
        return None
    return None
