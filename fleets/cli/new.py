"""`warmfleet new GAME`: a small game to begin from, with its tests, its fleet and its queue."""

import keyword
import re
import sys
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from fleets.cli.options import fail

_FILES = {
    "init.py.tmpl": "{package}/__init__.py",
    "game.py.tmpl": "{package}/game.py",
    "bot.py.tmpl": "{package}/bot.py",
    "test_game.py.tmpl": "tests/test_game.py",
    "fleets.yaml.tmpl": "fleets.yaml",
    "pyproject.toml.tmpl": "pyproject.toml",
    "README.md.tmpl": "README.md",
}


def new(
    game: Annotated[str, typer.Argument(help="The game's name: letters, digits, - and _, as in space-race.")],
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Where to write it; by default a new folder of the game's name.")
    ] = None,
) -> None:
    """Write a small game that plays: rules, bots, tests, fleet and queue; nothing that is there is overwritten."""
    if not re.fullmatch("[a-zA-Z][a-zA-Z0-9_-]{0,39}", game):
        fail(f"{game!r}: 1 to 40 letters, digits, - and _ are wanted, a letter first", code=2)
    words = [word.lower() for word in re.split("[-_]+", game) if word]
    package = "_".join(words)
    if keyword.iskeyword(package) or package in {*sys.stdlib_module_names, "gameserver", "fleets", "tests"}:
        fail(f"{game!r} is taken: Python has a word or a module {package}; choose another name", code=2)
    folder = folder or Path("-".join(words))
    names = {
        "package": package,
        "fleet": "-".join(words),
        "class_name": "".join(word.capitalize() for word in words),
        "title": " ".join(word.capitalize() for word in words),
    }
    targets = {folder / path.format(package=package): source for source, path in _FILES.items()}
    if there := sorted(str(path) for path in targets if path.exists()):
        fail(f"{there[0]} is there already, and is not overwritten; choose another --dir")
    try:
        for path, source in targets.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            text = (files("fleets.cli") / "scaffold" / source).read_text(encoding="utf-8")
            # "x": what has come into being since the check is not overwritten either.
            with path.open("x", encoding="utf-8") as out:
                out.write(Template(text).substitute(names))
    except OSError as error:
        fail(f"{folder}: {error.strerror or error}")
    print(f"{names['title']} is in {folder}: play it with\n  cd {folder} && warmfleet up fleets.yaml --bots 1")
