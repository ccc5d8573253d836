"""The data directory of `warmfleet up`."""

import os
from pathlib import Path

import pytest

from fleets.home import Home, HomeInUse, NotRunning, Running


def test_a_secret_is_made_once_and_private(tmp_path: Path) -> None:
    """The same secret is there in the next run, readable by its owner alone."""
    with Home(tmp_path / "data") as home:
        first = home.secret("jwt")
    with Home(tmp_path / "data") as home:
        assert home.secret("jwt") == first
        assert home.secret("seat") != first
        assert (home.path / "keys" / "jwt").stat().st_mode & 0o777 == 0o600


def test_one_up_at_a_time(tmp_path: Path) -> None:
    """A second holder is refused with the mend; after the first has gone it may."""
    with Home(tmp_path), pytest.raises(HomeInUse, match="--data-dir"):
        Home(tmp_path).__enter__()
    with Home(tmp_path):
        pass


def test_the_running_system_is_found_while_it_runs(tmp_path: Path) -> None:
    """`up.json` leads to a live process, and to nothing once it is gone."""
    with Home(tmp_path) as home:
        running = Running(pid=os.getpid(), url="http://127.0.0.1:8080", operator_token="t")
        home.publish(running)
        assert Home(tmp_path).running() == running
    with pytest.raises(NotRunning, match="warmfleet up"):
        Home(tmp_path).running()


def test_a_dead_process_is_not_running(tmp_path: Path) -> None:
    """A left-over `up.json` of a killed process is no running system."""
    with Home(tmp_path) as home:
        home.publish(Running(pid=2**22 - 1, url="", operator_token=""))
        with pytest.raises(NotRunning):
            home.running()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """Garbage in `up.json` gives an error that names it."""
    (tmp_path / "up.json").write_text("{}")
    with pytest.raises(NotRunning, match=r"up\.json"):
        Home(tmp_path).running()
