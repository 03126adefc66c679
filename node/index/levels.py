"""The rows above an instance: its series, study and patient.

They keep what was said first; an attribute that was empty is filled by the first instance that
knows it. Most instances say of their series and study what the one before said: that is remembered,
so that nothing has to be read or compared again.
"""

from __future__ import annotations

import json
import sqlite3
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

from node.index import identity
from node.index.attributes import QueryLevel
from node.index.entry import Entry

_MOST_STUDIES = 256
_MOST_SERIES = 1024


class Above(NamedTuple):
    """Rows above an instance, and the header that all instances of its series share."""

    study_id: int
    series_id: int
    series_header: dict[str, str]


@dataclass
class _Study:
    """What was said of a study last, and what of each of its series."""

    said: tuple[bool, tuple[str | None, ...]]
    series: dict[str, tuple[tuple[str | None, ...], Above]] = field(default_factory=dict)


class Levels:
    """Finds, makes and fills the rows above instances, in the caller's transaction."""

    def __init__(self) -> None:
        self._studies: OrderedDict[str, _Study] = OrderedDict()

    def above(self, connection: sqlite3.Connection, entry: Entry, *, is_own: bool) -> Above:
        """Rows above an instance, as they are once it has been added."""
        return self._remembered(connection, entry, is_own) or self._settled(connection, entry, is_own)

    def remember(self, entry: Entry, above: Above, *, is_own: bool) -> None:
        """Remember what an instance said; ``forget`` when its transaction fails."""
        study_instance_uid = entry.study_instance_uid
        said = (is_own, entry.of_study)
        study = self._studies.get(study_instance_uid)
        if study is None or study.said != said or len(study.series) >= _MOST_SERIES:
            # What others said may count again, now that the study says something else.
            self._studies[study_instance_uid] = study = _Study(said)
            while len(self._studies) > _MOST_STUDIES:
                self._studies.popitem(last=False)
        study.series[entry.series_instance_uid] = entry.of_series, above

    def forget(self) -> None:
        """Forget all that was said."""
        self._studies = OrderedDict()

    def _remembered(self, connection: sqlite3.Connection, entry: Entry, is_own: bool) -> Above | None:
        study = self._studies.get(entry.study_instance_uid)
        if study is None or study.said != (is_own, entry.of_study):
            return None
        series_instance_uid = entry.series_instance_uid
        said, above = study.series.get(series_instance_uid, (None, None))
        if above is None or said != entry.of_series:
            return None
        is_there = connection.execute(
            "SELECT 1 FROM series WHERE id = ? AND study_id = ? AND SeriesInstanceUID = ?",
            (above.series_id, above.study_id, series_instance_uid),
        ).fetchone()
        return above if is_there else None

    def _settled(self, connection: sqlite3.Connection, entry: Entry, is_own: bool) -> Above:
        study_id = self._study(connection, entry, is_own)
        series_id, header = self._series(connection, study_id, entry)
        return Above(study_id, series_id, header)

    def _study(self, connection: sqlite3.Connection, entry: Entry, is_own: bool) -> int:
        values = entry.values
        uid = values["StudyInstanceUID"]
        row = connection.execute("SELECT * FROM study WHERE StudyInstanceUID = ?", (uid,)).fetchone()
        columns = identity.column_values(QueryLevel.STUDY, values)
        if row is None:
            patient_id = identity.patient_row(connection, values)
            study_id = identity.insert(
                connection, "study", {"patient_id": patient_id, "says_patient": 1, **columns}
            )
        else:
            study_id = int(row["id"])
            if identity.settle_patient(connection, row, values):
                identity.complete(connection, "study", row, columns)
        if not is_own:
            # What this node made repeats its source, mended where that was odd.
            identity.name_person(connection, study_id, identity.Person.of(values))
        return study_id

    def _series(
        self, connection: sqlite3.Connection, study_id: int, entry: Entry
    ) -> tuple[int, dict[str, str]]:
        """Row of the series within the study, and the header that its instances share."""
        values = entry.values
        row = connection.execute(
            "SELECT * FROM series WHERE SeriesInstanceUID = ? AND study_id = ?",
            (values["SeriesInstanceUID"], study_id),
        ).fetchone()
        columns = identity.column_values(QueryLevel.SERIES, values)
        if row is None:
            header = json.dumps(entry.kept, ensure_ascii=False, separators=(",", ":"))
            row_id = identity.insert(
                connection, "series", {"study_id": study_id, "header": header, **columns}
            )
            return row_id, entry.kept
        identity.complete(connection, "series", row, columns)
        return int(row["id"]), json.loads(row["header"])
