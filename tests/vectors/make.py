"""
Makes the frozen examples that the Python and the JavaScript implementations are tested against: `python tests/vectors/make.py`.

`protocol.json` is the wire protocol, version 1: a change to it is a new protocol version. `arena_moves.json` ties the browser's prediction to the
arena's rules.
"""

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np

from gameserver.games.arena.maps import MAPS
from gameserver.protocol import messages as m
from gameserver.protocol.schema import F32, Bool, Fields, Float, Int, Schema, Table, UInt
from gameserver.protocol.snapshot import World, encode_delta, encode_full

FOLDER = Path(__file__).parent
SCHEMA = Schema(
    units=Table(
        x=Float(0, 64, 1 / 512), aim=Float(-math.pi, math.pi, math.pi / 127), fine=Float(-1, 1, 1e-6),
        hp=UInt(8), kills=UInt(16), seen=UInt(32), tilt=Int(8), score=Int(16), money=Int(32), up=Bool(), mass=F32(),
    ),
    match=Table(left_s=UInt(16)),
)  # fmt: skip
INPUTS = Fields(
    move_x=Float(-1, 1, 1 / 127), aim=Float(-math.pi, math.pi, math.pi / 127), slot=Int(16), fire=Bool(), power=F32()
)


def protocol() -> dict[str, Any]:
    worlds = _worlds()
    values = [
        {},
        {"move_x": 1, "aim": math.pi, "slot": 300, "fire": True, "power": 0.5},
        {"move_x": -7, "aim": 0.01, "slot": -40000, "fire": False, "power": -1024},
        {"move_x": 0.5, "aim": -1.5, "slot": 2.5, "fire": True},
    ]
    return {
        "schema": SCHEMA.describe(),
        "inputs": INPUTS.describe(),
        "records": [
            {"values": v, "hex": INPUTS.encode(v).hex(), "read": INPUTS.decode(INPUTS.encode(v))} for v in values
        ],
        "client": _client_messages(),
        "server": _server_messages(),
        "worlds": [{"full": encode_full(world).hex(), "tables": _plain(world)} for world in worlds],
        "deltas": [
            {"from": a, "to": b, "hex": encode_delta(worlds[b], worlds[a]).hex()}
            for a in range(len(worlds))
            for b in range(len(worlds))
            if a != b
        ],
        "malformed": _malformed(worlds),
    }


def _client_messages() -> list[dict[str, Any]]:
    records = b"".join(INPUTS.encode({"move_x": x}) for x in (-1, 0, 1))
    made: list[tuple[dict[str, Any], bytes]] = [
        ({"type": "hello", "token": "token-é"}, m.encode(m.Hello(token="token-é"))),
        ({"type": "hello", "token": "t", "spectator": True}, m.encode(m.Hello(token="t", spectator=True))),
        (
            {
                "type": "input",
                "ackTick": 4_000_000_000,
                "ackEvent": 7,
                "view": 25_700,
                "firstSeq": 3,
                "moves": [-1, 0, 1],
            },
            m.encode(m.Input(ack_tick=4_000_000_000, ack_event=7, view=25_700, first_seq=3, count=3, records=records)),
        ),
        ({"type": "ping", "clientMs": 4_294_967_295}, m.encode(m.Ping(client_ms=4_294_967_295))),
        ({"type": "bye", "code": 2, "reason": "schlecht ☹"}, m.encode_client_bye(2, "schlecht ☹")),
    ]
    return [{"message": message, "hex": data.hex()} for message, data in made]


def _server_messages() -> list[dict[str, Any]]:
    room = {"session": "arena.M1", "schema": SCHEMA.describe(), "inputs": INPUTS.describe(), "info": {"map": "☃"}}
    made: list[tuple[dict[str, Any], m.ServerMessage]] = [
        (
            {"type": "welcome", "version": 1, "seat": 3, "tickRateHz": 30, "tick": 70_000, "epoch": 2, "room": room},
            m.Welcome(seat=3, tick_rate_hz=30, tick=70_000, epoch=2, room=room),
        ),
        (
            {"type": "snapshot", "ackInput": 9, "tick": 70_001, "baseline": 69_999, "body": "0102ff"},
            m.Snapshot(ack_input=9, tick=70_001, baseline=69_999, body=b"\x01\x02\xff"),
        ),
        (
            {"type": "event", "seq": 1, "tick": 5, "data": {"name": "kill", "of": 1}},
            m.Event(seq=1, tick=5, data={"name": "kill", "of": 1}),
        ),
        ({"type": "pong", "clientMs": 1234, "serverTick": 2_560_128}, m.Pong(client_ms=1234, server_tick=2_560_128)),
        (
            {"type": "migrate", "data": {"session": "arena.M1", "reason": "drain"}},
            m.Migrate(data={"session": "arena.M1", "reason": "drain"}),
        ),
        ({"type": "bye", "code": 12, "reason": "moved"}, m.Bye(code=12, reason="moved")),
    ]
    return [{"message": message, "hex": m.encode(encoded).hex()} for message, encoded in made]


