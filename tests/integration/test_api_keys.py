"""The studio's services and operators: what their keys let them do, what they do not, and players' keys by JWKS."""

import hashlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from matchmaker_api import QUEUES, RATED, SEATS, SECRET, Api, directing, problem, running, token
from matchmaking import FakeSeats, until

from allocator.api.problems import Problem
from gameserver.protocol.messages import SPECTATOR_SEAT
from gameserver.seats import SeatVerifier
from gameserver.sessions.client import StoreClient
from gameserver.sessions.model import SessionState
from gameserver.sessions.valkey import session_key
from matchmaker.api.auth import ApiKeys, Jwks, PlayerTokens

STUDIO, OPERATOR = "studio's key", "operator's key"
FILLED = replace(RATED, backfill=True)


def keys() -> ApiKeys:
    digests = [hashlib.sha256(key.encode()).hexdigest() for key in (STUDIO, OPERATOR)]
    return ApiKeys.parse(f"studio:backend:{digests[0]}, ops:operator:{digests[1]}")


@pytest.fixture
async def api(valkey: StoreClient) -> AsyncIterator[Api]:
    """The API with keys and backfill."""
    async with running(valkey, queues=[FILLED, *QUEUES[1:]], keys=keys()) as served:
        yield served


def by(key: str) -> dict[str, Any]:
    return {"by": "", "headers": {"Authorization": f"Bearer {key}"}}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("studio:player:" + "0" * 64, "studio"),
        ("studio:backend:abc", "studio"),
        ("studio", "studio"),
        ("studio::" + "0" * 64, "studio"),
    ],
)
def test_keys_that_are_none_are_refused_by_name(text: str, names: str) -> None:
    with pytest.raises(ValueError, match=names) as refused:
        ApiKeys.parse(text)
    assert "0" * 64 not in str(refused.value)


BACKENDS = [
    ("POST", "/v1/matches/arena.m/backfill", {"teams": {"red": 1}}),
    ("GET", "/v1/matches/arena.m/backfill", None),
    ("DELETE", "/v1/matches/arena.m/backfill", None),
    ("POST", "/v1/sessions/arena.m/spectators", {"player": "caster"}),
    ("POST", "/v1/sessions/arena.m/players/ann/kick", {}),
    ("PUT", "/v1/sessions/arena.m/results", {"results": {}}),
]
OPERATORS = [("POST", "/v1/matches/m/requeue", None), ("PUT", "/v1/queues/duel/closed", {"closed": "paused"})]


@pytest.mark.parametrize(("method", "path", "body"), BACKENDS + OPERATORS)
async def test_players_may_not(api: Api, method: str, path: str, body: Any) -> None:
    problem(await api.ask(method, path, by="ann", json=body), 403, "forbidden")
    problem(await api.ask(method, path, by="", json=body), 401, "unauthorized")
    problem(await api.ask(method, path, **by("another key"), json=body), 401, "unauthorized")


@pytest.mark.parametrize(("method", "path", "body"), OPERATORS)
async def test_backends_are_no_operators(api: Api, method: str, path: str, body: Any) -> None:
    problem(await api.ask(method, path, **by(STUDIO), json=body), 403, "forbidden")
    assert (await api.ask(method, path, **by(OPERATOR), json=body)).status_code < 300


async def test_a_key_queues_anybody_sees_every_ticket_and_gives_priorities(api: Api) -> None:
    body = {"queue": "duel", "players": [{"id": "ann", "attributes": {"rating": 1}}], "priority": "vip"}
    problem(await api.ask("POST", "/v1/tickets", by="ann", json=body), 403, "forbidden")
    made = await api.ask("POST", "/v1/tickets", **by(STUDIO), json=body)
    assert made.status_code == 201, made.text
    path = made.headers["location"]
    assert (await api.ask("GET", path, **by(STUDIO))).status_code == 200
    assert (await api.ask("GET", path, by="ann")).status_code == 200
    problem(await api.ask("GET", path, by="bob"), 404, "not-found")
    assert (await api.ask("DELETE", path, **by(STUDIO))).status_code == 204


