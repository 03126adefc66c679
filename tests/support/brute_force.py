"""Matching by the letter of PS3.4 section C.2.2.2, one instance at a time.

Written from the standard and without any part of ``node``: data sets are what pydicom decodes, an
entity is what its instances say, and every rule is spelled out. What the standard leaves open is
decided as the node documents it: person names without regard to case and character width, and a time
that is given less precisely stands for all that it may mean.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal, InvalidOperation

from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

LEVEL_KEYS = {
    "PATIENT": ("PatientID", "IssuerOfPatientID"),
    "STUDY": ("StudyInstanceUID",),
    "SERIES": ("StudyInstanceUID", "SeriesInstanceUID"),
    "IMAGE": ("SOPInstanceUID",),
}
LEVELS = tuple(LEVEL_KEYS)
NO_WILD_CARDS = {
    "DA",
    "TM",
    "DT",
    "SL",
    "SS",
    "US",
    "UL",
    "FL",
    "FD",
    "OB",
    "OW",
    "UN",
    "AT",
    "DS",
    "IS",
    "AS",
    "UI",
}


class Plain(dict[str, list[str]]):
    """An instance: the values of each attribute, as text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{self.get('SOPInstanceUID')}>"


def plain(data_set: Dataset) -> Plain:
    """What pydicom says of the attributes that can be matched."""
    found = Plain()
    for element in data_set:
        if not element.keyword or element.VR in ("SQ", "OB", "OW", "OF", "OD", "OL", "OV", "UN"):
            continue
        value = element.value
        parts = list(value) if isinstance(value, MultiValue | list) else [value]
        found[element.keyword] = [str(part).strip(" \0") for part in parts if part is not None and part != ""]
    return found


def values_of(instance: Plain, keyword: str) -> list[str]:
    """The values of an attribute; none where it is absent or empty."""
    return instance.get(keyword, [])


def matching(
    instances: Sequence[Plain], level: str, keys: dict[str, str], level_of: Callable[[str], str]
) -> set[tuple[str, ...]]:
    """Unique keys of the entities at ``level`` that match all ``keys``.

    ``level_of`` says to which level a keyword belongs.
    """
    is_patient = level == "PATIENT"
    return {
        unique
        for unique, members in _entities(instances, level).items()
        if all(
            _entity_matches(instances, members, keyword, key, level_of, is_patient=is_patient)
            for keyword, key in keys.items()
        )
    }


def _entities(instances: Iterable[Plain], level: str) -> dict[tuple[str, ...], list[Plain]]:
    found: dict[tuple[str, ...], list[Plain]] = {}
    for data_set in instances:
        unique = tuple(" ".join(values_of(data_set, keyword)) for keyword in LEVEL_KEYS[level])
        if level == "PATIENT" and not unique[0]:
            unique = ("", "", values_of(data_set, "StudyInstanceUID")[0])
        found.setdefault(unique, []).append(data_set)
    return found


def _entity_matches(
    instances: Sequence[Plain],
    members: Sequence[Plain],
    keyword: str,
    key: str,
    level_of: Callable[[str], str],
    *,
    is_patient: bool,
) -> bool:
    vr = dictionary_VR(keyword)
    if keyword in ("ModalitiesInStudy", "SOPClassesInStudy"):
        of_instance = {"ModalitiesInStudy": "Modality", "SOPClassesInStudy": "SOPClassUID"}[keyword]
        study = [one for one in instances if one["StudyInstanceUID"] == members[0]["StudyInstanceUID"]]
        held = [value for one in study for value in values_of(one, of_instance)]
        return attribute_matches(vr, key, held)
    level = level_of(keyword)
    if level in ("PATIENT", "STUDY") and not is_patient:
        # Below the patient, what is told of one is what the study itself says.
        members = [one for one in instances if one["StudyInstanceUID"] == members[0]["StudyInstanceUID"]]
    elif level == "SERIES":
        members = [one for one in instances if one["SeriesInstanceUID"] == members[0]["SeriesInstanceUID"]]
    held = next((values for values in (values_of(one, keyword) for one in members) if values), [])
    if dictionary_VM(keyword) == "1" and held:
        held = ["\\".join(held)]
    return attribute_matches(vr, key, held)


