"""The console in a real browser, over a real system."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from playwright.sync_api import Browser, Page, sync_playwright
from up import EXAMPLE, Up

from gameserver.sessions.model import SessionId
from gameserver.sessions.valkey import session_key

Start = Callable[..., Up]
ARENA = EXAMPLE.read_text().replace("drainTimeout: 30s", "drainTimeout: 1s").replace("buffer: 1", "buffer: auto")
WENT_WRONG: list[str] = []
pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


@pytest.fixture
def browser() -> Iterator[Browser]:
    WENT_WRONG.clear()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu", "--no-first-run"]
        )
        yield browser
        browser.close()
    assert WENT_WRONG == []


def open_console(browser: Browser, up: Up, *options: str, scheme: Any = "dark") -> Page:
    page = browser.new_context(viewport={"width": 1280, "height": 760}, color_scheme=scheme).new_page()
    page.on("pageerror", lambda error: WENT_WRONG.append(str(error)))
    page.on("console", lambda said: WENT_WRONG.append(said.text) if said.type in ("error", "warning") else None)
    page.goto(up.cli("console", *options).stdout.strip())
    page.wait_for_function("() => globalThis.warmfleetFeed?.role && document.querySelector('tbody tr')")
    return page


@pytest.fixture
def playing(start: Start) -> Iterator[Up]:
    up = start(ARENA).until_ready()
    command = [*up.process.args[:3], "bots", "--players", "2", "--duration", "60"]  # type: ignore[index]
    with subprocess.Popen(command, cwd=up.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as bots:
        yield up
        bots.kill()


def test_an_operator_sees_and_acts(playing: Up, browser: Browser, tmp_path: Path) -> None:
    """By keyboard: fleets, servers, a ticket's timeline; a queue is paused, a shelf set, a player kicked; each shows among the events."""
    up = playing
    page = open_console(browser, up)
    assert "token" not in page.url
    page.wait_for_function("() => Object.keys(globalThis.warmfleetFeed.state.sessions).length > 0")
    page.keyboard.press("2")
    page.wait_for_function(
        "() => [...document.querySelectorAll('tbody tr')].some((row) => row.innerText.includes('Allocated'))"
    )
    page.screenshot(path=tmp_path / "servers.png")

    page.keyboard.press("5")
    page.locator("button.link").first.click()
    page.wait_for_selector("ol.timeline li")
    steps = [text.split()[0].lower() for text in page.locator("ol.timeline li").all_inner_texts()]
    assert (steps[0], steps[-1]) == ("queued", "assigned")
    page.keyboard.press("Escape")

    page.keyboard.press("3")
    page.get_by_role("button", name="Pause… duel").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Do it").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => globalThis.warmfleetFeed.state.queues.duel.closed === 'paused'")
    player, token = up.player("ann")
    refused = up.post("/v1/tickets", {"queue": "duel", "players": [{"id": player, "attributes": {"rating": 1}}]}, token)
    assert refused.status_code == 503
    page.get_by_role("button", name="Open duel").click()
    page.wait_for_function("() => globalThis.warmfleetFeed.state.queues.duel.closed === ''")
    up.ticket(player, token, rating=9000)
    page.wait_for_function("() => globalThis.warmfleetFeed.state.queues.duel.why", timeout=15_000)
    assert page.locator("tr[data-id=duel]").inner_text().count("1") >= 1

    page.keyboard.press("1")
    page.get_by_role("button", name="Set shelf… arena").click()
    page.get_by_label("Rooms to keep").fill("6")
    page.get_by_role("button", name="Set", exact=True).click()
    page.wait_for_function("() => globalThis.warmfleetFeed.state.fleets.arena.wanted === 6")

    page.keyboard.press("4")
    session = page.locator("tbody tr").first.get_attribute("data-id")
    seated = page.evaluate("() => fetch('/v1/fleets').then((reply) => reply.status)")
    assert seated == 401  # without its token the page may do nothing
    WENT_WRONG.clear()
    page.get_by_role("button", name=f"Kick… {session}").click()
    page.get_by_label("Player", exact=True).fill("nobody")
    page.get_by_role("button", name="Kick", exact=True).click()
    page.wait_for_selector("dialog .failed")
    WENT_WRONG.clear()  # the 404 that was meant
    page.keyboard.press("Escape")
    tickets = page.evaluate("() => Object.keys(globalThis.warmfleetFeed.state.tickets)")
    operator = json.loads((up.folder / ".warmfleet/up.json").read_text())["operator_token"]
    bots = [
        p["id"]
        for t in tickets
        for p in up.get(f"/v1/tickets/{t}", operator).json()["players"]
        if p["id"].startswith("bot")
    ]
    page.get_by_role("button", name=f"Kick… {session}").click()
    page.get_by_label("Player", exact=True).fill(bots[0])
    page.get_by_label("Reason").fill("as a test")
    page.get_by_role("button", name="Kick", exact=True).click()
    page.wait_for_function("() => globalThis.warmfleetFeed.events.some((event) => event.kind === 'kick')")
    with redis.Redis.from_url(json.loads((up.folder / ".warmfleet/up.json").read_text())["valkey_url"]) as store:
        assert json.loads(store.hget(session_key(SessionId(session)), "kicked")) == {bots[0]: "as a test"}  # type: ignore[arg-type]

    page.keyboard.press("6")
    kinds = set(page.locator("tbody tr td:nth-child(2)").all_inner_texts())
    assert {"queue", "shelf", "kick"} <= kinds
    page.screenshot(path=tmp_path / "events.png")


