"""
The settings of a part: WARMFLEET_ variables, read once and checked against each other and against what the part needs.

A secret may come as `NAME_FILE`, the path of a file that holds it. Messages name variables, never values of secrets.
"""

import base64
import binascii
import hashlib
import json
import re
import ssl
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from allocator.backends.endpoints import Endpoint
from allocator.backends.settings import ClusterSettings
from fleets.console.access import Access
from fleets.spec.loader import Specs
from gameserver.certificates import CertificateFiles
from gameserver.protocol.netcode.tokens import parse_private_keys
from matchmaker.api.auth import ApiKeys, Jwks, PlayerTokens, Role, SignedTokens
from matchmaker.beacons.regions import Region, RegionsError, read_regions
from matchmaker.beacons.tokens import LatencySigner
from matchmaker.events.kafka import Kafka, KafkaUnavailable
from matchmaker.events.webhook import Webhook

_PREFIX = "WARMFLEET_"
_SECRETS = (
    "events_webhook_secret",
    "beacon_key",
    "valkey_url",
    "seat_signing_key",
    "player_keys",
    "netcode_key",
    "operator_token",
    "viewer_token",
    "api_keys",
)
_MIN_PLAYER_SECRET = 32
_MIN_TOKEN = 16
CERTIFICATE_CHECK_S = 10.0
"""How often certificate files are looked at."""


class PartName(StrEnum):
    """What can be served alone."""

    MATCHMAKER = "matchmaker"
    """The players' REST API: tickets, sessions, queues."""
    DIRECTOR = "director"
    """Makes matches of tickets; several share the queues."""
    ALLOCATOR = "allocator"
    """Keeps the shelves: fills them, moves matches off lost servers; several share the fleets."""
    EVENTS = "events"
    """Keeps lifecycle events, and sends them to webhooks and Kafka; several share the streams."""
    BEACON = "beacon"
    """Measures players' round trips to its region, and signs them; needs no store."""
    AUTOSCALER = "autoscaler"
    """Answers Agones' FleetAutoscaler webhook: how many servers each fleet should have."""
    CONSOLE = "console"
    """The operators' page: what the whole system does this second, and what may be done to it."""


class BackendName(StrEnum):
    """Where servers come from."""

    KUBERNETES = "kubernetes"
    """Everything by the API server (GameServerAllocation)."""
    AGONES = "agones"
    """Allocation by Agones' gRPC service, the rest by the API server."""
    NONE = "none"
    """The part asks no cluster."""


class SettingsError(Exception):
    """Settings are missing, wrong, or contradict each other; one a line, with the variable and the mend."""


