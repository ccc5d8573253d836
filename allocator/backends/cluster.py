"""
One cluster's API server over HTTP: deadlines, retries, credentials, and errors in our words.

Owns the Kubernetes client (`kubernetes.aio`). Knows resources and their paths; what servers mean is `kubernetes.py`'s. Repeats only what may be
repeated: reads, merge patches of labels, deletions, and requests that certainly changed nothing.
"""

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
import structlog
from kubernetes.aio import client as kube
from kubernetes.aio import config as kube_config
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config.config_exception import ConfigException

from allocator.backends import metrics
from allocator.backends.settings import ClusterSettings
from allocator.ports import BackendUnavailable

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

GROUP, VERSION = "agones.dev", "v1"
ALLOCATION_GROUP = "allocation.agones.dev"
TIMEOUT_S = 10.0
"""Of one call with its retries; Agones' batches and its own retries fit in."""
_TRIES = 5
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0
_PAGE = 500
_WATCH_SLACK_S = 3.0
"""A watch that has not ended so long after it should have is dead."""
_MAX_LINE_BYTES = 8 << 20
_CLOSING = "Cannot write to closing transport"
"""aiohttp's words for a kept connection that the server had closed meanwhile: not a byte was sent."""
_UPDATE_CONFLICT = "could not update the selected GameServer"
"""Agones' words when every server it tried had changed meanwhile: nothing was allocated."""

Object = Mapping[str, Any]
OPENED = "OPENED"
"""A watch's first event: it is connected. Ours, not Kubernetes'."""


class Gone(Exception):
    """The version to resume from is no longer known (410): list anew."""


