"""The size of a JPEG XL stream, read before anything of it is decoded."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from node.transcode import jpeg_xl

SHAPES = [(1, 1), (8, 8), (16, 256), (512, 512), (513, 511), (61, 83), (90, 160), (3, 9000), (2000, 1000)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("has_container", [False, True])
def test_it_is_that_of_the_image(shape: tuple[int, int], has_container: bool) -> None:
    encoded = imagecodecs.jpegxl_encode(
        np.zeros(shape, np.uint8), lossless=True, effort=1, usecontainer=has_container
    )
    assert jpeg_xl.size(encoded) == shape


def test_it_is_found_in_a_recompressed_jpeg() -> None:
    jpeg = imagecodecs.jpeg8_encode(np.zeros((61, 83), np.uint8))
    assert jpeg_xl.size(imagecodecs.jpegxl_encode_jpeg(jpeg)) == (61, 83)


def test_what_is_no_stream_or_ends_too_early_is_refused() -> None:
    whole = imagecodecs.jpegxl_encode(np.zeros((61, 83), np.uint8), lossless=True, usecontainer=True)
    start = whole.index(b"\xff\x0a")
    for damaged in (b"", b"\xff\x0a", whole[: start + 3], whole[:start], b"\xff\xd8" + whole, whole[:20]):
        with pytest.raises(ValueError, match="JPEG XL"):
            jpeg_xl.size(damaged)
