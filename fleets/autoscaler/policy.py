"""
How many servers a fleet should have now, and why: pure, one decision from one observation.

A server ordered now is Ready after the lead time; until then, and until the next decision, the warm rooms that are there must do. So the
policy asks how many rooms the matches of that time will want beyond those that come free meanwhile (`shortage.py`), adds the matches that wait
already, and covers what the free rooms of the shelf don't with Ready servers. Schedules and bounds come last. Every step leaves a reason.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fleets.autoscaler.forecast import ArrivalForecast, Forecast, Recent
from fleets.autoscaler.schedule import Schedule
from fleets.autoscaler.shortage import warm_rooms

HOLD_S = 300.0
"""A buffer shrinks only to the most that was wanted in so long: what goes for a lull of a minute has to boot again after it."""
_LOOKS = (0.25, 0.5, 1.0)
"""Parts of the time ahead at which the need is computed: rooms that come free late don't help matches that come early."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetAim:
    """What a fleet's YAML asks for."""

    rooms: int = 1
    """Matches per server."""
    shelf: int = 1
    """Rooms kept claimable."""
    min: int = 0
    max: int = 10
    """Servers at least and at most."""
    chance: float = 0.001
    """Of a match to meet a cold start."""
    recycle: bool = True
    """Whether a room is used again after its match; else its server is replaced, which takes the lead time."""
    idle_to_zero_s: float | None = None
    """After so long without a match, no server is kept but `min`; None: never."""
    schedules: tuple[Schedule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A fleet at one moment."""

    at_s: float
    """Unix seconds."""
    replicas: int
    """Servers in any state."""
    ready: int
    allocated: int
    """Those on the shelf included."""
    reserved: int = 0
    free_rooms: int = 0
    """Rooms that can be claimed at once."""
    waiting: int = 0
    """Matches that wait for a room."""
    live: int = 0
    """Sessions under way."""
    ends_per_s: float = 0.0
    """Hazard of one session to end, a second; 0 when none is known."""
    lead_s: float = 30.0
    """What a new server takes from its order to Ready (`leadtime.py`)."""
    idle_s: float = 0.0
    """Since the last match began."""
    recent: tuple[Recent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How many servers, and why."""

    at_s: float
    replicas: int
    """Servers in all, Allocated and Reserved ones included: what Agones' webhook answers."""
    buffer: int
    """Of those, how many are to be Ready."""
    wanted: int
    """The buffer before the hold, schedules and bounds."""
    reasons: tuple[str, ...]
    """In the order in which they applied, for people."""
    expected: float = 0.0
    """Matches until a server ordered at the next look is Ready; 0 when it was not asked."""
    warm: int = 0
    """Rooms that keep cold starts rare enough until then."""
    limited: bool = False
    """The maximum keeps it from what is wanted."""
    blind: bool = False
    """Decided without knowing the demand."""
    idle: bool = False
    """Nobody has come for so long that the shelf may be empty, too."""


def decide(
    aim: FleetAim,
    seen: Observed,
    arrivals: ArrivalForecast,
    earlier: Sequence[Decision] = (),
    *,
    interval_s: float,
) -> Decision:
    """
    Decide how many servers the fleet should have.

    Args:
        earlier: decisions of the last HOLD_S at least, any order.
        interval_s: until the next decision.
    """
    ahead_s = seen.lead_s + interval_s
    outlook = arrivals.outlook(seen.at_s, seen.recent)
    expected = outlook.over(ahead_s)
    warm = max(
        warm_rooms(outlook.over(ahead_s * part), _releases(aim, seen, ahead_s * part), aim.chance) for part in _LOOKS
    )
    ahead = (
        f"{expected.mean:.1f} ± {math.sqrt(expected.variance):.1f} matches are expected until a server ordered at the next look is "
        f"Ready: {interval_s:.0f} s + {seen.lead_s:.0f} s"
    )
    reasons = [
        ahead,
        f"{warm} warm rooms keep the chance of a cold start at {aim.chance:.2%} of them",
    ]
    if seen.waiting:
        reasons.append(f"{seen.waiting} matches wait already")
    need = max(warm + seen.waiting, aim.shelf)
    wanted = max(0, math.ceil((need - seen.free_rooms) / aim.rooms))
    reasons.append(f"{seen.free_rooms} rooms are free on the shelf, so {_servers(wanted)} should be Ready")
    idle = aim.idle_to_zero_s is not None and seen.idle_s >= aim.idle_to_zero_s and not seen.waiting
    if idle:
        wanted = buffer = 0
        reasons.append(f"no match for {seen.idle_s:.0f} s: none is kept")
    else:
        buffer = _hold(seen.at_s, wanted, earlier, reasons)
    scheduled = _scheduled(aim.schedules, seen.at_s, seen.lead_s, buffer, reasons)
    decision = _bounded(aim, seen, scheduled, wanted, reasons)
    return replace(decision, expected=expected.mean, warm=warm, idle=idle and not scheduled)


def decide_blind(aim: FleetAim, seen: Observed, *, why: str) -> Decision:
    """
    Decide without knowing the demand: never fewer than there are, and enough to fill the shelf anew.

    Args:
        seen: only `at_s` and the numbers of servers count.
    """
    taken = seen.allocated + seen.reserved
    buffer = max(math.ceil(aim.shelf / aim.rooms), seen.replicas - taken)
    reasons = [f"blind: {why}; nothing is taken away, and {_servers(buffer)} stay Ready"]
    decision = _bounded(aim, seen, buffer, buffer, reasons)
    return replace(decision, blind=True)


def _releases(aim: FleetAim, seen: Observed, seconds: float) -> Forecast:
    if not aim.recycle or seen.ends_per_s <= 0:
        return Forecast(mean=0.0, variance=0.0)
    share = -math.expm1(-seen.ends_per_s * seconds)
    return Forecast(mean=seen.live * share, variance=seen.live * share * (1 - share))


def _hold(at_s: float, wanted: int, earlier: Sequence[Decision], reasons: list[str]) -> int:
    held = max((d.wanted for d in earlier if at_s - d.at_s <= HOLD_S), default=wanted)
    if held > wanted:
        reasons.append(f"{held} were wanted within the last {HOLD_S / 60:.0f} minutes: the buffer shrinks later")
    return max(wanted, held)


def _scheduled(schedules: Sequence[Schedule], at_s: float, lead_s: float, buffer: int, reasons: list[str]) -> int:
    for schedule in schedules:
        if schedule.ready > buffer and schedule.covers(at_s, ahead_s=max(schedule.lead_s, 2 * lead_s)):
            buffer = schedule.ready
            reasons.append(f"schedule {schedule.name!r} keeps {_servers(buffer)} Ready")
    return buffer


def _bounded(aim: FleetAim, seen: Observed, buffer: int, wanted: int, reasons: list[str]) -> Decision:
    taken = seen.allocated + seen.reserved
    replicas = taken + buffer
    # Never below what is taken: those servers have players, whatever the maximum says now.
    bounded = max(min(max(replicas, aim.min), aim.max), taken)
    if bounded > replicas:
        reasons.append(f"min {aim.min} servers")
    elif bounded < replicas:
        reasons.append(f"max {aim.max} servers: {_servers(replicas - bounded)} fewer than wanted")
    return Decision(
        at_s=seen.at_s,
        replicas=bounded,
        buffer=bounded - taken,
        wanted=wanted,
        limited=bounded < replicas,
        reasons=tuple(reasons),
    )


def _servers(count: int) -> str:
    return f"{count} server{'' if count == 1 else 's'}"
