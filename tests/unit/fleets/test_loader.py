"""The YAML: what is valid, and how each mistake is told."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from fleets.cli.schema import document_schema
from fleets.spec.convert import to_policy, to_queue_config, version_of
from fleets.spec.loader import SpecError, load
from matchmaker.model import Limit, Step

EXAMPLES = sorted((Path(__file__).parents[3] / "fleets" / "examples").glob("*.yaml"))
FLEET = """
apiVersion: warmfleet.dev/v1
kind: Fleet
metadata: {name: f, labels: {region: eu}}
spec:
  server: {game: "a.b:C", seats: 4, rooms: 2}
  warm: {shelf: 2, min: 1, max: 4}
"""
QUEUE = """
apiVersion: warmfleet.dev/v1
kind: Queue
metadata: {name: q}
spec:
  fleets: [f]
  teams: [{name: red, players: 2}, {name: blue, players: 2}]
  rules:
    - {type: difference, attribute: rating, max: 100, expand: [{after: 10s, max: 200}]}
    - {type: latency, max: 60ms}
  party: {max: 2, aggregate: max}
"""


def problems(tmp_path: Path, text: str | bytes) -> list[str]:
    path = tmp_path / "studio.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SpecError) as error:
        load([path])
    return [str(problem).replace(f"{tmp_path}/", "") for problem in error.value.problems]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_valid_to_us_and_to_editors(path: Path) -> None:
    """Each loads, and each document obeys the published JSON Schema."""
    assert load([path]).fleets
    for document in yaml.safe_load_all(path.read_text()):
        jsonschema.validate(document, document_schema())


def test_values_reach_the_packages_below(tmp_path: Path) -> None:
    """Durations, limits, regions and sizes arrive as the models' units."""
    path = tmp_path / "studio.yaml"
    path.write_text(f"{FLEET}---{QUEUE}")
    specs = load([path])
    policy = to_policy(specs.fleets[0])
    assert (policy.rooms, policy.shelf, policy.recycle, policy.managed, policy.region) == (2, 2, True, True, "eu")
    queue = to_queue_config(specs.queues[0], specs.fleets)
    assert queue.rules[0].limit == Limit(value=100, expand=(Step(after_s=10, limit=200),))  # type: ignore[union-attr]
    assert queue.rules[1].limit == Limit(value=60)  # type: ignore[union-attr]
    assert (queue.regions, queue.party_max, queue.aggregate, queue.players) == ({"f": "eu"}, 2, "max", 4)
    other = load([write(tmp_path, FLEET.replace("seats: 4", "seats: 5"))])
    assert version_of(specs.fleets[0]) != version_of(other.fleets[0])


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "other.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (FLEET.replace("seats", "seets"), ["studio.yaml:6: spec.server.seets: unknown key", "did you mean seats?"]),
        (FLEET.replace("warm", "worm"), ["studio.yaml:7: spec.worm: unknown key", "did you mean warm?", "allowed here: server"]),
        (FLEET.replace("seats: 4", "seats: four"), ["studio.yaml:6: spec.server.seats", "got 'four'"]),
        (FLEET.replace("seats: 4", "seats: 0"), ["spec.server.seats", "greater than or equal to 1"]),
        (FLEET.replace("seats: 4", "seats: true"), ["spec.server.seats", "integer"]),
        (FLEET.replace('game: "a.b:C", ', ""), ["studio.yaml:6: spec.server: exactly one of game and command"]),
        (FLEET.replace("seats: 4", "command: [x]"), ["exactly one of game and command"]),
        (FLEET.replace('"a.b:C"', "nonsense"), ["spec.server.game", "got 'nonsense'"]),
        (FLEET.replace("min: 1", "min: 9"), ["studio.yaml:7: spec.warm: min 9 is above max 4"]),
        (FLEET.replace("shelf: 2", "shelf: 9"), ["warm.shelf 9 rooms are more than warm.max 4 servers of 2 rooms"]),
        (FLEET.replace("name: f,", "name: F_1,"), ["metadata.name"]),
        (FLEET.replace("metadata: {name: f, labels: {region: eu}}\n", ""), ["metadata: is missing"]),
        (FLEET.replace("kind: Fleet", "kind: Fleat"), ["studio.yaml:3: kind", "did you mean Fleet?"]),
        (FLEET.replace("v1", "v9"), ["apiVersion"]),
        (FLEET + "  warm: {}\n", ["studio.yaml:8", "key 'warm' is there twice"]),
        (f"{FLEET}---{FLEET}", ["another Fleet is named f"]),
        (QUEUE, ["studio.yaml:6: spec.fleets[0]: no Fleet is named 'f'"]),
        (f"{FLEET}---{QUEUE.replace('[f]', '[g]')}", ["no Fleet is named 'g'", "there are: f"]),
        (f"{FLEET.replace('seats: 4', 'seats: 3')}---{QUEUE}", ["a match has 4 players, but fleet f has 3 seats"]),
        (f"{FLEET.replace(', labels: {region: eu}', '')}---{QUEUE}", ["labels.region"]),
        (f"{FLEET}---{QUEUE.replace('party: {max: 2', 'party: {max: 3')}", ["party.max 3 is above the largest team, 2"]),
        (f"{FLEET}---{QUEUE.replace('attribute: rating', 'attribut: rating')}", ["spec.rules[0].attribut: unknown key", "did you mean attribute?"]),
        (f"{FLEET}---{QUEUE.replace('type: difference', 'type: diffrence')}", ["spec.rules[0]", "'diffrence'", "'difference'"]),
        (f"{FLEET}---{QUEUE.replace('after: 10s', 'after: ten')}", ["spec.rules[0].expand[0].after: a duration is wanted"]),
        (f"{FLEET}---{QUEUE.replace('60ms', '60')}", ["spec.rules[1].max: a round trip is wanted, as 60ms"]),
        (FLEET.replace("seats: 4", "tls: {}"), ["studio.yaml:6: spec.server.tls: secret, or certificate and key, are wanted"]),
        (FLEET.replace("seats: 4", "tls: {key: a}"), ["spec.server.tls: certificate and key belong together"]),
        (FLEET.replace("seats: 4", "tls: {certificate: a, key: b, domain: d.example}"), ["domain: goes with secret"]),
        (FLEET.replace("seats: 4", "transports: [udp], tls: {secret: s}"), ["spec.server: tls: is for the websocket transport"]),
        (FLEET.replace('game: "a.b:C", seats: 4, rooms: 2', "command: [x], tls: {secret: s}"), ["tls: is for the websocket transport of a game"]),
        ("- a\n- b\n", ["studio.yaml:1: a document is a mapping"]),
        ("a: b: c\n", ["studio.yaml:1: is no YAML"]),
        ("a:\n\t- b\n", ["studio.yaml:2: is no YAML"]),
        (b"a: \xff\xfe\n", ["is no UTF-8 text"]),
        ("1: 2\n? [a]\n: b\n", ["a key is a word"]),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place_and_mend(tmp_path: Path, text: str | bytes, told: list[str]) -> None:
    """File, line, path, what was given and what is wanted."""
    said = "\n".join(problems(tmp_path, text))
    for part in told:
        assert part in said


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    """One run shows all problems of all files, in order."""
    said = problems(tmp_path, FLEET.replace("seats: 4", "seats: 0, colour: red").replace("min: 1", "min: one"))
    assert {line.split(": ")[1] for line in said} == {"spec.server.colour", "spec.server.seats", "spec.warm.min"}


def test_aliases_that_stand_for_too_much_are_refused(tmp_path: Path) -> None:
    """A few lines that expand to billions of values cost nothing."""
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{n}: &{n} [{', '.join([f'*{p}'] * 9)}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "aliases" in problems(tmp_path, bomb)[0]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A path that is not there is a problem like any other."""
    with pytest.raises(SpecError, match=r"none\.yaml:1: cannot be read"):
        load([tmp_path / "none.yaml"])


def test_validate_is_fit_for_ci(tmp_path: Path) -> None:
    """Exit code 0 for valid files, 1 for problems, 2 for misuse; --json for scripts."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fleets.cli", "validate", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    bad = write(tmp_path, FLEET.replace("seats", "seets"))
    assert run(*map(str, EXAMPLES)).returncode == 0
    failed = run(str(bad), "--json")
    assert failed.returncode == 1
    body = json.loads(failed.stdout)
    assert (body["valid"], body["problems"][0]["line"], body["problems"][0]["path"]) == (False, 6, "spec.server.seets")
    assert run().returncode == 2
