"""
Which fleet a match should try first: pure.

Fleets stand for clusters too: each cluster has its own, in its region. A fleet's distance is what was measured from the players to its region; those about as
near as the nearest share the matches by weight, drawn by the match's id, so that a repeated request sees the same order. Where nobody keeps a fleet (its
cluster is cut off), it comes last: fail-over is not a mode, only an order.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gameserver.sessions.model import FleetName

AS_NEAR_MS = 15.0
"""Fleets whose distance differs by less are as near as each other: below what players notice, about what a measurement varies by."""
COLD_MS = 25.0
"""A fleet without a warm room is taken to be so much farther: a match should not wait for a server where a warm one is hardly farther."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A fleet that a match may go to."""

    fleet: FleetName
    region: str = ""
    weight: float = 1.0
    """Not negative; 0: only when no other can."""
    kept: bool = True
    """Whether a keeper looks after it now."""
    warm: int = 1
    """Rooms that can be claimed at once."""


def rank(candidates: Sequence[Candidate], latency_ms: Mapping[str, float], *, seed: str) -> tuple[FleetName, ...]:
    """
    Order fleets from the best to the last resort; none is left out.

    Args:
        candidates: in the caller's order of preference, which decides where nothing is measured.
        latency_ms: region to what was measured; a region that is missing is taken to be farther than all that are there.
        seed: the match; the same one gives the same order for the same candidates.
    """
    cost_ms = {candidate.fleet: _cost_ms(candidate, latency_ms) for candidate in candidates}

    def key(item: tuple[int, Candidate]) -> tuple[bool, bool, float, float, int]:
        index, candidate = item
        band = _band(cost_ms[candidate.fleet], cost_ms.values()) if latency_ms else 0.0
        drawn = _drawn(candidate, seed) if latency_ms else 0.0
        return (not candidate.kept, candidate.weight == 0, band, drawn, index)

    return tuple(candidate.fleet for _, candidate in sorted(enumerate(candidates), key=key))


def _cost_ms(candidate: Candidate, latency_ms: Mapping[str, float]) -> float:
    return latency_ms.get(candidate.region, math.inf) + (0.0 if candidate.warm > 0 else COLD_MS)


def _band(cost_ms: float, all_ms: Iterable[float]) -> float:
    """The nearest cost that this one is as near as, so that being as near is no matter of pairs."""
    start = -math.inf
    for other_ms in sorted(all_ms):
        if not other_ms - start < AS_NEAR_MS:
            start = other_ms
        if other_ms == cost_ms:
            break
    return start


def _drawn(candidate: Candidate, seed: str) -> float:
    """Sorting by this, ascending, draws without replacement by weight. Source: Efraimidis and Spirakis 2006, weighted random sampling."""
    digest = hashlib.blake2b(f"{seed}/{candidate.fleet}".encode(), digest_size=8).digest()
    uniform = (int.from_bytes(digest, "big") + 1) / (2**64 + 1)
    return -math.log(uniform) / candidate.weight if candidate.weight else 0.0
