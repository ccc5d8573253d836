"""What a game says it wants."""

from typing import Any

import pytest

from gameserver.wanted import Wanted


@pytest.mark.parametrize("teams", [{"red": -1}, {"red": 1.5}, {"red": True}, {"red": None}, {1: 1}])
def test_what_is_no_number_of_players_is_refused(teams: dict[Any, Any]) -> None:
    wanted = Wanted(4)
    with pytest.raises(ValueError, match="how many players"):
        wanted.say(teams)
    assert wanted.untold is None


def test_more_players_than_seats_are_refused() -> None:
    wanted = Wanted(4)
    wanted.say({"red": 2, "blue": 2})
    with pytest.raises(ValueError, match="has seats"):
        wanted.say({"red": 2, "blue": 3})
    assert wanted.untold == {"red": 2, "blue": 2}


def test_nobody_is_a_word_too() -> None:
    """Also as the first, where an earlier server of the match may have wanted somebody; and what is said while the store is told is told next."""
    wanted = Wanted(4)
    wanted.say({})
    first = wanted.untold
    assert first == {}
    wanted.say({"red": 1})
    wanted.told(first)
    assert wanted.untold == {"red": 1}
