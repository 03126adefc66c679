"""The same instance is known again in any transfer syntax; a changed one is not taken for it."""

from __future__ import annotations

import copy
import io
import struct
import subprocess

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from node.config.settings import LimitsConfig
from node.ingest.sameness import Copy, difference
from tests.support import made
from tests.support.data import require_data

LIMITS = LimitsConfig()
EXPLICIT = uid.ExplicitVRLittleEndian
IMPLICIT = uid.ImplicitVRLittleEndian
SYNTAXES = made.NATIVE_TRANSFER_SYNTAXES + made.COMPRESSED_TRANSFER_SYNTAXES
VIDEO = "1.2.840.10008.1.2.4.102"


def compare(one: bytes, one_syntax: str, other: bytes, other_syntax: str) -> str:
    forth = difference(Copy(io.BytesIO(one), one_syntax), Copy(io.BytesIO(other), other_syntax), LIMITS)
    back = difference(Copy(io.BytesIO(other), other_syntax), Copy(io.BytesIO(one), one_syntax), LIMITS)
    assert bool(forth) == bool(back)
    return forth


def compare_made(one: Dataset, other: Dataset, syntax: str = EXPLICIT, other_syntax: str = EXPLICIT) -> str:
    return compare(made.encoded(one, syntax), syntax, made.encoded(other, other_syntax), other_syntax)


def rich_image() -> Dataset:
    """A CT image with something of every kind in it."""
    code = Dataset()
    code.CodeValue = "109102"
    code.add_new(0x00080102, "SH", "DCM")
    equipment = Dataset()
    equipment.Manufacturer = "nobody"
    equipment.PurposeOfReferenceCodeSequence = Sequence([code])
    data_set = made.ct_image(
        ContributingEquipmentSequence=Sequence([equipment, copy.deepcopy(equipment)]),
        PixelPaddingValue=-2000,
        ImageComments="a text ",
    )
    data_set.add_new(0x00209161, "UI", "1.2.3")
    data_set.add_new(0x00189073, "FD", 1.25)
    data_set.add_new(0x00280009, "AT", 0x00181063)
    block = data_set.private_block(0x0019, "NOBODY", create=True)
    block.add_new(0x01, "LO", "private")
    block.add_new(0x02, "FD", 2.5)
    block.add_new(0x03, "SQ", Sequence([copy.deepcopy(code)]))
    return data_set


@pytest.mark.parametrize("other", SYNTAXES)
@pytest.mark.parametrize("one", SYNTAXES)
def test_an_image_is_the_same_in_every_transfer_syntax(one, other):
    image = rich_image()
    if IMPLICIT in (one, other) and uid.ExplicitVRBigEndian in (one, other):
        del image[0x00191002]  # without its VR nobody can tell that these bytes are one number
    assert compare_made(image, image, one, other) == ""


@pytest.mark.parametrize("other", SYNTAXES)
@pytest.mark.parametrize("one", SYNTAXES)
def test_a_changed_pixel_is_seen_in_every_transfer_syntax(one, other):
    pixels = (np.arange(256, dtype="<i2") * 7 - 1000).reshape(16, 16)
    image = made.ct_image(pixels=pixels)
    changed = copy.deepcopy(image)
    pixels[7, 7] += 1
    changed.PixelData = pixels.tobytes()
    assert "Pixel Data" in compare_made(image, changed, one, other)


@pytest.mark.parametrize("syntax", [EXPLICIT, *made.COMPRESSED_TRANSFER_SYNTAXES])
@pytest.mark.parametrize("is_planar", [False, True])
def test_colour_is_the_same_by_pixel_and_by_plane(syntax, is_planar):
    image = made.colour_image(sop_instance_uid="1.2.3", study_instance_uid="1.4", series_instance_uid="1.5")
    twin = made.colour_image(
        sop_instance_uid="1.2.3", study_instance_uid="1.4", series_instance_uid="1.5", planar=is_planar
    )
    assert compare_made(image, twin, syntax, EXPLICIT) == ""
    twin.PixelData = twin.PixelData[:-1] + bytes([twin.PixelData[-1] ^ 1])
    assert "Pixel Data" in compare_made(image, twin, syntax, EXPLICIT)


