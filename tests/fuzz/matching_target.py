"""Identifiers, to the queries that they become on a real index; and patterns of ``when``.

An input is a byte that chooses and an Identifier as it comes from the wire, or a pattern and a value. No
Identifier makes SQLite complain; what is found is what an independent matcher finds; the two ways to
encode an answer say the same.
"""

from __future__ import annotations

import re
import tempfile
import warnings
import zlib
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from node.errors import IdentifierInvalid, LimitExceeded, MalformedDataSet
from node.index.attributes import LEVEL_OF
from node.index.matching_rules import differs
from node.ingest.elements import vr_of
from node.query import query
from node.query.answers import Answers
from node.wire import data_sets
from tests.support import brute_force
from tests.support.indexed import identifier, indexed
from tests.support.made import instance

SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
#: Whether VRs are absent, and the byte order, by the first byte of an input; it is deflated here.
ENCODINGS = ((True, "<"), (False, "<"), (False, ">"), (False, "<"))
CHOICE_BYTES = 1
_MODELS: tuple[query.Model, ...] = ("study", "patient", "patient-study-only")
_RULES = 0x80
_IDENTIFIER_BYTES = 1 << 12
_ONE_ENCODED_OF = 8
_NUMBER = re.compile(r"[-+]?[0-9]{0,12}(\.[0-9]{1,8})?")


class Fault(AssertionError):
    """A query did what it must never do."""


def instances() -> list[Dataset]:
    """Two patients with two studies each, and one without an ID; with values that are hard to match."""
    found = []
    for number in range(12):
        study, series = number // 3, number // 2
        patient = ("A", "A*", "", "B")[study]
        found.append(
            instance(
                study_instance_uid=f"1.2.{study}",
                series_instance_uid=f"1.2.{study}.{series}",
                sop_instance_uid=f"1.2.{study}.{series}.{number}",
                SpecificCharacterSet="ISO_IR 192",
                PatientID=patient,
                PatientName=("Doe^John", "Yamada^Tarou=山田^太郎=やまだ^たろう", "", "Müller^[J]")[study],
                PatientBirthDate=("19700101", "", "2004.01.19", "19991231")[study],
                OtherPatientIDs=["a" * 60, f"X{study}"],
                StudyDate=("20240101", "20231231", "", "20240229")[study],
                StudyTime=("103000.5", "10", "", "235959")[study],
                StudyDescription=("CT [THORAX]", "100%_done", "a*b?c", "")[study],
                NameOfPhysiciansReadingStudy=[f"Reader^{study}", "a^a^a^a^a"],
                PatientWeight=("70", "70.0", "", "80.5")[study],
                Modality=("CT", "MR", "SR")[series % 3],
                SeriesNumber=series,
                SeriesDescription="a" * 64 if series % 2 else "head",
                SeriesTime=("1030", "103059", "")[series % 3],
                InstanceNumber=number,
                ImageType=["ORIGINAL", "PRIMARY", ("AXIAL", "LOCALIZER")[number % 2]],
                KVP=("120", "120.0", "")[number % 3],
            )
        )
    return found


def _level_of(keyword: str) -> str:
    return str(LEVEL_OF.get(keyword, "IMAGE"))


class MatchingTarget:
    """Runs inputs, between ``__enter__`` and ``__exit__``; for one thread."""

    name = "matching"

    def __enter__(self) -> MatchingTarget:
        with ExitStack() as opened:
            opened.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
            held = instances()
            self._plain = [brute_force.plain(one) for one in held]
            index = opened.enter_context(indexed(folder, held))
            self._database = index.database
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def know(self, inputs: Iterable[bytes]) -> None:
        """Run the inputs of the corpus."""
        for data in inputs:
            self.run(data)

    def run(self, data: bytes) -> Any:
        """Run one input; raises Fault, or whatever else a query should not have raised."""
        return self._run(data, is_encoded=zlib.crc32(data) % _ONE_ENCODED_OF == 0)

    def run_thoroughly(self, data: bytes) -> Any:
        """Run one input, and encode the answers in every way."""
        return self._run(data, is_encoded=True)

    def _run(self, data: bytes, *, is_encoded: bool) -> Any:
        if len(data) <= CHOICE_BYTES:
            return None
        if data[0] & _RULES:
            return self._rules(data[1:])
        choice, model = data[0] % len(SYNTAXES), _MODELS[(data[0] >> 2) % len(_MODELS)]
        encoded = data[1:]
        if SYNTAXES[choice] == SYNTAXES[-1]:
            encoded = zlib.compress(encoded, 1, wbits=-zlib.MAX_WBITS)
        try:
            asked = data_sets.decode(encoded, SYNTAXES[choice], limit_bytes=_IDENTIFIER_BYTES)
            with suppress(IdentifierInvalid), self._database.read() as connection:
                query.instances_to_retrieve(connection, asked, model)
            parsed = query.parse_identifier(asked, model)
        except (IdentifierInvalid, MalformedDataSet, LimitExceeded) as error:
            return error.name
        found = list(self._answers(parsed).data_sets())
        if not _has_other_vrs(asked):
            self._check_found(parsed, len(found))
        if is_encoded:
            for is_implicit_vr in (False, True):
                self._check_encoded(parsed, found, is_implicit_vr)
        return len(found)

    def _answers(self, parsed: query.Query) -> Answers:
        return Answers(self._database, parsed, ae_title="ANODE")

    def _check_found(self, parsed: query.Query, count: int) -> None:
        keys = {}
        for key in parsed.keys:
            if key.tag in parsed.unsupported or not key.text:
                continue
            if key.keyword in keys or not _is_comparable(key):
                return
            keys[key.keyword] = key.text
        expected = brute_force.matching(self._plain, parsed.level.value, keys, _level_of)
        if len(expected) != count:
            raise Fault(f"{count} instead of {len(expected)} match {parsed.level} {keys}")

    def _check_encoded(self, parsed: query.Query, found: list[Dataset], is_implicit_vr: bool) -> None:
        answers = self._answers(parsed).encoded(is_implicit_vr=is_implicit_vr)
        decoded = [
            data_sets.decode(answer, SYNTAXES[not is_implicit_vr], limit_bytes=1 << 20) for answer in answers
        ]
        if [_said(one) for one in decoded] != [_said(one) for one in found]:
            raise Fault(f"encoded, the answers are {decoded} instead of {found}")

    def _rules(self, data: bytes) -> bool:
        pattern, _, value = data.decode("utf-8", "replace").partition("\0")
        is_met = differs({"Modality": pattern}, {"Modality": value}) is None
        if (pattern + value).isascii():
            values = [value, *(one.strip() for one in value.split("\\"))]
            wanted = pattern.strip().lower()
            if is_met != any(brute_force.wild_card_matches(wanted, one.lower()) for one in values):
                raise Fault(f"{pattern!r} and {value!r}: {is_met}")
        return is_met


