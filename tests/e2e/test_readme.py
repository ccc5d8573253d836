"""What the README promises: its game runs as it stands there."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright
from up import Up

README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
def test_the_game_of_the_readme_is_playable(start: Callable[..., Up], tmp_path: Path) -> None:
    """Its class and its YAML, copied into a folder, run; two tabs on the printed URL play it."""
    code, yaml = (re.search(rf"```{kind}\n(.*?)```", README, re.DOTALL) for kind in ("python", "yaml"))
    assert code
    assert yaml
    folder = tmp_path / "studio"
    folder.mkdir()
    (folder / "tag.py").write_text(code[1])
    up = start(yaml[1]).until_ready()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        pages = [browser.new_context().new_page() for _ in range(2)]
        errors: list[object] = []
        for page in pages:
            page.on("pageerror", lambda error: errors.append(error))
            page.goto(up.url)
        for page in pages:
            up.until(lambda page=page: re.search(r"tick \d\d", page.inner_text("#status")))
        assert not errors
        result = up.cli("bots", "--queue", "tag", "--players", "2", "--duration", "12", "--json")
        assert json.loads(result.stdout)["matches"] == 1, result.stderr
        browser.close()
