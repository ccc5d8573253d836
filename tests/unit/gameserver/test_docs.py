"""What the documents say is tested, is."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("page", ["protocol.md", "game-servers.md"])
def test_the_tests_that_hold_what_is_promised_are_there(page: str) -> None:
    """Each row of a table of bad input names tests that exist."""
    tables = re.findall(
        r"^\|[^\n]* \| test \|\n\|---\|---\|---\|\n((?:\|[^\n]*\n)+)", (ROOT / "docs" / page).read_text(), re.MULTILINE
    )
    assert tables
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def test_(\w+)\(", path.read_text(), re.MULTILINE)
    }
    for row in "".join(tables).splitlines():
        named = re.findall(r"`(\w+)`", row.rsplit(" | ", 1)[1])
        assert named, row
        assert set(named) <= there, set(named) - there
