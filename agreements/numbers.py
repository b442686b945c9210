"""The numbers of an agreement file that people change: what each is, and exactly where it stands in the text.

A number is changed where it stands: comments, order and everything else of the file stay as they are.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import yaml

from lifecycle.agreement import Agreement
from lifecycle.scoring import describe

from .reader import compose, read_agreement

# fmt: off
_KINDS: Final[tuple[tuple[str, str, str, str], ...]] = (
    # where it stands                          group                   what it is                           kind
    (r"mql\.score",                            "Thresholds",           "Score that makes an MQL",           "whole"),
    (r"mql\.fit",                              "Thresholds",           "Fit that it takes",                 "whole"),
    (r"bant\.require",                         "Thresholds",           "BANT answers that it takes",        "count"),
    (r"profile\.(\d+)\.points",                "Points for fit",       "",                                  "points"),
    (r"behaviour\.half_life_days",             "Points for behaviour", "Days until points are half",        "days"),
    (r"behaviour\.criteria\.(\d+)\.points",    "Points for behaviour", "",                                  "points"),
    (r"behaviour\.criteria\.(\d+)\.up_to",     "Points for behaviour", "at most so often",                  "times"),
    (r"bant\.points\.\w+",                     "Points for BANT",      "",                                  "points"),
    (r"sla\.acceptance\.within",               "How fast sales answers", "To accept or reject",             "duration"),
    (r"sla\.first_touch\.within",              "How fast sales answers", "To try to reach it first",        "duration"),
    (r"sla\.qualification\.within",            "How fast sales answers", "To qualify it",                   "duration"),
    (r"sla\.unable_to_reach\.attempts",        "Before sales gives up", "Attempts",                         "times"),
    (r"sla\.unable_to_reach\.channels",        "Before sales gives up", "Different channels",               "channels"),
    (r"sla\.unable_to_reach\.business_days",   "Before sales gives up", "Business days",                    "count"),
    (r"recycle\.cool_off",                     "When it comes back",   "Cool-off",                          "duration"),
    (r"recycle\.max_cycles",                   "When it comes back",   "Cycles at most",                    "times"),
    (r"recycle\.lost\.after",                  "When it comes back",   "Rest of a lost lead",               "duration"),
    (r"outreach\.per_day",                     "Mails",                "A day, at most",                    "times"),
    (r"outreach\.per_week",                    "Mails",                "A week, at most",                   "times"),
)
# fmt: on
"""Which numbers these are, in the order in which they are shown."""


@dataclass(frozen=True, slots=True)
class Number:
    """One number: `start` and `end` count UTF-16 units, as browsers do, of the text with plain line ends."""

    path: str
    group: str
    label: str
    hint: str
    kind: str
    value: str
    start: int
    end: int


def plain(source: str) -> str:
    """Return the text with line ends as a browser has them in a form."""
    return source.replace("\r\n", "\n").replace("\r", "\n")


@lru_cache(maxsize=16)
def numbers(source: str) -> tuple[Number, ...]:
    """Return the numbers that the file writes, of an agreement without errors; raises AgreementInvalid.

    What a file leaves to its default is not there: there is no place to change it at.
    """
    text = plain(source)
    agreement = read_agreement(text)
    places = dict(_places(compose(text), ()))
    found = []
    for pattern, group, label, kind in _KINDS:
        for path, node in places.items():
            known, (start, end) = re.fullmatch(pattern, path), _range(node)
            if known and text[start:end] == node.value:
                name, hint = _named(agreement, path, known, label)
                units = (_units(text[:start]), _units(text[:end]))
                found.append(Number(path, group, name, hint, kind, str(node.value), *units))
    return tuple(found)


def _places(node: yaml.Node, path: tuple[str, ...]) -> Iterator[tuple[str, yaml.ScalarNode]]:
    if isinstance(node, yaml.ScalarNode):
        yield ".".join(path), node
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield from _places(child, (*path, str(index)))
    elif isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            yield from _places(child, (*path, str(key.value)))


def _named(agreement: Agreement, path: str, known: re.Match[str], label: str) -> tuple[str, str]:
    """Return what a number is called, and what it is given for."""
    if not known.groups():
        return label or path.rpartition(".")[2], ""
    rows: Mapping[str, Any] = {"profile": agreement.profile, "behaviour": agreement.behaviour.criteria}
    row = rows[path.partition(".")[0]][int(known[1])]
    return f"{row.id}{f', {label}' if label else ''}", "" if label else describe(row.when)


def _range(node: yaml.ScalarNode) -> tuple[int, int]:
    quotes = 1 if node.style in ("'", '"') else 0
    return node.start_mark.index + quotes, node.end_mark.index - quotes


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
