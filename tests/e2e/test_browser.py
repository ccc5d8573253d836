"""Two real browser tabs play a real match."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from up import EXAMPLE, Up, server_pid

QUICK = EXAMPLE.read_text().replace("drainTimeout: 30s", "drainTimeout: 1s")
"""The arena, without patience at its end."""
TOGETHER = QUICK.replace(
    "teams: [{name: red, players: 2}, {name: blue, players: 2}]", "teams: [{name: all, players: 2}]"
).replace("party: {max: 2, aggregate: mean}", "party: {max: 2, aggregate: mean}\n  acceptance: {timeout: 60s}")
HERD = EXAMPLE.with_name("herd.yaml").read_text().replace("drainTimeout: 30s", "drainTimeout: 1s")

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-renderer-backgrounding", "--disable-background-timer-throttling",
]  # fmt: skip

WENT_WRONG: list[str] = []
"""Errors of pages and what their consoles complain of: none is borne."""

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


@pytest.fixture
def browser() -> Iterator[Browser]:
    WENT_WRONG.clear()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield browser
        browser.close()
    assert WENT_WRONG == []


def open_page(browser: Browser, up: Up, name: str, more: str = "", *, play: bool = True) -> Page:
    page = browser.new_context(viewport={"width": 1000, "height": 700}).new_page()
    page.on("pageerror", lambda error: WENT_WRONG.append(f"page error: {error}"))
    page.on("console", lambda said: WENT_WRONG.append(said.text) if said.type in ("error", "warning") else None)
    page.goto(f"{up.url}/?{'play=1&' if play else ''}name={name}{more}")
    return page


def state(page: Page) -> dict[str, Any]:
    value: dict[str, Any] = page.evaluate("() => JSON.parse(JSON.stringify(window.warmfleetState))")
    return value


def until(page: Page, condition: str, timeout_s: float = 20) -> dict[str, Any]:
    try:
        page.wait_for_function(
            f"() => {{ const s = window.warmfleetState; return {condition}; }}", timeout=timeout_s * 1000
        )
    except Exception as error:
        raise AssertionError(f"{condition}: {state(page)}") from error
    return state(page)


def with_duration(seconds: int) -> str:
    return re.sub(r'duration_s: "120"', f'duration_s: "{seconds}"', QUICK)


def test_two_pages_are_matched_and_play(start: Callable[..., Up], browser: Browser) -> None:
    """
    Matched on a warm server, each sees the other move, the match ends with results, and the server is warm again; one of them is far away,
    by the page's own simulation.
    """
    up = start(with_duration(12)).until_ready()
    ann, bob = open_page(browser, up, "ann"), open_page(browser, up, "bob", "&loss=5&delay=80&seed=3")
    one = until(ann, "s.phase === 'playing' && s.others.length === 1 && s.snapshots > 5")
    two = until(bob, "s.phase === 'playing' && s.others.length === 1 && s.snapshots > 5")
    assert one["session"] == two["session"]
    assert one["server"] == two["server"]

    seen = two["others"][0]
    key = "d" if one["me"]["x"] < 13 else "a"
    ann.keyboard.down(key)
    until(bob, f"s.others.length === 1 && Math.abs(s.others[0].x - {seen['x']}) > 0.5")
    ann.keyboard.up(key)
    assert until(ann, "s.latency_ms > 0")["error"] in (None, "")
    assert until(bob, "s.latency_ms >= 150")["error"] in (None, "")

    until(ann, "s.phase === 'results' || s.phase === 'over'", 30)
    until(bob, "s.phase === 'results' || s.phase === 'over'", 30)
    # Whose news are late asks where the match is, and may be told that it is over: the browser notes the status, the page goes on.
    WENT_WRONG[:] = [line for line in WENT_WRONG if "410 (Gone)" not in line]

    def warm() -> bool:
        fleet = up.status()["fleets"][0]
        shelf = fleet["shelf"]
        return shelf["sessions"] == 0 and shelf["free"] >= shelf["wanted"] and fleet["ready"] >= 1

    up.until(warm)


def test_a_match_survives_its_server(start: Callable[..., Up], browser: Browser) -> None:
    """After kill -9 of the server both pages are back in the same match on another one, with their state."""
    up = start(QUICK).until_ready()
    ann, bob = open_page(browser, up, "ann"), open_page(browser, up, "bob")
    before = until(ann, "s.phase === 'playing' && s.tick > 60")
    until(bob, "s.phase === 'playing'")
    os.kill(server_pid(up, before["server"]), signal.SIGKILL)
    for page in (ann, bob):
        after = until(page, f"s.phase === 'playing' && s.epoch === 2 && s.tick > {before['tick']}")
        assert after["session"] == before["session"]
        assert after["server"] != before["server"]
    # Whoever dials the dead server before it knows of the new one is refused, and Chromium says so, whatever the page does.
    WENT_WRONG[:] = [line for line in WENT_WRONG if not ("WebSocket" in line and "ERR_CONNECTION_REFUSED" in line)]


def test_a_game_without_a_page_is_played_on_the_playground(start: Callable[..., Up], browser: Browser) -> None:
    """Two tabs herd the flock: each drives its own dog, sees the other's, and hears how it ended; one of them over a bad network."""
    yaml = HERD.replace("players: 3", "players: 2").replace('duration_s: "180"', 'duration_s: "20"')
    up = start(yaml).until_ready()
    ann = open_page(browser, up, "ann")
    bob = open_page(browser, up, "bob", "&loss=2&delay=40&jitter=20&dup=1&seed=7")
    for page in (ann, bob):
        now = until(page, "s.phase === 'playing' && s.snapshots > 10")
        assert now["rows"] == {"sheep": 120, "dogs": 2, "match": 1}
    place = "() => window.warmfleetClient.rows('dogs').get(window.warmfleetState.seat).x"
    before = ann.evaluate(place)
    ann.keyboard.down("a")
    ann.wait_for_function(f"() => ({place})() < {before} - 1", timeout=10_000)
    ann.keyboard.up("a")
    for page in (ann, bob):
        ended = until(page, "s.phase === 'over'", 30)
        assert ended["results"]["of"] == 120
        assert page.locator("#curtain").is_visible()
        assert "over" in page.locator("#what").inner_text()


