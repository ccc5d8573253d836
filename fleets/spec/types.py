"""Values of the YAML: durations, sizes, shares and names, with errors that say what is wanted."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic import BaseModel as _BaseModel
from pydantic.alias_generators import to_camel

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZES = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_MEMORY = re.compile(r"[1-9]\d*(Ki|Mi|Gi)")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")


class Model(_BaseModel):
    """A mapping of the YAML: camelCase keys, none unknown, nothing guessed."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, strict=True, frozen=True)


def _seconds(value: Any) -> float:
    if isinstance(value, str) and (found := _DURATION.fullmatch(value)):
        return float(found[1]) * _UNITS_S[found[2]]
    raise ValueError("a duration is wanted, as 500ms, 30s, 5m or 2h")


def _memory(value: str) -> str:
    if not _MEMORY.fullmatch(value):
        raise ValueError("a size is wanted, as 512Mi or 2Gi")
    return value


def _share(value: Any) -> float:
    if isinstance(value, str) and (found := _PERCENT.fullmatch(value)) and float(found[1]) <= 100:
        return float(found[1]) / 100
    raise ValueError("a percentage is wanted, as 5%")


Seconds = Annotated[
    float, BeforeValidator(_seconds, json_schema_input_type=str), Field(json_schema_extra={"format": "duration"})
]
"""`30s` in the YAML, seconds in the model."""
Memory = Annotated[str, AfterValidator(_memory)]
Share = Annotated[
    float, BeforeValidator(_share, json_schema_input_type=str), Field(json_schema_extra={"format": "percentage"})
]
"""`5%` in the YAML, 0.05 in the model."""
Name = Annotated[
    str,
    StringConstraints(max_length=40, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"),
    Field(description="Lower-case letters, digits and '-', as Kubernetes names."),
]
"""40 characters at most: a server's name adds a suffix, and the whole is a DNS label."""
Word = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
DnsName = Annotated[str, StringConstraints(max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
Port = Annotated[int, Field(ge=1, le=65535)]


def size_bytes(size: str) -> int:
    """Of a `Memory`."""
    return int(size[:-2]) * _SIZES[size[-2:]]
