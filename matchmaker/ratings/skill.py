"""What a match does to its players' ratings: openskill, behind a small door."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gameserver.sessions.model import PlayerId
from matchmaker.model import RatingConfig
from matchmaker.ratings.outcome import Side

_MODELS = {
    "plackettLuce": "PlackettLuce",
    "bradleyTerryFull": "BradleyTerryFull",
    "bradleyTerryPart": "BradleyTerryPart",
    "thurstoneMostellerFull": "ThurstoneMostellerFull",
    "thurstoneMostellerPart": "ThurstoneMostellerPart",
}


class RatingsUnavailable(Exception):
    """A queue has ratings, and the library for them is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """What a player is worth in a queue."""

    mean: float
    spread: float
    """Standard deviation of what it may really be worth; falls with every match."""
    matches: int = 0
    """That it has been rated by."""


class Skill:
    """One queue's model. Raises RatingsUnavailable, which names the extra."""

    def __init__(self, config: RatingConfig) -> None:
        self._config = config
        try:
            from openskill import models
        except ImportError:
            raise RatingsUnavailable(
                "a queue has `ratings`, which need openskill: pip install 'warmfleet[ratings]'"
            ) from None
        # openskill's own proportions: beta is half of sigma, tau a hundredth.
        self._model: Any = getattr(models, _MODELS[config.model])(
            mu=config.initial, sigma=config.spread, beta=config.spread / 2, tau=config.spread / 100
        )

    @property
    def new(self) -> Rating:
        """Of a player who has not played yet."""
        return Rating(mean=self._config.initial, spread=self._config.spread)

    def after(self, sides: Sequence[Side], ratings: Mapping[PlayerId, Rating]) -> dict[PlayerId, Rating]:
        """The players' ratings after a match; `ratings`: of each of them before."""
        teams = [
            [self._model.rating(mu=ratings[player].mean, sigma=ratings[player].spread) for player in side.players]
            for side in sides
        ]
        rated = self._model.rate(teams, ranks=[side.place for side in sides])
        return {
            player: Rating(mean=float(now.mu), spread=float(now.sigma), matches=ratings[player].matches + 1)
            for side, team in zip(sides, rated, strict=True)
            for player, now in zip(side.players, team, strict=True)
        }
