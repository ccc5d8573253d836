"""What `make audit` makes of pip-audit's answers."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

AUDIT = runpy.run_path(str(Path(__file__).parents[2] / "docker" / "audit.py"))
WELL = {"name": "a", "version": "1", "vulns": []}
BROKEN = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("dependencies", "code", "said"),
    [
        ([WELL], 0, "1 of 1"),
        ([WELL, BROKEN], AUDIT["VULNERABLE"], "b 2: PYSEC-1, fixed in: 3"),
        ([WELL, SKIPPED], AUDIT["UNKNOWN"], "not audited: 1 of 2"),
        ([BROKEN, SKIPPED], AUDIT["VULNERABLE"], "not audited: 1 of 2"),
    ],
)
def test_what_is_not_known_is_no_success(dependencies: list[dict[str, Any]], code: int, said: str) -> None:
    """A package that could not be looked up is told and is not passed over."""
    found, told = AUDIT["judge"](json.dumps({"dependencies": dependencies}), "")
    assert found == code
    assert said in "\n".join(told)


def test_a_gate_fails_for_what_is_found_alone() -> None:
    """That the service could not be asked is said and passes; a vulnerability never does, whatever else could not be looked up."""
    assert AUDIT["gate"](0)[0] == 0
    assert AUDIT["gate"](AUDIT["VULNERABLE"])[0] == AUDIT["VULNERABLE"]
    code, said = AUDIT["gate"](AUDIT["UNKNOWN"])
    assert code == 0
    assert "NOT KNOWN" in said


def test_the_gate_is_among_the_gates() -> None:
    """`make check` asks."""
    make = (Path(__file__).parents[2] / "Makefile").read_text()
    (check,) = re.findall(r"^check:(.*)$", make, re.MULTILINE)
    assert "audited" in check.split()
    assert re.search(r"^audited:.*\n\t.*audit\.py --gate$", make, re.MULTILINE)


def test_a_failure_of_the_network_is_told() -> None:
    """With its own last words."""
    assert AUDIT["judge"]("", "Traceback\nConnectionError: no route") == (
        AUDIT["UNKNOWN"],
        ["not audited: ConnectionError: no route"],
    )
