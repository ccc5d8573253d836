"""End-to-end tests start whole systems; none may leave a process behind."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from up import EXAMPLE, Up


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Start systems; each is stopped at the end, and must leave nothing behind."""
    started: list[Up] = []

    def start_up(yaml: str = "", *options: str, folder: str = "studio") -> Up:
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        started.append(Up(place, yaml or EXAMPLE.read_text(), *options))
        return started[-1]

    yield start_up
    for up in started:
        up.stop()