async def test_a_key_s_ticket_has_everybody_s_assignment(api: Api, valkey: StoreClient) -> None:
    made = []
    async with directing(api, valkey, FILLED):
        for name in ("ann", "bob"):
            body = {"queue": "duel", "players": [{"id": name, "attributes": {"rating": 1}}]}
            made.append((await api.ask("POST", "/v1/tickets", **by(STUDIO), json=body)).json()["id"])

        async def assigned() -> bool:
            return bool((await ticket())["state"] == "assigned")

        async def ticket() -> dict[str, Any]:
            return dict((await api.ask("GET", f"/v1/tickets/{made[0]}", **by(STUDIO))).json())

        await until(assigned)
        found = await ticket()
    assert list(found["assignments"]) == ["ann"]
    assert "assignment" not in found


async def test_a_session_is_seen_by_its_players_and_by_keys_with_its_results(api: Api) -> None:
    session = api.allocator.running("m", ("ann", "red"), ("bob", "blue"))
    path = f"/v1/sessions/{session}"
    for player in ("ann", "bob"):
        reply = await api.ask("GET", path, by=player)
        assert reply.status_code == 200, reply.text
        body = reply.json()
        assert "server" not in body
    assert body == {
        "id": session,
        "state": "live",
        "fleet": "arena",
        "queue": "duel",
        "epoch": 1,
        "seats": [{"index": 0, "player": "ann", "team": "red"}, {"index": 1, "player": "bob", "team": "blue"}],
        "freeSeats": 0,
        "checkpointTick": 0,
    }
    assert (await api.ask("GET", path, **by(STUDIO))).json()["server"] == "arena-1"
    problem(await api.ask("GET", path, by="eve"), 404, "not-found")
    problem(await api.ask("GET", path, by=""), 401, "unauthorized")
    found = api.allocator.sessions[session]
    results = {"winners": ["ann"], "scores": {"ann": 3, "bob": 1}}
    over = replace(found.session, state=SessionState.ENDED, results=json.dumps(results))
    api.allocator.sessions[session] = replace(found, session=over)
    assert (await api.ask("GET", path)).json()["results"] == results
    api.allocator.sessions[session] = replace(found, session=replace(over, results="no JSON"))
    assert "results" not in (await api.ask("GET", path)).json()


async def test_results_are_reported_once(api: Api) -> None:
    session = api.allocator.running("m", ("ann", "red"), ("bob", "blue"))
    path = f"/v1/sessions/{session}"
    said = {"results": {"winner": "ann", "by": 3}}
    for _ in range(2):
        assert (await api.ask("PUT", f"{path}/results", **by(STUDIO), json=said)).status_code == 204
    other = await api.ask("PUT", f"{path}/results", **by(STUDIO), json={"results": {"winner": "bob"}})
    problem(other, 409, "reported")
    assert (await api.ask("GET", path)).json()["results"] == said["results"]
    for wrong in ([1], {"scores": {"ann": 1 << 64}}):
        problem(await api.ask("PUT", f"{path}/results", **by(STUDIO), json={"results": wrong}), 422, "invalid")
    problem(await api.ask("PUT", "/v1/sessions/arena.x/results", **by(STUDIO), json=said), 404, "not-found")


async def test_spectators_get_a_token_without_a_seat(api: Api) -> None:
    session = api.allocator.running("m", ("ann", "red"), ("bob", "blue"))
    path = f"/v1/sessions/{session}/spectators"
    reply = await api.ask("POST", path, **by(STUDIO), json={"player": "caster"})
    assert reply.status_code == 201, reply.text
    grant = SeatVerifier([SEATS.public_key], reply.json()["server"]).verify(reply.json()["token"], time.time())
    assert (grant.player, grant.seat, grant.session) == ("caster", SPECTATOR_SEAT, session)
    problem(await api.ask("POST", path, **by(STUDIO), json={"player": "ann"}), 409, "plays")
    problem(await api.ask("POST", path, **by(STUDIO), json={"player": "no one"}), 422, "invalid")
    api.allocator.end(session)
    problem(await api.ask("POST", path, **by(STUDIO), json={"player": "caster"}), 410, "over")


