"""Matching over random pools and random rules of every kind: what holds for every match that is formed."""

import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gameserver.sessions.model import FleetName, PlayerId
from matchmaker.generator import Population
from matchmaker.generator import ticket as synthetic
from matchmaker.matching.deal import deals
from matchmaker.matching.form import form_matches
from matchmaker.matching.pool import Pool
from matchmaker.matching.rules import agree, check, fleets_for, quality, roles_of
from matchmaker.model import (
    Age,
    Aggregate,
    Attribute,
    BatchDistanceRule,
    ComparisonRule,
    DifferenceRule,
    EqualRule,
    InSetRule,
    IntersectionRule,
    LatencyRule,
    Limit,
    Operation,
    Proposal,
    QueueConfig,
    QueueName,
    Reference,
    Role,
    Rule,
    Step,
    Team,
    TeamBalanceRule,
    TeamSizeRule,
    Ticket,
    TicketId,
    TicketPlayer,
)

NOW_S = 1000.0
FLEETS = (FleetName("eu"), FleetName("us"))
MAPS = ("ice", "rock", "sand")
ROLES = ("tank", "healer")

limits = st.builds(
    lambda value, more, linear: Limit(
        value=value, expand=tuple(Step(after_s=10.0 * (i + 1), limit=m) for i, m in enumerate(more)), linear=linear
    ),
    st.sampled_from([0.0, 5.0, 20.0]),
    st.lists(st.sampled_from([30.0, 60.0, 1e3]), max_size=2).map(sorted),
    st.booleans(),
)
every = {
    "age": st.sampled_from(Age),
    "weight": st.sampled_from([0.0, 0.0, 0.0, 2.0]),
    "optional_after_s": st.sampled_from([float("inf"), float("inf"), 15.0]),
}
rating = st.just("rating")
kinds: list[st.SearchStrategy[Rule]] = [
    st.builds(DifferenceRule, attribute=rating, limit=limits, to=st.sampled_from(Reference), **every),
    st.builds(BatchDistanceRule, attribute=rating, limit=limits, **every),
    st.builds(TeamBalanceRule, attribute=rating, limit=limits, by_sum=st.booleans(), **every),
    st.builds(TeamSizeRule, limit=st.sampled_from([0.0, 1.0, 2.0]).map(lambda value: Limit(value=value)), **every),
    st.builds(EqualRule, attribute=st.just("mode"), **every),
    st.builds(InSetRule, attribute=st.just("mode"), values=st.sampled_from([("a",), ("a", "b")]), **every),
    st.builds(IntersectionRule, attribute=st.just("maps"), minimum=st.integers(0, 2), **every),
    st.builds(
        ComparisonRule,
        attribute=rating,
        operation=st.sampled_from(Operation),
        value=st.sampled_from([30.0, None]),
        **every,
    ).filter(lambda rule: rule.value is not None or rule.operation in (Operation.EQUAL, Operation.UNEQUAL)),
]
latency = st.builds(LatencyRule, limit=limits, minimise=st.booleans(), **every)
some_rules = st.builds(
    lambda rules, near: (*rules, *near), st.lists(st.one_of(kinds), max_size=4), st.lists(latency, max_size=1)
)


def make_team(index: int, players: int, fewer: int, role: str | None) -> Team:
    roles = () if role is None else (Role(name=role, players=1),)
    return Team(name=str(index), players=players, minimum=max(1, players - fewer) if fewer else 0, roles=roles)


