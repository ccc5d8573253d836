"""The estimated wait: as those like it have waited, honest about its own error."""

import random
from dataclasses import replace

from matchmaking import DUEL, solo

from gameserver.sessions.model import FleetName
from matchmaker.model import DifferenceRule, EqualRule, LatencyRule, Limit, QueueConfig, TicketId
from matchmaker.waits import Estimate, Waits

QUEUE = replace(DUEL, rules=(DifferenceRule(attribute="rating", limit=Limit(value=100)), EqualRule(attribute="mode")))


def learn(waits: Waits, number: int, waited_s: float, **attributes: float | str) -> None:
    ticket, begun_s = TicketId(f"duel.{number}"), 100.0 * number
    waits.created(ticket, waits.likeness(solo(str(number), **attributes)), begun_s)
    waits.matched(ticket, begun_s + waited_s)


def estimate(waits: Waits, *, now_s: float = 1e6, age_s: float = 0.0, **attributes: float | str) -> Estimate | None:
    return waits.estimate(waits.likeness(solo("ann", **attributes)), now_s, age_s=age_s)


def test_nothing_is_said_until_something_is_known() -> None:
    waits = Waits(QUEUE)
    assert estimate(waits, rating=1500, mode="ctf") is None
    assert waits.usual is waits.error_s is waits.kept_share is None


def test_players_alike_wait_alike() -> None:
    """Rare skill and rare modes are told their own wait, and not the crowd's."""
    waits, rng = Waits(QUEUE), random.Random(1)
    for number in range(900):
        rare = number % 3 == 0
        mode = ("ctf", "race")[number % 2]
        usual_s = 40.0 if rare else (2.0 if mode == "ctf" else 10.0)
        rating = (3000 if rare else 1500) + rng.uniform(-50, 50)
        learn(waits, number, usual_s + rng.uniform(-1, 1), rating=rating, mode=mode)
    for attributes, wanted_s in (
        ({"rating": 1500, "mode": "ctf"}, 2.0),
        ({"rating": 1500, "mode": "race"}, 10.0),
        ({"rating": 3000, "mode": "ctf"}, 40.0),
    ):
        found = estimate(waits, **attributes)  # type: ignore[arg-type]
        assert found is not None
        assert abs(found.seconds - wanted_s) < 1.5
        assert found.seconds <= found.within_s < wanted_s + 2


def test_whoever_has_waited_longer_than_most_is_told_what_the_patient_ones_waited() -> None:
    waits = Waits(QUEUE)
    for number in range(100):
        learn(waits, number, 60.0 if number % 10 == 0 else 1.0, rating=1500, mode="ctf")
    young, old = estimate(waits, rating=1500, mode="ctf"), estimate(waits, rating=1500, mode="ctf", age_s=5.0)
    assert young is not None
    assert old is not None
    assert (young.seconds, old.seconds) == (1.0, 60.0)
    assert estimate(waits, rating=1500, mode="ctf", age_s=61.0) is None, "nobody has waited so long"


def test_an_opponent_who_waits_already_shortens_the_wait() -> None:
    """Of two who play each other one waits and one does not: who comes second is told so."""
    waits = Waits(QUEUE)
    like = waits.likeness(solo("x", rating=1500, mode="ctf"))
    for number in range(200):
        first, second = TicketId(f"duel.a{number}"), TicketId(f"duel.b{number}")
        waits.created(first, like, 0.0)
        with_one = waits.likeness(solo("y", rating=1500, mode="ctf"))
        waits.created(second, with_one, 9.8)
        waits.matched(first, 10.0)
        waits.matched(second, 10.0)
    alone = estimate(waits, rating=1500, mode="ctf")
    waits.created(TicketId("duel.open"), like, 0.0)
    met = estimate(waits, rating=1500, mode="ctf")
    assert alone is not None
    assert met is not None
    assert alone.seconds > 9
    assert met.seconds < 1


def test_its_own_error_is_known() -> None:
    waits = Waits(QUEUE)
    for number in range(300):
        learn(waits, number, 5.0, rating=1500, mode="ctf")
    assert waits.error_s == 0.0
    assert waits.kept_share == 1.0
    for number in range(1000, 3000):
        learn(waits, number, 8.0, rating=1500, mode="ctf")
    assert waits.usual == Estimate(seconds=8.0, within_s=8.0), "what was is forgotten"


def test_what_is_open_is_bounded_and_forgotten() -> None:
    waits = Waits(QUEUE)
    like = waits.likeness(solo("x", rating=1500, mode="ctf"))
    waits.created(TicketId("duel.1"), like, 0.0)
    waits.gone(TicketId("duel.1"))
    assert waits.matched(TicketId("duel.1"), 5.0) is None
    assert not waits._waiting


def test_a_queue_without_rules_and_one_of_regions() -> None:
    regions: QueueConfig = replace(
        DUEL,
        rules=(LatencyRule(limit=Limit(value=60)),),
        regions={FleetName("eu"): "eu", FleetName("us"): "us"},
    )
    for queue in (DUEL, regions):
        waits = Waits(queue)
        for number in range(20):
            learn(waits, number, 3.0)
        found = estimate(waits)
        assert found is not None
        assert found.seconds == 3.0
