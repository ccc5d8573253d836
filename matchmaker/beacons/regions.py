"""The regions that have beacons, as an operator lists them for the matchmaker."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from matchmaker.beacons.tokens import LatencyVerifier


class Region(BaseModel):
    """One region and its beacon."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    region: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    udp: Annotated[str, StringConstraints(pattern=r"^(.+:\d{1,5})?$", max_length=256)] = Field(
        default="", description="host:port; empty where games cannot reach it."
    )
    http: Annotated[str, StringConstraints(pattern=r"^(https?://\S+)?$", max_length=256)] = Field(
        default="", description="Where `/v1/beacon` is; empty where browsers cannot reach it."
    )
    key: Annotated[str, StringConstraints(min_length=43, max_length=44)] = Field(
        description="The beacon's public Ed25519 key, base64url."
    )


class RegionsError(Exception):
    """The file lists no regions; says where it is wrong."""


def read_regions(path: Path) -> tuple[Region, ...]:
    """A YAML file with a list of {region, udp, http, key}. Raises RegionsError."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
        found = TypeAdapter(list[Region]).validate_python(value)
        verifier(found)
    except OSError as error:
        raise RegionsError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RegionsError(f"{path}: {where}: {first['msg']}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise RegionsError(f"{path}: {error}") from None
    return tuple(found)


def verifier(regions: Sequence[Region]) -> LatencyVerifier:
    """Of these regions' tokens. Raises ValueError for a bad key, or a region that is there twice."""
    keys = {region.region: region.key for region in regions}
    if len(keys) < len(regions) or len(set(keys.values())) < len(keys):
        raise ValueError("each region is there once, with a key of its own")
    return LatencyVerifier(keys)
