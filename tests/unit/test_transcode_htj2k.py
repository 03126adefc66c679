"""HTJ2K by OpenJPH: exact for whole streams, and nothing at all of others."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np
import pytest
from pydicom.encaps import encapsulate

from node.transcode import htj2k, pixels
from tests.support import made

HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"


def frame(kind: str = "u2", samples: int = 1) -> np.ndarray:
    shape = (40, 52) if samples == 1 else (40, 52, samples)
    steps = np.random.default_rng(11).integers(-4, 5, shape)
    return (np.cumsum(steps, axis=1) + 60).clip(1, 127).astype(kind)


def coded(samples: np.ndarray) -> bytes:
    return bytes(imagecodecs.htj2k_encode(samples, reversible=True))


def tile_part(code: bytes) -> int:
    return code.index(b"\xff\x90")


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2"])
def test_every_sample_comes_out_as_it_went_in(kind, samples):
    """Signed or not, narrow or wide, grey or colour, and whatever pads the stream to an even length."""
    expected = frame(kind, samples)
    decoded = htj2k.samples(coded(expected) + b"\0")
    assert decoded.dtype == expected.dtype
    assert np.array_equal(decoded, expected)


@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
def test_a_stream_that_is_cut_short_is_refused(end):
    """Wherever it is cut, and even where somebody put an end to it again."""
    code = coded(frame())
    for length in range(len(code) - 2):
        with pytest.raises(ValueError, match="code stream"):
            htj2k.samples(code[:length] + end)


def test_a_size_that_was_not_looked_at_takes_no_memory():
    """The size comes first in a stream; where something stands before it, that may hide another one."""
    code = coded(frame())
    harmless = code[:4] + code[4 : 4 + struct.unpack_from(">H", code, 4)[0]]
    comment = struct.pack(">HHH", 0xFF64, len(harmless) + 4, 0) + harmless
    huge = bytearray(code[2:])
    struct.pack_into(">L", huge, 6, 0xFFFFFFFF)
    with pytest.raises(ValueError, match="unusual"):
        htj2k.samples(code[:2] + comment + bytes(huge))


# imagecodecs cannot raise what OpenJPH finds, so it is seen by what was not decoded
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_openjph_finds_to_be_damaged_is_refused():
    """A stream with a hole that its markers do not show gives no samples, rather than a part of them.

    The hole is in the code-blocks of the finest resolution, whose lengths stand in a header before them.
    Where a header itself is damaged, no decoder can know: code-blocks carry no checksum.
    """
    code = coded(frame())
    start = tile_part(code)
    for hole in range(len(code) // 2, len(code) - 60):
        damaged = bytearray(code[:hole] + code[hole + 50 :])
        struct.pack_into(">L", damaged, start + 6, len(damaged) - 2 - start)
        with pytest.raises((ValueError, RuntimeError)):
            htj2k.samples(bytes(damaged))


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        pytest.param(24, (20).to_bytes(4), id="two tiles"),
        pytest.param(16, (1).to_bytes(4), id="an image that does not begin at the origin"),
        pytest.param(40, (300).to_bytes(2), id="hundreds of components"),
        pytest.param(42, b"\x25", id="samples of 38 bits"),
        pytest.param(43, b"\2", id="subsampled columns"),
    ],
)
def test_an_unusual_size_is_left_to_others(offset, value):
    """A size that may need more memory than the samples do is refused before anything is decoded."""
    code = coded(frame())
    with pytest.raises(ValueError, match="damaged or unusual"):
        htj2k.samples(code[:offset] + value + code[offset + len(value) :])


def test_an_image_that_ends_in_a_row_of_zeros_is_decoded():
    """Where OpenJPH cannot be seen to have come to the end, OpenJPEG decodes the frame."""
    expected = frame("i2")
    expected[-1] = 0
    image = made.ct_image(pixels=expected, PixelData=encapsulate([coded(expected)]))
    (decoded,) = pixels.frames(image, HTJ2K_LOSSLESS)
    assert np.array_equal(decoded, expected)