teams = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from([0, 0, 0, 1, 3]), st.sampled_from([None, None, *ROLES])),
    min_size=1,
    max_size=3,
).map(lambda rows: tuple(make_team(index, *row) for index, row in enumerate(rows)))
queues = st.builds(
    QueueConfig,
    name=st.just(QueueName("q")),
    fleets=st.just(FLEETS),
    regions=st.just({FLEETS[0]: "eu", FLEETS[1]: "us"}),
    teams=teams,
    rules=some_rules,
    party_max=st.just(3),
    aggregate=st.sampled_from(Aggregate),
    wait_for_full_s=st.sampled_from([0.0, 12.0]),
    max_wait_s=st.sampled_from([float("inf"), 25.0]),
    priorities=st.just({"premium": 8.0}),
    avoid_for_s=st.just(10.0),
)
attributes: st.SearchStrategy[dict[str, Attribute]] = st.fixed_dictionaries(
    {
        "rating": st.integers(0, 60).map(float),
        "mode": st.sampled_from(["a", "a", "b"]),
        "maps": st.lists(st.sampled_from(MAPS), unique=True, min_size=1).map(tuple),
        "role": st.lists(st.sampled_from(ROLES), unique=True).map(tuple),
    },
    optional={"noise": st.just("x")},
).flatmap(lambda full: st.sampled_from([full, full, full, {key: full[key] for key in full if key != "rating"}]))
strangers = st.lists(st.integers(0, 23).map(lambda i: PlayerId(f"{i}-0")), max_size=1).map(tuple)
players = st.tuples(
    attributes,
    st.dictionaries(st.sampled_from(["eu", "us"]), st.integers(0, 60).map(float)),
    st.sampled_from([True, False, False, False]).flatmap(lambda shy: strangers if shy else st.just(())),
    st.sampled_from([True, False, False, False]).flatmap(lambda shy: strangers if shy else st.just(())),
)
pools = st.lists(
    st.tuples(st.lists(players, min_size=1, max_size=3), st.integers(0, 30), st.sampled_from(["", "", "premium"])),
    max_size=24,
).map(
    lambda rows: [
        Ticket(
            id=TicketId(f"q.{i}"),
            created_at_s=NOW_S - age_s,
            priority=priority,
            players=tuple(
                TicketPlayer(
                    id=PlayerId(f"{i}-{j}"), attributes=values, latencies_ms=trips, blocked=blocked, avoided=avoided
                )
                for j, (values, trips, blocked, avoided) in enumerate(party)
            ),
        )
        for i, (party, age_s, priority) in enumerate(rows)
    ]
)


def assert_sound(queue: QueueConfig, pool: list[Ticket], matches: list[Proposal]) -> None:
    """Nobody is in two, and each obeys every rule, goes where it may, and says its quality and roles."""
    matched = [ticket.id for match in matches for ticket in match.tickets]
    assert len(set(matched)) == len(matched)
    assert set(matched) <= {ticket.id for ticket in pool}
    for match in matches:
        assert check(queue, match.teams, NOW_S) == ""
        assert match.fleets == fleets_for(queue, match.tickets, NOW_S)
        assert match.quality == pytest.approx(quality(queue, match.teams, NOW_S))
        for team, tickets in zip(queue.teams, match.teams, strict=True):
            here = [player for ticket in tickets for player in ticket.players]
            wanted = roles_of(team, here, queue.role_attribute) if team.roles else {}
            assert {p.id: match.roles[p.id] for p in here if p.id in match.roles} == wanted


def turn_s(queue: QueueConfig, ticket: Ticket) -> float:
    age_s = NOW_S - ticket.created_at_s
    return age_s + queue.priorities.get(ticket.priority, 0.0) + 1e6 * (age_s >= queue.max_wait_s)


@settings(max_examples=250, deadline=None)
@given(queues, pools, st.integers())
def test_every_match_obeys_every_rule_and_nobody_is_in_two(queue: QueueConfig, pool: list[Ticket], seed: int) -> None:
    matches = form_matches(queue, pool, NOW_S)
    assert_sound(queue, pool, matches)
    turns = [max(turn_s(queue, ticket) for ticket in match.tickets) for match in matches]
    assert turns == sorted(turns, reverse=True)
    random.Random(seed).shuffle(pool)
    assert form_matches(queue, pool, NOW_S) == matches, "the order of the pool shows"


