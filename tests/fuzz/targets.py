"""
What the fuzzers feed with any bytes, and what must come out: a value, or the one error that the function documents.

Each target is a function of `bytes` that raises only when something is wrong; `seeds` are honest inputs to begin from. Run by a coverage-guided
fuzzer (`__main__.py`, `make fuzz`) and, in the normal suite, on seeds, seeded mutations and everything in `corpus/` (`test_corpus.py`).
"""

import json
import random
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from gameserver.client.session import ClientSession
from gameserver.games.arena import Arena
from gameserver.gate import Gate
from gameserver.protocol import messages as m
from gameserver.protocol.netcode import packets as p
from gameserver.protocol.netcode.addresses import format_address, parse_address
from gameserver.protocol.netcode.client import NetcodeClient
from gameserver.protocol.netcode.crypto import make_cipher
from gameserver.protocol.netcode.fragments import Reassembly, split
from gameserver.protocol.netcode.server import NetcodeServer
from gameserver.protocol.netcode.tokens import (
    BadConnectToken,
    encode_connect_token,
    issue_connect_token,
    read_connect_token,
)
from gameserver.protocol.schema import SchemaError, parse_fields, parse_schema
from gameserver.protocol.snapshot import apply_delta, decode_full, encode_full
from gameserver.room import Room
from gameserver.seats import SeatGrant, SeatIssuer, SeatRefused, SeatVerifier
from gameserver.sessions.model import PlayerId, ServerName, Session, SessionId, SessionState

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "protocol.json").read_text())
SCHEMA = parse_schema(VECTORS["schema"])
PROTOCOL, KEY, HERE, THERE = 7, bytes(32), ("127.0.0.1", 4000), ("192.0.2.1", 5000)
SERVER, SESSION, ANN = ServerName("s"), SessionId("f.m"), PlayerId("ann")


@dataclass(frozen=True, slots=True)
class Target:
    """One surface that bytes from outside reach."""

    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]


def sequence(*items: bytes) -> bytes:
    """Several messages as one input: each behind its u16 length."""
    return b"".join(struct.pack("<H", len(item)) + item for item in items)


def items(data: bytes) -> Iterable[bytes]:
    """The messages of an input; the last one is whatever is left."""
    at = 0
    while at + 2 <= len(data):
        (length,) = struct.unpack_from("<H", data, at)
        yield data[at + 2 : at + 2 + length]
        at += 2 + length


def client_message(data: bytes) -> None:
    """What a server reads: decoded, and encoded again to what it was (a Hello's unknown flags aside)."""
    try:
        message = m.decode_client(data)
    except m.MalformedMessage:
        return
    if isinstance(message, m.Bye):
        assert m.encode_client_bye(message.code, message.reason) == data
    elif not isinstance(message, m.Hello):
        assert m.encode(message) == data


def server_message(data: bytes) -> None:
    """What a client reads."""
    try:
        message = m.decode_server(data)
    except m.MalformedMessage:
        return
    if isinstance(message, m.Snapshot | m.Pong | m.Bye | m.Fragment):
        assert m.encode(message) == data


def snapshot(data: bytes) -> None:
    """The body of a full snapshot, and the same bytes as a delta against two baselines."""
    try:
        world = decode_full(SCHEMA, data)
        assert encode_full(world) == data
    except m.MalformedMessage:
        pass
    for baseline in _BASELINES:
        try:
            world = apply_delta(baseline, data)
        except m.MalformedMessage:
            continue
        for rows in world.tables:
            assert all(len(column) == len(rows.ids) for column in rows.columns)
            assert all(a < b for a, b in zip(rows.ids[:-1], rows.ids[1:], strict=True))


def client_session(data: bytes) -> None:
    """A client's whole session on a server's messages, over a transport that loses and splits."""
    session, pieces = ClientSession("t", repeat=8), Reassembly()
    for k, message in enumerate(items(data)):
        try:
            if message[:1] == b"\x87":
                fragment = m.decode_server(message)
                assert isinstance(fragment, m.Fragment)
                whole = pieces.add(fragment)
                if whole is None:
                    continue
                message = whole
            session.receive(message, float(k))
            while session.next_event() is not None:
                pass
            session.data_to_send(float(k))
        except m.MalformedMessage:
            return