def test_friends_gather_accept_and_play(start: Callable[..., Up], browser: Browser) -> None:
    up = start(TOGETHER).until_ready()
    ann = open_page(browser, up, "ann", play=False)
    ann.locator("#gather").click()
    party = until(ann, "s.party !== null")["party"]
    assert ann.locator("#code").inner_text() == party["code"]
    bob = open_page(browser, up, "bob", f"&party={party['code'].lower()}", play=False)
    for page in (ann, bob):
        until(page, "s.party !== null && s.party.members === 2")
    assert ann.locator("#ready").is_disabled(), "bob is not ready"
    bob.locator("#ready").click()
    ann.locator("#ready:not([disabled])").click(timeout=20_000)
    for page in (ann, bob):
        page.locator("#accept").click(timeout=20_000)
    one, two = (until(page, "s.phase === 'playing' && s.others.length === 1") for page in (ann, bob))
    assert one["session"] == two["session"]
    ann.locator("#leave").click()
    until(ann, "s.phase === 'idle'")
    assert ann.locator("#party").is_visible(), "the party stays together"
    ann.locator("#disband").click()
    until(bob, "s.party !== null && s.party.members === 1 && s.party.leader === s.player")


def test_a_wait_is_explained(start: Callable[..., Up], browser: Browser) -> None:
    up = start().until_ready()
    ann = open_page(browser, up, "ann")
    ann.wait_for_function(
        "() => document.getElementById('explanation').textContent.includes('A match takes 1 more; 0 are in the queue.')",
        timeout=20_000,
    )


def test_the_page_fetches_nothing_from_elsewhere(start: Callable[..., Up], browser: Browser, tmp_path: Path) -> None:
    """Every request of the page goes to this machine, under a policy that allows no other."""
    up = start().until_ready()
    page = browser.new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    reply = page.goto(up.url)
    assert reply is not None
    assert "default-src 'self'" in reply.headers["content-security-policy"]
    page.wait_for_load_state("networkidle")
    assert requests
    assert all(url.startswith(up.url) for url in requests)
