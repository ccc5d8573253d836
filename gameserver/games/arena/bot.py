"""A bot for the arena: hunts the nearest living foe, keeps a distance, and misses like a person."""

import math
import random
from typing import Any

from gameserver.protocol.snapshot import World

_REACH = 14.0
_KEEP = 6.0


def policy(world: World, seat: int, rng: random.Random) -> dict[str, Any]:
    """Choose one input from what the bot sees; pure but for `rng`."""
    players = world.values("players")
    alive = {
        int(i): (float(x), float(y))
        for i, x, y, up in zip(players["id"], players["x"], players["y"], players["alive"], strict=True)
        if up
    }
    me = alive.pop(seat, None)
    if me is None or not alive:
        return {"move_x": 0.0, "move_y": 0.0, "aim": 0.0, "fire": False}
    foe = min(alive.values(), key=lambda at: math.dist(at, me))
    distance = math.dist(foe, me)
    aim = math.atan2(foe[1] - me[1], foe[0] - me[0])
    # Round the foe at a distance; the way round changes now and then, so that walls do not hold it for long.
    side = 1.0 if rng.random() < 0.97 else -1.0
    turn = 0.0 if distance > 1.5 * _KEEP else side * math.pi / 2.2
    if distance < 0.5 * _KEEP:
        turn = math.pi
    way = aim + turn + rng.uniform(-0.5, 0.5)
    return {
        "move_x": math.cos(way),
        "move_y": math.sin(way),
        "aim": _wrap(aim + rng.gauss(0, 0.12)),
        "fire": distance < _REACH and rng.random() < 0.5,
    }


def _wrap(angle: float) -> float:
    return math.atan2(math.sin(angle), math.cos(angle))
