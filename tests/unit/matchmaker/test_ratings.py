"""Who won by what a game said, and what that does to ratings."""

import builtins
from typing import Any

import pytest

from gameserver.sessions.model import PlayerId
from matchmaker.model import RatingConfig
from matchmaker.ratings.outcome import Side, sides
from matchmaker.ratings.skill import Rating, RatingsUnavailable, Skill

ANN, BOB, CAT, DAN = map(PlayerId, ("ann", "bob", "cat", "dan"))
DUEL = ((ANN, "red"), (BOB, "blue"))
SQUADS = ((ANN, "red"), (BOB, "red"), (CAT, "blue"), (DAN, "blue"))
ALONE = ((ANN, "all"), (BOB, "all"), (CAT, "all"))


@pytest.mark.parametrize(
    ("results", "seats", "places"),
    [
        ({"winners": ["ann"]}, DUEL, [1, 2]),
        ({"winner": "blue"}, DUEL, [2, 1]),
        ({"winners": ["ann", "bob"], "scores": {"ann": 1, "bob": 1}}, DUEL, [1, 1]),
        ({"scores": {"ann": 3, "bob": 7}}, DUEL, [-3, -7]),
        ({"scores": {"red": 3, "blue": 7}}, SQUADS, [-3, -7]),
        ({"scores": {"ann": 3, "bob": 1, "cat": 5, "dan": 0}}, SQUADS, [-4, -5]),
        ({"ranks": {"red": 2, "blue": 1}, "winners": ["red"]}, SQUADS, [2, 1]),
        ({"ranks": {"ann": 3, "bob": 1, "cat": 2}}, ALONE, [3, 1, 2]),
        ({"winners": ["cat"]}, ALONE, [2, 2, 1]),
        ({"winners": ["nobody"], "scores": {"ann": 2, "bob": 1}}, DUEL, [-2, -1]),
    ],
)
def test_results_are_read(results: dict[str, Any], seats: Any, places: list[float]) -> None:
    assert [side.place for side in sides(results, seats)] == places


@pytest.mark.parametrize(
    "results",
    [
        {},
        {"error": "the game failed"},
        {"winners": []},
        {"winners": ["eve"]},
        {"winners": "ann"},
        {"scores": {"ann": 1}},
        {"scores": {"ann": "1", "bob": 2}},
        {"scores": {"ann": True, "bob": 2}},
        {"ranks": [1, 2]},
    ],
)
def test_results_that_say_nothing_change_nobody(results: dict[str, Any]) -> None:
    assert sides(results, DUEL) == ()
    assert sides({"winners": ["ann"]}, [(ANN, "red")]) == (), "nobody to win against"


@pytest.mark.parametrize(
    "model",
    ["plackettLuce", "bradleyTerryFull", "bradleyTerryPart", "thurstoneMostellerFull", "thurstoneMostellerPart"],
)
def test_who_wins_rises_and_every_match_makes_surer(model: str) -> None:
    skill = Skill(RatingConfig(model=model))
    before = dict.fromkeys((ANN, BOB), skill.new)
    after = skill.after((Side((ANN,), 1), Side((BOB,), 2)), before)
    assert after[ANN].mean > 1500 > after[BOB].mean
    assert after[ANN].spread < 500
    assert after[ANN].matches == 1
    draw = skill.after((Side((ANN,), 1), Side((BOB,), 1)), before)
    assert draw[ANN].mean == pytest.approx(draw[BOB].mean)
    upset = skill.after(
        (Side((ANN,), 2), Side((BOB,), 1)), {ANN: Rating(mean=2000, spread=100), BOB: Rating(mean=1000, spread=100)}
    )
    usual = skill.after(
        (Side((ANN,), 1), Side((BOB,), 2)), {ANN: Rating(mean=2000, spread=100), BOB: Rating(mean=1000, spread=100)}
    )
    assert upset[BOB].mean - 1000 > usual[ANN].mean - 2000, "who beats a better one learns more"


def test_without_the_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **values: Any) -> Any:
        if name == "openskill":
            raise ImportError(name)
        return real(name, *args, **values)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(RatingsUnavailable, match=r"warmfleet\[ratings\]"):
        Skill(RatingConfig())
