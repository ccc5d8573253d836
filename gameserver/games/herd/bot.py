"""A dog that knows its work: gets behind a straggler, on the side away from the pen, and drives it."""

import math
import random
from typing import Any

import numpy as np

from gameserver.games.herd.game import FEAR, PEN
from gameserver.protocol.snapshot import World


def policy(world: World, seat: int, rng: random.Random) -> dict[str, Any]:
    """Choose one input from what the bot sees; pure but for `rng`."""
    dogs, sheep = world.values("dogs"), world.values("sheep")
    mine = np.flatnonzero(dogs["id"] == seat)
    loose = np.flatnonzero(~sheep["home"])
    if not len(mine) or not len(loose):
        return {"move_x": 0.0, "move_y": 0.0, "bark": False}
    me = np.array((dogs["x"][mine[0]], dogs["y"][mine[0]]))
    at = np.stack((sheep["x"][loose], sheep["y"][loose]), axis=1)
    pen = np.array(PEN[:2])
    out = at - pen
    far = np.linalg.norm(out, axis=1)
    # Each dog has its share of the field, by the direction from the pen; who has none left helps the others.
    angle = np.arctan2(out[:, 1], -out[:, 0])
    share = np.floor((np.pi + angle) / (2 * np.pi) * len(dogs["id"])).astype(int) == int(mine[0])
    pick = np.flatnonzero(share) if share.any() else np.arange(len(at))
    target = pick[int(np.argmax(far[pick]))]
    behind = at[target] + out[target] / max(far[target], 0.1) * 0.45 * FEAR
    way = behind - me
    # Not straight through the flock: round it, on the side where this dog is already.
    to_sheep = at[target] - me
    if np.linalg.norm(to_sheep) < FEAR and float(way @ to_sheep) > 0 and far[target] > np.linalg.norm(me - pen):
        side = 1.0 if to_sheep[0] * way[1] - to_sheep[1] * way[0] > 0 else -1.0
        way = way + side * 1.5 * np.array((-to_sheep[1], to_sheep[0]))
    length = max(float(np.linalg.norm(way)), 0.1)
    turn = math.atan2(way[1], way[0]) + rng.uniform(-0.2, 0.2)
    speed = min(1.0, length / 2.0)
    return {
        "move_x": math.cos(turn) * speed,
        "move_y": math.sin(turn) * speed,
        "bark": length < 2.0 and rng.random() < 0.05,
    }
