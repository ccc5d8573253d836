"""A part's settings: read from variables, flags and files, and held against each other."""

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from allocator.backends.endpoints import Endpoint
from fleets.serve.settings import BackendName, ServeSettings, SettingsError
from fleets.spec.loader import Specs

AGONES = {"WARMFLEET_BACKEND": "agones", "WARMFLEET_ALLOCATION_ENDPOINTS": "a:443"}


def test_flags_come_before_variables_and_secrets_from_files(tmp_path: Path) -> None:
    """What a flag says counts; a secret's file is read without its line end."""
    (tmp_path / "url").write_text("redis://:pw@valkey:6379/0\n")
    env = {"WARMFLEET_PORT": "9000", "WARMFLEET_HOST": "::1", "WARMFLEET_VALKEY_URL_FILE": str(tmp_path / "url")}
    settings = ServeSettings.read(env, port=9001, host=None)
    assert (settings.port, settings.host, settings.url()) == (9001, "::1", "redis://:pw@valkey:6379/0")
    assert "pw" not in repr(settings)


def test_endpoints_have_regions() -> None:
    """host:port, or host:port@region."""
    env = {**AGONES, "WARMFLEET_ALLOCATION_ENDPOINTS": "a:443@eu-1a, b:443"}
    settings = ServeSettings.read(env)
    assert settings.backend is BackendName.AGONES
    assert settings.allocation_endpoints == (Endpoint(address="a:443", region="eu-1a"), Endpoint(address="b:443"))


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"WARMFLEET_PORT": "x"}, "WARMFLEET_PORT: "),
        ({"WARMFLEET_PORT": "70000"}, "WARMFLEET_PORT: "),
        ({"WARMFLEET_BACKEND": "docker"}, "WARMFLEET_BACKEND: "),
        ({"WARMFLEET_BACKEND": "agones"}, "WARMFLEET_ALLOCATION_ENDPOINTS: is wanted"),
        ({**AGONES, "WARMFLEET_ALLOCATION_ENDPOINTS": "a"}, "'a': host:port or host:port@region"),
        ({**AGONES, "WARMFLEET_ALLOCATION_KEY": "k"}, "_CERTIFICATE and WARMFLEET_ALLOCATION_KEY belong together"),
        (
            {**AGONES, "WARMFLEET_ALLOCATION_PLAINTEXT": "1", "WARMFLEET_ALLOCATION_CA": "c"},
            "WARMFLEET_ALLOCATION_PLAINTEXT: goes without certificates",
        ),
        ({"WARMFLEET_ALLOCATION_CA": "c"}, "WARMFLEET_ALLOCATION_CA: is for WARMFLEET_BACKEND=agones alone"),
        ({"WARMFLEET_CLUSTERS": "eu-west"}, "WARMFLEET_CLUSTERS: 'eu-west': region=context is wanted"),
        ({"WARMFLEET_CLUSTERS": "eu=a,eu=b"}, "each region once"),
        ({"WARMFLEET_PLAYER_KEYS": "short"}, "WARMFLEET_PLAYER_KEYS: has fewer than 32 bytes"),
        ({"WARMFLEET_VALKEY_URL_FILE": "/nowhere"}, "WARMFLEET_VALKEY_URL_FILE: /nowhere cannot be read"),
        ({"WARMFLEET_VALKEY_URL_FILE": "/x", "WARMFLEET_VALKEY_URL": "redis://a"}, "are both set: leave one out"),
    ],
)
def test_what_is_wrong_is_named_with_the_mend(env: dict[str, str], says: str) -> None:
    """One line, with the variable."""
    with pytest.raises(SettingsError, match=says.replace("(", r"\(")):
        ServeSettings.read(env)


def test_what_a_part_lacks_is_named() -> None:
    """Asked for when it is needed, without the values of secrets."""
    empty = ServeSettings.read({})
    for ask, variable in (
        (empty.url, "WARMFLEET_VALKEY_URL"),
        (empty.seat_key, "WARMFLEET_SEAT_SIGNING_KEY"),
        (empty.players, "WARMFLEET_PLAYER_KEYS or WARMFLEET_PLAYER_JWKS"),
    ):
        with pytest.raises(SettingsError, match=variable):
            ask()
    wrong = ServeSettings.read(
        {
            "WARMFLEET_VALKEY_URL": "mysecret",
            "WARMFLEET_SEAT_SIGNING_KEY": "mysecret",
            "WARMFLEET_API_KEYS": "name:mysecret",
            "WARMFLEET_NETCODE_KEY": "mysecret",
        }
    )
    for ask in (wrong.url, wrong.seat_key, wrong.keys, lambda: wrong.udp_key(Specs(fleets=(), queues=()))):
        with pytest.raises(SettingsError) as refused:
            ask()
        assert "mysecret" not in str(refused.value)


def test_a_seat_key_is_pem_or_its_bytes() -> None:
    """The same key in both forms."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    raw = key.private_bytes_raw()
    for text in (pem, base64.urlsafe_b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode().rstrip("=")):
        assert ServeSettings.read({"WARMFLEET_SEAT_SIGNING_KEY": text}).seat_key() == raw
