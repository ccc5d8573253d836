"""plan, diff, apply and status against an API server in memory, as a person or CI runs them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kube_fake import KubeFake, Refuse
from typer.testing import CliRunner

from fleets.cli.main import app

_FLEET = """
apiVersion: warmfleet.dev/v1
kind: Fleet
metadata: {{name: {name}}}
spec:
  server: {{game: "g:G", image: "registry.example/g:{tag}", rooms: 4, seats: 4}}
  warm: {{shelf: 2, buffer: 2, min: 2, max: 10}}
---
"""
_PLATFORM = """
apiVersion: warmfleet.dev/v1
kind: Platform
metadata: {name: eu}
spec: {namespace: games, prePull: false}
"""


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[KubeFake]:
    server = KubeFake().start()
    (tmp_path / "kubeconfig").write_text(server.kubeconfig())
    yield server
    server.stop()


class Studio:
    """A folder with YAML, and the commands in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, *names: str, tag: str = "1") -> None:
        text = "".join(_FLEET.format(name=name, tag=tag) for name in names)
        (self.folder / "studio.yaml").write_text(text + _PLATFORM)

    def run(self, command: str, *options: str, files: bool = True) -> Any:
        arguments = [command, *([str(self.folder / "studio.yaml")] if files else [])]
        return CliRunner().invoke(app, [*arguments, "--kubeconfig", str(self.folder / "kubeconfig"), *options])

    def deeds(self, *options: str) -> dict[str, str]:
        body = json.loads(self.run("plan", "--json", *options).stdout)
        return {f"{row['kind']} {row['name']}": row["deed"] for row in body["steps"]}


@pytest.fixture
def studio(tmp_path: Path, fake: KubeFake) -> Studio:
    made = Studio(tmp_path)
    made.write("arena")
    return made


def servers(fake: KubeFake, **counts: int) -> None:
    """Every Fleet that is written has so many servers at once."""

    def play(path: str, item: dict[str, Any]) -> None:
        if item["kind"] == "Fleet":
            wanted = item["spec"].get("replicas", 0)
            item["status"] = {"replicas": wanted, **counts}

    fake.on_write = play


def test_a_plan_changes_nothing_and_an_apply_converges(fake: KubeFake, studio: Studio) -> None:
    """Then the plan is empty, and the second apply writes nothing."""
    servers(fake, readyReplicas=2)
    assert set(studio.deeds().values()) == {"create"}
    assert fake.writes == []
    first = studio.run("apply")
    assert (first.exit_code, first.stdout.splitlines()[-1]) == (0, "applied")
    assert fake.names("fleets") == ["arena"]
    assert fake.find("fleets", "arena")["metadata"]["labels"]["warmfleet.dev/applied"] == "eu"
    fake.writes.clear()
    assert set(studio.deeds().values()) == {"keep"}
    assert studio.run("apply").exit_code == 0
    assert fake.writes == []
    assert studio.run("plan", "--check").exit_code == 0


def test_what_fleets_need_comes_first_and_their_scalers_last(fake: KubeFake, studio: Studio) -> None:
    """In stages, whatever their names."""
    servers(fake, readyReplicas=2)
    studio.run("apply")
    kinds = [path.split("/")[-2] for _, path in fake.writes]
    assert kinds.index("poddisruptionbudgets") < kinds.index("fleets") < kinds.index("fleetautoscalers")


def test_a_dry_run_at_the_server_writes_nothing(fake: KubeFake, studio: Studio) -> None:
    """And other words for it are misuse."""
    result = studio.run("apply", "--dry-run", "server")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "would be applied")
    assert fake.writes == []
    assert studio.run("apply", "--dry-run", "client").exit_code == 2


