"""Decoding: every kind of native pixel, and a name for everything that cannot be decoded."""

from __future__ import annotations

import io
import zlib

import imagecodecs
import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended

from node.errors import UnsupportedPixelData
from node.transcode import pixels
from tests.support import made

EXPLICIT = str(uid.ExplicitVRLittleEndian)
BIG_ENDIAN = str(uid.ExplicitVRBigEndian)


@pytest.fixture
def rng():
    """The same numbers for each test, whichever ran before it."""
    return np.random.default_rng(7)


def image(frames: np.ndarray, *, colour: bool = False, **attributes: object) -> Dataset:
    """An image; ``frames`` is shape (frame, row, column) or (frame, row, column, sample)."""
    data_set = Dataset()
    bits = frames.dtype.itemsize * 8
    data_set.NumberOfFrames = len(frames)
    data_set.Rows, data_set.Columns = frames.shape[1:3]
    data_set.SamplesPerPixel = 3 if colour else 1
    data_set.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        data_set.PlanarConfiguration = 0
    data_set.BitsAllocated = data_set.BitsStored = bits
    data_set.HighBit = bits - 1
    data_set.PixelRepresentation = int(frames.dtype.kind == "i")
    data_set.add_new(0x7FE00010, "OW" if bits > 8 else "OB", frames.tobytes())
    for keyword, value in attributes.items():
        setattr(data_set, keyword, value)
    return data_set


def decoded(data_set: Dataset, transfer_syntax_uid: str = EXPLICIT) -> np.ndarray:
    return np.stack(list(pixels.frames(data_set, transfer_syntax_uid)))


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4"])
def test_native_samples_come_out_as_they_went_in(kind, rng):
    frames = rng.integers(0, 255, (3, 5, 7)).astype(kind)
    assert np.array_equal(decoded(image(frames)), frames)
    assert decoded(image(frames)).dtype == kind


def test_planes_of_colour_come_out_pixel_by_pixel(rng):
    frames = rng.integers(0, 255, (2, 5, 7, 3)).astype(np.uint8)
    data_set = image(frames, colour=True, PlanarConfiguration=1)
    data_set.PixelData = np.moveaxis(frames, -1, 1).tobytes()
    assert np.array_equal(decoded(data_set), frames)


def test_bits_of_several_frames_are_not_padded_between_them(rng):
    frames = rng.integers(0, 2, (3, 5, 7)).astype(np.uint8)
    data_set = image(frames, BitsAllocated=1, BitsStored=1, HighBit=0)
    data_set.PixelData = np.packbits(frames, bitorder="little").tobytes()
    assert np.array_equal(decoded(data_set), frames)


def test_unused_bits_do_not_count(rng):
    words = rng.integers(0, 1 << 16, (1, 5, 7)).astype(np.uint16)
    low = decoded(image(words, BitsStored=12, HighBit=11))
    assert np.array_equal(low, words & 0xFFF)
    top = decoded(image(words, BitsStored=12, HighBit=15))
    assert np.array_equal(top, words >> 4)
    signed = decoded(image(words, BitsStored=12, HighBit=11, PixelRepresentation=1))
    assert signed.dtype == np.int16
    assert np.array_equal(signed & 0xFFF, words & 0xFFF)
    assert signed.min() >= -2048
    assert signed.max() < 2048


def test_floating_point_samples_come_out_as_they_went_in(rng):
    frames = rng.normal(size=(2, 5, 7)).astype(np.float32)
    data_set = image(frames.view(np.uint32))
    del data_set.PixelData, data_set.BitsStored, data_set.HighBit, data_set.PixelRepresentation
    data_set.FloatPixelData = frames.tobytes()
    assert np.array_equal(decoded(data_set), frames)


@pytest.mark.parametrize("vr", ["OB", "OW"])
def test_8_bit_samples_of_big_endian_words_lie_in_swapped_pairs(vr, rng):
    frames = rng.integers(0, 255, (2, 4, 6)).astype(np.uint8)
    data_set = image(frames)
    value = frames.view(">u2").astype("<u2").tobytes() if vr == "OW" else frames.tobytes()
    data_set.add_new(0x7FE00010, vr, value)
    assert np.array_equal(decoded(data_set, BIG_ENDIAN), frames)
    # the same from a file, where the VR stands before the value
    head = b"\x7f\xe0\x00\x10" + vr.encode() + b"\0\0" + len(value).to_bytes(4, "big")
    file = io.BytesIO(head + value)
    file.seek(len(head))
    del data_set.PixelData
    assert np.array_equal(np.stack(list(pixels.frames(data_set, BIG_ENDIAN, file))), frames)


def test_subsampled_chrominance_is_repeated():
    data_set = image(np.zeros((1, 1, 2, 3), np.uint8), colour=True)
    data_set.PhotometricInterpretation = "YBR_FULL_422"
    data_set.PixelData = bytes([10, 20, 30, 40])
    out = pixels.decoded(data_set, EXPLICIT)
    assert next(out.frames).tolist() == [[[10, 30, 40], [20, 30, 40]]]
    assert out.facts.photometric_interpretation == "YBR_FULL"


CODED = {
    uid.JPEGLSLossless: lambda frame: imagecodecs.jpegls_encode(frame.view(f"u{frame.itemsize}")),
    uid.JPEG2000Lossless: lambda frame: imagecodecs.jpeg2k_encode(
        frame, level=0, reversible=True, codecformat="j2k"
    ),
    uid.HTJ2KLossless: lambda frame: imagecodecs.htj2k_encode(frame, reversible=True),
    "1.2.840.10008.1.2.4.110": lambda frame: imagecodecs.jpegxl_encode(frame, lossless=True),
    uid.RLELossless: made.rle_frame,
    "1.2.840.10008.1.2.8.1": lambda frame: zlib.compress(frame.tobytes(), wbits=-15),
    "1.2.840.10008.1.2.1.98": lambda frame: frame.tobytes(),
    uid.JPEGLosslessSV1: lambda frame: imagecodecs.ljpeg_encode(frame.view(f"u{frame.itemsize}")),
}
SIGNLESS = {"1.2.840.10008.1.2.4.110"}


