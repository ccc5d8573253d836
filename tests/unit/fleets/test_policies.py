"""Objects after somebody else had them, and the differences between two states of one."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleets.cluster.changes import Turn, changes
from fleets.render.checks import Severity
from fleets.render.policies import policies
from fleets.render.rendering import render
from fleets.spec.fleet import FleetSpec
from fleets.spec.platform import PlatformBody

_HOST = {"network": "host", "cpu": 2, "cpuPinning": True}
_ADMISSION = {"image": "i", "issuer": {"name": "x"}}


def objects(low: dict[str, Any], **platform: Any) -> list[dict[str, Any]]:
    spec = {
        "server": {"game": "g:G", "image": "i"},
        "lowLatency": low,
        "disruption": {"drainTimeout": "60s"},
        "warm": {"buffer": 2, "min": 2, "max": 9},
    }
    fleet = FleetSpec.model_validate(
        {"apiVersion": "warmfleet.dev/v1", "kind": "Fleet", "metadata": {"name": "arena"}, "spec": spec}
    )
    return copy.deepcopy(list(render([fleet], PlatformBody.model_validate(platform))))


def of(items: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(i for i in items if i["kind"] == kind and "admission" not in i["metadata"]["name"])


def server(items: list[dict[str, Any]]) -> Any:
    return of(items, "Fleet")["spec"]["template"]["spec"]


def pod(items: list[dict[str, Any]]) -> Any:
    return server(items)["template"]["spec"]


def _dynamic(items: Any) -> None:
    server(items)["ports"][0]["portPolicy"] = "Dynamic"


def _unguarded(items: Any) -> None:
    del server(items)["template"]["metadata"]["labels"]["warmfleet.dev/admission"]


def _no_webhook(items: Any) -> None:
    items[:] = [i for i in items if i["kind"] != "MutatingWebhookConfiguration"]


def _burstable(items: Any) -> None:
    pod(items)["containers"][0]["resources"]["limits"] = {"memory": "1Gi"}


def _short(items: Any) -> None:
    pod(items)["terminationGracePeriodSeconds"] = 30


def _blocking(items: Any) -> None:
    of(items, "PodDisruptionBudget")["spec"]["maxUnavailable"] = 0


def _two_budgets(items: Any) -> None:
    server(items)["eviction"]["safe"] = "Never"


def _small(items: Any) -> None:
    of(items, "FleetAutoscaler")["spec"]["policy"]["buffer"]["maxReplicas"] = 1


def _least(items: Any) -> None:
    of(items, "FleetAutoscaler")["spec"]["policy"]["buffer"]["minReplicas"] = 1


def _elsewhere(items: Any) -> None:
    of(items, "FleetAutoscaler")["spec"]["fleetName"] = "other"


@pytest.mark.parametrize(
    ("low", "damage", "severity", "reason"),
    [
        (_HOST, _dynamic, "error", "use Passthrough"),
        (_HOST, _unguarded, "error", "cross-wired"),
        (_HOST, _no_webhook, "warning", "counts on the admission webhook"),
        ({"cpu": 2, "cpuPinning": True}, _burstable, "error", "Burstable"),
        ({}, _burstable, "warning", "Burstable"),
        ({}, _short, "error", "30 s end before the drain's 60 s"),
        ({}, _blocking, "error", "hangs for ever"),
        ({}, _two_budgets, "error", "two budgets"),
        ({}, _small, "error", "bufferSize 2 is above maxReplicas 1"),
        ({}, _least, "error", "minReplicas 1 is below bufferSize 2"),
        ({}, _elsewhere, "warning", "no Fleet among these"),
    ],
)
def test_a_damage_to_rendered_objects_is_found(
    low: dict[str, Any], damage: Callable[[Any], None], severity: str, reason: str
) -> None:
    """Each with its reason; undamaged there is nothing to say."""
    items = objects(low, admission=_ADMISSION)
    assert policies(items) == ()
    damage(items)
    found = policies(items)
    assert any(f.severity is Severity(severity) and reason in f.message for f in found), found


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 5) | st.sampled_from(["a", "b"]),
    lambda inner: (
        st.lists(st.fixed_dictionaries({"name": st.sampled_from("abc"), "v": inner}), max_size=3)
        | st.dictionaries(st.sampled_from(["x", "y", "a.b/c"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(_VALUES, _VALUES)
def test_there_are_changes_where_there_is_a_difference(before: Any, after: Any) -> None:
    """None exactly when the states are equal, but for the order of named items; every change names two different values."""
    found = changes({"metadata": {}, "spec": before}, {"metadata": {}, "spec": after})
    for change in found:
        assert change.path.startswith("spec")
        assert change.turn is not Turn.CHANGE or json.dumps(change.before) != json.dumps(change.after)
    if json.dumps(before, sort_keys=True) == json.dumps(after, sort_keys=True):
        assert found == ()
    if not found:
        assert _sorted(before) == _sorted(after)


def _sorted(value: Any) -> Any:
    if isinstance(value, list):
        return sorted(json.dumps(_sorted(item), sort_keys=True) for item in value)
    if isinstance(value, dict):
        return {key: _sorted(inner) for key, inner in value.items()}
    return value


def test_who_holds_a_field_is_told() -> None:
    """Also of an item of a list by its key, and of a list that is held whole; not of what we hold ourselves."""
    fields = {"f:spec": {"f:ports": {}, "f:containers": {'k:{"name":"game"}': {".": {}, "f:image": {}}}, "f:ours": {}}}
    ours = {"f:spec": {"f:ours": {}}}
    live = {
        "metadata": {
            "managedFields": [
                {
                    "manager": "kubectl-edit",
                    "fieldsV1": {"f:spec": {k: v for k, v in fields["f:spec"].items() if k != "f:ours"}},
                },
                {"manager": "warmfleet", "fieldsV1": ours},
                {"manager": "agones", "subresource": "status", "fieldsV1": {"f:spec": {"f:ours": {}}}},
            ]
        },
        "spec": {"ports": [{"name": "a", "port": 1}], "containers": [{"name": "game", "image": "1"}], "ours": 1},
    }
    then = {
        "metadata": {},
        "spec": {"ports": [{"name": "a", "port": 2}], "containers": [{"name": "game", "image": "2"}], "ours": 2},
    }
    found = {change.path: change.holder for change in changes(live, then)}
    assert found == {
        "spec.ports[name=a].port": "kubectl-edit",
        "spec.containers[name=game].image": "kubectl-edit",
        "spec.ours": "",
    }
