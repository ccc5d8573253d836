"""
The OpenAPI document, made whole: every parameter, body and answer with an example, and every operation with the refusals that it may give.

The framework knows the successes from the endpoints' signatures; which problems an operation answers stands here, in one table, to which
tests/integration/test_openapi.py holds the answers.
"""

from http import HTTPStatus
from typing import Any

from allocator.api.problems import MEDIA_TYPE, ProblemBody

_KINDS: dict[str, tuple[HTTPStatus, str]] = {
    "barred": (HTTPStatus.TOO_MANY_REQUESTS, "player ann may not queue for another 48 s: declined"),
    "closed": (HTTPStatus.SERVICE_UNAVAILABLE, "queue duel is draining"),
    "forbidden": (HTTPStatus.FORBIDDEN, "an API key with the role backend is wanted"),
    "in-party": (HTTPStatus.CONFLICT, "you are in party 5f0e9a1c2b7d4e60: leave it first"),
    "internal": (HTTPStatus.INTERNAL_SERVER_ERROR, "an error of ours; its id is 9f2c1d7a40b3e865"),
    "invalid": (HTTPStatus.UNPROCESSABLE_ENTITY, "players.0.attributes.rating: queue duel wants a number"),
    "kicked": (HTTPStatus.FORBIDDEN, "you were removed from this party"),
    "live-ticket": (HTTPStatus.CONFLICT, "player ann has a live ticket in this queue: duel.Vq4JH0fC; cancel it first"),
    "no-backfill": (HTTPStatus.CONFLICT, "the match's queue has no backfill: enabled"),
    "no-seat": (HTTPStatus.FORBIDDEN, "you have no seat in this session"),
    "not-found": (HTTPStatus.NOT_FOUND, "no ticket 'duel.Vq4JH0fC' of yours"),
    "not-leader": (HTTPStatus.FORBIDDEN, "only the party's leader queues it"),
    "not-your-party": (HTTPStatus.FORBIDDEN, "players: you (ann) are not among them"),
    "over": (HTTPStatus.GONE, "the match is over"),
    "party-changed": (HTTPStatus.CONFLICT, "the party has changed meanwhile: ask again"),
    "party-full": (HTTPStatus.CONFLICT, "the party is full"),
    "plays": (HTTPStatus.CONFLICT, "player: ann plays in this session"),
    "queue-full": (HTTPStatus.SERVICE_UNAVAILABLE, "queue duel is full; ask again later"),
    "queued": (HTTPStatus.CONFLICT, "the party waits for a match: cancel its ticket first (duel.Vq4JH0fC)"),
    "rate-limit": (HTTPStatus.TOO_MANY_REQUESTS, "more than 10 requests a second"),
    "reported": (HTTPStatus.CONFLICT, "other results were reported before"),
    "store-unavailable": (
        HTTPStatus.SERVICE_UNAVAILABLE,
        "the session store does not answer; nothing is lost, ask again",
    ),
    "too-large": (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a body has 65536 bytes at most"),
    "too-late": (HTTPStatus.CONFLICT, "the ticket is placing: too late to cancel"),
    "too-many-watchers": (HTTPStatus.SERVICE_UNAVAILABLE, "50000 followers are as many as this process takes"),
    "unauthorized": (HTTPStatus.UNAUTHORIZED, "Authorization: Bearer <token> is wanted"),
    "unready": (HTTPStatus.CONFLICT, "bob is not ready"),
    "version": (HTTPStatus.CONFLICT, "version: the newest is 3, or players are being seated"),
}
"""Every kind of problem: its status, and one as it may read."""

_CREATE = ("forbidden", "not-your-party", "live-ticket", "barred", "queue-full", "closed")
_STAYS = ("not-found", "too-late")
_MATCH = ("forbidden", "not-found", "over", "no-backfill")
_REFUSALS: dict[str, tuple[str, ...]] = {
    "create_ticket": _CREATE,
    "get_ticket": ("not-found", "too-many-watchers"),
    "cancel_ticket": _STAYS,
    "accept_match": ("forbidden", *_STAYS),
    "ticket_events": ("not-found", "too-many-watchers"),
    "explain_ticket": ("not-found",),
    "create_party": ("forbidden", "in-party"),
    "join_party": ("forbidden", "kicked", "not-found", "in-party", "party-full", "queued"),
    "get_my_party": ("forbidden", "not-found"),
    "get_party": ("not-found",),
    "set_ready": ("forbidden", "not-found", "queued"),
    "leave_party": ("not-leader", "not-found"),
    "queue_party": (*_CREATE, "not-leader", "not-found", "queued", "unready", "party-changed"),
    "party_events": ("not-found", "too-many-watchers"),
    "get_rating": ("forbidden", "not-found"),
    "get_session": ("not-found",),
    "report_results": ("forbidden", "not-found", "reported"),
    "get_seat": ("no-seat", "not-found", "over"),
    "add_spectator": ("forbidden", "not-found", "plays", "over"),
    "kick_player": ("forbidden", "not-found", "over"),
    "request_backfill": (*_MATCH, "version"),
    "get_backfill": _MATCH,
    "drop_backfill": _MATCH,
    "requeue_match": ("forbidden",),
    "close_queue": ("forbidden", "not-found"),
    "get_queues": ("store-unavailable",),
    "readyz": ("store-unavailable",),
}
"""By operation, beside what any of its sort may answer (`_refusals`)."""

_PARAMETERS: dict[str, tuple[str, Any]] = {
    "idempotency-key": ("A repetition with the same one, within an hour, is the same ticket.", "c0a8b7d2-1"),
    "last-event-id": ("The last event that arrived: the stream goes on after it.", "3"),
    "match": ("A match's id, or its session's.", "5f0e9a1c2b7d4e60"),
    "party": ("A party's id.", "5f0e9a1c2b7d4e60"),
    "player": ("A player's id.", "ann"),
    "queue": ("A queue's name.", "duel"),
    "session": ("A session's id.", "arena-eu.5f0e9a1c2b7d4e60"),
    "ticket": ("A ticket's id.", "duel.Vq4JH0fCkGkT8mbS"),
    "wait": ("Long poll: seconds to wait for a change.", 30),
}
_STREAMS = {
    "ticket_events": 'id: 2\nevent: state\ndata: {"id":"duel.Vq4JH0fCkGkT8mbS","state":"searching",…}\n\n',
    "party_events": 'id: 4\nevent: party\ndata: {"id":"5f0e9a1c2b7d4e60","leader":"ann",…}\n\n',
}
_PROBLEM = {"$ref": "#/components/schemas/Problem"}
_TEXTS = {"metrics": 'warmfleet_tickets_total{queue="duel"} 12.0\n'}


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Put examples and refusals into a document; returns it."""
    schemas = document["components"]["schemas"]
    schemas["Problem"] = ProblemBody.model_json_schema()
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if known := _PARAMETERS.get(parameter["name"]):  # others are of an application around the API
                    parameter.setdefault("description", known[0])
                    parameter["example"] = known[1]
            for body in (operation.get("requestBody", {}), *operation["responses"].values()):
                for kind, media in body.get("content", {}).items():
                    _show(operation["operationId"], kind, media, schemas)
            operation["responses"].update(_refusals(operation))
    return document


def _show(operation: str, kind: str, media: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Give a body its examples."""
    if kind == MEDIA_TYPE:
        media["schema"] = _PROBLEM
        media["examples"] = {name: {"value": _problem(name)} for name in ("invalid", "internal")}
    elif kind == "text/event-stream":
        media["example"] = _STREAMS[operation]
    elif kind == "text/plain":
        media["example"] = _TEXTS.get(operation, "ok\n")
    else:
        schema = media["schema"]
        named = (schema.get("items") or schema).get("$ref", "").rpartition("/")[2]
        if not named:
            return  # an application that serves the API among others describes those itself
        shown = schemas[named]["examples"]
        if "items" in schema:
            media["example"] = shown
        else:
            media["examples"] = {f"example {n}": {"value": value} for n, value in enumerate(shown, 1)}


def _refusals(operation: dict[str, Any]) -> dict[str, Any]:
    """The problems that an operation may answer, by status."""
    kinds = [*_REFUSALS.get(operation["operationId"], ())]
    if operation.get("security"):
        kinds += ["unauthorized", "rate-limit", "store-unavailable"]
    if operation.get("requestBody"):
        kinds += ["invalid", "too-large"]
    elif any(parameter["in"] != "path" for parameter in operation.get("parameters", ())):
        kinds += ["invalid"]
    by_status: dict[str, dict[str, Any]] = {}
    for kind in sorted(kinds, key=lambda kind: (_KINDS[kind][0], kind)):
        status = _KINDS[kind][0]
        answer = by_status.setdefault(
            str(int(status)),
            {
                "description": status.phrase,
                "content": {MEDIA_TYPE: {"schema": _PROBLEM, "examples": {}}},
            },
        )
        answer["content"][MEDIA_TYPE]["examples"][kind] = {"value": _problem(kind)}
    return by_status


def _problem(kind: str) -> dict[str, Any]:
    status, detail = _KINDS[kind]
    return {
        "type": f"urn:warmfleet:problem:{kind}",
        "title": status.phrase,
        "status": int(status),
        "detail": detail,
    }