@pytest.mark.parametrize("other", [EXPLICIT, IMPLICIT, uid.ExplicitVRBigEndian])
def test_unused_bits_of_native_pixels_count(other):
    pixels = np.full((16, 16), 7, "<u2")
    image = made.ct_image(pixels=pixels, BitsStored=12, HighBit=11)
    changed = copy.deepcopy(image)
    pixels[3, 3] |= 0x8000
    changed.PixelData = pixels.tobytes()
    assert "Pixel Data" in compare_made(image, changed, EXPLICIT, other)


def test_an_overlay_in_the_pixels_is_not_given_up_for_a_compressed_copy():
    pixels = np.full((16, 16), 7, "<u2")
    image = made.ct_image(pixels=pixels, BitsStored=12, HighBit=11)
    image.add_new(0x60000100, "US", 16)
    image.add_new(0x60000102, "US", 15)
    with_overlay = copy.deepcopy(image)
    pixels[3, 3] |= 0x8000
    with_overlay.PixelData = pixels.tobytes()
    assert "overlay" in compare_made(with_overlay, image, EXPLICIT, uid.JPEGLSLossless)


def test_another_colour_space_is_another_image():
    image = made.colour_image()
    assert "(0028,0004)" in compare_made(image, _with(image, PhotometricInterpretation="YBR_FULL"))


def _with(data_set: Dataset, **attributes) -> Dataset:
    changed = copy.deepcopy(data_set)
    for keyword, value in attributes.items():
        setattr(changed, keyword, value)
    return changed


@pytest.mark.parametrize("other", [EXPLICIT, IMPLICIT, uid.ExplicitVRBigEndian, uid.JPEGLSLossless])
@pytest.mark.parametrize(
    ("keyword", "value", "tag"),
    [
        ("PatientName", "Phantom^Tess", "(0010,0010)"),
        ("PatientID", "PHANTOM-2", "(0010,0020)"),
        ("PatientID", "", "(0010,0020)"),
        ("InstanceNumber", 2, "(0020,0013)"),
        ("RescaleSlope", "1.00", "(0028,1053)"),
        ("BitsStored", 12, "(0028,0101)"),
        ("ImageComments", "new", "(0020,4000)"),
    ],
)
def test_a_changed_element_is_named_without_its_value(keyword, value, tag, other):
    image = made.ct_image()
    found = compare_made(image, _with(image, **{keyword: value}), EXPLICIT, other)
    assert tag in found
    assert str(value) == "" or f" {value}" not in found


def test_a_change_inside_a_sequence_is_seen():
    image = rich_image()
    changed = copy.deepcopy(image)
    changed.ContributingEquipmentSequence[1].PurposeOfReferenceCodeSequence[0].CodeValue = "109103"
    assert "(0018,A001)[2](0040,A170)[1](0008,0100)" in compare_made(image, changed)
    assert compare_made(image, changed, EXPLICIT, IMPLICIT)
    del changed.ContributingEquipmentSequence[1]
    assert "items" in compare_made(image, changed)


def test_a_missing_private_element_is_seen():
    image = rich_image()
    changed = copy.deepcopy(image)
    del changed[0x00191002]
    assert "(0019,1002)" in compare_made(image, changed)


def test_pixels_in_one_copy_only_are_seen():
    image = made.ct_image()
    changed = copy.deepcopy(image)
    del changed.PixelData
    assert "Pixel Data" in compare_made(image, changed)


# --- what does not count -----------------------------------------------------


def test_group_lengths_and_trailing_padding_do_not_count():
    plain = made.encoded(made.ct_image())
    padded = struct.pack("<HH2sHL", 8, 0, b"UL", 4, 999) + plain
    padded += struct.pack("<HH2sHL", 0xFFFC, 0xFFFC, b"OB", 0, 6) + bytes(6)
    assert compare(plain, EXPLICIT, padded, EXPLICIT) == ""


@pytest.mark.parametrize(
    ("one", "other"), [(b"PHANTOM-1 ", b"PHANTOM-1\0"), (b"Phantom^Test", b"Phantom^Test  ")]
)
def test_padding_of_text_does_not_count(one, other):
    plain = made.encoded(made.instance())
    padded = plain.replace(struct.pack("<H", len(one)) + one, struct.pack("<H", len(other)) + other)
    assert padded != plain
    assert compare(plain, EXPLICIT, padded, EXPLICIT) == ""


