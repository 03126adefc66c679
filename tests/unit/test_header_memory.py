"""A header that is read with the memory of those before it is the one that is read without."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.filereader import read_file_meta_info

from node.config.settings import LimitsConfig
from node.ingest import header_memory
from node.ingest.header import Header
from node.ingest.header_memory import HeaderMemory
from tests.support import made
from tests.support.data import require_data
from tests.support.header_reading import check_same, read

LIMITS = LimitsConfig(nesting_depth=3, header_bytes=1 << 16)
EXPLICIT = str(uid.ExplicitVRLittleEndian)
SYNTAXES = [str(uid.ImplicitVRLittleEndian), EXPLICIT, str(uid.ExplicitVRBigEndian)]
UNDEFINED = 0xFFFFFFFF
LONG_VRS = ("OB", "OW", "SQ", "UN", "UT")

# A private block, a repeating group, sequences, and attributes of the patient, study, series and image.
VRS = {
    0x00080005: "CS", 0x00080016: "UI", 0x00080018: "UI", 0x00080020: "DA", 0x00080032: "TM",
    0x00080060: "CS", 0x00081140: "SQ", 0x00090010: "LO", 0x00091001: "DS", 0x00100010: "PN",
    0x00100020: "LO", 0x00180050: "DS", 0x00189346: "SQ", 0x0020000D: "UI", 0x0020000E: "UI",
    0x00200013: "IS", 0x00200032: "DS", 0x00280010: "US", 0x00289110: "SQ", 0x00400275: "SQ",
    0x00400280: "ST", 0x60000010: "US", 0x60020010: "US",
}  # fmt: skip
UIDS = {0x00080016: b"1.2", 0x00080018: b"1.3", 0x0020000D: b"1.4", 0x0020000E: b"1.5"}
PIXEL_DATA = 0x7FE00010

Element = tuple[int, bytes | list["Elements"], bool]
Elements = list[Element]


class Writer:
    """Encodes elements in a transfer syntax; a third of them is a value, or the items of a sequence."""

    def __init__(self, syntax: str) -> None:
        self.is_implicit = syntax == SYNTAXES[0]
        self.order = ">" if syntax == SYNTAXES[2] else "<"

    def tag(self, tag: int, length: int) -> bytes:
        return struct.pack(f"{self.order}HHL", tag >> 16, tag & 0xFFFF, length)

    def data_set(self, elements: Elements) -> bytes:
        return b"".join(self.element(*element) for element in elements)

    def element(self, tag: int, content: bytes | list[Elements], is_undefined: bool) -> bytes:
        vr = VRS.get(tag, "OW")
        if isinstance(content, bytes):
            value, length = content, len(content)
        else:
            value = b"".join(self.item(item, is_undefined) for item in content)
            length = UNDEFINED if is_undefined else len(value)
            value += self.tag(0xFFFEE0DD, 0) if is_undefined else b""
        if self.is_implicit:
            return self.tag(tag, length) + value
        place = struct.pack(f"{self.order}HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
        form = "HL" if vr in LONG_VRS else "H"
        return (
            place + struct.pack(f"{self.order}{form}", *([0, length] if vr in LONG_VRS else [length])) + value
        )

    def item(self, elements: Elements, is_undefined: bool) -> bytes:
        encoded = self.data_set(elements)
        if is_undefined:
            return self.tag(0xFFFEE000, UNDEFINED) + encoded + self.tag(0xFFFEE00D, 0)
        return self.tag(0xFFFEE000, len(encoded)) + encoded


def made_element(random: Random, tag: int, depth: int = 0) -> Element:
    if VRS[tag] == "SQ":
        count = random.choice((0, 1, 1, 2)) if depth < 4 else 0
        inside = [
            [made_element(random, one, depth + 1) for one in sorted(random.sample(sorted(VRS), 3))]
            for _ in range(count)
        ]
        return tag, inside, random.random() < 0.5
    if tag == 0x00080005:
        return tag, random.choice((b"ISO_IR 100", b"ISO_IR 192", b"")), False
    if tag in UIDS:
        return tag, UIDS[tag], False
    values = (
        b"",
        b"1",
        b"12.50",
        b"-1.0\\0",
        b"20240229",
        b"10:30:00",
        b"\xc3\xbc^A",
        b"A" * 300,
        b"\1\0\0\0",
    )
    return tag, random.choice(values), False


def changed(random: Random, elements: Elements) -> Elements:
    """Another header of the series: nearly always with little that differs."""
    elements = list(elements)
    for _ in range(random.choice((0, 1, 1, 1, 2, 5))):
        at = random.randrange(len(elements)) if elements else 0
        deed = random.randrange(7)
        if deed <= 2 and elements:
            elements[at] = made_element(random, elements[at][0])
        elif deed == 3 and elements:
            del elements[at]
        elif deed == 4:
            elements.insert(at, made_element(random, random.choice(sorted(VRS))))
        elif deed == 5 and elements:
            # there twice: beside itself, or far from it
            twice = random.choice((at, random.randrange(len(elements))))
            elements.insert(at, made_element(random, elements[twice][0]))
        elif elements and elements[at][0] in UIDS:
            elements[at] = elements[at][0], b"1.%d" % random.randrange(9), False
    return elements


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(SYNTAXES))
def test_any_series_of_headers_is_read_as_without_memory(random, syntax):
    """Whatever changes from one data set to the next, also where it is cut short, nothing is read wrongly."""
    writer, memory = Writer(syntax), HeaderMemory()
    limits = replace(LIMITS, header_bytes=random.choice((1 << 16, 1 << 16, 400)))
    tags = sorted({*random.sample(sorted(VRS), random.randrange(len(VRS))), *UIDS})
    elements = [made_element(random, tag) for tag in tags]
    has_pixels, series_header = random.random() < 0.7, {}
    for _ in range(8):
        encoded = writer.data_set(elements)
        if has_pixels:
            encoded += writer.element(PIXEL_DATA, bytes(random.randrange(0, 60, 2)), False)
        if random.random() < 0.15:
            encoded = encoded[: random.randrange(len(encoded) + 1)]
        start_bytes = random.choice((None, len(encoded), random.randrange(len(encoded) + 1)))
        remembered = read(encoded, syntax, start_bytes, memory, limits)
        check_same(remembered, read(encoded, syntax, start_bytes, None, limits), series_header)
        elements = changed(random, elements)


@pytest.mark.parametrize("syntax", [*made.NATIVE_TRANSFER_SYNTAXES, uid.RLELossless])
def test_only_what_differs_is_read_from_the_third_header_on(syntax):
    """Two headers of a series tell what they share, which is taken over from then on."""
    memory = HeaderMemory()
    series = {"study_instance_uid": "1.2.3", "series_instance_uid": "1.2.3.4"}
    headers = [
        read(
            made.encoded(made.ct_image(InstanceNumber=number, **series), syntax), syntax, None, memory, LIMITS
        )
        for number in range(4)
    ]
    assert [header.shared is None for header in headers] == [True, True, False, False]
    assert set(headers[3].own) == {0x00080018, 0x00200013}
    assert headers[3].data_set.InstanceNumber == 3


def test_what_has_varied_once_is_read_again_without_forgetting_the_rest():
    """An element that changes late in a series costs one header that is read as a whole."""
    memory = HeaderMemory()
    series = {"study_instance_uid": "1.2.3", "series_instance_uid": "1.2.3.4", "sop_instance_uid": "1.2.5"}
    thickness = ["1", "1", "1", "2", "3"]
    headers = [
        read(made.encoded(made.ct_image(SliceThickness=text, **series)), EXPLICIT, None, memory, LIMITS)
        for text in thickness
    ]
    assert [header.shared is None for header in headers] == [True, True, False, True, False]
    assert [header.data_set.SliceThickness for header in headers] == [1, 1, 1, 2, 3]


def test_another_series_shares_nothing():
    """What is shared within a series is not looked for in the first header of another one."""
    memory = HeaderMemory()
    for number in (1, 2):
        images = [made.ct_image(series_instance_uid=f"1.2.{number}") for _ in range(3)]
        headers = [read(made.encoded(image), EXPLICIT, None, memory, LIMITS) for image in images]
        assert headers[0].shared is None
        assert headers[2].shared is not None
        assert {header.series_instance_uid for header in headers} == {f"1.2.{number}"}


@pytest.mark.parametrize("at", range(6))
def test_an_element_that_is_there_twice_counts_as_without_memory(at):
    """Of an element that is not unique, as PS3.5 section 7.1 asks, the last one counts."""
    writer, memory = Writer(EXPLICIT), HeaderMemory()
    series: Elements = [*((tag, value, False) for tag, value in UIDS.items()), (0x00200013, b"1 ", False)]
    twice = (0x00080018, b"1.7 ", False)
    for elements in (series, series, [*series[:at], twice, *series[at:]], series, series):
        encoded = writer.data_set(elements)
        remembered = read(encoded, EXPLICIT, None, memory, LIMITS)
        check_same(remembered, read(encoded, EXPLICIT, None, None, LIMITS), {})


def test_a_long_header_is_not_remembered():
    """The memory of an association stays small, however long the headers are."""
    memory, limits = HeaderMemory(), LimitsConfig()
    image = made.ct_image(series_instance_uid="1.2.3", ICCProfile=bytes(header_memory.MOST_BYTES))
    headers = [read(made.encoded(image), EXPLICIT, None, memory, limits) for _ in range(4)]
    assert [header.shared for header in headers] == [None] * 4


def real_files(folder: Path) -> Iterable[tuple[str, bytes]]:
    """Transfer syntax and data set of the Part 10 files of a folder, in their order."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if content[128:132] == b"DICM" and content[132:140] == b"\2\0\0\0UL\4\0":
            syntax = read_file_meta_info(path).get("TransferSyntaxUID")
            if syntax:
                yield str(syntax), content[144 + struct.unpack_from("<L", content, 140)[0] :]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "folder", ["series", "singles", "made", "pet_sarcoma/STS_003", "pet_sarcoma/STS_005"]
)
def test_every_real_file_is_read_as_without_memory(folder):
    """Real headers, sent one after the other on one association, are read as if each came alone."""
    memory, limits = HeaderMemory(), LimitsConfig()
    series_headers: dict[str, dict[str, str]] = {}
    recalled = 0
    for syntax, encoded in real_files(require_data(folder)):
        remembered = read(encoded, syntax, 32768, memory, limits)
        fresh = read(encoded, syntax, 32768, None, limits)
        series = "" if isinstance(fresh, tuple) else fresh.series_instance_uid
        check_same(remembered, fresh, series_headers.setdefault(series, {}))
        recalled += isinstance(remembered, Header) and remembered.shared is not None
    if folder not in ("singles", "made"):
        assert recalled > 20
