"""Identifiers of C-FIND, C-MOVE and C-GET against the index (PS3.4 sections C.2 to C.4 and C.6)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from node.errors import IdentifierInvalid
from node.index.attributes import (
    IDENTITY_KEYWORDS,
    LEVEL_OF,
    LEVELS,
    UNIQUE_KEYS,
    QueryLevel,
    folded_columns,
    has_many_values,
    value_representation,
)
from node.index.character_set import CharacterSet
from node.index.index import FROM_INSTANCE, STORED_COLUMNS, StoredInstance, stored_instance
from node.index.index_values import data_set_character_set, element_text
from node.query import query_matching
from node.query.query_matching import Condition, Subject, condition, is_universal
from node.query.query_response import ReturnKey

__all__ = [
    "Query",
    "QueryLevel",
    "columns_of",
    "conditions_of",
    "constants_of",
    "instances_to_retrieve",
    "parse_identifier",
    "retrieve_keys",
    "source_of",
]

Model = Literal["patient", "study", "patient-study-only"]

# These tell how to read the Identifier and are no keys of it: Specific Character Set, Query/Retrieve
# Level, Query/Retrieve View, Timezone Offset From UTC.
_NO_KEYS = frozenset({0x00080005, 0x00080052, 0x00080053, 0x00080201})
_MOST_KEYS = 1000
# characters of all keys that are no UIDs, and comparisons with each entity
_MOST_CHARACTERS = 1 << 15
_MOST_COMPARED = 5000
_TABLES = {
    QueryLevel.PATIENT: "patient",
    QueryLevel.STUDY: "study",
    QueryLevel.SERIES: "series",
    QueryLevel.IMAGE: "instance",
}
_PATIENT_OF_STUDY = "JOIN patient ON patient.id = study.patient_id"
_STUDY_OF_SERIES = "JOIN study ON study.id = series.study_id"
_FROM = {
    QueryLevel.PATIENT: "patient",
    QueryLevel.STUDY: f"study {_PATIENT_OF_STUDY}",
    QueryLevel.SERIES: f"series {_STUDY_OF_SERIES} {_PATIENT_OF_STUDY}",
    QueryLevel.IMAGE: f"instance JOIN series ON series.id = instance.series_id {_STUDY_OF_SERIES}"
    f" {_PATIENT_OF_STUDY}",
}
_IN_STUDY = "FROM instance AS i JOIN series AS s ON s.id = i.series_id WHERE s.study_id = study.id"
# Attributes that are computed: the level to which they belong, and their text.
_COMPUTED = {
    "NumberOfPatientRelatedStudies": (
        QueryLevel.PATIENT,
        "(SELECT COUNT(*) FROM study AS other WHERE other.patient_id = patient.id)",
    ),
    "NumberOfPatientRelatedSeries": (
        QueryLevel.PATIENT,
        "(SELECT COUNT(*) FROM study AS other JOIN series AS s ON s.study_id = other.id"
        " WHERE other.patient_id = patient.id)",
    ),
    "NumberOfPatientRelatedInstances": (
        QueryLevel.PATIENT,
        "(SELECT COUNT(*) FROM study AS other JOIN series AS s ON s.study_id = other.id"
        " JOIN instance AS i ON i.series_id = s.id WHERE other.patient_id = patient.id)",
    ),
    "NumberOfStudyRelatedSeries": (
        QueryLevel.STUDY,
        "(SELECT COUNT(*) FROM series AS s WHERE s.study_id = study.id)",
    ),
    "NumberOfStudyRelatedInstances": (QueryLevel.STUDY, f"(SELECT COUNT(*) {_IN_STUDY})"),
    "ModalitiesInStudy": (
        QueryLevel.STUDY,
        "(SELECT COALESCE(GROUP_CONCAT(Modality, '\\'), '') FROM (SELECT DISTINCT s.Modality"
        " FROM series AS s WHERE s.study_id = study.id AND s.Modality <> '' ORDER BY s.Modality))",
    ),
    "SOPClassesInStudy": (
        QueryLevel.STUDY,
        "(SELECT COALESCE(GROUP_CONCAT(SOPClassUID, '\\'), '') FROM"
        f" (SELECT DISTINCT i.SOPClassUID {_IN_STUDY} ORDER BY i.SOPClassUID))",
    ),
    "NumberOfSeriesRelatedInstances": (
        QueryLevel.SERIES,
        "(SELECT COUNT(*) FROM instance AS i WHERE i.series_id = series.id)",
    ),
}
# What these keys are matched with, where it is not the text itself: any row that makes it.
_MATCHED_WITHIN = {
    "ModalitiesInStudy": (
        "s.Modality",
        "EXISTS (SELECT 1 FROM series AS s WHERE s.study_id = study.id AND {})",
    ),
    "SOPClassesInStudy": ("i.SOPClassUID", f"EXISTS (SELECT 1 {_IN_STUDY} AND {{}})"),
}
# The same for all that is held here.
_CONSTANT = frozenset({"InstanceAvailability", "RetrieveAETitle"})
_ONLINE = "ONLINE"


@dataclass(frozen=True)
class Key:
    """One attribute of an Identifier. ``text`` is its value, normalised as in the index."""

    tag: int
    keyword: str
    vr: str
    text: str


@dataclass(frozen=True)
class Query:
    """A C-FIND Identifier, understood.

    Attributes
    ----------
    level : QueryLevel
        What is counted as a match.
    model : str
        The information model: ``patient``, ``study`` or ``patient-study-only``.
    keys : tuple of Key
        All that was asked for.
    unsupported : frozenset of int
        Tags of the keys that the index does not know at this level. They are not returned, and
        their values are not matched.
    character_set : CharacterSet
        That of the Identifier.
    """

    level: QueryLevel
    model: Model
    keys: tuple[Key, ...]
    unsupported: frozenset[int]
    character_set: CharacterSet

    @property
    def has_unsupported_keys(self) -> bool:
        """Whether the status of the responses is FF01 (PS3.4 table C.4-1)."""
        return bool(self.unsupported)


# --- reading Identifiers --------------------------------------------------------


def parse_identifier(identifier: Dataset, model: Model) -> Query:
    """Read the Identifier of a C-FIND-RQ (PS3.4 section C.4.1.1.3.1).

    The Unique Keys of the study and series above the level have to be there with a single value.
    Patient ID has not, as there are patients without one. Other keys of the levels above are
    matched and answered too.

    Raises
    ------
    IdentifierInvalid
        The level is none of the model, a Unique Key above it is missing, or a key has a value that
        its value representation does not allow.
    """
    level = _level(identifier, model)
    keys = tuple(_keys(identifier))
    for above in LEVELS[1 : LEVELS.index(level)]:
        _require_single(keys, UNIQUE_KEYS[above], level)
    if sum(len(key.text) for key in keys if key.vr != "UI") > _MOST_CHARACTERS:
        raise IdentifierInvalid(f"the keys have more than {_MOST_CHARACTERS} characters")
    unsupported = frozenset(
        key.tag for key in keys if key.keyword not in _CONSTANT and _expression(key, level) is None
    )
    query = Query(level, model, keys, unsupported, data_set_character_set(identifier))
    conditions_of(query, "")  # for its errors, before the first answer
    return query


def _level(identifier: Dataset, model: Model) -> QueryLevel:
    # ``get_item`` would decode it where it is empty, and fail at a VR that there is not
    element = dict(identifier.items()).get(BaseTag(0x00080052))
    text = None if element is None else element_text(element, "CS", CharacterSet())
    levels = {"study": LEVELS[1:], "patient-study-only": LEVELS[:2]}.get(model, LEVELS)
    if not text:
        raise IdentifierInvalid("Query/Retrieve Level (0008,0052) is missing")
    if text.upper() not in levels:
        raise IdentifierInvalid(f"Query/Retrieve Level (0008,0052) is none of {', '.join(levels)}")
    return QueryLevel(text.upper())


def _keys(identifier: Dataset) -> Iterator[Key]:
    charset = data_set_character_set(identifier)
    order = ">" if identifier.original_encoding[1] is False else "<"
    if len(identifier) > _MOST_KEYS:
        raise IdentifierInvalid(f"the Identifier has more than {_MOST_KEYS} keys")
    for tag, element in identifier.items():
        number = int(tag)
        if number in _NO_KEYS or not number & 0xFFFF or number >> 16 < 8 or _is_creator(number):
            continue
        keyword = "" if number >> 16 & 1 else keyword_for_tag(number)
        vr = dictionary_VR(number).split(" or ")[0] if keyword else (element.VR or "UN")
        text = element_text(element, vr, charset, order) if keyword and _is_plain(vr) else ""
        if text is None or (not text and _says_something(element.value)):
            raise IdentifierInvalid(f"the value of ({number >> 16:04X},{number & 0xFFFF:04X}) cannot be read")
        if "\0" in text:
            # SQLite ends patterns and lists there, so that too much would match
            raise IdentifierInvalid(f"({number >> 16:04X},{number & 0xFFFF:04X}) has a NUL inside its value")
        yield Key(number, keyword, vr, text)


def _says_something(value: object) -> bool:
    """Whether an encoded value is more than padding, so that it must not be taken for an empty one."""
    return isinstance(value, bytes) and bool(value.strip(b" \0"))


def _is_creator(tag: int) -> bool:
    """Whether this reserves a block of private elements (PS3.5 section 7.8.1)."""
    return bool(tag >> 16 & 1) and 0x0010 <= tag & 0xFFFF <= 0x00FF


def _require_single(keys: tuple[Key, ...], keyword: str, level: QueryLevel) -> None:
    text = next((key.text for key in keys if key.keyword == keyword), "")
    if is_universal("UI", text):
        raise IdentifierInvalid(f"{keyword} is missing, a key of level {level} needs it")
    if "\\" in text:
        raise IdentifierInvalid(f"{keyword} has several values above level {level}")


# --- SQL --------------------------------------------------------------------------


def _expression(key: Key, level: QueryLevel) -> str | None:
    """SQL for the text of an attribute, as seen from a level; None where the index does not know it."""
    if key.keyword in _COMPUTED:
        of_level, sql = _COMPUTED[key.keyword]
        return f"CAST({sql} AS TEXT)" if of_level in _down_to(level) else None
    of_level_or_none = LEVEL_OF.get(key.keyword)
    if of_level_or_none in _down_to(level):
        if of_level_or_none == QueryLevel.PATIENT != level and key.keyword not in IDENTITY_KEYWORDS:
            # below the patient, what the instances of the study say
            of_level_or_none = QueryLevel.STUDY
        return f"{_TABLES[of_level_or_none]}.{key.keyword}"
    if level == QueryLevel.IMAGE and key.keyword and _is_plain(key.vr):
        path = f"'$.{key.keyword}'"
        return f"COALESCE(json_extract(instance.header, {path}), json_extract(series.header, {path}), '')"
    return None


def _down_to(level: QueryLevel) -> tuple[QueryLevel, ...]:
    return LEVELS[: LEVELS.index(level) + 1]


def _is_plain(vr: str) -> bool:
    return vr != "SQ" and not vr.startswith("O") and vr != "UN"


def conditions_of(query: Query, ae_title: str) -> Condition:
    """All that a match has to meet; ``ae_title`` is that of this node."""
    found = [
        _key_condition(key, query.level, ae_title) for key in query.keys if key.tag not in query.unsupported
    ]
    wanted = query_matching.joined("AND", [one for one in found if one.sql])
    if len(wanted.values) > _MOST_COMPARED:
        raise IdentifierInvalid(f"the Identifier asks for more than {_MOST_COMPARED} comparisons")
    return wanted


def _key_condition(key: Key, level: QueryLevel, ae_title: str) -> Condition:
    if key.keyword in _CONSTANT:
        if is_universal(key.vr, key.text):
            return Condition()
        text = ae_title if key.keyword == "RetrieveAETitle" else _ONLINE
        return Condition("1" if query_matching.any_value_matches(text, key.vr, key.text) else "0")
    if key.keyword in _MATCHED_WITHIN:
        column, exists = _MATCHED_WITHIN[key.keyword]
        within = condition(Subject(column, key.vr), key.text)
        return Condition(exists.format(within.sql), within.values) if within.sql else within
    expression = _expression(key, level)
    if expression is None:
        return Condition()
    is_column = LEVEL_OF.get(key.keyword) in _down_to(level)
    table = expression.partition(".")[0]
    names = tuple(f"{table}.{name}" for name in folded_columns(key.keyword)) if is_column else ()
    is_many = has_many_values(key.keyword) or (key.vr == "PN" and not names)
    return condition(Subject(expression, key.vr, is_many, names), key.text)


def columns_of(query: Query) -> tuple[list[str], list[ReturnKey]]:
    """SQL of the texts that the responses need, and what they are."""
    columns: list[str] = []
    returned = []
    for key in query.keys:
        sql = _expression(key, query.level)
        # PS3.4 section C.2.2.1.3: a key that is not supported for existence is not returned
        if sql is not None:
            returned.append(ReturnKey(key.tag, key.vr, len(columns)))
            columns.append(sql)
    return columns, returned


def source_of(query: Query) -> tuple[str, str]:
    """SQL of the row id of a match, and of the tables that it and the columns come from."""
    return f"{_TABLES[query.level]}.id", _FROM[query.level]


def constants_of(query: Query, ae_title: str) -> tuple[tuple[int, str, str], ...]:
    """Tag, value representation and text of what every response says alike."""
    return (
        (0x00080052, "CS", query.level.value),
        (0x00080054, "AE", ae_title),
        (0x00080056, "CS", _ONLINE),
    )


# --- retrieval --------------------------------------------------------------------


@dataclass(frozen=True)
class RetrieveKeys:
    """What a C-MOVE or C-GET asks for: values of the Unique Keys, those of the level among them."""

    level: QueryLevel
    values: tuple[tuple[str, tuple[str, ...]], ...]


def retrieve_keys(identifier: Dataset, model: Model) -> RetrieveKeys:
    """Read the Identifier of a C-MOVE-RQ or C-GET-RQ (PS3.4 section C.4.2.1.4).

    The Unique Key of the level has to be there, a list of UIDs where it is one. Those above narrow
    it down where they are there: a UID names one instance by itself.

    Raises
    ------
    IdentifierInvalid
        The level is none of the model, or its Unique Key is missing.
    """
    level = _level(identifier, model)
    keys = {key.keyword: key for key in _keys(identifier)}
    found = []
    for each in _down_to(level):
        keyword = UNIQUE_KEYS[each]
        text = keys[keyword].text if keyword in keys else ""
        if each == level and not text:
            raise IdentifierInvalid(f"{keyword} is missing, which a retrieval at level {level} needs")
        values = [text] if value_representation(keyword) != "UI" else [uid for uid in text.split("\\") if uid]
        if text:
            found.append((keyword, tuple(values)))
    return RetrieveKeys(level, tuple(found))


def instances_to_retrieve(
    connection: sqlite3.Connection, identifier: Dataset, model: Model
) -> list[StoredInstance]:
    """Return the instances that a C-MOVE-RQ or C-GET-RQ asks for, in the order in which they came.

    Raises
    ------
    IdentifierInvalid
        As ``retrieve_keys``.
    """
    wanted = retrieve_keys(identifier, model)
    conditions = [_unique_key(keyword, values) for keyword, values in wanted.values]
    rows = connection.execute(
        f"SELECT {STORED_COLUMNS} {FROM_INSTANCE} {_PATIENT_OF_STUDY}"
        f" WHERE {' AND '.join(one.sql for one in conditions)} ORDER BY instance.id",
        tuple(value for one in conditions for value in one.values),
    )
    return [stored_instance(row) for row in rows]


def _unique_key(keyword: str, values: tuple[str, ...]) -> Condition:
    column = f"{_TABLES[LEVEL_OF[keyword]]}.{keyword}"
    return query_matching.one_of(column, list(values))