async def test_a_player_is_kicked_for_good(api: Api, valkey: StoreClient) -> None:
    """The session's record says so, which its server is told; of a session that is over, or that the store does not have, nobody is kicked."""
    session = api.allocator.running("m", ("ann", "red"), ("bob", "blue"))
    path = f"/v1/sessions/{session}/players/ann/kick"
    problem(await api.ask("POST", path, **by(STUDIO), json={}), 410, "over")
    await valkey.hset(session_key(session), mapping={"state": "live", "server": "arena-1", "epoch": 1})
    for _ in range(2):
        assert (await api.ask("POST", path, **by(STUDIO), json={"reason": "cheating"})).status_code == 204
    assert json.loads(await valkey.hget(session_key(session), "kicked")) == {"ann": "cheating"}
    problem(await api.ask("POST", path, **by(STUDIO), json={"reason": ""}), 422, "invalid")
    problem(await api.ask("POST", "/v1/sessions/arena.x/players/ann/kick", **by(STUDIO), json={}), 404, "not-found")


async def test_an_operator_pauses_and_drains_a_queue(api: Api) -> None:
    for how in ("paused", "draining"):
        reply = await api.ask("PUT", "/v1/queues/duel/closed", **by(OPERATOR), json={"closed": how})
        assert reply.status_code == 204
        assert (await api.ask("GET", "/v1/queues")).json()[0]["closed"] == how
        body = {"queue": "duel", "players": [{"id": "ann", "attributes": {"rating": 1}}]}
        reply = await api.ask("POST", "/v1/tickets", json=body)
        problem(reply, 503, "closed")
        assert reply.headers["retry-after"] == "30"
    await api.ask("PUT", "/v1/queues/duel/closed", **by(OPERATOR), json={"closed": ""})
    assert (await api.ask("POST", "/v1/tickets", json=body)).status_code == 201
    problem(await api.ask("PUT", "/v1/queues/nowhere/closed", **by(OPERATOR), json={"closed": ""}), 404, "not-found")
    problem(await api.ask("PUT", "/v1/queues/duel/closed", **by(OPERATOR), json={"closed": "shut"}), 422, "invalid")


async def test_an_operator_takes_a_match_apart(api: Api, valkey: StoreClient) -> None:
    api.allocator.hold.clear()
    async with directing(api, valkey, FILLED):
        ann = await api.queue("ann")
        await api.queue("bob")

        async def placing() -> bool:
            return bool((await api.ask("GET", f"/v1/tickets/{ann['id']}")).json()["state"] == "placing")

        await until(placing)
        match = (await api.ask("GET", f"/v1/tickets/{ann['id']}")).json()["match"]
        reply = await api.ask("POST", f"/v1/matches/{match}/requeue", **by(OPERATOR))
        assert reply.json() == {"requeued": True}
        again = await api.ask("POST", f"/v1/matches/{match}/requeue", **by(OPERATOR))
        assert again.json() == {"requeued": False}
        api.allocator.hold.set()


async def test_backfill_by_version(valkey: StoreClient) -> None:
    """Asked for, seen, replaced by who knows the newest version, dropped; not for a match that is over or whose queue has none."""
    seats: Any = None

    class Late:
        """The seats of the fake allocator, which is there only once the API runs."""

        async def open(self, session: Any, *, epoch: int, free: int) -> None:
            await seats.open(session, epoch=epoch, free=free)

        async def reserve(self, session: Any, party: Any) -> Any:
            return await seats.reserve(session, party)

    async with running(valkey, queues=[FILLED, *QUEUES[1:]], keys=keys(), running=Late()) as api:
        seats = FakeSeats(api.allocator)
        session = api.allocator.running("m", ("ann", "red"))
        path = f"/v1/matches/{session}/backfill"
        problem(await api.ask("GET", path, **by(STUDIO)), 404, "not-found")
        made = await api.ask("POST", path, **by(STUDIO), json={"teams": {"blue": 1}})
        assert made.json() == {"session": session, "version": 1, "teams": {"blue": 1}}
        assert seats.opened == {session: 1}
        assert (await api.ask("GET", "/v1/matches/m/backfill", **by(STUDIO))).json() == made.json()
        stale = await api.ask("POST", path, **by(STUDIO), json={"teams": {"red": 1}, "version": 7})
        assert problem(stale, 409, "version")["version"] == 1
        problem(await api.ask("POST", path, **by(STUDIO), json={"teams": {"red": 2}, "version": 1}), 422, "invalid")
        problem(await api.ask("POST", path, **by(STUDIO), json={"teams": {}, "version": 1}), 422, "invalid")
        newer = await api.ask("POST", path, **by(STUDIO), json={"teams": {"red": 1}, "version": 1})
        assert newer.json()["version"] == 2
        assert (await api.ask("DELETE", path, **by(STUDIO))).status_code == 204
        problem(await api.ask("GET", path, **by(STUDIO)), 404, "not-found")
        other = api.allocator.running("n", ("ann", "red"), queue="squad")
        problem(await api.ask("GET", f"/v1/matches/{other}/backfill", **by(STUDIO)), 409, "no-backfill")
        api.allocator.end(session)
        problem(await api.ask("GET", path, **by(STUDIO)), 410, "over")
        problem(await api.ask("GET", "/v1/matches/unknown/backfill", **by(STUDIO)), 404, "not-found")


