"""Make docs/arena.png: a real match in a real browser. Run by `make picture`."""

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from up import EXAMPLE, Up


def main() -> None:
    """Start everything with bots, play for a while, take the picture."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack, sync_playwright() as playwright:
        yaml = EXAMPLE.read_text().replace("players: 1", "players: 2", 2)
        up = stack.enter_context(Up(Path(folder), yaml, "--bots", "3")).until_ready()
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 720}, color_scheme="dark")
        page.goto(f"{up.url}/?play=1&name=you")
        up.until(lambda: page.evaluate("window.warmfleetState?.tick ?? 0") > 240)
        page.screenshot(path=str(Path(__file__).with_name("arena.png")))
        browser.close()


main()
