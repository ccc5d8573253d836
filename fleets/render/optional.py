"""The parts that a Platform has only where it asks for them: what the events', the console's and the beacon's containers are given."""

from fleets.render.network import store_ports, url_ports
from fleets.render.part import Part, Volume, name_of
from fleets.spec.platform import SERVICE_PORT, PlatformBody, Services

_KAFKA = "/var/run/warmfleet/kafka"
_BEACON_PORT = 7770


def events(platform: PlatformBody, services: Services) -> Part:
    """Its sinks, and their ports."""
    body = services.events
    values, secrets, volumes = {"WARMFLEET_EVENTS_KEEP_S": str(body.keep_s)}, [], list[Volume]()
    out = [*store_ports(platform)]
    if body.webhook is not None:
        values["WARMFLEET_EVENTS_WEBHOOK"] = body.webhook.url
        secrets.append(("WARMFLEET_EVENTS_WEBHOOK_SECRET", body.webhook.secret))
        out += url_ports(body.webhook.url)
    if body.kafka is not None:
        values["WARMFLEET_EVENTS_KAFKA"] = ",".join(body.kafka.brokers)
        values["WARMFLEET_EVENTS_KAFKA_TOPIC"] = body.kafka.topic
        numbers = sorted({int(broker.rpartition(":")[2]) for broker in body.kafka.brokers})
        out += [("TCP", number, number) for number in numbers]
        if (config := body.kafka.config) is not None:
            items = [{"key": config.key, "path": "config.json"}]
            volumes.append(({"name": "kafka", "secret": {"secretName": config.secret, "items": items}}, _KAFKA))
            values["WARMFLEET_EVENTS_KAFKA_CONFIG"] = f"{_KAFKA}/config.json"
    return Part(out=out, values=tuple(values.items()), secrets=tuple(secrets), volumes=tuple(volumes))


def console(platform: PlatformBody, services: Services) -> Part:
    """It looks at servers, and asks the matchmaker and Prometheus; reached from inside the cluster alone."""
    body = services.console
    values = {"WARMFLEET_MATCHMAKER_URL": f"http://{name_of('matchmaker')}:{SERVICE_PORT}"}
    secrets = [("WARMFLEET_OPERATOR_TOKEN", platform.operator_token)]
    out = [*store_ports(platform), ("TCP", SERVICE_PORT, SERVICE_PORT)]
    if platform.prometheus is not None:
        values["WARMFLEET_PROMETHEUS_URL"] = platform.prometheus
        out += url_ports(platform.prometheus)
    if body.viewer_token is not None:
        secrets.append(("WARMFLEET_VIEWER_TOKEN", body.viewer_token))
    if body.sign_in is not None:
        values["WARMFLEET_CONSOLE_JWKS"] = body.sign_in.jwks
        values["WARMFLEET_CONSOLE_AUDIENCE"] = body.sign_in.audience
        if body.sign_in.issuer is not None:
            values["WARMFLEET_CONSOLE_ISSUER"] = body.sign_in.issuer
        out += url_ports(body.sign_in.jwks)
    return Part(
        rules=({"apiGroups": ["agones.dev"], "resources": ["gameservers"], "verbs": ["get", "list", "watch"]},),
        out=list(dict.fromkeys(out)),
        values=tuple(values.items()),
        secrets=tuple(secrets),
        inside=True,
    )


def beacon(services: Services) -> Part:
    """Reached by players, over UDP and HTTP, at an address that is theirs to see: it goes by theirs."""
    body = services.beacon
    return Part(
        store=False,
        out=[],
        values=(
            ("WARMFLEET_BEACON_REGION", body.region),
            ("WARMFLEET_BEACON_UDP", f"0.0.0.0:{_BEACON_PORT}"),
        ),
        secrets=(("WARMFLEET_BEACON_KEY", body.key),),
        ports=(("udp", _BEACON_PORT, "UDP"),),
        port=443 if body.tls_secret is not None else 80,
        tls_secret=body.tls_secret,
        service={
            "type": body.service,
            **({} if body.service == "ClusterIP" else {"externalTrafficPolicy": "Local"}),
            "sessionAffinity": "ClientIP",  # a cookie is good at the pod that gave it
        },
        annotations=body.annotations,
    )