class ServeSettings(BaseSettings):
    """Everything a part may be told. Field `valkey_url` is the variable WARMFLEET_VALKEY_URL, and so on."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="ignore", frozen=True, env_ignore_empty=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    drain_s: Annotated[float, Field(ge=0, le=600)] = 10.0
    """How long open requests may take once the part is told to stop."""

    tls_certificate: Path | None = None
    tls_key: Path | None = None

    valkey_url: SecretStr | None = None
    valkey_replicas: Annotated[int, Field(ge=0, le=9)] = 0
    """Of Valkey that must have a claim or a new ticket before it counts; 0: the primary alone (docs/decisions/0034)."""

    backend: BackendName | None = None
    namespace: str = ""
    kubeconfig: Path | None = None
    kube_context: str = ""
    address_type: str = ""
    clusters: Annotated[Mapping[str, str], NoDecode] = {}
    """Region to the kubeconfig's context of the cluster that its fleets are in; other fleets are in `kube_context`'s."""

    allocation_endpoints: Annotated[tuple[Endpoint, ...], NoDecode] = ()
    allocation_region: str = ""
    allocation_certificate: Path | None = None
    allocation_key: Path | None = None
    allocation_ca: Path | None = None
    allocation_server_name: str = ""
    allocation_plaintext: bool = False
    allocation_timeout_s: Annotated[float, Field(gt=0, le=60)] = 10.0

    service_tokens: Path | None = None
    """Who may ask the allocator: a file of tokens (`allocator.api.tokens`)."""
    service_grpc: str = ""
    """host:port of Agones' allocation service, as the allocator answers it."""
    service_rest: str = ""
    """host:port of the allocator's REST API over TLS; without TLS it is on the part's own port."""
    service_certificate: Path | None = None
    service_key: Path | None = None
    service_client_ca: Path | None = None

    seat_signing_key: SecretStr | None = None
    player_keys: SecretStr | None = None
    player_jwks: str = ""
    player_audience: str = ""
    player_issuer: str = ""
    netcode_key: SecretStr | None = None
    operator_token: SecretStr | None = None
    api_keys: SecretStr | None = None
    events_keep_s: Annotated[float, Field(ge=60, le=30 * 86_400)] = 86_400.0
    """For how long lifecycle events are kept in their streams."""
    events_webhook: str = ""
    """URL that gets them in batches."""
    events_webhook_secret: SecretStr | None = None
    """What they are signed with: 16 bytes at least."""
    events_kafka: str = ""
    """Brokers, host:port and commas between."""
    events_kafka_topic: str = "warmfleet-events"
    events_kafka_config: Path | None = None
    """More of librdkafka's properties, as JSON: security.protocol, sasl.…"""
    viewer_token: SecretStr | None = None
    """Lets one look at the console, and not act."""
    console_jwks: str = ""
    """URL of the keys that sign operators' own tokens."""
    console_audience: str = ""
    console_issuer: str = ""
    matchmaker_url: str = ""
    """Where the console asks about tickets and closes queues."""
    matchmaker_ca: Path | None = None
    prometheus_url: str = ""
    """Where the console asks how late servers' ticks are; empty: it does not know."""
    regions: Path | None = None
    """The regions' beacons that the matchmaker believes: a YAML list of {region, udp, http, key}."""
    beacon_region: str = ""
    beacon_key: SecretStr | None = None
    """The beacon's own Ed25519 key; it logs the public half."""
    beacon_udp: str = "127.0.0.1:7770"
    """host:port of its datagrams."""
    beacon_per_address_s: Annotated[float, Field(gt=0)] = 20.0
    """Requests a second of one address; four times as many at once."""
    scale_interval_s: Annotated[float, Field(gt=0, le=600)] = 2.0
    """Of the FleetAutoscalers: `sync.fixedInterval.seconds`."""
    start_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """What a server takes to get Ready, until it was measured."""
    requests_per_s: Annotated[float, Field(gt=0)] = 10.0
    key_requests_per_s: Annotated[float, Field(gt=0)] = 2000.0

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What `read` hands over, and nothing else."""
        return (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def _split(cls, values: dict[str, Any]) -> dict[str, Any]:
        if isinstance(text := values.get("allocation_endpoints"), str):
            values = {**values, "allocation_endpoints": _endpoints(text)}
        if isinstance(text := values.get("clusters"), str):
            values = {**values, "clusters": _clusters(text)}
        return values

    @model_validator(mode="after")
    def _whole(self) -> "ServeSettings":
        _check_backend(self)
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("WARMFLEET_TLS_CERTIFICATE and WARMFLEET_TLS_KEY: both or neither are wanted")
        if self.player_keys is not None and len(self.player_keys.get_secret_value().encode()) < _MIN_PLAYER_SECRET:
            raise ValueError(f"WARMFLEET_PLAYER_KEYS: has fewer than {_MIN_PLAYER_SECRET} bytes: it can be guessed")
        return self

    @classmethod
    def read(cls, env: Mapping[str, str], **flags: Any) -> "ServeSettings":
        """From the environment; `flags` that are not None come first. Raises SettingsError."""
        values: dict[str, Any] = {}
        for name in cls.model_fields:
            if text := env.get(_PREFIX + name.upper(), ""):
                values[name] = text
        for name in _SECRETS:
            variable = f"{_PREFIX}{name.upper()}_FILE"
            if path := env.get(variable, ""):
                if name in values:
                    raise SettingsError(f"{variable} and {variable.removesuffix('_FILE')} are both set: leave one out")
                values[name] = _file(variable, Path(path))
        values |= {name: value for name, value in flags.items() if value is not None}
        try:
            return cls(**values)
        except ValidationError as error:
            raise SettingsError("\n".join(_line(problem) for problem in error.errors(include_input=False))) from None

    def url(self) -> str:
        """Valkey's. Raises SettingsError."""
        form = "redis://[user:password@]host:6379/0, rediss:// for TLS, redis+sentinel://host:26379,…/0?service=NAME or redis+cluster://host:6379,…"
        url = _wanted("valkey_url", self.valkey_url, form)
        if not re.match(r"unix://|rediss?(\+sentinel|\+cluster)?://", url):
            raise SettingsError(f"WARMFLEET_VALKEY_URL: is no URL of a Valkey or Redis: {form} is wanted")
        return url

    def seat_key(self) -> bytes:
        """The 32 bytes of the key that signs seat tokens. Raises SettingsError."""
        return _ed25519("seat_signing_key", self.seat_signing_key)

    def webhook(self) -> Webhook | None:
        """Where events are posted; None: nowhere. Raises SettingsError."""
        if not self.events_webhook:
            return None
        if not self.events_webhook.startswith(("https://", "http://")):
            raise SettingsError("WARMFLEET_EVENTS_WEBHOOK: a URL is wanted, as https://example.com/events")
        secret = _wanted("events_webhook_secret", self.events_webhook_secret, "what events are signed with")
        try:
            return Webhook(self.events_webhook, secret.encode())
        except ValueError as error:
            raise SettingsError(f"WARMFLEET_EVENTS_WEBHOOK_SECRET: {error}") from None

    def kafka(self) -> Kafka | None:
        """Where events are produced; None: nowhere. Raises SettingsError."""
        if not self.events_kafka:
            return None
        try:
            more = json.loads(self.events_kafka_config.read_text()) if self.events_kafka_config is not None else {}
            if not isinstance(more, dict):
                raise ValueError("a JSON object is wanted")
            return Kafka(self.events_kafka_topic, {**more, "bootstrap.servers": self.events_kafka})
        except (OSError, ValueError) as error:
            raise SettingsError(f"WARMFLEET_EVENTS_KAFKA_CONFIG: {error}") from None
        except KafkaUnavailable as error:
            raise SettingsError(f"WARMFLEET_EVENTS_KAFKA: {error}") from None

    def beacon(self) -> LatencySigner:
        """What the beacon signs with. Raises SettingsError."""
        if not self.beacon_region:
            raise SettingsError("WARMFLEET_BEACON_REGION is wanted: the region whose round trips are measured")
        try:
            return LatencySigner(self.beacon_region, _ed25519("beacon_key", self.beacon_key))
        except ValueError as error:
            raise SettingsError(f"WARMFLEET_BEACON_REGION: {error}") from None

    def beacons(self) -> tuple[Region, ...]:
        """The regions that the matchmaker believes. Raises SettingsError."""
        try:
            return read_regions(self.regions) if self.regions is not None else ()
        except RegionsError as error:
            raise SettingsError(f"WARMFLEET_REGIONS: {error}") from None

    def players(self) -> PlayerTokens:
        """Who verifies players' tokens. Raises SettingsError."""
        if self.player_keys is None and not self.player_jwks:
            raise SettingsError(
                "WARMFLEET_PLAYER_KEYS or WARMFLEET_PLAYER_JWKS is wanted: the secret of players' HS256 tokens, or the URL of "
                "the keys that sign them"
            )
        return PlayerTokens(
            self.player_keys.get_secret_value().encode() if self.player_keys is not None else b"",
            jwks=Jwks(self.player_jwks) if self.player_jwks else None,
            audience=self.player_audience or None,
            issuer=self.player_issuer or None,
        )

    def keys(self) -> ApiKeys:
        """The studio's own services' and the operator's keys. Raises SettingsError."""
        text = self.api_keys.get_secret_value() if self.api_keys is not None else ""
        if self.operator_token is not None:
            digest = hashlib.sha256(self.operator_token.get_secret_value().encode()).hexdigest()
            text = ",".join(filter(None, (text, f"operator:{Role.OPERATOR}:{digest}")))
        try:
            return ApiKeys.parse(text)
        except ValueError as error:
            raise SettingsError(f"WARMFLEET_API_KEYS: {error}") from None

    def access(self) -> Access:
        """Who may look at the console, and act there. Raises SettingsError."""
        people = None
        if self.console_jwks:
            if not self.console_audience:
                raise SettingsError(
                    "WARMFLEET_CONSOLE_AUDIENCE is wanted with WARMFLEET_CONSOLE_JWKS: `aud` of its tokens"
                )
            issuer = self.console_issuer or None
            people = SignedTokens(jwks=Jwks(self.console_jwks), audience=self.console_audience, issuer=issuer)
        operator = _wanted("operator_token", self.operator_token, "an operator's at the console and at the matchmaker")
        viewer = self.viewer_token.get_secret_value() if self.viewer_token is not None else ""
        for name, token in (("OPERATOR", operator), ("VIEWER", viewer)):
            if token and len(token) < _MIN_TOKEN:
                raise SettingsError(
                    f"WARMFLEET_{name}_TOKEN: has fewer than {_MIN_TOKEN} characters: it can be guessed"
                )
        if viewer == operator:
            raise SettingsError("WARMFLEET_VIEWER_TOKEN: is the operator's: a viewer could act with it")
        return Access(operator=operator, viewer=viewer, people=people)

    def matchmaker(self) -> httpx.AsyncClient:
        """Calls of the matchmaker's API with the operator's token. Raises SettingsError."""
        form = "the URL of the matchmaker's API, as http://warmfleet-matchmaker:8080"
        if not self.matchmaker_url.startswith(("https://", "http://")):
            raise SettingsError(f"WARMFLEET_MATCHMAKER_URL is wanted: {form}")
        token = _wanted("operator_token", self.operator_token, "an operator's at the matchmaker")
        try:
            trusted = ssl.create_default_context(cafile=str(self.matchmaker_ca)) if self.matchmaker_ca else True
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"WARMFLEET_MATCHMAKER_CA: {self.matchmaker_ca}: {error}") from None
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.AsyncClient(
            base_url=self.matchmaker_url, headers=headers, timeout=5.0, trust_env=False, verify=trusted
        )

    def udp_key(self, specs: Specs) -> bytes | None:
        """The key that makes players' UDP connect tokens; None where no fleet speaks UDP. Raises SettingsError."""
        speakers = [
            f.metadata.name
            for f in specs.fleets
            if f.spec.server.game is not None and "udp" in f.spec.server.transports
        ]
        if self.netcode_key is None:
            if speakers:
                raise SettingsError(f"WARMFLEET_NETCODE_KEY is wanted: fleet {speakers[0]} has the udp transport")
            return None
        try:
            return parse_private_keys(self.netcode_key.get_secret_value())[0]
        except ValueError as error:
            raise SettingsError(f"WARMFLEET_NETCODE_KEY: {error}") from None

    def cluster(self, region: str = "") -> ClusterSettings:
        """The cluster of a region's servers."""
        context = self.clusters.get(region, self.kube_context)
        return ClusterSettings(namespace=self.namespace, kubeconfig=self.kubeconfig, context=context)

    def endpoints_of(self, region: str) -> tuple[Endpoint, ...]:
        """Of the allocation service of a region's cluster; "" for the cluster of all other regions. Raises SettingsError."""
        if region:
            found = tuple(e for e in self.allocation_endpoints if e.region == region)
        else:
            found = tuple(e for e in self.allocation_endpoints if e.region not in self.clusters)
        if not found:
            which = f"@{region}" if region else "of the cluster of all other fleets"
            raise SettingsError(f"WARMFLEET_ALLOCATION_ENDPOINTS: an endpoint {which} is wanted (WARMFLEET_CLUSTERS)")
        return found

    def certificates(self) -> CertificateFiles | None:
        """Those of the allocation service's client; None: plain text."""
        if self.allocation_plaintext:
            return None
        return CertificateFiles(certificate=self.allocation_certificate, key=self.allocation_key, ca=self.allocation_ca)


