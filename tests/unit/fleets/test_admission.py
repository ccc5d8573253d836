"""AdmissionReviews, and the pods that cannot be made safe."""

import base64
import copy
import json
import re
from typing import Any

import httpx
import pytest

from fleets.admission.app import make_app
from fleets.admission.mutation import Mutation, Refused, SidecarPorts, mutate
from fleets.admission.review import MAX_BODY_BYTES, BadReview, answer

_MUTATION = Mutation()
_POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "a",
        "labels": {"agones.dev/role": "gameserver"},
        "annotations": {"agones.dev/container": "game"},
    },
    "spec": {
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirst",
        "initContainers": [
            {
                "name": "agones-gameserver-sidecar",
                "restartPolicy": "Always",
                "args": ["--grpc-port=9357", "--http-port=9358"],
                "env": [{"name": "REQUESTS_RATE_LIMIT", "value": "500ms"}],
                "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080}},
            }
        ],
        "containers": [
            {
                "name": "game",
                "env": [
                    {"name": "AGONES_SDK_GRPC_PORT", "value": "9357"},
                    {"name": "AGONES_SDK_HTTP_PORT", "value": "9358"},
                ],
                "livenessProbe": {"httpGet": {"path": "/gshealthz", "port": 8080}},
                "ports": [{"containerPort": 7927, "hostPort": 7927, "protocol": "UDP"}],
            }
        ],
    },
}


def pod(**spec: Any) -> dict[str, Any]:
    changed = copy.deepcopy(_POD)
    changed["spec"] |= spec
    return changed


def test_a_games_metrics_get_a_port_of_their_own() -> None:
    """Whatever the API server put there; it is no game port, and a second run changes nothing."""
    wanted = pod()
    metrics = {"name": "metrics", "containerPort": 9464, "hostPort": 9464, "protocol": "TCP"}
    game = wanted["spec"]["containers"][0]
    game["ports"] = [metrics, *game["ports"]]
    game["env"].append({"name": "WARMFLEET_METRICS_PORT", "value": "9464"})
    patch = {operation["path"]: operation["value"] for operation in mutate(wanted, _MUTATION)}
    assert patch["/spec/containers/0/ports"][0] == {**metrics, "containerPort": 23927, "hostPort": 23927}
    assert {"name": "WARMFLEET_METRICS_PORT", "value": "23927"} in patch["/spec/containers/0/env"]
    for path, value in patch.items():
        *parents, last = path.split("/")[1:]
        at: Any = wanted
        for parent in parents:
            at = at[int(parent)] if isinstance(at, list) else at[parent]
        at[last] = value
    assert mutate(wanted, _MUTATION) == []


def review(obj: Any, **request: Any) -> bytes:
    body = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u1",
            "operation": "CREATE",
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "object": obj,
        }
        | request,
    }
    return json.dumps(body).encode()


def test_a_pod_of_agones_gets_ports_of_its_own() -> None:
    """Byte for byte: the patch of the pod that Agones makes."""
    patch = {operation["path"]: operation["value"] for operation in mutate(_POD, _MUTATION)}
    assert patch == {
        "/spec/initContainers/0/args": ["--grpc-port=17927", "--http-port=19927", "--health-port=21927"],
        "/spec/initContainers/0/env": [
            {"name": "REQUESTS_RATE_LIMIT", "value": "500ms"},
            {"name": "REQUEST_RATE_LIMIT", "value": "20ms"},
        ],
        "/spec/initContainers/0/ports": [
            {"name": "sdk-grpc", "containerPort": 17927, "hostPort": 17927, "protocol": "TCP"},
            {"name": "sdk-http", "containerPort": 19927, "hostPort": 19927, "protocol": "TCP"},
            {"name": "sdk-health", "containerPort": 21927, "hostPort": 21927, "protocol": "TCP"},
        ],
        "/spec/initContainers/0/livenessProbe": {"httpGet": {"path": "/healthz", "port": 21927}},
        "/spec/containers/0/env": [
            {"name": "AGONES_SDK_GRPC_PORT", "value": "17927"},
            {"name": "AGONES_SDK_HTTP_PORT", "value": "19927"},
        ],
        "/spec/containers/0/livenessProbe": {"httpGet": {"path": "/gshealthz", "port": 21927}},
        "/spec/dnsPolicy": "ClusterFirstWithHostNet",
    }


def test_in_a_network_of_its_own_only_the_rate_limit_is_mended() -> None:
    """A pod that shares no ports keeps them."""
    paths = [operation["path"] for operation in mutate(pod(hostNetwork=False), _MUTATION)]
    assert paths == ["/spec/initContainers/0/env"]


def test_a_pod_that_is_no_game_server_is_left_alone() -> None:
    """Without Agones' label nothing is changed."""
    other = copy.deepcopy(_POD)
    other["metadata"]["labels"] = {"app": "web"}
    assert mutate(other, _MUTATION) == []


