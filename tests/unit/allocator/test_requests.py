"""Requests to Agones: what makes no sense is refused by name, and what does survives both wire forms."""

import pytest
from agones_fake.allocation import with_defaults
from agones_fake.grpc_api import to_object as read_by_agones
from hypothesis import given, settings
from hypothesis import strategies as st

from allocator.backends.pb import allocation_pb2 as pb
from allocator.backends.request import (
    FLEET_LABEL,
    CounterAction,
    CounterChange,
    CounterRange,
    FleetRule,
    InvalidRequest,
    ListAction,
    ListRange,
    MultiCluster,
    PlayerRange,
    Priority,
    PriorityType,
    Scheduling,
    Selector,
    ServerRequest,
)
from allocator.backends.wire import (
    Given,
    from_message,
    given_by_message,
    given_by_object,
    to_answer,
    to_message,
    to_object,
)
from allocator.model import GameServer, ServerState
from gameserver.sessions.model import FleetName, ServerName

FLEET = FleetName("arena")

names = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=10)
counts = st.integers(0, 2**40)


@st.composite
def ranges(draw: st.DrawFn) -> tuple[int, int]:
    low = draw(st.integers(0, 1000))
    return low, draw(st.one_of(st.just(0), st.integers(low, 2000)))


@st.composite
def selectors(draw: st.DrawFn) -> Selector:
    def counter() -> CounterRange:
        (count, available) = draw(ranges()), draw(ranges())
        return CounterRange(
            min_count=count[0], max_count=count[1], min_available=available[0], max_available=available[1]
        )

    def listed() -> ListRange:
        low, high = draw(ranges())
        return ListRange(contains=draw(texts), min_available=low, max_available=high)

    players = sorted((draw(st.integers(0, 99)), draw(st.integers(0, 99))))
    return Selector(
        labels=draw(st.dictionaries(names, names, max_size=2)),
        state=draw(st.sampled_from([ServerState.READY, ServerState.ALLOCATED])),
        players=draw(st.sampled_from([None, PlayerRange(min_available=players[0], max_available=players[1])])),
        counters={name: counter() for name in draw(st.lists(names, max_size=2))},
        lists={name: listed() for name in draw(st.lists(names, max_size=2))},
    )


@st.composite
def requests(draw: st.DrawFn) -> ServerRequest:
    amounts = draw(st.tuples(st.sampled_from(CounterChange), counts) | st.tuples(st.none(), st.none()))
    add, remove = draw(st.lists(names, max_size=2)), draw(st.lists(names, max_size=2))
    return ServerRequest(
        selectors=tuple(draw(st.lists(selectors(), min_size=1, max_size=3))),
        scheduling=draw(st.sampled_from(Scheduling)),
        priorities=tuple(
            Priority(type=draw(st.sampled_from(PriorityType)), key=key, descending=draw(st.booleans()))
            for key in draw(st.lists(names, max_size=2))
        ),
        labels=draw(st.dictionaries(names, names, max_size=2)),
        annotations=draw(st.dictionaries(names, texts, max_size=2)),
        counters={
            name: CounterAction(change=amounts[0], amount=amounts[1], capacity=draw(st.none() | counts))
            for name in draw(st.lists(names, max_size=1))
        },
        lists={
            name: ListAction(
                add=tuple(add), remove=tuple(r for r in remove if r not in add), capacity=draw(st.none() | counts)
            )
            for name in draw(st.lists(names, max_size=1))
        },
        multi_cluster=draw(
            st.none() | st.builds(MultiCluster, policy_labels=st.dictionaries(names, names, max_size=1))
        ),
    )


@settings(max_examples=60, deadline=None)
@given(requests())
def test_a_request_survives_the_wire(request: ServerRequest) -> None:
    """What a server reads from the message is what was asked, bytes included."""
    message = pb.AllocationRequest.FromString(to_message(request, "games").SerializeToString())
    assert message.namespace == "games"
    assert from_message(message) == request


@settings(max_examples=60, deadline=None)
@given(requests())
def test_both_forms_say_the_same(request: ServerRequest) -> None:
    """Agones reads the same allocation from the gRPC message and from the GameServerAllocation."""
    by_grpc, by_http = read_by_agones(to_message(request, "games")), to_object(request, "games")
    for item in (by_grpc, by_http):
        with_defaults(item)
    for key in ("scheduling", "metadata"):
        assert by_grpc["spec"][key] == by_http["spec"][key]
    assert by_grpc["spec"].get("priorities", []) == by_http["spec"].get("priorities", [])
    assert by_grpc["spec"]["counters"] == by_http["spec"].get("counters", {})
    for read, sent in zip(by_grpc["spec"]["selectors"], by_http["spec"]["selectors"], strict=True):
        assert {k: v for k, v in read.items() if v != {} or k == "matchLabels"} == sent


