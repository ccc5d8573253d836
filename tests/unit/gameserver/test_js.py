"""The browser SDK under Node, and the frozen vectors that tie it to the Python implementation."""

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gameserver.protocol.messages import MalformedMessage, decode_server
from gameserver.protocol.schema import parse_schema
from gameserver.protocol.snapshot import apply_delta, decode_full

ROOT = Path(__file__).parents[3]
VECTORS = ROOT / "tests" / "vectors"


@pytest.fixture(scope="module")
def make() -> dict[str, Any]:
    return runpy.run_path(str(VECTORS / "make.py"))


@pytest.mark.node
def test_browser_sdk() -> None:
    """All tests of the browser SDK pass under Node's own runner."""
    beside = Path(sys.executable).with_name("node")
    node = str(beside) if beside.exists() else shutil.which("node")
    assert node, "Node is missing: `make dev` installs it"
    tests = sorted((ROOT / "tests" / "node").glob("*.test.js"))
    assert tests
    run = subprocess.run(
        [node, "--test", "--test-reporter=spec", *map(str, tests)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]


def test_protocol_vectors_are_frozen(make: dict[str, Any]) -> None:
    """The Python implementation still makes the frozen bytes of protocol version 1."""
    assert make["protocol"]() == json.loads((VECTORS / "protocol.json").read_text())


def test_arena_vectors_are_current(make: dict[str, Any]) -> None:
    """The arena still moves players as the vectors for the browser say."""
    for now, then in zip(make["arena_moves"](), json.loads((VECTORS / "arena_moves.json").read_text()), strict=True):
        assert now["map"] == then["map"]
        for mine, frozen in zip(now["steps"], then["steps"], strict=True):
            assert mine["at"] == pytest.approx(frozen["at"])


def test_malformed_vectors_are_refused() -> None:
    """What the vectors call malformed is malformed to the Python implementation too."""
    frozen = json.loads((VECTORS / "protocol.json").read_text())
    schema = parse_schema(frozen["schema"])
    baseline = decode_full(schema, bytes.fromhex(frozen["worlds"][1]["full"]))
    readers = {
        "server": decode_server,
        "full": lambda data: decode_full(schema, data),
        "delta_from_1": lambda data: apply_delta(baseline, data),
    }
    for kind, read in readers.items():
        for text in frozen["malformed"][kind]:
            with pytest.raises(MalformedMessage):
                read(bytes.fromhex(text))
