"""
Who won, as a game's results say it. Pure.

Results are the JSON object that a session ended with. What is looked for, first come first served; names are teams or players:

- `ranks`: {name: place}, 1 is best, equal places are a draw;
- `winners` (a list) or `winner`: these before all others;
- `scores`: {name: number}, more is better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gameserver.sessions.model import PlayerId


@dataclass(frozen=True, slots=True)
class Side:
    """Players who win or lose together, and at which place they ended: lower is better."""

    players: tuple[PlayerId, ...]
    place: float


def sides(results: Mapping[str, Any], seats: Sequence[tuple[PlayerId, str]]) -> tuple[Side, ...]:
    """
    How a match ended.

    Args:
        seats: (player, team); players of one team are one side, unless the results speak of players and there is only one team.
    Returns: two sides or more; none when the results say nothing of the kind (an aborted match, a game without winners): nobody's rating changes.
    """
    teams: dict[str, list[PlayerId]] = {}
    for player, team in seats:
        teams.setdefault(team, []).append(player)
    if len(teams) < 2:
        teams = {player: [player] for player, _ in seats}
    places = _places(results, teams)
    if len(teams) < 2 or places is None:
        return ()
    return tuple(Side(tuple(players), places[team]) for team, players in teams.items())


def last(ended: Sequence[Side], side: Side) -> tuple[Side, ...]:
    """The same match, had this side come last."""
    worst = max(each.place for each in ended) + 1
    return tuple(replace(each, place=worst) if each is side else each for each in ended)


def names(results: Mapping[str, Any], player: PlayerId) -> bool:
    """Whether results speak of a player by its own name."""
    said = [results.get(key) for key in ("ranks", "winners", "scores")]
    return any(isinstance(one, Mapping | list) and player in one for one in said) or results.get("winner") == player


def _places(results: Mapping[str, Any], teams: Mapping[str, Sequence[PlayerId]]) -> dict[str, float] | None:
    if (ranks := _numbers(results.get("ranks"), teams, min)) is not None:
        return ranks
    winners = results.get("winners", [results["winner"]] if "winner" in results else None)
    if isinstance(winners, list):
        won = {
            team for team, players in teams.items() if team in winners or any(player in winners for player in players)
        }
        if won:
            return {team: 1.0 if team in won else 2.0 for team in teams}
    scores = _numbers(results.get("scores"), teams, sum)
    return None if scores is None else {team: -score for team, score in scores.items()}


def _numbers(said: Any, teams: Mapping[str, Sequence[PlayerId]], together: Any) -> dict[str, float] | None:
    """A number for each team: its own, or its players' put together; None when one has none."""
    if not isinstance(said, Mapping):
        return None
    found = {}
    for team, players in teams.items():
        numbers = [said[team]] if team in said else [said[player] for player in players if player in said]
        if not numbers or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
            return None
        found[team] = float(together(numbers))
    return found
