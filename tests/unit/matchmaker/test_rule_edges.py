"""Every rule with a limit, at every edge of its expansion: at a step exactly and just before it, evenly between, optional, by each age that may count."""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from gameserver.sessions.model import FleetName, PlayerId
from matchmaker.matching.form import form_matches
from matchmaker.matching.rules import check
from matchmaker.model import (
    Age,
    BatchDistanceRule,
    DifferenceRule,
    IntersectionRule,
    LatencyRule,
    Limit,
    QueueConfig,
    QueueName,
    Reference,
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
EU = FleetName("eu")
TENFOLD = Limit(value=10, expand=(Step(after_s=10, limit=20),))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A rule that relaxes at 10 s, and a match of two tickets that obeys it from then on: half-way between its two limits."""

    rule: Rule
    values: tuple[Any, Any] = (0.0, 15.0)
    sizes: tuple[int, int] = (1, 1)
    eu_ms: float = 20.0
    ramps: bool = True


CASES = {
    "difference": Case(rule=DifferenceRule(attribute="x", limit=TENFOLD)),
    "difference to the mean": Case(
        rule=DifferenceRule(attribute="x", limit=TENFOLD, to=Reference.MEAN), values=(0.0, 30.0)
    ),
    "batchDistance": Case(rule=BatchDistanceRule(attribute="x", limit=TENFOLD)),
    "teamBalance": Case(rule=TeamBalanceRule(attribute="x", limit=TENFOLD), sizes=(2, 1)),
    "teamBalance by sum": Case(
        rule=TeamBalanceRule(attribute="x", limit=TENFOLD, by_sum=True), values=(10.0, 5.0), sizes=(2, 1)
    ),
    "teamSize": Case(
        rule=TeamSizeRule(limit=Limit(value=1, expand=(Step(after_s=10, limit=3),))), sizes=(3, 1), values=(0.0, 0.0)
    ),
    "latency": Case(rule=LatencyRule(limit=Limit(value=60, expand=(Step(after_s=10, limit=140),))), eu_ms=100),
    "intersection": Case(
        rule=IntersectionRule(attribute="x", minimum=2, expand=(Step(after_s=10, limit=1),)),
        values=(("a", "b"), ("b", "c")),
        ramps=False,
    ),
}


def ticket(name: str, value: Any, *, size: int, age_s: float, eu_ms: float) -> Ticket:
    players = tuple(
        TicketPlayer(id=PlayerId(f"{name}{i}"), attributes={"x": value}, latencies_ms={"eu": eu_ms})
        for i in range(size)
    )
    return Ticket(id=TicketId(name), players=players, created_at_s=NOW_S - age_s)


def allowed(case: Case, first_s: float, second_s: float, **changed: Any) -> bool:
    """Whether the judge lets tickets of these ages meet; the search must find them exactly then."""
    config = QueueConfig(
        name=QueueName("q"),
        fleets=(EU,),
        regions={EU: "eu"},
        teams=tuple(Team(name=f"t{i}", players=size) for i, size in enumerate(case.sizes)),
        rules=(replace(case.rule, **changed),),
        party_max=3,
    )
    pair = [
        ticket("a", case.values[0], size=case.sizes[0], age_s=first_s, eu_ms=case.eu_ms),
        ticket("b", case.values[1], size=case.sizes[1], age_s=second_s, eu_ms=case.eu_ms),
    ]
    fine = check(config, [(each,) for each in pair], NOW_S) == ""
    assert bool(form_matches(config, pair, NOW_S)) == fine, "judge and search differ"
    return fine


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize(
    ("ages_s", "own", "newest", "oldest"),
    [
        ((9.99, 9.99), False, False, False),
        ((10, 10), True, True, True),
        ((9.99, 10), False, False, True),
        ((10, 9.99), False, False, True),
        ((0, 500), False, False, True),
        ((500, 10), True, True, True),
    ],
)
def test_a_step_counts_from_its_age_on_by_the_age_that_the_rule_names(
    case: Case, ages_s: tuple[float, float], own: bool, newest: bool, oldest: bool
) -> None:
    found = [allowed(case, *ages_s, age=age) for age in (Age.OWN, Age.NEWEST, Age.OLDEST)]
    assert found == [own, newest, oldest]


@pytest.mark.parametrize(
    "case", [case for case in CASES.values() if case.ramps], ids=[n for n in CASES if CASES[n].ramps]
)
@pytest.mark.parametrize("age", Age)
def test_half_way_to_a_step_the_limit_of_a_ramp_is_half_way_too(case: Case, age: Age) -> None:
    ramp = replace(case.rule.limit, linear=True)  # type: ignore[union-attr]
    assert allowed(case, 5, 0 if age is Age.OLDEST else 30, age=age, limit=ramp)
    assert not allowed(case, 4.9, 4.9, age=age, limit=ramp)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("age", Age)
def test_from_its_age_on_a_rule_is_optional(case: Case, age: Age) -> None:
    """A rule that never relaxes, at 30 s exactly and just before, by the age that it names."""
    never: dict[str, Any] = (
        {"expand": ()}
        if isinstance(case.rule, IntersectionRule)
        else {
            "limit": Limit(value=case.rule.limit.value)  # type: ignore[union-attr]
        }
    )
    assert not allowed(case, 90, 90, age=age, **never)
    assert not allowed(case, 29.99, 29.99, age=age, optional_after_s=30.0, **never)
    assert allowed(case, 30, 30, age=age, optional_after_s=30.0, **never)
    assert allowed(case, 0, 30, age=age, optional_after_s=30.0, **never) == (age is Age.OLDEST)
