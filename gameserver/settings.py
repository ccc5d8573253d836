"""
A game server's settings: read from the environment once, at the start.

Plain standard library: a game server's cold start is on a player's path, and a settings library costs a tenth of a second of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gameserver.sessions.model import FleetName, ServerName


class SettingsError(Exception):
    """An environment variable is missing or wrong; the message names it and the mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `python -m gameserver` is told."""

    game: str
    """`module:Class`."""
    fleet: FleetName
    server: ServerName
    """Its GameServer's name (POD_NAME, else HOSTNAME)."""
    agones_grpc_port: int
    tick_rate_hz: int = 30
    rooms: int = 1
    seats: int = 16
    transports: tuple[str, ...] = ("websocket",)
    valkey_url: str = field(default="", repr=False)
    """Empty: sessions are taken from the seat token alone, and nothing is checkpointed."""
    valkey_replicas: int = 0
    """Of Valkey that must have a session's move before it is played here (docs/decisions/0151)."""
    seat_keys: tuple[str, ...] = ()
    netcode_key: bytes = field(default=b"", repr=False)
    """32 bytes shared with the matchmaker, which makes connect tokens with it; wanted for the udp transport."""
    netcode_other_keys: tuple[bytes, ...] = field(default=(), repr=False)
    """Connect tokens of these are accepted too, while keys are rotated."""
    dscp: int = 0
    """Marks what the udp transport sends, 0 to 63."""
    bind_host: str = "127.0.0.1"
    """`::` for all addresses of both families."""
    pod_ip: str = ""
    """Its pod's own address, where players may be told that one."""
    drain_timeout_s: float = 30.0
    on_drain: str = "finish"
    """`finish`: matches are played to their end within the drain timeout. `migrate`: they are handed over live."""
    checkpoint_interval_s: float = 1.0
    allowed_origins: tuple[str, ...] = ()
    tls_certificate: str = ""
    """PEM file of a certificate with its chain, read again when it changes: the websocket transport speaks TLS. Empty: it does not."""
    tls_key: str = ""
    """PEM file of its key."""
    metrics_host: str = "127.0.0.1"
    slow_tick_ms: int = 0
    """Ticks that take longer are caught in the act, with their stack and inputs in the log; 0: none."""
    metrics_port: int = 0
    """Where `/metrics` is served; 0: nowhere."""
    listen_ports: Mapping[str, int]
    """Transport to port; one that is missing listens on the GameServer's port of that name."""

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> "Settings":
        """Read the WARMFLEET_ variables, POD_NAME and AGONES_SDK_GRPC_PORT. Raises SettingsError."""
        read = _Reader(env)
        transports = read.list("WARMFLEET_TRANSPORTS") or ("websocket",)
        netcode = _netcode_keys(read) if "udp" in transports else (b"",)
        ports = {name: f"WARMFLEET_{name.upper()}_PORT" for name in transports}
        return cls(
            game=read.text("WARMFLEET_GAME"),
            fleet=FleetName(read.text("WARMFLEET_FLEET")),
            server=ServerName(env.get("POD_NAME") or read.text("HOSTNAME")),
            agones_grpc_port=read.integer("AGONES_SDK_GRPC_PORT", 9357, 1, 65535),
            tick_rate_hz=read.integer("WARMFLEET_TICK_RATE", 30, 1, 240),
            rooms=read.integer("WARMFLEET_ROOMS", 1, 1, 1000),
            seats=read.integer("WARMFLEET_SEATS", 16, 1, 10_000),
            transports=transports,
            valkey_url=env.get("WARMFLEET_VALKEY_URL", ""),
            valkey_replicas=read.integer("WARMFLEET_VALKEY_REPLICAS", 0, 0, 9),
            seat_keys=read.list("WARMFLEET_SEAT_KEYS"),
            netcode_key=netcode[0],
            netcode_other_keys=netcode[1:],
            dscp=_dscp(env.get("WARMFLEET_DSCP", "DF")) if "udp" in transports else 0,
            bind_host=env.get("WARMFLEET_BIND_HOST", "127.0.0.1"),
            pod_ip=env.get("WARMFLEET_POD_IP", ""),
            drain_timeout_s=read.number("WARMFLEET_DRAIN_TIMEOUT_S", 30.0),
            on_drain=read.choice("WARMFLEET_ON_DRAIN", ("finish", "migrate")),
            checkpoint_interval_s=read.number("WARMFLEET_CHECKPOINT_INTERVAL_S", 1.0),
            allowed_origins=read.list("WARMFLEET_ALLOWED_ORIGINS"),
            tls_certificate=env.get("WARMFLEET_TLS_CERT", ""),
            tls_key=_tls_key(env),
            metrics_host=env.get("WARMFLEET_METRICS_HOST", "127.0.0.1"),
            slow_tick_ms=read.integer("WARMFLEET_SLOW_TICK_MS", 0, 0, 60_000),
            metrics_port=read.integer("WARMFLEET_METRICS_PORT", 0, 0, 65535),
            listen_ports={name: read.integer(key, 0, 1, 65535) for name, key in ports.items() if env.get(key)},
        )


def _tls_key(env: Mapping[str, str]) -> str:
    key = env.get("WARMFLEET_TLS_KEY", "")
    if bool(key) != bool(env.get("WARMFLEET_TLS_CERT")):
        raise SettingsError("WARMFLEET_TLS_CERT and WARMFLEET_TLS_KEY belong together: name both files, or neither")
    return key


def _netcode_keys(read: "_Reader") -> tuple[bytes, ...]:
    from gameserver.protocol.netcode.tokens import parse_private_keys

    try:
        return parse_private_keys(read.text("WARMFLEET_NETCODE_KEY"))
    except ValueError as error:
        raise SettingsError(f"WARMFLEET_NETCODE_KEY: {error}") from None


def _dscp(name: str) -> int:
    from gameserver.transports.udp import parse_dscp

    try:
        return parse_dscp(name)
    except ValueError as error:
        raise SettingsError(f"WARMFLEET_DSCP: {error}") from None


class _Reader:
    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def text(self, name: str) -> str:
        if not (value := self._env.get(name, "")):
            raise SettingsError(
                f"{name} is not set: a game server is started by `warmfleet up` or by its pod's template"
            )
        return value

    def list(self, name: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in self._env.get(name, "").split(",") if part.strip())

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        text = self._env.get(name, "") or str(default)
        if not text.isdecimal() or not low <= int(text) <= high:
            raise SettingsError(f"{name}={text}: an integer from {low} to {high} is wanted")
        return int(text)

    def choice(self, name: str, known: tuple[str, ...]) -> str:
        """One of `known`; the first when it is not set."""
        text = self._env.get(name, "") or known[0]
        if text not in known:
            raise SettingsError(f"{name}={text}: {' or '.join(known)} is wanted")
        return text

    def number(self, name: str, default: float) -> float:
        text = self._env.get(name, "") or str(default)
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0.0 <= value < float("inf"):
            raise SettingsError(f"{name}={text}: a number of seconds, 0 or more, is wanted")
        return value
