"""FleetAutoscaleReview: what a live controller sent is read, anything else is named."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleets.autoscaler.policy import Decision
from fleets.autoscaler.review import BadReview, answer, parse

SENT = {
    "request": {
        "uid": "0e3f", "name": "arena", "namespace": "default",
        "status": {"replicas": 5, "readyReplicas": 3, "reservedReplicas": 0, "allocatedReplicas": 2},
        "annotations": {"a": "b"},
    },
    "response": None,
}  # fmt: skip


def test_a_review_is_read_and_answered() -> None:
    """The answer has the same uid and the total of servers."""
    request = parse(json.dumps(SENT).encode())
    assert (request.fleet, request.replicas, request.ready, request.allocated) == ("arena", 5, 3, 2)
    decision = Decision(at_s=0, replicas=7, buffer=5, wanted=5, reasons=("because",))
    assert answer(request, decision) == {"response": {"uid": "0e3f", "scale": True, "replicas": 7}}
    assert not answer(request, Decision(at_s=0, replicas=5, buffer=3, wanted=3, reasons=()))["response"]["scale"]


@pytest.mark.parametrize(
    ("change", "field"),
    [({"uid": ""}, "uid"), ({"name": 4}, "name"), ({"status": []}, "status"), ({"status": {"replicas": -1}}, "replicas"),
     ({"status": {"readyReplicas": True}}, "readyReplicas"), ({"namespace": None}, "namespace")],
)  # fmt: skip
def test_a_bad_field_is_named(change: dict[str, object], field: str) -> None:
    """The message says which field is wrong."""
    body = {"request": {**SENT["request"], **change}}  # type: ignore[dict-item]
    with pytest.raises(BadReview, match=field):
        parse(json.dumps(body).encode())


JUNK = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["request", "uid", "status"]), inner),
)


@given(st.binary(max_size=200) | JUNK.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    """No body raises anything but BadReview."""
    try:
        parse(body)
    except BadReview:
        pass
