"""Every matching rule of PS3.4 section C.2.2.2, against an independent matcher and by example."""

from __future__ import annotations

import csv
import itertools
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset

from node.errors import AnodeError, IdentifierInvalid
from node.index.attributes import LEVEL_OF
from node.query.query_matching import bounds_of
from tests.support import brute_force
from tests.support.brute_force import Plain, plain
from tests.support.data import SHARED, require_data
from tests.support.indexed import Indexed, header_of_file, identifier, indexed
from tests.support.made import instance

NAMES = (
    "Doe^John", "DOE^JANE^M", "Doe", "doe^", "Doeman^X", "O'Neil^Séan", "Müller^Jürgen", "Straße^Anna",
    "Yamada^Tarou=山田^太郎=やまだ^たろう", "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう", "Hong^Gildong=洪^吉洞=홍^길동",
    "Wang^XiaoDong=王^小东", "[Bracket]^A", "", "^OnlyGiven", "A b^C d",
)  # fmt: skip
DESCRIPTIONS = ("CT THORAX", "ct thorax", "Head [AXIAL]", "100%_done", "a*b", "what?", "", "Schädel nativ")
DATES = ("20040119", "2004.01.19", "20040229", "19991231", "", "20301231", "2004", "unknown")
TIMES = ("10", "1030", "103000", "103000.5", "10:30:59", "103059.999999", "", "235959", "0000", "noon")
MODALITIES = ("CT", "MR", "SR", "SEG", "PT")
NUMBERS = ("1", "+2", "003", "10", "", "2")
IMAGE_TYPES = (
    ["ORIGINAL", "PRIMARY", "AXIAL"],
    ["DERIVED", "SECONDARY"],
    ["ORIGINAL", "PRIMARY", "LOCALIZER"],
)


def made_instances() -> list[Dataset]:
    """48 instances of 12 studies of 9 patients.

    Their attributes agree within each level, but the studies of one patient spell the name differently.
    """
    instances = []
    for number in range(48):
        study, series = number // 4, number // 2
        patient = study % 9
        raw: dict[str, Any] = {
            "PatientName": NAMES[(study * 3 + 1) % len(NAMES)],
            "PatientID": "" if patient == 8 else f"ID-{patient}",
            "PatientBirthDate": DATES[patient % len(DATES)],
            "OtherPatientIDs": ["X1", f"X{patient}"] if patient % 2 else "",
            "ReferringPhysicianName": NAMES[study % len(NAMES)],
            "StudyDate": DATES[study % len(DATES)],
            "StudyTime": TIMES[study % len(TIMES)],
            "StudyDescription": DESCRIPTIONS[study % len(DESCRIPTIONS)],
            "AccessionNumber": f"A{study:03}",
            "NameOfPhysiciansReadingStudy": [NAMES[study], NAMES[(study + 5) % len(NAMES)]],
            "PatientWeight": ("70", "70.0", "7.0e1", "", "80.5")[study % 5],
            "Modality": MODALITIES[series % len(MODALITIES)],
            "SeriesNumber": NUMBERS[series % len(NUMBERS)],
            "SeriesDescription": DESCRIPTIONS[(series + 3) % len(DESCRIPTIONS)],
            "SeriesTime": TIMES[series % len(TIMES)],
            "InstanceNumber": NUMBERS[number % len(NUMBERS)],
            "ContentTime": TIMES[number % len(TIMES)],
            "ImageType": IMAGE_TYPES[number % len(IMAGE_TYPES)],
            "KVP": ("120", "120.0", "80", "")[number % 4],
            "ConvolutionKernel": (["B30f", "3"], "B70f", "")[number % 3],
        }
        data_set = instance(
            study_instance_uid=f"1.2.3.{study}",
            series_instance_uid=f"1.2.3.{study}.{series}",
            sop_instance_uid=f"1.2.3.{study}.{series}.{number}",
        )
        data_set.SpecificCharacterSet = "ISO_IR 192"
        for keyword, value in raw.items():
            data_set.add_new(keyword, dictionary_VR(keyword), value)
        instances.append(data_set)
    return instances


@dataclass(repr=False)
class Filled:
    """An index and what is in it; without a repr, which would print every header."""

    index: Indexed
    instances: list[Plain]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what no writer should write is wanted here
        instances = made_instances()
        with indexed(tmp_path_factory.mktemp("made"), instances) as index:
            yield Filled(index, [plain(one) for one in instances])