def test_a_foreign_game_learns_its_port_and_a_pinned_one_has_a_guaranteed_sidecar() -> None:
    """Both are asked for by annotation."""
    asked = copy.deepcopy(_POD)
    asked["metadata"]["annotations"] |= {
        "warmfleet.dev/port-variable": "PORT",
        "warmfleet.dev/guaranteed-sidecar": "true",
    }
    patch = {operation["path"]: operation["value"] for operation in mutate(asked, _MUTATION)}
    assert {"name": "PORT", "value": "7927"} in patch["/spec/containers/0/env"]
    assert patch["/spec/initContainers/0/resources"]["requests"] == patch["/spec/initContainers/0/resources"]["limits"]


@pytest.mark.parametrize(
    ("ports", "reason"),
    [
        ([], "Passthrough"),
        ([{"containerPort": 7001, "hostPort": 7927}], "Dynamic does not work"),
        ([{"containerPort": 7001}], "no host port"),
        ([{"containerPort": 9000, "hostPort": 9000}], "gameservers.minPort"),
    ],
)
def test_a_pod_that_cannot_be_made_safe_is_denied_with_the_mend(ports: list[dict[str, int]], reason: str) -> None:
    """The message is what a person reads in the GameServer's events."""
    bad = copy.deepcopy(_POD)
    bad["spec"]["containers"][0]["ports"] = ports
    response = answer(review(bad), _MUTATION)["response"]
    assert response["allowed"] is False
    assert response["uid"] == "u1"
    assert response["status"]["code"] == 403
    assert reason in response["status"]["message"]


def test_an_unknown_game_container_is_refused() -> None:
    """Two candidates and no annotation: guessing could wire the wrong one."""
    two = copy.deepcopy(_POD)
    two["metadata"]["annotations"] = {}
    two["spec"]["containers"].append({"name": "other"})
    with pytest.raises(Refused, match="which container is the game"):
        mutate(two, _MUTATION)
    with pytest.raises(Refused, match="has no container agones-gameserver-sidecar"):
        mutate(pod(initContainers=[]), _MUTATION)


def test_the_review_carries_the_patch() -> None:
    """Its uid is echoed, the patch is base64 of JSON."""
    body = answer(review(_POD), _MUTATION)
    assert body["response"]["uid"] == "u1"
    assert body["response"]["patchType"] == "JSONPatch"
    assert json.loads(base64.b64decode(body["response"]["patch"])) == mutate(_POD, _MUTATION)


@pytest.mark.parametrize(
    "request_",
    [
        {"operation": "UPDATE"},
        {"resource": {"group": "apps", "resource": "pods"}},
        {"subResource": "exec"},
        {"resource": None},
    ],
)
def test_what_is_not_a_pods_creation_is_allowed_unchanged(request_: dict[str, Any]) -> None:
    """Rules that are too wide do no harm."""
    assert answer(review(_POD, **request_), _MUTATION)["response"] == {"uid": "u1", "allowed": True}


def test_a_review_without_a_pod_is_denied() -> None:
    """Of another type than an object."""
    response = answer(review([1]), _MUTATION)["response"]
    assert (response["allowed"], response["status"]["code"]) == (False, 400)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 200_000,
        b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1beta1","request":{"uid":"u"}}',
        b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}',
        b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{}}',
        b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":7}}',
        b" " * (MAX_BODY_BYTES + 1),
    ],
    ids=["empty", "no text", "list", "object", "deep", "old", "no request", "no uid", "uid no text", "large"],
)
def test_a_body_that_is_no_review_is_said_to_be_none(body: bytes) -> None:
    """There is no uid to answer to: HTTP 400, and the API server follows the failure policy."""
    with pytest.raises(BadReview, match=r"\w"):
        answer(body, _MUTATION)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"first": 8000, "last": 7000}, "ascending"),
        ({"last": 30_000}, "closer together"),
        ({"http": 10_500}, "closer together"),
        ({"grpc": 500}, "closer together"),
        ({"health": 25_000}, "not below 32768"),
    ],
)
def test_offsets_that_could_collide_are_refused(wrong: dict[str, int], reason: str) -> None:
    """At start, not at the first collision."""
    with pytest.raises(ValueError, match=reason):
        SidecarPorts(**wrong)


async def test_over_http_malformed_and_large_bodies_get_their_codes() -> None:
    """And every outcome is counted."""

    def counts(metrics: str) -> dict[str, float]:
        return {
            k: float(v)
            for k, v in re.findall(
                r'^warmfleet_admission_reviews_total\{outcome="(\w+)"\} (.+)$', metrics, re.MULTILINE
            )
        }

    async with httpx.AsyncClient(transport=httpx.ASGITransport(make_app(_MUTATION)), base_url="http://a") as client:
        before = counts((await client.get("/metrics")).text)  # other tests count too
        assert (await client.post("/mutate", content=review(_POD))).json()["response"]["allowed"] is True
        assert (await client.post("/mutate", content=review(pod(initContainers=[])))).json()["response"][
            "allowed"
        ] is False
        assert (await client.post("/mutate", content=b"{")).status_code == 400
        assert (await client.post("/mutate", content=b" " * (MAX_BODY_BYTES + 1))).status_code == 413
        assert (await client.get("/mutate")).status_code == 405
        assert (await client.get("/readyz")).status_code == 200
        after = counts((await client.get("/metrics")).text)
    for outcome in ("patched", "denied", "malformed", "too_large"):
        assert after[outcome] == before.get(outcome, 0.0) + 1
