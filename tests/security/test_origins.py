"""A page of somebody else, in a player's or an operator's browser, reads nothing and does nothing here."""

import re
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
from wired_apps import applications, routes

from gameserver.sessions.client import StoreClient

EVIL = "https://evil.example"


async def test_no_application_shares_with_other_origins(valkey: StoreClient, valkey_url: str, tmp_path: Path) -> None:
    """No route lets a page of another origin read its answer, or send a header or a method that wants permission; nor is a cookie set or taken."""
    shared = []
    async with AsyncExitStack() as stack:
        for name, app in (await applications(valkey, valkey_url, tmp_path, stack)).items():
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
                for method, path in routes(app):
                    if method in ("WS", "MOUNT"):
                        continue
                    where = re.sub(r"\{[^}]*\}", "x", path)
                    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization"}
                    for reply in (
                        await http.options(where, headers={"Origin": EVIL, **asked}),
                        await http.request(method, where, headers={"Origin": EVIL, "Cookie": "session=a"}),
                    ):
                        if "access-control-allow-origin" in reply.headers or "set-cookie" in reply.headers:
                            shared.append(f"{name}: {method} {path}: {dict(reply.headers)}")
    assert not shared, "\n".join(shared)
