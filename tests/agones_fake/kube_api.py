"""The Kubernetes API of the simulated cluster over real HTTP: paths, status codes and streams as an API server's."""

import asyncio
import copy
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from aiohttp import web

from agones_fake.allocation import Allocator, InvalidAllocation, UpdateConflict
from agones_fake.cluster import KINDS, Change, Conflict, FakeCluster, Invalid, NotFound, Object
from agones_fake.faults import Effect, Fault, Faults

_PATHS = re.compile(
    r"^/(?P<group>api/v1|apis/agones\.dev/v1)(?:/namespaces/(?P<namespace>[^/]+))?/(?P<resource>\w+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<sub>\w+))?$"
)
_ALLOCATIONS = re.compile(r"^/apis/allocation\.agones\.dev/v1/namespaces/(?P<namespace>[^/]+)/gameserverallocations$")
_REASONS = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 405: "MethodNotAllowed", 409: "Conflict",
            410: "Expired", 415: "UnsupportedMediaType", 422: "Invalid", 429: "TooManyRequests", 503: "ServiceUnavailable"}  # fmt: skip


class Refused(Exception):
    """An answer that is a Status."""

    def __init__(self, code: int, message: str, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.code, self.message, self.headers = code, message, headers or {}


class KubeApi:
    """Serves until stopped, and again on the same port."""

    def __init__(self, cluster: FakeCluster, allocator: Allocator, faults: Faults, *, token: str = ""):
        self._cluster = cluster
        self._allocator = allocator
        self._faults = faults
        self._runner: web.AppRunner | None = None
        self.token = token
        """Wanted as a bearer token, if set."""
        self.rules: list[Object] | None = None
        """Of the Role that the caller has; None: everything is allowed."""
        self.port = 0
        self.watching = 0
        """Watches open now."""
        self.gone_by_status = False
        """410 as the HTTP status of a watch instead of an ERROR event."""
        self._cut: set[asyncio.Event] = set()
        self.stalled = False
        """Watches stay open and say nothing."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application(client_max_size=4 << 20)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05, handle_signals=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        assert site._server is not None
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]

    async def stop(self) -> None:
        """Break every connection and refuse new ones."""
        self.cut_watches()
        if self._runner is not None:
            for connection in list(self._runner.server.connections):  # type: ignore[union-attr]
                if connection.transport is not None:
                    connection.transport.abort()
            await self._runner.cleanup()
            self._runner = None

    def cut_watches(self) -> None:
        """Break every watch's connection."""
        for cut in self._cut:
            cut.set()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        operation = _operation(request)
        fault = self._faults.take(operation)
        try:
            if fault is not None:
                await self._meet(fault, request)
            response = await self._answer(request)
            if fault is not None and fault.effect is Effect.DROP_AFTER:
                _drop(request)
            if fault is not None and fault.effect is Effect.STALL_AFTER:
                await asyncio.sleep(fault.seconds)
            return response
        except Refused as refused:
            status = _status(refused.code, refused.message)
            return web.json_response(status, status=refused.code, headers=refused.headers)
        except NotFound as error:
            return web.json_response(_status(404, str(error)), status=404)
        except Conflict as error:
            return web.json_response(_status(409, str(error)), status=409)
        except Invalid as error:
            return web.json_response(_status(422, str(error)), status=422)

    async def _meet(self, fault: Fault, request: web.Request) -> None:
        match fault.effect:
            case Effect.DROP_BEFORE:
                _drop(request)
            case Effect.STALL:
                await asyncio.sleep(fault.seconds)
                _drop(request)
            case Effect.DELAY:
                await asyncio.sleep(fault.seconds)
            case Effect.STATUS:
                raise Refused(fault.status, "injected", fault.headers)
            case Effect.CONTENTION:
                body = await request.json()
                body["status"] = {"state": "Contention", "gameServerName": "", "source": ""}
                raise web.HTTPCreated(text=json.dumps(body), content_type="application/json")

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.token and request.headers.get("Authorization", "").lower() != f"bearer {self.token.lower()}":
            raise Refused(401, "Unauthorized")
        if request.path in ("/healthz", "/readyz", "/livez"):
            return web.Response(text="ok")
        if request.path == "/version":
            return web.json_response({"major": "1", "minor": "36", "gitVersion": "v1.36.2-fake"})
        if self.rules is not None and not _granted(self.rules, request):
            raise Refused(403, f"forbidden: the Role grants no {_operation(request)} of {request.path}")
        if found := _ALLOCATIONS.match(request.path):
            return await self._allocate(request, found["namespace"])
        path = _PATHS.match(request.path)
        if path is None or path["resource"] not in KINDS:
            raise Refused(404, "the server could not find the requested resource")
        if path["name"] is not None:
            return await self._one(request, path)
        if request.method == "POST":
            item = self._cluster.create(path["resource"], await _body(request), path["namespace"])
            return web.json_response(item, status=201)
        if request.method != "GET":
            raise Refused(405, f"the server does not allow this method: {request.method}")
        if request.query.get("watch") in ("true", "1", "True"):
            return await self._watch(request, path)
        return self._list(request, path)

    async def _allocate(self, request: web.Request, namespace: str) -> web.Response:
        if request.method != "POST":
            return web.Response(status=405, text="Method not supported")
        if "Content-Type" not in request.headers:
            return web.Response(status=500, text="error parsing mediatype from a request header: mime: no media type\n")
        body = await _body(request)
        body |= {"apiVersion": "allocation.agones.dev/v1", "kind": "GameServerAllocation"}
        body.setdefault("metadata", {})["namespace"] = namespace
        try:
            answer = await self._allocator.allocate(body)
        except InvalidAllocation as error:
            raise Refused(422, f'GameServerAllocation.allocation.agones.dev "" is invalid: {error}') from None
        except UpdateConflict:
            return web.Response(status=500, text="could not update the selected GameServer\n")
        return web.json_response(answer, status=201)

    async def _one(self, request: web.Request, path: "re.Match[str]") -> web.Response:
        resource, name, namespace = path["resource"], path["name"], path["namespace"]
        if path["sub"] == "scale" and resource == "fleets":
            if request.method in ("PUT", "PATCH"):
                self._cluster.scale(name, (await _body(request))["spec"]["replicas"])
            item = self._cluster.get("fleets", name, namespace)
            return web.json_response({"spec": {"replicas": item["spec"]["replicas"]}, "status": item.get("status", {})})
        match request.method:
            case "GET":
                return web.json_response(self._cluster.get(resource, name, namespace))
            case "DELETE":
                item = self._cluster.delete(resource, name, namespace)
                return web.json_response(item if item["metadata"].get("deletionTimestamp") else _status(200, ""))
            case "PUT":
                body = await _body(request)

                def replace(item: Object) -> None:
                    item.clear()
                    item.update(copy.deepcopy(body))

                version = body["metadata"].get("resourceVersion")
                return web.json_response(
                    self._cluster.update(resource, name, replace, namespace=namespace, version=version)
                )
            case "PATCH":
                return web.json_response(await self._patch(request, resource, name, namespace))
        raise Refused(405, f"the server does not allow this method: {request.method}")

    async def _patch(self, request: web.Request, resource: str, name: str, namespace: str | None) -> Object:
        body, kind = await _body(request), request.content_type
        if kind == "application/merge-patch+json":
            version = (body.get("metadata") or {}).get("resourceVersion")
            return self._cluster.update(
                resource, name, lambda item: _merge(item, body), namespace=namespace, version=version
            )
        if kind == "application/json-patch+json":
            return self._cluster.update(resource, name, lambda item: _json_patch(item, body), namespace=namespace)
        raise Refused(415, f"the body of the request was in an unknown format: {kind}")

    def _list(self, request: web.Request, path: "re.Match[str]") -> web.Response:
        chosen = _chooser(request)
        items = [item for item in self._cluster.list(path["resource"], path["namespace"]) if chosen(item)]
        meta: Object = {"resourceVersion": str(self._cluster.version)}
        skip, limit = int(request.query.get("continue") or 0), int(request.query.get("limit") or 0)
        items = items[skip:]
        if limit and len(items) > limit:
            meta |= {"continue": str(skip + limit), "remainingItemCount": len(items) - limit}
            items = items[:limit]
        api, kind = KINDS[path["resource"]]
        return web.json_response({"apiVersion": api, "kind": f"{kind}List", "metadata": meta, "items": items})

    async def _watch(self, request: web.Request, path: "re.Match[str]") -> web.StreamResponse:
        asked = request.query.get("resourceVersion", "")
        table = self._cluster.tables[path["resource"]]
        if self.gone_by_status and asked not in ("", "0") and int(asked) < table.compacted:
            raise Refused(410, f"too old resource version: {asked} ({table.compacted})")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        cut = asyncio.Event()
        self._cut.add(cut)
        self.watching += 1
        events = self._events(request, path, asked)
        try:
            cutting = asyncio.create_task(cut.wait(), name="watch-cut")
            while True:
                upcoming = asyncio.create_task(anext(events), name="watch-next")  # type: ignore[arg-type]
                try:
                    await asyncio.wait([cutting, upcoming], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not upcoming.done():
                        upcoming.cancel()
                        await asyncio.wait([upcoming])
                if upcoming.cancelled():
                    _drop(request)
                event = upcoming.result()
                while self.stalled:
                    await asyncio.sleep(0.01)
                await response.write(json.dumps(event).encode() + b"\n")
        except StopAsyncIteration:
            with suppress(ConnectionError):  # the client has gone meanwhile
                await response.write_eof()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            cutting.cancel()
            await events.aclose()  # type: ignore[attr-defined]
            self._cut.discard(cut)
            self.watching -= 1
        return response

    async def _events(self, request: web.Request, path: "re.Match[str]", asked: str) -> AsyncIterator[Object]:
        """Events until timeoutSeconds; ends as a watch of an API server does."""
        chosen, timing = _chooser(request), self._cluster.timing
        table, namespace = self._cluster.tables[path["resource"]], path["namespace"]
        until_s = time.monotonic() + float(request.query.get("timeoutSeconds") or 1800)
        bookmarks = request.query.get("allowWatchBookmarks") in ("true", "1", "True")
        api, kind = KINDS[path["resource"]]
        changed = self._cluster.changes()
        try:
            if asked in ("", "0"):
                cursor = self._cluster.version
                for item in self._cluster.list(path["resource"], namespace):
                    if chosen(item):
                        yield {"type": "ADDED", "object": item}
            else:
                cursor = int(asked)
            bookmark_s = time.monotonic() + timing.bookmark_s
            while (now_s := time.monotonic()) < until_s:
                if cursor < table.compacted:
                    message = f"too old resource version: {cursor} ({table.compacted})"
                    yield {"type": "ERROR", "object": _status(410, message)}
                    return
                changed.clear()
                wait_s = min(until_s, bookmark_s) - now_s
                for change in tuple(table.history):
                    if change.version <= cursor:
                        continue
                    if change.at_s + timing.watch_lag_s > now_s:
                        wait_s = min(wait_s, change.at_s + timing.watch_lag_s - now_s)
                        break
                    cursor = change.version
                    if namespace is None or change.object["metadata"]["namespace"] == namespace:
                        event = _seen(change, chosen)
                        if event is not None:
                            yield event
                else:
                    if bookmarks and now_s >= bookmark_s:
                        bookmark_s = now_s + timing.bookmark_s
                        cursor = max(cursor, self._cluster.version)
                        meta = {"resourceVersion": str(cursor), "creationTimestamp": None}
                        yield {"type": "BOOKMARK", "object": {"apiVersion": api, "kind": kind, "metadata": meta}}
                try:
                    async with asyncio.timeout(max(wait_s, 0.0005)):
                        await changed.wait()
                except TimeoutError:
                    pass
        finally:
            self._cluster.unwatch(changed)


def _operation(request: web.Request) -> str:
    if _ALLOCATIONS.match(request.path):
        return "allocate"
    path = _PATHS.match(request.path)
    if path is None:
        return "other"
    if request.method == "GET" and path["name"] is None:
        return "watch" if request.query.get("watch") in ("true", "1", "True") else "list"
    return {"GET": "get", "POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}.get(
        request.method, "other"
    )


def _granted(rules: list[Object], request: web.Request) -> bool:
    verb, path = _operation(request), _PATHS.match(request.path)
    if verb == "allocate":
        verb, group, resource = "create", "allocation.agones.dev", "gameserverallocations"
    elif path is not None:
        resource = path["resource"] + (f"/{path['sub']}" if path["sub"] else "")
        group = "" if request.path.startswith("/api/") else request.path.split("/")[2]
    else:
        return False
    return any(verb in r["verbs"] and resource in r["resources"] and group in r["apiGroups"] for r in rules)


def _seen(change: Change, chosen: Any) -> Object | None:
    """What a watch with a selector says of a change."""
    now = change.type != "DELETED" and chosen(change.object)
    before = change.before is not None and chosen(change.before)
    if change.type == "DELETED":
        return {"type": "DELETED", "object": change.object} if before or chosen(change.object) else None
    if now:
        return {"type": "MODIFIED" if before else "ADDED", "object": change.object}
    return {"type": "DELETED", "object": change.object} if before else None


def _chooser(request: web.Request) -> Any:
    text = request.query.get("labelSelector", "")
    sets = {key.strip(): values.split(",") for key, values in re.findall(r"([^,()]+) in \(([^)]*)\)", text)}
    labels = [part for part in re.sub(r"[^,()]+ in \([^)]*\)", "", text).split(",") if part]
    fields = dict(part.split("=", 1) for part in request.query.get("fieldSelector", "").split(",") if part)

    def chosen(item: Object) -> bool:
        held = item["metadata"].get("labels") or {}
        if "metadata.name" in fields and item["metadata"]["name"] != fields["metadata.name"]:
            return False
        if any(held.get(key) not in values for key, values in sets.items()):
            return False
        for part in labels:
            if "!=" in part:
                key, value = part.split("!=", 1)
                if held.get(key) == value:
                    return False
            elif "=" in part:
                key, value = part.replace("==", "=").split("=", 1)
                if held.get(key) != value:
                    return False
            elif part.startswith("!"):
                if part[1:] in held:
                    return False
            elif part not in held:
                return False
        return True

    return chosen


async def _body(request: web.Request) -> Any:
    try:
        return await request.json()
    except ValueError as error:
        raise Refused(400, f"the body is no JSON: {error}") from None


def _merge(target: Object, patch: Object) -> None:
    """RFC 7386."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            held = target.get(key)
            if not isinstance(held, dict):
                held = target[key] = {}
            _merge(held, value)
        else:
            target[key] = value


def _json_patch(target: Object, patch: list[Object]) -> None:
    """RFC 6902: add, replace, remove and test."""
    for step in patch:
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]]
        held: Any = target
        for part in parents:
            held = held[int(part)] if isinstance(held, list) else held.get(part)
            if held is None:
                raise Invalid(f"the path {step['path']} is not there")
        key: Any = int(last) if isinstance(held, list) and last != "-" else last
        match step["op"]:
            case "add" if isinstance(held, list):
                held.insert(len(held) if key == "-" else key, step["value"])
            case "add" | "replace":
                held[key] = step["value"]
            case "remove":
                del held[key]
            case "test" if held[key] != step["value"]:
                raise Invalid(f"testing value {step['path']} failed")


def _status(code: int, message: str) -> Object:
    ok = code < 400
    return {
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Success" if ok else "Failure", "message": message,
        "reason": "" if ok else _REASONS.get(code, "InternalError"), "code": code,
    }  # fmt: skip


def _drop(request: web.Request) -> None:
    """Break the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    raise asyncio.CancelledError