KEYWORDS = {
    "PATIENT": ("PatientName", "PatientID", "PatientBirthDate", "OtherPatientIDs"),
    "STUDY": (
        "StudyInstanceUID", "StudyDate", "StudyTime", "StudyDescription", "AccessionNumber",
        "ReferringPhysicianName", "NameOfPhysiciansReadingStudy", "PatientWeight", "ModalitiesInStudy",
        "SOPClassesInStudy",
    ),
    "SERIES": ("SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "SeriesTime"),
    "IMAGE": (
        "SOPInstanceUID", "SOPClassUID", "InstanceNumber", "ContentTime", "ImageType", "KVP",
        "ConvolutionKernel",
    ),
}  # fmt: skip
_WITHIN = {"ModalitiesInStudy": "Modality", "SOPClassesInStudy": "SOPClassUID"}


def pool(instances: list[Plain], keyword: str) -> list[str]:
    found = {
        value for one in instances for value in brute_force.values_of(one, _WITHIN.get(keyword, keyword))
    }
    return sorted(found) or ["x"]


@st.composite
def key_value(draw: st.DrawFn, instances: list[Plain], keyword: str) -> str:
    """A key that has something to do with a value that is held."""
    vr = dictionary_VR(keyword)
    value = draw(st.sampled_from(pool(instances, keyword)))
    if vr in ("DA", "TM"):
        pattern = r"\d{8}" if vr == "DA" else r"(\d\d){1,3}(\.\d+)?"
        good = [one for one in pool(instances, keyword) if re.fullmatch(pattern, one)] or ["20200101"]
        low, high = draw(st.sampled_from(good)), draw(st.sampled_from(good))
        return draw(st.sampled_from([low, f"{low}-", f"-{high}", f"{low}-{high}", "", "*"]))
    if not value:
        return ""
    at = draw(st.integers(0, len(value) - 1))
    end = draw(st.integers(at, len(value)))
    ways = [
        value,
        value.upper(),
        value.lower(),
        value[:at] + "*",
        "*" + value[at:],
        f"*{value[at:end]}*",
        value[:at] + "*" + value[end:],
        value[:at] + "?" + value[at + 1 :],
        value[:at] + "??" + value[at:],
        value + "*",
        value + "\\" + draw(st.sampled_from(pool(instances, keyword))),
        "",
        "*",
    ]
    if vr == "PN":
        ways += ["=" + value, value.split("=")[-1], value.split("=")[0] + "^", value.split("=")[0] + "^*"]
    return draw(st.sampled_from(ways))


@st.composite
def question(draw: st.DrawFn, instances: list[Plain]) -> tuple[str, dict[str, str]]:
    """A level and up to three keys of it or of a level above."""
    level = draw(st.sampled_from(brute_force.LEVELS))
    above = brute_force.LEVELS[: brute_force.LEVELS.index(level) + 1]
    keywords = list(itertools.chain.from_iterable(KEYWORDS[one] for one in above))
    chosen = draw(st.lists(st.sampled_from(keywords), min_size=1, max_size=3, unique=True))
    keys = {keyword: draw(key_value(instances, keyword)) for keyword in chosen}
    required = {"SERIES": ("StudyInstanceUID",), "IMAGE": ("StudyInstanceUID", "SeriesInstanceUID")}
    one = draw(st.sampled_from(instances))
    for keyword in required.get(level, ()):
        keys[keyword] = one[keyword][0]
    return level, keys


def level_of(keyword: str) -> str:
    return str(LEVEL_OF.get(keyword, "IMAGE"))


def found_by(index: Indexed, level: str, keys: dict[str, str]) -> set[tuple[str, ...]]:
    asked = dict.fromkeys(brute_force.LEVEL_KEYS[level], "")
    answers = index.find(identifier(level, **(asked | keys)), "patient")
    uniques = [
        tuple(str(answer[keyword].value or "") for keyword in brute_force.LEVEL_KEYS[level])
        for answer in answers
    ]
    if level != "PATIENT":
        assert len(uniques) == len(set(uniques))
    return set(uniques)


def expected(instances: list[Plain], level: str, keys: dict[str, str]) -> set[tuple[str, ...]]:
    found = brute_force.matching(instances, level, keys, level_of)
    return {unique[:2] for unique in found} if level == "PATIENT" else found


THOROUGH = settings(
    max_examples=400,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@THOROUGH
@given(data=st.data())
def test_made_headers_are_matched_as_an_independent_matcher_does(made: Filled, data: st.DataObject) -> None:
    index, instances = made.index, made.instances
    level, keys = data.draw(question(instances))
    assert found_by(index, level, keys) == expected(instances, level, keys)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    catalog = require_data("catalog.csv")
    seen: set[str] = set()
    headers, instances = [], []
    with catalog.open(newline="") as rows:
        paths = [row["path"] for row in csv.DictReader(rows) if row["path"].startswith(("singles", "made"))]
    for path in paths:
        try:
            header = header_of_file(SHARED / path)
        except AnodeError:
            continue  # what cannot be received
        if header.sop_instance_uid not in seen:
            seen.add(header.sop_instance_uid)
            headers.append(header)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                instances.append(plain(dcmread(SHARED / path, stop_before_pixels=True, force=True)))
    with indexed(tmp_path_factory.mktemp("real"), headers) as index:
        yield Filled(index, instances)


@pytest.mark.filterwarnings("ignore")  # pydicom's, of values that real devices write
@settings(THOROUGH, max_examples=150)
@given(data=st.data())
def test_real_headers_are_matched_as_an_independent_matcher_does(real: Filled, data: st.DataObject) -> None:
    index, instances = real.index, real.instances
    level, keys = data.draw(question(instances))
    assert found_by(index, level, keys) == expected(instances, level, keys)


def test_the_independent_matcher_can_tell_a_wrong_answer(made: Filled) -> None:
    instances = made.instances
    assert expected(instances, "STUDY", {"StudyDescription": "CT*"}) == {("1.2.3.0",), ("1.2.3.8",)}
    assert expected(instances, "STUDY", {"StudyDescription": "ct*"}) == {("1.2.3.1",), ("1.2.3.9",)}
    at_half_past_ten = {(f"1.2.3.{number}",) for number in (1, 2, 3, 4, 5, 11)}
    assert expected(instances, "STUDY", {"StudyTime": "1030"}) == at_half_past_ten


# --- by example -------------------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Indexed]:
    with indexed(tmp_path) as opened:
        yield opened


def studies(index: Indexed, **keys: str) -> set[str]:
    return {str(answer.StudyID) for answer in index.find(identifier("STUDY", StudyID="", **keys))}


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ("DOE^J*", {"1", "2"}),
        ("doe", {"3"}),
        ("Doe^", {"3"}),
        ("DOE^*", {"1", "2", "3"}),
        ("doe*", {"1", "2", "3", "4"}),
        ("=山田*", {"5"}),
        ("*山田*", {"5"}),
        ("yamada^tarou==やまだ*", {"5"}),
        ("yamada^tarou==すずき*", set()),
        ("DOE^JOHN\\doeman^x", {"1", "4"}),
        ("D?E^JOHN", {"1"}),
        ("john", set()),
        ("", {"1", "2", "3", "4", "5", "6"}),
        ("*", {"1", "2", "3", "4", "5", "6"}),
        ("\u3000^", {"1", "2", "3", "4", "5", "6"}),
    ],
)
def test_person_names(index: Indexed, key: str, wanted: set[str]) -> None:
    """Match without regard to case, by component group."""
    names = ("Doe^John", "DOE^JANE", "Doe^^^^", "Doeman^X", "Yamada^Tarou=山田^太郎=やまだ^たろう", "")
    for number, name in enumerate(names, 1):
        charset = "ISO_IR 192"
        index.add(
            instance(
                SpecificCharacterSet=charset, PatientID=f"{number}", StudyID=f"{number}", PatientName=name
            )
        )
    assert studies(index, PatientName=key) == wanted


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ("20240101120000-20240101130000", {"1", "2", "3"}),
        ("20240101123000", {"2"}),
        ("2024", {"1", "2", "3", "4"}),
        ("-2023", {"5"}),
        ("20240102-", {"4"}),
        ("20240101123000+0100-20240101130000+0100", {"2", "3"}),
    ],
)
def test_dates_with_times(index: Indexed, key: str, wanted: set[str]) -> None:
    """Are matched by range, as local times."""
    times = ("20240101120000", "20240101123000.25", "20240101130000+0100", "20240102", "20231231235959", "")
    for number, time in enumerate(times, 1):
        index.add(
            instance(
                study_instance_uid="1.1",
                series_instance_uid="1.1.1",
                InstanceNumber=number,
                AcquisitionDateTime=time,
            )
        )
    asked = identifier(
        "IMAGE", StudyInstanceUID="1.1", SeriesInstanceUID="1.1.1", InstanceNumber="", AcquisitionDateTime=key
    )
    assert {str(answer.InstanceNumber) for answer in index.find(asked)} == wanted


