"""
One Kubernetes object: a plain mapping in the order in which people read it.

Owns names, labels and the text form; what stands in the objects belongs to the modules beside.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

Manifest = dict[str, Any]

FLEET_LABEL = "warmfleet.dev/fleet"
_MANAGED = {"app.kubernetes.io/managed-by": "warmfleet"}
# What no YAML reader takes for anything else than text: YAML 1.1's and 1.2's ideas of numbers, times and truth differ.
_PLAIN = re.compile(r"[A-Za-z/]([A-Za-z0-9_./:-]*[A-Za-z0-9_/])?")
_WIDTH = 1 << 30
"""Lines are never folded."""
_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "inf", "nan"}


def manifest(
    api_version: str,
    kind: str,
    name: str,
    *,
    namespace: str | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    **body: Any,
) -> Manifest:
    """An object with our label; `namespace` is None for one of the whole cluster."""
    metadata: dict[str, Any] = {"name": name}
    if namespace is not None:
        metadata["namespace"] = namespace
    metadata["labels"] = _MANAGED | dict(labels or {})
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **body}


def file_name(item: Manifest) -> str:
    """Unique within one rendering."""
    return f"{item['kind']}-{item['metadata']['name']}.yaml".lower()


def to_yaml(items: Iterable[Any]) -> str:
    """One stream: the same for the same objects, without comments, anchors or line folding."""
    return _dump(items, _Dumper)


def _dump(items: Iterable[Any], dumper: Any) -> str:
    text: str = yaml.dump_all(
        items, Dumper=dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=_WIDTH
    )
    return text


class _Unshared:
    """Objects that stand in several places are written out in each."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _PlainDumper(_Unshared, yaml.SafeDumper):
    pass


# libyaml's emitter is eight times as fast and writes the same bytes.
_Dumper: Any = type("_Dumper", (_Unshared, yaml.CSafeDumper), {}) if yaml.__with_libyaml__ else _PlainDumper


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = _PLAIN.fullmatch(text) is not None and text.lower() not in _WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


for _dumper in (_PlainDumper, _Dumper):
    _dumper.add_representer(str, _represent)
