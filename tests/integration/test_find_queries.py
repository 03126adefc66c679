"""C-FIND over a real association: found at once, in order of statuses, stopped when asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from node import status
from node.wire.scu import ProposedContext
from node.wire.sop_classes import PATIENT_ROOT_FIND, PATIENT_STUDY_ONLY_FIND, STUDY_ROOT_FIND
from tests.support import retrieving
from tests.support.dcmtk import dcmtk
from tests.support.indexed import identifier
from tests.support.made import instance
from tests.support.small_node import SmallNode, config, small_node

EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[SmallNode]:
    with small_node(config(tmp_path / "data")) as running:
        yield running


def answers(port: int, model_uid: str, asked: Dataset) -> list[tuple[int, Dataset | None]]:
    context = ProposedContext(model_uid, (EXPLICIT_VR_LITTLE_ENDIAN,))
    with retrieving.connect(port, [context]) as association:
        return list(association.find(model_uid, asked))


def test_an_instance_is_found_as_soon_as_it_was_received(node: SmallNode) -> None:
    for number in range(10):
        (received,) = node.receive(instance(study_instance_uid="1.1", series_instance_uid="1.1.1"))
        found = retrieving.find(
            node.port, "IMAGE", StudyInstanceUID="1.1", SeriesInstanceUID="1.1.1", SOPInstanceUID=""
        )
        assert len(found) == number + 1
        assert received in {str(one.SOPInstanceUID) for one in found}


@pytest.mark.parametrize(
    ("model_uid", "level", "count"),
    [
        (PATIENT_ROOT_FIND, "PATIENT", 2),
        (PATIENT_ROOT_FIND, "STUDY", 3),
        (STUDY_ROOT_FIND, "STUDY", 3),
        (PATIENT_STUDY_ONLY_FIND, "PATIENT", 2),
        (PATIENT_STUDY_ONLY_FIND, "STUDY", 3),
    ],
)
def test_every_model_answers_its_levels(node: SmallNode, model_uid: str, level: str, count: int) -> None:
    node.receive(
        instance(PatientID="A", study_instance_uid="1.1"),
        instance(PatientID="A", study_instance_uid="1.2"),
        instance(PatientID="B", study_instance_uid="1.3"),
    )
    found = answers(node.port, model_uid, identifier(level, PatientID=""))
    assert [code for code, _ in found] == [status.PENDING] * count + [status.SUCCESS]


@pytest.mark.parametrize(
    ("model_uid", "asked", "code"),
    [
        (STUDY_ROOT_FIND, identifier("PATIENT", PatientID=""), status.IDENTIFIER_MISMATCH),
        (STUDY_ROOT_FIND, identifier("SERIES", Modality=""), status.IDENTIFIER_MISMATCH),
        (STUDY_ROOT_FIND, identifier("STUDY", StudyDate="soon"), status.IDENTIFIER_MISMATCH),
        (PATIENT_STUDY_ONLY_FIND, identifier("SERIES"), status.IDENTIFIER_MISMATCH),
    ],
)
def test_an_identifier_that_does_not_fit_is_answered_a900(
    node: SmallNode, model_uid: str, asked: Dataset, code: int
) -> None:
    node.receive(instance())
    assert answers(node.port, model_uid, asked) == [(code, None)]


def test_a_key_that_is_not_supported_makes_the_answers_ff01(node: SmallNode) -> None:
    node.receive(instance())
    found = answers(node.port, STUDY_ROOT_FIND, identifier("STUDY", SliceThickness="1"))
    assert [code for code, _ in found] == [status.PENDING_KEY_UNSUPPORTED, status.SUCCESS]


def test_a_query_stops_when_it_is_cancelled(node: SmallNode) -> None:
    node.receive(*(instance(PatientID=f"P{number}") for number in range(100)))
    context = ProposedContext(STUDY_ROOT_FIND, (EXPLICIT_VR_LITTLE_ENDIAN,))
    with retrieving.connect(node.port, [context]) as association:
        query = association.find(STUDY_ROOT_FIND, identifier("STUDY", PatientID=""))
        assert next(query)[0] == status.PENDING
        query.close()  # sends C-CANCEL and reads to the final response
        again = list(association.find(STUDY_ROOT_FIND, identifier("STUDY", PatientID="P7")))
    assert [code for code, _ in again] == [status.PENDING, status.SUCCESS]


def test_a_query_sees_one_moment_while_instances_come_in(node: SmallNode) -> None:
    node.receive(
        *(instance(study_instance_uid=f"1.{number}", PatientID=f"P{number}") for number in range(50))
    )
    context = ProposedContext(STUDY_ROOT_FIND, (EXPLICIT_VR_LITTLE_ENDIAN,))
    with retrieving.connect(node.port, [context]) as association:
        query = association.find(STUDY_ROOT_FIND, identifier("STUDY", StudyInstanceUID=""))
        next(query)
        later = threading.Thread(target=node.receive, args=(instance(study_instance_uid="1.999"),))
        later.start()
        later.join()
        rest = [one for code, one in query if status.is_pending(code) and one is not None]
    assert len(rest) == 49
    assert len(retrieving.find(node.port, "STUDY", StudyInstanceUID="")) == 51


def test_dcmtk_finds_a_japanese_name_and_reads_the_answer(node: SmallNode, tmp_path: Path) -> None:
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    node.receive(
        instance(
            SpecificCharacterSet="ISO_IR 192", PatientName=name, PatientID="J", study_instance_uid="1.1"
        ),
        instance(PatientName="Other^One", PatientID="O", study_instance_uid="1.2"),
    )
    said = dcmtk(
        "findscu", "-v", "-S", "-aec", "ANODE", "127.0.0.1", node.port,
        "-k", "SpecificCharacterSet=ISO_IR 192", "-k", "QueryRetrieveLevel=STUDY",
        "-k", "PatientName=*山田*", "-k", "PatientID", "-k", "ModalitiesInStudy",
        "-k", "NumberOfStudyRelatedInstances", "-X", "-od", tmp_path,
    )  # fmt: skip
    assert "Received Final Find Response (Success)" in said
    (file,) = tmp_path.glob("rsp*.dcm")
    shown = dcmtk("dcmdump", "+U8", file)
    assert name in shown
    assert "[OT]" in shown
    assert "[1" in shown.split("NumberOfStudyRelatedInstances")[0].splitlines()[-1]


@pytest.mark.parametrize(
    ("level", "keys", "count"),
    [
        ("PATIENT", ["PatientID=A"], 1),
        ("STUDY", ["PatientID=A", "StudyInstanceUID"], 2),
        ("SERIES", ["PatientID=A", "StudyInstanceUID=1.1", "SeriesInstanceUID", "Modality"], 2),
        ("IMAGE", ["PatientID=A", "StudyInstanceUID=1.1", "SeriesInstanceUID=1.1.1", "SOPInstanceUID"], 1),
    ],
)
def test_dcmtk_walks_the_patient_root(node: SmallNode, level: str, keys: list[str], count: int) -> None:
    node.receive(
        instance(PatientID="A", study_instance_uid="1.1", series_instance_uid="1.1.1"),
        instance(PatientID="A", study_instance_uid="1.1", series_instance_uid="1.1.2"),
        instance(PatientID="A", study_instance_uid="1.2", series_instance_uid="1.2.1"),
        instance(PatientID="B", study_instance_uid="1.3", series_instance_uid="1.3.1"),
    )
    arguments = [part for key in [f"QueryRetrieveLevel={level}", *keys] for part in ("-k", key)]
    said = dcmtk("findscu", "-v", "-P", "-aec", "ANODE", "127.0.0.1", node.port, *arguments)
    assert said.count("(Pending)") == count, said