@pytest.mark.parametrize(
    ("vr", "key", "low", "high"),
    [
        ("DA", "20200229", "20200229", "20200229"),
        ("DA", "2020.01.01 - 2020.12.31", "20200101", "20201231"),
        ("DA", "-20201231", "0", "20201231"),
        ("TM", "1030", "103", "103059.999999"),
        ("TM", "10:30-", "103", "235960.999999"),
        ("TM", "09-10", "09", "105959.999999"),
        ("DT", "2020-0500", "202000000101", "20209999"),
    ],
)
def test_ranges_have_both_ends(vr: str, key: str, low: str, high: str) -> None:
    """A key of less precision stands for all that it may mean."""
    bounds = bounds_of(vr, key)
    assert bounds.low.startswith(low.rstrip("0")[:4]) or bounds.low == low
    assert bounds.high.startswith(high[:4])


@pytest.mark.parametrize(
    ("keyword", "key"),
    [
        ("StudyDate", "yesterday"),
        ("StudyDate", "2020010"),
        ("StudyDate", "20200101-20200102-20200103"),
        ("StudyDate", "202001*"),
        ("StudyTime", "2500"),
        ("StudyTime", "-"),
        ("StudyDescription", "x" * 20_000),
        ("StudyDescription", "\\".join(f"{number}*" for number in range(300))),
    ],
)
def test_a_key_that_cannot_be_understood_is_refused(index: Indexed, keyword: str, key: str) -> None:
    with pytest.raises(IdentifierInvalid):
        index.find(identifier("STUDY", **{keyword: key}))