class Provider:
    """An identity provider: its keys, which it changes."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.asked = 0
        self.away = False

    def rotate(self, kid: str, private: Any) -> None:
        self.keys[kid] = private

    async def fetch(self, url: str) -> bytes:
        self.asked += 1
        if self.away:
            raise httpx.ConnectError("away")
        return json.dumps({"keys": [self._public(kid, key) for kid, key in self.keys.items()]}).encode()

    def token(self, kid: str, *, player: str = "ann", algorithm: str = "", **claims: Any) -> str:
        key = self.keys[kid]
        body = {"sub": player, "exp": int(time.time()) + 60, **claims}
        return jwt.encode(body, key, algorithm=algorithm or _algorithm(key), headers={"kid": kid})

    @staticmethod
    def _public(kid: str, key: Any) -> dict[str, Any]:
        kind: Any = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}[_algorithm(key)]
        public = json.loads(kind.to_jwk(key.public_key()))
        return {**public, "kid": kid, "use": "sig", "alg": _algorithm(key)}


def _algorithm(key: Any) -> str:
    if isinstance(key, rsa.RSAPrivateKey):
        return "RS256"
    return "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "EdDSA"


@pytest.fixture
def provider() -> Provider:
    made = Provider()
    made.rotate("ed", ed25519.Ed25519PrivateKey.generate())
    return made


async def says(players: PlayerTokens, token: str) -> str:
    """Who the token names, or why it names nobody."""
    try:
        caller, _ = await players.verify(token)
    except Problem as refused:
        return refused.detail if refused.status == 401 else f"status {refused.status}"
    return str(caller.player)


async def test_every_kind_of_key_signs(provider: Provider) -> None:
    provider.rotate("rsa", rsa.generate_private_key(public_exponent=65537, key_size=2048))
    provider.rotate("ec", ec.generate_private_key(ec.SECP256R1()))
    players = PlayerTokens(jwks=Jwks("https://id.example", fetch=provider.fetch))
    for kid in ("ed", "rsa", "ec"):
        assert await says(players, provider.token(kid)) == "ann"
    assert provider.asked == 1


async def test_a_new_key_is_fetched_and_an_unknown_one_does_not_hammer(provider: Provider) -> None:
    players = PlayerTokens(jwks=Jwks("https://id.example", fetch=provider.fetch, again_s=0.0))
    assert await says(players, provider.token("ed")) == "ann"
    provider.rotate("newer", ed25519.Ed25519PrivateKey.generate())
    assert await says(players, provider.token("newer")) == "ann"
    assert provider.asked == 2
    careful = PlayerTokens(jwks=Jwks("https://id.example", fetch=provider.fetch, again_s=60.0))
    assert await says(careful, provider.token("ed")) == "ann"
    stranger = Provider()
    stranger.rotate("made-up", ed25519.Ed25519PrivateKey.generate())
    for _ in range(5):
        assert "the JWKS does not have" in await says(careful, stranger.token("made-up"))
    assert provider.asked == 3


async def test_a_provider_that_is_away_changes_nothing_for_known_keys(provider: Provider) -> None:
    players = PlayerTokens(jwks=Jwks("https://id.example", fetch=provider.fetch, fresh_s=0.0, again_s=0.0))
    assert await says(players, provider.token("ed")) == "ann"
    provider.away = True
    assert await says(players, provider.token("ed")) == "ann"


async def test_a_removed_key_is_worth_nothing(provider: Provider) -> None:
    players = PlayerTokens(jwks=Jwks("https://id.example", fetch=provider.fetch, fresh_s=0.0, again_s=0.0))
    made = provider.token("ed")
    provider.rotate("other", ed25519.Ed25519PrivateKey.generate())
    assert await says(players, made) == "ann"
    del provider.keys["ed"]
    assert "the JWKS does not have" in await says(players, made)


async def test_algorithms_are_the_keys_and_never_the_tokens(provider: Provider) -> None:
    """No alg=none, no HMAC with a public key, no other algorithm than the key's, no other key under a known name."""
    provider.rotate("rsa", rsa.generate_private_key(public_exponent=65537, key_size=2048))
    players = PlayerTokens(jwks=Jwks("https://id.example", fetch=provider.fetch))
    claims = {"sub": "ann", "exp": int(time.time()) + 60}
    assert await says(players, provider.token("rsa")) == "ann"
    unsigned = jwt.encode(claims, None, algorithm="none", headers={"kid": "rsa"})
    by_secret = jwt.encode(claims, b"x" * 32, algorithm="HS256", headers={"kid": "rsa"})
    other_algorithm = provider.token("rsa", algorithm="RS512")
    other_key = jwt.encode(claims, ed25519.Ed25519PrivateKey.generate(), algorithm="EdDSA", headers={"kid": "ed"})
    no_kid = jwt.encode(claims, provider.keys["ed"], algorithm="EdDSA")
    for forged in (unsigned, by_secret, other_algorithm, other_key, no_kid, provider.token("ed", exp=1)):
        assert (await says(players, forged)).startswith("the token is not valid")
    both = PlayerTokens(SECRET, jwks=Jwks("https://id.example", fetch=provider.fetch))
    assert await says(both, token("bob")) == "bob"
    assert await says(both, provider.token("ed")) == "ann"


