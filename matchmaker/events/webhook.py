"""
Events to an HTTP endpoint: batches as `application/cloudevents-batch+json`, signed as Standard Webhooks have it.

Source: CloudEvents HTTP protocol binding 1.0 (batched content mode); Standard Webhooks specification (standardwebhooks.com): `webhook-id`,
`webhook-timestamp` and `webhook-signature`, the last `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`.
"""

import base64
import hashlib
import hmac
import time
from collections.abc import Sequence
from http import HTTPStatus

import httpx

from matchmaker.events.model import Event
from matchmaker.events.relay import SinkRefused, SinkUnavailable

_TIMEOUT_S = 10.0
_AGAIN = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


class Webhook:
    """One endpoint. As an async context manager it keeps its connections."""

    name = "webhook"

    def __init__(self, url: str, secret: bytes) -> None:
        """`secret`: 16 bytes at least. Raises ValueError."""
        if len(secret) < 16:
            raise ValueError("the secret has fewer than 16 bytes: it can be guessed")
        self._url = url
        self._secret = secret
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False, follow_redirects=False)

    async def __aenter__(self) -> "Webhook":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def send(self, events: Sequence[Event]) -> None:
        """POST a batch. 2xx: taken; 408, 409, 425, 429, 5xx and no answer: again later; anything else: refused."""
        body = b"[" + b",".join(event.raw for event in events) + b"]"
        # The same batch has the same id however often it is sent.
        name = f"{events[0].entry}-{len(events)}"
        headers = {
            "Content-Type": "application/cloudevents-batch+json",
            **sign(self._secret, name, int(time.time()), body),
        }
        try:
            reply = await self._http.post(self._url, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise SinkUnavailable(f"{type(error).__name__}: {error}") from error
        if reply.is_success:
            return
        if reply.status_code in _AGAIN or reply.is_server_error:
            raise SinkUnavailable(f"HTTP {reply.status_code}")
        raise SinkRefused(f"HTTP {reply.status_code}")


def sign(secret: bytes, name: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The three headers."""
    signed = hmac.new(secret, f"{name}.{timestamp_s}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": name,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }


def verify(secret: bytes, headers: httpx.Headers, body: bytes, now_s: float, *, tolerance_s: float = 300.0) -> bool:
    """For whoever receives: whether a request is ours, and not an old one sent again."""
    try:
        name, timestamp_s = headers["webhook-id"], int(headers["webhook-timestamp"])
    except (KeyError, ValueError):
        return False
    wanted = sign(secret, name, timestamp_s, body)["webhook-signature"]
    given = headers.get("webhook-signature", "").split(" ")
    return abs(now_s - timestamp_s) <= tolerance_s and any(hmac.compare_digest(wanted, one) for one in given)