def _is_comparable(key: query.Key) -> bool:
    """Whether the independent matcher knows all that the node does with such a key.

    It counts nothing, knows no repeating groups, and reads more numbers than the standard has.
    """
    if key.vr in ("DS", "IS") and not all(_NUMBER.fullmatch(value) for value in key.text.split("\\")):
        return False
    is_counted = key.keyword.startswith("NumberOf") and key.keyword.endswith(
        ("RelatedStudies", "RelatedSeries", "RelatedInstances")
    )
    return key.vr not in ("DT", "AT") and not is_counted and tag_for_keyword(key.keyword) is not None


def _has_other_vrs(asked: Dataset) -> bool:
    """Whether a key says another VR than its attribute has: it is compared as what it says to be."""
    return any(
        isinstance(element, RawDataElement)
        and element.VR not in (None, "UN")
        and element.VR not in (vr_of(int(tag)) or element.VR)
        for tag, element in asked.items()
    )


def _said(answer: Dataset) -> list[tuple[int, str]]:
    return [(int(element.tag), str(element.value or "")) for element in answer]


def seeds() -> dict[str, bytes]:
    """Identifiers of every level, model and transfer syntax, and patterns."""
    asked: dict[str, tuple[int, Dataset]] = {}
    study = {"StudyInstanceUID": "1.2.0"}
    series = {**study, "SeriesInstanceUID": "1.2.0.0"}
    for number, (level, model, keys) in enumerate(
        [
            ("STUDY", 0, {"StudyInstanceUID": "", "PatientName": "doe^*", "ModalitiesInStudy": "CT"}),
            (
                "STUDY",
                0,
                {"StudyDate": "20240101-20241231", "StudyTime": "1000-1100", "StudyDescription": "*[T*"},
            ),
            ("STUDY", 0, {"OtherPatientIDs": "*a*a*a*a*a*a*a*a*a*b", "NumberOfStudyRelatedInstances": ""}),
            (
                "STUDY",
                1,
                {"PatientID": "A", "PatientWeight": "70.0", "NameOfPhysiciansReadingStudy": "Reader^?"},
            ),
            ("PATIENT", 1, {"PatientID": "*", "PatientName": "*=山田*", "PatientBirthDate": "-20000101"}),
            ("PATIENT", 2, {"PatientID": "A*", "OtherPatientIDs": "X1\\X2"}),
            ("SERIES", 0, {**study, "SeriesInstanceUID": "", "SeriesNumber": "0", "SeriesTime": "10-"}),
            ("IMAGE", 0, {**series, "SOPInstanceUID": "", "ImageType": "PRIMARY", "KVP": "120"}),
            ("IMAGE", 1, {**series, "SOPInstanceUID": "1.2.0.0.0\\1.2.0.0.1", "InstanceNumber": "1"}),
            ("STUDY", 0, {"SOPClassesInStudy": "1.2.840.10008.5.1.4.1.1.88.11", "StudyID": "1"}),
        ]
    ):
        asked[f"made-{number}-{level.lower()}"] = (model, identifier(level, **keys))
    found = {}
    for name, (model, data_set) in asked.items():
        for choice, syntax in enumerate(SYNTAXES):
            as_written = SYNTAXES[1] if choice == 3 else syntax
            found[f"{name}-{choice}"] = bytes([choice | model << 2]) + data_sets.encode(data_set, as_written)
    for number, text in enumerate(("CT\0CT", "*a*b?\0aaab", "ORIGINAL\\*\0ORIGINAL\\PRIMARY", "[a]*\0[A]B")):
        found[f"made-rule-{number}"] = bytes([_RULES]) + text.encode()
    return found
