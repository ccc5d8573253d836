"""
Whom a game wants to be sent: what it says, until the store knows. Pure; `room.py` takes it from the game, the process brings it to the store.
"""

from collections.abc import Mapping


class Wanted:
    """Of one room."""

    def __init__(self, seats: int) -> None:
        self.untold: dict[str, int] | None = None
        """Team → players, as the store does not have it yet; each change is a new one."""
        self._said: dict[str, int] | None = None
        self._seats = seats

    def say(self, teams: Mapping[str, int]) -> None:
        """The game's word. Raises ValueError."""
        said = dict(teams)
        for team, players in said.items():
            if not isinstance(team, str) or not isinstance(players, int) or isinstance(players, bool) or players < 0:
                raise ValueError(
                    f"want: {team!r}: {players!r}: wanted is how many players a team is to have, 0 or more"
                )
        if sum(said.values()) > self._seats:
            raise ValueError(f"want: {said} are more players than the room has seats ({self._seats})")
        said = {team: players for team, players in said.items() if players}
        if said != self._said:
            self._said = self.untold = said

    def told(self, teams: dict[str, int] | None) -> None:
        """The store has this one."""
        if self.untold is teams:
            self.untold = None
