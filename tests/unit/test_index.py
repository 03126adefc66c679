"""The rows of instances and of the levels above them."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from node.clock import Clock
from node.errors import AlreadyIndexed, AnodeError, DatabaseFailure
from node.index import schema
from node.index.database import Database
from node.index.entry import Entry
from node.index.index import Provenance, Run
from node.storage.location import Location
from tests.support.data import SHARED, require_data
from tests.support.indexed import Indexed, header_of, header_of_file, indexed, stored_of
from tests.support.made import ct_image, instance

UIDS = {"study_instance_uid": "1.1", "series_instance_uid": "1.1.1"}


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Indexed]:
    with indexed(tmp_path) as opened:
        yield opened


def test_what_was_added_is_given_back(index: Indexed) -> None:
    (stored,) = index.add(instance(**UIDS))
    with index.database.read() as connection:
        assert index.index.get(connection, stored.sop_instance_uid) == stored
        assert index.index.of_series(connection, "1.1.1") == [stored]
        assert index.index.of_study(connection, "1.1") == [stored]
        assert list(index.index.instances(connection)) == [stored]
        assert index.index.at(connection, stored.location) == stored
        assert index.index.get(connection, "9.9") is None
        assert index.index.at(connection, replace(stored.location, offset=1)) is None


def test_a_second_instance_of_the_same_uid_is_refused_and_changes_nothing(index: Indexed) -> None:
    index.add(instance(sop_instance_uid="1.1.1.1", **UIDS))
    with pytest.raises(AlreadyIndexed):
        index.add(instance(sop_instance_uid="1.1.1.1", study_instance_uid="2.2", PatientID="OTHER"))
    assert index.rows("SELECT StudyInstanceUID FROM study") == [("1.1",)]
    assert index.rows("SELECT COUNT(*) FROM patient") == [(1,)]


def test_a_series_uid_under_two_studies_is_two_series(index: Indexed) -> None:
    index.add(
        instance(study_instance_uid="1.1", series_instance_uid="7.7"),
        instance(study_instance_uid="2.2", series_instance_uid="7.7"),
    )
    with index.database.read() as connection:
        assert len(index.index.of_series(connection, "7.7")) == 2
        assert len(index.index.of_study(connection, "1.1")) == 1


def test_settling_moves_an_instance_out_of_its_segment(index: Indexed) -> None:
    (stored,) = index.add(instance(**UIDS))
    archived = Location("archive", "abc/x.dcm")
    proof = {"stored": {"length": 400}}

    def settle(connection, uid: str = stored.sop_instance_uid) -> None:
        index.index.settle(
            connection,
            uid,
            location=archived,
            stored_transfer_syntax_uid="1.2.840.10008.1.2.4.80",
            kept_reason="",
            proof=proof,
        )

    with index.database.read() as connection:
        assert index.index.in_segment(connection, "00000001") == 1
        assert not index.index.holds_settled(connection)
    index.database.write(settle)
    with index.database.read() as connection:
        assert index.index.in_segment(connection, "00000001") == 0
        assert index.index.holds_settled(connection)
        assert index.index.is_known_location(connection, archived)
        assert not index.index.is_known_location(connection, stored.location)
        settled = index.index.get(connection, stored.sop_instance_uid)
        assert index.index.at(connection, archived) == settled
        counts = index.index.counts(connection)
    assert settled is not None
    assert (settled.is_settled, settled.location, settled.proof) == (True, archived, proof)
    assert (counts["received_bytes"], counts["stored_bytes"], counts["unsettled"]) == (1000, 400, 0)
    with pytest.raises(DatabaseFailure):
        index.database.write(lambda connection: settle(connection, "9.9"))


def test_quarantine_keeps_each_other_content_once(index: Indexed) -> None:
    header = header_of(instance(**UIDS))
    provenance = Provenance("SCANNER", "ANODE", "127.0.0.1", 7, 5.0)

    def keep(digest: str) -> bool:
        return index.database.write(
            lambda connection: index.index.quarantine(
                connection,
                header,
                location=Location("log", "00000009", 4096, 10),
                transfer_syntax_uid=header.transfer_syntax_uid,
                data_set_sha256=digest,
                data_set_bytes=10,
                provenance=provenance,
                reason="PatientID differs",
            )
        )

    assert [keep("aa"), keep("aa"), keep("bb")] == [True, False, True]
    with index.database.read() as connection:
        rows = index.index.quarantined(connection)
        assert [row["data_set_sha256"] for row in rows] == ["aa", "bb"]
        assert rows[0]["provenance"] == provenance
        assert rows[0]["study_instance_uid"] == "1.1"
        assert index.index.in_segment(connection, "00000009") == 2
        assert index.index.is_known_location(connection, rows[0]["location"])
        assert index.index.counts(connection)["quarantined"] == 2
    moved = Location("archive", "quarantine/x.dcm")
    index.database.write(lambda connection: index.index.settle_quarantine(connection, rows[0]["id"], moved))
    with index.database.read() as connection:
        assert index.index.in_segment(connection, "00000009") == 1
        assert index.index.is_known_location(connection, moved)


def test_the_header_of_an_instance_holds_every_plain_attribute(index: Indexed) -> None:
    index.add(
        ct_image(sop_instance_uid="1.1.1.1", KVP="120", InstanceNumber=1, WindowCenter=[40, -600], **UIDS),
        ct_image(sop_instance_uid="1.1.1.2", KVP="80", InstanceNumber=2, **UIDS),
    )
    with index.database.read() as connection:
        first = index.index.header_of(connection, "1.1.1.1")
        second = index.index.header_of(connection, "1.1.1.2")
        assert index.index.header_of(connection, "9.9") == {}
    assert first["KVP"] == "120"
    assert first["WindowCenter"] == "40\\-600"
    assert first["PixelSpacing"] == "0.7\\0.7"
    assert first["Rows"] == "16"
    assert first["PatientName"] == "Phantom^Test"
    assert first["StudyInstanceUID"] == "1.1"
    assert (second["KVP"], second["InstanceNumber"]) == ("80", "2")
    assert "WindowCenter" not in second
    assert "PixelData" not in first


def test_an_instance_keeps_little_beside_what_its_series_says(index: Indexed) -> None:
    index.add(*(ct_image(InstanceNumber=number, **UIDS) for number in range(1, 4)))
    headers = [json.loads(str(row[0])) for row in index.rows("SELECT header FROM instance ORDER BY id")]
    assert headers[0] == {}
    assert all(set(header) <= {"InstanceNumber", "SOPInstanceUID"} for header in headers)


def test_series_headers_are_those_of_the_first_instance_with_all_sop_classes(index: Indexed) -> None:
    index.add(ct_image(InstanceNumber=1, **UIDS), instance(InstanceNumber=2, **UIDS))
    index.add(instance(study_instance_uid="1.1", series_instance_uid="1.1.9", Modality="SR"), is_own=True)
    with index.database.read() as connection:
        first, own = index.index.series_headers(connection, "1.1")
    assert (first["Modality"], first["instances"], first["is_own"], first["InstanceNumber"]) == (
        "CT",
        "2",
        "",
        "1",
    )
    assert len(first["SOPClassUID"].split("\\")) == 2
    assert first["ImageType"] == "ORIGINAL\\PRIMARY\\AXIAL"
    assert (own["Modality"], own["is_own"]) == ("SR", "1")


def test_a_header_says_nothing_that_only_another_study_of_the_patient_says(index: Indexed) -> None:
    index.add(
        instance(study_instance_uid="1.1", PatientBirthDate="19700101", PatientSex="M", PatientName="A^A"),
        instance(study_instance_uid="1.2", PatientSex="", PatientName=""),
    )
    with index.database.read() as connection:
        (header,) = index.index.series_headers(connection, "1.2")
        (study,) = index.index.studies(connection, limit=1)
    assert {"PatientBirthDate", "PatientSex", "PatientName"}.isdisjoint(header)
    assert header["PatientID"] == "PHANTOM-1"
    assert study["PatientName"] == ""


def test_a_file_that_kept_the_patient_apart_is_brought_up_to_date(index: Indexed) -> None:
    index.add(instance(study_instance_uid="1.1", PatientName="Müller^A", PatientSex="F"))

    def make_old(connection: sqlite3.Connection) -> None:
        for name in ("alphabetic", "ideographic", "phonetic"):
            connection.execute(f"DROP INDEX study_name_{name}")
        connection.execute("DROP INDEX study_old_row")
        connection.execute("DROP INDEX study_birth_date")
        for name in (
            "PatientName",
            "PatientName_alphabetic",
            "PatientSex",
            "PatientBirthDate",
            "says_patient",
        ):
            connection.execute(f"ALTER TABLE study DROP COLUMN {name}")

    index.database.write(make_old)
    (path,) = [Path(row[2]) for row in index.rows("PRAGMA database_list")]
    index.database.close()
    with (
        closing(Database(path, clock=Clock(), schema=schema.STATEMENTS)) as database,
        database.read() as connection,
    ):
        row = connection.execute("SELECT PatientName, PatientName_alphabetic, PatientSex FROM study")
        assert tuple(row.fetchone()) == ("Müller^A", "müller^a", "F")


def test_a_verified_instance_says_what_was_found(index: Indexed) -> None:
    (stored,) = index.add(instance(**UIDS))
    index.database.write(
        lambda connection: index.index.mark_verified(
            connection, stored.sop_instance_uid, 9.0, "digest differs"
        )
    )
    with index.database.read() as connection:
        assert index.index.counts(connection)["damaged"] == 1


def test_studies_are_listed_the_latest_first(index: Indexed) -> None:
    index.add(
        instance(study_instance_uid="1.10", Modality="CT", AccessionNumber="ACC-1"),
        instance(study_instance_uid="1.10", Modality="SR"),
        instance(study_instance_uid="1.20"),
    )
    with index.database.read() as connection:
        latest, first = index.index.studies(connection, limit=10)
        assert latest["StudyInstanceUID"] == "1.20"
        assert set(first["ModalitiesInStudy"].split("\\")) == {"CT", "SR"}
        assert (first["series"], first["instances"], first["PatientID"]) == (2, 2, "PHANTOM-1")
        assert len(index.index.studies(connection, limit=1)) == 1
        only = index.index.studies(connection, limit=10, study_instance_uid="1.10")
        assert [row["StudyInstanceUID"] for row in only] == ["1.10"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("1.2.30", ["1.2.30"]),
        ("1.2", ["1.2.301", "1.2.30"]),
        ("301", ["1.2.301"]),
        ("ACC-7", ["1.2.30"]),
        ("nothing", []),
        ("%", []),
    ],
)
def test_a_study_is_named_by_a_part_of_its_uid_or_its_accession(
    index: Indexed, wanted: str, found: list[str]
) -> None:
    index.add(
        instance(study_instance_uid="1.2.30", AccessionNumber="ACC-7"), instance(study_instance_uid="1.2.301")
    )
    with index.database.read() as connection:
        assert index.index.studies_named(connection, wanted, limit=5) == found


def test_values_are_kept_in_one_form(index: Indexed) -> None:
    with pytest.warns(UserWarning, match="Invalid value"):
        data_set = instance(StudyDate="2004.01.19", StudyTime="10:30:00", SeriesNumber=" 007", **UIDS)
    data_set.PatientWeight = "70.500"
    data_set.PatientComments = "  two \\ lines "
    index.add(data_set)
    assert index.rows("SELECT StudyDate, StudyTime, PatientWeight FROM study") == [
        ("20040119", "103000", "70.5")
    ]
    assert index.rows("SELECT SeriesNumber FROM series") == [("7",)]
    assert index.rows("SELECT PatientComments FROM patient") == [("  two \\ lines",)]


def test_what_a_run_found_is_kept_with_its_results_and_older_results_have_none() -> None:
    run = Run("lungs", "1.2", 3, 5.5, "s", "i", "m 1", "sr", 0, 2, {"kind": ("T1", "t1w")})
    written = Provenance("A", "A", "", 0, 5.5, own=True, run=run).to_json()
    assert Provenance.from_json(written).run == run
    older = json.loads(written)
    del older["run"]["facts"]
    older["run"]["of_a_later_version"] = 1
    assert Provenance.from_json(json.dumps(older)).run == replace(run, facts={})


def test_provenance_survives_a_later_version() -> None:
    provenance = Provenance("A", "B", "127.0.0.1", 3, 5.5, own=True)
    assert Provenance.from_json(provenance.to_json()) == provenance
    later = json.dumps({**json.loads(provenance.to_json()), "new": 1})
    assert Provenance.from_json(later) == provenance


def test_every_real_file_that_can_be_received_is_indexed(index: Indexed) -> None:
    catalog = require_data("catalog.csv")
    with catalog.open(newline="") as rows:
        paths = [row["path"] for row in csv.DictReader(rows) if row["path"].startswith(("singles", "made"))]
    uids = set()
    for path in paths:
        try:
            header = header_of_file(SHARED / path)
        except AnodeError:
            continue
        if header.sop_instance_uid not in uids:
            uids.add(header.sop_instance_uid)
            index.add(header)
    with index.database.read() as connection:
        assert index.index.counts(connection)["instances"] == len(uids) > 100
        for uid in uids:
            header = index.index.header_of(connection, uid)
            assert header["SOPInstanceUID"] == uid


def test_a_row_of_another_clock_is_no_matter(index: Indexed) -> None:
    header = header_of(instance(**UIDS))
    stored = stored_of(header, received_at=123.5)
    index.database.write(lambda connection: index.index.add(connection, Entry.of(header), stored))
    with index.database.read() as connection:
        assert index.index.counts(connection)["last_received_at"] == 123.5
