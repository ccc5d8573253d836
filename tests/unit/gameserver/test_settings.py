"""A game server's settings, and the game it is told to load."""

import sys
from pathlib import Path

import pytest

from gameserver.games.arena import Arena
from gameserver.process import load_game
from gameserver.settings import Settings, SettingsError

ENV = {"WARMFLEET_GAME": "a:B", "WARMFLEET_FLEET": "f", "POD_NAME": "f-1", "AGONES_SDK_GRPC_PORT": "9357"}


def test_defaults_and_lists() -> None:
    """What is not set has its default; lists are read without blanks; ports are given by transport."""
    settings = Settings.from_environment({**ENV, "WARMFLEET_SEAT_KEYS": "a, b,", "WARMFLEET_WEBSOCKET_PORT": "7001"})
    assert (settings.server, settings.tick_rate_hz, settings.transports) == ("f-1", 30, ("websocket",))
    assert settings.seat_keys == ("a", "b")
    assert settings.listen_ports == {"websocket": 7001}
    assert Settings.from_environment({**ENV, "POD_NAME": "", "HOSTNAME": "h"}).server == "h"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WARMFLEET_GAME", ""),
        ("WARMFLEET_FLEET", ""),
        ("WARMFLEET_TICK_RATE", "0"),
        ("WARMFLEET_TICK_RATE", "fast"),
        ("WARMFLEET_ROOMS", "-1"),
        ("WARMFLEET_SEATS", "1e9"),
        ("WARMFLEET_WEBSOCKET_PORT", "70000"),
        ("WARMFLEET_DRAIN_TIMEOUT_S", "nan"),
        ("WARMFLEET_CHECKPOINT_INTERVAL_S", "-1"),
        ("AGONES_SDK_GRPC_PORT", "x"),
        ("WARMFLEET_TLS_CERT", "tls.crt"),
        ("WARMFLEET_TLS_KEY", "tls.key"),
    ],
)
def test_a_bad_variable_is_named(name: str, value: str) -> None:
    """The error says which variable, and what is wanted."""
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment({**ENV, name: value})


def test_udp_wants_its_key_and_never_shows_it() -> None:
    """Without the key shared with the matchmaker a UDP server does not start; the key is in no repr."""
    with pytest.raises(SettingsError, match="WARMFLEET_NETCODE_KEY"):
        Settings.from_environment({**ENV, "WARMFLEET_TRANSPORTS": "udp"})
    key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    env = {**ENV, "WARMFLEET_TRANSPORTS": "udp", "WARMFLEET_NETCODE_KEY": key, "WARMFLEET_DSCP": "EF"}
    settings = Settings.from_environment(env)
    assert settings.dscp == 46
    assert str(bytes(range(32)))[2:20] not in repr(settings)
    with pytest.raises(SettingsError, match="WARMFLEET_DSCP"):
        Settings.from_environment({**env, "WARMFLEET_DSCP": "loud"})


def test_a_game_is_loaded() -> None:
    """By module:Class."""
    assert load_game("gameserver.games.arena:Arena") is Arena


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("x = 1", "has no Game"),
        ("Game = 1", "no subclass"),
        ("raise RuntimeError('no map')", "RuntimeError: no map"),
        ("import nowhere", "ModuleNotFoundError"),
        ("class Game(Base): pass", "lacks: input, join, leave"),
        (
            "class Game(Base):\n    join = leave = input = step = snapshot = save = restore = print",
            "schema must be a Schema",
        ),
    ],
)
def test_a_game_that_cannot_be_loaded_is_explained(
    body: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the game and what is wrong with it."""
    (tmp_path / "studio.py").write_text(
        f"from gameserver.game import Game as Base\n{body}\n".replace("Game as Base\nx", "Game as _\nx")
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "studio", raising=False)
    with pytest.raises(SettingsError, match="studio:Game") as error:
        load_game("studio:Game")
    assert told in str(error.value)
    sys.modules.pop("studio", None)


def test_a_name_without_a_class_is_explained() -> None:
    """module:Class is the form."""
    with pytest.raises(SettingsError, match="module:Class"):
        load_game("gameserver.games.arena")
    with pytest.raises(SettingsError, match=r"nowhere\.at\.all"):
        load_game("nowhere.at.all:Game")
