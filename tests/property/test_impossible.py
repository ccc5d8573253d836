"""Rule sets without a match: of two lone players and rules about one attribute, exactly those are found that no two values obey."""

import itertools
import math
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gameserver.sessions.model import FleetName, PlayerId
from matchmaker.matching.impossible import impossible
from matchmaker.matching.rules import check
from matchmaker.matching.wants import missing
from matchmaker.model import (
    Attribute,
    BatchDistanceRule,
    ComparisonRule,
    DifferenceRule,
    EqualRule,
    InSetRule,
    IntersectionRule,
    Limit,
    Operation,
    QueueConfig,
    QueueName,
    Role,
    Rule,
    Step,
    Team,
    TeamBalanceRule,
    Ticket,
    TicketId,
    TicketPlayer,
)

AGE_S, TIMEOUT_S = 59.0, 60.0
NUMBERS = (-1.0, 0.0, 1.0, 1.25, 1.5, 2.0, 2.25, 2.5, 3.0, 9.0, 9.5)
VALUES: tuple[Attribute, ...] = (
    *NUMBERS,
    *"abcd",
    ("a",),
    ("b",),
    ("a", "b"),
    ("a", "b", "c"),
    ("c",),
    {"k": 1.0},
    {"k": 2.0},
)

limits = st.builds(
    lambda value, more, after_s: Limit(value=value, expand=(Step(after_s=after_s, limit=value + more),)),
    st.sampled_from([0.0, 0.0, 5.0]),
    st.sampled_from([0.0, 5.0]),
    st.sampled_from([10.0, 90.0]),
)
every = {"optional_after_s": st.sampled_from([math.inf, math.inf, math.inf, 30.0, 90.0])}
x = st.just("x")
rules: st.SearchStrategy[Rule] = st.one_of(
    st.builds(DifferenceRule, attribute=x, limit=limits, **every),
    st.builds(BatchDistanceRule, attribute=x, limit=limits, **every),
    st.builds(TeamBalanceRule, attribute=x, limit=limits, **every),
    st.builds(EqualRule, attribute=x, **every),
    st.builds(IntersectionRule, attribute=x, minimum=st.sampled_from([0, 1, 2]), **every),
    st.builds(
        InSetRule,
        attribute=x,
        values=st.lists(st.sampled_from([1.0, 2.0, "a", "b"]), min_size=1, max_size=3).map(tuple),
        **every,
    ),
    st.builds(ComparisonRule, attribute=x, operation=st.sampled_from([Operation.EQUAL, Operation.UNEQUAL]), **every),
    st.builds(
        ComparisonRule,
        attribute=x,
        operation=st.sampled_from([Operation.EQUAL, Operation.UNEQUAL]),
        value=st.sampled_from([1.0, 2.0, "a", "b"]),
        **every,
    ),
    st.builds(
        ComparisonRule, attribute=x, operation=st.sampled_from(Operation), value=st.sampled_from([1.0, 2.0]), **every
    ),
)


def ticket(name: str, value: Attribute) -> Ticket:
    player = TicketPlayer(id=PlayerId(name), attributes={"x": value})
    return Ticket(id=TicketId(f"q.{name}"), players=(player,), created_at_s=-AGE_S)


def possible(queue: QueueConfig) -> bool:
    """Whether any two values obey everything just before their tickets time out, when limits are as loose as they get."""
    welcome = [value for value in VALUES if not missing(queue, ticket("a", value).players[0])]
    return any(
        not check(queue, ((ticket("a", one),), (ticket("b", other),)), 0.0)
        for one, other in itertools.product(welcome, repeat=2)
    )


@settings(max_examples=400, deadline=None)
@given(st.lists(rules, min_size=1, max_size=4).map(tuple), st.sampled_from([None, "a", "c"]))
def test_what_is_refused_is_what_no_two_players_obey(some: tuple[Rule, ...], role: str | None) -> None:
    first = Team(name="red", players=1, roles=() if role is None else (Role(name=role, players=1),))
    queue = QueueConfig(
        name=QueueName("q"),
        fleets=(FleetName("eu"),),
        teams=(first, Team(name="blue", players=1)),
        rules=some,
        role_attribute="x",
        ticket_timeout_s=TIMEOUT_S,
    )
    found = list(impossible(queue))
    assert bool(found) != possible(queue), [each.message for each in found]
    soft = replace(queue, rules=tuple(replace(rule, weight=1.0) for rule in some))
    assert list(impossible(soft)) == [], "a soft rule forbids nothing"
