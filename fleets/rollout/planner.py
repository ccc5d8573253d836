"""
What to do next in a rollout; pure.

Level-triggered: from the remembered state and what is seen now follow the next state and the actions, which may be lost or repeated. Three things
hold whatever happens, and tests/property/fleets/test_rollout.py looks for ways around them: the rollout never takes servers away from the old
fleet, nor from the canary while the old fleet is being changed; it never removes a fleet on which somebody plays; and every way ends in one
version, the new one when all went well and the old one when not.
"""

import math
from dataclasses import replace
from typing import assert_never

from fleets.rollout.model import (
    OVER,
    TABLE,
    Action,
    Event,
    Limits,
    Observed,
    Phase,
    Promote,
    RemoveCanary,
    Restore,
    SetCanary,
    State,
    WrongPhase,
)


def plan(limits: Limits, state: State, seen: Observed, now_s: float) -> tuple[State, tuple[Action, ...]]:
    """
    The state as it is now, and what to do.

    Args: now_s: Unix seconds, the clock of `State.since_s`.
    Returns: the state, to be remembered before the actions are done; actions, safe to repeat; none once it is over.
    """
    event = _event(limits, state, seen, now_s)
    if event is not None:
        state = _moved(state, event, now_s, _reason(event, limits, seen))
    elif state.phase is Phase.STEPPING and state.ready_at_s is None and _step_is_ready(limits, state, seen):
        state = replace(state, ready_at_s=now_s)
    return state, _actions(limits, state, seen)


def abort(state: State, now_s: float, reason: str) -> State:
    """Take it back. Raises WrongPhase once it is over."""
    if state.phase in OVER:
        raise WrongPhase(
            f"the rollout is {state.phase}: nothing is left to abort; `warmfleet rollout undo` takes a done one back"
        )
    if state.phase is Phase.ABORTING:
        return state
    return _moved(state, Event.ABORT, now_s, reason)


def wanted_canary(limits: Limits, state: State, seen: Observed) -> int:
    """Servers of the canary in this step: its share of the old fleet's, at least one, at most the fleet's maximum."""
    share = limits.steps[min(state.step, len(limits.steps) - 1)]
    return min(limits.max_servers, max(1, math.ceil(share * seen.stable.wanted)))


def _moved(state: State, event: Event, now_s: float, reason: str) -> State:
    phase = TABLE[state.phase, event]
    step = state.step + 1 if event is Event.HELD else state.step
    return replace(
        state,
        phase=phase,
        step=step,
        since_s=now_s,
        ready_at_s=None,
        reason=reason if phase is Phase.ABORTING else state.reason,
    )


def _event(limits: Limits, state: State, seen: Observed, now_s: float) -> Event | None:
    match state.phase:
        case Phase.STEPPING:
            if _unhealthy(limits, seen):
                return Event.UNHEALTHY
            if state.ready_at_s is None:
                late = now_s - state.since_s > limits.ready_within_s and not _step_is_ready(limits, state, seen)
                return Event.LATE if late else None
            if now_s - state.ready_at_s < limits.pause_s or _unwatched(limits, seen):
                return None
            return Event.HELD if state.step + 1 < len(limits.steps) else Event.HELD_LAST
        case Phase.PROMOTING:
            return Event.SETTLED if seen.stable.version == state.new and seen.stable.settled else None
        case Phase.RETIRING:
            return Event.GONE if seen.canary is None else None
        case Phase.ABORTING:
            restored = seen.stable.version == state.old
            return Event.GONE if seen.canary is None and restored else None
        case Phase.DONE | Phase.ABORTED:
            return None
        case _:
            assert_never(state.phase)


def _actions(limits: Limits, state: State, seen: Observed) -> tuple[Action, ...]:
    match state.phase:
        case Phase.STEPPING:
            wanted = wanted_canary(limits, state, seen)
            canary = seen.canary
            if canary is None or canary.version != state.new or canary.wanted < wanted:
                return (SetCanary(replicas=max(wanted, canary.wanted if canary is not None else 0)),)
            return ()
        case Phase.PROMOTING:
            return () if seen.stable.version == state.new else (Promote(),)
        case Phase.RETIRING:
            return _end_canary(seen)
        case Phase.ABORTING:
            if seen.stable.version != state.old:
                return (Restore(),)
            changed = (seen.stable.ready_by_version or {}).get(state.new, 0) > 0
            return () if changed else _end_canary(seen)  # the canary serves while the old fleet is changed back
        case Phase.DONE | Phase.ABORTED:
            return ()
        case _:
            assert_never(state.phase)


def _end_canary(seen: Observed) -> tuple[Action, ...]:
    """Nothing new on it, and away with it once nobody is there: scaled first, so that nobody comes between the look and the removal."""
    if seen.canary is None:
        return ()
    if seen.canary.wanted > 0 or seen.canary.alive > 0:
        return (SetCanary(replicas=0),)
    return (RemoveCanary(),)


def _step_is_ready(limits: Limits, state: State, seen: Observed) -> bool:
    canary = seen.canary
    return canary is not None and canary.version == state.new and canary.alive >= wanted_canary(limits, state, seen)


def _unhealthy(limits: Limits, seen: Observed) -> str:
    """What is above or below its limit; empty when nothing is."""
    health = seen.health
    if health.started >= limits.min_servers and health.failed / health.started > limits.unhealthy_rate:
        return f"{health.failed} of {health.started} servers failed, more than {limits.unhealthy_rate:.1%}"
    jitter, completion = health.tick_jitter_s, health.match_completion
    if limits.tick_jitter_s is not None and jitter is not None and jitter > limits.tick_jitter_s:
        return f"ticks are late by {jitter * 1e3:.1f} ms (p99), more than {limits.tick_jitter_s * 1e3:g} ms"
    if limits.match_completion is not None and completion is not None and completion < limits.match_completion:
        return f"{completion:.1%} of the matches end as they should, fewer than {limits.match_completion:.1%}"
    return ""


def _unwatched(limits: Limits, seen: Observed) -> bool:
    """Whether there are limits that nobody can tell the values of now: no step is passed unwatched."""
    return bool(seen.health.unknown) and (limits.tick_jitter_s is not None or limits.match_completion is not None)


def _reason(event: Event, limits: Limits, seen: Observed) -> str:
    if event is Event.UNHEALTHY:
        return _unhealthy(limits, seen)
    if event is Event.LATE:
        alive = seen.canary.alive if seen.canary is not None else 0
        return f"only {alive} servers of the step were Ready after {limits.ready_within_s:g} s"
    return ""
