"""
Agones' FleetAutoscaleReview, read and answered. Pure.

Source: Agones, pkg/apis/autoscaling/v1 (FleetAutoscaleReview), and what a live controller sent.
"""

import json
from dataclasses import dataclass
from typing import Any

from fleets.autoscaler.policy import Decision

MAX_BODY_BYTES = 1 << 20


class BadReview(Exception):
    """The body is no FleetAutoscaleReview; the message names the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewRequest:
    """What Agones asks: a fleet and its servers, counted."""

    uid: str
    fleet: str
    namespace: str
    replicas: int
    ready: int
    reserved: int
    allocated: int


def parse(body: bytes) -> ReviewRequest:
    """Read a review. Raises BadReview."""
    try:
        review = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadReview(f"the body is no JSON: {error}") from None
    request = _mapping(review, "the body").get("request")
    request = _mapping(request, "request")
    status = _mapping(request.get("status"), "request.status")
    return ReviewRequest(
        uid=_text(request, "uid"),
        fleet=_text(request, "name"),
        namespace=_text(request, "namespace"),
        replicas=_count(status, "replicas"),
        ready=_count(status, "readyReplicas"),
        reserved=_count(status, "reservedReplicas"),
        allocated=_count(status, "allocatedReplicas"),
    )


def answer(request: ReviewRequest, decision: Decision) -> dict[str, Any]:
    """The review that Agones gets back: `replicas` is the total, Allocated ones included."""
    scale = decision.replicas != request.replicas
    return {"response": {"uid": request.uid, "scale": scale, "replicas": decision.replicas}}


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadReview(f"{name}: an object is wanted")
    return value


def _text(value: dict[str, Any], name: str) -> str:
    text = value.get(name)
    if not isinstance(text, str) or not text:
        raise BadReview(f"request.{name}: a text is wanted")
    return text


def _count(status: dict[str, Any], name: str) -> int:
    count = status.get(name, 0)  # Go leaves zeros out where a field is optional
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= 1_000_000:
        raise BadReview(f"request.status.{name}: a whole number from 0 to 1000000 is wanted")
    return count
