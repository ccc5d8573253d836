"""
The messages of the wire protocol and their bytes; docs/protocol.md is the specification.

`encode` and the two decoders are each other's inverse. Any byte string decodes to a message or raises MalformedMessage; what a decoder
allocates is bounded by the size of its input.
"""

import json
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NoReturn, TypeVar

_M = TypeVar("_M")

VERSION = 1
SUBPROTOCOL = "warmfleet.1"
SPECTATOR_SEAT = 0xFFFF
MAX_INPUTS = 32
"""Inputs in one message at most."""


RESULTS = "results"
"""Name of the last event of a match that its game has ended: `{"name": "results", "results": {…}}`. No game's own event has it."""


class MalformedMessage(ValueError):
    """The peer's bytes break docs/protocol.md; close the connection with CloseCode.MALFORMED."""


class CloseCode(IntEnum):
    """Why a connection ends: in Bye, and plus 4000 as the WebSocket's close code."""

    NORMAL = 0
    GOING_AWAY = 1
    MALFORMED = 2
    UNAUTHORIZED = 3
    VERSION = 4
    TOO_SLOW = 5
    FLOOD = 6
    SUPERSEDED = 7
    KICKED = 8
    GAME_ERROR = 9
    TIMEOUT = 10
    FULL = 11
    FENCED = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The client's first message."""

    token: str
    version: int = VERSION
    spectator: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What a player did; also acknowledges snapshots and events."""

    ack_tick: int
    ack_event: int
    view: int
    """Tick × 256 that the player saw; 0 for none."""
    first_seq: int
    """From 1; 0 for a record that is never applied, of a client that has made no input yet."""
    count: int
    records: bytes
    """count × the game's input record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """Measures the round trip."""

    client_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong:
    """Answers Ping."""

    client_ms: int
    server_tick: int
    """Tick × 256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bye:
    """The last message of either side."""

    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """The server's answer to Hello."""

    seat: int
    tick_rate_hz: int
    tick: int
    epoch: int
    room: dict[str, Any]
    version: int = VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state at a tick; `body` is read by `snapshot.py`."""

    ack_input: int
    tick: int
    baseline: int
    body: bytes


class SharedSnapshot:
    """The newest Snapshot for all clients with one baseline: they differ in `ack_input` alone."""

    __slots__ = ("baseline", "frame", "rest", "size_bytes")

    def __init__(self, tick: int, baseline: int, body: bytes) -> None:
        self.baseline = baseline
        self.rest = SNAPSHOT_HEADER.pack(0x82, 0, tick, baseline, 0)[SNAPSHOT_BEGIN.size :] + body
        """What comes behind `SNAPSHOT_BEGIN`."""
        self.size_bytes = SNAPSHOT_BEGIN.size + len(self.rest)
        self.frame: bytearray | None = None
        """Whatever a transport makes of it once and sends many times."""

    def message(self, ack_input: int) -> bytes:
        """The bytes for a client whose newest applied input is `ack_input`."""
        return SNAPSHOT_BEGIN.pack(0x82, ack_input) + self.rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, told once, in order."""

    seq: int
    tick: int
    data: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrate:
    """The session moves: connect to its new place."""

    data: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """A piece of a long message, over UDP only."""

    id: int
    index: int
    count: int
    piece: bytes


ClientMessage = Hello | Input | Ping | Bye
ServerMessage = Welcome | Snapshot | Event | Pong | Migrate | Bye | Fragment

INPUT_HEADER = struct.Struct("<BIIIIB")
SNAPSHOT_HEADER = struct.Struct("<BIIIB")
SNAPSHOT_BEGIN = struct.Struct("<BI")
"""Of a Snapshot: its type and `ack_input`, the only field that clients with one baseline do not share."""
_PING = struct.Struct("<BI")
_PONG = struct.Struct("<BII")
_WELCOME = struct.Struct("<BBHHIII")
_EVENT = struct.Struct("<BIIH")
FRAGMENT_HEADER = struct.Struct("<BHBB")


def encode(message: ClientMessage | ServerMessage) -> bytes:
    """Turn a message into its bytes. Raises ValueError where a value does not fit its field."""
    try:
        return _encode(message)
    except struct.error as error:
        raise ValueError(f"{type(message).__name__} does not fit the wire: {error}") from error


def _encode(message: ClientMessage | ServerMessage) -> bytes:
    match message:
        case Hello():
            return bytes((0x01, message.version, int(message.spectator))) + _str16(message.token)
        case Input():
            head = (message.ack_tick, message.ack_event, message.view, message.first_seq, message.count)
            return INPUT_HEADER.pack(0x02, *head) + message.records
        case Ping():
            return _PING.pack(0x03, message.client_ms)
        case Bye(code=code, reason=reason):
            return _bye(0x86, code, reason)
        case Welcome():
            room = _json(message.room)
            start = (message.version, message.seat, message.tick_rate_hz)
            return _WELCOME.pack(0x81, *start, message.tick, message.epoch, len(room)) + room
        case Snapshot():
            return SNAPSHOT_HEADER.pack(0x82, message.ack_input, message.tick, message.baseline, 0) + message.body
        case Event():
            data = _json(message.data)
            return _EVENT.pack(0x83, message.seq, message.tick, len(data)) + data
        case Pong():
            return _PONG.pack(0x84, message.client_ms, message.server_tick)
        case Migrate():
            data = _json(message.data)
            return struct.pack("<BH", 0x85, len(data)) + data
        case Fragment():
            return FRAGMENT_HEADER.pack(0x87, message.id, message.index, message.count) + message.piece


