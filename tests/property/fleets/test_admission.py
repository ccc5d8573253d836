"""The mutation over pods as Agones makes them, in all their variants."""

import copy
import itertools
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fleets.admission.mutation import EPHEMERAL_FROM, SIDECAR, Mutation, Refused, SidecarPorts, mutate
from fleets.admission.review import BadReview, answer

_MUTATION = Mutation()
_PORTS = st.integers(7000, 8000)
_ENV = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["MODE", "A", "AGONES_SDK_GRPC_PORT", "PORT"]), "value": st.text(max_size=5)}
    ),
    max_size=4,
    unique_by=lambda entry: entry["name"],
)


def apply(pod: dict[str, Any], patch: list[dict[str, Any]]) -> dict[str, Any]:
    """RFC 6902's `add`, for members of objects: what the API server does with our patch."""
    result = copy.deepcopy(pod)
    for operation in patch:
        assert operation["op"] == "add"
        *parents, last = operation["path"].split("/")[1:]
        target: Any = result
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target[part]
        target[last] = operation["value"]
    return result


@st.composite
def pods(draw: st.DrawFn, *, host_network: bool | None = None) -> dict[str, Any]:
    """A game server's pod: the sidecar among the init containers (today) or the containers (before)."""
    sidecar: dict[str, Any] = {
        "name": SIDECAR,
        "image": "agones-sdk",
        "args": draw(
            st.sampled_from(
                [
                    ["--grpc-port=9357", "--http-port=9358"],
                    ["--grpc-port", "9357", "--http-port", "9358", "--test=x"],
                    [],
                ]
            )
        ),
        "env": [{"name": "GAMESERVER_NAME", "value": "a"}, {"name": "REQUESTS_RATE_LIMIT", "value": "500ms"}],
        "resources": {"requests": {"cpu": "30m"}},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 3},
    }
    if not sidecar["args"]:
        del sidecar["args"]
    ports = draw(st.lists(_PORTS, min_size=1, max_size=3, unique=True))
    game: dict[str, Any] = {
        "name": "game",
        "image": "game",
        "env": [*draw(_ENV), {"name": "AGONES_SDK_HTTP_PORT", "value": "9358"}],
        "ports": [{"containerPort": port, "hostPort": port, "protocol": "UDP"} for port in ports],
        "livenessProbe": draw(
            st.sampled_from([{"httpGet": {"path": "/gshealthz", "port": 8080}}, {"exec": {"command": ["true"]}}])
        ),
    }
    if draw(st.booleans()):
        metrics = {"name": "metrics", "containerPort": 9464, "hostPort": 9464, "protocol": "TCP"}
        game["ports"].insert(draw(st.integers(0, len(ports))), metrics)
        game["env"].append({"name": "WARMFLEET_METRICS_PORT", "value": "9464"})
    others = [{"name": f"helper{i}", "image": "h"} for i in range(draw(st.integers(0, 2)))]
    modern = draw(st.booleans())
    spec: dict[str, Any] = {
        "containers": [*([] if modern else [sidecar]), game, *others],
        "dnsPolicy": draw(st.sampled_from(["ClusterFirst", "Default", "ClusterFirstWithHostNet"])),
    }
    if modern:
        spec["initContainers"] = [{**sidecar, "restartPolicy": "Always"}]
    if host_network if host_network is not None else draw(st.booleans()):
        spec["hostNetwork"] = True
    annotations = {"agones.dev/container": "game"}
    annotations |= draw(st.sampled_from([{}, {"warmfleet.dev/guaranteed-sidecar": "true"}]))
    annotations |= draw(st.sampled_from([{}, {"warmfleet.dev/port-variable": "PORT"}]))
    return {"metadata": {"labels": {"agones.dev/role": "gameserver"}, "annotations": annotations}, "spec": spec}


def containers(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {c["name"]: c for c in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]}


def env(container: dict[str, Any]) -> dict[str, str]:
    names = [entry["name"] for entry in container.get("env", [])]
    assert len(names) == len(set(names))
    return {entry["name"]: entry["value"] for entry in container.get("env", [])}


@given(pods())
def test_a_second_run_changes_nothing(pod: dict[str, Any]) -> None:
    """The webhook may be invoked again: its patch applied, there is none."""
    before = copy.deepcopy(pod)
    mended = apply(pod, mutate(pod, _MUTATION))
    assert pod == before
    assert mutate(mended, _MUTATION) == []


