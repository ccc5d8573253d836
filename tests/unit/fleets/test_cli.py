"""The command as a whole: what it needs installed, and what it says of itself."""

import subprocess
import sys
from importlib.metadata import version

SHOW = "import sys, fleets.cli.up; print(*sorted(sys.modules.keys() & {'aiohttp', 'kubernetes', 'kubernetes_validate', 'matplotlib'}))"
WITHOUT = (
    "import sys; sys.modules['kubernetes'] = None; sys.argv = ['warmfleet', 'apply', '--help'];"
    "from fleets.cli import main; main.COMMANDS['apply'] = 'test:missing'; main.import_module = lambda _: __import__('kubernetes');"
    "main.main()"
)


def test_up_reads_nothing_that_only_a_cluster_needs() -> None:
    """The main dependencies are enough for a laptop."""
    found = subprocess.run([sys.executable, "-c", SHOW], text=True, capture_output=True, check=True)
    assert found.stdout.strip() == ""


def test_a_command_without_its_extra_says_which_to_install() -> None:
    """A missing Kubernetes client is one line, not a traceback."""
    found = subprocess.run([sys.executable, "-c", WITHOUT], text=True, capture_output=True, check=False)
    assert found.returncode == 1
    assert found.stderr == "warmfleet: this needs kubernetes: pip install 'warmfleet[kubernetes]'\n"


def test_the_command_tells_its_version() -> None:
    """`--version` is the installed distribution's."""
    found = subprocess.run(
        [sys.executable, "-m", "fleets.cli", "--version"], text=True, capture_output=True, check=True
    )
    assert found.stdout == f"warmfleet {version('warmfleet')}\n"
