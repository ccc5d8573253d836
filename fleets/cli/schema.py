"""`warmfleet schema`: the JSON Schemas of the YAML and of the events."""

import json
from enum import StrEnum
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter

from fleets.spec.loader import KINDS
from matchmaker.events.model import schema as event_schema


class What(StrEnum):
    """What there are schemas of."""

    DOCUMENTS = "documents"
    EVENTS = "events"


def schema(
    what: Annotated[What, typer.Argument(help="Of the YAML, or of the event stream.")] = What.DOCUMENTS,
) -> None:
    """Print a JSON Schema: of Fleet and Queue documents, for editors, or of lifecycle events, for whoever reads them."""
    print(json.dumps(document_schema() if what is What.DOCUMENTS else event_schema(), indent=2))


def document_schema() -> dict[str, Any]:
    """One schema for any document, by its kind."""
    union: Any = None
    for model in KINDS.values():
        union = model if union is None else union | model
    built: dict[str, Any] = TypeAdapter(union).json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Warmfleet", **built}
