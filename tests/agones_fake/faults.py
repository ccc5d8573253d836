"""What may go wrong on the fake's two APIs, by operation."""

import random
from dataclasses import dataclass, field
from enum import Enum, auto


class Effect(Enum):
    """What a fault does to one request."""

    DROP_BEFORE = auto()
    """The connection breaks and nothing has happened."""
    DROP_AFTER = auto()
    """It happens, and then the connection breaks: the reply is lost."""
    STALL = auto()
    """No answer for `seconds` (the whole run by default); nothing has happened."""
    STALL_AFTER = auto()
    """It happens, and then there is no answer for `seconds`."""
    DELAY = auto()
    """The answer comes `seconds` late."""
    STATUS = auto()
    """HTTP `status`, or the gRPC code `grpc_code`; nothing has happened."""
    CONTENTION = auto()
    """Allocations: Agones' answer when it lost every race (HTTP 201 `Contention`, gRPC ABORTED)."""


@dataclass(kw_only=True)
class Fault:
    """One rule; the first that applies is taken."""

    on: str = "*"
    """allocate, list, watch, get, create, patch, update, delete, or * for all."""
    effect: Effect
    times: int | None = 1
    """How often; None: until removed."""
    chance: float = 1.0
    seconds: float = 3600.0
    status: int = 500
    grpc_code: str = "UNAVAILABLE"
    headers: dict[str, str] = field(default_factory=dict)
    """Of the HTTP answer (Retry-After)."""


class Faults:
    """The rules in force, and what became of requests."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = random.Random(seed)
        self.rules: list[Fault] = []
        self.calls: dict[str, int] = {}
        """Requests by operation."""

    def add(self, *faults: Fault) -> None:
        self.rules += faults

    def clear(self) -> None:
        self.rules.clear()

    def take(self, on: str) -> Fault | None:
        """The fault that this request meets."""
        self.calls[on] = self.calls.get(on, 0) + 1
        for rule in self.rules:
            if rule.on in ("*", on) and self.rng.random() < rule.chance:
                if rule.times is not None:
                    rule.times -= 1
                    if rule.times <= 0:
                        self.rules.remove(rule)
                return rule
        return None
