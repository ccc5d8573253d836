"""
AdmissionReviews: bytes in, status and body out; pure.

A body that is no review gets 400, which the API server treats by the webhook's failurePolicy. A pod that cannot be made safe is denied with
403: Agones moves its GameServer to Error with our message in an event, instead of trying the same pod for ever.
Source: Kubernetes' admission.k8s.io/v1.
"""

import base64
import json
from typing import Any

from fleets.admission.mutation import Mutation, Refused, mutate

MAX_BODY_BYTES = 4 << 20
"""The API server takes objects of 3 MiB at most."""
_API_VERSION = "admission.k8s.io/v1"


class BadReview(Exception):
    """The body is no AdmissionReview that can be answered; the message says why."""


def answer(body: bytes, mutation: Mutation) -> dict[str, Any]:
    """
    The AdmissionReview that answers one.

    Returns: allowed with or without a patch, or denied with a message. Raises: BadReview.
    """
    request = _request(body)
    uid = request["uid"]
    resource = request.get("resource")
    if (
        not isinstance(resource, dict)
        or (resource.get("group", ""), resource.get("resource")) != ("", "pods")
        or request.get("subResource")
        or request.get("operation") != "CREATE"
    ):
        return _response(uid)
    pod = request.get("object")
    if not isinstance(pod, dict):
        return _denied(uid, 400, "BadRequest", "request.object is no pod")
    try:
        patch = mutate(pod, mutation)
    except Refused as error:
        return _denied(uid, 403, "Forbidden", str(error))
    if not patch:
        return _response(uid)
    encoded = base64.b64encode(json.dumps(patch, separators=(",", ":")).encode()).decode()
    return _response(uid, patchType="JSONPatch", patch=encoded)


def _request(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_BODY_BYTES:
        raise BadReview(f"the body is larger than {MAX_BODY_BYTES} bytes")
    try:
        review = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadReview(f"the body is no JSON: {error}") from None
    if not isinstance(review, dict) or review.get("kind") != "AdmissionReview":
        raise BadReview("the body is no AdmissionReview")
    if review.get("apiVersion") != _API_VERSION:
        raise BadReview(f"apiVersion {review.get('apiVersion')!r}: {_API_VERSION} is wanted")
    request = review.get("request")
    if not isinstance(request, dict):
        raise BadReview("the review has no request")
    if not isinstance(request.get("uid"), str) or not request["uid"]:
        raise BadReview("the request has no uid")
    return request


def _denied(uid: str, code: int, reason: str, message: str) -> dict[str, Any]:
    return _response(
        uid, allowed=False, status={"code": code, "reason": reason, "message": f"warmfleet admission: {message}"}
    )


def _response(uid: str, *, allowed: bool = True, **members: Any) -> dict[str, Any]:
    return {
        "apiVersion": _API_VERSION,
        "kind": "AdmissionReview",
        "response": {"uid": uid, "allowed": allowed, **members},
    }
