"""
Synthetic players: tickets as a studio's players would send them. Deterministic by seed; used by the benchmarks.

Arrivals are a Poisson process whose rate follows the day (one swing of a cosine); party sizes, regions and modes are drawn by weight; skill is
normal, and a party's members are of similar skill.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from gameserver.sessions.model import PlayerId
from matchmaker.model import Ticket, TicketId, TicketPlayer


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """Who plays."""

    tickets_per_s: float = 10.0
    """On average over a day."""
    daily_swing: float = 0.0
    """0: the same all day; 1: nobody at the lowest hour, twice the average at the highest."""
    party_weights: tuple[float, ...] = (50, 20, 12, 8, 10)
    """By size, from 1."""
    regions: tuple[str, ...] = ("eu-west", "us-east", "us-west", "asia")
    region_weights: tuple[float, ...] = (40, 30, 15, 15)
    modes: tuple[str, ...] = ("ranked", "casual", "event")
    rating: tuple[float, float] = (1500.0, 300.0)
    """Mean and standard deviation."""
    party_spread: float = 30.0
    """Standard deviation of ratings within a party."""


def arrivals(
    population: Population, *, duration_s: float, seed: int, queue: str = "q", start_s: float = 0.0
) -> Iterator[Ticket]:
    """Tickets in order of arrival over a time that begins at `start_s`, which is also the lowest hour of the day."""
    rng = random.Random(seed)  # noqa: S311 (players, not secrets)
    now_s, highest = 0.0, population.tickets_per_s * (1 + population.daily_swing)
    number = 0
    while True:
        now_s += rng.expovariate(highest)
        if now_s >= duration_s:
            return
        rate = population.tickets_per_s * (1 - population.daily_swing * math.cos(2 * math.pi * now_s / 86_400))
        if rng.random() * highest < rate:
            yield ticket(population, rng, number, queue=queue, created_at_s=start_s + now_s)
            number += 1


def ticket(population: Population, rng: random.Random, number: int, *, queue: str, created_at_s: float) -> Ticket:
    """One party."""
    size = rng.choices(range(1, len(population.party_weights) + 1), population.party_weights)[0]
    mode, skill = rng.choice(population.modes), rng.gauss(*population.rating)
    home = rng.choices(population.regions, population.region_weights)[0]
    return Ticket(
        id=TicketId(f"{queue}.{number}"),
        created_at_s=created_at_s,
        players=tuple(
            TicketPlayer(
                id=PlayerId(f"{number}-{member}"),
                attributes={"rating": skill + rng.gauss(0, population.party_spread), "mode": mode},
                latencies_ms={
                    region: rng.uniform(10, 55) if region == home else rng.uniform(60, 200)
                    for region in population.regions
                },
            )
            for member in range(size)
        ),
    )