@given(pods(host_network=True))
def test_everything_that_names_a_sidecar_port_names_the_same_one(pod: dict[str, Any]) -> None:
    """Sidecar's flags, its probe, the game's variables and the game's probe agree."""
    mended = containers(apply(pod, mutate(pod, _MUTATION)))
    sidecar, game = mended[SIDECAR], mended["game"]
    declared = {port["name"]: port["hostPort"] for port in sidecar["ports"]}
    flags = dict(arg.split("=") for arg in sidecar["args"] if "port" in arg)
    assert flags == {
        "--grpc-port": str(declared["sdk-grpc"]),
        "--http-port": str(declared["sdk-http"]),
        "--health-port": str(declared["sdk-health"]),
    }
    assert sidecar["livenessProbe"]["httpGet"]["port"] == declared["sdk-health"]
    assert env(game)["AGONES_SDK_GRPC_PORT"] == str(declared["sdk-grpc"])
    assert env(game)["AGONES_SDK_HTTP_PORT"] == str(declared["sdk-http"])
    if "httpGet" in game["livenessProbe"]:
        assert game["livenessProbe"]["httpGet"]["port"] == declared["sdk-health"]
    assert env(sidecar)["REQUEST_RATE_LIMIT"] == _MUTATION.rate_limit
    assert all(port["containerPort"] == port["hostPort"] for port in sidecar["ports"])
    metrics = [port for port in game["ports"] if port.get("name") == "metrics"]
    assert [str(port["hostPort"]) for port in metrics] == [
        value for name, value in env(game).items() if name == "WARMFLEET_METRICS_PORT"
    ]
    assert all(port["hostPort"] == port["containerPort"] == declared["sdk-grpc"] + 6000 for port in metrics)


@given(pods(host_network=True))
def test_nothing_else_is_touched(pod: dict[str, Any]) -> None:
    """Images, commands, the game's ports and the other containers stay as they were."""
    mended = apply(pod, mutate(pod, _MUTATION))
    assert mended["metadata"] == pod["metadata"]
    for name, container in containers(pod).items():
        now = containers(mended)[name]
        allowed = {"env", "ports", "livenessProbe"} | ({"args", "resources"} if name == SIDECAR else set())
        changed = {key for key in container.keys() | now.keys() if container.get(key) != now.get(key)}
        assert changed <= (allowed if name in (SIDECAR, "game") else set())
    of_players = [
        [port for port in containers(some)["game"]["ports"] if port.get("name") != "metrics"] for some in (pod, mended)
    ]
    assert of_players[0] == of_players[1]
    ours = ("AGONES_SDK_GRPC_PORT", "AGONES_SDK_HTTP_PORT", "PORT", "WARMFLEET_METRICS_PORT")
    kept = {name: value for name, value in env(containers(pod)["game"]).items() if name not in ours}
    assert kept.items() <= env(containers(mended)["game"]).items()


@given(st.sets(_PORTS, min_size=2, max_size=40))
def test_two_pods_of_a_node_share_no_port(host_ports: set[int]) -> None:
    """Different host ports give disjoint sidecar ports, none of them a game port or ephemeral."""
    ports = SidecarPorts()
    taken = [port for host_port in host_ports for port in ports.of(host_port)]
    assert len(taken) == len(set(taken))
    assert all(ports.last < port < EPHEMERAL_FROM for port in taken)


_OFFSETS = st.integers(0, 30_000)


@given(st.integers(1024, 30_000), st.integers(0, 3000), st.lists(_OFFSETS, min_size=4, max_size=4))
def test_offsets_that_are_accepted_are_collision_free(first: int, size: int, offsets: list[int]) -> None:
    """Whatever a platform sets: it is refused, or no two of the five ranges meet."""
    names = ("grpc", "http", "health", "metrics")
    try:
        SidecarPorts(first=first, last=first + size, **dict(zip(names, offsets, strict=True)))
    except ValueError:
        return
    ranges = sorted((start, start + size) for start in (first, *(first + offset for offset in offsets)))
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ranges))
    assert ranges[-1][1] < EPHEMERAL_FROM


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(max_size=8), c, max_size=3),
    max_leaves=8,
)
_SPOTS = st.sampled_from(
    [
        ("spec",),
        ("spec", "containers"),
        ("spec", "containers", 0),
        ("spec", "containers", 0, "env"),
        ("spec", "containers", 0, "ports"),
        ("spec", "containers", 0, "args"),
        ("spec", "containers", 0, "livenessProbe"),
        ("metadata",),
        ("metadata", "labels"),
        ("metadata", "annotations"),
        ("spec", "initContainers"),
        ("spec", "dnsPolicy"),
    ]
)


@given(pods(), st.lists(st.tuples(_SPOTS, _JSON), min_size=1, max_size=3))
@settings(max_examples=300)
def test_any_pod_gives_a_patch_or_a_reason(
    pod: dict[str, Any], damage: list[tuple[tuple[str | int, ...], Any]]
) -> None:
    """A pod with anything anywhere is patched or refused, never an unexpected error."""
    for path, value in damage:
        target: Any = pod
        try:
            for part in path[:-1]:
                target = target[part]
            target[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue
    reason = "patched"
    try:
        mutate(pod, _MUTATION)
    except Refused as refused:
        reason = str(refused)
    assert reason


_REVIEWS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["AdmissionReview", "admission.k8s.io/v1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["kind", "apiVersion", "request", "uid", "object", "resource", "operation", "metadata", "spec"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(st.binary(max_size=200) | _REVIEWS.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=300)
def test_any_body_is_answered_or_refused(body: bytes) -> None:
    """Bytes, and JSON of the right words in the wrong places: an answer with the uid, or BadReview, never anything else."""
    try:
        response = answer(body, _MUTATION)["response"]
    except BadReview:
        return
    assert response["uid"] == json.loads(body)["request"]["uid"]