def test_a_viewer_sees_and_may_not_act(playing: Up, browser: Browser) -> None:
    """Light colours, buttons that are off, and a server that refuses; nobody without a token sees anything."""
    up = playing
    page = open_console(browser, up, "--view", scheme="light")
    assert "view only" in page.locator("#link").inner_text()
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(243, 241, 236)"
    page.keyboard.press("3")
    button = page.get_by_role("button", name="Pause… duel")
    button.wait_for()
    page.wait_for_function("() => document.querySelector('[data-acts]').disabled")
    token = json.loads((up.folder / ".warmfleet/up.json").read_text())["viewer_token"]
    headers = {"Authorization": f"Bearer {token}"}
    closed = httpx.put(f"{up.url}/v1/console/queues/duel", json={"closed": "paused"}, headers=headers, trust_env=False)
    assert closed.status_code == 403
    assert up.get("/v1/console/stream").status_code == 401
    assert up.get("/v1/console/tickets/x").status_code == 401
    assert up.get("/v1/tickets/duel.x", token).status_code == 401
    page.keyboard.press("/")
    page.keyboard.type("teams")
    page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 1")


def test_who_has_no_token_is_asked_for_one(playing: Up, browser: Browser, tmp_path: Path) -> None:
    """On a narrow screen, by keyboard: nothing shows before, a wrong token is told so; with a right one rows are cards with titles, and nothing is cut off."""
    up = playing
    token = json.loads((up.folder / ".warmfleet/up.json").read_text())["viewer_token"]
    page = browser.new_context(viewport={"width": 400, "height": 800}, color_scheme="light").new_page()
    page.on("pageerror", lambda error: WENT_WRONG.append(str(error)))
    page.goto(f"{up.url}/console/")
    page.wait_for_selector("form.sign-in")
    assert not page.locator("#tabs").is_visible()
    assert not page.locator("#charts").is_visible()
    page.keyboard.type("nobodys")
    page.keyboard.press("Enter")
    page.wait_for_selector("form.sign-in .failed")
    assert "not known here" in page.locator("form.sign-in .failed").inner_text()
    page.keyboard.type(token)
    page.keyboard.press("Enter")
    page.wait_for_function("() => globalThis.warmfleetFeed.role === 'viewer' && document.querySelector('tbody tr')")
    row = page.locator("tr[data-id=arena]")
    assert "servers" in row.evaluate("row => [...row.cells].map((cell) => cell.dataset.title)")
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(
        "() => document.querySelector('main').scrollWidth <= document.querySelector('main').clientWidth"
    )
    page.screenshot(path=tmp_path / "narrow.png")
    page.keyboard.press("/")
    page.keyboard.type("no such fleet")
    page.wait_for_selector(".empty")
    assert "no such fleet" in page.locator(".empty").inner_text()
    page.keyboard.press("Escape")
    row.wait_for()
    page.reload()
    page.wait_for_function("() => globalThis.warmfleetFeed?.role === 'viewer'")


def test_top_shows_the_same(playing: Up) -> None:
    """As a picture and as JSON, without a terminal."""
    up = playing
    up.until(lambda: up.status()["fleets"][0]["shelf"]["sessions"])
    shown = up.cli("top")
    assert shown.returncode == 0, shown.stderr
    for word in ("arena", "Allocated", "duel", "Tickets waiting"):
        assert word in shown.stdout
    state = json.loads(up.cli("top", "--json").stdout)["state"]
    assert set(state) == {"fleets", "servers", "queues", "sessions", "tickets"}
