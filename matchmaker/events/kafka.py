"""Events to Kafka, by librdkafka (extra `kafka`): the subject is the key, so that a partition keeps its order; idempotent producer, all replicas."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from matchmaker.events.model import Event
from matchmaker.events.relay import SinkRefused, SinkUnavailable

_FLUSH_S = 15.0
_HEADERS = [("content-type", b"application/cloudevents+json; charset=UTF-8")]


class KafkaUnavailable(Exception):
    """The library is missing, or its configuration is wrong."""


class Kafka:
    """One topic."""

    name = "kafka"

    def __init__(self, topic: str, config: Mapping[str, str | int | bool]) -> None:
        """`config`: librdkafka's; `bootstrap.servers` at least. Raises KafkaUnavailable."""
        try:
            from confluent_kafka import KafkaException, Producer
        except ImportError:
            raise KafkaUnavailable("events to Kafka need confluent-kafka: pip install 'warmfleet[kafka]'") from None
        self._topic = topic
        safe = {"enable.idempotence": True, "acks": "all", "linger.ms": 5, "message.timeout.ms": 10_000}
        try:
            self.producer: Any = Producer({**safe, **config})
        except (KafkaException, TypeError, ValueError) as error:
            raise KafkaUnavailable(f"Kafka's configuration: {error}") from None

    async def send(self, events: Sequence[Event]) -> None:
        """Produce all, and wait until every one is acknowledged."""
        errors = await asyncio.to_thread(self._produce, events)
        if not errors:
            return
        first = errors[0]
        # One that is too large stays too large.
        if first.code() == 10:  # MSG_SIZE_TOO_LARGE
            raise SinkRefused(str(first))
        raise SinkUnavailable(str(first))

    def _produce(self, events: Sequence[Event]) -> list[Any]:
        errors: list[Any] = []

        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                errors.append(error)

        for event in events:
            while True:
                try:
                    self.producer.produce(
                        self._topic,
                        value=event.raw,
                        key=event.subject.encode(),
                        headers=_HEADERS,
                        on_delivery=delivered,
                    )
                    break
                except BufferError:
                    self.producer.poll(0.1)  # its queue is full: let it empty
        if self.producer.flush(_FLUSH_S) and not errors:
            raise SinkUnavailable(f"not acknowledged in {_FLUSH_S:g} s")
        return errors
