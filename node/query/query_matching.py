r"""From the value of a key to a condition: the matching rules of PS3.4 section C.2.2.2.

A key with several values, joined by ``\``, matches where one of them does: by the standard for UIDs
(List of UID Matching), as a courtesy for the rest. ``*`` alone is universal for every value
representation. An empty attribute is matched by universal matching alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from node.errors import IdentifierInvalid
from node.index.attributes import is_undivided
from node.index.index_values import VALUE_CHARACTERS
from node.index.person_name import folded_groups, folded_pattern
from node.index.wild_cards import wild_card_expression

#: SQL function for attributes with several values: (stored text, value representation, key) -> 0 or 1
ANY_VALUE_MATCHES = "any_value_matches"

# Wild Card Matching is for these (PS3.4 section C.2.2.2.4).
_WILD_CARD_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_RANGE_VRS = frozenset({"DA", "DT", "TM"})
_MOST_VALUES = 200
# of a group of a name (PS3.5 section 6.2.1)
_MOST_COMPONENTS = 5
_DATE = re.compile(r"(\d{4})(?:([.\-/])(\d{2})\2(\d{2})|(\d{2})(\d{2}))")
_TIME = re.compile(r"([01]\d|2[0-3])(?:([0-5]\d)(?:([0-5]\d|60)(?:\.(\d{1,6}))?)?)?")
_DATE_TIME = re.compile(
    r"(\d{4}(?:\d{2}(?:\d{2}(?:\d{2}(?:\d{2}(?:\d{2}(?:\.\d{1,6})?)?)?)?)?)?)([+-]\d{4})?"
)
_EIGHT_DIGITS = "[0-9]" * 8
_LATEST_TIME = "235960.999999"
_LATEST_DATE_TIME = "99991231235960.999999"


@dataclass(frozen=True)
class Condition:
    """A condition of SQL, with the values of its parameters. An empty one is always true."""

    sql: str = ""
    values: tuple[object, ...] = ()


@dataclass(frozen=True)
class Bounds:
    """A range of text that orders as the dates or times do; both ends belong to it."""

    low: str
    high: str


@dataclass(frozen=True)
class Subject:
    """What a key is compared with: an SQL expression of text.

    ``name_columns`` are the folded component groups of a person name with one value.
    """

    sql: str
    vr: str
    has_many_values: bool = False
    name_columns: tuple[str, ...] = field(default=())


def is_universal(vr: str, key: str) -> bool:
    """Whether the key, or one of its values, matches everything (PS3.4 section C.2.2.2.3)."""
    saying_nothing = "* "
    if vr == "PN":
        saying_nothing, key = "*^=", "".join(key.split())  # also the ideographic space
    if not key.strip(saying_nothing):
        return True
    return not is_undivided(vr) and any(
        value and not value.strip(saying_nothing) for value in key.split("\\")
    )


def condition(subject: Subject, key: str) -> Condition:
    """Make the condition that ``subject`` matches ``key``.

    Raises
    ------
    IdentifierInvalid
        The key is no date, time or range where it has to be one, or there is too much of it.
    """
    if is_universal(subject.vr, key):
        return Condition()
    if len(key) > VALUE_CHARACTERS and subject.vr != "UI":
        raise IdentifierInvalid("a key is too long")
    if subject.has_many_values or subject.vr == "DT":
        predicate(subject.vr, key)
        return Condition(f"{ANY_VALUE_MATCHES}({subject.sql}, ?, ?)", (subject.vr, key))
    values = _values(subject.vr, key)
    if not values:
        return Condition("0")  # nothing but delimiters is no empty key
    if subject.vr in _RANGE_VRS:
        return _any([_range(subject, value) for value in values])
    if subject.name_columns:
        return _any([_name(subject, value) for value in values])
    plain = [value for value in values if not _is_wild(subject.vr, value)]
    wild = [value for value in values if _is_wild(subject.vr, value)]
    return _any(
        [*([one_of(subject.sql, plain)] if plain else []), *(_like(subject.sql, value) for value in wild)]
    )


def _values(vr: str, key: str) -> list[str]:
    values = [key] if is_undivided(vr) else [value for value in key.split("\\") if value]
    if len(values) > _MOST_VALUES and vr != "UI":
        raise IdentifierInvalid(f"a key has more than {_MOST_VALUES} values")
    return values


def _is_wild(vr: str, value: str) -> bool:
    return vr in _WILD_CARD_VRS and ("*" in value or "?" in value)


def _any(conditions: list[Condition]) -> Condition:
    if any(not found.sql for found in conditions):
        return Condition()  # one value of the key is universal
    return joined("OR", conditions)


def joined(word: str, conditions: Sequence[Condition]) -> Condition:
    """Join with AND or OR, in halves: SQLite counts how deep an expression is."""
    if len(conditions) <= 1:
        return conditions[0] if conditions else Condition()
    first, second = (
        joined(word, half)
        for half in (conditions[: len(conditions) // 2], conditions[len(conditions) // 2 :])
    )
    return Condition(f"({first.sql} {word} {second.sql})", first.values + second.values)


def one_of(sql: str, values: list[str]) -> Condition:
    """Make the condition that ``sql`` is one of the values, without any wild cards."""
    if len(values) == 1:
        return Condition(f"{sql} = ?", (values[0],))
    return Condition(f"{sql} IN (SELECT value FROM json_each(?))", (json.dumps(values),))


def _like(sql: str, pattern: str) -> Condition:
    if not pattern.strip("*"):
        return Condition()
    return Condition(f"{sql} GLOB ?", (_glob(pattern),))


def _glob(pattern: str) -> str:
    """Write a pattern for GLOB, which gives brackets a meaning too; many ``*`` in a row are one."""
    return re.sub(r"\*+", "*", pattern.replace("[", "[[]"))


# --- dates and times ------------------------------------------------------------


def _range(subject: Subject, value: str) -> Condition:
    bounds = bounds_of(subject.vr, value)
    looks = _EIGHT_DIGITS if subject.vr == "DA" else "[0-9][0-9]*"
    sql = f"({subject.sql} BETWEEN ? AND ? AND {subject.sql} GLOB '{looks}')"
    return Condition(sql, (bounds.low, bounds.high))


@lru_cache(maxsize=256)
def bounds_of(vr: str, value: str) -> Bounds:
    """Read a date, a time or a range of them (PS3.4 section C.2.2.2.5).

    What is given less precisely stands for all that it may mean: ``1030`` for the minute.
    """
    read = {"DA": _date_bounds, "TM": _time_bounds, "DT": _date_time_bounds}[vr]
    value = value.replace(" ", "")
    single = read(value)
    if single is not None:
        return single
    first, latest = {"DA": ("0", "99991231"), "TM": ("0", _LATEST_TIME), "DT": ("0", _LATEST_DATE_TIME)}[vr]
    for at in (at for at, character in enumerate(value) if character == "-"):
        low, high = value[:at], value[at + 1 :]
        low_bounds = read(low) if low else Bounds(first, first)
        high_bounds = read(high) if high else Bounds(latest, latest)
        if low_bounds is not None and high_bounds is not None and (low or high):
            return Bounds(low_bounds.low, high_bounds.high)
    raise IdentifierInvalid(f"a key of {vr} is neither a value nor a range")


def _date_bounds(value: str) -> Bounds | None:
    found = _DATE.fullmatch(value)
    if not found:
        return None
    date = found[1] + (found[3] or found[5]) + (found[4] or found[6])
    return Bounds(date, date)


def _time_bounds(value: str) -> Bounds | None:
    found = _TIME.fullmatch(value.replace(":", ""))
    if not found:
        return None
    hours, minutes, seconds, fraction = found.groups(default="")
    low = f"{hours}{minutes or '00'}{seconds or '00'}.{fraction:0<6}"
    high = f"{hours}{minutes or '59'}{seconds or '59'}.{fraction:9<6}"
    return Bounds(_without_zeros(low), high)


def _date_time_bounds(value: str) -> Bounds | None:
    found = _DATE_TIME.fullmatch(value)
    if not found:
        return None
    digits, _, fraction = found[1].partition(".")
    low = digits + "00000101000000"[len(digits) :]
    high = digits + "99991231235959"[len(digits) :]
    return Bounds(_without_zeros(f"{low}.{fraction:0<6}"), f"{high}.{fraction:9<6}")


def _without_zeros(text: str) -> str:
    # So that a stored 1030, which orders before 103000.000000, is not left out.
    return text.rstrip("0").rstrip(".").rstrip("0")


# --- person names ---------------------------------------------------------------


def _name(subject: Subject, value: str) -> Condition:
    groups = value.split("=", 2)
    if len(groups) == 1:
        # Without '=' the key may be meant for any of the groups.
        return _any([_group(column, value) for column in subject.name_columns])
    wanted = [
        _group(column, group)
        for column, group in zip(subject.name_columns, groups, strict=False)
        if not is_universal("PN", group)
    ]
    return joined("AND", wanted)


def _group(column: str, group: str) -> Condition:
    patterns = name_patterns(group)
    return _any(
        [
            Condition(f"{column} GLOB ?", (_glob(pattern),))
            if "*" in pattern or "?" in pattern
            else Condition(f"{column} = ?", (pattern,))
            for pattern in patterns
        ]
    )


def name_patterns(group: str) -> list[str]:
    """Folded patterns of one component group, of which one has to match.

    ``DOE^*`` is also met by ``DOE``: the trailing delimiters of a name are not written.
    """
    patterns = [folded_pattern(group)]
    while (
        len(patterns) <= _MOST_COMPONENTS
        and patterns[-1].rstrip("*").endswith("^")
        and patterns[-1].rstrip("*^")
    ):
        patterns.append(patterns[-1].rstrip("*").rstrip("^"))
    return patterns


# --- several values -------------------------------------------------------------


def any_value_matches(stored: str, vr: str, key: str) -> bool:
    """Whether one of the values, joined by a backslash, matches the key. Known to SQL by this name."""
    if not stored:
        return False
    matches = predicate(vr, key)
    return any(matches(value) for value in stored.split("\\") if value)


@lru_cache(maxsize=256)
def predicate(vr: str, key: str) -> Callable[[str], bool]:
    """Return the test that one stored value matches the key; raise IdentifierInvalid as above."""
    tests = [_predicate(vr, value) for value in _values(vr, key)]
    return lambda stored: any(test(stored) for test in tests)


def _predicate(vr: str, value: str) -> Callable[[str], bool]:
    if vr in _RANGE_VRS:
        bounds = bounds_of(vr, value)
        shape = {"DA": re.compile(r"\d{8}"), "TM": _TIME, "DT": _DATE_TIME}[vr]
        return lambda stored: (
            shape.fullmatch(stored) is not None and bounds.low <= _local(vr, stored) <= bounds.high
        )
    if vr == "PN":
        groups = value.split("=", 2)
        patterns = [[wild_card_expression(pattern) for pattern in name_patterns(group)] for group in groups]

        def matches(stored: str) -> bool:
            found = zip(patterns, folded_groups(stored), strict=False)
            if len(groups) == 1:
                return any(one.fullmatch(group) for group in folded_groups(stored) for one in patterns[0])
            return all(
                is_universal("PN", wanted) or any(one.fullmatch(group) for one in ones)
                for wanted, (ones, group) in zip(groups, found, strict=False)
            )

        return matches
    if _is_wild(vr, value):
        expression = wild_card_expression(value)
        return lambda stored: expression.fullmatch(stored) is not None
    return lambda stored: stored == value


def _local(vr: str, stored: str) -> str:
    """Leave out the offset from UTC: without its adjustment negotiated, local times are compared."""
    return re.sub(r"[+-]\d{4}$", "", stored) if vr == "DT" else stored