class ClusterApi:
    """Calls to the API server, as an async context manager. Every call may raise BackendUnavailable."""

    def __init__(self, settings: ClusterSettings, *, timeout_s: float = TIMEOUT_S) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self._client: Any = None
        self._retired: list[tuple[float, Any]] = []
        """Clients with old credentials, and when they were replaced: calls under way end on them."""
        self._objects: Any = None
        self._core: Any = None
        self._rng = random.Random()  # noqa: S311 (jitter)
        self.namespace = settings.namespace

    async def __aenter__(self) -> Self:
        await self._connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in (self._client, *(old for _, old in self._retired)):
            if client is not None:
                await client.close()

    async def list(self, resource: str, selector: str) -> tuple[list[Object], int]:
        """Every object with these labels, from the source and not from a cache, and the version of that view."""

        async def once() -> tuple[list[Object], int]:
            items: list[Object] = []
            more: str | None = None
            while True:
                page = await self._objects.list_namespaced_custom_object(
                    GROUP,
                    VERSION,
                    self.namespace,
                    resource,
                    label_selector=selector or None,
                    limit=_PAGE,
                    _continue=more,
                )
                items += page["items"]
                more = page["metadata"].get("continue")
                if not more:
                    return items, int(page["metadata"]["resourceVersion"])

        return await self._repeat("list", once)

    async def watch(
        self, resource: str, selector: str, *, version: int, for_s: int
    ) -> AsyncIterator[tuple[str, Object]]:
        """
        Yield (OPENED, nothing), then (ADDED, MODIFIED, DELETED or BOOKMARK, object) after `version`; ends after `for_s`, to be resumed.

        Raises: Gone, BackendUnavailable.
        """
        used = self._client
        try:
            async with asyncio.timeout(self._timeout_s):
                response: aiohttp.ClientResponse = (
                    await self._objects.list_namespaced_custom_object_without_preload_content(
                        GROUP,
                        VERSION,
                        self.namespace,
                        resource,
                        label_selector=selector or None,
                        watch=True,
                        resource_version=str(version),
                        allow_watch_bookmarks=True,
                        timeout_seconds=for_s,
                    )
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise BackendUnavailable(f"watch of {resource}: {_words(error)}") from error
        metrics.WATCHES.labels(resource).inc()
        try:
            if response.status == 410:
                raise Gone
            if response.status != 200:
                if response.status == 401:
                    await self._reconnect(used)
                raise BackendUnavailable(f"watch of {resource}: {await _refusal(response)}")
            yield OPENED, {}
            async with asyncio.timeout(for_s + _WATCH_SLACK_S):
                async for line in _lines(response):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        if status.get("code") == 410:
                            raise Gone
                        raise BackendUnavailable(f"watch of {resource}: {status.get('message')}")
                    yield event["type"], event["object"]
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError) as error:
            raise BackendUnavailable(f"watch of {resource}: {_words(error)}") from error
        finally:
            metrics.WATCHES.labels(resource).dec()
            response.close()

    async def allocate(self, allocation: Object) -> Object | None:
        """
        Create a GameServerAllocation.

        Returns: the status of an Allocated one; None when no server is free.
        """

        async def once() -> Object | None:
            made = await self._objects.create_namespaced_custom_object(
                ALLOCATION_GROUP,
                VERSION,
                self.namespace,
                "gameserverallocations",
                dict(allocation),
                _content_type="application/json",
            )
            status: Object = made["status"]
            if status["state"] == "Contention":
                raise _Again("contention: others took every server that was tried")
            return status if status["state"] == "Allocated" else None

        return await self._repeat("allocate", once, idempotent=False)

    async def set_labels(self, server: str, labels: Mapping[str, str]) -> Object | None:
        """Merge labels into a GameServer; the object as it is then, or None when it is gone."""

        async def once() -> Object | None:
            patched: Object = await self._objects.patch_namespaced_custom_object(
                GROUP, VERSION, self.namespace, "gameservers", server, {"metadata": {"labels": dict(labels)}},
                _content_type="application/merge-patch+json",
            )  # fmt: skip
            return patched

        return await self._repeat("label", _unless_gone(once))

    async def delete(self, server: str) -> Object | None:
        """Delete a GameServer; the object that waits for its end, or None when it is gone."""

        async def once() -> Object | None:
            answer: Object = await self._objects.delete_namespaced_custom_object(
                GROUP, VERSION, self.namespace, "gameservers", server
            )
            return answer if answer.get("kind") == "GameServer" else None

        return await self._repeat("delete", _unless_gone(once))

    async def pod_ip(self, pod: str) -> str:
        """The address of a pod; "" when it is gone or has none yet."""

        async def once() -> str:
            response = await self._core.read_namespaced_pod_without_preload_content(pod, self.namespace)
            async with response:
                if response.status == 404:
                    return ""
                if response.status != 200:
                    raise ApiException(status=response.status, reason=await response.text())
                return str((await response.json())["status"].get("podIP") or "")

        return await self._repeat("pod", once)

    async def _repeat(self, call: str, once: Callable[[], Awaitable[_T]], *, idempotent: bool = True) -> _T:
        """Call until it is answered: a few times, within the deadline, and only what may be repeated."""
        pause_s, renewed = _FIRST_PAUSE_S, False
        with metrics.SECONDS.labels("kubernetes", call).time():
            try:
                async with asyncio.timeout(self._timeout_s):
                    for left in reversed(range(_TRIES)):
                        used = self._client
                        try:
                            result = await once()
                            metrics.CALLS.labels("kubernetes", call, "none" if result is None else "ok").inc()
                            return result
                        except (ApiException, aiohttp.ClientError, OSError, _Again) as error:
                            if isinstance(error, ApiException) and error.status == 401 and not renewed:
                                renewed = True
                                await self._reconnect(used)
                                continue
                            if not left or not _repeatable(error, idempotent=idempotent):
                                raise
                            wait_s = max(pause_s * self._rng.uniform(0.5, 1.0), _retry_after_s(error))
                        await asyncio.sleep(wait_s)
                        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            except _Again as error:
                metrics.CALLS.labels("kubernetes", call, "contention").inc()
                raise BackendUnavailable(f"{call}: {error}") from error
            except ApiException as error:
                metrics.CALLS.labels("kubernetes", call, "refused").inc()
                raise BackendUnavailable(f"{call}: {_explain(error.status or 0, _message(error))}") from error
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError) as error:
                metrics.CALLS.labels("kubernetes", call, "unavailable").inc()
                raise BackendUnavailable(f"{call}: {_words(error)}") from error
        raise AssertionError

    async def _reconnect(self, used: Any) -> None:
        """With credentials read anew, unless another call has just done so: tokens and certificates are rotated in their files."""
        if self._client is not used:
            return
        log.info("cluster_credentials_read_anew")
        now_s = time.monotonic()
        await self._connect()
        over = [old for at_s, old in self._retired if now_s - at_s > self._timeout_s]
        self._retired = [(at_s, old) for at_s, old in self._retired if old not in over] + [(now_s, used)]
        for old in over:
            await old.close()

    async def _connect(self) -> None:
        settings, configuration = self._settings, kube.Configuration()
        try:
            if settings.kubeconfig is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
                kube_config.load_incluster_config(client_configuration=configuration)
                default = _pod_namespace()
            else:
                path = str(settings.kubeconfig) if settings.kubeconfig else os.environ.get("KUBECONFIG")
                loader = await kube_config.load_kube_config(
                    config_file=path, context=settings.context or None, client_configuration=configuration,
                    persist_config=False,
                )  # fmt: skip
                default = loader.current_context["context"].get("namespace") or "default"
        except (ConfigException, OSError, ValueError) as error:
            where = settings.kubeconfig or "the pod's service account or ~/.kube/config"
            raise BackendUnavailable(f"no way to a cluster by {where}: {error}") from error
        self._client = kube.ApiClient(configuration)
        self._objects, self._core = kube.CustomObjectsApi(self._client), kube.CoreV1Api(self._client)
        self.namespace = settings.namespace or default


