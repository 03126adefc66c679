"""The header of every well-formed instance is read, and every broken one gets a named error."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from node.config.settings import LimitsConfig
from node.errors import InvalidUid, LimitExceeded, MalformedDataSet, ObjectError
from node.ingest.header import HeaderReader, data_set_without_pixels, read_header, walk
from tests.support import made

LIMITS = LimitsConfig()
EXPLICIT = uid.ExplicitVRLittleEndian
IMPLICIT = uid.ImplicitVRLittleEndian


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """Explicit VR Little Endian, with any length one likes."""
    length = len(value) if length is None else length
    if vr in (b"SQ", b"OB", b"OW", b"UN", b"UT"):
        return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, length) + value
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, length) + value


def item(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(value) if length is None else length) + value


ITEM_END = struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
SEQUENCE_END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
UNDEFINED = 0xFFFFFFFF
UIDS = (
    element(0x00080016, b"UI", b"1.2\0")
    + element(0x00080018, b"UI", b"1.2.3\0")
    + element(0x0020000D, b"UI", b"1.2.4\0")
    + element(0x0020000E, b"UI", b"1.2.5\0")
)


@pytest.mark.parametrize("syntax", made.NATIVE_TRANSFER_SYNTAXES + made.COMPRESSED_TRANSFER_SYNTAXES)
def test_the_header_is_read_in_every_transfer_syntax(syntax):
    data_set = made.ct_image(PatientName="Ünïcode^Test")
    encoded = made.encoded(data_set, syntax)
    header = read_header(encoded, syntax, LIMITS)
    assert header.sop_instance_uid == data_set.SOPInstanceUID
    assert header.sop_class_uid == data_set.SOPClassUID
    assert header.study_instance_uid == data_set.StudyInstanceUID
    assert header.series_instance_uid == data_set.SeriesInstanceUID
    assert header.transfer_syntax_uid == syntax
    assert header.data_set.PatientName == "Ünïcode^Test"
    assert header.data_set.Rows == 16
    assert list(header.data_set.PixelSpacing) == [0.7, 0.7]
    assert "PixelData" not in header.data_set
    if syntax != uid.DeflatedExplicitVRLittleEndian:
        order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
        assert struct.unpack_from(f"{order}HH", encoded, header.pixel_data_offset) == (0x7FE0, 0x0010)
    else:
        assert header.pixel_data_offset is None


@pytest.mark.parametrize("syntax", made.NATIVE_TRANSFER_SYNTAXES)
def test_an_instance_without_pixels_has_no_pixel_offset(syntax):
    header = read_header(made.encoded(made.instance(), syntax), syntax, LIMITS)
    assert header.pixel_data_offset is None


def test_a_file_is_read_like_bytes_whatever_its_position():
    encoded = made.encoded(made.ct_image())
    file = io.BytesIO(encoded)
    file.seek(99)
    assert read_header(file, EXPLICIT, LIMITS) == read_header(memoryview(encoded), EXPLICIT, LIMITS)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, uid.ExplicitVRBigEndian])
def test_sequences_are_decoded_when_they_are_looked_at(syntax):
    inner = Dataset()
    inner.CodeValue = "109102"
    outer = Dataset()
    outer.Manufacturer = "anode"
    outer.PurposeOfReferenceCodeSequence = Sequence([inner])
    data_set = made.instance(ContributingEquipmentSequence=Sequence([outer]))
    header = read_header(made.encoded(data_set, syntax), syntax, LIMITS)
    (equipment,) = header.data_set.ContributingEquipmentSequence
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"


def test_sequences_of_undefined_length_are_decoded_too():
    inside = element(0x00080070, b"LO", b"anode ")
    sequence = item(inside + ITEM_END, UNDEFINED) + item(inside) + SEQUENCE_END
    encoded = UIDS + element(0x00400275, b"SQ", sequence, UNDEFINED)
    header = read_header(encoded, EXPLICIT, LIMITS)
    assert [one.Manufacturer for one in header.data_set.RequestAttributesSequence] == ["anode", "anode"]


def test_a_sequence_of_unknown_vr_and_undefined_length_holds_implicit_items():
    inside = struct.pack("<HHL", 0x0008, 0x0070, 6) + b"anode "
    encoded = UIDS + element(0x00400275, b"UN", item(inside) + SEQUENCE_END, UNDEFINED)
    header = read_header(encoded, EXPLICIT, LIMITS)
    assert header.data_set.RequestAttributesSequence[0].Manufacturer == "anode"


# --- what is wrong with it ---------------------------------------------------


@pytest.mark.parametrize("syntax", made.NATIVE_TRANSFER_SYNTAXES)
def test_an_empty_data_set_is_malformed(syntax):
    with pytest.raises(MalformedDataSet):
        read_header(b"", syntax, LIMITS)


@pytest.mark.parametrize("syntax", made.NATIVE_TRANSFER_SYNTAXES + made.COMPRESSED_TRANSFER_SYNTAXES)
def test_a_data_set_that_is_cut_anywhere_never_passes_for_whole(syntax):
    encoded = made.encoded(made.ct_image(), syntax)
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        harmless = {len(encoded) - 1}  # the last byte may be there to make the length even
    else:
        # A cut exactly between two elements gives a whole data set with fewer of them.
        elements = walk(io.BytesIO(encoded), syntax, max_depth=9).elements()
        harmless = {element.offset for element in elements}
    for length in set(range(len(encoded))) - harmless:
        with pytest.raises(ObjectError):
            read_header(encoded[:length], syntax, LIMITS)


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        (b"ISO_IR 100", "Ü"),
        (b"ISO IR 100", "Ü"),
        (b"ISO_IR 192 ", "\N{LATIN SMALL LETTER AE}"),
        (b"\\ISO 2022 IR 100 ", "Ü"),
        (b"ISO_IR 192\\ISO 2022 IR 100 ", "\N{LATIN SMALL LETTER AE}"),
        (b"no such set ", "Ü"),
        (b"\xff\xfe", "Ü"),
    ],
)
def test_any_specific_character_set_can_be_read(character_set, name):
    value = name.encode("utf-8" if b"192" in character_set else "latin-1")
    encoded = element(0x00080005, b"CS", character_set) + UIDS + element(0x00100010, b"PN", value)
    header = read_header(encoded, EXPLICIT, LIMITS)
    assert header.data_set.original_character_set
    assert name in str(header.data_set.PatientName) or b"ISO 2022" in character_set


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("SOPClassUID", None),
        ("SOPInstanceUID", None),
        ("StudyInstanceUID", None),
        ("SeriesInstanceUID", None),
        ("StudyInstanceUID", ""),
    ],
)
def test_an_instance_without_one_of_its_four_uids_is_refused_by_name(keyword, value):
    with pytest.raises(InvalidUid, match="UID"):
        read_header(made.encoded(made.instance(**{keyword: value})), EXPLICIT, LIMITS)


@pytest.mark.parametrize(
    "value",
    [
        b"../../etc/passwd",
        b"1.2/3 ",
        b"1.2\\1.3 ",
        b"1.2 3 ",
        b"1.2\n",
        b"1.a ",
        b"1." * 33,
        b"1.2\0.3 ",
        b"  ",
        b".\0",
        b"..",
        b"1..2",
        b"1.2.",
        b".1.2",
    ],
)
def test_a_uid_with_characters_that_no_uid_has_is_refused(value):
    encoded = UIDS.replace(element(0x00080018, b"UI", b"1.2.3\0"), element(0x00080018, b"UI", value))
    with pytest.raises(InvalidUid):
        read_header(encoded, EXPLICIT, LIMITS)


@pytest.mark.parametrize("value", [b"1.02.003", b"1\0", b"0.00", b"1." + b"2" * 62])
def test_a_uid_may_have_leading_zeros_as_devices_write_them(value):
    encoded = UIDS.replace(element(0x00080018, b"UI", b"1.2.3\0"), element(0x00080018, b"UI", value))
    assert read_header(encoded, EXPLICIT, LIMITS).sop_instance_uid == value.decode().rstrip("\0")


def test_padding_of_a_uid_is_no_part_of_it():
    encoded = UIDS.replace(b"1.2.3\0", b"1.2.3 ")
    assert read_header(encoded, EXPLICIT, LIMITS).sop_instance_uid == "1.2.3"


def test_missing_pixel_attributes_are_no_reason_to_refuse():
    data_set = made.ct_image(Rows=None, BitsAllocated=None, PhotometricInterpretation=None)
    assert read_header(made.encoded(data_set), EXPLICIT, LIMITS).pixel_data_offset


@pytest.mark.parametrize(
    "rest",
    [
        element(0x7FE00010, b"OW", b"1234", 6),
        element(0x7FE00010, b"OB", item(b"") + item(b"code"), UNDEFINED),
        element(0x7FE00010, b"OB", item(b"") + item(b"code", 6) + SEQUENCE_END, UNDEFINED),
        element(0x7FE00010, b"OB", item(b"") + item(b"", UNDEFINED) + SEQUENCE_END, UNDEFINED),
        element(0x7FE00010, b"OB", item(b"") + UIDS + SEQUENCE_END, UNDEFINED),
        element(0x00400275, b"SQ", item(b"")[:4], UNDEFINED),
        element(0x00400275, b"SQ", item(UIDS, UNDEFINED) + SEQUENCE_END, UNDEFINED),
        element(0x00400275, b"SQ", item(UIDS, 9999) + SEQUENCE_END, UNDEFINED),
        item(b""),
        SEQUENCE_END,
        b"\1\2\3",
    ],
)
def test_lengths_and_delimiters_that_do_not_fit_are_malformed(rest):
    with pytest.raises(MalformedDataSet):
        read_header(UIDS + rest, EXPLICIT, LIMITS)


def test_group_lengths_harm_nobody_even_when_they_are_wrong():
    wrong = element(0x00080000, b"UL", struct.pack("<L", 7))
    assert read_header(wrong + UIDS, EXPLICIT, LIMITS).sop_class_uid == "1.2"


def test_rubbish_inside_a_sequence_whose_length_is_known_is_kept():
    encoded = UIDS + element(0x00400275, b"SQ", b"not an item at all")
    assert read_header(encoded, EXPLICIT, LIMITS).sop_instance_uid == "1.2.3"


@pytest.mark.parametrize("is_defined", [True, False])
@pytest.mark.parametrize("depth", [32, 33, 2000])
def test_nesting_is_limited_however_the_lengths_are_written(is_defined, depth):
    inside = b""
    for _ in range(depth):
        if is_defined:
            inside = element(0x00400275, b"SQ", item(inside))
        else:
            inside = element(0x00400275, b"SQ", item(inside + ITEM_END, UNDEFINED) + SEQUENCE_END, UNDEFINED)
    if depth == 32:
        read_header(UIDS + inside, EXPLICIT, LIMITS)
    else:
        with pytest.raises(LimitExceeded):
            read_header(UIDS + inside, EXPLICIT, LIMITS)


# --- large things ------------------------------------------------------------


def test_bulk_values_are_left_out_of_the_header():
    data_set = made.instance(EncapsulatedDocument=bytes(3 << 20))
    header = read_header(made.encoded(data_set), EXPLICIT, LIMITS)
    assert header.left_out == {0x00420011}
    assert "EncapsulatedDocument" not in header.data_set
    assert header.data_set.PatientID == "PHANTOM-1"


def test_a_header_over_the_limit_is_refused():
    many = b"".join(element(0x00110000 + number, b"UN", bytes(90_000)) for number in range(0x10, 0x20))
    with pytest.raises(LimitExceeded):
        read_header(UIDS + many, EXPLICIT, LimitsConfig(header_bytes=1 << 20))


def deflated(encoded: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflater.compress(encoded) + deflater.flush()


def test_a_deflated_bomb_is_refused_and_costs_no_memory():
    bomb = deflated(UIDS + element(0x7FE00010, b"OW", bytes(64 << 20)))
    assert len(bomb) < 100_000
    limits = LimitsConfig(instance_bytes=32 << 20, header_bytes=1 << 20)
    with pytest.raises(LimitExceeded):
        read_header(bomb, uid.DeflatedExplicitVRLittleEndian, limits)


def test_deflated_pixels_larger_than_any_header_are_counted_and_not_kept():
    limits = LimitsConfig(header_bytes=1 << 16)
    whole = UIDS + element(0x7FE00010, b"OW", bytes(1 << 20))
    assert read_header(deflated(whole), uid.DeflatedExplicitVRLittleEndian, limits).sop_class_uid == "1.2"
    with pytest.raises(MalformedDataSet):
        read_header(deflated(whole[:-2]), uid.DeflatedExplicitVRLittleEndian, limits)


def test_all_elements_can_be_had_without_the_value_of_the_pixels():
    data_set = made.ct_image()
    for syntax in (IMPLICIT, EXPLICIT, uid.JPEGLSLossless):
        whole = data_set_without_pixels(walk(io.BytesIO(made.encoded(data_set, syntax)), syntax, max_depth=9))
        assert whole.Rows == 16
        assert whole.get_item("PixelData").value == b""


# --- hostile things ----------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    syntax=st.sampled_from([IMPLICIT, EXPLICIT, uid.ExplicitVRBigEndian, uid.JPEGLSLossless]),
    changes=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_whatever_bytes_are_changed_there_is_a_header_or_a_named_error(syntax, changes):
    encoded = bytearray(made.encoded(made.ct_image(), syntax))
    for place, value in changes:
        encoded[place % len(encoded)] = value
    with contextlib.suppress(ObjectError):
        assert read_header(bytes(encoded), syntax, LIMITS).sop_instance_uid


@settings(max_examples=200, deadline=None)
@given(rubbish=st.binary(max_size=400), syntax=st.sampled_from(made.NATIVE_TRANSFER_SYNTAXES))
def test_rubbish_gets_a_named_error(rubbish, syntax):
    with pytest.raises(ObjectError):
        read_header(rubbish, syntax, LIMITS)


@pytest.mark.parametrize("spare", [-1, 0])
def test_the_limit_of_a_header_does_not_depend_on_how_much_came_at_first(spare):
    """What is accepted while it streams in is accepted when it is read again, and the other way round."""
    encoded = UIDS + element(0x00400275, b"SQ", item(b"") * 9) + element(0x00410010, b"LO", b"x" * 20) * 50
    limits = replace(LIMITS, header_bytes=len(encoded) + spare)

    def is_accepted(start_bytes: int) -> bool:
        reader = HeaderReader(EXPLICIT, limits)
        try:
            reader.read_start(encoded[:start_bytes])
            reader.check_rest(io.BytesIO(encoded))
        except LimitExceeded:
            return False
        return True

    assert {is_accepted(count) for count in range(len(encoded) + 1)} == {spare == 0}
