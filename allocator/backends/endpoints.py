"""Which of several endpoints of one allocation service is asked next. Pure: time is an argument."""

from collections.abc import Sequence
from dataclasses import dataclass

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where an allocation service of one cluster is reached."""

    address: str
    """host:port."""
    region: str = ""
    """Or zone: those of the asker's own come first."""


class Endpoints:
    """The endpoints, nearest first, and how they have done."""

    def __init__(self, endpoints: Sequence[Endpoint], *, region: str = "") -> None:
        """`region`: the asker's own; within a region the order is that of `endpoints`."""
        if not endpoints:
            raise ValueError("endpoints: one address at least is wanted, as agones-allocator.agones-system:443")
        near = [endpoint for endpoint in endpoints if endpoint.region == region]
        self._order = (*near, *(endpoint for endpoint in endpoints if endpoint.region != region))
        self._failures = dict.fromkeys(self._order, 0)
        self._until_s = dict.fromkeys(self._order, float("-inf"))

    def order(self, now_s: float) -> tuple[Endpoint, ...]:
        """Whom to ask, in turn: those that have not failed of late, then the others, soonest back first."""
        well = [endpoint for endpoint in self._order if self._until_s[endpoint] <= now_s]
        ill = sorted((e for e in self._order if e not in well), key=lambda endpoint: self._until_s[endpoint])
        return (*well, *ill)

    def failed(self, endpoint: Endpoint, now_s: float) -> None:
        """Put it aside, for twice as long each time."""
        pause_s = min(FIRST_PAUSE_S * 2 ** self._failures[endpoint], LONGEST_PAUSE_S)
        self._failures[endpoint] = min(self._failures[endpoint] + 1, 16)
        self._until_s[endpoint] = now_s + pause_s

    def answered(self, endpoint: Endpoint) -> None:
        """It does well."""
        self._failures[endpoint] = 0
        self._until_s[endpoint] = float("-inf")
