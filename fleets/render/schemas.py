"""
Whether objects are what an API server takes, offline: Kubernetes' own schemas, and those of CustomResourceDefinitions that are at hand.

Strict, unlike an API server: a key that it would silently drop is an error here. Schemas are compiled once for a kind, since a folder
has thousands of objects of ten kinds.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from fleets.render.manifest import Manifest

NEWEST = ""
_POD_TEMPLATE = {"$ref": "https://kubernetes.io/api/_definitions.json#/$defs/io.k8s.api.core.v1.PodTemplateSpec"}


class SchemasMissing(Exception):
    """There are no schemas to check with; the message says what to install, or which versions there are."""


class CrdsUnreadable(Exception):
    """A file of CustomResourceDefinitions is none; the message names it."""


class Schemas:
    """The schemas of one Kubernetes version and of some CRDs."""

    def __init__(self, *, version: str = NEWEST, crds: Iterable[Mapping[str, Any]] = ()) -> None:
        """`version` as 1.36. Raises SchemasMissing."""
        try:
            import jsonschema_rs
            import kubernetes_validate
        except ImportError as error:
            raise SchemasMissing(f"{error.name} is not installed: pip install 'warmfleet[cluster]'") from None
        self._rs = jsonschema_rs
        base = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
        known = {path.name.removeprefix("v").removesuffix(".0-local-strict"): path for path in base.glob("*-strict")}
        newest = max(known, key=lambda text: tuple(map(int, text.split("."))))
        self.version = version.removeprefix("v") or newest
        if self.version not in known:
            raise SchemasMissing(f"no schemas of Kubernetes {version!r}; there are: {', '.join(sorted(known))}")
        self._folder = known[self.version]
        self._registry: Any = None
        self._custom = dict(_custom(crds))
        self._compiled: dict[tuple[str, str], Any] = {}

    def knows(self, item: Manifest) -> bool:
        """Whether there is a schema of its kind."""
        return self._validator(item["apiVersion"], item["kind"]) is not None

    def problems(self, item: Manifest) -> tuple[str, ...]:
        """What is wrong with an object, as `spec.replicas: …`; of a kind without schema, with what of it is Kubernetes' own."""
        validator = self._validator(item["apiVersion"], item["kind"])
        if validator is not None:
            return tuple(map(_told, validator.iter_errors(item)))
        if item["kind"] == "Fleet":
            pod = item.get("spec", {}).get("template", {}).get("spec", {}).get("template", {})
            found = self._compile(_POD_TEMPLATE).iter_errors(pod)
            return tuple(f"spec.template.spec.template.{_told(error)}" for error in found)
        return ()

    def _validator(self, api_version: str, kind: str) -> Any:
        key = (api_version, kind)
        if key not in self._compiled:
            schema = self._custom.get(key) or self._core(api_version, kind)
            self._compiled[key] = None if schema is None else self._compile(schema)
        return self._compiled[key]

    def _core(self, api_version: str, kind: str) -> Any:
        group, _, version = api_version.rpartition("/")
        name = f"{kind}-{group.split('.')[0]}-{version}.json" if group else f"{kind}-{version}.json"
        path = self._folder / name.lower()
        if not path.is_file() or (group and "." in group and not group.endswith(".k8s.io")):
            return None
        return json.loads(path.read_text(encoding="utf-8"))

    def _compile(self, schema: Any) -> Any:
        if self._registry is None:
            definitions = json.loads((self._folder / "_definitions.json").read_text(encoding="utf-8"))
            self._registry = self._rs.Registry([(definitions["$id"], definitions)])
        return self._rs.Draft202012Validator(schema, registry=self._registry)


def read_crds(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """CustomResourceDefinitions of some YAML files, and of folders of them. Raises CrdsUnreadable."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: list[dict[str, Any]] = []
    files = [file for path in paths for file in (sorted(path.glob("*.y*ml")) if path.is_dir() else [path])]
    for path in files:
        try:
            documents = list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=loader))
        except OSError as error:
            raise CrdsUnreadable(f"{path}: cannot be read: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise CrdsUnreadable(f"{path}: is no YAML: {error}") from None
        items = [item for d in documents for item in (d.get("items", [d]) if isinstance(d, dict) else [d])]
        found += [item for item in items if isinstance(item, dict) and item.get("kind") == "CustomResourceDefinition"]
    return found


def _custom(crds: Iterable[Mapping[str, Any]]) -> Iterator[tuple[tuple[str, str], Any]]:
    for crd in crds:
        spec = crd["spec"]
        for version in spec["versions"]:
            schema = version.get("schema", {}).get("openAPIV3Schema")
            if schema is not None:
                yield (f"{spec['group']}/{version['name']}", spec["names"]["kind"]), _whole(schema)


def _whole(schema: Any) -> Any:
    """A CRD's schema as the API server reads it: with the members that every object has, and nullable where it says so."""
    made = _strict(schema)
    for name, kind in (("apiVersion", "string"), ("kind", "string"), ("metadata", "object")):
        made.setdefault("properties", {})[name] = {"type": kind}
    return made


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(value) for key, value in schema.items()}
    named = made.get("type") == "object" and isinstance(made.get("properties"), dict)
    if named and not made.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(made.get(bound), bool):  # OpenAPI 3.0 has a flag where JSON Schema has the number
            exclusive, number = made.pop(bound), made.pop(limit, None)
            if number is not None:
                made[bound if exclusive else limit] = number
    if made.get("nullable") is True and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    return made


def _told(error: Any) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path).lstrip(".")
    return f"{path}: {error.message}" if path else str(error.message)
