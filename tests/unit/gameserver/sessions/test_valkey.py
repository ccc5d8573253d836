"""How a session's record is written and read."""

import json

import hypothesis.strategies as st
from hypothesis import given

from gameserver.sessions.model import PlayerId, Seat
from gameserver.sessions.valkey import encode_seats


@given(st.lists(st.tuples(st.integers(0, 99), st.text(max_size=20), st.text(max_size=5)), max_size=5))
def test_seats_are_json_whatever_players_are_called(rows: list[tuple[int, str, str]]) -> None:
    """A list of [index, player, team], read back as it was."""
    seats = tuple(Seat(index=index, player=PlayerId(player), team=team) for index, player, team in rows)
    assert json.loads(encode_seats(seats)) == [list(row) for row in rows]