def some_match(queue: QueueConfig, pool: list[Ticket]) -> list[list[Ticket]] | None:
    """Any match at all, by trying every set of tickets and every way to deal it."""
    rooms, fewest = [team.players for team in queue.teams], [team.fewest for team in queue.teams]
    for count in range(1, len(pool) + 1):
        for some in itertools.combinations(pool, count):
            for dealt in deals([len(ticket.players) for ticket in some], rooms, fewest):
                match = [[t for t, at in zip(some, dealt, strict=True) if at == n] for n in range(len(rooms))]
                if not check(queue, match, NOW_S):
                    return match
    return None


@settings(max_examples=150, deadline=None)
@given(queues, pools.map(lambda pool: pool[:5]))
def test_in_a_small_pool_a_match_is_found_whenever_there_is_one(queue: QueueConfig, pool: list[Ticket]) -> None:
    """Brute force agrees: what the rules allow is never missed, whichever rules."""
    possible = some_match(queue, pool)
    assert bool(form_matches(queue, pool, NOW_S)) == (possible is not None), possible


PEOPLE = Population(party_weights=(60, 20, 10, 5, 5))
RELAXING = Limit(value=60, expand=(Step(after_s=20, limit=200),))


def draw(count: int, seed: int) -> list[Ticket]:
    rng = random.Random(seed)
    pool = [synthetic(PEOPLE, rng, i, queue="q", created_at_s=NOW_S - rng.uniform(0, 60)) for i in range(count)]

    def more(ticket: Ticket) -> Ticket:
        maps = tuple(rng.sample(MAPS, rng.randint(1, 3)))
        roles = tuple(rng.sample(ROLES, rng.randint(0, 2)))
        party = tuple(
            TicketPlayer(
                id=player.id,
                attributes={**player.attributes, "maps": maps, "role": roles, "hero": f"h{rng.randrange(500)}"},
                latencies_ms=player.latencies_ms,
                blocked=(PlayerId(f"{rng.randrange(count)}-0"),) if rng.random() < 0.02 else (),
            )
            for player in ticket.players
        )
        return Ticket(id=ticket.id, players=party, created_at_s=ticket.created_at_s)

    return [more(ticket) for ticket in pool]


@pytest.mark.parametrize(
    "rules",
    [
        (DifferenceRule(attribute="rating", limit=RELAXING, to=Reference.MEAN), EqualRule(attribute="mode")),
        (
            DifferenceRule(attribute="rating", limit=RELAXING, age=Age.OLDEST),
            LatencyRule(limit=RELAXING, age=Age.OLDEST),
        ),
        (BatchDistanceRule(attribute="rating", limit=Limit(value=300)), LatencyRule(limit=RELAXING, minimise=True)),
        (EqualRule(attribute="mode", optional_after_s=30), InSetRule(attribute="mode", values=("ranked", "casual"))),
        (IntersectionRule(attribute="maps", minimum=2, expand=(Step(after_s=30, limit=1),)),),
        (ComparisonRule(attribute="hero", operation=Operation.UNEQUAL), TeamSizeRule(limit=Limit(value=0))),
        (
            ComparisonRule(
                attribute="rating", operation=Operation.MORE, value=1200.0, age=Age.OLDEST, optional_after_s=50
            ),
        ),
        (TeamBalanceRule(attribute="rating", limit=Limit(value=20)), EqualRule(attribute="mode", weight=1)),
    ],
    ids=lambda rules: type(rules[0]).__name__,
)
@pytest.mark.parametrize("roles", [False, True])
def test_a_pool_that_is_cut_obeys_every_rule_too(rules: tuple[Rule, ...], roles: bool) -> None:
    """Thousands of tickets take another way to their matches than a few do."""
    places = (Role(name="tank", players=1),) if roles else ()
    queue = QueueConfig(
        name=QueueName("q"),
        fleets=tuple(map(FleetName, PEOPLE.regions)),
        regions={FleetName(region): region for region in PEOPLE.regions},
        teams=(Team(name="red", players=5, roles=places), Team(name="blue", players=5, roles=places)),
        rules=rules,
        party_max=5,
    )
    pool = draw(4500, seed=len(rules))
    matches = form_matches(queue, pool, NOW_S)
    assert_sound(queue, pool, matches)
    assert len(matches) > 50, "the test would prove nothing"
    random.Random(0).shuffle(pool)
    assert form_matches(queue, pool, NOW_S) == matches, "the order of the pool shows"


