"""Lossless storage: exact, truthful and proven, or kept as received with the reason."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filereader import read_dataset
from pydicom.pixels import iter_pixels

from node.config.settings import LimitsConfig
from node.errors import IntegrityFailure, MalformedDataSet, OutOfSpace
from node.ingest.header import inflate
from node.transcode import choosing, encapsulation, lossless, pixels, restoring
from node.transcode.codecs import CODECS
from tests.support import made
from tests.support.made_pixels import (
    KINDS,
    colour,
    grey,
    multi_frame,
    overlaid,
    segments,
    smooth,
    stored_bits,
)
from tests.support.settling import settled

EXPLICIT = str(uid.ExplicitVRLittleEndian)
IMPLICIT = str(uid.ImplicitVRLittleEndian)
BIG_ENDIAN = str(uid.ExplicitVRBigEndian)
SYNTAXES = [EXPLICIT, IMPLICIT, BIG_ENDIAN]
READ_BY_PYDICOM = {str(one) for one in (uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless)}


GREY_16, ONLY_RLE = ("jpeg-", "htj2k", "deflated"), ("jpeg", "htj2k", "deflated")
REFUSED_BY: dict[str, tuple[str, ...]] = {
    "bits": ("jpeg", "htj2k", "rle"),
    "24 of 32 bits": GREY_16,
    "32 bits": ONLY_RLE,
    "32 bits signed": ONLY_RLE,
    "64 bits": ONLY_RLE,
    "overlay in the unused bits": ONLY_RLE,
    "12 upper bits": ONLY_RLE,
}
"""Beginnings of the names of the codecs that do not take a kind."""


def restored(stored: bytes, settlement: lossless.Settlement) -> bytes:
    private = json.loads(json.dumps(settlement.private))
    return b"".join(lossless.restore(io.BytesIO(stored), private))


def read(encoded: bytes, transfer_syntax_uid: str) -> Dataset:
    data_set = read_dataset(
        io.BytesIO(encoded), transfer_syntax_uid == IMPLICIT, transfer_syntax_uid != BIG_ENDIAN
    )
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = uid.UID(transfer_syntax_uid)
    return data_set


def frames_of(encoded: bytes, transfer_syntax_uid: str) -> list[np.ndarray]:
    data_set = read(encoded, transfer_syntax_uid)
    return list(pixels.frames(data_set, transfer_syntax_uid))


@pytest.mark.parametrize("choice", CODECS)
@pytest.mark.parametrize("transfer_syntax_uid", SYNTAXES, ids=["explicit", "implicit", "big endian"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_stored_smaller_and_given_back_byte_for_byte(kind, transfer_syntax_uid, choice):
    received = made.encoded(KINDS[kind](), transfer_syntax_uid)
    settlement, stored = settled(received, transfer_syntax_uid, choice)
    assert restored(stored, settlement) == received
    # Bits in swapped words are left alone, and of wide words pydicom swaps the halves: all bits are in use.
    is_left = transfer_syntax_uid == BIG_ENDIAN and (
        kind == "bits" or (kind, choice) == ("24 of 32 bits", "jpeg2000")
    )
    if is_left or choice.startswith(REFUSED_BY.get(kind, "deflated")):
        assert settlement.kept_reason
        assert stored == received
        return
    assert settlement.kept_reason == ""
    assert len(stored) < len(received)

    syntax = settlement.stored_transfer_syntax_uid
    before, after = read(received, transfer_syntax_uid), read(stored, syntax)
    originals, copies = frames_of(received, transfer_syntax_uid), frames_of(stored, syntax)
    assert len(originals) == len(copies)
    assert all(map(np.array_equal, originals, copies))
    if syntax in READ_BY_PYDICOM:
        others = list(iter_pixels(after, raw=True))
        assert all(map(np.array_equal, list(iter_pixels(before, raw=True)), others))
    for element in before:
        if element.keyword not in ("PixelData", "PhotometricInterpretation", "PlanarConfiguration"):
            assert after[element.tag] == element


def test_every_kind_is_taken_by_some_codec_or_by_those_that_are_tried_behind_it():
    for kind in KINDS:
        received = made.encoded(KINDS[kind]())
        settlement, stored = settled(received, EXPLICIT, *choosing.named("jpeg-ls"))
        assert settlement.kept_reason == ""
        assert restored(stored, settlement) == received


COLOUR_CODECS = [choice for choice in CODECS if choice != "deflated-frame"]


@pytest.mark.parametrize("choice", COLOUR_CODECS)
def test_the_stored_header_tells_the_truth_of_colour(choice):
    for planar in (False, True):
        received = made.encoded(made.colour_image(pixels=colour(), planar=planar))
        settlement, stored = settled(received, EXPLICIT, choice)
        after = read(stored, settlement.stored_transfer_syntax_uid)
        assert after.PhotometricInterpretation == ("YBR_RCT" if "2k" in choice or "2000" in choice else "RGB")
        assert after.PlanarConfiguration == (1 if choice == "rle" else 0)


def test_the_proof_says_what_was_done():
    received = made.encoded(multi_frame())
    settlement, stored = settled(received, EXPLICIT, "jpeg-ls")
    proof = settlement.proof
    assert proof["received"] == {
        "transfer_syntax_uid": EXPLICIT,
        "sha256": hashlib.sha256(received).hexdigest(),
        "length": len(received),
    }
    assert proof["stored"]["sha256"] == hashlib.sha256(stored).hexdigest()
    assert proof["stored"]["length"] == len(stored)
    assert proof["stored"]["frames"] == 5
    assert proof["stored"]["codec"] == "jpeg-ls"
    assert "charls" in proof["stored"]["codec_version"]
    assert proof["stored"]["parameters"] == {"near": 0}
    native = multi_frame().PixelData
    size = len(native) // 5
    frames = [native[start : start + size] for start in range(0, len(native), size)]
    assert settlement.private["frame_sha256"] == [hashlib.sha256(frame).hexdigest() for frame in frames]
    assert proof["stored"]["ratio"] == round(len(received) / len(stored), 4)
    assert proof["stored"]["seconds"] > 0
    assert not {"prefix", "frame_sha256"} & proof.keys()


def test_signed_words_with_empty_unused_bits_come_back_as_they_were():
    words = smooth(81, 65, low=-2000, high=2000).astype(np.int16).view(np.uint16) & 0xFFF
    data_set = made.ct_image(pixels=words, **stored_bits(12), PixelRepresentation=1)
    expected = frames_of(made.encoded(data_set), EXPLICIT)
    assert expected[0].min() < -1000
    for choice in COLOUR_CODECS:
        settlement, stored = settled(made.encoded(data_set), EXPLICIT, choice)
        assert settlement.kept_reason == ""
        assert restored(stored, settlement) == made.encoded(data_set)
        syntax = settlement.stored_transfer_syntax_uid
        assert np.array_equal(frames_of(stored, syntax), expected), choice
        if syntax in READ_BY_PYDICOM - {str(uid.RLELossless)}:
            assert np.array_equal(list(iter_pixels(read(stored, syntax), raw=True)), expected), choice


def test_a_signed_stream_of_others_without_a_sign_above_bits_stored_is_read_as_meant():
    words = smooth(81, 65, low=-2000, high=2000).astype(np.int16).view(np.uint16) & 0xFFF
    data_set = made.ct_image(pixels=words, **stored_bits(12), PixelRepresentation=1)
    expected = frames_of(made.encoded(data_set), EXPLICIT)
    data_set["PixelData"] = DataElement("PixelData", "OB", encapsulate([imagecodecs.jpegls_encode(words)]))
    assert np.array_equal(list(pixels.frames(data_set, str(uid.JPEGLSLossless))), expected)


def test_offset_tables_that_native_pixels_still_have_do_not_stay_beside_encoded_ones():
    data_set = multi_frame()
    data_set.add_new(0x7FE00001, "OV", bytes(8 * 5))
    data_set.add_new(0x7FE00002, "OV", bytes(8 * 5))
    encoded = made.encoded(data_set)
    settlement, stored = settled(encoded, EXPLICIT, "jpeg-ls")
    assert settlement.kept_reason == ""
    assert restored(stored, settlement) == encoded
    after = read(stored, str(uid.JPEGLSLossless))
    assert "ExtendedOffsetTable" not in after
    assert "ExtendedOffsetTableLengths" not in after
    assert np.array_equal(frames_of(stored, str(uid.JPEGLSLossless)), frames_of(encoded, EXPLICIT))


def test_more_frames_than_can_be_told_apart_in_memory_are_kept(monkeypatch):
    monkeypatch.setattr(lossless, "MOST_FRAMES", 4)
    encoded = made.encoded(multi_frame())
    settlement, stored = settled(encoded, EXPLICIT, "jpeg-ls")
    assert (settlement.kept_reason, stored) == ("more than 4 frames", encoded)


def test_bits_above_bits_stored_are_never_lost():
    words = smooth(81, 65, high=255).astype(np.uint16) | 0x3000
    encoded = made.encoded(made.ct_image(pixels=words, **stored_bits(12)))
    for choice in COLOUR_CODECS:
        if choice == "rle":
            continue
        settlement, stored = settled(encoded, EXPLICIT, choice)
        assert settlement.kept_reason == "the bits above Bits Stored are in use"
        assert stored == encoded
    settlement, stored = settled(encoded, EXPLICIT, "rle")
    assert settlement.kept_reason == ""
    assert restored(stored, settlement) == encoded


def test_what_stands_behind_the_samples_is_kept():
    data_set = multi_frame()
    data_set.PixelData += b"abcdef"
    data_set.add_new(0xFFFCFFFC, "OB", b"padding, as some write it")
    encoded = made.encoded(data_set)
    settlement, stored = settled(encoded, EXPLICIT, "jpeg-ls")
    assert settlement.kept_reason == ""
    assert restored(stored, settlement) == encoded
    assert read(stored, str(uid.JPEGLSLossless))[0xFFFCFFFC].value.startswith(b"padding")


def test_group_lengths_and_private_elements_survive_a_header_without_vrs():
    data_set = grey("i2", -500, 500)
    private = data_set.private_block(0x0029, "NOBODY KNOWS THIS", create=True)
    private.add_new(0x01, "UN", b"\1\2\3\4")
    private.add_new(0x02, "LO", "text")
    item = Dataset()
    item.CodeValue = "1"
    item.CodeMeaning = "nested"
    data_set.AnatomicRegionSequence = [item]
    data_set["AnatomicRegionSequence"].is_undefined_length = True
    item.is_undefined_length_sequence_item = True
    data_set.SmallestImagePixelValue = -500
    for transfer_syntax_uid in (IMPLICIT, EXPLICIT):
        plain = made.encoded(data_set, transfer_syntax_uid)
        is_implicit = transfer_syntax_uid == IMPLICIT
        head = b"\x28\0\0\0\4\0\0\0" if is_implicit else b"\x28\0\0\0UL\4\0"
        place = plain.index(b"\x28\0\2\0")
        encoded = plain[:place] + head + b"\x77\0\0\0" + plain[place:]
        settlement, stored = settled(encoded, transfer_syntax_uid, "jpeg2000")
        assert settlement.kept_reason == ""
        assert restored(stored, settlement) == encoded
        after = read(stored, str(uid.JPEG2000Lossless))
        assert after.AnatomicRegionSequence[0].CodeMeaning == "nested"
        assert after.SmallestImagePixelValue == -500
        assert after[0x00291001].value == b"\1\2\3\4"


def test_a_header_without_vrs_costs_next_to_nothing_beside_the_stored_one():
    encoded = made.encoded(grey("i2", -500, 500), IMPLICIT)
    settlement, _ = settled(encoded, IMPLICIT, "jpeg-ls")
    assert len(settlement.private["prefix"]["rest"]) < 100


def test_what_a_stored_header_says_of_the_received_one_never_changes():
    head = b"\x08\0\x16\0UI\4\x001.2\0" + b"\x29\0\1\x10OB\0\0\2\0\0\0ab"
    assert restoring.resembling(head, IMPLICIT) == (
        b"\x08\0\x16\0\4\0\0\x001.2\0" + b"\x29\0\1\x10\2\0\0\0ab"
    )
    assert restoring.resembling(head, EXPLICIT) == head


def with_pixels(**attributes: Any) -> Dataset:
    data_set = grey("u2", 0, 200)
    for keyword, value in attributes.items():
        setattr(data_set, keyword, value)
    return data_set


def bits() -> Dataset:
    data_set = made.ct_image(pixels=smooth(16, 16).astype(np.uint8))
    data_set.BitsAllocated = data_set.BitsStored = 1
    data_set.HighBit = 0
    data_set.PixelData = bytes(32)
    return data_set


def floats() -> Dataset:
    data_set = with_pixels(FloatPixelData=bytes(81 * 65 * 4), BitsAllocated=32)
    del data_set.PixelData, data_set.BitsStored, data_set.HighBit, data_set.PixelRepresentation
    return data_set


KEPT: dict[str, tuple[Dataset, str]] = {
    "an SR": (made.instance(), "no pixels"),
    "bits": (bits(), "1 bits allocated"),
    "32 bits": (made.ct_image(pixels=smooth(9, 9).astype(np.uint32)), "32 bits allocated"),
    "floats": (floats(), "floating-point pixels"),
    "too short": (with_pixels(Rows=82), "Pixel Data is shorter than its frames"),
    "more frames than said": (
        with_pixels(PixelData=bytes(81 * 65 * 2 * 2)),
        "Pixel Data is longer than Number of Frames says",
    ),
    "no Rows": (with_pixels(Rows=None), "the image has no usable Rows"),
    "subsampled": (
        made.colour_image(pixels=colour(), PhotometricInterpretation="YBR_FULL_422"),
        "subsampled colour of an odd width, of planes, or of more than 8 bits",
    ),
    "noise": (
        made.ct_image(pixels=np.random.default_rng(1).integers(0, 65535, (40, 40)).astype(np.uint16)),
        "jpeg-ls does not make it smaller",
    ),
    "high bit at the top": (with_pixels(BitsStored=12, HighBit=15), "High Bit is not below Bits Stored"),
}


@pytest.mark.parametrize("what", KEPT)
def test_what_cannot_be_encoded_is_kept_with_the_reason(what):
    data_set, reason = KEPT[what]
    encoded = made.encoded(data_set)
    settlement, stored = settled(encoded, EXPLICIT, "jpeg-ls")
    assert (settlement.kept_reason, stored) == (reason, encoded)
    assert settlement.stored_transfer_syntax_uid == EXPLICIT
    assert restored(stored, settlement) == encoded


@pytest.mark.parametrize(
    ("transfer_syntax_uid", "reason"),
    [
        (uid.DeflatedExplicitVRLittleEndian, "the data set is deflated"),
        (uid.JPEG2000Lossless, "already compressed"),
        (uid.RLELossless, "already compressed"),
    ],
)
def test_what_came_compressed_is_kept(transfer_syntax_uid, reason):
    encoded = made.encoded(made.ct_image(), transfer_syntax_uid)
    settlement, stored = settled(encoded, str(transfer_syntax_uid), "jpeg-ls")
    assert (settlement.kept_reason, stored) == (reason, encoded)
    assert settlement.stored_transfer_syntax_uid == transfer_syntax_uid


def test_keep_keeps():
    encoded = made.encoded(made.ct_image())
    settlement, stored = settled(encoded, EXPLICIT)
    assert (settlement.kept_reason, stored) == ("the configuration says keep", encoded)


def test_a_codec_that_alters_one_sample_is_found_out(monkeypatch):
    honest = CODECS["jpeg-ls"]

    def altered(words: np.ndarray, facts: Any) -> bytes:
        words = words.copy()
        words[0, 0] ^= 1
        return honest.encode(words, facts)

    monkeypatch.setitem(CODECS, "jpeg-ls", dataclasses.replace(honest, encode=altered))
    encoded = made.encoded(grey("u2", 0, 200))
    settlement, stored = settled(encoded, EXPLICIT, "jpeg-ls")
    assert settlement.kept_reason.startswith("not proven")
    assert stored == encoded


@pytest.mark.parametrize("error", [RuntimeError, ValueError, MemoryError, IndexError, OSError])
def test_a_codec_that_fails_costs_nothing_but_the_compression(monkeypatch, error):
    def failing(words: np.ndarray, facts: Any) -> bytes:
        raise error("the library says no")

    monkeypatch.setitem(CODECS, "rle", dataclasses.replace(CODECS["rle"], encode=failing))
    encoded = made.encoded(made.ct_image())
    settlement, stored = settled(encoded, EXPLICIT, "rle")
    assert (settlement.kept_reason, stored) == ("the library says no", encoded)


def test_no_space_to_work_in_is_no_reason_to_give_up_compression_for_ever(monkeypatch):
    def full(words: np.ndarray, facts: Any) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(CODECS, "rle", dataclasses.replace(CODECS["rle"], encode=full))
    with pytest.raises(OutOfSpace):
        settled(made.encoded(made.ct_image()), EXPLICIT, "rle")


def test_offsets_beyond_32_bits_go_into_the_extended_offset_table(monkeypatch):
    monkeypatch.setattr(encapsulation, "LARGEST_BASIC_OFFSET", 100)
    encoded = made.encoded(multi_frame())
    settlement, stored = settled(encoded, EXPLICIT, "jpeg-ls")
    assert settlement.kept_reason == ""
    assert restored(stored, settlement) == encoded
    after = read(stored, str(uid.JPEGLSLossless))
    assert len(after.ExtendedOffsetTable) == len(after.ExtendedOffsetTableLengths) == 5 * 8
    assert np.array_equal(
        np.stack(list(iter_pixels(after))), np.stack(list(iter_pixels(read(encoded, EXPLICIT))))
    )


def test_any_damage_to_what_is_stored_is_found():
    encoded = made.encoded(made.colour_image(pixels=colour()))
    settlement, stored = settled(encoded, EXPLICIT, "jpeg2000")
    found = 0
    start = settlement.private["stored"]["frames_offset"]
    for place in range(start, len(stored) - 8, max(1, (len(stored) - start) // 60)):
        damaged = bytearray(stored)
        damaged[place] ^= 0x10
        try:
            assert restored(bytes(damaged), settlement) == encoded  # a bit that no decoder reads
        except IntegrityFailure:
            found += 1
    assert found > 50
    for cut in (len(stored) // 2, start, 10):
        with pytest.raises(IntegrityFailure):
            restored(stored[:cut], settlement)


@pytest.mark.parametrize(
    "damage",
    [
        lambda private: private.pop("received"),
        lambda private: private["prefix"].update(rest="!!!"),
        lambda private: private["pixels"].pop("rows"),
        lambda private: private["pixels"].update(rows="many"),
        lambda private: private["stored"].update(codec="no such codec"),
        lambda private: private["stored"].update(frames_offset=3),
    ],
)
def test_a_damaged_proof_is_an_integrity_failure(damage):
    settlement, stored = settled(made.encoded(multi_frame()), EXPLICIT, "jpeg-ls")
    damage(settlement.private)
    with pytest.raises(IntegrityFailure):
        restored(stored, settlement)


def test_received_bytes_that_have_changed_meanwhile_are_not_stored():
    encoded = made.encoded(made.instance())
    with (
        lossless.settle(io.BytesIO(encoded), EXPLICIT, ["jpeg-ls"], data_set_sha256="0" * 64) as settlement,
        pytest.raises(IntegrityFailure),
    ):
        list(settlement.chunks())


def test_stored_objects_are_read_by_pydicom_as_they_are():
    settlement, stored = settled(made.encoded(multi_frame()), EXPLICIT, "rle")
    file = io.BytesIO(made.part10(made.instance())[:132])
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = uid.UID(settlement.stored_transfer_syntax_uid)
    file = io.BytesIO()
    pydicom.filewriter.write_file_meta_info(file, meta, enforce_standard=False)
    whole = io.BytesIO(bytes(128) + b"DICM" + file.getvalue() + stored)
    assert pydicom.dcmread(whole).pixel_array.shape == (5, 41, 65)


# --- the choice ----------------------------------------------------------------


def test_the_best_is_the_fastest_of_those_that_make_it_nearly_as_small_as_the_smallest():
    encoded = made.encoded(grey("i2", -1000, 3000))
    settlement, stored = settled(encoded, EXPLICIT, *CODECS, measure=True)
    assert settlement.kept_reason == ""
    assert restored(stored, settlement) == encoded
    measured = settlement.private["measured"]
    assert set(measured) == set(CODECS) - {"deflated-frame"}
    assert sorted(settlement.choices) == sorted(CODECS)
    assert settlement.choices[-1] == "deflated-frame"
    best = max(one["ratio"] for one in measured.values())
    good = [name for name in measured if measured[name]["ratio"] >= 0.95 * best]
    assert settlement.choices[0] == max(good, key=lambda name: measured[name]["mb_per_second"])
    assert settlement.private["stored"]["codec"] == settlement.choices[0]


def test_the_best_of_bits_is_a_deflated_frame_and_of_noise_nothing():
    settlement, _ = settled(made.encoded(segments()), EXPLICIT, *CODECS, measure=True)
    assert settlement.choices[0] == "deflated-frame"
    assert set(settlement.private["measured"]) == {"deflated-frame"}
    noise = made.encoded(KEPT["noise"][0])
    settlement, stored = settled(noise, EXPLICIT, *CODECS, measure=True)
    assert (settlement.kept_reason, stored) == ("no codec makes it smaller", noise)


def test_what_one_codec_refuses_the_next_one_takes_and_all_reasons_are_told():
    encoded = made.encoded(overlaid())
    settlement, _ = settled(encoded, EXPLICIT, "jpeg-ls", "jpeg2000", "rle")
    assert settlement.private["stored"]["codec"] == "rle"
    settlement, _ = settled(encoded, EXPLICIT, "jpeg-ls", "deflated-frame")
    assert settlement.kept_reason == "the bits above Bits Stored are in use"


# --- data sets without pixels ----------------------------------------------------


def document() -> Dataset:
    data_set = made.instance()
    data_set.add_new(0x00420011, "OB", b"a page of the same words " * 400)
    return data_set


def test_a_large_data_set_without_pixels_is_deflated_where_that_is_configured():
    encoded = made.encoded(document())
    settlement, stored = settled(encoded, EXPLICIT, "jpeg-ls", deflate_bytes=len(encoded))
    assert settlement.kept_reason == ""
    assert settlement.stored_transfer_syntax_uid == uid.DeflatedExplicitVRLittleEndian
    assert len(stored) < len(encoded) / 5
    assert len(stored) % 2 == 0
    assert restored(stored, settlement) == encoded
    assert zlib.decompress(stored, wbits=-15) == encoded
    for place in range(0, len(stored) - 2, 7):
        damaged = bytearray(stored)
        damaged[place] ^= 0x10
        with pytest.raises(IntegrityFailure):
            restored(bytes(damaged), settlement)


@pytest.mark.parametrize("length", range((1 << 20) - 3, (1 << 20) + 300, 23))
def test_a_deflated_data_set_of_any_length_is_inflated_whole(length):
    """What does not fit the reader's portion is still held when there is no more input."""
    data_set = made.instance()
    data_set.add_new(0x00420011, "OB", bytes(length - length % 2))
    encoded = made.encoded(data_set)
    settlement, stored = settled(encoded, EXPLICIT, "rle", deflate_bytes=1)
    assert settlement.kept_reason == ""
    assert restored(stored, settlement) == encoded
    for end in (b"", b"\0"):
        whole, count = inflate(io.BytesIO(stored + end), LimitsConfig(), keep_bytes=1 << 30)
        assert (whole.getvalue(), count) == (encoded, len(encoded))
    with pytest.raises(MalformedDataSet, match="cut short"):
        inflate(io.BytesIO(stored[: len(stored) // 2]), LimitsConfig(), keep_bytes=1 << 30)


def test_no_other_data_set_is_deflated():
    encoded = made.encoded(document())
    for options in ({}, {"deflate_bytes": len(encoded) + 1}):
        settlement, stored = settled(encoded, EXPLICIT, "jpeg-ls", **options)
        assert (settlement.kept_reason, stored) == ("no pixels", encoded)
    implicit = made.encoded(document(), IMPLICIT)
    settlement, stored = settled(implicit, IMPLICIT, "jpeg-ls", deflate_bytes=1)
    assert (settlement.kept_reason, stored) == ("no pixels", implicit)
    floating = made.encoded(floats())
    settlement, stored = settled(floating, EXPLICIT, "jpeg-ls", deflate_bytes=1)
    assert (settlement.kept_reason, stored) == ("floating-point pixels", floating)