def test_a_vr_that_one_copy_does_not_know_does_not_count():
    plain = made.encoded(made.instance())
    known = struct.pack("<HH2sH", 0x0010, 0x0020, b"LO", 10) + b"PHANTOM-1 "
    unknown = struct.pack("<HH2sHL", 0x0010, 0x0020, b"UN", 0, 10) + b"PHANTOM-1 "
    assert known in plain
    assert compare(plain, EXPLICIT, plain.replace(known, unknown), EXPLICIT) == ""


@pytest.mark.parametrize("vr", [b"SQ", b"UN"])
@pytest.mark.parametrize("is_undefined", [False, True])
def test_the_form_of_a_sequence_does_not_count(vr, is_undefined):
    code = Dataset()
    code.CodeValue = "1"
    plain = made.encoded(made.instance(RequestAttributesSequence=Sequence([code])))
    inside = {b"SQ": b"\x08\0\0\x01SH\x02\x001 ", b"UN": b"\x08\0\0\x01\x02\0\0\x001 "}[vr]
    value = struct.pack("<HHL", 0xFFFE, 0xE000, len(inside)) + inside
    length = len(value)
    if is_undefined:
        value = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF) + inside
        value += struct.pack("<HHL", 0xFFFE, 0xE00D, 0) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
        length = 0xFFFFFFFF
    start = plain.index(b"\x40\0\x75\x02SQ")
    end = plain.index(b"1 ", start) + 2
    other = plain[:start] + struct.pack("<HH2sHL", 0x0040, 0x0275, vr, 0, length) + value + plain[end:]
    assert compare(plain, EXPLICIT, other, EXPLICIT) == ""
    assert compare(plain, EXPLICIT, other.replace(b"1 ", b"2 "), EXPLICIT)


# --- pixels that cannot be decoded here --------------------------------------


def video(fragments: list[bytes]) -> bytes:
    head = made.instance("1.2.840.10008.5.1.4.1.1.77.1.1.1", sop_instance_uid="1.2", study_instance_uid="1.3",
                         series_instance_uid="1.4", NumberOfFrames=2, Rows=16, Columns=16)  # fmt: skip
    items = b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(one)) + one for one in [b"", *fragments])
    pixels = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + items
    return made.encoded(head) + pixels + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


def test_video_is_compared_as_it_is_encoded():
    whole = video([b"0123456789"])
    assert compare(whole, VIDEO, whole, VIDEO) == ""
    assert compare(whole, VIDEO, video([b"0123", b"456789"]), VIDEO) == ""
    assert "Pixel Data" in compare(whole, VIDEO, video([b"0123456788"]), VIDEO)
    assert "Pixel Data" in compare(whole, VIDEO, video([b"0123"]), VIDEO)


# --- real images and real tools ----------------------------------------------


def split(path) -> tuple[bytes, str]:
    content = path.read_bytes()
    syntax = pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
    return content[144 + struct.unpack_from("<L", content, 140)[0] :], syntax


@pytest.mark.parametrize("number", [1, 100, 275])
@pytest.mark.parametrize("option", ["+ti", "+te", "+tb"])
def test_a_real_jpeg_ls_slice_that_dcmtk_decompressed_is_the_same(tmp_path, number, option):
    received = require_data(f"series/CT_chest_LIDC-0314/{number:06d}.dcm")
    decompressed = tmp_path / "decompressed.dcm"
    subprocess.run(["dcmdjpls", option, received, decompressed], check=True, capture_output=True)
    assert compare(*split(received), *split(decompressed)) == ""


def test_a_real_jpeg_ls_slice_that_pydicom_decompressed_is_the_same(tmp_path):
    received = require_data("series/CT_chest_LIDC-0314/000100.dcm")
    data_set = pydicom.dcmread(received)
    data_set.decompress(generate_instance_uid=False)
    data_set.file_meta.TransferSyntaxUID = IMPLICIT
    data_set.save_as(tmp_path / "decompressed.dcm", implicit_vr=True)
    assert compare(*split(received), *split(tmp_path / "decompressed.dcm")) == ""


def test_neighbouring_real_slices_are_not_the_same():
    one, other = (require_data(f"series/CT_chest_LIDC-0314/{number:06d}.dcm") for number in (100, 101))
    assert compare(*split(one), *split(other))
