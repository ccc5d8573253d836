"""From another matchmaker's file to our YAML: which it is, its queues, fleets to begin with, and the proof that the result is valid."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from fleets.importers.draft import Draft, ImportFailed, Note
from fleets.importers.flexmatch import flexmatch, is_flexmatch
from fleets.importers.playfab import is_playfab, playfab
from fleets.importers.unity import is_unity, unity
from fleets.spec.loader import SpecError, load

MAX_FILE_BYTES = 1 << 20


class Source(StrEnum):
    """Whose file it is."""

    FLEXMATCH = "flexmatch"
    PLAYFAB = "playfab"
    UNITY = "unity"


_READERS: dict[Source, tuple[Callable[[dict[str, Any]], bool], Callable[[dict[str, Any]], list[Draft]]]] = {
    Source.FLEXMATCH: (is_flexmatch, flexmatch),
    Source.PLAYFAB: (is_playfab, playfab),
    Source.UNITY: (is_unity, unity),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of a file."""

    source: Source
    queues: tuple[str, ...]
    yaml: str
    """Valid by itself, or together with the fleets that were given."""
    notes: tuple[Note, ...]


def import_file(
    path: Path, source: Source | None = None, *, regions: Sequence[str] = ("local",), fleets: Sequence[Path] = ()
) -> Imported:
    """
    Read a file and make queues of it.

    Args:
        source: None: found out by its keys.
        regions: a Fleet to begin with is written for each of these.
        fleets: files with Fleets that the queues run on, instead.
    Raises: ImportFailed: the file is not understood, or what it describes cannot be a valid queue.
    """
    document = _read(path)
    found = source or next((name for name, (is_one, _) in _READERS.items() if is_one(document)), None)
    if found is None:
        raise ImportFailed(
            f"{path}: is no rule set of FlexMatch, queue of PlayFab or queue of Unity Matchmaker: if it is, give --from"
        )
    drafts = _READERS[found][1](document)
    there = _fleets(fleets)
    documents: list[dict[str, Any]] = []
    if not there:
        made = _new_fleets(drafts, regions)
        documents += made
        names = [fleet["metadata"]["name"] for fleet in made]
    else:
        names = [fleet["metadata"]["name"] for fleet in there]
    for draft in drafts:
        documents.append(_document("Queue", {"name": draft.name}, {**draft.spec, "fleets": names}))
    text = _dump(documents)
    _prove(text + "---\n" + _dump(there) if there else text)
    notes = tuple(note for draft in drafts for note in draft.notes)
    return Imported(source=found, queues=tuple(draft.name for draft in drafts), yaml=text, notes=notes)


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ImportFailed(f"{path}: is larger than {MAX_FILE_BYTES >> 20} MiB")
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ImportFailed(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ImportFailed(f"{path}: is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ImportFailed(f"{path}: a JSON object is wanted")
    return value


def _fleets(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The Fleets of files, as they were written; their queues are not looked at."""
    if not paths:
        return []
    try:
        found = [dict(document) for document in load(paths).documents if document["kind"] == "Fleet"]
    except SpecError as error:
        raise ImportFailed(str(error)) from None
    if not found:
        raise ImportFailed(f"{paths[0]}: there is no Fleet in these files")
    return found


def _new_fleets(drafts: Sequence[Draft], regions: Sequence[str]) -> list[dict[str, Any]]:
    seats = max(draft.seats for draft in drafts)
    server = {"command": ["./server"], "image": "registry.example/game:1", "seats": seats}
    return [
        _document("Fleet", {"name": f"servers-{region}", "labels": {"region": region}}, {"server": dict(server)})
        for region in regions
    ]


def _document(kind: str, metadata: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "warmfleet.dev/v1", "kind": kind, "metadata": metadata, "spec": spec}


def _dump(documents: Sequence[dict[str, Any]]) -> str:
    return str(yaml.dump_all(documents, sort_keys=False, default_flow_style=None, width=140, allow_unicode=True))


def _prove(text: str) -> None:
    """Hold the result to what `warmfleet validate` holds it to. Raises ImportFailed."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "imported.yaml"
        made.write_text(text, encoding="utf-8")
        try:
            load([made])
        except SpecError as error:
            problems = [f"{problem.path}: {problem.message}" for problem in error.problems]
            raise ImportFailed("it cannot be a valid queue: " + "; ".join(problems)) from None