def waits_of(queue: QueueConfig, seed: int, special: Callable[[int, float], Ticket]) -> list[float]:
    """How long special tickets wait, one of which comes every 5 s among 12 lone players a second, who find each other at once."""
    rng, pool = random.Random(seed), Pool(queue)
    born: dict[TicketId, float] = {}
    waits, gone, number = [], list[TicketId](), 0
    for cycle in range(600):
        now_s = NOW_S + cycle * 0.25
        fresh = []
        for _ in range(3):
            rating = rng.gauss(1500, 100)
            player = TicketPlayer(id=PlayerId(f"p{number}"), attributes={"rating": rating})
            fresh.append(Ticket(id=TicketId(f"q.{number}"), players=(player,), created_at_s=now_s))
            number += 1
        if cycle % 20 == 0 and cycle < 400:
            fresh.append(special(cycle, now_s))
            born[fresh[-1].id] = now_s
        pool.change(fresh, gone)
        gone = [ticket.id for match in pool.cycle(now_s) for ticket in match.tickets]
        waits += [now_s - born.pop(name) for name in gone if name in born]
    assert not born, "somebody starves"
    return waits


def party_of_five(number: int, now_s: float) -> Ticket:
    players = tuple(TicketPlayer(id=PlayerId(f"s{number}-{i}"), attributes={"rating": 1500.0}) for i in range(5))
    return Ticket(id=TicketId(f"q.s{number}"), players=players, created_at_s=now_s)


def rare_skill(number: int, now_s: float) -> Ticket:
    player = TicketPlayer(id=PlayerId(f"s{number}"), attributes={"rating": 2600.0 if number % 40 else 400.0})
    return Ticket(id=TicketId(f"q.s{number}"), players=(player,), created_at_s=now_s)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("special", "relaxes_s"), [(party_of_five, 0.0), (rare_skill, 10.0)])
def test_nobody_starves_whom_the_rules_allow_a_match(
    seed: int, special: Callable[[int, float], Ticket], relaxes_s: float
) -> None:
    """Large parties, and players of a rare skill once their limit has relaxed, among many who are easy to match; and the same seed, the same waits."""
    limit = Limit(value=400, expand=(Step(after_s=10, limit=5000),))
    queue = QueueConfig(
        name=QueueName("q"),
        fleets=FLEETS,
        teams=(Team(name="red", players=5), Team(name="blue", players=5)),
        rules=(DifferenceRule(attribute="rating", limit=limit, age=Age.OLDEST),),
        party_max=5,
    )
    waits = waits_of(queue, seed, special)
    assert max(waits) <= relaxes_s + 5.0
    assert waits == waits_of(queue, seed, special)


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
def test_in_a_duel_whoever_waited_far_longer_is_matched_if_anybody_fits_and_no_pair_is_left_over(
    queue: QueueConfig, pool: list[Ticket]
) -> None:
    """Brute force agrees: the oldest that fits somebody plays once it has waited far longer than most, and nobody who is left fits anybody who is left."""
    by_age = sorted(pool, key=lambda ticket: (ticket.created_at_s, ticket.id))
    fit = {frozenset((a.id, b.id)) for a, b in itertools.combinations(by_age, 2) if agree(queue, (a, b), NOW_S)}
    matched = {ticket.id for match in form_matches(queue, pool, NOW_S) for ticket in match.tickets}
    fitting = [ticket for ticket in by_age if any(ticket.id in pair for pair in fit)]
    assert bool(fitting) == bool(matched)
    far_longer_s = 5 * sum(NOW_S - ticket.created_at_s for ticket in pool) / max(len(pool), 1)
    if fitting and NOW_S - fitting[0].created_at_s >= far_longer_s:
        assert matched & {ticket.id for ticket in fitting if ticket.created_at_s == fitting[0].created_at_s}
    assert not [pair for pair in fit if not pair & matched]