def _check_backend(settings: ServeSettings) -> None:
    tls = {
        "CERTIFICATE": settings.allocation_certificate,
        "KEY": settings.allocation_key,
        "CA": settings.allocation_ca,
    }
    if settings.backend is not BackendName.AGONES:
        given = [name for name, value in {**tls, "ENDPOINTS": settings.allocation_endpoints}.items() if value]
        if given:
            raise ValueError(f"WARMFLEET_ALLOCATION_{given[0]}: is for WARMFLEET_BACKEND=agones alone")
        return
    if not settings.allocation_endpoints:
        raise ValueError(
            "WARMFLEET_ALLOCATION_ENDPOINTS: is wanted with WARMFLEET_BACKEND=agones, as agones-allocator.agones-system:443"
        )
    if settings.allocation_plaintext and any(tls.values()):
        raise ValueError("WARMFLEET_ALLOCATION_PLAINTEXT: goes without certificates")
    if (tls["CERTIFICATE"] is None) != (tls["KEY"] is None):
        raise ValueError("WARMFLEET_ALLOCATION_CERTIFICATE and WARMFLEET_ALLOCATION_KEY belong together")


def _endpoints(text: str) -> tuple[Endpoint, ...]:
    """From `host:port[@region], …`."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        address, _, region = part.partition("@")
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
            raise ValueError(f"WARMFLEET_ALLOCATION_ENDPOINTS: {part!r}: host:port or host:port@region is wanted")
        found.append(Endpoint(address=address, region=region))
    return tuple(found)


def _ed25519(name: str, value: SecretStr | None) -> bytes:
    """The 32 bytes of a key."""
    text = _wanted(name, value, "an Ed25519 key: PEM, or its 32 bytes in base64url")
    try:
        if text.lstrip().startswith("-----BEGIN"):
            key = load_pem_private_key(text.encode(), password=None)
            if isinstance(key, Ed25519PrivateKey):
                return key.private_bytes_raw()
        else:
            raw = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
            if len(raw) == 32:
                return raw
    except (ValueError, TypeError, binascii.Error):
        pass
    raise SettingsError(f"WARMFLEET_{name.upper()}: is no Ed25519 key: PEM, or its 32 bytes in base64url, is wanted")


def _clusters(text: str) -> dict[str, str]:
    """From `region=context, …`."""
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        region, _, context = (word.strip() for word in part.partition("="))
        if not region or not context or region in found:
            raise ValueError(f"WARMFLEET_CLUSTERS: {part!r}: region=context is wanted, each region once")
        found[region] = context
    return found


def _wanted(name: str, value: SecretStr | None, what: str) -> str:
    if value is None:
        variable = _PREFIX + name.upper()
        raise SettingsError(f"{variable} (or {variable}_FILE) is wanted: {what}")
    return value.get_secret_value()


def _file(variable: str, path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{variable}: {path} cannot be read: {error}") from None
    if not text:
        raise SettingsError(f"{variable}: {path} is empty")
    return text


def _line(problem: Any) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    where = ".".join(str(part) for part in problem["loc"][:1])
    return f"{_PREFIX}{where.upper()}: {message}" if where else message
