"""FlexMatch's property expressions, such as `avg(flatten(teams[*].players.attributes[skill]))`, as what they measure."""

import re
from dataclasses import dataclass

from fleets.importers.draft import ImportFailed, NoEqual

_CALL = re.compile(r"\s*([a-z_]+)\s*\((.*)\)\s*", re.DOTALL)
_PATH = re.compile(r"\s*teams?\[([^\]]*)\]\.players(?:\.attributes\[([^\]]+)\]|\[playerId\])?\s*")
FUNCTIONS = ("min", "max", "avg", "median", "sum", "count", "stddev", "flatten", "set_intersection")


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """What is measured: an attribute (None: the players themselves) of the players of some teams, and what is made of it."""

    teams: frozenset[str]
    attribute: str | None
    each: str = ""
    """What one value is made of: a team's values by this function; empty: one value a player."""
    over: str = ""
    """What is made of all those values; empty: each is measured by itself."""
    flat: bool = False
    """The teams do not matter: their players are one list."""


def parse(expression: str, team_names: frozenset[str], path: str, several: frozenset[str] = frozenset()) -> Expression:
    """
    Read an expression; `team_names` are those of the rule set, which `*` stands for, `several` those of teams alike.

    Raises: ImportFailed for a team that is none; NoEqual for what is not understood.
    """
    functions: list[str] = []
    rest = expression
    while found := _CALL.fullmatch(rest):
        functions.append(found[1])
        rest = found[2]
    named = _PATH.fullmatch(rest)
    if named is None or any(name not in FUNCTIONS for name in functions):
        raise NoEqual(f"{expression!r} is not understood")
    teams = team_names if named[1].strip() == "*" else frozenset(name.strip() for name in named[1].split(","))
    if unknown := teams - team_names:
        raise ImportFailed(f"{path}: there is no team {min(unknown)!r}")
    flat = "flatten" in functions
    # What stands outside of `flatten` is over all players; without it the innermost function is over each team.
    made = [name for name in functions if name != "flatten"]
    if (flat and functions[-1] != "flatten") or len(made) > (1 if flat else 2):
        raise NoEqual(f"{expression!r} is not understood")
    if flat:
        return Expression(teams=teams, attribute=named[2], over=made[0] if made else "", flat=True)
    each, over = (made[-1] if made else ""), (made[0] if len(made) == 2 else "")
    if len(teams) == 1 and not teams & several and each and not over:
        each, over = "", each
    return Expression(teams=teams, attribute=named[2], each=each, over=over)