def test_a_diff_is_read_by_people(fake: KubeFake, studio: Studio) -> None:
    """The path by the container's name, before and after; a field that is ours and wanted no more goes."""
    servers(fake, readyReplicas=2)
    studio.run("apply")
    text = (studio.folder / "studio.yaml").read_text().replace("game: ", "env: {MODE: ctf}, game: ")
    (studio.folder / "studio.yaml").write_text(text)
    studio.run("apply")
    studio.write("arena", tag="2")
    result = studio.run("diff", "--check")
    assert result.exit_code == 1
    assert "~ change Fleet arena" in result.stdout
    base = "spec.template.spec.template.spec.containers[name=game]"
    assert f'~ {base}.image: "registry.example/g:1" → "registry.example/g:2"' in result.stdout
    assert f'- {base}.env[name=MODE]: {{"name": "MODE", "value": "ctf"}}' in result.stdout


def test_what_somebody_else_set_is_a_conflict_that_names_them(fake: KubeFake, studio: Studio) -> None:
    """Nothing is forced unasked; with --force-conflicts the field is ours again."""
    servers(fake, readyReplicas=2)
    studio.run("apply")
    fake.edit("fleets", "arena", {"spec": {"scheduling": "Distributed"}})
    result = studio.run("apply")
    assert result.exit_code == 1
    assert "spec.scheduling is held by kubectl-edit" in result.stdout
    assert fake.find("fleets", "arena")["spec"]["scheduling"] == "Distributed"
    told = studio.run("diff", "--force-conflicts").stdout
    assert '~ spec.scheduling: "Distributed" → "Packed"   (set by kubectl-edit)' in told
    assert studio.run("apply", "--force-conflicts").exit_code == 0
    assert fake.find("fleets", "arena")["spec"]["scheduling"] == "Packed"
    assert set(studio.deeds().values()) == {"keep"}


def test_the_autoscalers_replicas_are_not_ours(fake: KubeFake, studio: Studio) -> None:
    """A number that it set is neither a change nor a conflict."""
    servers(fake, readyReplicas=7)
    studio.run("apply")
    fake.edit("fleets", "arena", {"spec": {"replicas": 7}}, manager="agones-autoscaler")
    assert set(studio.deeds().values()) == {"keep"}
    assert studio.run("apply").exit_code == 0
    assert fake.find("fleets", "arena")["spec"]["replicas"] == 7


def test_what_is_wanted_no_more_goes_when_asked(fake: KubeFake, studio: Studio) -> None:
    """Only what apply brought, only with --prune, scalers before their fleets."""
    servers(fake, readyReplicas=0)
    studio.write("arena", "old")
    studio.run("apply", "--no-wait")
    fake.edit("fleets", "old", {"metadata": {"annotations": {"a": "b"}}})
    fake.answer("PATCH", "/apis/agones.dev/v1/namespaces/games/fleets/foreign", {"fieldManager": "x"},
                {"apiVersion": "agones.dev/v1", "kind": "Fleet", "metadata": {"name": "foreign"}, "spec": {"replicas": 1}},
                "application/apply-patch+yaml")  # fmt: skip
    studio.write("arena")
    assert "remove" not in studio.deeds().values()
    deeds = studio.deeds("--prune")
    assert deeds["Fleet old"] == "remove"
    assert "Fleet foreign" not in deeds
    fake.writes.clear()
    assert studio.run("apply", "--prune", "--no-wait").exit_code == 0
    assert fake.names("fleets") == ["arena", "foreign"]
    assert fake.names("fleetautoscalers") == ["arena"]
    gone = [path.split("/")[-2] for method, path in fake.writes if method == "DELETE"]
    assert gone.index("fleetautoscalers") < gone.index("fleets")


def test_a_fleet_with_sessions_is_not_removed(fake: KubeFake, studio: Studio) -> None:
    """It gets no new servers; it goes by a later apply, once nobody plays there."""
    servers(fake, readyReplicas=0, allocatedReplicas=1)
    studio.write("arena", "old")
    studio.run("apply", "--no-wait")
    studio.write("arena")
    assert studio.deeds("--prune")["Fleet old"] == "retire"
    result = studio.run("apply", "--prune", "--timeout", "0")
    assert result.exit_code == 1
    assert "1 servers have sessions" in result.stderr
    assert fake.find("fleets", "old")["spec"]["replicas"] == 0
    servers(fake)
    fake.edit("fleets", "old", {"status": {"allocatedReplicas": 0}})
    assert studio.run("apply", "--prune", "--timeout", "0", "--no-wait").exit_code == 0
    assert fake.names("fleets") == ["arena"]


