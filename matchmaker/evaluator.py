"""
Match functions of a studio's own: what they see, and what becomes of what they propose.

A function named in a queue's YAML (`match: studio.matching:by_clan`) is called in the matching process once a cycle with a `PoolView` and the time, and returns
proposals: for each match its teams, for each team the indices of its tickets. `evaluate` then decides, the same way every time: a proposal that is malformed or
breaks a rule is refused, and of proposals that share a ticket the best is kept. Nothing that a function does can put a ticket into two matches.
"""

import importlib
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from matchmaker.matching.form import propose
from matchmaker.matching.pool import Pool
from matchmaker.matching.rules import check, number, value_of
from matchmaker.model import Aggregate, Proposal, QueueConfig, Ticket

_REASONS = 20
"""Refusals that are put into words per cycle."""


class MatchFunctionError(Exception):
    """The function cannot be loaded, raised, took too long, or returned no proposals."""


class PoolView:
    """
    The waiting tickets as columns, oldest first; index i is the same ticket in each of them. Read-only.

    Columns are made when they are asked for, and kept for the cycle.
    """

    def __init__(self, tickets: Sequence[Ticket], now_s: float) -> None:
        self.tickets = tuple(sorted(tickets, key=lambda ticket: (ticket.created_at_s, ticket.id)))
        self.now_s = now_s
        self._made: dict[Any, npt.NDArray[Any]] = {}

    def __len__(self) -> int:
        return len(self.tickets)

    @property
    def age_s(self) -> npt.NDArray[np.float64]:
        """How long each has waited."""
        return self._column("age", lambda t: self.now_s - t.created_at_s, np.float64)

    @property
    def size(self) -> npt.NDArray[np.int64]:
        """Players of each."""
        return self._column("size", lambda t: len(t.players), np.int64)

    def number(self, attribute: str, aggregate: Aggregate = Aggregate.MEAN) -> npt.NDArray[np.float64]:
        """Each party's number; NaN where a player has none."""

        def read(ticket: Ticket) -> float:
            value = number(ticket, attribute, aggregate)
            return np.nan if value is None else value

        return self._column(("number", attribute, aggregate), read, np.float64)

    def value(self, attribute: str) -> npt.NDArray[np.object_]:
        """The value of each party's first player, as it is; None where there is none."""
        return self._column(("value", attribute), lambda t: value_of(t.players[0], attribute), np.object_)

    def latency_ms(self, region: str) -> npt.NDArray[np.float64]:
        """The round trip of each party's slowest player; infinite where it is unknown."""

        def read(ticket: Ticket) -> float:
            return max(player.latencies_ms.get(region, np.inf) for player in ticket.players)

        return self._column(("latency", region), read, np.float64)

    def _column(self, name: Any, read: Callable[[Ticket], Any], dtype: Any) -> npt.NDArray[Any]:
        if name not in self._made:
            column = np.empty(len(self.tickets), dtype)
            for index, ticket in enumerate(self.tickets):
                column[index] = read(ticket)
            column.flags.writeable = False
            self._made[name] = column
        return self._made[name]


MatchFunction = Callable[[PoolView, float], Iterable[Sequence[Sequence[int]]]]
"""(pool, now_s) → for each match its teams in the queue's order, each as indices into the pool."""


def load(path: str) -> MatchFunction:
    """`module:function`. Raises MatchFunctionError."""
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise MatchFunctionError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise MatchFunctionError(f"{path} is no function")
    return found  # type: ignore[no-any-return]


def call(function: MatchFunction, view: PoolView, limit_s: float) -> list[Sequence[Sequence[int]]]:
    """
    What a function proposes; at most as many matches as there are tickets are taken from it.

    Only on the main thread of a process (it uses the alarm signal): a function that runs Python longer than `limit_s` is interrupted; one that
    hangs in C is killed with its process by `matching.worker`.
    Raises: MatchFunctionError.
    """
    try:
        with _alarm(limit_s):
            proposals: list[Sequence[Sequence[int]]] = []
            for proposal in function(view, view.now_s):
                if len(proposals) >= len(view):
                    raise MatchFunctionError(f"it proposes more matches than there are tickets, {len(view)}")
                proposals.append(proposal)
            return proposals
    except MatchFunctionError:
        raise
    except Exception as error:
        raise MatchFunctionError(f"{type(error).__name__}: {error}") from error


def evaluate(
    queue: QueueConfig, view: PoolView, proposals: Sequence[Sequence[Sequence[int]]]
) -> tuple[list[Proposal], list[str]]:
    """
    Decide which proposals become matches.

    Refused: what is not shaped as the queue's teams, an index that is none, a ticket twice in one match, and (`match_function_checked`) what breaks a hard
    rule. Of those left that share a ticket the one of better quality is kept; of equals the one with the oldest ticket, then the one proposed first.
    Returns: (matches, those of the oldest tickets first; the first refusals in words).
    """
    sound: list[tuple[float, int, int, Proposal, list[int]]] = []
    refused: list[str] = []
    for place, proposal in enumerate(proposals):
        reason, indices = _flaw(queue, view, proposal)
        if reason:
            refused.append(f"proposal {place}: {reason}")
            continue
        teams = tuple(tuple(view.tickets[int(index)] for index in team) for team in proposal)
        match = propose(queue, teams, view.now_s)
        if not match.fleets:
            match = Proposal(teams=teams, fleets=queue.fleets, quality=match.quality, roles=match.roles)
        sound.append((-match.quality, min(indices), place, match, indices))
    taken: set[int] = set()
    kept: list[tuple[int, Proposal]] = []
    for _, oldest, place, match, indices in sorted(sound, key=lambda row: row[:3]):
        if taken.isdisjoint(indices):
            taken.update(indices)
            kept.append((oldest, match))
        else:
            refused.append(f"proposal {place}: a better one has one of its tickets")
    return [match for _, match in sorted(kept, key=lambda row: row[0])], refused[:_REASONS]


def propose_all(pool: Pool, now_s: float) -> tuple[list[Proposal], list[str]]:
    """
    One cycle over a pool, by the built-in core or by the queue's own function, on a main thread.

    Returns: (matches without overlap, the first refusals of a function's proposals in words). Raises: MatchFunctionError.
    """
    if not pool.queue.match_function:
        return pool.cycle(now_s), []
    view = PoolView(pool.waiting(), now_s)
    return evaluate(pool.queue, view, call(load(pool.queue.match_function), view, pool.queue.match_function_limit_s))


def _flaw(queue: QueueConfig, view: PoolView, proposal: Any) -> tuple[str, list[int]]:
    try:
        indices = [int(index) for team in proposal for index in team]
        teams = [[view.tickets[int(index)] for index in team] for team in proposal]
    except (TypeError, ValueError, OverflowError):
        return "it is no list of teams, each a list of indices", []
    except IndexError:
        return f"there is no ticket of that index; there are {len(view)}", []
    if any(index < 0 for index in indices):
        return "an index is negative", []
    if len(set(indices)) < len(indices):
        return "a ticket is in it twice", []
    if queue.match_function_checked:
        return check(queue, teams, view.now_s), indices
    sizes = [sum(len(ticket.players) for ticket in team) for team in teams]
    fits = len(sizes) == len(queue.teams) and all(
        team.fewest <= size <= team.players for team, size in zip(queue.teams, sizes, strict=True)
    )
    return "" if fits else "the teams are not full", indices


@contextmanager
def _alarm(limit_s: float) -> Iterator[None]:
    def interrupt(signum: int, frame: object) -> None:
        raise MatchFunctionError(f"it takes longer than {limit_s:g} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, limit_s, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