def attribute_matches(vr: str, key: str, held: Sequence[str]) -> bool:
    """Whether an attribute with the values ``held`` matches ``key``."""
    key = key.strip(" \0")
    nothing = set("*^= ") if vr == "PN" else set("* ")
    if set(key) <= nothing:
        return True  # C.2.2.2.3 Universal Matching, * alone, and a name without a letter
    wanted = (
        [key]
        if vr in ("LT", "ST", "UT")
        else [part.strip(" \0") for part in key.split("\\") if part.strip(" \0")]
    )
    if any(set("".join(one.split()) if vr == "PN" else one) <= nothing for one in wanted):
        return True
    return any(value_matches(vr, one, value) for one in wanted for value in held if value)


def value_matches(vr: str, key: str, value: str) -> bool:
    """Whether one value matches one value of a key that is not universal."""
    if vr == "DA":
        return _range_matches(key, value, _date_interval, (0, 99991231))
    if vr == "TM":
        return _range_matches(key.replace(":", ""), value.replace(":", ""), _time_interval, (0, 10**12))
    if vr == "PN":
        return _name_matches(key, value)
    if vr in ("IS", "DS"):
        return _number(key) == _number(value)
    if vr not in NO_WILD_CARDS and ("*" in key or "?" in key):
        return wild_card_matches(key, value)
    return key == value


def wild_card_matches(pattern: str, text: str) -> bool:
    """C.2.2.2.4: ``*`` is any sequence of characters, also none; ``?`` is one character."""
    reachable = {0}  # how much of the pattern may have been used up by the text so far
    for position, character in enumerate(pattern):
        if character == "*" and position in reachable:
            reachable.add(position + 1)
    for letter in text:
        after = set()
        for position in reachable:
            if position < len(pattern):
                if pattern[position] == "*":
                    after.add(position)
                elif pattern[position] in ("?", letter):
                    after.add(position + 1)
        for position, character in enumerate(pattern):
            if character == "*" and position in after:
                after.add(position + 1)
        reachable = after
    return len(pattern) in reachable


def _number(text: str) -> Decimal | str:
    try:
        return Decimal(text)
    except InvalidOperation:
        return text


def _range_matches(
    key: str, value: str, interval: Callable[[str], tuple[int, int] | None], all_of: tuple[int, int]
) -> bool:
    held = interval(value)
    if held is None:
        return False
    key = key.replace(" ", "")
    single = interval(key)
    if single is not None:
        return single[0] <= held[0] <= single[1]
    low, _, high = key.partition("-")
    first, last = interval(low) or all_of, interval(high) or all_of
    return first[0] <= held[0] <= last[1]


def _date_interval(text: str) -> tuple[int, int] | None:
    parts = text.split(".")
    if [len(part) for part in parts] not in ([8], [4, 2, 2]) or not "".join(parts).isdecimal():
        return None
    number = int("".join(parts))
    return number, number


def _time_interval(text: str) -> tuple[int, int] | None:
    whole, _, fraction = text.partition(".")
    if len(whole) not in (2, 4, 6) or not whole.isdecimal() or (fraction and not fraction.isdecimal()):
        return None
    parts = [int(whole[at : at + 2]) for at in range(0, len(whole), 2)]
    units = [3600, 60, 1]
    start = sum(part * unit for part, unit in zip(parts, units, strict=False)) * 10**6
    if fraction:
        return start + int(fraction.ljust(6, "0")), start + int(fraction.ljust(6, "9"))
    return start, start + units[len(parts) - 1] * 10**6 - 1


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _name_matches(key: str, value: str) -> bool:
    """By component group; a key without ``=`` may be meant for any group."""
    groups = [_tidy(group).rstrip("^") for group in value.split("=")]
    wanted = [_tidy(group).rstrip("^") for group in key.split("=")]
    if len(wanted) == 1:
        return any(_group_matches(wanted[0], group) for group in groups if group)
    groups += [""] * 3
    return all(
        _group_matches(one, group) for one, group in zip(wanted, groups, strict=False) if one.strip("*^")
    )


def _tidy(group: str) -> str:
    return "^".join(_fold(component.strip()) for component in group.split("^"))


def _group_matches(key: str, group: str) -> bool:
    # A name without its trailing delimiters is the same name; so is one with those that the key has.
    missing = max(0, key.count("^") - group.count("^"))
    return bool(group) and any(wild_card_matches(key, group + "^" * more) for more in (0, missing))
