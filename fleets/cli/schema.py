"""`warmfleet schema`: the YAML's JSON Schema, for editors."""

import json
from typing import Any

from pydantic import TypeAdapter

from fleets.spec.loader import KINDS


def schema() -> None:
    """Print the JSON Schema of Fleet and Queue documents; editors complete and check with it."""
    print(json.dumps(document_schema(), indent=2))


def document_schema() -> dict[str, Any]:
    """One schema for any document, by its kind."""
    union: Any = None
    for model in KINDS.values():
        union = model if union is None else union | model
    built: dict[str, Any] = TypeAdapter(union).json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Warmfleet", **built}
