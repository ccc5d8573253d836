"""
What leaving costs: for how long a player who declines a match, does not answer, or leaves one that runs, may not queue.

Who accepted what is the store's (`queue.lua`), who left the game server's (`Notices`); the director asks the policy for each offence, and bars the player.
"""

import importlib
from collections.abc import Callable, Sequence

from gameserver.sessions.model import PlayerId
from matchmaker.model import QueueConfig

LeavePolicy = Callable[[PlayerId, str, int], float]
"""(player, kind of offence: `declined`, `not accepted in time` or `left`, how many in the last 24 h) → s for which the player may not queue; 0 for none."""


def policy_of(queue: QueueConfig) -> LeavePolicy | None:
    """What the queue says; None when leaving costs nothing. Raises as `load`."""
    if queue.leave_policy:
        return load(queue.leave_policy)
    return escalating(queue.leave_steps_s) if queue.leave_steps_s else None


def escalating(steps_s: Sequence[float]) -> LeavePolicy:
    """The first offence costs the first step, the second the second, every further one the last."""

    def policy(player: PlayerId, kind: str, count: int) -> float:
        return steps_s[min(count, len(steps_s)) - 1]

    return policy


def load(name: str) -> LeavePolicy:
    """The studio's own policy, `module:function`. Raises ImportError, AttributeError, TypeError that name it."""
    module, _, function = name.partition(":")
    policy = getattr(importlib.import_module(module), function)
    if not callable(policy):
        raise TypeError(f"{name} is no function")

    def checked(player: PlayerId, kind: str, count: int) -> float:
        return max(0.0, float(policy(player, kind, count)))

    return checked