def _worlds() -> list[World]:
    """Worlds whose deltas use every mode, and add and remove rows."""
    rng = random.Random(1)
    units = {number: _unit(rng) for number in (0, 1, 5, 9, 200, 65535)}
    made = [World.empty(SCHEMA), _world(units, 120)]
    units[5]["hp"] = 3.0
    made.append(_world(units, 119))
    for unit in units.values():  # small steps of all: mode 4
        unit["x"] += 0.125
        unit["seen"] += 1
    units[9]["money"] -= 100  # a small step of one: mode 3
    made.append(_world(units, 119))
    del units[1]
    units |= {300: _unit(rng), 2: _unit(rng)}
    made.append(_world(units, 0))
    made.append(_world({number: _unit(rng) for number in units}, 65535))
    made.append(_world({number: _unit(rng) for number in range(40)}, 1))
    return made


def _unit(rng: random.Random) -> dict[str, float]:
    return {
        "x": rng.uniform(-1, 65), "aim": rng.uniform(-4, 4), "fine": rng.uniform(-1, 1), "hp": rng.randint(0, 255),
        "kills": rng.randint(0, 65535), "seen": rng.randint(0, 2**32 - 2), "tilt": rng.randint(-128, 127),
        "score": rng.randint(-32768, 32767), "money": rng.randint(-(2**31) + 100, 2**31 - 1), "up": rng.random() < 0.5,
        "mass": rng.randint(-1000, 1000) / 8,
    }  # fmt: skip


def _world(units: dict[int, dict[str, float]], left_s: int) -> World:
    columns = {name: [unit[name] for unit in units.values()] for name in SCHEMA.tables["units"].names}
    return World.of(SCHEMA, {"units": {"id": list(units), **columns}, "match": {"id": [0], "left_s": [left_s]}})


def _plain(world: World) -> dict[str, list[dict[str, Any]]]:
    tables = {}
    for name in SCHEMA.tables:
        columns = {field: np.asarray(column).tolist() for field, column in world.values(name).items()}
        tables[name] = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return tables


def _malformed(worlds: list[World]) -> dict[str, Any]:
    event = m.encode(m.Event(seq=1, tick=5, data={"a": 1}))
    full = encode_full(worlds[1])
    delta = encode_delta(worlds[4], worlds[1])
    return {
        "server": [
            "", "00", "01", "ff", event[:-1].hex(), (event + b"\0").hex(), "83" + "00" * 8 + "0200" + b"[]".hex(),
            "83" + "00" * 8 + "0100" + b"x".hex(), "860001" + "00ff", "8600" + "0100" + "ff", "82" + "00" * 12 + "01",
            "84000000", "8100",
        ],
        "full": ["", full[:-1].hex(), (full + b"\0").hex(), "ffff", "0200" + "0500" + "0500"],
        "delta_from_1": [
            "", delta[:-1].hex(), (delta + b"\0").hex(),
            "00000000" + "05", "00000000" + "01" + "ff" + "00" * 12, "0000" + "0100" + "0500" + "00" * 26 + "00" * 11 + "00000000" + "00",
        ],
    }  # fmt: skip


def arena_moves() -> list[dict[str, Any]]:
    """Walks through the arena's maps, bumping into everything."""
    rng = random.Random(2)
    walks = []
    for map_ in MAPS.values():
        at = np.array([[map_.width / 3, map_.height / 8]])
        steps = []
        for _ in range(400):
            if rng.random() < 0.1 or not steps:
                angle = rng.uniform(-math.pi, math.pi)
            step = [math.cos(angle) * 0.25, math.sin(angle) * 0.25]
            at = map_.move(at, np.array([step]))
            steps.append({"step": step, "at": at[0].tolist()})
        walks.append({"map": map_.describe(), "from": [map_.width / 3, map_.height / 8], "steps": steps})
    return walks


def render(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (FOLDER / "protocol.json").write_text(render(protocol()))
    (FOLDER / "arena_moves.json").write_text(json.dumps(arena_moves()) + "\n")
