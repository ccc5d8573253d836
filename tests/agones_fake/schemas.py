"""Agones' CRD schemas, where they are at hand: objects are held to them, as an API server does."""

import functools
from pathlib import Path
from typing import Any

import jsonschema
import yaml

CRDS = Path(__file__).parents[3] / "shared" / "agones" / "crds.yaml"
PRESENT = CRDS.exists()
WHY_ABSENT = f"Agones' CRDs are not at {CRDS}: objects are not checked against them"


@functools.cache
def _validator(kind: str) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for text in CRDS.read_text().split("\n---"):
        if f"    kind: {kind}\n" in text:
            crd = yaml.load(text, Loader=loader)
            schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
            return jsonschema.Draft202012Validator(_plain(schema))
    return None


def problems(kind: str, item: dict[str, Any]) -> list[str]:
    """What an API server would refuse; nothing where the schemas are absent."""
    if not PRESENT or (validator := _validator(kind)) is None:
        return []
    body = {key: value for key, value in item.items() if key in ("spec", "status")}
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(body)]


def _plain(schema: Any) -> Any:
    """OpenAPI v3 with Kubernetes' extensions, as JSON Schema."""
    if isinstance(schema, list):
        return [_plain(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _plain(value) for key, value in schema.items() if key not in ("default", "format", "description")}
    if plain.pop("x-kubernetes-int-or-string", False):
        plain.pop("type", None)
        plain["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if plain.pop("nullable", False) is True and isinstance(plain.get("type"), str):
        plain["type"] = [plain["type"], "null"]
    return plain
