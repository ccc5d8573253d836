"""Which matches go first, and where: after how good they are while warm seats are scarce, to where warm seats are. Pure."""

import dataclasses
from collections.abc import Mapping, Sequence

from gameserver.sessions.model import FleetName
from matchmaker.model import Proposal


def place(proposals: Sequence[Proposal], supply: Mapping[FleetName, int]) -> list[Proposal]:
    """
    Order proposals and their fleets by what is warm.

    Args:
        proposals: in the order in which their oldest tickets came.
        supply: fleet → matches that it has a warm place for now; a fleet that is not named has none.
    Returns: the proposals in their order while every one finds a warm place; otherwise the best first. Each one's fleets: those with a warm place left
        first, among them and among the others as they were; a warm place that a proposal is likely to take is not counted for the next.
    """
    left = dict(supply)
    placed, scarce = _assign(proposals, left)
    if not scarce:
        return placed
    best = sorted(range(len(proposals)), key=lambda index: (-proposals[index].quality, index))
    return _assign([proposals[index] for index in best], dict(supply))[0]


def _assign(proposals: Sequence[Proposal], left: dict[FleetName, int]) -> tuple[list[Proposal], bool]:
    placed, scarce = [], False
    for proposal in proposals:
        fleets = sorted(proposal.fleets, key=lambda fleet: left.get(fleet, 0) <= 0)
        if fleets and left.get(fleets[0], 0) > 0:
            left[fleets[0]] -= 1
        else:
            scarce = True
        placed.append(dataclasses.replace(proposal, fleets=tuple(fleets)))
    return placed, scarce
