"""Writes docs/keys.md: every key of the YAML, from the models that check it. `python docs/keys.py`; a test holds the page to it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fleets.spec.loader import KINDS

PAGE = Path(__file__).parent / "keys.md"
_HEAD = """# Keys of the YAML

Made from the models that check the files (`python docs/keys.py`); `warmfleet schema` prints the same for editors. Durations are written as 500ms, 30s, 5m or
2h, sizes as 512Mi or 2Gi, shares as 5%. A name in angle brackets is yours to choose; `[]` is each item of a list.
"""


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for kind, model in KINDS.items():
        schema = model.model_json_schema(by_alias=True)
        rows = list(_rows(schema["properties"]["spec"], schema, "spec", {}))
        parts.append(f"## kind: {kind}\n\n| key | value | default | what it does |\n|---|---|---|---|")
        parts += [f"| `{path}` | {value} | {default} | {told} |" for path, value, default, told in rows]
        parts.append("")
    return "\n".join(parts)


def _rows(
    node: dict[str, Any], schema: dict[str, Any], path: str, seen: dict[str, str]
) -> Iterator[tuple[str, str, str, str]]:
    """`seen`: models and where they were told first; a second time they are referred to."""
    for name, raw in _resolved(node, schema)[0].get("properties", {}).items():
        here = f"{path}.{name}"
        for branch in _branches(raw, schema):
            if branch.get("title") == "SecretKey":
                yield here, "`{secret: …, key: …}`", _default(raw), _told(raw, raw)
                break
            if "properties" in branch:
                first = seen.setdefault(branch["title"], here)
                yield here, "mapping" if first == here else f"as `{first}`", _default(raw), _told(raw, branch)
                if first == here:
                    yield from _rows(branch, schema, here, seen)
                break
            inner = branch.get("items") or (
                branch.get("additionalProperties") if branch.get("type") == "object" else None
            )
            found = [b for b in _branches(inner, schema) if "properties" in b] if isinstance(inner, dict) else []
            if found:
                below = f"{here}[]" if branch.get("type") == "array" else f"{here}.<name>"
                yield here, "list" if branch.get("type") == "array" else "mapping", _default(raw), _told(raw, branch)
                for item in found:
                    if item.get("title") != "SecretKey":
                        yield from _rows(
                            item, schema, below if len(found) == 1 else f"{below}({item.get('title', '')})", seen
                        )
                break
        else:
            yield here, " or ".join(dict.fromkeys(map(_value, _branches(raw, schema)))), _default(raw), _told(raw, raw)


def _resolved(node: dict[str, Any], schema: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    reference = node.get("$ref")
    return (schema["$defs"][reference.rpartition("/")[2]],) if reference else (node,)


def _branches(node: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    node = _resolved(node, schema)[0]
    options = node.get("anyOf") or node.get("oneOf")
    return (
        [b for option in options for b in _branches(option, schema) if b.get("type") != "null"] if options else [node]
    )


def _value(node: dict[str, Any]) -> str:
    if "const" in node:
        return f"`{node['const']}`"
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if node.get("format") in ("duration", "percentage"):
        return str(node["format"])
    kind = {
        "integer": "integer",
        "number": "number",
        "boolean": "true or false",
        "string": "text",
        "array": "list",
        "object": "mapping",
    }
    low, high = node.get("minimum", node.get("exclusiveMinimum")), node.get("maximum", node.get("exclusiveMaximum"))
    bounds = (
        f", {low if low is not None else '…'} to {high if high is not None else '…'}"
        if (low, high) != (None, None)
        else ""
    )
    inner = node.get("items") if node.get("type") == "array" else None
    of = f" of {_value(inner)}" if isinstance(inner, dict) and "$ref" not in inner else ""
    return kind.get(str(node.get("type")), "text") + of + bounds


def _default(node: dict[str, Any]) -> str:
    if "default" not in node:
        return "**wanted**"
    value = node["default"]
    if value is None or value in ({}, []):
        return ""
    if isinstance(value, dict):
        return f"`{value['secret']}`, `{value['key']}`" if value.keys() == {"secret", "key"} else "see below"
    if isinstance(value, float) and (form := _format(node)):
        return f"`{value:g}s`" if form == "duration" else f"`{value * 100:g}%`"
    return f"`{json.dumps(value)}`"


def _format(node: dict[str, Any]) -> str:
    forms = [str(branch.get("format", "")) for branch in [node, *node.get("anyOf", [])]]
    return next((form for form in forms if form in ("duration", "percentage")), "")


def _told(raw: dict[str, Any], branch: dict[str, Any]) -> str:
    told = [node.get("description") for node in (raw, *raw.get("anyOf", []), branch)]
    text = str(next(filter(None, told), "")).replace("\n", " ")
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