def test_the_deprecated_fields_are_read_as_agones_reads_them() -> None:
    """preferred, then required; metaPatch where metadata is missing."""
    old = pb.AllocationRequest(
        preferredGameServerSelectors=[pb.GameServerSelector(matchLabels={"a": "1"})],
        requiredGameServerSelector=pb.GameServerSelector(matchLabels={"b": "2"}),
        metaPatch=pb.MetaPatch(labels={"c": "3"}),
    )
    request = from_message(old)
    assert [dict(selector.labels) for selector in request.selectors] == [{"a": "1"}, {"b": "2"}]
    assert request.labels == {"c": "3"}
    old.counters["n"].action.value = "Explode"
    with pytest.raises(InvalidRequest, match=r"Explode.*Increment or Decrement"):
        from_message(old)


def test_an_answer_survives_the_wire() -> None:
    """A server with everything that Agones says of it, through both forms."""
    server = GameServer(
        name=ServerName("a-1"), fleet=FLEET, state=ServerState.ALLOCATED, host="h", ports={"udp": 7001}, version="a",
        labels={FLEET_LABEL: FLEET, "agones.dev/gameserverset": "a"}, annotations={"n": "v"},
    )  # fmt: skip
    given_ = Given(
        server=server, node="node", source="far:443", addresses={"PodIP": "10.0.0.1"},
        counters={"c": (1, 2)}, lists={"l": (("x",), 3)},
    )  # fmt: skip
    assert given_by_message(to_answer(given_)) == given_
    status = {
        "gameServerName": "a-1", "address": "h", "nodeName": "node", "source": "far:443",
        "ports": [{"name": "udp", "port": 7001}], "addresses": [{"type": "PodIP", "address": "10.0.0.1"}],
        "metadata": {"labels": dict(server.labels), "annotations": {"n": "v"}},
        "counters": {"c": {"count": 1, "capacity": 2}}, "lists": {"l": {"values": ["x"], "capacity": 3}},
    }  # fmt: skip
    assert given_by_object(status) == given_


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"selectors": ()}, "selectors: one at least"),
        ({"selectors": (Selector(state=ServerState.SHUTDOWN),)}, r"selectors\[0\].state: Shutdown"),
        (
            {"selectors": (Selector(), Selector(players=PlayerRange(min_available=3, max_available=2)))},
            r"selectors\[1\].players: min_available 3 is above max_available 2",
        ),
        (
            {"selectors": (Selector(counters={"c": CounterRange(min_count=5, max_count=4)}),)},
            r"selectors\[0\].counters\[c\]: min_count 5 is above max_count 4",
        ),
        (
            {"selectors": (Selector(lists={"l": ListRange(min_available=-1)}),)},
            r"selectors\[0\].lists\[l\].min_available: -1 is negative",
        ),
        ({"selectors": (Selector(labels={"a b": "c"}),)}, r"selectors\[0\].labels\[a b\]: is no key"),
        ({"labels": {"a": "no value!"}}, r"labels\[a\]: 'no value!' is no label value"),
        ({"labels": {"UPPER/a": "b"}}, r"labels\[UPPER/a\]: is no key"),
        ({"annotations": {"": "b"}}, r"annotations\[\]: is no key"),
        ({"annotations": {"a": "x" * 300_000}}, "annotations: 300001 bytes are more"),
        ({"priorities": (Priority(type=PriorityType.LIST, key=""),)}, r"priorities\[0\].key: the name of a list"),
        ({"counters": {"c": CounterAction(change=CounterChange.INCREMENT)}}, r"counters\[c\]: change and amount"),
        ({"counters": {"c": CounterAction(capacity=-1)}}, r"counters\[c\].capacity: -1 is negative"),
        ({"lists": {"l": ListAction(add=("x",), remove=("x",))}}, r"lists\[l\]: \['x'\] would be added and removed"),
    ],
)
def test_what_no_server_can_match_is_refused(wrong: dict[str, object], says: str) -> None:
    """The message names the field and the mend, before anything is sent."""
    with pytest.raises(InvalidRequest, match=says):
        ServerRequest(**{"selectors": (Selector(),), **wrong})  # type: ignore[arg-type]


def test_a_rule_that_contradicts_its_fleet_is_refused() -> None:
    """A selector may name the fleet, and no other."""
    rule = FleetRule(selectors=(Selector(labels={FLEET_LABEL: "other"}),))
    with pytest.raises(InvalidRequest, match="contradicts the fleet 'arena'; leave it out"):
        rule.request(FLEET, labels={}, annotations={})
    (selector,) = FleetRule().request(FLEET, labels={"a": "b"}, annotations={}).selectors
    assert selector.labels == {FLEET_LABEL: FLEET}
