"""The rows of patients, studies, series and instances, and of what lies in quarantine.

Every method runs in the caller's transaction. The levels above an instance keep what was said
first; an attribute that was empty is filled by the first instance that knows it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from node.clock import Clock
from node.errors import AlreadyIndexed, DatabaseFailure
from node.index.attributes import COLUMNS, IDENTITY_KEYWORDS, QueryLevel
from node.index.entry import Entry
from node.index.levels import Above, Levels
from node.ingest.header import Header
from node.storage.location import Location


@dataclass(frozen=True)
class Run:
    """The run of an analysis that made a result: kept with it, so that no loss of the index repeats it.

    ``series_instance_uid`` is the series that was analysed, ``kind`` what the result is (``sr``, ``seg``,
    ``sc``), ``number`` its place among the ``objects`` that the run made together. The others are as
    ``analysis_runs.record`` and ``record_selection`` take them. ``facts`` are those that
    some other analysis asks for, and stand with one of the objects.
    """

    analysis: str
    series_instance_uid: str
    revision: int
    started_at: float
    selected_digest: str
    input_digest: str
    model: str
    kind: str
    number: int
    objects: int
    facts: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)

    @classmethod
    def from_facts(cls, stored: Mapping[str, Any]) -> Run:
        """Read what ``Provenance.to_json`` wrote; results of an earlier version have no ``facts``."""
        known = {key: value for key, value in stored.items() if key in cls.__dataclass_fields__}
        known["facts"] = {name: tuple(values) for name, values in known.get("facts", {}).items()}
        return cls(**known)


@dataclass(frozen=True)
class Provenance:
    """Where an instance came from.

    ``association`` is the number that the log shows, ``received_at`` in seconds since the epoch;
    ``own`` means that this node made it, ``run`` says in which analysis. ``imported_from`` is the file
    that a person imported it from, and ``starts_nothing`` means that no route and no analysis follows.
    """

    calling_ae_title: str
    called_ae_title: str
    peer_address: str
    association: int
    received_at: float
    own: bool = False
    run: Run | None = None
    imported_from: str = ""
    starts_nothing: bool = False

    @property
    def sender(self) -> str:
        """Who sent it, or from where it was imported, for people."""
        if self.imported_from:
            return f"imported from {self.imported_from}"
        return f"{self.calling_ae_title} at {self.peer_address}"

    def to_json(self) -> str:
        """Write it as JSON; ``from_json`` reads it back."""
        return self._as_json

    @cached_property
    def _as_json(self) -> str:
        facts = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "run"}
        for name in ("imported_from", "starts_nothing"):
            if not facts[name]:  # as of nearly all, and it is kept with each
                del facts[name]
        return json.dumps(facts if self.run is None else {**facts, "run": asdict(self.run)})

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        """Read what ``to_json`` wrote; unknown keys of a later version are passed over."""
        return cls.from_facts(json.loads(text))

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Provenance:
        """As ``from_json``, of the object that the JSON text stands for."""
        known = {key: value for key, value in facts.items() if key in cls.__dataclass_fields__}
        if known.get("run") is not None:
            known["run"] = Run.from_facts(known["run"])
        return cls(**known)


@dataclass(frozen=True)
class StoredInstance:
    """One held instance: what storage, transcoding and delivery need of it.

    Attributes
    ----------
    data_set_sha256 : str
        In hex, of the data set as received, without File Meta Information.
    data_set_bytes : int
        Its length as received.
    kept_reason : str
        Why a settled instance is stored as received; empty where it is transcoded and proven.
    proof : dict or None
        What was proven when it was settled, in JSON types.
    is_own : bool
        Made by this node, also where a peer sent it back.
    """

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    received_transfer_syntax_uid: str
    stored_transfer_syntax_uid: str
    data_set_sha256: str
    data_set_bytes: int
    location: Location
    is_settled: bool
    kept_reason: str
    proof: dict[str, Any] | None
    is_own: bool
    provenance: Provenance


#: What ``stored_instance`` reads, from ``instance`` joined with ``series`` and ``study``.
STORED_COLUMNS = (
    "instance.SOPInstanceUID, instance.SOPClassUID, series.SeriesInstanceUID, study.StudyInstanceUID,"
    " instance.received_transfer_syntax_uid, instance.stored_transfer_syntax_uid,"
    " instance.data_set_sha256, instance.data_set_bytes, instance.location, instance.is_settled,"
    " instance.kept_reason, instance.proof, instance.is_own, instance.provenance"
)
FROM_INSTANCE = (
    "FROM instance JOIN series ON series.id = instance.series_id JOIN study ON study.id = series.study_id"
)


_INSERTED_COLUMNS = (
    "series_id",
    *COLUMNS[QueryLevel.IMAGE],
    "received_transfer_syntax_uid",
    "stored_transfer_syntax_uid",
    "data_set_sha256",
    "data_set_bytes",
    "stored_bytes",
    "location",
    "segment",
    "is_settled",
    "kept_reason",
    "proof",
    "is_own",
    "provenance",
    "received_at",
    "header",
)
_INSERT = (
    f"INSERT INTO instance ({', '.join(_INSERTED_COLUMNS)})"
    f" VALUES ({', '.join('?' * len(_INSERTED_COLUMNS))})"
)


def stored_instance(row: sqlite3.Row) -> StoredInstance:
    """Make a StoredInstance of a row of ``STORED_COLUMNS``."""
    values = tuple(row)
    return StoredInstance(
        sop_instance_uid=values[0],
        sop_class_uid=values[1],
        series_instance_uid=values[2],
        study_instance_uid=values[3],
        received_transfer_syntax_uid=values[4],
        stored_transfer_syntax_uid=values[5],
        data_set_sha256=values[6],
        data_set_bytes=values[7],
        location=Location.parse(values[8]),
        is_settled=bool(values[9]),
        kept_reason=values[10],
        proof=None if values[11] is None else json.loads(values[11]),
        is_own=bool(values[12]),
        provenance=Provenance.from_json(values[13]),
    )


class Index:
    """The only way to the rows of instances and of the levels above them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._levels = Levels()

    # --- writing -------------------------------------------------------------

    def add(self, connection: sqlite3.Connection, entry: Entry, stored: StoredInstance) -> Above:
        """Add an instance, with the rows above it where they are missing.

        Returns
        -------
        Above
            For ``remember``.

        Raises
        ------
        AlreadyIndexed
            An instance has this SOP Instance UID already. The caller's transaction is to be undone.
        """
        above = self._levels.above(connection, entry, is_own=stored.is_own)
        values = (
            above.series_id,
            *entry.of_image,
            stored.received_transfer_syntax_uid,
            stored.stored_transfer_syntax_uid,
            stored.data_set_sha256,
            stored.data_set_bytes,
            _stored_bytes(stored.proof, stored.data_set_bytes),
            str(stored.location),
            _segment(stored.location),
            stored.is_settled,
            stored.kept_reason,
            None if stored.proof is None else _json(stored.proof),
            stored.is_own,
            stored.provenance.to_json(),
            stored.provenance.received_at,
            _json(entry.difference(above.series_header)),
        )
        try:
            connection.execute(_INSERT, values)
        except sqlite3.IntegrityError as error:
            raise AlreadyIndexed("an instance with this SOP Instance UID is held already") from error
        return above

    def remember(self, entry: Entry, stored: StoredInstance, above: Above) -> None:
        """Make the next ``add`` in this series cheaper; ``forget`` when the transaction fails."""
        self._levels.remember(entry, above, is_own=stored.is_own)

    def forget(self) -> None:
        """Forget what was remembered, because a transaction failed."""
        self._levels.forget()

    def settle(
        self,
        connection: sqlite3.Connection,
        sop_instance_uid: str,
        *,
        location: Location,
        stored_transfer_syntax_uid: str,
        kept_reason: str,
        proof: dict[str, Any] | None,
    ) -> None:
        """Note where and how an instance is stored for good; raise DatabaseFailure when it is unknown."""
        settled = connection.execute(
            "UPDATE instance SET location = ?, segment = ?, stored_transfer_syntax_uid = ?, kept_reason = ?,"
            " proof = ?, stored_bytes = COALESCE(?, data_set_bytes), is_settled = 1 WHERE SOPInstanceUID = ?",
            (
                str(location),
                _segment(location),
                stored_transfer_syntax_uid,
                kept_reason,
                None if proof is None else _json(proof),
                _stored_bytes(proof, None),
                sop_instance_uid,
            ),
        ).rowcount
        if not settled:
            raise DatabaseFailure("an instance that was settled is not in the index")

    def mark_verified(
        self, connection: sqlite3.Connection, sop_instance_uid: str, verified_at: float, problem: str
    ) -> None:
        """Note the outcome of reading an instance back; an empty ``problem`` means that it is good."""
        connection.execute(
            "UPDATE instance SET verified_at = ?, problem = ? WHERE SOPInstanceUID = ?",
            (verified_at, problem, sop_instance_uid),
        )

    # --- instances -----------------------------------------------------------

    def holds(self, connection: sqlite3.Connection, sop_instance_uid: str) -> bool:
        """Whether an instance is held under this UID."""
        row = connection.execute(
            "SELECT 1 FROM instance WHERE SOPInstanceUID = ?", (sop_instance_uid,)
        ).fetchone()
        return row is not None

    def get(self, connection: sqlite3.Connection, sop_instance_uid: str) -> StoredInstance | None:
        """Return the instance of this SOP Instance UID, if it is held."""
        found = self._stored(connection, "WHERE instance.SOPInstanceUID = ?", sop_instance_uid)
        return next(found, None)

    def of_series(self, connection: sqlite3.Connection, series_instance_uid: str) -> list[StoredInstance]:
        """Return the instances of a series, in the order in which they came."""
        where = "WHERE series.SeriesInstanceUID = ? ORDER BY instance.id"
        return list(self._stored(connection, where, series_instance_uid))

    def of_study(self, connection: sqlite3.Connection, study_instance_uid: str) -> list[StoredInstance]:
        """Return the instances of a study, in the order in which they came."""
        where = "WHERE study.StudyInstanceUID = ? ORDER BY instance.id"
        return list(self._stored(connection, where, study_instance_uid))

    def instances(self, connection: sqlite3.Connection) -> Iterator[StoredInstance]:
        """Yield all instances, one at a time, in the order in which they came."""
        return self._stored(connection, "ORDER BY instance.id")

    def count(self, connection: sqlite3.Connection) -> int:
        """How many instances are held."""
        return int(connection.execute("SELECT COUNT(*) FROM instance").fetchone()[0])

    def damaged(
        self, connection: sqlite3.Connection, study_instance_uid: str | None = None
    ) -> list[tuple[str, str]]:
        """SOP Instance UIDs of those last found damaged, in one study or all, each with what was found."""
        # Of one study, only its own instances are looked at.
        where: str = ""
        values: tuple[str, ...] = ()
        if study_instance_uid is not None:
            where, values = " AND study.StudyInstanceUID = ?", (study_instance_uid,)
        rows = connection.execute(
            f"SELECT instance.SOPInstanceUID, instance.problem {FROM_INSTANCE} WHERE instance.problem <> ''"
            f"{where} ORDER BY instance.id",
            values,
        )
        return [(str(row[0]), str(row[1])) for row in rows]

    def longest_unverified(self, connection: sqlite3.Connection, limit: int) -> list[str]:
        """SOP Instance UIDs of those that were never verified, then of those longest ago."""
        rows = connection.execute(
            "SELECT SOPInstanceUID FROM instance ORDER BY verified_at IS NOT NULL, verified_at, id LIMIT ?",
            (limit,),
        )
        return [row[0] for row in rows]

    def instances_named(
        self, connection: sqlite3.Connection, wanted: str, *, is_end: bool, limit: int
    ) -> list[str]:
        """SOP Instance UIDs that are ``wanted``, or begin with it, or with ``is_end`` end with it."""
        if is_end:
            where, values = "substr(SOPInstanceUID, -length(?)) = ?", (wanted, wanted)
        else:
            # by the index: what begins with it lies before what begins with the next text
            where, values = "SOPInstanceUID >= ? AND SOPInstanceUID < ?", (wanted, wanted + "~")
        rows = connection.execute(
            f"SELECT SOPInstanceUID FROM instance WHERE {where} ORDER BY SOPInstanceUID LIMIT ?",
            (*values, limit),
        ).fetchall()
        found = [str(row[0]) for row in rows]
        return [wanted] if wanted in found else found

    def at(self, connection: sqlite3.Connection, location: Location) -> StoredInstance | None:
        """Return the instance whose bytes are at ``location``."""
        where = "WHERE instance.segment = ? AND instance.segment <> '' AND instance.location = ?"
        if location.kind == "archive":
            where = "WHERE instance.segment = ? AND instance.location = ?"
        return next(self._stored(connection, where, _segment(location), str(location)), None)

    def _stored(
        self, connection: sqlite3.Connection, where: str, *values: object
    ) -> Iterator[StoredInstance]:
        rows = connection.execute(f"SELECT {STORED_COLUMNS} {FROM_INSTANCE} {where}", values)
        return map(stored_instance, rows)

    # --- the receive log and the archive ---------------------------------------

    def is_known_location(self, connection: sqlite3.Connection, location: Location) -> bool:
        """Whether an instance or something in quarantine is at ``location``."""
        values = {"segment": _segment(location), "location": str(location)}
        condition = "segment = :segment AND location = :location"
        if location.kind == "log":
            condition += " AND segment <> ''"  # the condition of the partial index
        row = connection.execute(
            f"SELECT EXISTS (SELECT 1 FROM instance WHERE {condition})"
            f" OR EXISTS (SELECT 1 FROM quarantine WHERE {condition})",
            values,
        ).fetchone()
        return bool(row[0])

    def of_segment(self, connection: sqlite3.Connection, segment: str) -> list[StoredInstance]:
        """Return the instances whose bytes are in a receive log segment."""
        where = "WHERE instance.segment = ? AND instance.segment <> ''"
        return list(self._stored(connection, where, segment))

    def move(
        self, connection: sqlite3.Connection, sop_instance_uid: str, *, held_at: Location, location: Location
    ) -> bool:
        """Note that what waits to be settled lies elsewhere now; False when it was not at ``held_at``."""
        moved = connection.execute(
            "UPDATE instance SET location = ?, segment = ? WHERE SOPInstanceUID = ? AND location = ?",
            (str(location), _segment(location), sop_instance_uid, str(held_at)),
        ).rowcount
        return moved > 0

    def in_segment(self, connection: sqlite3.Connection, segment: str) -> int:
        """How many records of a receive log segment are still needed."""
        row = connection.execute(
            "SELECT (SELECT COUNT(*) FROM instance WHERE segment = :segment AND segment <> '')"
            " + (SELECT COUNT(*) FROM quarantine WHERE segment = :segment AND segment <> '')",
            {"segment": segment},
        ).fetchone()
        return int(row[0])

    def segments(self, connection: sqlite3.Connection) -> set[str]:
        """Names of the receive log segments that hold anything the index knows."""
        rows = connection.execute(
            "SELECT DISTINCT segment FROM instance WHERE segment <> ''"
            " UNION SELECT DISTINCT segment FROM quarantine WHERE segment <> ''"
        )
        return {row[0] for row in rows}

    def mark_segment(
        self, connection: sqlite3.Connection, segment: str, found_at: float, problem: str
    ) -> int:
        """Note a problem of all instances in a receive log segment; return how many there are."""
        return connection.execute(
            "UPDATE instance SET verified_at = ?, problem = ? WHERE segment = ? AND segment <> ''",
            (found_at, problem, segment),
        ).rowcount

    def note_rebuilt(self, connection: sqlite3.Connection) -> None:
        """Note that this index was made from what was held already."""
        connection.execute(
            "INSERT INTO meta (key, value) VALUES ('rebuilt_at', ?)", (str(self._clock.timestamp()),)
        )

    def rebuilt_at(self, connection: sqlite3.Connection) -> float | None:
        """When that was; None where it was not."""
        row = connection.execute("SELECT value FROM meta WHERE key = 'rebuilt_at'").fetchone()
        return None if row is None else float(row[0])

    def holds_any(self, connection: sqlite3.Connection) -> bool:
        """Whether any instance is held."""
        return connection.execute("SELECT 1 FROM instance LIMIT 1").fetchone() is not None

    def holds_settled(self, connection: sqlite3.Connection) -> bool:
        """Whether any instance lies in the archive."""
        row = connection.execute("SELECT 1 FROM instance WHERE segment = '' LIMIT 1").fetchone()
        return row is not None

    # --- quarantine ------------------------------------------------------------

    def quarantine(
        self,
        connection: sqlite3.Connection,
        header: Header,
        *,
        location: Location,
        transfer_syntax_uid: str,
        data_set_sha256: str,
        data_set_bytes: int,
        provenance: Provenance,
        reason: str,
    ) -> bool:
        """Note other content under a known SOP Instance UID; False when the same is noted already."""
        return (
            connection.execute(
                "INSERT INTO quarantine (sop_instance_uid, sop_class_uid, series_instance_uid,"
                " study_instance_uid, location, segment, transfer_syntax_uid, data_set_sha256,"
                " data_set_bytes, provenance, reason, received_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (
                    header.sop_instance_uid,
                    header.sop_class_uid,
                    header.series_instance_uid,
                    header.study_instance_uid,
                    str(location),
                    _segment(location),
                    transfer_syntax_uid,
                    data_set_sha256,
                    data_set_bytes,
                    provenance.to_json(),
                    reason,
                    provenance.received_at,
                ),
            ).rowcount
            > 0
        )

    def quarantined(self, connection: sqlite3.Connection) -> list[dict[str, Any]]:
        """List what lies in quarantine, one key for each column; location and provenance as objects."""
        rows = connection.execute("SELECT * FROM quarantine ORDER BY id")
        return [
            {
                **dict(row),
                "location": Location.parse(row["location"]),
                "provenance": Provenance.from_json(row["provenance"]),
            }
            for row in rows
        ]

    def settle_quarantine(
        self, connection: sqlite3.Connection, quarantine_id: int, location: Location
    ) -> None:
        """Note that something in quarantine has moved."""
        connection.execute(
            "UPDATE quarantine SET location = ?, segment = ? WHERE id = ?",
            (str(location), _segment(location), quarantine_id),
        )

    # --- repair ----------------------------------------------------------------

    def repair(
        self,
        connection: sqlite3.Connection,
        sop_instance_uid: str,
        *,
        damaged: Location,
        location: Location,
    ) -> bool:
        """Point an instance at its received bytes, which have come again; they wait to be settled anew.

        Returns whether it was done: not when the instance is no longer at ``damaged``.
        """
        repaired = connection.execute(
            "UPDATE instance SET location = ?, segment = ?, is_settled = 0, kept_reason = '', proof = NULL,"
            " stored_transfer_syntax_uid = received_transfer_syntax_uid, stored_bytes = data_set_bytes,"
            " verified_at = NULL, problem = '' WHERE SOPInstanceUID = ? AND location = ?",
            (str(location), _segment(location), sop_instance_uid, str(damaged)),
        ).rowcount
        return repaired > 0

    # --- headers ---------------------------------------------------------------

    def header_of(self, connection: sqlite3.Connection, sop_instance_uid: str) -> dict[str, str]:
        """Return what is kept of an instance's header, by keyword; empty when it is not held."""
        row = connection.execute(
            f"SELECT instance.id, series.id, study.id {FROM_INSTANCE} WHERE instance.SOPInstanceUID = ?",
            (sop_instance_uid,),
        ).fetchone()
        return {} if row is None else self._header(connection, *row)

    def series_headers(self, connection: sqlite3.Connection, study_instance_uid: str) -> list[dict[str, str]]:
        """Return a header for each series of a study, in the order in which the series came.

        It is that of the first instance of the series, but SOPClassUID has those of all instances,
        and ``instances`` how many they are. ``is_own`` is "1" where this node made all of them, else
        empty.
        """
        rows = connection.execute(
            "SELECT MIN(instance.id), series.id, study.id, COUNT(*), MIN(instance.is_own),"
            f" GROUP_CONCAT(DISTINCT instance.SOPClassUID) {FROM_INSTANCE}"
            " WHERE study.StudyInstanceUID = ? GROUP BY series.id ORDER BY series.id",
            (study_instance_uid,),
        ).fetchall()
        return [
            {
                **self._header(connection, *tuple(row)[:3]),
                "SOPClassUID": row[5].replace(",", "\\"),
                "instances": str(row[3]),
                "is_own": "1" if row[4] else "",
            }
            for row in rows
        ]

    def _header(
        self, connection: sqlite3.Connection, instance_id: int, series_id: int, study_id: int
    ) -> dict[str, str]:
        """Merge the columns of all levels with the header of the instance, which has the last word."""
        merged: dict[str, str] = {}
        rows = {
            QueryLevel.PATIENT: "SELECT patient.* FROM patient"
            " JOIN study ON study.patient_id = patient.id WHERE study.id = ?",
            QueryLevel.STUDY: "SELECT * FROM study WHERE id = ?",
            QueryLevel.SERIES: "SELECT * FROM series WHERE id = ?",
            QueryLevel.IMAGE: "SELECT * FROM instance WHERE id = ?",
        }
        ids = (study_id, study_id, series_id, instance_id)
        for (level, statement), row_id in zip(rows.items(), ids, strict=True):
            row = connection.execute(statement, (row_id,)).fetchone()
            keywords = IDENTITY_KEYWORDS if level == QueryLevel.PATIENT else COLUMNS[level]
            merged |= {keyword: row[keyword] for keyword in keywords}
            if level in (QueryLevel.SERIES, QueryLevel.IMAGE):
                merged |= json.loads(row["header"])
        return {keyword: text for keyword, text in merged.items() if text}

    # --- for people ------------------------------------------------------------

    def counts(self, connection: sqlite3.Connection) -> dict[str, Any]:
        """Count what is held.

        Keys: patients, studies, series, instances, unsettled, quarantined, damaged, received_bytes,
        stored_bytes, last_received_at (None when nothing was received).
        """
        row = connection.execute(
            "SELECT (SELECT COUNT(*) FROM patient) AS patients, (SELECT COUNT(*) FROM study) AS studies,"
            " (SELECT COUNT(*) FROM series) AS series, COUNT(*) AS instances,"
            " COALESCE(SUM(NOT is_settled), 0) AS unsettled,"
            " (SELECT COUNT(*) FROM quarantine) AS quarantined, COALESCE(SUM(problem <> ''), 0) AS damaged,"
            " COALESCE(SUM(data_set_bytes), 0) AS received_bytes,"
            " COALESCE(SUM(stored_bytes), 0) AS stored_bytes, MAX(received_at) AS last_received_at"
            " FROM instance"
        ).fetchone()
        return dict(row)

    def studies(
        self, connection: sqlite3.Connection, *, limit: int, study_instance_uid: str | None = None
    ) -> list[dict[str, Any]]:
        """List studies, those that began last first, or the one with ``study_instance_uid``.

        Keys: StudyInstanceUID, StudyDate, StudyTime, StudyDescription, AccessionNumber, PatientID,
        PatientName, ModalitiesInStudy (joined by a backslash), series, instances, data_set_bytes,
        last_received_at.
        """
        rows = connection.execute(
            "SELECT study.StudyInstanceUID, study.StudyDate, study.StudyTime, study.StudyDescription,"
            " study.AccessionNumber, patient.PatientID, study.PatientName,"
            " REPLACE(GROUP_CONCAT(DISTINCT series.Modality), ',', '\\') AS ModalitiesInStudy,"
            " COUNT(DISTINCT series.id) AS series, COUNT(*) AS instances,"
            " SUM(instance.data_set_bytes) AS data_set_bytes, MAX(instance.received_at) AS last_received_at"
            f" {FROM_INSTANCE} JOIN patient ON patient.id = study.patient_id"
            " WHERE study.id IN (SELECT id FROM study WHERE :study IS NULL OR StudyInstanceUID = :study"
            " ORDER BY id DESC LIMIT :limit) GROUP BY study.id ORDER BY study.id DESC",
            {"study": study_instance_uid, "limit": limit},
        )
        return [dict(row) for row in rows]

    def studies_named(self, connection: sqlite3.Connection, wanted: str, *, limit: int) -> list[str]:
        """Return Study Instance UIDs that are ``wanted``, begin or end with it, or whose accession is it."""
        rows = connection.execute(
            "SELECT StudyInstanceUID, StudyInstanceUID = :wanted AS is_exact FROM study"
            " WHERE StudyInstanceUID = :wanted OR AccessionNumber = :wanted"
            " OR substr(StudyInstanceUID, 1, length(:wanted)) = :wanted"
            " OR substr(StudyInstanceUID, -length(:wanted)) = :wanted"
            " ORDER BY is_exact DESC, id DESC LIMIT :limit",
            {"wanted": wanted, "limit": limit},
        ).fetchall()
        if rows and rows[0]["is_exact"]:
            return [wanted]
        return [row["StudyInstanceUID"] for row in rows]


def _segment(location: Location) -> str:
    """Name of the receive log segment; empty in the archive."""
    return location.path if location.kind == "log" else ""


_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _stored_bytes(proof: dict[str, Any] | None, default: int | None) -> int | None:
    """Length of the stored data set, which the proof of a settled instance tells."""
    stored = (proof or {}).get("stored")
    length = stored.get("length") if isinstance(stored, dict) else None
    return int(length) if isinstance(length, int) else default
