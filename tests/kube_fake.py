"""
An API server in memory, over real HTTP: server-side apply with field ownership and conflicts, dry runs, selectors, merge patches, faults.

It knows no schemas: mappings merge key by key and lists are held whole, as in a custom resource. What it gets right is who owns which
field, which is what `warmfleet apply` relies on; a real API server is the judge of the rest.
"""

import copy
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fleets.cluster.kinds import KINDS

Object = dict[str, Any]
Path = tuple[str, ...]


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Path and value of every field that has one manager: scalars, lists, empty mappings."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield path, value


def put(target: Object, path: Path, value: Any) -> None:
    for part in path[:-1]:
        if not isinstance(target.get(part), dict):
            target[part] = {}
        target = target[part]
    target[path[-1]] = copy.deepcopy(value)


def drop(target: Object, path: Path) -> None:
    parents = []
    for part in path[:-1]:
        if not isinstance(target.get(part), dict):
            return
        parents.append((target, part))
        target = target[part]
    target.pop(path[-1], None)
    for parent, part in reversed(parents):
        if parent[part] == {}:
            del parent[part]


def at(target: Any, path: Path) -> Any:
    for part in path:
        if not isinstance(target, dict) or part not in target:
            return None
        target = target[part]
    return target


@dataclass
class Stored:
    """An object and who owns what of it."""

    item: Object
    owners: dict[str, set[Path]] = field(default_factory=dict)

    def shown(self) -> Object:
        item = copy.deepcopy(self.item)
        item["metadata"]["managedFields"] = [
            {"manager": manager, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": _fields(paths)}
            for manager, paths in self.owners.items()
        ]
        return item


def _fields(paths: set[Path]) -> Object:
    made: Object = {}
    for path in sorted(paths):
        here = made
        for part in path:
            here = here.setdefault(f"f:{part}", {})
    return made


class Refuse(Exception):
    def __init__(self, code: int, message: str, causes: Any = ()) -> None:
        super().__init__(message)
        self.code, self.causes = code, list(causes)


class KubeFake:
    """Start it, give its `kubeconfig` to a command, look at `objects`."""

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        """By path."""
        self.namespaces = {"default", "games"}
        self.unknown: set[str] = set()
        """Plurals whose CRD is not installed."""
        self.refuse: Callable[[str, str, Object | None], None] = lambda method, path, body: None
        """Raises Refuse for a call that is to fail."""
        self.on_write: Callable[[str, Object], None] = lambda path, item: None
        """Plays the controllers: may change the stored object, as its status."""
        self.raw: dict[str, Any] = {"/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.2"}}
        self.writes: list[tuple[str, str]] = []
        self.dry = False
        """Whether the call that is refused or not is a dry run."""
        self.lock = threading.RLock()
        self._serial = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def kubeconfig(self) -> str:
        """As text."""
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "fake",
                "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
                "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
                "users": [{"name": "fake", "user": {"token": "t"}}],
            }
        )

    def start(self) -> "KubeFake":
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def _serve(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size)) if size else None
                url = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(url.query).items()}
                try:
                    with fake.lock:
                        answer, code = (
                            fake.answer(self.command, url.path, query, body, self.headers.get("Content-Type", "")),
                            200,
                        )
                except Refuse as error:
                    code = error.code
                    answer = {
                        "kind": "Status",
                        "message": str(error),
                        "code": code,
                        "details": {"causes": error.causes},
                    }
                data = json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PATCH = do_DELETE = do_POST = do_PUT = _serve  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def stop(self) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def find(self, plural: str, name: str) -> Object:
        """The one object of that name."""
        return next(s.item for path, s in self.objects.items() if path.endswith(f"/{plural}/{name}"))

    def names(self, plural: str) -> list[str]:
        return sorted(path.rsplit("/", 1)[1] for path in self.objects if path.split("/")[-2] == plural)

    def answer(self, method: str, path: str, query: dict[str, str], body: Any, content_type: str) -> Any:
        self.dry = query.get("dryRun") == "All"
        self.refuse(method, path, body)
        if path in self.raw:
            return self.raw[path]
        parts = path.strip("/").split("/")
        if (
            parts[:3] == ["api", "v1", "namespaces"]
            and len(parts) == 4
            and method == "GET"
            and parts[3] in self.namespaces
        ):
            return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": parts[3]}}
        namespaced = "namespaces" in parts[:-2]
        plural_at = parts.index("namespaces") + 2 if namespaced else (2 if parts[0] == "api" else 3)
        plural, name = parts[plural_at], parts[plural_at + 1] if len(parts) > plural_at + 1 else None
        if plural in self.unknown or plural not in {row.plural for row in KINDS.values()}:
            raise Refuse(404, "the server could not find the requested resource")
        if name is None:
            return self._list(path, query)
        if method == "GET":
            if path not in self.objects:
                raise Refuse(404, f'{plural} "{name}" not found')
            return self.objects[path].shown()
        if method == "DELETE":
            if path not in self.objects:
                raise Refuse(404, f'{plural} "{name}" not found')
            self.writes.append((method, path))
            del self.objects[path]
            return {"kind": "Status", "status": "Success"}
        if namespaced and parts[parts.index("namespaces") + 1] not in self.namespaces:
            raise Refuse(404, f'namespaces "{parts[parts.index("namespaces") + 1]}" not found')
        stored = copy.deepcopy(self.objects.get(path))
        if "apply-patch" in content_type:
            stored = self._apply(stored, body, query["fieldManager"], force=query.get("force") == "true")
        elif stored is None:
            raise Refuse(404, f'{plural} "{name}" not found')
        else:
            asked = body.get("metadata", {}).pop("resourceVersion", None)
            if asked is not None and asked != stored.item["metadata"].get("resourceVersion"):
                raise Refuse(409, "the object has been modified; please apply your changes to the latest version")
            self._merge(stored, body, query.get("fieldManager", "unknown"))
        if not self.dry:
            self.writes.append((method, path))
            self._serial += 1
            stored.item["metadata"]["resourceVersion"] = str(self._serial)
            self.objects[path] = stored
            if plural == "namespaces":
                self.namespaces.add(name)
            self.on_write(path, stored.item)
        return stored.shown()

    def _list(self, path: str, query: dict[str, str]) -> Object:
        wanted = dict(part.split("=", 1) for part in query.get("labelSelector", "").split(",") if part)
        items = [
            stored.shown()
            for key, stored in self.objects.items()
            if key.rsplit("/", 1)[0] == path and wanted.items() <= (stored.item["metadata"].get("labels") or {}).items()
        ]
        start, limit = int(query.get("continue") or 0), int(query.get("limit") or 500)
        more = {"continue": str(start + limit)} if len(items) > start + limit else {}
        return {"kind": "List", "metadata": more, "items": items[start : start + limit]}

    def _apply(self, stored: Stored | None, body: Object, manager: str, *, force: bool) -> Stored:
        fresh = stored is None
        stored = stored or Stored(item={"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": {}})
        wanted = {
            path: value
            for path, value in leaves(body)
            if path[0] not in ("apiVersion", "kind") and path != ("metadata", "name")
        }
        held = [
            (path, other)
            for path, value in wanted.items()
            for other, paths in stored.owners.items()
            if other != manager and path in paths and at(stored.item, path) != value
        ]
        if held and not force:
            causes = [
                {"reason": "FieldManagerConflict", "message": f'conflict with "{other}"', "field": f".{'.'.join(path)}"}
                for path, other in held
            ]
            raise Refuse(409, f"Apply failed with {len(held)} conflicts", causes)
        for path, other in held:
            stored.owners[other].discard(path)
        others = {path for who, paths in stored.owners.items() if who != manager for path in paths}
        for path in stored.owners.get(manager, set()) - wanted.keys() - others:
            drop(stored.item, path)
        for path, value in wanted.items():
            put(stored.item, path, value)
        stored.owners[manager] = set(wanted)
        stored.item["metadata"]["name"] = body["metadata"]["name"]
        if fresh:
            stored.item["metadata"] |= {"uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1}
            if body["kind"] == "Fleet":
                stored.item["spec"].setdefault("replicas", 0)
        return stored

    def _merge(self, stored: Stored, body: Object, manager: str) -> None:
        for path, value in leaves(body):
            if value is None:
                drop(stored.item, path)
                continue
            if at(stored.item, path) != value:
                for paths in stored.owners.values():
                    paths.discard(path)
                stored.owners.setdefault(manager, set()).add(path)
                put(stored.item, path, value)

    def edit(self, plural: str, name: str, body: Object, manager: str = "kubectl-edit") -> None:
        """As a person would, by hand."""
        with self.lock:
            stored = next(s for path, s in self.objects.items() if path.endswith(f"/{plural}/{name}"))
            self._merge(stored, body, manager)