class _Wire:
    """A connection that must be told nothing but messages, and may be closed."""

    peer = "fuzz"
    reliable = False
    closed: m.CloseCode | None = None

    def send(self, message: bytes) -> None:
        assert len(message) > 0

    def send_snapshot(self, snapshot: m.SharedSnapshot, ack_input: int) -> bool:
        assert len(snapshot.message(ack_input)) == snapshot.size_bytes
        return True

    def close(self, code: m.CloseCode, reason: str = "") -> None:
        self.closed = code


def gate(data: bytes) -> None:
    """A seated client's messages: through the gate into the arena, a tick after every other one."""
    room = Room(_session(), Arena, seats=2, tick_rate_hz=30, store=None, now=lambda: 0.0)
    way_in = Gate(SeatVerifier([_ISSUER.public_key], SERVER), _nowhere, now=lambda: 0.0, wall=lambda: 0.0)
    wire = _Wire()
    visitor = way_in.accept(wire)
    grant = SeatGrant(player=ANN, seat=0, team="", session=SESSION, server=SERVER, epoch=1)
    visitor.admitted = True
    visitor.take_seat(room, room.seat(grant, wire))
    for k, message in enumerate(items(data)):
        visitor.received(message)
        if wire.closed is not None:
            return
        if k % 2:
            room._tick += 1
            room._step()


def stranger(data: bytes) -> None:
    """The first message of a connection, when it is no valid Hello."""
    wire = _Wire()
    Gate(SeatVerifier([_ISSUER.public_key], SERVER), _nowhere, now=lambda: 0.0, wall=lambda: 0.0).accept(wire).received(
        data
    )
    assert wire.closed is not None, "nothing but a valid Hello is waited for"


def seat_token(data: bytes) -> None:
    """The text of a token."""
    try:
        SeatVerifier([_ISSUER.public_key], SERVER).verify(data.decode(errors="replace"), 0.0)
    except SeatRefused:
        pass


def schema(data: bytes) -> None:
    """A description as Welcome brings it."""
    try:
        described = json.loads(data)
    except (ValueError, RecursionError):
        return
    for parse in (parse_schema, parse_fields):
        try:
            read = parse(described)
        except SchemaError:
            continue
        assert parse(read.describe()).describe() == read.describe()


def netcode_server(data: bytes) -> None:
    """Datagrams from two addresses to a server that has one client; some are sealed with that client's key."""
    rng = random.Random(0)
    server = NetcodeServer(
        addresses=[HERE], protocol_id=PROTOCOL, private_key=KEY, max_clients=2, challenge_key=KEY, unix_offset_s=1e9
    )
    client = NetcodeClient(_TOKEN, 0.0)
    for turn in range(4):
        for _, packet in client.data_to_send(turn * 0.1):
            server.receive(packet, THERE, turn * 0.1)
        for _, packet in server.data_to_send(turn * 0.1):
            client.receive(packet, HERE, turn * 0.1)
    assert server.clients == 1
    keys = read_connect_token(_TOKEN)
    cipher, associated = make_cipher(keys.client_to_server_key), p.associated_data(PROTOCOL)
    spent = {"in": 0, "out": 0}
    for k, item in enumerate(items(data)):
        kind, body = item[:1], item[1:]
        if kind == b"s" and body:
            server.receive(p.seal(body[0] & 15, 100 + k, body[1:], cipher, associated), THERE, 1.0)
        elif kind == b"t":
            server.receive(body, THERE, 1.0)
        else:
            spent["in"] += len(item)
            server.receive(item, ("198.51.100.1", rng.randrange(1, 9)), 1.0)
        while server.next_event() is not None:
            pass
        spent["out"] += sum(len(out) for to, out in server.data_to_send(1.0) if to != THERE)
        assert spent["out"] <= spent["in"], "a stranger got more than it sent"


def netcode_client(data: bytes) -> None:
    """Datagrams from the server's address to a client; some are sealed with the right key."""
    client = NetcodeClient(_TOKEN, 0.0)
    keys = read_connect_token(_TOKEN)
    cipher, associated = make_cipher(keys.server_to_client_key), p.associated_data(PROTOCOL)
    for k, item in enumerate(items(data)):
        kind, body = item[:1], item[1:]
        sealed = kind == b"s" and len(body) > 0
        datagram = p.seal(body[0] & 15, k, body[1:], cipher, associated) if sealed else item
        client.receive(datagram, HERE, k / 10)
        client.data_to_send(k / 10)
        while client.next_event() is not None:
            pass