def encode_client_bye(code: int, reason: str = "") -> bytes:
    """Bye as a client sends it (its type byte differs from the server's)."""
    return _bye(0x04, code, reason)


def decode_client(data: bytes) -> ClientMessage:
    """Read a message that a client sent. Raises MalformedMessage."""
    return _Reader(data).client()


def input_head(data: bytes) -> tuple[int, int, int, int, int]:
    """(ack_tick, ack_event, view, first_seq, count) of an Input's bytes, without making a message of it. Raises MalformedMessage."""
    if len(data) < INPUT_HEADER.size:
        raise MalformedMessage(f"type 0x02: {len(data)} bytes are too few")
    _, ack_tick, ack_event, view, first_seq, count = INPUT_HEADER.unpack_from(data)
    if not 1 <= count <= MAX_INPUTS:
        raise MalformedMessage(f"type 0x02: {count} inputs")
    return ack_tick, ack_event, view, first_seq, count


def decode_server(data: bytes) -> ServerMessage:
    """Read a message that a server sent. Raises MalformedMessage."""
    return _Reader(data).server()


def _bye(kind: int, code: int, reason: str) -> bytes:
    return bytes((kind, code)) + _str16(reason)


def _str16(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<H", len(raw)) + raw


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


class _Reader:
    """Reads one message; every reader method checks that the bytes are there."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 1

    def client(self) -> ClientMessage:
        message: ClientMessage
        match self._type():
            case 0x01:
                version, flags = self._unpack("<BB")
                message = Hello(version=version, spectator=bool(flags & 1), token=self._text("<H"))
            case 0x02:
                ack_tick, ack_event, view, first_seq, count = self._unpack("<IIIIB")
                if not 1 <= count <= MAX_INPUTS:
                    self._fail(f"{count} inputs")
                message = Input(
                    ack_tick=ack_tick, ack_event=ack_event, view=view, first_seq=first_seq, count=count,
                    records=self._rest(),
                )  # fmt: skip
            case 0x03:
                message = Ping(client_ms=self._unpack("<I")[0])
            case 0x04:
                message = Bye(code=self._unpack("<B")[0], reason=self._text("<H"))
            case other:
                self._fail(f"unknown type {other:#04x}")
        return self._end(message)

    def server(self) -> ServerMessage:
        message: ServerMessage
        match self._type():
            case 0x81:
                version, seat, rate, tick, epoch = self._unpack("<BHHII")
                room = self._object("<I")
                message = Welcome(version=version, seat=seat, tick_rate_hz=rate, tick=tick, epoch=epoch, room=room)
            case 0x82:
                ack_input, tick, baseline, flags = self._unpack("<IIIB")
                if flags:
                    self._fail(f"unknown snapshot flags {flags:#04x}")
                message = Snapshot(ack_input=ack_input, tick=tick, baseline=baseline, body=self._rest())
            case 0x83:
                seq, tick = self._unpack("<II")
                message = Event(seq=seq, tick=tick, data=self._object("<H"))
            case 0x84:
                client_ms, server_tick = self._unpack("<II")
                message = Pong(client_ms=client_ms, server_tick=server_tick)
            case 0x85:
                message = Migrate(data=self._object("<H"))
            case 0x86:
                message = Bye(code=self._unpack("<B")[0], reason=self._text("<H"))
            case 0x87:
                number, index, count = self._unpack("<HBB")
                if index >= count:
                    self._fail(f"fragment {index} of {count}")
                message = Fragment(id=number, index=index, count=count, piece=self._rest())
            case other:
                self._fail(f"unknown type {other:#04x}")
        return self._end(message)

    def _type(self) -> int:
        if not self._data:
            self._fail("empty message")
        return self._data[0]

    def _unpack(self, form: str) -> tuple[Any, ...]:
        end = self._at + struct.calcsize(form)
        if end > len(self._data):
            self._fail(f"{len(self._data)} bytes are too few")
        values = struct.unpack_from(form, self._data, self._at)
        self._at = end
        return values

    def _bytes(self, length_form: str) -> bytes:
        (length,) = self._unpack(length_form)
        if self._at + length > len(self._data):
            self._fail(f"{length} bytes announced, {len(self._data) - self._at} there")
        raw = self._data[self._at : self._at + length]
        self._at += length
        return raw

    def _text(self, length_form: str) -> str:
        try:
            return self._bytes(length_form).decode()
        except UnicodeDecodeError as error:
            raise MalformedMessage(f"no UTF-8: {error.reason}") from None

    def _object(self, length_form: str) -> dict[str, Any]:
        try:
            value = json.loads(self._bytes(length_form))
        except (ValueError, RecursionError):
            raise MalformedMessage("no JSON") from None
        if not isinstance(value, dict):
            self._fail("no JSON object")
        return value

    def _rest(self) -> bytes:
        raw = self._data[self._at :]
        self._at = len(self._data)
        return raw

    def _end(self, message: _M) -> _M:
        if self._at != len(self._data):
            self._fail(f"{len(self._data) - self._at} bytes left over")
        return message

    def _fail(self, why: str) -> NoReturn:
        kind = f"type {self._data[0]:#04x}: " if self._data else ""
        raise MalformedMessage(kind + why)
