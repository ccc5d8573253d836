"""Secrets do not get into logs, errors or what is told of a server's start."""

import json
from io import StringIO
from typing import Any

import jwt
import pytest
import structlog

from fleets.serve.settings import ServeSettings, SettingsError
from gameserver.settings import Settings
from gameserver.settings import SettingsError as GameSettingsError
from gameserver.telemetry import REDACTED, configure_logging, redact, redact_text

SECRET = "hunter2-and-more"
JWT = jwt.encode({"sub": "ann"}, "x" * 32, algorithm="HS256")


@pytest.mark.parametrize(
    "text",
    [
        f"Error connecting to redis://app:{SECRET}@store:6379/0",
        f"redis+sentinel://:{SECRET}@a:1,b:2/0?service=main",
        f"Authorization: Bearer {SECRET}",
        f"token {JWT} is not valid",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text: str) -> None:
    """Wherever it stands; the rest stays."""
    cleaned = redact_text(f"before {text} after")
    assert SECRET not in cleaned
    assert JWT not in cleaned
    assert REDACTED in cleaned
    assert cleaned.startswith("before ")
    assert cleaned.endswith(" after")


@pytest.mark.parametrize("field", ["token", "seat_token", "password", "operator_token", "signing_key", "Authorization"])
def test_fields_of_secrets_are_taken_out(field: str) -> None:
    """By their names, at any depth."""
    event = redact(None, "info", {"event": "a", "inner": {field: SECRET}, field: SECRET, "list": [{field: SECRET}]})
    assert SECRET not in json.dumps(event)
    assert event["event"] == "a"


def test_ordinary_fields_stay() -> None:
    """What an operator needs is left alone."""
    event: dict[str, Any] = {
        "event": "seat_refused", "reason": "signed with an unknown key", "session": "arena.m1", "tokens_left": 3,
        "key": "value", "url": "http://host:80/a@b", "n": 1, "error": None,
    }  # fmt: skip
    assert redact(None, "info", dict(event)) == event


def test_logs_of_a_program_are_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also tracebacks."""
    written = StringIO()
    monkeypatch.setattr("sys.stderr", written)
    configure_logging(json=True)
    try:
        log = structlog.get_logger("test")
        try:
            raise ConnectionError(f"redis://:{SECRET}@store:6379 is away")
        except ConnectionError:
            log.exception("store_away", password=SECRET)
    finally:
        structlog.reset_defaults()
    assert "store_away" in written.getvalue()
    assert "redis://" in written.getvalue()
    assert SECRET not in written.getvalue()


@pytest.mark.parametrize(
    "env",
    [
        {"WARMFLEET_VALKEY_URL": f"http://{SECRET}@store"},
        {"WARMFLEET_PLAYER_KEYS": "short-" + SECRET[:8]},
        {"WARMFLEET_SEAT_SIGNING_KEY": SECRET},
        {"WARMFLEET_NETCODE_KEY": SECRET},
        {"WARMFLEET_API_KEYS": f"a:wrong:{SECRET}"},
    ],
)
def test_settings_repeat_no_secret(env: dict[str, str]) -> None:
    """Errors about a secret name the variable, and settings that are printed show none."""
    (secret,) = env.values()
    told = []
    for read in ("url", "seat_key", "keys", "__repr__"):
        try:
            told.append(getattr(ServeSettings.read(env), read)() if read == "__repr__" else "")
            getattr(ServeSettings.read(env), read)()
        except SettingsError as error:
            told.append(str(error))
    assert any(told)
    assert not any(secret in text or SECRET in text for text in told)


def test_a_game_servers_settings_repeat_none() -> None:
    """Nor do a game server's."""
    env = {
        "WARMFLEET_GAME": "a:B", "WARMFLEET_FLEET": "a", "HOSTNAME": "a-1", "WARMFLEET_TRANSPORTS": "udp",
        "WARMFLEET_NETCODE_KEY": SECRET,
    }  # fmt: skip
    with pytest.raises(GameSettingsError) as failed:
        Settings.from_environment(env)
    assert SECRET not in str(failed.value)
    env["WARMFLEET_NETCODE_KEY"] = "A" * 43
    env["WARMFLEET_VALKEY_URL"] = f"redis://:{SECRET}@store"
    assert SECRET not in repr(Settings.from_environment(env))
