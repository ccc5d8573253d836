"""What a rollout needs of the world."""

from typing import Protocol

from fleets.rollout.model import Action, Health, Observed, State


class StateChanged(Exception):
    """Somebody else wrote the state since it was read: read it again."""


class Tracks(Protocol):
    """The two fleets of one rollout, and its memory. Every method raises ClusterError."""

    def load(self) -> State | None:
        """What is remembered; None where there was no rollout."""

    def save(self, state: State) -> None:
        """Remember. Raises StateChanged."""

    def observe(self, state: State) -> Observed:
        """Look at both fleets."""

    def act(self, action: Action) -> None:
        """Do it; doing it twice is doing it once."""


class HealthSource(Protocol):
    """What is known of the new version beyond its servers' states."""

    def health(self, fleet: str) -> Health:
        """Of a canary fleet's matches and ticks; None where nothing is known."""
