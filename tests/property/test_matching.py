"""Matching over random pools: what holds for every match that is formed."""

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from gameserver.sessions.model import FleetName, PlayerId
from matchmaker.matching.form import form_matches
from matchmaker.matching.rules import agree, check, fleets_for
from matchmaker.model import (
    Aggregate,
    Attribute,
    DifferenceRule,
    EqualRule,
    IntersectionRule,
    LatencyRule,
    Limit,
    QueueConfig,
    QueueName,
    Rule,
    Step,
    Team,
    TeamBalanceRule,
    Ticket,
    TicketId,
    TicketPlayer,
)

NOW_S = 1000.0
FLEETS = (FleetName("eu"), FleetName("us"))
MAPS = ("ice", "rock", "sand")

limits = st.builds(
    lambda value, more: Limit(
        value=value, expand=tuple(Step(after_s=10.0 * (i + 1), limit=m) for i, m in enumerate(more))
    ),
    st.sampled_from([0.0, 5.0, 20.0]),
    st.lists(st.sampled_from([30.0, 60.0, 1e3]), max_size=2).map(sorted),
)
rules: st.SearchStrategy[Rule] = st.one_of(
    st.builds(DifferenceRule, attribute=st.just("rating"), limit=limits),
    st.builds(TeamBalanceRule, attribute=st.just("rating"), limit=limits),
    st.builds(LatencyRule, limit=limits),
    st.builds(EqualRule, attribute=st.just("mode")),
    st.builds(IntersectionRule, attribute=st.just("maps"), minimum=st.integers(0, 2)),
)
queues = st.builds(
    lambda teams, rules, aggregate: QueueConfig(
        name=QueueName("q"),
        fleets=FLEETS,
        regions={FLEETS[0]: "eu", FLEETS[1]: "us"},
        teams=tuple(Team(name=str(i), players=players) for i, players in enumerate(teams)),
        rules=tuple(rules),
        party_max=3,
        aggregate=aggregate,
    ),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.lists(rules, max_size=4),
    st.sampled_from(Aggregate),
)
attributes: st.SearchStrategy[dict[str, Attribute]] = st.fixed_dictionaries(
    {
        "rating": st.integers(0, 60).map(float),
        "mode": st.sampled_from(["a", "b"]),
        "maps": st.lists(st.sampled_from(MAPS), unique=True).map(tuple),
    }
)
parties = st.lists(
    st.tuples(attributes, st.dictionaries(st.sampled_from(["eu", "us"]), st.integers(0, 60).map(float))),
    min_size=1,
    max_size=3,
)
pools = st.lists(st.tuples(parties, st.integers(0, 30)), max_size=24).map(
    lambda rows: [
        Ticket(
            id=TicketId(f"q.{i}"),
            created_at_s=NOW_S - age_s,
            players=tuple(
                TicketPlayer(id=PlayerId(f"{i}-{j}"), attributes=values, latencies_ms=latencies)
                for j, (values, latencies) in enumerate(party)
            ),
        )
        for i, (party, age_s) in enumerate(rows)
    ]
)


@settings(max_examples=60, deadline=None)
@given(queues, pools, st.integers())
def test_every_match_obeys_every_rule_and_nobody_is_in_two(queue: QueueConfig, pool: list[Ticket], seed: int) -> None:
    matches = form_matches(queue, pool, NOW_S)
    matched = [ticket.id for match in matches for ticket in match.tickets]
    assert len(set(matched)) == len(matched)
    assert set(matched) <= {ticket.id for ticket in pool}
    for match in matches:
        assert check(queue, match.teams, NOW_S) == ""
        assert match.fleets == fleets_for(queue, match.tickets, NOW_S) != ()
    oldest = [min(t.created_at_s for t in match.tickets) for match in matches]
    assert oldest == sorted(oldest)
    random.Random(seed).shuffle(pool)
    assert form_matches(queue, pool, NOW_S) == matches, "the order of the pool shows"


solos = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 40)), max_size=20).map(
    lambda rows: [
        Ticket(
            id=TicketId(f"q.{i:02}"),
            created_at_s=NOW_S - age_s,
            players=(TicketPlayer(id=PlayerId(str(i)), attributes={"rating": float(rating)}),),
        )
        for i, (rating, age_s) in enumerate(rows)
    ]
)
duels = limits.map(
    lambda limit: QueueConfig(
        name=QueueName("q"),
        fleets=FLEETS,
        teams=(Team(name="red", players=1), Team(name="blue", players=1)),
        rules=(DifferenceRule(attribute="rating", limit=limit),),
    )
)


@settings(max_examples=60, deadline=None)
@given(duels, solos)
def test_in_a_duel_the_oldest_is_matched_whenever_anybody_fits_and_no_pair_is_left_over(
    queue: QueueConfig, pool: list[Ticket]
) -> None:
    """Brute force agrees: the oldest that fits somebody plays, and nobody who is left fits anybody who is left."""
    by_age = sorted(pool, key=lambda ticket: (ticket.created_at_s, ticket.id))
    fit = {frozenset((a.id, b.id)) for a, b in itertools.combinations(by_age, 2) if agree(queue, (a, b), NOW_S)}
    matched = {ticket.id for match in form_matches(queue, pool, NOW_S) for ticket in match.tickets}
    fitting = [ticket for ticket in by_age if any(ticket.id in pair for pair in fit)]
    oldest = {ticket.id for ticket in fitting if ticket.created_at_s == fitting[0].created_at_s}
    assert (not oldest and not matched) or oldest & matched
    assert not [pair for pair in fit if not pair & matched]