@pytest.mark.parametrize("level", ["PATIENT", "STUDY"])
@pytest.mark.parametrize("key", [b"\x1b$B", b"\x1b$B \x1b(B", b"\x1b(B"])
def test_a_broken_key_that_decodes_to_nothing_is_refused(index: Indexed, level: str, key: bytes) -> None:
    index.add(instance())
    for charset in ("ISO 2022 IR 6\\ISO 2022 IR 87", ""):
        with pytest.raises(IdentifierInvalid):
            index.find(identifier(level, charset=charset, PatientName=key), "patient")
        with pytest.raises(IdentifierInvalid):
            index.find(identifier("STUDY", charset=charset, StudyDescription=key))
    # No escape sequences in these: the bytes are characters that no name has.
    assert index.find(identifier(level, PatientName=key), "patient") == []


@pytest.mark.parametrize(
    "keyword", ["PatientName", "StudyDescription", "AccessionNumber", "StudyInstanceUID"]
)
def test_a_key_of_delimiters_alone_matches_nothing(index: Indexed, keyword: str) -> None:
    index.add(instance(AccessionNumber="1", StudyDescription="x"))
    assert index.find(identifier("STUDY", **{keyword: "\\"})) == []
    assert len(index.find(identifier("STUDY", **{keyword: "  "}))) == 1


def test_wild_cards_in_uids_and_numbers_are_no_wild_cards(index: Indexed) -> None:
    index.add(instance(study_instance_uid="1.23", SeriesNumber=12))
    assert index.find(identifier("STUDY", StudyInstanceUID="1.2*")) == []
    asked = identifier("SERIES", StudyInstanceUID="1.23", SeriesNumber="1?")
    assert index.find(asked) == []


def test_a_list_of_many_uids_is_matched(index: Indexed) -> None:
    index.add(*(instance(study_instance_uid=f"1.2.{number}", PatientID=f"{number}") for number in range(20)))
    wanted = "\\".join(f"1.2.{number}" for number in range(4000, 9, -1))
    assert len(index.find(identifier("STUDY", StudyInstanceUID=wanted))) == 10
