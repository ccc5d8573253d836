"""Who may look at the console, and who may act."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from fastapi import HTTPException

from fleets.console.access import Access, Role
from fleets.console.cluster import _QUERIES, PrometheusFigures
from fleets.observability.catalog import catalog
from matchmaker.api.auth import Jwks, SignedTokens

KEY = generate_private_key(SECP256R1())


def access() -> Access:
    async def keys(_: str) -> bytes:
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key()))
        return json.dumps({"keys": [{**public, "kid": "one", "alg": "ES256", "use": "sig"}]}).encode()

    people = SignedTokens(
        jwks=Jwks("https://id.example/keys", fetch=keys), audience="warmfleet", issuer="https://id.example"
    )
    return Access(operator="the-operators", viewer="", people=people)


def token(key: EllipticCurvePrivateKey = KEY, **changed: Any) -> str:
    claims = {"sub": "ann", "exp": time.time() + 60, "aud": "warmfleet", "iss": "https://id.example", **changed}
    return "Bearer " + jwt.encode(claims, key, algorithm="ES256", headers={"kid": "one"})


async def test_people_sign_in_with_their_own_tokens() -> None:
    """The claim says whether they may act, as one word or in a list; what they do carries their name, until the token's end."""
    ann = await access().visitor(token(warmfleet_role=["staff", "operator"]))
    assert (ann.role, ann.name) == (Role.OPERATOR, "ann")
    assert ann.until_s - time.time() <= 60
    assert (await access().visitor(token(warmfleet_role="viewer"))).role is Role.VIEWER
    assert (await access().visitor("Bearer the-operators")).role is Role.OPERATOR


@pytest.mark.parametrize(
    ("authorization", "status"),
    [  # tokens are made when their test runs: those of a while ago are over
        ("", 401),
        ("Bearer ", 401),
        ("Basic dGhlLW9wZXJhdG9ycw==", 401),
        ("Bearer the-operator", 401),
        (lambda: token(), 403),
        (lambda: token(warmfleet_role="owner"), 403),
        (lambda: token(warmfleet_role={"operator": True}), 403),
        (lambda: token(warmfleet_role="operator", aud="players"), 401),
        (lambda: token(warmfleet_role="operator", iss="https://other.example"), 401),
        (lambda: token(warmfleet_role="operator", exp=time.time() - 1), 401),
        (lambda: token(generate_private_key(SECP256R1()), warmfleet_role="operator"), 401),
    ],
)
async def test_whoever_is_not_known_may_nothing(authorization: str | Callable[[], str], status: int) -> None:
    """No token, half of one, another's audience, issuer or key, one that is over, one without a role; an absent viewer's token is nobody's."""
    with pytest.raises(HTTPException) as refused:
        await access().visitor(authorization if isinstance(authorization, str) else authorization())
    assert refused.value.status_code == status


def test_figures_are_of_metrics_that_exist() -> None:
    """Of those that game servers serve."""
    served = {name for metric in catalog().values() for name in metric.series}
    asked = {name for query in _QUERIES.values() for name in re.findall(r"warmfleet_\w+", query)}
    assert len(asked) == 2
    assert {name.removesuffix("_bucket") for name in asked} <= {name.removesuffix("_bucket") for name in served}


async def test_figures_come_from_prometheus() -> None:
    """By pod, without what is not a number; an answer that is none leaves them as they were."""
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params["query"])
        late = "histogram_quantile" in asked[-1]
        rows = [("arena-1", "0.00123456" if late else "3"), ("arena-2", "NaN")]
        result = [{"metric": {"pod": pod}, "value": [1, value]} for pod, value in rows]
        return httpx.Response(200, json={"status": "success", "data": {"resultType": "vector", "result": result}})

    figures = PrometheusFigures("http://prometheus/", watched=lambda: True)
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        await figures.ask(http)
    assert (figures.late_s, figures.players) == ({"arena-1": 0.00123}, {"arena-1": 3})
    assert len(asked) == 2
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(502))) as http:
        with pytest.raises(httpx.HTTPStatusError):
            await figures.ask(http)