def test_a_run_that_was_cut_short_is_taken_up_by_the_next(fake: KubeFake, studio: Studio) -> None:
    """Wherever it was cut: every prefix of writes, then the API server is away, then it is back."""
    servers(fake, readyReplicas=2)
    for allowed in range(4):
        fake.objects.clear()
        left = [allowed]

        def limited(method: str, path: str, body: Any, left: list[int] = left) -> None:
            if method == "PATCH" and body is not None and not fake.dry:
                left[0] -= 1
                if left[0] < 0:
                    raise Refuse(503, "the server is shutting down")

        fake.refuse = limited
        cut = studio.run("apply")
        assert cut.exit_code == 1
        assert "does what is left" in cut.stderr
        fake.refuse = lambda method, path, body: None
        assert studio.run("apply").exit_code == 0
        assert set(studio.deeds().values()) == {"keep"}


@pytest.mark.parametrize(
    ("code", "message", "told"),
    [
        (403, 'fleets.agones.dev "arena" is forbidden: User "ci" cannot patch', "not allowed: fleets"),
        (422, 'Fleet "arena" is invalid: spec.template: too long', "spec.template: too long"),
        (500, 'failed calling webhook "mutations.agones.dev": no endpoints', "no endpoints"),
    ],
)
def test_an_object_that_the_server_refuses_does_not_hide_the_others(
    fake: KubeFake, studio: Studio, code: int, message: str, told: str
) -> None:
    """The rest is applied, nothing is pruned, the reason is the server's, the exit code is 1."""

    def refuse(method: str, path: str, body: Any) -> None:
        if method == "PATCH" and "/fleets/" in path:
            raise Refuse(code, message)

    fake.refuse = refuse
    result = studio.run("apply", "--no-wait")
    assert result.exit_code == 1
    assert told in result.stdout
    assert fake.names("poddisruptionbudgets") == ["arena"]
    assert fake.names("fleets") == []


def test_a_cluster_without_agones_is_told_what_to_install(fake: KubeFake, studio: Studio) -> None:
    """The kind by its name."""
    fake.unknown = {"fleets", "fleetautoscalers"}
    result = studio.run("plan")
    assert result.exit_code == 1
    assert "no kind Fleet of agones.dev/v1: install its CustomResourceDefinition" in result.stdout
    assert "no kind Fleet" in studio.run("status", "--cluster", files=False).stderr


def test_a_missing_namespace_is_made_when_asked(fake: KubeFake, studio: Studio) -> None:
    """Else the server's word for it is shown."""
    servers(fake, readyReplicas=2)
    fake.namespaces = {"default"}
    assert 'namespaces "games" not found' in studio.run("plan").stdout
    result = studio.run("apply", "--create-namespace")
    assert result.exit_code == 0, result.output
    assert "games" in fake.namespaces
    assert fake.names("fleets") == ["arena"]


def test_an_apply_waits_and_says_why_it_waits(fake: KubeFake, studio: Studio) -> None:
    """With what the pods say, once the time is over."""
    servers(fake, readyReplicas=1)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "arena-1", "namespace": "games", "labels": {"warmfleet.dev/fleet": "arena"}},
        "spec": {"a": 1},
        "status": {
            "containerStatuses": [
                {"name": "game", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
            ]
        },
    }
    fake.answer(
        "PATCH", "/api/v1/namespaces/games/pods/arena-1", {"fieldManager": "x"}, pod, "application/apply-patch+yaml"
    )
    result = studio.run("apply", "--timeout", "0")
    assert result.exit_code == 1
    assert "Fleet arena: 1 of 2 servers (0 allocated)" in result.stderr
    assert "game: ImagePullBackOff: no such image" in result.stderr
    status = studio.run("status", "--cluster", "-n", "games", "--json", files=False)
    body = json.loads(status.stdout)
    assert status.exit_code == 0  # the fleet itself wants none yet; its scaler has not spoken
    assert body["fleets"][0]["autoscaler"]["policy"] == "Buffer"


