"""One thing that was looked at."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What came of it."""

    OK = "ok"
    WARN = "warn"
    """It works, and not as well as it could."""
    FAIL = "fail"
    """What was asked for cannot work so."""
    UNKNOWN = "unknown"
    """Could not be looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """With the mend, where there is something to mend."""

    name: str
    """As hugepages; docs/operating.md has a paragraph for each."""
    verdict: Verdict
    said: str
    mend: str = ""


def ok(name: str, said: str) -> Check:
    """Nothing to do."""
    return Check(name=name, verdict=Verdict.OK, said=said)


def warn(name: str, said: str, mend: str) -> Check:
    """Could be better."""
    return Check(name=name, verdict=Verdict.WARN, said=said, mend=mend)


def fail(name: str, said: str, mend: str) -> Check:
    """Cannot work."""
    return Check(name=name, verdict=Verdict.FAIL, said=said, mend=mend)


def unknown(name: str, said: str) -> Check:
    """Nothing to see."""
    return Check(name=name, verdict=Verdict.UNKNOWN, said=said)