def connect_token(data: bytes) -> None:
    """What a client is handed by its matchmaker."""
    NetcodeClient(data, 0.0).data_to_send(0.0)
    try:
        token = read_connect_token(data)
    except BadConnectToken:
        return
    # Reading and writing are inverse, but for the padding.
    assert read_connect_token(encode_connect_token(token)) == token


def address(data: bytes) -> None:
    """An address as text."""
    try:
        read = parse_address(data.decode(errors="replace"))
    except ValueError:
        return
    assert parse_address(format_address(read)) == read


async def _nowhere(grant: SeatGrant) -> Room:
    raise AssertionError("nobody here has a valid token")


def _session() -> Session:
    return Session(id=SESSION, server=SERVER, room=0, epoch=1, state=SessionState.LIVE, seats=())


_ISSUER = SeatIssuer(bytes(range(32)))
_BASELINES = [decode_full(SCHEMA, bytes.fromhex(world["full"])) for world in VECTORS["worlds"][:2]]
_TOKEN = issue_connect_token(
    [HERE], protocol_id=PROTOCOL, private_key=KEY, now_unix_s=1e9, client_id=1, random_bytes=random.Random(1).randbytes
)
_REQUEST = NetcodeClient(_TOKEN, 0.0).data_to_send(0.0)[0][1]


def _targets() -> dict[str, Target]:
    from_client = [bytes.fromhex(case["hex"]) for case in VECTORS["client"]]
    from_server = [bytes.fromhex(case["hex"]) for case in VECTORS["server"]]
    bodies = [bytes.fromhex(world["full"]) for world in VECTORS["worlds"]]
    bodies += [bytes.fromhex(delta["hex"]) for delta in VECTORS["deltas"]]
    arena_input = Arena.inputs.encode({"move_x": 1, "aim": 1.5, "fire": True})
    play = [
        m.encode(m.Input(ack_tick=k, ack_event=k, view=256 * k, first_seq=k + 1, count=1, records=arena_input))
        for k in range(4)
    ]
    room = {"schema": SCHEMA.describe(), "inputs": VECTORS["inputs"]}
    welcome = m.encode(m.Welcome(seat=0, tick_rate_hz=30, tick=0, epoch=1, room=room))
    full = m.encode(m.Snapshot(ack_input=0, tick=1, baseline=0, body=bodies[0]))
    event = m.encode(m.Event(seq=1, tick=1, data={"name": "x"}))
    grant = SeatGrant(player=ANN, seat=0, team="red", session=SESSION, server=ServerName("other"), epoch=1)
    return {
        "address": Target(address, (b"127.0.0.1:5", b"[::1]:5", b"[fe80::1%lo]:9")),
        "client_message": Target(client_message, tuple(from_client)),
        "client_session": Target(
            client_session,
            (sequence(welcome, full, event), sequence(welcome, *split(full, 1)), sequence(*from_server)),
        ),
        "connect_token": Target(connect_token, (_TOKEN,)),
        "gate": Target(gate, (sequence(*play), sequence(*from_client))),
        "netcode_client": Target(netcode_client, (sequence(b"s\x02" + bytes(308), b"s\x04" + bytes(8), b"s\x05hi", b"s\x06"),)),
        "netcode_server": Target(netcode_server, (sequence(_REQUEST, b"s\x05hi", b"s\x06", b"t" + _REQUEST, b"s\x04" + bytes(8)),)),
        "schema": Target(schema, (json.dumps(VECTORS["schema"]).encode(), json.dumps(VECTORS["inputs"]).encode())),
        "seat_token": Target(seat_token, (_ISSUER.issue(grant, 0.0).encode(), b"AQ")),
        "server_message": Target(server_message, tuple(from_server)),
        "snapshot": Target(snapshot, tuple(bodies)),
        "stranger": Target(stranger, (b"", b"\x01\x01\x00\x01\x00x", from_client[2], from_client[3], from_client[4])),
    }  # fmt: skip


TARGETS = _targets()
