"""
Which series a PromQL query names: enough of the language to hold our own queries to the metrics that exist.

Strings, ranges and label lists are cut out; what is left are names, functions and keywords. A real Prometheus judges the rest (the tests run one).
"""

import re
from collections.abc import Iterator

_LABELS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_SELECTOR = re.compile(r"\{[^}]*\}")
_MATCHER = re.compile(r'([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)\s*"')
_RANGE = re.compile(r"\[[^\]]*\]")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_WORDS = {
    "and",
    "or",
    "unless",
    "by",
    "without",
    "on",
    "ignoring",
    "offset",
    "bool",
    "group_left",
    "group_right",
    "inf",
}


def names(query: str) -> Iterator[str]:
    """Every series that the query selects."""
    rest = _RANGE.sub("", _SELECTOR.sub("", _STRING.sub('""', _LABELS.sub(" ", query))))
    for found in _NAME.finditer(rest):
        before = rest[: found.start()].rstrip()[-1:]
        called = rest[found.end() :].lstrip().startswith("(")
        number = before.isdigit()  # 1e3, 5m
        if not called and not number and found[0].lower() not in _WORDS:
            yield found[0]


def labels(query: str) -> set[str]:
    """Every label that the query selects or groups by."""
    grouped = {label.strip() for found in _LABELS.finditer(query) for label in found[1].split(",") if label.strip()}
    return grouped | set(_MATCHER.findall(query))
