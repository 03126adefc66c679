"""Decompressed and re-encoded data sets say what they now hold."""

from __future__ import annotations

import io
import zlib

import imagecodecs
import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filereader import read_dataset

from node.errors import UnsupportedPixelData
from node.transcode.uncompressed import UNCOMPRESSED, uncompressed
from tests.support import made

EXPLICIT, IMPLICIT = UNCOMPRESSED
PIXELS = (np.arange(30 * 41).reshape(30, 41) % 500 - 250).astype(np.int16)
COLOUR = (np.arange(30 * 41 * 3).reshape(30, 41, 3) % 250).astype(np.uint8)


def recoded(data_set: Dataset, from_uid: str, to_uid: str) -> tuple[bytes, Dataset]:
    with uncompressed(io.BytesIO(made.encoded(data_set, from_uid)), str(from_uid), to_uid) as file:
        encoded = file.read()
    return encoded, read(encoded, to_uid)


def read(encoded: bytes, transfer_syntax_uid: str) -> Dataset:
    data_set = read_dataset(io.BytesIO(encoded), transfer_syntax_uid == IMPLICIT, True)
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = uid.UID(transfer_syntax_uid)
    return data_set


@pytest.mark.parametrize("to_uid", UNCOMPRESSED)
@pytest.mark.parametrize(
    "from_uid", [*made.NATIVE_TRANSFER_SYNTAXES, *made.COMPRESSED_TRANSFER_SYNTAXES], ids=lambda one: one.name
)
def test_every_syntax_becomes_the_same_little_endian_data_set(from_uid, to_uid):
    data_set = made.ct_image(pixels=PIXELS)
    encoded, after = recoded(data_set, from_uid, to_uid)
    assert np.array_equal(after.pixel_array, PIXELS)
    if from_uid != uid.ImplicitVRLittleEndian or to_uid == IMPLICIT:
        assert encoded == made.encoded(data_set, to_uid)
    assert after == read(made.encoded(data_set, to_uid), to_uid)


@pytest.mark.parametrize("to_uid", UNCOMPRESSED)
@pytest.mark.parametrize("from_uid", made.COMPRESSED_TRANSFER_SYNTAXES, ids=lambda one: one.name)
def test_decoded_colour_is_rgb_pixel_by_pixel(from_uid, to_uid):
    _, after = recoded(made.colour_image(pixels=COLOUR), from_uid, to_uid)
    assert (after.PhotometricInterpretation, after.PlanarConfiguration) == ("RGB", 0)
    assert np.array_equal(after.pixel_array, COLOUR)


def lossy(**attributes: object) -> tuple[bytes, np.ndarray]:
    """A JPEG Baseline image in luminance and chrominance; its encoding, and its RGB by another way."""
    picture = np.full((32, 32, 3), (200, 30, 90), np.uint8)
    code = bytes(imagecodecs.jpeg8_encode(picture, level=95))
    data_set = made.colour_image(pixels=picture, PhotometricInterpretation="YBR_FULL_422", **attributes)
    data_set.add_new(0x7FE00010, "OB", encapsulate([code]))
    data_set["PixelData"].is_undefined_length = True
    return made.encoded(data_set, uid.JPEGBaseline8Bit), np.asarray(imagecodecs.jpeg8_decode(code))


def test_lossy_jpeg_becomes_rgb_and_stays_lossy_in_name():
    encoded, expected = lossy()
    for to_uid in UNCOMPRESSED:
        with uncompressed(io.BytesIO(encoded), str(uid.JPEGBaseline8Bit), to_uid) as file:
            after = read(file.read(), to_uid)
        assert after.PhotometricInterpretation == "RGB"
        assert after.LossyImageCompression == "01"
        assert np.abs(after.pixel_array.astype(int) - expected).max() <= 3


def test_bits_are_packed_again():
    frames = np.random.default_rng(4).integers(0, 2, (3, 5, 7)).astype(np.uint8)
    data_set = made.ct_image(pixels=frames[0])
    data_set.BitsAllocated = data_set.BitsStored = data_set.NumberOfFrames = 1
    data_set.HighBit = 0
    data_set.NumberOfFrames = 3
    codes = [zlib.compress(np.packbits(frame, bitorder="little").tobytes(), wbits=-15) for frame in frames]
    data_set.add_new(0x7FE00010, "OB", encapsulate(codes))
    data_set["PixelData"].is_undefined_length = True
    encoded = made.encoded(data_set, uid.MPEG2MPML)  # as encapsulated as any
    with uncompressed(io.BytesIO(encoded), "1.2.840.10008.1.2.8.1", EXPLICIT) as file:
        after = read(file.read(), EXPLICIT)
    assert np.array_equal(after.pixel_array, frames)


def test_a_nested_image_that_is_compressed_cannot_go_out_uncompressed():
    icon = made.ct_image(pixels=PIXELS)
    icon.add_new(0x7FE00010, "OB", encapsulate([b"\xff\xd8\xff\xd9"]))
    icon["PixelData"].is_undefined_length = True
    data_set = made.ct_image(pixels=PIXELS)
    data_set.IconImageSequence = [icon]
    encoded = made.encoded(data_set, uid.JPEGLSLossless)
    with pytest.raises(UnsupportedPixelData):
        uncompressed(io.BytesIO(encoded), str(uid.JPEGLSLossless), EXPLICIT)


def test_native_pixels_where_compressed_ones_should_be_are_refused_by_name():
    encoded = made.encoded(made.ct_image(pixels=PIXELS))
    with pytest.raises(UnsupportedPixelData):
        uncompressed(io.BytesIO(encoded), str(uid.MPEG2MPML), EXPLICIT)


@pytest.mark.parametrize("transfer_syntax_uid", [uid.MPEG2MPML, uid.HEVCMP51, uid.JPEG2000Lossless])
def test_what_cannot_be_decoded_is_refused_by_name(transfer_syntax_uid):
    data_set = made.ct_image(pixels=PIXELS)
    data_set.add_new(0x7FE00010, "OB", encapsulate([b"nothing of the kind"]))
    data_set["PixelData"].is_undefined_length = True
    encoded = made.encoded(data_set, uid.MPEG2MPML)
    with pytest.raises(UnsupportedPixelData):
        uncompressed(io.BytesIO(encoded), str(transfer_syntax_uid), EXPLICIT)