@pytest.mark.parametrize("table", ["basic", "extended", "none"])
@pytest.mark.parametrize("transfer_syntax_uid", CODED)
def test_each_compressed_syntax_gives_every_frame_back(transfer_syntax_uid, table, rng):
    kind = np.uint16 if transfer_syntax_uid in SIGNLESS else np.int16
    frames = np.cumsum(rng.integers(-9, 9, (3, 32, 48)), axis=2).astype(kind)
    data_set = image(frames)
    codes = [bytes(CODED[transfer_syntax_uid](frame)) for frame in frames]
    if table == "extended":
        value, offsets, lengths = encapsulate_extended(codes)
        data_set.ExtendedOffsetTable, data_set.ExtendedOffsetTableLengths = offsets, lengths
    else:
        value = encapsulate(codes, has_bot=table == "basic")
    data_set.add_new(0x7FE00010, "OB", value)
    assert np.array_equal(decoded(data_set, str(transfer_syntax_uid)), frames)


def test_a_multiple_component_transform_gives_rgb(rng):
    frames = rng.integers(0, 255, (1, 16, 16, 3)).astype(np.uint8)
    data_set = image(frames, colour=True, PhotometricInterpretation="YBR_RCT")
    code = imagecodecs.jpeg2k_encode(frames[0], level=0, reversible=True, codecformat="j2k", mct=True)
    data_set.add_new(0x7FE00010, "OB", encapsulate([bytes(code)]))
    out = pixels.decoded(data_set, str(uid.JPEG2000Lossless))
    assert out.facts.photometric_interpretation == "RGB"
    assert np.array_equal(next(out.frames), frames[0])


def small() -> Dataset:
    return image(np.zeros((2, 4, 4), np.uint16))


def without(keyword: str) -> Dataset:
    data_set = small()
    delattr(data_set, keyword)
    return data_set


def with_(**attributes: object) -> Dataset:
    data_set = small()
    for keyword, value in attributes.items():
        setattr(data_set, keyword, value)
    return data_set


@pytest.mark.parametrize(
    ("data_set", "transfer_syntax_uid"),
    [
        (without("PixelData"), EXPLICIT),
        (without("Rows"), EXPLICIT),
        (without("BitsAllocated"), EXPLICIT),
        (with_(Rows=0), EXPLICIT),
        (with_(Rows=65535, Columns=65535), EXPLICIT),
        (with_(BitsAllocated=12), EXPLICIT),
        (with_(BitsStored=17), EXPLICIT),
        (with_(NumberOfFrames=3), EXPLICIT),
        (with_(SamplesPerPixel=2), EXPLICIT),
        (small(), str(uid.MPEG2MPML)),
        (small(), "1.2.3.4"),
        *(
            (with_(PixelData=value), str(transfer_syntax_uid))
            for transfer_syntax_uid in CODED
            for value in (
                b"",
                b"no items at all, surely",
                encapsulate([b"garbage", b"garbage!"]),
                encapsulate([b"\xff\xd8\xff\xf7\x00\x0b\x10\xff\xff\xff\xff\x01\x01\x11\x00"] * 2),
                encapsulate([b"\xff\x4f\xff\x51\x00\x29" + b"\xff" * 40] * 2),
            )
        ),
    ],
)
def test_what_cannot_be_decoded_is_refused_by_name(data_set, transfer_syntax_uid):
    with pytest.raises(UnsupportedPixelData):
        decoded(data_set, transfer_syntax_uid)


# imagecodecs cannot raise what OpenJPH finds, so it is seen by what was not decoded
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("transfer_syntax_uid", CODED)
def test_damaged_code_streams_never_raise_anything_else(transfer_syntax_uid, rng):
    frame = np.cumsum(rng.integers(-9, 9, (24, 24)), axis=1).astype(np.uint16)
    code = bytes(CODED[transfer_syntax_uid](frame))
    data_set = image(frame[None])
    for number in range(60):
        damaged = bytearray(code)
        if number % 2:
            damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        else:
            del damaged[rng.integers(1, len(damaged)) :]
        data_set.PixelData = encapsulate([bytes(damaged)])
        try:
            out = decoded(data_set, str(transfer_syntax_uid))
        except UnsupportedPixelData:
            continue
        assert out.shape == (1, 24, 24)


def test_a_colour_space_that_the_jpeg_stream_names_counts_more_than_the_header():
    frame = np.full((16, 16, 3), 128, np.uint8)
    code = bytes(imagecodecs.jpeg8_encode(frame))  # JFIF: luminance and chrominance
    data_set = image(frame[None], colour=True)
    data_set.PixelData = encapsulate([code])
    assert pixels.decoded(data_set, str(uid.JPEGBaseline8Bit)).facts.photometric_interpretation == "YBR_FULL"


def test_a_jpeg_ls_stream_that_is_cut_short_is_refused_and_not_decoded_for_ever(rng):
    frame = np.cumsum(rng.integers(-9, 9, (64, 64)), axis=1).astype(np.uint16)
    code = bytes(imagecodecs.jpegls_encode(frame))
    data_set = image(frame[None])
    for end in range(40, len(code) - 2, 37):
        data_set.PixelData = encapsulate([code[:end]])
        with pytest.raises(UnsupportedPixelData):
            decoded(data_set, str(uid.JPEGLSLossless))