class _Again(Exception):
    """Nothing was changed, and asking again may help."""


async def _refusal(response: aiohttp.ClientResponse) -> str:
    try:
        message = str(json.loads(await response.content.read(65536)).get("message", ""))
    except (ValueError, aiohttp.ClientError, AttributeError):
        message = response.reason or ""
    return _explain(response.status, message)


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    rest = bytearray()
    async for chunk in response.content.iter_any():
        rest += chunk
        *lines, last = rest.split(b"\n")
        for line in lines:
            if line:
                yield bytes(line)
        rest = bytearray(last)
        if len(rest) > _MAX_LINE_BYTES:
            raise ValueError(f"an event larger than {_MAX_LINE_BYTES >> 20} MiB")


def _unless_gone(once: Callable[[], Awaitable[Object | None]]) -> Callable[[], Awaitable[Object | None]]:
    async def tried() -> Object | None:
        try:
            return await once()
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    return tried


def _repeatable(error: Exception, *, idempotent: bool) -> bool:
    """
    Whether to ask again.

    What is not idempotent is repeated only if it surely was not done: not sent (no connection), turned away (429, 409), or given up by Agones.
    """
    if isinstance(error, _Again | aiohttp.ClientConnectorError) or _CLOSING in str(error.__cause__):
        return not isinstance(error, aiohttp.ClientSSLError)
    if isinstance(error, ApiException):
        if error.status in (409, 429) or _UPDATE_CONFLICT in _message(error):
            return True
        return idempotent and error.status in (500, 502, 503, 504)
    return idempotent


def _retry_after_s(error: Exception) -> float:
    headers = error.headers if isinstance(error, ApiException) else None
    text = (headers or {}).get("Retry-After", "")
    return min(float(text), _LONGEST_PAUSE_S) if text.isdecimal() else 0.0


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        return (error.body or error.reason or "").strip()


def _explain(status: int, message: str) -> str:
    mend = {
        401: "the credentials are not accepted: has the token or certificate expired?",
        403: "the account lacks the right: see the Role that `warmfleet render` makes",
        404: "not served: is Agones installed, and is this its namespace?",
    }.get(status, "")
    return f"HTTP {status}: {message}" + (f" ({mend})" if mend else "")


def _words(error: BaseException) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"


def _pod_namespace() -> str:
    try:
        return Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read_text().strip() or "default"
    except OSError:
        return "default"
