"""The OpenAPI document: it is complete, its examples are what it says, and the API answers as it says."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
import requests
import schemathesis
import schemathesis.specs.openapi.checks as openapi_checks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from matchmaker_api import QUEUES, RATED, make, running, ticket, token
from matchmaking import FakeAllocator
from schemathesis import GenerationMode, checks

from gameserver.sessions.client import StoreClient
from matchmaker.api.auth import ApiKeys
from matchmaker.model import RatingConfig

JSON = ("application/json", "application/problem+json")


@pytest.fixture
def document(valkey: StoreClient) -> dict[str, Any]:
    return dict(make(valkey, FakeAllocator())[0].openapi())


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, by_method in document["paths"].items():
        for method, operation in by_method.items():
            yield f"{method.upper()} {path}", operation


def holds(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(value)


async def test_every_operation_is_described_under_a_name_of_its_own(document: dict[str, Any]) -> None:
    names = Counter(operation["operationId"] for _, operation in operations(document))
    assert set(names.values()) == {1}
    for label, operation in operations(document):
        assert operation["summary"], label
        assert operation["description"], label
        assert operation["tags"], label
        for parameter in operation.get("parameters", ()):
            assert parameter["description"], f"{label}: {parameter['name']}"
            if isinstance(parameter["example"], str) and parameter["schema"].get("type") == "string":
                holds(document, parameter["schema"], parameter["example"])


async def test_every_body_has_examples_that_are_what_it_says(document: dict[str, Any]) -> None:
    for label, operation in operations(document):
        for status, body in [("request", operation.get("requestBody", {})), *operation["responses"].items()]:
            for kind, media in body.get("content", {}).items():
                shown = [each["value"] for each in media.get("examples", {}).values()]
                shown += [media["example"]] if "example" in media else []
                assert shown, f"{label}: {status} {kind}"
                for example in shown if kind in JSON else ():
                    holds(document, media["schema"], example)
                    if kind == "application/problem+json" and status.isdecimal():
                        assert example["status"] == int(status), f"{label}: {status}"


async def test_whoever_must_sign_in_is_told_what_else_may_be_answered(document: dict[str, Any]) -> None:
    for label, operation in operations(document):
        if operation.get("security"):
            assert {"401", "429", "503"} <= set(operation["responses"]), label
        if operation.get("requestBody"):
            assert {"413", "422"} <= set(operation["responses"]), label


def documented_kind(ctx: Any, response: Any, case: Any) -> None:
    """What is refused is refused by a kind of problem that the document shows for the operation."""
    media = response.headers.get("content-type", [""])[0]
    if media == "application/problem+json":
        kind = response.json()["type"].rpartition(":")[2]
        answers = case.operation.definition.raw["responses"].get(str(response.status_code), {})
        shown = answers.get("content", {}).get(media, {}).get("examples", {})
        assert kind in shown or kind == "blank", f"{case.operation.label} answers {kind}, and shows {sorted(shown)}"


CHECKS = [
    documented_kind,
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]


OPERATOR = "the operator's key"


async def test_the_openapi_document_tells_the_truth(valkey: StoreClient) -> None:
    """Random requests, valid and not, by players and by an operator: never a 5xx, and every reply is what the document says."""
    keys = ApiKeys.parse(f"ops:operator:{hashlib.sha256(OPERATOR.encode()).hexdigest()}")
    rated = replace(RATED, backfill=True, ratings=RatingConfig())
    async with running(valkey, queues=[rated, *QUEUES[1:]], keys=keys, key_requests_per_s=1e6) as api:
        over = (await api.queue("ann"))["id"]
        assert (await api.ask("DELETE", f"/v1/tickets/{over}")).status_code == 204
        party = (await api.ask("POST", "/v1/parties", by="zoe", json={})).json()
        assert (await api.ask("POST", "/v1/parties", by="ann", json={})).status_code == 201
        known = {
            "ticket": over,
            "party": party["id"],
            "session": api.allocator.running("m", ("ann", "red"), ("bob", "blue")),
            "match": "m",
            "queue": "duel",
            "player": "ann",
        }
        schema = schemathesis.openapi.from_dict((await api.http.get("/openapi.json")).json())
        seen: Counter[tuple[str, int]] = Counter()
        await asyncio.to_thread(_explore, schema, api.url, known, seen)
    wanted = {
        ("POST /v1/tickets", 201),
        ("POST /v1/tickets", 422),
        ("GET /v1/tickets/{ticket}", 200),
        ("GET /v1/tickets/{ticket}", 404),
        ("GET /v1/tickets/{ticket}", 422),
        ("DELETE /v1/tickets/{ticket}", 204),
        ("GET /v1/tickets/{ticket}/events", 200),
        ("GET /v1/tickets/{ticket}/explanation", 200),
        ("GET /v1/sessions/{session}/seat", 200),
        ("GET /v1/sessions/{session}/seat", 404),
        ("GET /v1/sessions/{session}", 200),
        ("POST /v1/sessions/{session}/spectators", 201),
        ("POST /v1/tickets/{ticket}/acceptance", 404),
        ("POST /v1/tickets/{ticket}/acceptance", 409),
        ("POST /v1/tickets/{ticket}/acceptance", 422),
        ("POST /v1/parties", 201),
        ("POST /v1/parties", 403),
        ("POST /v1/parties/join", 404),
        ("GET /v1/parties/mine", 200),
        ("GET /v1/parties/{party}", 200),
        ("PUT /v1/parties/{party}/members/{player}", 403),
        ("DELETE /v1/parties/{party}/members/{player}", 404),
        ("POST /v1/parties/{party}/tickets", 422),
        ("GET /v1/queues/{queue}/ratings/{player}", 200),
        ("PUT /v1/queues/{queue}/closed", 204),
        ("POST /v1/matches/{match}/requeue", 200),
        ("POST /v1/dev/players", 201),
        ("GET /v1/queues", 200),
        ("GET /metrics", 200),
    }
    assert wanted <= set(seen), sorted(wanted - set(seen))


_ENDLESS = ("GET /v1/parties/{party}/events",)
"""Streams without an end, for who may see them: asked for by a stranger alone."""


def _explore(schema: Any, url: str, known: Mapping[str, str], seen: Counter[tuple[str, int]]) -> None:
    """Ask every operation, as a player and as an operator; of the valid requests half are made to mean something that exists."""
    with requests.Session() as session:
        session.trust_env = False
        for result in schema.get_all_operations():
            operation = result.ok()
            for mode in GenerationMode:

                @settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
                @given(
                    operation.as_strategy(generation_mode=mode),
                    st.booleans() if mode.is_positive else st.just(False),
                    st.booleans(),
                )
                def ask(case: Any, sensible: bool, by_key: bool) -> None:
                    player, label = "ann", case.operation.label
                    if sensible and label not in _ENDLESS:
                        case.path_parameters.update({k: v for k, v in known.items() if k in case.path_parameters})
                        if label == "POST /v1/tickets":
                            player = f"player-{seen.total()}"
                            case.body = ticket(player)
                        elif label == "POST /v1/tickets/{ticket}/acceptance":
                            case.body = {"accept": True, "player": "ann"}
                        elif label == "POST /v1/parties":
                            player = f"player-{seen.total()}"
                    bearer = OPERATOR if by_key else token(player)
                    headers = {"Authorization": f"Bearer {bearer}"}
                    reply = case.call(base_url=url, session=session, headers=headers, timeout=30)
                    # An operator may have closed a queue on the way: then its 503 is the truth.
                    if not (reply.status_code == 503 and "closed" in reply.text):
                        case.validate_response(reply, checks=CHECKS)
                    seen[label, reply.status_code] += 1

                try:
                    ask()
                except Unsatisfiable:
                    pass  # nothing about this operation can be wrong