def test_a_server_that_does_not_answer_is_said(studio: Studio, fake: KubeFake) -> None:
    """Its address, and no traceback."""
    fake.stop()
    fake.start()
    config = json.loads((studio.folder / "kubeconfig").read_text())
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
    (studio.folder / "kubeconfig").write_text(json.dumps(config))
    for command in ("plan", "diff", "apply"):
        result = studio.run(command)
        assert result.exit_code == 1
        assert "http://127.0.0.1:1 does not answer" in result.stderr


def test_a_rendered_folder_is_applied_as_reviewed(fake: KubeFake, studio: Studio) -> None:
    """The same objects as from the YAML; both or neither are misuse."""
    servers(fake, readyReplicas=2)
    out = studio.folder / "out"
    assert CliRunner().invoke(app, ["render", str(studio.folder / "studio.yaml"), "--out", str(out)]).exit_code == 0
    result = studio.run("apply", "--manifests", str(out), "--platform", str(studio.folder / "studio.yaml"), files=False)
    assert result.exit_code == 0, result.output
    assert set(studio.deeds().values()) == {"keep"}
    assert studio.run("plan", "--manifests", str(out)).exit_code == 2
    assert studio.run("plan", files=False).exit_code == 2
    (out / "bad.yaml").write_text("- 1\n")
    assert "holds no Kubernetes object" in studio.run("plan", "--manifests", str(out), files=False).stderr


_SEVERAL = """
apiVersion: warmfleet.dev/v1
kind: Platform
metadata: {name: eu}
spec:
  namespace: games
  prePull: false
  kubeconfig: {secret: s, key: k}
  clusters: {us-east: far}
  images: {repository: r, tag: "1"}
  services: {allocator: {}}
"""


def test_each_fleet_is_brought_into_its_own_cluster(fake: KubeFake, studio: Studio, tmp_path: Path) -> None:
    """By the contexts that the Platform names: our services and what is near here, the far region's fleet there alone; a context for all is refused."""
    far = KubeFake().start()
    try:
        servers(fake, readyReplicas=2)
        servers(far, readyReplicas=2)
        near, other = json.loads(fake.kubeconfig()), json.loads(far.kubeconfig())
        for kind in ("contexts", "clusters"):
            near[kind].append({**other[kind][0], "name": "far"})
        near["contexts"][1]["context"] = {"cluster": "far", "user": "fake"}
        (tmp_path / "kubeconfig").write_text(json.dumps(near))
        regions = [("arena", "eu-west"), ("range", "us-east")]
        fleets = [
            _FLEET.format(name=name, tag="1").replace(f"name: {name}", f"name: {name}, labels: {{region: {region}}}")
            for name, region in regions
        ]
        (tmp_path / "studio.yaml").write_text("".join(fleets) + _SEVERAL)
        planned = json.loads(studio.run("plan", "--json").stdout)["steps"]
        assert {(step["context"], step["name"]) for step in planned if step["kind"] == "Fleet"} == {
            (None, "arena"),
            ("far", "range"),
        }
        assert {step["context"] for step in planned if step["kind"] == "Deployment"} == {None}
        refused = studio.run("apply", "--context", "fake")
        assert refused.exit_code == 2
        assert "far: range" in refused.stderr
        assert fake.writes == far.writes == []
        assert studio.run("apply", "--no-wait").exit_code == 0
        assert (fake.names("fleets"), far.names("fleets")) == (["arena"], ["range"])
        assert far.names("deployments") == []
        assert {step["deed"] for step in json.loads(studio.run("plan", "--json", "--prune").stdout)["steps"]} == {
            "keep"
        }
        (tmp_path / "studio.yaml").write_text(fleets[1] + _SEVERAL.replace("  services: {allocator: {}}\n", ""))
        assert studio.run("apply", "--context", "far", "--no-wait").exit_code == 0
    finally:
        far.stop()