async def test_audience_and_issuer(provider: Provider) -> None:
    players = PlayerTokens(
        jwks=Jwks("https://id.example", fetch=provider.fetch), audience="warmfleet", issuer="https://id.example"
    )
    right = {"aud": "warmfleet", "iss": "https://id.example"}
    assert await says(players, provider.token("ed", **right)) == "ann"
    for wrong in ({}, {**right, "aud": "another"}, {**right, "iss": "https://evil.example"}, {"aud": "warmfleet"}):
        assert (await says(players, provider.token("ed", **wrong))).startswith("the token is not valid")


@pytest.mark.parametrize(
    "document",
    [b"", b"{", b"[]", b"null", b'{"keys": 5}', b'{"keys": [{"kid": "ed", "kty": "OKP"}]}', b'{"keys": [7]}'],
)
async def test_a_document_that_is_none_lets_nobody_in(provider: Provider, document: bytes) -> None:
    async def fetch(url: str) -> bytes:
        return document

    players = PlayerTokens(jwks=Jwks("https://id.example", fetch=fetch))
    assert "the JWKS does not have" in await says(players, provider.token("ed"))


async def test_a_player_by_jwks_over_http(valkey: StoreClient, provider: Provider) -> None:
    players = PlayerTokens(jwks=Jwks("https://id.example", fetch=provider.fetch))
    async with running(valkey, players=players, development=False) as api:
        bearer = {"by": "", "headers": {"Authorization": f"Bearer {provider.token('ed', priority='vip')}"}}
        body = {"queue": "duel", "players": [{"id": "ann", "attributes": {"rating": 1}}]}
        assert (await api.ask("POST", "/v1/tickets", **bearer, json=body)).status_code == 201
        problem(await api.ask("POST", "/v1/dev/players", json={}), 404, "")
