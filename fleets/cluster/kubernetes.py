"""
The Cluster of a kubeconfig (or of a pod's service account): server-side apply over HTTP.

The configuration, with its credential plugins and certificates, is the Kubernetes client's; the calls are ours, since its typed methods know no
objects as they are written, and we render kinds that it has never heard of.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException

from fleets.cluster.kinds import collection, path_of
from fleets.cluster.ports import MANAGER, ClusterUnavailable, FieldConflict, Held, Ref, Refused, UnknownKind
from fleets.render.manifest import Manifest

_TIMEOUT = urllib3.Timeout(connect=5.0, read=30.0)
_PAGE = 500
_HOLDER = re.compile(r'conflict with "([^"]+)"')
_NO_PLACE = "the server could not find the requested resource"
_SSA = "application/apply-patch+yaml"


class KubernetesCluster:
    """Implements Cluster; safe to use from several threads."""

    def __init__(self, api: client.ApiClient, where: str) -> None:
        """`where`: its name for people."""
        self._api = api
        self.where = where

    @classmethod
    def connect(cls, *, kubeconfig: Path | None = None, context: str | None = None) -> "KubernetesCluster":
        """From a kubeconfig, else from the pod that we run in. Raises ClusterUnavailable."""
        chosen = client.Configuration()
        try:
            try:
                config.load_kube_config(
                    config_file=None if kubeconfig is None else str(kubeconfig),
                    context=context,
                    client_configuration=chosen,
                )
            except ConfigException:
                if kubeconfig is not None or context is not None:
                    raise
                config.load_incluster_config(client_configuration=chosen)
        except (ConfigException, OSError, ValueError) as error:
            raise ClusterUnavailable(f"no cluster is configured: {error}. Give --kubeconfig or --context") from None
        return cls(client.ApiClient(configuration=chosen), context or chosen.host)

    def fetch(self, ref: Ref) -> Manifest | None:
        """An object as it is now."""
        found = self.get(path_of(ref))
        return dict(found) if found is not None else None

    def listed(self, api_version: str, kind: str, namespace: str, labels: Mapping[str, str]) -> tuple[Manifest, ...]:
        """By pages. Raises UnknownKind."""
        path, items, more = collection(api_version, kind, namespace), [], ""
        query = {"labelSelector": ",".join(f"{k}={v}" for k, v in labels.items()), "limit": str(_PAGE)}
        while True:
            status, body = self._call("GET", path, query | ({"continue": more} if more else {}))
            if status == 404:
                raise UnknownKind(f"the cluster has no kind {kind} of {api_version}")
            _raise(status, body)
            items += [{"apiVersion": api_version, "kind": kind, **item} for item in body["items"]]
            more = body["metadata"].get("continue", "")
            if not more:
                return tuple(items)

    def apply(self, item: Manifest, *, dry_run: bool, force: bool = False) -> Manifest:
        """Server-side apply."""
        ref = Ref(
            api_version=item["apiVersion"],
            kind=item["kind"],
            namespace=item["metadata"].get("namespace", ""),
            name=item["metadata"]["name"],
        )
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict", "force": "true" if force else "false"}
        if dry_run:
            query["dryRun"] = "All"
        status, body = self._call("PATCH", path_of(ref), query, item, _SSA)
        if status == 404 and _NO_PLACE in _message(body):
            raise UnknownKind(
                f"the cluster has no kind {ref.kind} of {ref.api_version}: install its CustomResourceDefinition"
            )
        _raise(status, body)
        return dict(body)

    def patch(self, ref: Ref, change: Mapping[str, Any]) -> Manifest:
        """Merge patch."""
        status, body = self._call(
            "PATCH", path_of(ref), {"fieldManager": MANAGER}, change, "application/merge-patch+json"
        )
        _raise(status, body)
        return dict(body)

    def remove(self, ref: Ref) -> None:
        """Delete, with what it owns."""
        status, body = self._call("DELETE", path_of(ref), {"propagationPolicy": "Background"})
        if status != 404:
            _raise(status, body)

    def get(self, path: str) -> Any:
        """What stands at a path."""
        status, body = self._call("GET", path, {})
        if status == 404:
            return None
        _raise(status, body)
        return body

    def _call(
        self, method: str, path: str, query: Mapping[str, str], body: Any = None, content_type: str = "application/json"
    ) -> tuple[int, Any]:
        headers = {"Accept": "application/json", "User-Agent": MANAGER}
        if body is not None:
            headers["Content-Type"] = content_type
        queries: list[Any] = []
        self._api.update_params_for_auth(headers, queries, ["BearerToken"], path, method, body)
        url = f"{self._api.configuration.host.rstrip('/')}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            answer = self._api.rest_client.pool_manager.request(
                method,
                url,
                body=None if body is None else json.dumps(body),
                headers=headers,
                timeout=_TIMEOUT,
                retries=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise ClusterUnavailable(f"{self._api.configuration.host} does not answer: {error}") from error
        try:
            return answer.status, json.loads(answer.data or b"null")
        except ValueError:
            text = answer.data[:200].decode("utf-8", "replace")
            if answer.status < 300:
                raise ClusterUnavailable(f"{self._api.configuration.host} answers with no JSON: {text!r}") from None
            return answer.status, {"message": text}


def _message(body: Any) -> str:
    return str(body.get("message", "")) if isinstance(body, dict) else ""


def _raise(status: int, body: Any) -> None:
    """Turn a Status into our errors."""
    if status < 300:
        return
    message = _message(body) or f"HTTP {status}"
    if status == 409 and (held := _held(body)):
        raise FieldConflict(held)
    if status in (401, 403):
        raise Refused(f"not allowed: {message}")
    if status == 429 or status >= 500:
        # A webhook that failed speaks through a 500 of the API server, and says so.
        raise (Refused if "webhook" in message else ClusterUnavailable)(message)
    raise Refused(message)


def _held(body: Any) -> list[Held]:
    causes = (body.get("details") or {}).get("causes") or []
    return [
        Held(field=str(cause.get("field", "")).lstrip("."), manager=found[1])
        for cause in causes
        if cause.get("reason") == "FieldManagerConflict" and (found := _HOLDER.search(str(cause.get("message", ""))))
    ]
